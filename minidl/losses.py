"""Losses, supervised and distilling: the value and the gradient together, on the network's logits.

A loss is called as in Keras, ``loss(y_true, y_pred)``; training asks ``value_and_grad``. Formulas and
defaults are Keras 3's; a distillation loss names its paper. Throughout, z are the student's logits, v the
teacher's, ``q = softmax(z / T)``, ``p = softmax(v / T)``; each value is the mean over the batch, and
with ``sample_weight`` the weighted sum divided by B.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numpy as np

from .kernels import losses as kernels
from .kernels import threads
from .kernels.softmax import log_softmax_forward, softmax_forward
from .registry import Configurable, resolve, snake_case
from .registry import serialize as _serialize
from .validation import (
    REALS,
    check_array,
    check_bool,
    check_finite,
    check_float,
    check_int,
    check_labels,
    check_range,
    check_rows,
    check_sample_weight,
    check_targets,
    describe,
)

Schedule = float | Callable[[int], float]

_PROBABILITIES = " (probabilities; for logits say from_logits=True)"
_NO_LABELS = np.empty(0, np.int64)
_FLOPS_OF_A_ROW, _FLOPS_OF_AN_ENTRY = 12_000.0, 150.0
"""What a sample and each of its classes cost, in operations of a matrix product that take as long."""


def _as_real(argument: str, value) -> np.ndarray:
    """A finite C-contiguous array: float32 stays, everything else becomes float64."""
    array = check_array(argument, value)
    check_finite(argument, array)
    single = array.dtype.newbyteorder("=") == np.float32
    return np.require(array, np.float32 if single else np.float64, "CAW")  # kernels are compiled for these alone


# ---------------------------------------------------------------- softmax


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """``exp(z_i / T) / sum_j exp(z_j / T)`` along the last axis.

    logits (..., C) of any real dtype, finite; float32 stays float32, the rest becomes float64.
    Raises ValueError for a temperature that is not > 0 and finite, and for NaN or inf in the logits.
    """
    return _rows("logits", logits, temperature, softmax_forward)


def log_softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """``z_i / T - log(sum_j exp(z_j / T))`` along the last axis: finite where softmax rounds to 0."""
    return _rows("logits", logits, temperature, log_softmax_forward)


def boltzmann(energies: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """``exp(-s_i / T) / sum_j exp(-s_j / T)``: softmax of the negative energies, T = 1 / beta."""
    return _rows("energies", energies, temperature, softmax_forward, sign=-1.0)


def _rows(argument, values, temperature, kernel, sign=1.0):
    temperature = check_float("temperature", temperature, above=0)
    z = _as_real(argument, values)
    out = np.empty_like(z)
    if sign < 0:
        z = -z
    kernel(out.reshape(-1, z.shape[-1]), z.reshape(-1, z.shape[-1]), temperature)
    return out


def looks_like_probabilities(array: np.ndarray) -> bool:
    """Whether every row of (N, C) lies in [0, 1] and sums to 1; a single row may do so by chance."""
    if len(array) < 2 or array.shape[1] < 2:
        return False
    if array[0].min() < 0 or array[0].max() > 1:  # almost always enough
        return False
    in_range = array.min() >= 0 and array.max() <= 1
    return bool(in_range and np.allclose(array.sum(axis=1, dtype=np.float64), 1, atol=1e-3))


def check_logits(name: str, array: np.ndarray, from_probs: bool = False) -> np.ndarray:
    """Logits (N, C), finite, as float32 or float64; with ``from_probs`` the logarithms of probabilities.

    Raises ValueError for another shape, for NaN or inf (with the first index), and for rows that are
    probabilities where logits are meant: softmax of a softmax is nearly uniform, and teaches nothing.
    """
    logits = _as_real(name, check_array(name, array, ndim=2))
    if check_bool("from_probs", from_probs):
        check_range(name, logits, 0.0, 1.0, why=" (probabilities)")
        return np.log(np.maximum(logits, np.finfo(np.float32).tiny))
    if looks_like_probabilities(logits):
        raise ValueError(
            f"{name} must be logits, got rows in [0, 1] that sum to 1: those are probabilities. Give what "
            f"comes before the softmax, or convert them: check_logits({name!r}, {name}, from_probs=True)"
        )
    return logits


# ---------------------------------------------------------------- the base class


class Loss(Configurable):
    """A loss by the kernels' number for it.

    Attributes training reads: ``fused_activation`` ("softmax", "sigmoid" or None: the final activation
    the loss is fused with), ``from_logits``, ``distills`` (needs teacher logits), ``sparse`` (y holds class
    indices; None: either), ``needs_labels`` (False: y may be None), ``needs_target`` (a row without a
    label adds nothing at all), ``whole_batch`` (a row's loss depends on the batch), ``kind(on_logits)`` and
    ``hyper`` for `kernels.losses.loss_rows`.
    """

    fused_activation: str | None = None
    distills = False
    sparse: bool | None = False
    whole_batch = False
    from_logits = False
    needs_labels = True
    needs_target = False
    label_smoothing = 0.0
    _on_logits = _on_probs = -1

    def __init__(self, reduction: str = "sum_over_batch_size", name: str | None = None):
        if reduction not in ("sum_over_batch_size", "mean"):
            raise ValueError(
                f"reduction must be 'sum_over_batch_size', got {reduction!r}; for the loss of each sample "
                f"there is the function minidl.losses.{snake_case(type(self).__name__)}"
            )
        self.name = snake_case(type(self).__name__) if name is None else str(name)
        self.reduction = reduction

    def kind(self, on_logits: bool) -> int:
        """The kernel's number, for logits or for what the loss is defined on otherwise."""
        return self._on_logits if on_logits else self._on_probs

    def check_trainable(self) -> None:
        """A ValueError if the loss is 0 whatever the model says."""

    def labels_missing(self) -> str:
        """Why y must not be None, and what to write instead."""
        return f"{self.name} learns from labels; only a distillation loss with hard_weight=0 does without"

    @property
    def hyper(self) -> np.ndarray:
        """The kernel's settings, float64 (8,)."""
        hyper = np.zeros(8)
        hyper[kernels.LABEL_SMOOTHING] = self.label_smoothing
        return hyper

    def is_scheduled(self, setting: str) -> bool:
        """Whether ``setting`` changes over the epochs."""
        return False

    def set_epoch(self, epoch: int) -> None:
        """Training says which epoch (from 0) begins; schedules follow it."""

    def __call__(self, y_true, y_pred, sample_weight=None) -> float:
        """The mean loss. y_pred (B, C) is what the network gives: probabilities unless ``from_logits``."""
        pred = _predictions("y_pred", y_pred, _classes_of(y_true, self.sparse))
        labels, targets = self._targets(y_true, pred, "y_true")
        if self._on_logits != self._on_probs and not self.from_logits:
            check_range("y_pred", pred, 0.0, 1.0, why=_PROBABILITIES)
        return self._run(self.kind(self.from_logits), pred, labels, targets, None, sample_weight, False)[0]

    def value_and_grad(self, logits, y, sample_weight=None) -> tuple[float, np.ndarray]:
        """(mean loss, its gradient by the logits): logits (B, C) before any fused activation.

        y: rows of targets (B, C), or class indices (B,) for a sparse loss. sample_weight (B,), >= 0.
        The gradient has the logits' shape, float32 if they are and else float64.
        """
        z = _predictions("logits", logits)
        labels, targets = self._targets(y, z, "y")
        return self._run(self.kind(True), z, labels, targets, None, sample_weight, True)

    def _targets(self, y, z, argument):
        """(labels, targets): one is filled, the other has size 0 or is None."""
        sparse = self.sparse
        if sparse is None:
            y = check_array(argument, y)
            sparse = y.ndim == 1 or (y.shape[1:] == (1,) and z.shape[1] > 1)
        if sparse:
            labels = check_labels(y, z.shape[1], argument, unlabelled=self.distills)
            check_rows(argument, len(labels), len(z), "the logits")
            return labels, None
        limits = (0.0, 1.0) if self.fused_activation else None
        targets = check_targets(y, z.shape[1:], z.dtype, argument, limits=limits)
        check_rows(argument, len(targets), len(z), "the logits")
        return _NO_LABELS, np.require(targets, z.dtype, "CAW")

    def _run(self, kind, z, labels, targets, teacher, sample_weight, gradient):
        rows = len(z)
        scale = np.empty(rows)
        scale.fill(1.0 / rows)
        if sample_weight is not None:
            scale *= check_sample_weight(sample_weight, rows)
        empty = np.empty((0, 0), z.dtype)
        dlogits = np.empty_like(z) if gradient else empty
        row_loss = np.empty(rows)
        targets = empty if targets is None else targets
        teacher = empty if teacher is None else teacher
        batch = kernels.Batch(z, labels, targets, teacher, scale)
        work = _FLOPS_OF_A_ROW * rows + _FLOPS_OF_AN_ENTRY * z.size
        n_threads = 1 if self.whole_batch else threads.count_for(work)
        if n_threads == 1:
            kernels.loss_batch(kind, row_loss, dlogits, batch, self.hyper)
        else:
            threads.run(
                kernels.loss_rows_on_threads, int(kind), row_loss, dlogits, batch, self.hyper, threads=n_threads
            )
        return kernels.sum_of_rows(row_loss), dlogits

    def _keras_config(self) -> dict:
        return {"reduction": self.reduction, "name": self.name}

    def get_config(self) -> dict:
        return self._keras_config()


def _classes_of(y_true, sparse):
    """The last axis y_pred is expected to have, where y_true tells: it decides how a vector is read."""
    return 1 if not sparse and np.ndim(y_true) == 1 and np.size(y_true) > 0 else None


def _predictions(argument, value, classes=None) -> np.ndarray:
    array = _as_real(argument, value)
    if array.ndim == 1 and classes == 1:
        array = array[:, None]
    if array.ndim != 2:
        raise ValueError(f"{argument} must have shape (B, C), got {array.shape}")
    return array


# ---------------------------------------------------------------- supervised losses


class CategoricalCrossentropy(Loss):
    """``-sum_i y_i log q_i``, y a row of class probabilities (one-hot, or smoothed by ``label_smoothing`` s:
    ``y (1 - s) + s / C``). On probabilities, they are normalised and clipped to [1e-7, 1 - 1e-7]."""

    fused_activation = "softmax"
    _on_logits = kernels.CATEGORICAL_CROSSENTROPY
    _on_probs = kernels.CATEGORICAL_CROSSENTROPY_ON_PROBS

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        reduction: str = "sum_over_batch_size",
        name: str | None = None,
    ):
        super().__init__(reduction, name)
        self.from_logits = check_bool("from_logits", from_logits)
        self.label_smoothing = check_float("label_smoothing", label_smoothing, minimum=0, maximum=1)

    def get_config(self):
        settings = {"from_logits": self.from_logits, "label_smoothing": self.label_smoothing}
        return settings | self._keras_config()


