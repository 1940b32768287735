"""Losses that learn from a teacher: a hard term (the labels) plus a soft term (the teacher's answers).

z are the student's logits and v the teacher's, (B, C); ``q = softmax(z / T)`` and ``p = softmax(v / T)``; CE is the
cross-entropy of the labels with softmax(z), at temperature 1. Each formula is the loss of one sample, gradients are by
z. `kernels.distillation.times_t_squared` says why the soft term is multiplied by T squared.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..kernels import losses as kernels
from ..kernels.losses import Batch
from ..registry import Configurable, Registry
from ..registry import serialize as _serialize
from ..validation import REALS, check_bool, check_float, check_int
from .base import LOSSES, Loss, no_rows
from .softmax import check_logits

Schedule = float | Callable[[int], float]


_SCHEDULES = Registry("schedule", Configurable, spellings=(str,))


@_SCHEDULES.register()
class Ramp(Configurable):
    """A schedule over epochs: linear from ``start`` at epoch 0 to ``end`` at epoch ``epochs``, then constant.

    Any function of the epoch (counted from 0) can be a schedule. A ``Ramp`` can also be saved with a model.
    """

    def __init__(self, start: float, end: float, epochs: int):
        self.start, self.end = check_float("start", start), check_float("end", end)
        self.epochs = check_int("epochs", epochs, minimum=1)

    def __call__(self, epoch: int) -> float:
        return self.start + (self.end - self.start) * min(epoch / self.epochs, 1.0)


class DistillationLoss(Loss):
    """Base of the losses with a teacher: ``hard_weight * CE + a soft term``.

    A subclass passes its temperature (> 0) and its weights (>= 0) to this constructor. Each may be a number or a
    schedule: a function of the epoch (from 0), called before each epoch. y holds class indices (B,), with -1 for a
    row without a label, or rows of targets (B, C). It may be None if no term needs labels.
    """

    fused_activation = "softmax"
    distills = True
    sparse = None
    from_logits = True
    is_nonfinite_if_logits_are = False
    """A NaN or inf in any logit, the student's or the teacher's, makes the value NaN or inf."""
    temperature: float
    hard_weight: float
    soft_weight: float  # of the losses that have one

    _settings: tuple[str, ...] = ()
    """The names of the temperature and the weights."""

    def __init__(self, name: str | None = None, **settings: Any):
        super().__init__(name=name)
        self.schedules: dict[str, Callable[[int], float]] = {}
        self._settings = tuple(settings)
        for setting, value in settings.items():
            setattr(self, setting, value)

    def __setattr__(self, name: str, value: object) -> None:
        if name in self._settings:
            if isinstance(value, dict):
                value = _SCHEDULES.get(value, name)
            self.schedules.pop(name, None)
            if callable(value):
                self.schedules[name] = value
                value = value(0)
            value = _checked_setting(name, value)
        super().__setattr__(name, value)

    def set_epoch(self, epoch: int) -> None:
        for setting, schedule in self.schedules.items():
            vars(self)[setting] = _checked_setting(setting, schedule(epoch))

    def is_scheduled(self, setting: str) -> bool:
        return setting in self.schedules

    @property
    def needs_labels(self) -> bool:  # type: ignore[override]
        return self.needs_target or self.hard_weight != 0 or self.is_scheduled("hard_weight")

    def check_trainable(self) -> None:
        weights = [setting for setting in self._settings if setting != "temperature"]
        if not any(getattr(self, weight) or self.is_scheduled(weight) for weight in weights):
            raise ValueError(
                f"{' and '.join(weights)} of {self.name} must not all be 0: nothing is left to learn from"
            )

    def labels_missing(self) -> str:
        if self.needs_target:
            instead = "loss=KnowledgeDistillation(hard_weight=0.0, soft_weight=1.0)"
            return f"{self.name} treats the labelled class apart; without labels write {instead}"
        instead = "hard_weight=0.0" + ", soft_weight=1.0" * ("soft_weight" in self._settings)
        weight = "scheduled" if self.is_scheduled("hard_weight") else f"{self.hard_weight:g}, not 0"
        return f"{self.name} learns from labels too (hard_weight is {weight}); without labels write {instead}"

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments: a `Ramp` as ``{"class_name", "config"}``, another schedule as the function."""
        ramps = {name: _serialize(ramp) for name, ramp in self.schedules.items() if isinstance(ramp, Ramp)}
        return super().get_config() | self.schedules | ramps

    def __call__(self, y_true, y_pred, teacher_logits=None, sample_weight=None) -> float:  # type: ignore[override]
        """The mean loss. y_pred: the student's logits (B, C); the rest as in `value_and_grad`."""
        return self._mean_loss(y_pred, y_true, teacher_logits, sample_weight)

    def value_and_grad(  # type: ignore[override]
        self, logits, y, teacher_logits, sample_weight=None
    ) -> tuple[float, np.ndarray]:
        """As `Loss.value_and_grad`, from the student's logits (B, C) and, row for row, the teacher's.

        y: class indices (B,) or rows of targets (B, C). Raises ValueError also for a teacher's probabilities instead
        of logits, and for y=None where a term needs labels.
        """
        if sample_weight is None and self._can_skip_checks(logits, y, teacher_logits):
            scale = np.empty(len(logits))
            scale.fill(1.0 / len(logits))
            batch = Batch(logits, y, no_rows(logits), teacher_logits, scale)
            result = self._value_and_grad(batch)
            if math.isfinite(result[0]):  # so all logits were finite
                return result
        batch = self._checked_batch(("logits", "y"), logits, y, teacher_logits, sample_weight)
        return self._value_and_grad(batch)

    def _can_skip_checks(self, logits, y, teacher_logits) -> bool:
        """Whether the kernel can take these arrays as they are. The full checks take longer than a small batch.

        The value then shows whether all logits were finite. So this is only for losses where it does.
        """
        return bool(
            self.is_nonfinite_if_logits_are
            and self.soft_weight
            and type(logits) is type(teacher_logits) is type(y) is np.ndarray
            and logits.dtype in REALS
            and logits.ndim == 2
            and logits.size > 0
            and teacher_logits.shape == logits.shape
            and teacher_logits.dtype == logits.dtype
            and y.shape == logits.shape[:1]
            and y.dtype == np.int64
            and logits.flags.carray
            and teacher_logits.flags.carray
            and y.flags.carray
            and kernels.are_labels_and_logits(y, teacher_logits)
        )

    def _checked_teacher(self, name: str, z: np.ndarray, teacher_logits) -> np.ndarray:
        if teacher_logits is None:
            raise ValueError(f"teacher_logits must be given: {self.name} learns from a teacher, got None")
        teacher = self.check_teacher("teacher_logits", teacher_logits)
        if teacher.shape != z.shape:
            raise ValueError(f"teacher_logits must have the shape of {name} {z.shape}, got {teacher.shape}")
        return np.require(teacher, z.dtype, "CAW")

    def check_teacher(self, argument: str, answers) -> np.ndarray:
        """The teacher's answers (B, C), of any real dtype, as float32 or float64; refused if they cannot teach."""
        return check_logits(argument, answers)


