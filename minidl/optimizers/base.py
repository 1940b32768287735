"""What all optimizers share: learning rate, weight decay, clipping, and the step over the flat vector."""

from typing import Any, TypedDict

import numpy as np

from ..kernels import restraints
from ..kernels import updates as kernel
from ..registry import Configurable, Registry, check_kind, serialize
from ..validation import check_bool, check_float, check_int, check_name, describe
from . import schedules
from .schedules import LearningRateSchedule

_AVERAGE = 3
"""The place of the average in ``slots``, after those of the rule; what is accumulated comes last."""
_RARE = {
    # settings that a config has only where they are not at these defaults
    "use_ema": False,
    "ema_momentum": 0.99,
    "ema_overwrite_frequency": None,
    "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
}
_NO_SEGMENTS = np.empty((0, 2), np.int64)


class LimitsAndName(TypedDict, total=False):
    """Keywords of ``Optimizer``, for those that take ``weight_decay`` among their own settings."""

    clipnorm: float | None
    clipvalue: float | None
    global_clipnorm: float | None
    use_ema: bool
    ema_momentum: float
    ema_overwrite_frequency: int | None
    loss_scale_factor: None
    gradient_accumulation_steps: int | None
    name: str | None


class CommonOptions(LimitsAndName, total=False):
    """The keywords that other optimizers hand to ``Optimizer``, which explains and checks them."""

    weight_decay: float | None