class SparseCategoricalCrossentropy(Loss):
    """``-log q_y``, y a class index: (B,) or (B, 1)."""

    fused_activation = "softmax"
    sparse = True
    _on_logits = kernels.SPARSE_CATEGORICAL_CROSSENTROPY
    _on_probs = kernels.SPARSE_CATEGORICAL_CROSSENTROPY_ON_PROBS

    def __init__(
        self, from_logits: bool = False, reduction: str = "sum_over_batch_size", name: str | None = None
    ):
        super().__init__(reduction, name)
        self.from_logits = check_bool("from_logits", from_logits)

    def get_config(self):
        return {"from_logits": self.from_logits} | self._keras_config()


class BinaryCrossentropy(CategoricalCrossentropy):
    """Mean over the outputs of ``-[y log o + (1 - y) log(1 - o)]``, ``o = sigmoid(z)``.

    On logits it is exact at any size; on probabilities they are clipped to [1e-7, 1 - 1e-7].
    ``label_smoothing`` s squeezes y towards 1/2: ``y (1 - s) + s / 2``.
    """

    fused_activation = "sigmoid"
    _on_logits = kernels.BINARY_CROSSENTROPY
    _on_probs = kernels.BINARY_CROSSENTROPY_ON_PROBS


class MeanSquaredError(Loss):
    """Mean over the outputs of ``(y - yhat)^2``."""

    _on_logits = _on_probs = kernels.MEAN_SQUARED_ERROR