def _checked_setting(setting: str, value: object) -> float:
    return check_float(setting, value, **({"above": 0} if setting == "temperature" else {"minimum": 0}))


@LOSSES.register()
class KnowledgeDistillation(DistillationLoss):
    """``hard_weight CE + soft_weight T^2 KL(p || q)``, KL summed over the classes.

    Gradient: ``[hard_weight (softmax(z) - y) + soft_weight T (q - p)] / B``. Hinton, Vinyals and Dean 2015
    (arXiv 1503.02531), who leave T and the weights to the user. By default T is 2 and the weights are 0.5 and 0.5:
    of the numbers compared in `benchmarks/results/does_it_pay.md` they did best on average.
    A uniform teacher (zeros) at T = 1 with weights 1 - s and s smooths the labels by s.

    ``standardize``: z and v are first brought to mean 0 and standard deviation 1 in each row (ddof 1, 1e-7
    added to the deviation), so that the student is free to choose its scale. Sun et al., CVPR 2024
    (arXiv 2403.01427), whose settings are ``temperature=2, hard_weight=0.1, soft_weight=9``.
    """

    is_nonfinite_if_logits_are = True

    def __init__(
        self,
        temperature: Schedule = 2.0,
        hard_weight: Schedule = 0.5,
        soft_weight: Schedule = 0.5,
        standardize: bool = False,
        name: str | None = None,
    ):
        super().__init__(name, temperature=temperature, hard_weight=hard_weight, soft_weight=soft_weight)
        self.standardize = check_bool("standardize", standardize)


