"""Lays out the operations of a model: the table that the compiled loop reads, with places in memory and addresses."""

from typing import NamedTuple

import numpy as np

from . import activations, featurewise, rowwise
from .matmul import PREFETCHING, PRODUCT
from .operations import FEATURES, OPERATIONS
from .program import ACTIVATION, COLUMNS, DENSE, Operation


class Plan(NamedTuple):
    """The operations of a model and where their outputs lie in a buffer of ``batch`` rows."""

    ops: np.ndarray
    settings: np.ndarray
    size: int  # elements of the buffer


def plan(ops, batch: int, dtype: np.dtype, training: bool = True) -> Plan:
    """Lay out the outputs of ``ops`` one after the other, each with what the operation keeps behind it.

    An activation overwrites an output that its operation does not need again, where it may.
    """
    table = np.zeros((len(ops), COLUMNS), np.int64)
    settings = np.zeros((len(ops), max([2, *(len(op.f) for op in ops)])), np.float64)
    at, end = 0, 0
    for index, op in enumerate(ops):
        not_read_again = index > 0 and (ops[index - 1].kind == DENSE or _row_of(ops[index - 1]) is not None)
        in_place = op.kind == ACTIVATION and op.activation not in activations.NEEDS_INPUT and not_read_again
        in_at, at = at, at if in_place else end
        if not in_place:
            end += _aligned(batch * op.out_size)
        row, kept_at, kept = _row_of(op), end, 0
        if row is not None:
            kept = row.kept(batch, op.out_size)
            end += _aligned(kept)
        (forward, *further), code = _units(op)
        backward, gradients = (
            (units.address(code, dtype) if training else 0) for units in (*further, forward)[:2]
        )
        table[index] = (
            op.kind,
            op.in_size,
            op.out_size,
            op.weight,
            op.bias,
            op.activation,
            op.layer,
            *op.i,
            in_at,
            at,
            in_at if op.activation in activations.NEEDS_INPUT else at,
            forward.address(code, dtype),
            backward,
            PREFETCHING.address("prefetching_panel", dtype) if training and index == 0 else 0,
            op.trainable and (op.kind == DENSE or row is not None),
            op.seed,
            gradients,
            kept_at,
            kept,
            row is not None,
            row is not None and row.of_batch,
            *_step_addresses(op, dtype, training),
        )
        settings[index, : len(op.f)] = op.f
    return Plan(table, settings, end)


def _aligned(size: int) -> int:
    return -(-size // 16) * 16


def _row_of(op) -> featurewise.Row | None:
    """The line of an operation that has parameters of its own for each feature."""
    return featurewise.FEATUREWISE.get(Operation(op.kind).name)


def _units(op) -> tuple:
    """The tables that have an operation's forward, backward and, of some, gradients; and its code in them."""
    if op.kind == DENSE:
        return (PRODUCT, PRODUCT), "product"
    if op.kind == ACTIVATION:
        return (activations.FORWARD, activations.BACKWARD), op.activation
    name = Operation(op.kind).name
    if name in featurewise.FEATUREWISE:
        return (featurewise.FORWARD, featurewise.BACKWARD, featurewise.GRADIENTS), name
    return (rowwise.FORWARD, rowwise.BACKWARD), name


def _steps(op, training: bool) -> list[tuple]:
    """Where the addresses of `STEP_FORWARD` and those after it come from: a table of units and a code in it."""
    is_featurewise = _row_of(op) is not None
    if op.kind in (DENSE, ACTIVATION) or not (training or is_featurewise):
        return []
    if not training:
        return [(FEATURES, "forward_block")]
    names = ["rows_forward", "rows_backward"]
    if is_featurewise:
        names = ["features_forward", "features_backward", *["features_learn"] * op.trainable]
    return [(OPERATIONS, name) for name in names]


def _step_addresses(op, dtype: np.dtype, training: bool) -> list[int]:
    addresses = [units.address(code, dtype) for units, code in _steps(op, training)]
    return [*addresses, 0, 0, 0][:3]


def unit_names(ops, training: bool) -> list[str]:
    """What `plan` compiles for ``ops``."""
    names = [
        units.name(code) for all_, code in map(_units, ops) for units in (all_ if training else all_[:1])
    ]
    names += [units.name(code) for op in ops for units, code in _steps(op, training)]
    return [*names, PREFETCHING.name("prefetching_panel")] if training else names