class Optimizer(Configurable):
    """Base of the optimizers: one step is one pass over the flat vector of all parameters.

    Parameters
    ----------
    learning_rate : a number >= 0, or a schedule of ``minidl.optimizers.schedules``.
    weight_decay : before each step, ``w -= w * weight_decay * learning_rate``; None for none.
    clipnorm : scales the gradient of each variable (weight, bias) down to at most this norm; None for no limit.
    clipvalue : limits each entry of the gradient to [-clipvalue, clipvalue]; None for no limit.
    global_clipnorm : scales the whole gradient down to at most this norm; None for no limit. At most one of the
        three limits can be set.
    use_ema : keeps an average of the parameters, after each batch
        ``average = ema_momentum * average + (1 - ema_momentum) * w``; at the end of ``fit`` it takes their place. Until
        the first update is over, the average is w itself. Constraints follow it. Validation during ``fit``, and files
        saved by callbacks, have w.
    ema_momentum : in [0, 1].
    ema_overwrite_frequency : after every so many updates w becomes the average; None for never.
    loss_scale_factor : must be None. It guards arithmetic in float16, which minidl does not use.
    gradient_accumulation_steps : an integer >= 2: parameters are updated with every so many batches only, by the mean
        of their gradients, which is then clipped. Weight decay and the rule count updates; a schedule, and
        ``ema_momentum``, batches. None for an update with each batch.
    name : the class's name in lower case by default.

    ``batches`` counts the batches, ``iterations`` the finished updates. ``slots`` are five flat arrays: three of the
    rule, the average, the gradients accumulated so far. Each has the size of the parameters, or 0 if it is not used.
    Together with ``batches`` they are the optimizer's whole state.

    A subclass has a constructor with its own settings, and ``kind``: the number of its update rule in
    ``kernels/updates.py``. The rule names the settings it reads.
    """

    not_in_config = frozenset({"learning_rate"})  # `get_config` adds it itself: it may be a schedule

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
    ):
        self.name = check_name(name, type(self).__name__.lower())
        if isinstance(learning_rate, dict):
            learning_rate = schedules.deserialize(learning_rate)
        self._rate: float | LearningRateSchedule = 0.0
        self.learning_rate = learning_rate
        if weight_decay is not None:
            weight_decay = check_float("weight_decay", weight_decay, minimum=0)
        self.weight_decay = weight_decay
        limits = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
        given = {key: check_float(key, value, above=0) for key, value in limits.items() if value is not None}
        if len(given) > 1:
            raise ValueError(
                f"at most one of clipnorm, clipvalue and global_clipnorm can be set, got {given}"
            )
        self.clipnorm, self.clipvalue, self.global_clipnorm = (given.get(limit) for limit in limits)
        self.use_ema = check_bool("use_ema", use_ema)
        self.ema_momentum = check_float("ema_momentum", ema_momentum, minimum=0, maximum=1)
        self.ema_overwrite_frequency = _check_count("ema_overwrite_frequency", ema_overwrite_frequency, 1)
        if loss_scale_factor is not None:
            raise ValueError(
                "loss_scale_factor must be None: it guards arithmetic in float16, which minidl does not use, got "
                f"{describe(loss_scale_factor)}"
            )
        self.loss_scale_factor = None
        steps = _check_count("gradient_accumulation_steps", gradient_accumulation_steps, 2)
        self.gradient_accumulation_steps = steps
        self.batches = 0
        self._slots: list[np.ndarray] = []
        self._built_for: tuple[int, np.dtype] = 0, np.dtype(np.float64)
        self.segments = _NO_SEGMENTS
        self._scalars = np.zeros(8)

    def _checked(self, name: str, value: object) -> object:
        if name in ("use_ema", "gradient_accumulation_steps") and self.built:
            was = f"{name} of {self.name} is {getattr(self, name)!r}"
            raise AttributeError(f"{was} and cannot become {value!r} once it trains: make a new optimizer")
        return super()._checked(name, value)

    @property
    def batches(self) -> int:
        """How many batches it has been given. It can be set."""
        return self._batches

    @batches.setter
    def batches(self, value: int) -> None:
        self._batches = check_int("batches", value, minimum=0, maximum=2**53)

    @property
    def batches_to_an_update(self) -> int:
        """``gradient_accumulation_steps``, or 1."""
        return self.gradient_accumulation_steps or 1

    @property
    def iterations(self) -> int:
        """How many updates are finished: ``batches`` by ``gradient_accumulation_steps``. It can be set."""
        return self._batches // self.batches_to_an_update

    @iterations.setter
    def iterations(self, value: int) -> None:
        most = 2**53 // self.batches_to_an_update
        self._batches = check_int("iterations", value, minimum=0, maximum=most) * self.batches_to_an_update

    @property
    def averaging(self) -> np.ndarray:
        """float64 (2,): ``ema_momentum`` and ``ema_overwrite_frequency``, 0 for never."""
        return np.array([self.ema_momentum, self.ema_overwrite_frequency or 0.0])

    @property
    def kind(self) -> int:
        """The number of the update rule in ``kernels/updates.py``."""
        raise NotImplementedError(f"{type(self).__name__} must define kind")

    @property
    def hyper(self) -> np.ndarray:
        """float64 (8,): the settings that do not change from step to step."""
        hyper = np.zeros(8)
        for place, setting in enumerate(kernel.SETTINGS[self.kind]):
            hyper[place] = getattr(self, setting)
        hyper[kernel.WEIGHT_DECAY] = self.weight_decay or 0.0
        return hyper

    @property
    def schedule(self) -> LearningRateSchedule | None:
        """The schedule the learning rate follows, or None."""
        return self._rate if isinstance(self._rate, LearningRateSchedule) else None

    @property
    def learning_rate(self) -> float:
        """The rate of the next batch. It can be set to a schedule, or to a number >= 0 if it follows none."""
        if isinstance(self._rate, LearningRateSchedule):
            return float(self.learning_rates(self.batches, 1)[0])
        return self._rate

    @learning_rate.setter
    def learning_rate(self, value: float | LearningRateSchedule) -> None:
        if not isinstance(value, LearningRateSchedule):
            if self.schedule is not None:
                raise TypeError(
                    f"learning_rate follows {self._rate!r} and cannot be set to {value}; "
                    "make the optimizer with a number to change it later"
                )
            value = check_float("learning_rate", value, minimum=0)
        self._rate = value

    def learning_rates(self, first: int, count: int) -> np.ndarray:
        """float64 (count,): the rates of the steps ``first``, ``first + 1``, ..., counted from 0.

        Raises ValueError if the schedule gives a negative, NaN or infinite rate.
        """
        if self.schedule is None:
            return np.full(count, self._rate)
        rates = self._rate.series(first, count)
        bad = ~(np.isfinite(rates) & (rates >= 0))
        if bad.any():
            index = int(np.argmax(bad))
            raise ValueError(
                f"learning_rate must be finite and >= 0, got {rates[index]} from {self._rate!r} "
                f"at step {first + index}"
            )
        return rates

    @property
    def built(self) -> bool:
        return bool(self._slots)

    @property
    def slots(self) -> list[np.ndarray]:
        """Five flat arrays, of the parameters' size or empty; an empty list before ``build``."""
        if self._slots:
            begin = getattr(self, kernel.BEGINS[self.kind]) if self.kind in kernel.BEGINS else 0.0
            size, dtype = self._built_for
            for place in kernel.KEEPS[self.kind]:
                if self._slots[place].size == 0:  # a setting has changed: for example momentum from 0 to 0.9
                    self._slots[place] = np.full(size, begin, dtype)
        return self._slots

    def build(self, params: np.ndarray, segments: np.ndarray | None = None) -> None:
        """Make the slots for a flat vector, filled with 0 or what the rule begins with.

        A second call with an equal vector changes nothing.

        ``segments`` (n, 2): offset and size of each variable, for ``clipnorm``; by default the vector is one
        variable. Raises ValueError for a vector of another size or dtype than in the first call.
        """
        if self.built:
            size, dtype = self._built_for
            if (size, dtype) != (params.size, params.dtype):
                raise ValueError(
                    f"{self.name} was built for {size} parameters of {dtype}, got {params.size} of "
                    f"{params.dtype}: another model needs an optimizer of its own"
                )
        else:
            check_kind(self, self.kind, kernel.SETTINGS)
            self._built_for = (params.size, params.dtype)
            sizes = 0, 0, 0, 0, params.size if self.gradient_accumulation_steps else 0
            self._slots = [np.zeros(size, params.dtype) for size in sizes]
            if self.use_ema:
                self._slots[_AVERAGE] = params.copy()
        if segments is not None:
            self.segments = np.ascontiguousarray(segments, dtype=np.int64)
        elif len(self.segments) == 0:
            self.segments = np.array([[0, params.size]])

    def forget(self) -> None:
        """Drop the slots and the count of steps, as if ``build`` had never been called."""
        self._slots, self.batches, self.segments = [], 0, _NO_SEGMENTS

    def apply_clipping(self, grads: np.ndarray, segments: np.ndarray | None = None) -> None:
        """Clip ``grads`` in place, if a limit is set; ``segments``: those that learn, by default all."""
        if self.clipnorm is not None:
            restraints.clip_by_norm(grads, self.segments if segments is None else segments, self.clipnorm)
        elif self.global_clipnorm is not None:
            restraints.clip_by_global_norm(grads, self.global_clipnorm)
        elif self.clipvalue is not None:
            restraints.clip_by_value(grads, self.clipvalue)

    def step(self, params: np.ndarray, grads: np.ndarray) -> None:
        """What one batch does to a flat vector, in place. If a limit is set, ``grads`` is clipped in place first; with
        ``gradient_accumulation_steps`` the last batch of an update makes it the mean before.

        Both are C-contiguous, writeable 1-D arrays of the same size and dtype, float32 or float64, that do not
        share memory. The first call builds the slots. Raises TypeError or ValueError for other arrays.
        """
        _check_flat("params", params)
        _check_flat("grads", grads)
        if grads.shape != params.shape or grads.dtype != params.dtype:
            raise ValueError(f"grads must match params, {describe(params)}, got {describe(grads)}")
        if np.may_share_memory(params, grads):
            raise ValueError("params and grads must not share memory")
        self.build(params)
        self.update(params, grads)

    def update(self, params: np.ndarray, grads: np.ndarray, segments: np.ndarray | None = None) -> None:
        """``step`` without checks, for training's own arrays: all of them, or only ``segments``."""
        parts, steps = self.segments if segments is None else segments, self.batches_to_an_update
        updates, place = divmod(self.batches, steps)
        *_, average, accumulated = self.slots
        is_last = place == steps - 1
        if accumulated.size:
            restraints.accumulate(grads, accumulated, parts, steps if is_last else 0)
        if is_last:
            self.apply_clipping(grads, parts)
            self._apply_rule(params, grads, segments)
        for at, size in parts if average.size else ():
            span = slice(at, at + size)
            restraints.move_average(average[span], params[span], self.averaging, updates)
        self._batches += 1  # which the property need not check

    def _apply_rule(self, params: np.ndarray, grads: np.ndarray, segments: np.ndarray | None) -> None:
        kind = self.kind
        kernel.step_scalars(self._scalars, kind, self.hyper, self.learning_rate, self.iterations + 1)
        arrays = params, *self.slots[:_AVERAGE], grads
        parts = [arrays]
        if segments is not None:
            parts = [tuple(array[at : at + size] for array in arrays) for at, size in segments]
        for part in parts:
            kernel.update(kind, *part, self._scalars)

    def finalize_variable_values(self, params: np.ndarray, segments: np.ndarray | None = None) -> None:
        """``use_ema``: the average takes the place of ``params``, or of ``segments`` of them. ``fit`` ends with it."""
        if self.use_ema and self.built:
            for at, size in self.segments if segments is None else segments:
                params[at : at + size] = self.slots[_AVERAGE][at : at + size]

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, JSON-able. A schedule becomes ``{"class_name", "config"}``.

        What is rare has no entry where it is at its default: earlier versions read the config, too.
        """
        rate = self._rate if self.schedule is None else serialize(self.schedule)
        config = {"learning_rate": rate, **super().get_config()}
        return {name: value for name, value in config.items() if (name, value) not in _RARE.items()}


OPTIMIZERS = Registry("optimizer", Optimizer, spellings=(str.lower,))


def _check_count(argument: str, value: int | None, minimum: int) -> int | None:
    return None if value is None else check_int(argument, value, minimum=minimum)


def _check_flat(argument: str, array: np.ndarray) -> None:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{argument} must be a NumPy array, got {describe(array)}")
    if array.dtype not in (np.float32, np.float64) or not array.dtype.isnative:
        raise TypeError(f"{argument} must be float32 or float64, got {describe(array)}")
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"{argument} must be a flat array, not empty, got {describe(array)}")
    if not array.flags.c_contiguous:
        raise ValueError(f"{argument} must be C-contiguous, got strides {array.strides}")
    if not array.flags.writeable:
        raise ValueError(f"{argument} must be writeable, got a read-only array")