class HalfMeanSquaredError(Loss):
    """``1/2 sum over the outputs of (y - yhat)^2``: over the batch, the textbooks' ``1/(2B) sum``; gradient
    ``(yhat - y) / B``."""

    _on_logits = _on_probs = kernels.HALF_MEAN_SQUARED_ERROR


class MeanAbsoluteError(Loss):
    """Mean over the outputs of ``|y - yhat|``; at 0 the gradient is 0."""

    _on_logits = _on_probs = kernels.MEAN_ABSOLUTE_ERROR


class Huber(Loss):
    """Mean over the outputs of ``e^2 / 2`` where ``|e| <= delta``, else ``delta |e| - delta^2 / 2``."""

    _on_logits = _on_probs = kernels.HUBER

    def __init__(self, delta: float = 1.0, reduction: str = "sum_over_batch_size", name: str | None = None):
        super().__init__(reduction, name)
        self.delta = check_float("delta", delta, above=0)

    @property
    def hyper(self):
        hyper = super().hyper
        hyper[kernels.DELTA] = self.delta
        return hyper

    def get_config(self):
        return {"delta": self.delta} | self._keras_config()


class KLDivergence(Loss):
    """``sum_i y_i log(y_i / q_i)`` on probabilities, both clipped to [1e-7, 1]."""

    _on_logits = _on_probs = kernels.KL_DIVERGENCE


