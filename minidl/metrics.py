"""Metrics: what is reported beside the loss. Each is the mean over samples of a per-sample value."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .kernels import metrics as kernel
from .validation import (
    check_array,
    check_int,
    check_labels,
    check_rows,
    check_sample_weight,
    check_targets,
    describe,
    unknown_name,
)

_SPARSE_KINDS = (kernel.SPARSE_CATEGORICAL_ACCURACY, kernel.SPARSE_TOP_K_CATEGORICAL_ACCURACY)


class Metric:
    """Mean over the samples of one kernel's row value.

    ``name`` is the key in logs, ``kind`` the kernel's number (None where it depends on the labels' form),
    ``k`` the number of classes that count as a hit, ``direction`` what is better: "up" or "down".
    ``needs_output`` is True where logits in place of the model's output would give another value.

    ``metric(y_true, y_pred, sample_weight=None)`` gives the mean over the samples, without touching the
    running mean that ``update_state``, ``result`` and ``reset_state`` keep, as in Keras.
    """

    kind: int | None = None
    direction = "down"
    needs_output = False
    default_name = ""
    k = 1

    def __init__(self, name: str | None = None):
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a string, got {describe(name)}")
        self.name = name or self.default_name
        self.reset_state()

    def kind_for(self, sparse: bool, outputs: int) -> int:
        """The kernel for labels (``sparse``) or rows of targets, under a model with so many outputs."""
        if sparse and self.kind not in _SPARSE_KINDS:
            raise ValueError(f"metric {self.name!r} needs targets shaped as the output, got class indices")
        if not sparse and self.kind in _SPARSE_KINDS:
            raise ValueError(f"metric {self.name!r} needs class indices of shape (N,), got rows of targets")
        return self.kind

    def needs_output_for(self, outputs: int) -> bool:
        """Whether logits would not do, under a model with so many outputs."""
        return self.needs_output

    def rows(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """Each sample's value, float64 (N,). y_pred (N, C); y_true: class indices (N,) or targets (N, C)."""
        pred = check_array("y_pred", y_pred)
        if pred.ndim == 1:
            pred = pred[:, None]
        dtype = pred.dtype if pred.dtype in (np.float32, np.float64) else np.float64
        pred = np.require(pred, dtype, "CAW").reshape(len(pred), -1)  # as the kernels are compiled for
        outputs = pred.shape[1]
        true = check_array("y_true", y_true)
        sparse = outputs > 1 and true[:1].size == 1
        try:
            kind = self.kind_for(sparse, outputs)
        except ValueError as error:
            raise ValueError(
                f"y_true of shape {true.shape} for y_pred of shape {pred.shape}: {error}"
            ) from None
        labels, targets = np.empty(0, np.int64), np.empty((0, 0), dtype)
        if sparse:
            labels = np.require(check_labels(true, outputs, "y_true", unlabelled=True), None, "CAW")
        else:
            flat = true.reshape(len(true), -1)
            targets = np.require(check_targets(flat, (outputs,), dtype, "y_true"), dtype, "CAW")
        check_rows("y_true", len(true), len(pred), "y_pred")
        values = np.empty(len(pred))
        kernel.metric_rows(kind, values, pred, labels, targets, self.k)
        return values

    def __call__(self, y_true, y_pred, sample_weight=None) -> float:
        values = self.rows(y_true, y_pred)
        if sample_weight is None:
            return float(values.mean())
        weight = check_sample_weight(sample_weight, len(values))
        return _ratio(float(values @ weight), float(weight.sum()))

    def reset_state(self) -> None:
        self._total = self._count = 0.0

    def update_state(self, y_true, y_pred, sample_weight=None) -> None:
        values = self.rows(y_true, y_pred)
        weight = (
            np.ones(len(values)) if sample_weight is None else check_sample_weight(sample_weight, len(values))
        )
        self._total += float(values @ weight)
        self._count += float(weight.sum())

    def result(self) -> float:
        return _ratio(self._total, self._count)

    def get_config(self) -> dict:
        return {"name": self.name}

    @classmethod
    def from_config(cls, config: dict) -> Metric:
        return cls(**config)

    def __repr__(self) -> str:
        settings = ", ".join(f"{key}={value!r}" for key, value in self.get_config().items())
        return f"{type(self).__name__}({settings})"


def _ratio(total: float, count: float) -> float:
    return total / count if count else 0.0


class Accuracy(Metric):
    """The share of samples predicted right, in the form the labels ask for, as Keras reads ``"accuracy"``:
    binary for one output, sparse categorical for class indices, categorical for rows of targets.
    """

    direction = "up"
    default_name = "accuracy"

    def kind_for(self, sparse: bool, outputs: int) -> int:
        if outputs == 1:
            return kernel.BINARY_ACCURACY
        return kernel.SPARSE_CATEGORICAL_ACCURACY if sparse else kernel.CATEGORICAL_ACCURACY

    def needs_output_for(self, outputs: int) -> bool:
        return outputs == 1  # the threshold is a probability; the largest logit is the largest output


