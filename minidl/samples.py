"""Inputs, labels, weights and teacher logits, checked once; and arrays as the kernels read them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from . import losses as loss_functions
from .kernels import network
from .kernels.simd import ALIGNMENT, aligned_zeros
from .validation import (
    check_array,
    check_class_weight,
    check_inputs,
    check_labels,
    check_rows,
    check_sample_weight,
    check_targets,
)

CHUNK_BYTES = 8 << 20
"""Rows of a foreign dtype are converted, and predictions evaluated, this much at a time."""
_NO_LABELS = np.empty(0, np.int64)
_NO_WEIGHT = np.empty(0, np.float64)


class Samples(NamedTuple):
    """Checked inputs and what goes with each row of them."""

    x: np.ndarray
    labels: np.ndarray  # int64 (N,) or (0,)
    targets: np.ndarray | None  # (N, outputs) of any real dtype
    teacher_logits: np.ndarray | None
    weight: np.ndarray  # float64 (N,) or (0,)

    def slice(self, low: int, high: int) -> Samples:
        return Samples(
            self.x[low:high],
            self.labels[low:high],
            None if self.targets is None else self.targets[low:high],
            None if self.teacher_logits is None else self.teacher_logits[low:high],
            self.weight[low:high],
        )


def _uses_labels(loss, y: np.ndarray, outputs: int) -> bool:
    """Whether ``y`` holds class indices rather than rows of targets."""
    if loss.sparse is not None:
        return loss.sparse
    return outputs > 1 and (y.ndim == 1 or y.shape[1:] == (1,))


def check_samples(model, loss, x, y, sample_weight=None, class_weight=None, argument="") -> Samples:
    """The arguments of fit and evaluate, checked against the model and the loss; ``y`` None: no labels."""
    loss.check_trainable()
    x = check_inputs(x, model.input_shape, model.dtype, argument + "x")
    outputs = math.prod(model.output_shape)
    labels, targets = _NO_LABELS, None
    if y is None:
        if loss.needs_labels:
            raise ValueError(f"{argument}y must be given, got None: {loss.labels_missing()}")
    else:
        y = check_array(argument + "y", y)
        if _uses_labels(loss, y, outputs):
            labels = check_labels(y, outputs, argument + "y", unlabelled=loss.distills)
            check_rows(argument + "y", len(labels), len(x), argument + "x")
        else:
            limits = (0.0, 1.0) if loss.fused_activation else None
            targets = check_targets(y, model.output_shape, model.dtype, argument + "y", limits=limits)
            check_rows(argument + "y", len(targets), len(x), argument + "x")
            targets = targets.reshape(len(targets), outputs)
    weight = _NO_WEIGHT
    if sample_weight is not None:
        weight = check_sample_weight(sample_weight, len(x), argument + "sample_weight", argument + "x")
    samples = Samples(x, labels, targets, None, weight)
    return samples if class_weight is None else with_class_weight(samples, class_weight, outputs)


def labelled_only(samples: Samples, argument: str) -> Samples:
    """Without the rows that have no label (-1), of which validation could say nothing."""
    if samples.targets is not None or samples.labels.min() >= 0:
        return samples
    rows = np.flatnonzero(samples.labels >= 0)
    if not len(rows):
        raise ValueError(f"{argument} must have labels, got -1 in each of its {len(samples.labels)} rows")
    weight = samples.weight[rows] if samples.weight.size else samples.weight
    return Samples(samples.x[rows], samples.labels[rows], None, None, weight)


def with_class_weight(samples: Samples, class_weight, outputs: int) -> Samples:
    """``samples``, each weighted by its class too; an unlabelled one keeps its weight."""
    by_class = check_class_weight(class_weight, max(outputs, 2))
    if samples.labels.size:
        classes = samples.labels
    elif samples.targets is None:
        raise ValueError("class_weight needs y, got y=None")
    elif outputs > 1:
        classes = np.argmax(samples.targets, axis=1)
    else:
        classes = (samples.targets[:, 0] > 0.5).astype(np.int64)
    chosen = np.where(classes >= 0, by_class[classes], 1.0)
    return samples._replace(weight=samples.weight * chosen if samples.weight.size else chosen)


def hard_loss(model, loss, y):
    """What a distilling loss is on labels alone: validation has no teacher."""
    if not loss.distills:
        return loss
    if isinstance(y, Samples):
        sparse = y.targets is None
    else:
        y = np.empty(0) if y is None else check_array("y", y)
        sparse = y.ndim == 1 or y.shape[1:] == (1,)
    kind = loss_functions.SparseCategoricalCrossentropy if sparse else loss_functions.CategoricalCrossentropy
    return kind(from_logits=model.final_activation != "softmax")


def is_native(array: np.ndarray) -> bool:
    """Whether the compiled loop can read rows of ``array`` where they are."""
    flags = array.flags
    return (
        array.dtype in network.CODES_OF_DTYPES
        and array.dtype.isnative
        and flags.c_contiguous
        and flags.aligned
    )


def as_rows(array: np.ndarray | None, dtype: np.dtype) -> network.Rows:
    if array is None:
        return network.NO_ROWS
    array = array.reshape(len(array), -1)
    return network.rows_of(array if is_native(array) else np.ascontiguousarray(array, dtype=dtype))


def aligned_rows(rows: int, size: int, dtype: np.dtype) -> np.ndarray:
    """Zeros (rows, size or a little more), every row on a cache line."""
    size = -(-size * dtype.itemsize // ALIGNMENT) * ALIGNMENT // dtype.itemsize
    return aligned_zeros(rows * size, dtype).reshape(rows, size)
