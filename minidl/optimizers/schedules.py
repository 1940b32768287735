"""Learning rates as functions of the step number (Keras 3's formulas, in float64).

A schedule is called with the number of finished steps, which is 0 at the first step. A number gives a float, an
array of step numbers gives an array of the same shape.
"""

import numpy as np

from ..registry import Configurable, Registry, overridden
from ..registry import serialize as serialize
from ..validation import check_bool, check_float, check_int, check_name, describe

_BLOCK = 64


class LearningRateSchedule(Configurable):
    """Base of the schedules. A subclass defines ``__call__(step)``; it need not take arrays."""

    def __call__(self, step):
        raise NotImplementedError(f"{type(self).__name__} must define __call__(step)")

    def series(self, first: int, count: int) -> np.ndarray:
        """The rates (count,) of the steps ``first``, ``first + 1``, ...; their bits do not depend on the range."""
        return np.array([float(self(step)) for step in range(first, first + count)])


SCHEDULES = Registry("learning-rate schedule", LearningRateSchedule, spellings=(str,))


class _Formula(LearningRateSchedule):
    """A schedule that computes many steps at once in NumPy: a subclass defines ``_rates(steps)``."""

    def __call__(self, step):
        rates = self._rates(np.atleast_1d(np.asarray(step, dtype=np.float64)))
        return float(rates[0]) if np.ndim(step) == 0 else rates

    def series(self, first: int, count: int) -> np.ndarray:
        if overridden(self, "__call__"):
            return super().series(first, count)
        # NumPy may compute the last entries of an array with other instructions than the rest. So whole blocks are
        # computed: each step always has the same place in a block of _BLOCK steps.
        offset = first % _BLOCK
        size = -(-(offset + count) // _BLOCK) * _BLOCK
        steps = np.arange(first - offset, first - offset + size, dtype=np.float64)
        return self._rates(steps)[offset : offset + count]


class _OfPeriods(_Formula):
    """Base of those whose rate falls with ``step / decay_steps``, rounded down with ``staircase``."""

    def _set(self, initial_learning_rate: float, decay_steps: int, staircase: bool, name: str) -> None:
        """Keep the arguments that all have but ``decay_rate``."""
        self.initial_learning_rate = check_float("initial_learning_rate", initial_learning_rate, above=0)
        self.decay_steps = check_float("decay_steps", decay_steps, above=0)
        self.staircase = check_bool("staircase", staircase)
        self.name = check_name(name, type(self).__name__)

    def _periods(self, steps):
        periods = steps / self.decay_steps
        return np.floor(periods) if self.staircase else periods


@SCHEDULES.register()
class ExponentialDecay(_OfPeriods):
    """``initial_learning_rate * decay_rate**(step / decay_steps)``; ``staircase`` rounds the exponent down."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ):
        self._set(initial_learning_rate, decay_steps, staircase, name)
        self.decay_rate = check_float("decay_rate", decay_rate, above=0)

    def _rates(self, steps):
        return self.initial_learning_rate * self.decay_rate ** self._periods(steps)


@SCHEDULES.register()
class PiecewiseConstantDecay(_Formula):
    """``values[0]`` while ``step <= boundaries[0]``, ``values[1]`` while ``step <= boundaries[1]``, ...,
    then ``values[-1]``. There is one more value than there are boundaries, and the boundaries rise strictly.
    """

    def __init__(self, boundaries, values, name: str = "PiecewiseConstant"):
        for argument, value in (("boundaries", boundaries), ("values", values)):
            if not isinstance(value, (list, tuple, np.ndarray)):
                raise TypeError(f"{argument} must be a list of numbers, got {describe(value)}")
        self.boundaries = [check_float(f"boundaries[{i}]", b) for i, b in enumerate(boundaries)]
        self.values = [check_float(f"values[{i}]", value, minimum=0) for i, value in enumerate(values)]
        self.name = check_name(name, "PiecewiseConstant")
        if len(self.boundaries) != len(self.values) - 1:
            raise ValueError(
                "values must have one entry more than boundaries, "
                f"got {len(self.values)} values for {len(self.boundaries)} boundaries"
            )
        if any(high <= low for low, high in zip(self.boundaries[:-1], self.boundaries[1:], strict=True)):
            raise ValueError(f"boundaries must rise strictly, got {self.boundaries}")

    def _rates(self, steps):
        return np.asarray(self.values)[np.searchsorted(self.boundaries, steps, side="left")]


@SCHEDULES.register()
class CosineDecay(_Formula):
    """Half a cosine wave from ``initial_learning_rate`` down to ``alpha`` of it over ``decay_steps``:
    ``initial_learning_rate * ((1 - alpha) * 0.5 * (1 + cos(pi * min(step / decay_steps, 1))) + alpha)``.

    With ``warmup_target`` the rate first rises linearly from ``initial_learning_rate`` to ``warmup_target`` over
    ``warmup_steps``. The wave then starts from there.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: int = 0,
    ):
        if warmup_target is None:
            rate = check_float("initial_learning_rate", initial_learning_rate, above=0)
        else:  # a warm-up may start at 0
            rate = check_float("initial_learning_rate", initial_learning_rate, minimum=0)
            warmup_target = check_float("warmup_target", warmup_target, above=0)
        self.initial_learning_rate = rate
        self.decay_steps = check_float("decay_steps", decay_steps, above=0)
        self.alpha = check_float("alpha", alpha, minimum=0)
        self.name = check_name(name, "CosineDecay")
        self.warmup_target = warmup_target
        self.warmup_steps = check_int("warmup_steps", warmup_steps, minimum=0)

    def _rates(self, steps):
        peak, warmup = self.initial_learning_rate, 0
        if self.warmup_target is not None:
            peak, warmup = self.warmup_target, self.warmup_steps
        done = np.clip((steps - warmup) / self.decay_steps, 0.0, 1.0)
        rates = peak * ((1 - self.alpha) * 0.5 * (1 + np.cos(np.pi * done)) + self.alpha)
        if warmup:
            rising = self.initial_learning_rate + (peak - self.initial_learning_rate) * (steps / warmup)
            rates = np.where(steps < warmup, rising, rates)
        return rates


