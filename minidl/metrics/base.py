"""The base class of all metrics: it checks the arguments, and keeps the sums that a result is a function of."""

import copy

import numpy as np

from .. import validation
from ..kernels import metrics as kernel
from ..registry import Configurable, Registry, check_kind, snake_case


class Metric(Configurable):
    """The mean over the samples of one kernel's value per sample; base of all others.

    A metric is a function of sums over the samples: ``sums`` gives those of a batch, ``result_of`` what is reported
    of their total. Of a metric with a kernel they are the sum of the rows' values and the number of rows.

    ``metric(y_true, y_pred, sample_weight=None)`` gives the result for these samples. It does not touch the
    running sums that ``update_state``, ``result`` and ``reset_state`` keep, as in Keras.

    Attributes
    ----------
    name : the key in logs, by default the class's name in snake case
    kind : the kernel's number, of ``minidl.kernels.metrics``
    has_kernel : whether a kernel gives the rows' values; else `sums` is plain NumPy
    direction : what is better, "up" or "down"; None: not known
    needs_output : whether logits in place of the model's output would give another value
    k : how many of the largest outputs count as a hit
    """

    kind: int
    has_kernel = True
    direction: str | None = "down"
    needs_output = False
    wants_labels: bool | None = None
    """Of a metric without a kernel: whether y must hold class indices, or rows of targets; None: either."""
    loss_kind: int | None = None
    """The number of the loss whose kernel gives the rows' values, of a metric that is the mean of one."""
    ignore_class: int | None = None
    counts = False
    """Whether `sums` are whole numbers: then several batches may be added up at once, with the same bits."""
    k = 1

    def __init__(self, name: str | None = None):
        self.name = validation.check_name(name, snake_case(type(self).__name__))
        self.reset_state()

    def kind_for(self, sparse: bool, outputs: int) -> int:
        """The kernel's number, if y holds class indices (``sparse``) and the model has so many outputs."""
        wants_labels = self.kind in kernel.SPARSE
        self._check_targets(sparse, wants_labels)
        return self.kind

    def kernel_for(self, sparse: bool, outputs: int) -> int:
        """`kind_for`, which a class of the user's may have overridden, checked."""
        kind = self.kind_for(sparse, outputs)
        check_kind(self, kind, kernel.Metric)
        return kind

    def check_fits(self, sparse: bool, outputs: int) -> None:
        """A ValueError unless the metric can be computed of such targets and so many outputs."""
        if self.has_kernel:
            self.kernel_for(sparse, outputs)
        elif self.wants_labels is not None:
            self._check_targets(sparse, self.wants_labels)

    def _check_targets(self, sparse: bool, wants_labels: bool) -> None:
        if sparse and not wants_labels:
            raise ValueError(f"metric {self.name!r} needs targets shaped as the output, got class indices")
        if wants_labels and not sparse:
            raise ValueError(f"metric {self.name!r} needs class indices of shape (N,), got rows of targets")

    def needs_output_for(self, outputs: int) -> bool:
        """Whether logits would give another value than the output, if the model has so many outputs."""
        return self.needs_output

    def rows(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """Each sample's value, float64 (N,). y_pred (N, C); y_true: class indices (N,) or targets (N, C).

        y_pred may have further axes between the two; a sample's value is then the mean over them.
        """
        pred, true = validation.check_array("y_pred", y_pred), validation.check_array("y_true", y_true)
        if pred.ndim > 2:
            fitting = pred.shape, pred.shape[:-1], (*pred.shape[:-1], 1)
            if true.shape not in fitting:
                raise ValueError(
                    f"y_true must have shape {pred.shape} or {pred.shape[:-1]}, as y_pred, got {true.shape}"
                )
            rows = pred.reshape(-1, pred.shape[-1])
            return self.rows(true.reshape(len(rows), -1), rows).reshape(len(pred), -1).mean(axis=1)
        return self.values(*self._as_arrays(pred, true))

    def _as_arrays(self, pred: np.ndarray, true: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(outputs (N, C), labels int64 (N,) or (0,), targets (N, C) or (0, 0)) as kernels take them."""
        if pred.ndim == 1:
            pred = pred[:, None]
        dtype = pred.dtype if pred.dtype in (np.float32, np.float64) else np.dtype(np.float64)
        pred = np.require(pred, dtype, "CAW").reshape(len(pred), -1)
        outputs = pred.shape[1]
        sparse = outputs > 1 and true[:1].size == 1
        try:
            self.check_fits(sparse, outputs)
        except ValueError as error:
            raise ValueError(
                f"y_true of shape {true.shape} for y_pred of shape {pred.shape}: {error}"
            ) from None
        self._warn_of_unlabelled(true, sparse, outputs)
        labels, targets = np.empty(0, np.int64), np.empty((0, 0), dtype)
        if sparse:
            labels = validation.check_labels(true, outputs, "y_true", self.has_kernel, self.ignore_class)
        else:
            flat = true.reshape(len(true), -1)
            targets = np.require(validation.check_targets(flat, (outputs,), dtype, "y_true"), dtype, "CAW")
        validation.check_rows("y_true", len(true), len(pred), "y_pred")
        return pred, labels, targets

    def _warn_of_unlabelled(self, true: np.ndarray, sparse: bool, outputs: int) -> None:
        of_labels = (*kernel.SPARSE, kernel.BINARY_ACCURACY)
        counts = self.has_kernel and self.kind_for(sparse, outputs) in of_labels
        misses = np.count_nonzero(true < 0) if counts else 0
        if misses:
            validation.warn(
                f"{self.name}: y_true is below 0 for {misses} of {len(true)} samples, which count as misses, as in "
                "Keras. Classes count from 0; of -1 and 1, (y_true + 1) // 2 makes 0 and 1"
            )

    def values(self, pred: np.ndarray, labels: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """`rows` for arrays as the kernel takes them: labels int64 (N,) or targets (N, C), the other one empty."""
        values = np.zeros(len(pred))
        kind = self.kernel_for(targets.size == 0, pred.shape[1])
        kernel.metric_rows(kind, values, pred, labels, targets, self.k)
        return values

    def sums_size(self, outputs: int) -> int:
        """How many numbers `sums` gives, if the model has so many outputs."""
        return 2

    def sums(
        self, pred: np.ndarray, labels: np.ndarray, targets: np.ndarray, weight: np.ndarray | None = None
    ) -> np.ndarray:
        """What a batch adds to the state, float64 (`sums_size`,). Arrays as `values` takes them; weight (N,)."""
        return mean_sums(self.values(pred, labels, targets), weight)

    def result_of(self, sums: np.ndarray) -> float | np.ndarray:
        """The result for a total of `sums`: a number, or one for each class or threshold."""
        total, count = sums
        return float(total) / float(count) if count else 0.0

    def __call__(self, y_true, y_pred, sample_weight=None) -> float | np.ndarray:
        alone = copy.copy(self)
        alone.reset_state()
        alone.update_state(y_true, y_pred, sample_weight)
        return alone.result()

    def reset_state(self) -> None:
        """Forget all samples."""
        self._sums: np.ndarray | None = None

    def update_state(self, y_true, y_pred, sample_weight=None) -> None:
        """Add samples, as ``__call__`` takes them, to the running sums."""
        pred, true = validation.check_array("y_pred", y_pred), validation.check_array("y_true", y_true)
        if pred.ndim > 2:
            values = self.rows(true, pred)
            self._add(mean_sums(values, self._checked_weight(sample_weight, len(values))))
            return
        arrays = self._as_arrays(pred, true)
        self._add(self.sums(*arrays, self._checked_weight(sample_weight, len(arrays[0]))))

    def _checked_weight(self, sample_weight, rows: int) -> np.ndarray | None:
        return None if sample_weight is None else validation.check_sample_weight(sample_weight, rows)

    def _add(self, sums: np.ndarray) -> None:
        if self._sums is not None and len(self._sums) != len(sums):
            raise ValueError(
                f"metric {self.name!r} has seen another number of outputs since its last reset_state: call that first"
            )
        self._sums = sums if self._sums is None else self._sums + sums

    def result(self) -> float | np.ndarray:
        """The result for the running sums; 0 before there are any."""
        return 0.0 if self._sums is None else self.result_of(self._sums)


def mean_sums(values: np.ndarray, weight: np.ndarray | None) -> np.ndarray:
    """(sum of the rows' values, their number), both weighted."""
    if weight is None:
        return np.array([float(values.sum()), len(values)])
    return np.array([float(values @ weight), float(weight.sum())])


class OfSums(Metric):
    """Base of the metrics that are no mean over the rows: plain NumPy, in ``sums`` and ``result_of``."""

    has_kernel = False
    needs_output = True
    wants_labels = False
    direction = "up"

    def update_state(self, y_true, y_pred, sample_weight=None) -> None:
        if np.ndim(y_pred) > 2:
            raise ValueError(f"y_pred must have shape (N, C), got {np.shape(y_pred)}")
        super().update_state(y_true, y_pred, sample_weight)

    def rows(self, y_true, y_pred):
        raise TypeError(f"{self.name} is no mean over the samples: it has no value for each of them")


EPSILON = 1e-7
"""Keras's ``epsilon()``: it is added to what an F score divides by, and AUC's outermost thresholds lie so far outside
of [0, 1]."""


def in_single(array: np.ndarray) -> np.ndarray:
    """float32, in which Keras compares."""
    with np.errstate(over="ignore"):
        return np.asarray(array, np.float32)


def divided(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, and 0 where b is 0."""
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b != 0)


def number_or_array(result: np.ndarray) -> float | np.ndarray:
    """A single number as a float; several stay an array."""
    return float(result.reshape(())) if result.size == 1 else result


METRICS = Registry("metric", Metric)