def _per_sample(loss: Loss, y_true, y_pred) -> np.ndarray:
    pred = _as_real("y_pred", y_pred)
    y = check_array("y_true", y_true)
    rows = pred.reshape(-1, pred.shape[-1])
    if loss.sparse:
        y = y[..., 0] if y.ndim == pred.ndim and y.shape[-1] == 1 else y
        if y.shape != pred.shape[:-1]:
            raise ValueError(
                f"y_true must have shape {pred.shape[:-1]} for y_pred {pred.shape}, got {y.shape}"
            )
        labels, targets = loss._targets(y.reshape(-1), rows, "y_true")
    else:
        if y.shape != pred.shape:
            raise ValueError(f"y_true must have the shape of y_pred {pred.shape}, got {y.shape}")
        labels, targets = loss._targets(y.reshape(rows.shape), rows, "y_true")
    if loss._on_logits != loss._on_probs and not loss.from_logits:
        check_range("y_pred", rows, 0.0, 1.0, why=_PROBABILITIES)
    out, empty = np.empty(len(rows)), np.empty((0, 0), rows.dtype)
    targets = empty if targets is None else targets
    kind = loss.kind(loss.from_logits)
    batch = kernels.Batch(rows, labels, targets, empty, np.ones(len(rows)))
    kernels.loss_batch(kind, out, empty, batch, loss.hyper)
    return out.astype(pred.dtype).reshape(pred.shape[:-1])


def categorical_crossentropy(y_true, y_pred, from_logits: bool = False, label_smoothing: float = 0.0):
    """The loss of each sample, (..., C) -> (...): see `CategoricalCrossentropy`."""
    return _per_sample(CategoricalCrossentropy(from_logits, label_smoothing), y_true, y_pred)


def sparse_categorical_crossentropy(y_true, y_pred, from_logits: bool = False):
    """The loss of each sample, (..., C) -> (...): see `SparseCategoricalCrossentropy`."""
    return _per_sample(SparseCategoricalCrossentropy(from_logits), y_true, y_pred)


def binary_crossentropy(y_true, y_pred, from_logits: bool = False, label_smoothing: float = 0.0):
    """The loss of each sample, (..., C) -> (...): see `BinaryCrossentropy`."""
    return _per_sample(BinaryCrossentropy(from_logits, label_smoothing), y_true, y_pred)


def mean_squared_error(y_true, y_pred):
    """The loss of each sample, (..., C) -> (...): see `MeanSquaredError`."""
    return _per_sample(MeanSquaredError(), y_true, y_pred)


def half_mean_squared_error(y_true, y_pred):
    """The loss of each sample, (..., C) -> (...): see `HalfMeanSquaredError`."""
    return _per_sample(HalfMeanSquaredError(), y_true, y_pred)


def mean_absolute_error(y_true, y_pred):
    """The loss of each sample, (..., C) -> (...): see `MeanAbsoluteError`."""
    return _per_sample(MeanAbsoluteError(), y_true, y_pred)


def huber(y_true, y_pred, delta: float = 1.0):
    """The loss of each sample, (..., C) -> (...): see `Huber`."""
    return _per_sample(Huber(delta), y_true, y_pred)


def kl_divergence(y_true, y_pred):
    """The loss of each sample, (..., C) -> (...): see `KLDivergence`."""
    return _per_sample(KLDivergence(), y_true, y_pred)


# ---------------------------------------------------------------- distillation losses