@LOSSES.register()
class DecoupledKD(DistillationLoss):
    """``hard_weight CE + T^2 [target_weight KL_bin(p_t || q_t) + nontarget_weight KL(p^ || q^)]``.

    KL_bin compares two probabilities: that of the labelled class t, and that of all other classes together. p^ and
    q^ are p and q over the other classes, renormalised. Both terms stay finite at p_t = 1; with two classes the
    second is 0. y is needed, and an unlabelled row (-1) adds nothing.

    In training the two soft weights grow over the first ``warmup_epochs`` epochs: they are multiplied by
    ``min((epoch + 1) / warmup_epochs, 1)``, epoch counted from 0. Outside training they count in full.
    Zhao et al., CVPR 2022 (arXiv 2203.08679); the defaults are theirs: T 4, target_weight (their alpha) 1,
    nontarget_weight (beta) 8, hard_weight 1, 20 epochs of warm-up.

    Gradient of the soft term: ``T [target_weight (q_t - p_t) (y - (1 - y) q^) +
    nontarget_weight (1 - y) (q^ - p^)] / B``.
    """

    needs_target = True  # the soft term itself needs the label

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
        self._warmup_factor = 1.0

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        self._warmup_factor = min((epoch + 1) / self.warmup_epochs, 1.0) if self.warmup_epochs else 1.0

    @property
    def hyper(self) -> np.ndarray:
        hyper, settings = super().hyper, kernels.SETTINGS[self.kind_on_logits]
        for weight in ("target_weight", "nontarget_weight"):
            hyper[settings.index(weight)] *= self._warmup_factor
        return hyper


@LOSSES.register()
class NormalizedKD(DistillationLoss):
    """``hard_weight CE - target_weight p_t log q_t + gamma T^2 CE(p^, q^)``.

    p_t and q_t are the probabilities of the labelled class at T = 1. p^ and q^ are those of the other classes at T,
    renormalised; the last term is their cross-entropy ``-sum p^ log q^``. y is needed, and an unlabelled row (-1)
    adds nothing. Yang et al., ICCV 2023 (arXiv 2303.13005); the defaults are theirs: gamma 1.5, T 1, both other
    weights 1.

    Gradient of the soft terms: ``[target_weight p_t (softmax(z) - y) + gamma T (1 - y) (q^ - p^)] / B``.
    """

    needs_target = True  # the soft term itself needs the label

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


@LOSSES.register()
class DIST(DistillationLoss):
    """``hard_weight CE + T^2 [beta (1 - rho(q, p)) + gamma (1 - rho'(q, p))]``.

    rho is Pearson's correlation between a row of q and the same row of p, averaged over the samples. rho' is that
    between a column of q and of p, averaged over the classes. 1e-8 is added to the product of the norms. With
    ``sample_weight`` the samples are weighted in the columns' correlations, too. The value depends on the whole
    batch. A constant row or column has correlation 0 and no gradient. Huang et al., NeurIPS 2022
    (arXiv 2205.10536); the defaults are theirs: beta = gamma = 1, T 1, hard_weight 1.

    Gradient by q of ``1 - rho(q, p)`` for one row or column, which then goes through the softmax at T: let a and b
    be q and p, centred and scaled to length 1, n the product of their lengths before, ``k = n / (n + 1e-8)`` and
    ``rho = k a.b``. Then it is ``k (rho a - b)`` divided by the length of a before.
    """

    whole_batch = True

    def __init__(
        self,
        temperature: Schedule = 1.0,
        beta: Schedule = 1.0,
        gamma: Schedule = 1.0,
        hard_weight: Schedule = 1.0,
        name: str | None = None,
    ):
        super().__init__(name, temperature=temperature, beta=beta, gamma=gamma, hard_weight=hard_weight)


@LOSSES.register()
class LogitMatching(DistillationLoss):
    """``hard_weight CE + soft_weight mean_i (z~_i - v~_i)^2``, the logits centred in each row, no temperature.

    They are centred because a constant added to a row changes no prediction. As T grows, T^2 KL approaches half of
    the soft term. Ba and Caruana 2014 (arXiv 1312.6184), who use no labels: by default hard_weight is 0 and
    soft_weight 1.

    Gradient of the soft term: ``soft_weight (2 / C) (z~ - v~) / B``.
    """

    temperature = 1.0
    is_nonfinite_if_logits_are = True

    def __init__(self, hard_weight: Schedule = 0.0, soft_weight: Schedule = 1.0, name: str | None = None):
        super().__init__(name, hard_weight=hard_weight, soft_weight=soft_weight)
