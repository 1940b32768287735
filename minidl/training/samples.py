"""The data of a training: inputs, labels, weights and teacher logits, checked once, and as the kernels read them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .. import losses
from ..kernels import program
from ..validation import (
    check_array,
    check_classes_left,
    check_inputs,
    check_sample_weight,
)
from .class_weight import sample_weights

CHUNK_BYTES = 8 << 20
"""Rows of a foreign dtype are converted, sparse ones made dense, and predictions evaluated, this much at a time."""
_NO_WEIGHT = np.empty(0, np.float64)


class Samples(NamedTuple):
    """Checked inputs and what goes with each row of them."""

    x: np.ndarray  # or SparseRows
    # int64 (N,) or (0,): classes; beside targets, 0 for a row that has a label; -1 for none
    labels: np.ndarray
    targets: np.ndarray | None  # (N, outputs) of any real dtype
    teacher_logits: np.ndarray | None
    weight: np.ndarray  # float64 (N,) or (0,)

    @property
    def y(self) -> np.ndarray | None:
        """The labels, the targets, or None where there is neither."""
        return self.targets if self.targets is not None else (self.labels if self.labels.size else None)

    def take(self, rows: slice | np.ndarray) -> Samples:
        """These rows of everything."""
        return Samples(*(part if part is None or part.size == 0 else part[rows] for part in self))


def check_samples(model, loss, x, y, sample_weight=None, class_weight=None, argument: str = "") -> Samples:
    """The data of fit and evaluate, checked against the model and the loss; ``y`` None: no labels.

    ``argument`` goes before the names x, y and sample_weight in errors.
    """
    loss.check_trainable()
    x = check_inputs(x, model.input_shape, model.dtype, argument + "x")
    names = argument + "y", argument + "x"
    labels, targets = loss.check_y(y, model.output_shape, len(x), model.dtype, *names)
    weight = _NO_WEIGHT
    if sample_weight is not None:
        weight = check_sample_weight(sample_weight, len(x), argument + "sample_weight", argument + "x")
    samples = Samples(x, labels, targets, None, weight)
    if class_weight is not None:
        samples = with_class_weight(samples, class_weight, math.prod(model.output_shape))
    loss.check_on(model, samples)
    return samples


def split_rows(count: int, validation_split: float) -> tuple[slice, slice | None]:
    """The rows ``fit`` trains on and those it holds out: the last ones, as in Keras."""
    kept = math.floor(count * (1 - validation_split))
    return slice(0, kept), slice(kept, count) if validation_split else None


def labelled_only(model, loss, samples: Samples, argument: str) -> Samples:
    """Without the rows that have no label (-1), of which validation could say nothing."""
    if not loss.distills or samples.labels.min(initial=0) >= 0:
        return samples
    rows = np.flatnonzero(samples.labels >= 0)
    if not len(rows):
        raise ValueError(f"{argument} must have labels, got -1 in each of its {len(samples.labels)} rows")
    check_labels_left(samples, math.prod(model.output_shape), argument=argument)
    return samples.take(rows)


def check_labels_left(
    samples: Samples, outputs: int, rows: slice = slice(None), argument: str = "y", batch: bool = False
) -> None:
    """Say so if -1 may be meant as a class: as `check_classes_left`, for sigmoids too."""
    labels = samples.labels[rows]
    if samples.targets is None:
        check_classes_left(labels, outputs, argument, batch)
    elif outputs == 1 and not batch and labels.min(initial=0) < 0:
        if np.all(samples.targets[rows][labels >= 0] == 1) and labels.max() >= 0:
            raise ValueError(
                f"{argument} must hold labels of 0 and 1, got 1 {np.count_nonzero(labels >= 0)} times and -1 "
                f"{np.count_nonzero(labels < 0)} times: -1 means 'no label'; of -1 and 1, (y + 1) // 2 makes 0 and 1"
            )


def with_class_weight(samples: Samples, class_weight, outputs: int, count: int | None = None) -> Samples:
    """``samples``, each weighted by its class too; an unlabelled one keeps its weight. See `sample_weights`."""
    chosen = sample_weights(class_weight, samples.labels, samples.targets, outputs, count)
    return samples._replace(weight=samples.weight * chosen if samples.weight.size else chosen)


def loss_without_teacher(model, loss, y) -> losses.Loss:
    """``loss``, or what a distilling loss is on labels alone: validation and evaluation have no teacher."""
    if not loss.distills:
        return loss
    if loss.fused_activation is None:
        return losses.MeanSquaredError()
    kind: type[losses.Loss] = losses.BinaryCrossentropy
    if loss.fused_activation == "softmax":
        sparse = y is None or loss.holds_labels(check_array("y", y), math.prod(model.output_shape))
        kind = losses.SparseCategoricalCrossentropy if sparse else losses.CategoricalCrossentropy
    return kind(from_logits=model.final_activation != loss.fused_activation)


def is_native(array: np.ndarray) -> bool:
    """Whether the compiled loop can read rows of ``array`` where they are; not if they are `SparseRows`."""
    if not isinstance(array, np.ndarray):
        return False
    dtype, flags = array.dtype, array.flags
    return dtype in program.CODES_OF_DTYPES and dtype.isnative and flags.c_contiguous and flags.aligned


def as_rows(array: np.ndarray | None, dtype: np.dtype) -> program.Rows:
    """``array`` (N, ...) as the compiled loop reads it, converted to ``dtype`` where it must be; None: no rows."""
    if array is None:
        return program.NO_ROWS
    array = array.reshape(len(array), -1)
    return program.rows_of(array if is_native(array) else np.ascontiguousarray(array, dtype=dtype))