class Ramp(Configurable):
    """A schedule over epochs: in a straight line from ``start`` to ``end`` after ``epochs``, then constant.

    Any function of the epoch (counted from 0) will do as a schedule; this one can be saved with a model.
    """

    def __init__(self, start: float, end: float, epochs: int):
        self.start, self.end = check_float("start", start), check_float("end", end)
        self.epochs = check_int("epochs", epochs, minimum=1)

    def __call__(self, epoch: int) -> float:
        return self.start + (self.end - self.start) * min(epoch / self.epochs, 1.0)

    def get_config(self):
        return {"start": self.start, "end": self.end, "epochs": self.epochs}


class DistillationLoss(Loss):
    """Base of the losses with a teacher: ``hard_weight * CE(y, softmax(z)) + a soft term``.

    A subclass lists its settings in ``_settings``: name -> (index in hyper, lower limit, exclusive?).
    Each may be a number or a schedule: a function of the epoch (from 0), called as an epoch begins. y:
    class indices (B,), -1 for a row without a label, or rows of targets (B, C); None where no term needs it.
    """

    fused_activation = "softmax"
    distills = True
    sparse = None
    from_logits = True
    _shows_nonfinite = False  # a NaN or inf in any logit makes the value NaN or inf
    _settings: dict[str, tuple[int, float, bool]] = {}

    def __init__(self, name: str | None = None, **settings: Schedule):
        super().__init__(name=name)
        self._schedules: dict[str, Callable] = {}
        for setting, value in settings.items():
            if isinstance(value, dict):
                value = resolve(setting, value, Ramp, {"Ramp": Ramp})
            if callable(value):
                self._schedules[setting] = value
                value = value(0)
            setattr(self, setting, self._checked(setting, value))

    def _checked(self, setting, value):
        _, limit, exclusive = self._settings[setting]
        return check_float(setting, value, **({"above": limit} if exclusive else {"minimum": limit}))

    def is_scheduled(self, setting: str) -> bool:
        return setting in self._schedules

    def set_epoch(self, epoch: int) -> None:
        for setting, schedule in self._schedules.items():
            setattr(self, setting, self._checked(f"{setting}", schedule(epoch)))

    @property
    def needs_labels(self) -> bool:
        return self.needs_target or self.hard_weight != 0 or "hard_weight" in self._schedules

    def check_trainable(self):
        weights = [setting for setting in self._settings if setting != "temperature"]
        if not any(getattr(self, setting) or setting in self._schedules for setting in weights):
            raise ValueError(
                f"{' and '.join(weights)} of {self.name} must not all be 0: nothing is left to learn from"
            )

    def labels_missing(self) -> str:
        instead = "hard_weight=0.0" + ", soft_weight=1.0" * ("soft_weight" in self._settings)
        if self.needs_target:
            instead = "loss=KnowledgeDistillation(hard_weight=0.0, soft_weight=1.0)"
            why = f"{self.name} treats the labelled class apart"
        else:
            weight = "scheduled" if "hard_weight" in self._schedules else f"{self.hard_weight:g}, not 0"
            why = f"{self.name} learns from labels too (hard_weight is {weight})"
        return f"{why}; without labels write {instead}"

    @property
    def hyper(self):
        hyper = super().hyper
        hyper[kernels.TEMPERATURE] = 1.0
        for setting, (index, _, _) in self._settings.items():
            hyper[index] = getattr(self, setting)
        return hyper

    def __call__(self, y_true, y_pred, teacher_logits=None, sample_weight=None) -> float:
        """The mean loss; y_pred are the student's logits (B, C)."""
        z, labels, targets, teacher = self._inputs(y_pred, y_true, teacher_logits, ("y_pred", "y_true"))
        return self._run(self.kind(True), z, labels, targets, teacher, sample_weight, False)[0]

    def value_and_grad(self, logits, y, teacher_logits, sample_weight=None) -> tuple[float, np.ndarray]:
        """(mean loss, its gradient by the student's logits (B, C)); teacher_logits (B, C), row for row.

        Raises ValueError for shapes that differ, NaN or inf (with the first index), labels out of range,
        probabilities where logits are meant, and y=None where a term needs labels.
        """
        kind = self.kind(True)
        if sample_weight is None and self._are_plain(logits, y, teacher_logits):
            result = self._run(kind, logits, y, None, teacher_logits, None, True)
            if math.isfinite(result[0]):  # so were all inputs
                return result
        z, labels, targets, teacher = self._inputs(logits, y, teacher_logits, ("logits", "y"))
        return self._run(kind, z, labels, targets, teacher, sample_weight, True)

    def _are_plain(self, logits, y, teacher_logits) -> bool:
        """Whether the kernel can take these arrays unseen: the general checks take longer than a small batch.

        Only for losses that are not finite unless every logit of both sides is.
        """
        if not (self._shows_nonfinite and self.soft_weight):
            return False
        if not (type(logits) is type(teacher_logits) is type(y) is np.ndarray and logits.dtype in REALS):
            return False
        rows, classes = logits.shape if logits.ndim == 2 else (0, 0)
        return (
            rows > 0
            and classes > 0
            and teacher_logits.shape == logits.shape
            and teacher_logits.dtype == logits.dtype
            and y.shape == (rows,)
            and y.dtype == np.int64
            and logits.flags.carray
            and teacher_logits.flags.carray
            and y.flags.carray
            and kernels.are_usable(y, teacher_logits)
        )

    def _inputs(self, logits, y, teacher_logits, names):
        z = _predictions(names[0], logits)
        if teacher_logits is None:
            raise ValueError(f"teacher_logits must be given: {self.name} learns from a teacher, got None")
        teacher = check_logits("teacher_logits", teacher_logits)
        if teacher.shape != z.shape:
            raise ValueError(
                f"teacher_logits must have the shape of {names[0]} {z.shape}, got {teacher.shape}"
            )
        teacher = np.require(teacher, z.dtype, "CAW")
        if y is None:
            if self.needs_labels:
                raise ValueError(f"{names[1]} must be given, got None: {self.labels_missing()}")
            return z, _NO_LABELS, None, teacher
        return z, *self._targets(y, z, names[1]), teacher

    def get_config(self):
        config = {}
        for setting in self._settings:
            schedule = self._schedules.get(setting)
            if schedule is None:
                config[setting] = getattr(self, setting)
            else:
                config[setting] = _serialize(schedule) if isinstance(schedule, Ramp) else schedule
        return config | {"name": self.name}