class CategoricalAccuracy(Metric):
    """1 where the largest output is where the largest target is. Of equal ones the first is the largest."""

    kind = kernel.CATEGORICAL_ACCURACY
    direction = "up"
    default_name = "categorical_accuracy"


class SparseCategoricalAccuracy(Metric):
    """1 where the largest output is at the label."""

    kind = kernel.SPARSE_CATEGORICAL_ACCURACY
    direction = "up"
    default_name = "sparse_categorical_accuracy"


class BinaryAccuracy(Metric):
    """The share of a sample's outputs on the right side of 0.5 (0.5 itself counts as 0)."""

    kind = kernel.BINARY_ACCURACY
    direction = "up"
    needs_output = True
    default_name = "binary_accuracy"


class TopKCategoricalAccuracy(Metric):
    """1 where fewer than ``k`` outputs are larger than the one at the largest target."""

    kind = kernel.TOP_K_CATEGORICAL_ACCURACY
    direction = "up"
    default_name = "top_k_categorical_accuracy"

    def __init__(self, k: int = 5, name: str | None = None):
        self.k = check_int("k", k, minimum=1, maximum=2**31 - 1)
        super().__init__(name)

    def get_config(self) -> dict:
        return {"k": self.k, "name": self.name}


class SparseTopKCategoricalAccuracy(TopKCategoricalAccuracy):
    """1 where fewer than ``k`` outputs are larger than the one at the label."""

    kind = kernel.SPARSE_TOP_K_CATEGORICAL_ACCURACY
    default_name = "sparse_top_k_categorical_accuracy"


class MeanSquaredError(Metric):
    """Mean over a sample's outputs of (y - y_pred)^2."""

    kind = kernel.MEAN_SQUARED_ERROR
    needs_output = True
    default_name = "mean_squared_error"


class MeanAbsoluteError(Metric):
    """Mean over a sample's outputs of |y - y_pred|."""

    kind = kernel.MEAN_ABSOLUTE_ERROR
    needs_output = True
    default_name = "mean_absolute_error"


CLASSES = {
    cls.__name__: cls
    for cls in (
        Accuracy,
        CategoricalAccuracy,
        SparseCategoricalAccuracy,
        BinaryAccuracy,
        TopKCategoricalAccuracy,
        SparseTopKCategoricalAccuracy,
        MeanSquaredError,
        MeanAbsoluteError,
    )
}
_NAMES = {cls.default_name: cls for cls in CLASSES.values()}
_NAMES.update(
    acc=Accuracy, mse=MeanSquaredError, MSE=MeanSquaredError, mae=MeanAbsoluteError, MAE=MeanAbsoluteError
)


def get(identifier: str | type[Metric] | Metric) -> Metric:
    """A metric from its name, class or instance. The string given is the key in the logs, as in Keras."""
    if isinstance(identifier, str):
        if identifier in CLASSES:
            return CLASSES[identifier]()
        if identifier not in _NAMES:
            raise unknown_name("metric", identifier, _NAMES)
        return _NAMES[identifier](name=identifier)
    if isinstance(identifier, type) and issubclass(identifier, Metric):
        return identifier()
    if isinstance(identifier, Metric):
        return identifier
    raise TypeError(f"a metric must be a name or a minidl.metrics.Metric, got {describe(identifier)}")


def get_all(metrics: str | Metric | Iterable | None) -> list[Metric]:
    """What ``compile(metrics=...)`` takes: None, one metric or several, with names of their own."""
    if metrics is None:
        return []
    if isinstance(metrics, (str, Metric)) or not isinstance(metrics, Iterable):
        metrics = [metrics]
    found = [get(metric) for metric in metrics]
    names = [metric.name for metric in found]
    for name in names:
        if name == "loss" or names.count(name) > 1:
            raise ValueError(f"metrics must have distinct names other than 'loss', got {names}")
    return found


def categorical_accuracy(y_true, y_pred) -> np.ndarray:
    """Per-sample ``CategoricalAccuracy``."""
    return CategoricalAccuracy().rows(y_true, y_pred)


def sparse_categorical_accuracy(y_true, y_pred) -> np.ndarray:
    """Per-sample ``SparseCategoricalAccuracy``."""
    return SparseCategoricalAccuracy().rows(y_true, y_pred)


def binary_accuracy(y_true, y_pred) -> np.ndarray:
    """Per-sample ``BinaryAccuracy``."""
    return BinaryAccuracy().rows(y_true, y_pred)


def top_k_categorical_accuracy(y_true, y_pred, k: int = 5) -> np.ndarray:
    """Per-sample ``TopKCategoricalAccuracy``."""
    return TopKCategoricalAccuracy(k).rows(y_true, y_pred)


def sparse_top_k_categorical_accuracy(y_true, y_pred, k: int = 5) -> np.ndarray:
    """Per-sample ``SparseTopKCategoricalAccuracy``."""
    return SparseTopKCategoricalAccuracy(k).rows(y_true, y_pred)