@SCHEDULES.register()
class PolynomialDecay(_Formula):
    """From ``initial_learning_rate`` to ``end_learning_rate`` along a polynomial:
    ``(initial_learning_rate - end_learning_rate) * (1 - min(step / n, 1))**power + end_learning_rate``.

    n is ``decay_steps``. With ``cycle`` it is the smallest multiple of ``decay_steps`` that is >= ``step`` and not 0,
    so the rate jumps up again after each multiple, to a lower point each time.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ):
        self.initial_learning_rate = check_float("initial_learning_rate", initial_learning_rate, minimum=0)
        self.decay_steps = check_float("decay_steps", decay_steps, above=0)
        self.end_learning_rate = check_float("end_learning_rate", end_learning_rate, minimum=0)
        self.power = check_float("power", power, minimum=0)
        self.cycle = check_bool("cycle", cycle)
        self.name = check_name(name, "PolynomialDecay")

    def _rates(self, steps):
        length = self.decay_steps
        if self.cycle:
            length = length * np.maximum(np.ceil(steps / length), 1.0)
        left = 1 - np.minimum(steps / length, 1.0)
        end = self.end_learning_rate
        return (self.initial_learning_rate - end) * left**self.power + end


@SCHEDULES.register()
class InverseTimeDecay(_OfPeriods):
    """``initial_learning_rate / (1 + decay_rate * step / decay_steps)``; ``staircase`` rounds the quotient of the
    steps down."""

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: int,
        decay_rate: float,
        staircase: bool = False,
        name: str = "InverseTimeDecay",
    ):
        self._set(initial_learning_rate, decay_steps, staircase, name)
        self.decay_rate = check_float("decay_rate", decay_rate, minimum=0)

    def _rates(self, steps):
        return self.initial_learning_rate / (1 + self.decay_rate * self._periods(steps))


@SCHEDULES.register()
class CosineDecayRestarts(_Formula):
    """Half a cosine wave after the other, each from a fresh start (SGDR, Loshchilov & Hutter 2017).

    Period i = 0, 1, ... has ``first_decay_steps * t_mul**i`` steps. At the part f of it that is done the rate is
    ``initial_learning_rate * ((1 - alpha) * 0.5 * m_mul**i * (1 + cos(pi * f)) + alpha)``. A period begins at the first
    step that it holds; Keras computes in float32 and may begin it one step late.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: int,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ):
        self.initial_learning_rate = check_float("initial_learning_rate", initial_learning_rate, above=0)
        self.first_decay_steps = check_float("first_decay_steps", first_decay_steps, above=0)
        self.t_mul = check_float("t_mul", t_mul, minimum=1)
        self.m_mul = check_float("m_mul", m_mul, minimum=0)
        self.alpha = check_float("alpha", alpha, minimum=0)
        self.name = check_name(name, "SGDRDecay")

    def _begin(self, period):
        """When a period begins, in units of the first one."""
        return period if self.t_mul == 1 else (self.t_mul**period - 1) / (self.t_mul - 1)

    def _rates(self, steps):
        done = steps / self.first_decay_steps
        period = np.floor(done)
        if self.t_mul > 1:
            period = np.round(np.log1p(done * (self.t_mul - 1)) / np.log(self.t_mul))
            # a step at which one begins may be rounded down
            period -= self._begin(period) > done * (1 + 1e-9)
        fraction = np.maximum(done - self._begin(period), 0) / self.t_mul**period
        wave = 0.5 * self.m_mul**period * (1 + np.cos(np.pi * fraction))
        return self.initial_learning_rate * ((1 - self.alpha) * wave + self.alpha)


deserialize = SCHEDULES.deserialize