_TEMPERATURE = (kernels.TEMPERATURE, 0.0, True)
_HARD = (kernels.HARD_WEIGHT, 0.0, False)
_SOFT = (kernels.SOFT_WEIGHT, 0.0, False)
_SECOND = (kernels.SECOND_WEIGHT, 0.0, False)


class KnowledgeDistillation(DistillationLoss):
    """``hard_weight CE(y, softmax(z)) + soft_weight T^2 KL(p || q)``, KL summed over the classes.

    Gradient by the logits: ``[hard_weight (softmax(z) - y) + soft_weight T (q - p)] / B``. Hinton, Vinyals
    and Dean 2015 (arXiv 1503.02531), who leave T and the weights to the user; by default T is 4, the weights
    0.1 and 0.9. A uniform teacher (zeros) at T = 1 with weights 1 - s and s smooths the labels by s.

    ``standardize``: z and v are first brought to mean 0 and standard deviation 1 in each row (ddof 1, 1e-7
    added to the deviation), so the student is free to choose its scale. Sun et al., CVPR 2024
    (arXiv 2403.01427), whose settings are ``temperature=2, hard_weight=0.1, soft_weight=9``.
    """

    _shows_nonfinite = True
    _on_logits = _on_probs = kernels.KNOWLEDGE_DISTILLATION
    _settings = {"temperature": _TEMPERATURE, "hard_weight": _HARD, "soft_weight": _SOFT}

    def __init__(
        self,
        temperature: Schedule = 4.0,
        hard_weight: Schedule = 0.1,
        soft_weight: Schedule = 0.9,
        standardize: bool = False,
        name: str | None = None,
    ):
        super().__init__(name, temperature=temperature, hard_weight=hard_weight, soft_weight=soft_weight)
        self.standardize = check_bool("standardize", standardize)

    @property
    def hyper(self):
        hyper = super().hyper
        hyper[kernels.STANDARDIZE] = self.standardize
        return hyper

    def get_config(self):
        config = super().get_config()
        return config | {"standardize": self.standardize}


