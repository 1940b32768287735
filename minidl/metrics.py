"""Metrics: what is reported beside the loss. Each is the mean over the samples of a value per sample.

A metric is one class: its kernel, which direction is better, what it needs. Formulas are in ``kernels/metrics.py``.
"""

import copy
from collections.abc import Iterable

import numpy as np

from . import validation
from .kernels import metrics as kernel
from .registry import Configurable, Registry, check_kind, function_of, refuse_overridden, snake_case
from .registry import serialize as serialize


class Metric(Configurable):
    """The mean over the samples of one kernel's value per sample.

    ``metric(y_true, y_pred, sample_weight=None)`` gives the mean over these samples. It does not touch the
    running mean that ``update_state``, ``result`` and ``reset_state`` keep, as in Keras.

    Attributes
    ----------
    name : the key in logs, by default the class's name in snake case
    kind : the kernel's number, of ``minidl.kernels.metrics``
    direction : what is better, "up" or "down"
    needs_output : whether logits in place of the model's output would give another value
    k : how many of the largest outputs count as a hit
    """

    kind: int
    direction = "down"
    needs_output = False
    k = 1

    def __init__(self, name: str | None = None):
        self.name = validation.check_name(name, snake_case(type(self).__name__))
        self.reset_state()

    def kind_for(self, sparse: bool, outputs: int) -> int:
        """The kernel's number, if y holds class indices (``sparse``) and the model has so many outputs."""
        wants_labels = self.kind in kernel.SPARSE
        if sparse and not wants_labels:
            raise ValueError(f"metric {self.name!r} needs targets shaped as the output, got class indices")
        if wants_labels and not sparse:
            raise ValueError(f"metric {self.name!r} needs class indices of shape (N,), got rows of targets")
        return self.kind

    def kernel_for(self, sparse: bool, outputs: int) -> int:
        """`kind_for`, which a class of the user's may have overridden, checked."""
        kind = self.kind_for(sparse, outputs)
        check_kind(self, kind, kernel.Metric)
        return kind

    def needs_output_for(self, outputs: int) -> bool:
        """Whether logits would give another value than the output, if the model has so many outputs."""
        return self.needs_output

    def rows(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """Each sample's value, float64 (N,). y_pred (N, C); y_true: class indices (N,) or targets (N, C).

        y_pred may have further axes between the two; a sample's value is then the mean over them.
        """
        pred, true = validation.check_array("y_pred", y_pred), validation.check_array("y_true", y_true)
        if pred.ndim == 1:
            pred = pred[:, None]
        outputs = pred.shape[-1]
        if pred.ndim > 2:
            fitting = pred.shape, pred.shape[:-1], (*pred.shape[:-1], 1)
            if true.shape not in fitting:
                raise ValueError(
                    f"y_true must have shape {pred.shape} or {pred.shape[:-1]}, as y_pred, got {true.shape}"
                )
            rows = pred.reshape(-1, outputs)
            return self.rows(true.reshape(len(rows), -1), rows).reshape(len(pred), -1).mean(axis=1)
        dtype = pred.dtype if pred.dtype in (np.float32, np.float64) else np.dtype(np.float64)
        pred = np.require(pred, dtype, "CAW").reshape(len(pred), -1)  # what the kernel is compiled for
        outputs = pred.shape[1]
        sparse = outputs > 1 and true[:1].size == 1
        try:
            kind = self.kernel_for(sparse, outputs)
        except ValueError as error:
            raise ValueError(
                f"y_true of shape {true.shape} for y_pred of shape {pred.shape}: {error}"
            ) from None
        misses = np.count_nonzero(true < 0) if kind in (*kernel.SPARSE, kernel.BINARY_ACCURACY) else 0
        if misses:
            validation.warn(
                f"{self.name}: y_true is below 0 for {misses} of {len(true)} samples, which count as misses, as in "
                "Keras. Classes count from 0; of -1 and 1, (y_true + 1) // 2 makes 0 and 1"
            )
        labels, targets = np.empty(0, np.int64), np.empty((0, 0), dtype)
        if sparse:
            labels = validation.check_labels(true, outputs, "y_true", unlabelled=True)
        else:
            flat = true.reshape(len(true), -1)
            targets = np.require(validation.check_targets(flat, (outputs,), dtype, "y_true"), dtype, "CAW")
        validation.check_rows("y_true", len(true), len(pred), "y_pred")
        return self.values(pred, labels, targets)

    def values(self, pred: np.ndarray, labels: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """`rows` for arrays as the kernel takes them: labels int64 (N,) or targets (N, C), the other one empty."""
        values = np.zeros(len(pred))
        kind = self.kernel_for(targets.size == 0, pred.shape[1])
        kernel.metric_rows(kind, values, pred, labels, targets, self.k)
        return values

    def __call__(self, y_true, y_pred, sample_weight=None) -> float:
        alone = copy.copy(self)
        alone.reset_state()
        alone.update_state(y_true, y_pred, sample_weight)
        return alone.result()

    def reset_state(self) -> None:
        self._total = self._count = 0.0

    def update_state(self, y_true, y_pred, sample_weight=None) -> None:
        values = self.rows(y_true, y_pred)
        if sample_weight is None:
            self._total += float(values.sum())
            self._count += len(values)
        else:
            weight = validation.check_sample_weight(sample_weight, len(values))
            self._total += float(values @ weight)
            self._count += float(weight.sum())

    def result(self) -> float:
        return self._total / self._count if self._count else 0.0


METRICS = Registry("metric", Metric)


@METRICS.register("acc")
class Accuracy(Metric):
    """The share of samples that are predicted right. As Keras reads ``"accuracy"``, the form follows from y:
    binary for one output, sparse categorical for class indices, categorical for rows of targets.
    """

    direction = "up"

    def kind_for(self, sparse: bool, outputs: int) -> int:
        if outputs == 1:
            return kernel.BINARY_ACCURACY
        return kernel.SPARSE_CATEGORICAL_ACCURACY if sparse else kernel.CATEGORICAL_ACCURACY

    def needs_output_for(self, outputs: int) -> bool:
        return outputs == 1  # 0.5 is a probability; among several, the largest logit is the largest output


@METRICS.register()
class CategoricalAccuracy(Metric):
    """1 where the largest output is where the largest target is. Of equal ones the first is the largest."""

    kind = kernel.CATEGORICAL_ACCURACY
    direction = "up"


@METRICS.register()
class SparseCategoricalAccuracy(Metric):
    """1 where the largest output is at the label."""

    kind = kernel.SPARSE_CATEGORICAL_ACCURACY
    direction = "up"


@METRICS.register()
class BinaryAccuracy(Metric):
    """The share of a sample's outputs on the right side of 0.5 (0.5 itself counts as 0)."""

    kind = kernel.BINARY_ACCURACY
    direction = "up"
    needs_output = True


@METRICS.register()
class TopKCategoricalAccuracy(Metric):
    """1 where fewer than ``k`` outputs are larger than the one at the largest target."""

    kind = kernel.TOP_K_CATEGORICAL_ACCURACY
    direction = "up"

    def __init__(self, k: int = 5, name: str | None = None):
        self.k = validation.check_int("k", k, minimum=1, maximum=2**31 - 1)
        super().__init__(name)


@METRICS.register()
class SparseTopKCategoricalAccuracy(TopKCategoricalAccuracy):
    """1 where fewer than ``k`` outputs are larger than the one at the label."""

    kind = kernel.SPARSE_TOP_K_CATEGORICAL_ACCURACY


@METRICS.register("mse", "MSE")
class MeanSquaredError(Metric):
    """Mean over a sample's outputs of (y - y_pred)^2."""

    kind = kernel.MEAN_SQUARED_ERROR
    needs_output = True


@METRICS.register("mae", "MAE")
class MeanAbsoluteError(Metric):
    """Mean over a sample's outputs of |y - y_pred|."""

    kind = kernel.MEAN_ABSOLUTE_ERROR
    needs_output = True


categorical_accuracy = function_of(CategoricalAccuracy, Metric.rows)
sparse_categorical_accuracy = function_of(SparseCategoricalAccuracy, Metric.rows)
binary_accuracy = function_of(BinaryAccuracy, Metric.rows)
top_k_categorical_accuracy = function_of(TopKCategoricalAccuracy, Metric.rows)
sparse_top_k_categorical_accuracy = function_of(SparseTopKCategoricalAccuracy, Metric.rows)


def get(identifier: str | type[Metric] | dict | Metric) -> Metric:
    """A metric from its name, class, config or instance. A name is kept as the key in logs, as in Keras."""
    if isinstance(identifier, str) and identifier in METRICS.names:
        return METRICS.names[identifier](name=identifier)
    metric = METRICS.get(identifier)
    if metric is None:
        raise TypeError("metric must be a name, a config or a Metric, got None")
    refuse_overridden(metric, "rows", "values", "update_state", "reset_state", "result", "__call__")
    if type(metric).kind_for is Metric.kind_for:  # else the form follows from y
        check_kind(metric, getattr(metric, "kind", None), kernel.Metric)
    return metric


deserialize = get


def get_all(metrics: str | Metric | Iterable | None) -> list[Metric]:
    """What ``compile(metrics=...)`` takes: None, one metric or several. Their names must be distinct."""
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