class DecoupledKD(DistillationLoss):
    """``hard_weight CE + T^2 [target_weight KL_bin(p_t || q_t) + nontarget_weight KL(p^ || q^)]``.

    KL_bin compares the labelled class t with all others together, p^ and q^ are p and q over the others,
    renormalised. Both terms stay finite at p_t = 1; with two classes the second is 0. The two weights grow
    over the first ``warmup_epochs`` epochs of training as ``min((epoch + 1) / warmup_epochs, 1)``, epoch
    counted from 0; outside training they count in full. y is needed, and an unlabelled row (-1) adds
    nothing. Zhao et al., CVPR 2022 (arXiv 2203.08679); the defaults are theirs: T 4, target_weight (their
    alpha) 1, nontarget_weight (beta) 8, hard_weight 1, 20 epochs of warm-up.

    Gradient by the logits, but for hard_weight's part: ``T [target_weight (q_t - p_t) (y - (1 - y) q^) +
    nontarget_weight (1 - y) (q^ - p^)] / B``.
    """

    _on_logits = _on_probs = kernels.DECOUPLED_KD
    needs_target = True  # the soft term itself looks at the label
    _settings = {
        "temperature": _TEMPERATURE,
        "target_weight": _SOFT,
        "nontarget_weight": _SECOND,
        "hard_weight": _HARD,
    }

    def __init__(
        self,
        temperature: Schedule = 4.0,
        target_weight: Schedule = 1.0,
        nontarget_weight: Schedule = 8.0,
        hard_weight: Schedule = 1.0,
        warmup_epochs: int = 20,
        name: str | None = None,
    ):
        super().__init__(
            name,
            temperature=temperature,
            target_weight=target_weight,
            nontarget_weight=nontarget_weight,
            hard_weight=hard_weight,
        )
        self.warmup_epochs = check_int("warmup_epochs", warmup_epochs, minimum=0)
        self._warmup = 1.0

    def set_epoch(self, epoch):
        super().set_epoch(epoch)
        self._warmup = min((epoch + 1) / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0

    @property
    def hyper(self):
        hyper = super().hyper
        hyper[[kernels.SOFT_WEIGHT, kernels.SECOND_WEIGHT]] *= self._warmup
        return hyper

    def get_config(self):
        return super().get_config() | {"warmup_epochs": self.warmup_epochs}


class NormalizedKD(DistillationLoss):
    """``hard_weight CE - target_weight p_t log q_t + gamma T^2 CE(p^, q^)``.

    p_t and q_t, the labelled class, are at T = 1; p^ and q^, the other classes renormalised, at T; the last
    term is their cross-entropy ``-sum p^ log q^``. y is needed, and an unlabelled row (-1) adds nothing.
    Yang et al., ICCV 2023 (arXiv 2303.13005); the defaults are theirs: gamma 1.5, T 1, both other weights 1.

    Gradient by the logits, but for hard_weight's part: ``[target_weight p_t (softmax(z) - y) +
    gamma T (1 - y) (q^ - p^)] / B``.
    """

    _on_logits = _on_probs = kernels.NORMALIZED_KD
    needs_target = True  # the soft term itself looks at the label
    _settings = {
        "temperature": _TEMPERATURE,
        "gamma": _SECOND,
        "target_weight": _SOFT,
        "hard_weight": _HARD,
    }

    def __init__(
        self,
        temperature: Schedule = 1.0,
        gamma: Schedule = 1.5,
        target_weight: Schedule = 1.0,
        hard_weight: Schedule = 1.0,
        name: str | None = None,
    ):
        super().__init__(
            name, temperature=temperature, gamma=gamma, target_weight=target_weight, hard_weight=hard_weight
        )


class DIST(DistillationLoss):
    """``hard_weight CE + T^2 [beta (1 - rho(q, p)) + gamma (1 - rho'(q, p))]``.

    rho is the mean over the samples of Pearson's correlation between a row of q and of p, rho' the mean
    over the classes of that between a column of q and of p (1e-8 added to the product of the norms). With
    ``sample_weight`` the columns are correlated with weighted samples. Its value depends on the
    whole batch. A row or column that is constant has correlation 0 and no gradient. Huang et al.,
    NeurIPS 2022 (arXiv 2205.10536); the defaults are theirs: beta = gamma = 1, T 1, hard_weight 1.

    Gradient by q, then through the softmax at T: of ``1 - rho(q, p)`` for one row or column, with a and b
    being q and p centred and scaled to length 1, n the product of their lengths before and
    ``k = n / (n + 1e-8)``: ``k (rho a - b)`` over the length of a before, where ``rho = k a.b``.
    """

    whole_batch = True
    _on_logits = _on_probs = kernels.DIST
    _settings = {"temperature": _TEMPERATURE, "beta": _SOFT, "gamma": _SECOND, "hard_weight": _HARD}

    def __init__(
        self,
        temperature: Schedule = 1.0,
        beta: Schedule = 1.0,
        gamma: Schedule = 1.0,
        hard_weight: Schedule = 1.0,
        name: str | None = None,
    ):
        super().__init__(name, temperature=temperature, beta=beta, gamma=gamma, hard_weight=hard_weight)


class LogitMatching(DistillationLoss):
    """``hard_weight CE + soft_weight mean_i (z~_i - v~_i)^2``, the logits centred in each row.

    Centred, since a constant added to a row changes no prediction. It is where T^2 KL goes as T grows, up
    to a factor 2. No temperature. Ba and Caruana 2014 (arXiv 1312.6184), who use no labels: by default
    hard_weight is 0 and soft_weight 1.

    Gradient by the logits, but for hard_weight's part: ``soft_weight (2 / C) (z~ - v~) / B``.
    """

    temperature = 1.0
    _shows_nonfinite = True
    _on_logits = _on_probs = kernels.LOGIT_MATCHING
    _settings = {"hard_weight": _HARD, "soft_weight": _SOFT}

    def __init__(self, hard_weight: Schedule = 0.0, soft_weight: Schedule = 1.0, name: str | None = None):
        super().__init__(name, hard_weight=hard_weight, soft_weight=soft_weight)


# ---------------------------------------------------------------- by name

_CLASSES = [
    CategoricalCrossentropy, SparseCategoricalCrossentropy, BinaryCrossentropy, MeanSquaredError,
    HalfMeanSquaredError, MeanAbsoluteError, Huber, KLDivergence,
    KnowledgeDistillation, DecoupledKD, NormalizedKD, DIST, LogitMatching,
]  # fmt: skip

_FUNCTIONS = {
    categorical_crossentropy: CategoricalCrossentropy,
    sparse_categorical_crossentropy: SparseCategoricalCrossentropy,
    binary_crossentropy: BinaryCrossentropy,
    mean_squared_error: MeanSquaredError,
    half_mean_squared_error: HalfMeanSquaredError,
    mean_absolute_error: MeanAbsoluteError,
    huber: Huber,
    kl_divergence: KLDivergence,
}

_KNOWN: dict[str, type[Loss]] = {cls.__name__: cls for cls in _CLASSES}
_KNOWN.update((snake_case(cls.__name__), cls) for cls in _CLASSES)
_KNOWN.update((function.__name__, cls) for function, cls in _FUNCTIONS.items())
_KNOWN.update(
    bce=BinaryCrossentropy, BCE=BinaryCrossentropy, kld=KLDivergence, KLD=KLDivergence, mae=MeanAbsoluteError,
    MAE=MeanAbsoluteError, mse=MeanSquaredError, MSE=MeanSquaredError,
)  # fmt: skip


def get(identifier) -> Loss | None:
    """The loss meant by a name ("mse", "CategoricalCrossentropy"), class, function of this module or config.

    Raises ValueError for an unknown name, with the nearest known one, and TypeError for anything else.
    """
    if callable(identifier) and not isinstance(identifier, (Loss, type)):
        if identifier not in _FUNCTIONS:
            raise TypeError(
                f"loss must be a name, a config or a Loss (subclass it and write value_and_grad), "
                f"got {describe(identifier)}"
            )
        return _FUNCTIONS[identifier]()
    return resolve("loss", identifier, Loss, _KNOWN)


def serialize(loss: Loss | None) -> dict | None:
    """``{"class_name", "config"}``, all of it JSON; a plain function of the epoch becomes its value now."""
    config = _serialize(loss)
    if config is not None:
        for setting, value in config["config"].items():
            if callable(value):
                config["config"][setting] = getattr(loss, setting)
                warnings.warn(
                    f"{setting} of {loss.name} is a function and is saved as its value now, "
                    f"{getattr(loss, setting)}; a minidl.losses.Ramp is saved whole",
                    stacklevel=2,
                )
    return config


def deserialize(config: dict | None) -> Loss | None:
    """What `serialize` made."""
    return resolve("loss", config, Loss, _KNOWN)
