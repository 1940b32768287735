"""Optimizers: one pass over the flat parameter vector, by Keras 3's formulas (see ``kernels/updates.py``)."""

from __future__ import annotations

import numpy as np

from ..kernels import updates as kernel
from ..registry import Configurable, resolve
from ..registry import serialize as serialize
from ..validation import check_bool, check_float, describe
from . import schedules
from .schedules import LearningRateSchedule

__all__ = ["SGD", "Adam", "AdamW", "RMSprop", "Optimizer", "deserialize", "get", "schedules", "serialize"]

_EMPTY_SEGMENTS = np.empty((0, 2), np.int64)


class Optimizer(Configurable):
    """What all optimizers share: the learning rate, decoupled weight decay, clipping, the step counter.

    Parameters
    ----------
    learning_rate : a number > 0, or a schedule of ``minidl.optimizers.schedules``.
    weight_decay : before each step, ``w -= w * weight_decay * learning_rate``; None for none.
    clipnorm : the gradient of each variable (weight, bias) is scaled down to this norm.
    clipvalue : every gradient entry is cut off at plus and minus this value.
    global_clipnorm : the whole gradient is scaled down to this norm. At most one of the three.

    ``iterations`` counts the finished steps; ``slots`` are three flat arrays (of the parameters' size, or
    empty where the kind keeps nothing), the whole state besides ``iterations``.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        name: str | None = None,
    ):
        self.name = type(self).__name__.lower() if name is None else name
        if isinstance(learning_rate, dict):
            learning_rate = schedules.deserialize(learning_rate)
        if isinstance(learning_rate, LearningRateSchedule):
            self.learning_rate = learning_rate
        else:
            self.learning_rate = check_float("learning_rate", learning_rate, above=0)
        self.weight_decay = (
            None if weight_decay is None else check_float("weight_decay", weight_decay, minimum=0)
        )
        limits = {"clipnorm": clipnorm, "clipvalue": clipvalue, "global_clipnorm": global_clipnorm}
        given = {key: check_float(key, value, above=0) for key, value in limits.items() if value is not None}
        if len(given) > 1:
            raise ValueError(
                f"at most one of clipnorm, clipvalue and global_clipnorm can be set, got {given}"
            )
        self.clipnorm = given.get("clipnorm")
        self.clipvalue = given.get("clipvalue")
        self.global_clipnorm = given.get("global_clipnorm")
        self.iterations = 0
        self._slots: list[np.ndarray] = []
        self.segments = _EMPTY_SEGMENTS
        self._scalars = np.zeros(8)

    # What a subclass says of itself.

    @property
    def kind(self) -> int:
        """The number of the update rule in ``kernels/updates.py``."""
        raise NotImplementedError

    def _hyper(self) -> tuple[float, float, float]:
        """The places BETA_1, BETA_2 and EPSILON of ``hyper``."""
        raise NotImplementedError

    # What the training loops use.

    @property
    def hyper(self) -> np.ndarray:
        """float64 (8,): the settings that do not change from step to step."""
        return np.array([*self._hyper(), self.weight_decay or 0.0, 0.0, 0.0, 0.0, 0.0])

    @property
    def n_slots(self) -> int:
        return len(kernel.KEEPS[self.kind])

    @property
    def schedule(self) -> LearningRateSchedule | None:
        return self._rate if isinstance(self._rate, LearningRateSchedule) else None

    @property
    def learning_rate(self) -> float:
        """The rate of the next step. Can be set to a schedule or, unless one rules, to a number >= 0."""
        if isinstance(self._rate, LearningRateSchedule):
            return float(self.learning_rates(self.iterations, 1)[0])
        return self._rate

    @learning_rate.setter
    def learning_rate(self, value: float | LearningRateSchedule) -> None:
        if isinstance(value, LearningRateSchedule):
            self._rate = value
            return
        if isinstance(getattr(self, "_rate", None), LearningRateSchedule):
            raise TypeError(
                f"learning_rate follows {self._rate!r} and cannot be set to {value}; "
                "make the optimizer with a number to change it later"
            )
        self._rate = check_float("learning_rate", value, minimum=0)

    def learning_rates(self, first: int, count: int) -> np.ndarray:
        """float64 (count,): the rates of the steps that begin with ``first`` steps finished."""
        if not isinstance(self._rate, LearningRateSchedule):
            return np.full(count, self._rate)
        if hasattr(self._rate, "series"):
            rates = self._rate.series(first, count)
        else:
            rates = np.array([float(self._rate(step)) for step in range(first, first + count)])
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
        """Three flat arrays, of the parameters' size or empty; an empty list before ``build``."""
        if self._slots:
            for place in kernel.KEEPS[self.kind]:
                if self._slots[place].size == 0:  # a setting changed since: momentum, say, is no longer 0
                    self._slots[place] = np.zeros(*self._built_for)
        return self._slots

    def build(self, params: np.ndarray, segments: np.ndarray | None = None) -> None:
        """Make the slots, zeros, for a flat vector; a second call with an equal one changes nothing.

        ``segments`` (n, 2), the offset and size of each variable, is what ``clipnorm`` goes by; without
        it the vector is one variable. Raises ValueError for a vector of another size or dtype.
        """
        if self.built:
            size, dtype = self._built_for
            if (size, dtype) != (params.size, params.dtype):
                raise ValueError(
                    f"{self.name} was built for {size} parameters of {dtype}, got {params.size} of "
                    f"{params.dtype}: another model needs an optimizer of its own"
                )
        else:
            self._built_for = (params.size, params.dtype)
            self._slots = [np.zeros(0, params.dtype) for _ in range(3)]
        if segments is not None:
            self.segments = np.ascontiguousarray(segments, dtype=np.int64)
        elif len(self.segments) == 0:
            self.segments = np.array([[0, params.size]])

    def forget(self) -> None:
        """Drop the slots and the count of steps, as if ``build`` had not been called."""
        self._slots, self.iterations, self.segments = [], 0, _EMPTY_SEGMENTS

    def apply_clipping(self, grads: np.ndarray, segments: np.ndarray | None = None) -> None:
        """Clip ``grads`` in place as the settings say; ``segments`` defaults to those of ``build``."""
        if self.clipnorm is not None:
            kernel.clip_by_norm(grads, self.segments if segments is None else segments, self.clipnorm)
        elif self.global_clipnorm is not None:
            kernel.clip_by_global_norm(grads, self.global_clipnorm)
        elif self.clipvalue is not None:
            kernel.clip_by_value(grads, self.clipvalue)

    def step(self, params: np.ndarray, grads: np.ndarray) -> None:
        """One step on a flat vector, in place; ``grads`` is clipped in place first where that is set.

        Both are C-contiguous 1-D arrays of one size and one dtype, float32 or float64; ``params`` is
        writeable. The first call builds the slots.
        """
        _check_flat("params", params)
        _check_flat("grads", grads)
        if grads.shape != params.shape or grads.dtype != params.dtype:
            raise ValueError(f"grads must match params, {describe(params)}, got {describe(grads)}")
        if np.may_share_memory(params, grads):
            raise ValueError("params and grads must not share memory")
        self.build(params)
        self.apply_clipping(grads)
        self._update(params, grads)

    def _update(self, params: np.ndarray, grads: np.ndarray) -> None:
        """``step`` without its checks and without clipping."""
        kind = self.kind
        kernel.step_scalars(self._scalars, kind, self.hyper, self.learning_rate, self.iterations + 1)
        kernel.update(kind, params, *self.slots, grads, self._scalars)
        self.iterations += 1

    def get_config(self) -> dict:
        """The constructor's arguments, JSON-able. A schedule becomes ``{"class_name", "config"}``."""
        return {
            "name": self.name,
            "learning_rate": self._rate if self.schedule is None else serialize(self.schedule),
            "weight_decay": self.weight_decay,
            "clipnorm": self.clipnorm,
            "clipvalue": self.clipvalue,
            "global_clipnorm": self.global_clipnorm,
        }


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


class SGD(Optimizer):
    """Gradient descent, with momentum (0 <= momentum <= 1) and Nesterov's look-ahead if wanted.

    ``w -= lr*g``; with momentum ``u = momentum*u - lr*g; w += u``; with nesterov
    ``w += momentum*u - lr*g`` in place of the last.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        name: str | None = None,
    ):
        super().__init__(learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, name)
        self.momentum = check_float("momentum", momentum, minimum=0, maximum=1)
        self.nesterov = check_bool("nesterov", nesterov)

    @property
    def kind(self) -> int:
        if self.momentum == 0:
            return kernel.SGD
        return kernel.NESTEROV if self.nesterov else kernel.MOMENTUM

    def _hyper(self):
        return self.momentum, 0.0, 0.0

    def get_config(self) -> dict:
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}


class Adam(Optimizer):
    """Adam (Kingma & Ba 2015); ``amsgrad`` divides by the largest second moment so far.

    ``m += (1 - beta_1)*(g - m); v += (1 - beta_2)*(g*g - v)``,
    ``w -= lr * sqrt(1 - beta_2**t)/(1 - beta_1**t) * m / (sqrt(v) + epsilon)``: epsilon is added to the
    uncorrected root, the paper's "epsilon hat", as in Keras and unlike in PyTorch.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        name: str | None = None,
    ):
        super().__init__(learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, name)
        self.beta_1 = check_float("beta_1", beta_1, minimum=0, below=1)
        self.beta_2 = check_float("beta_2", beta_2, minimum=0, below=1)
        self.epsilon = check_float("epsilon", epsilon, minimum=0)
        self.amsgrad = check_bool("amsgrad", amsgrad)

    @property
    def kind(self) -> int:
        return kernel.AMSGRAD if self.amsgrad else kernel.ADAM

    def _hyper(self):
        return self.beta_1, self.beta_2, self.epsilon

    def get_config(self) -> dict:
        own = {"beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon, "amsgrad": self.amsgrad}
        return {**super().get_config(), **own}


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019) on every parameter, biases included."""

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        weight_decay: float = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        name: str | None = None,
    ):
        if weight_decay is None:
            raise ValueError("weight_decay must be a number >= 0 for AdamW, got None")
        super().__init__(
            learning_rate,
            beta_1,
            beta_2,
            epsilon,
            amsgrad,
            weight_decay,
            clipnorm,
            clipvalue,
            global_clipnorm,
            name,
        )


class RMSprop(Optimizer):
    """RMSprop (Hinton 2012): ``v = rho*v + (1 - rho)*g*g; w -= lr*g / sqrt(v + epsilon)``.

    ``centered`` divides by the root of the variance, ``v - mean(g)**2``; ``momentum`` (plain) accumulates
    the steps.
    """

    def __init__(
        self,
        learning_rate: float | LearningRateSchedule = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        name: str | None = None,
    ):
        super().__init__(learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, name)
        self.rho = check_float("rho", rho, minimum=0, below=1)
        self.momentum = check_float("momentum", momentum, minimum=0, maximum=1)
        self.epsilon = check_float("epsilon", epsilon, minimum=0)
        self.centered = check_bool("centered", centered)

    @property
    def kind(self) -> int:
        if self.centered:
            return kernel.RMSPROP_CENTERED_MOMENTUM if self.momentum else kernel.RMSPROP_CENTERED
        return kernel.RMSPROP_MOMENTUM if self.momentum else kernel.RMSPROP

    def _hyper(self):
        return self.rho, self.momentum, self.epsilon

    def get_config(self) -> dict:
        own = {
            "rho": self.rho,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "centered": self.centered,
        }
        return {**super().get_config(), **own}


_KNOWN = {c.__name__.lower(): c for c in (SGD, Adam, AdamW, RMSprop)}


def get(identifier) -> Optimizer:
    """An optimizer from its name in any case (``"adam"``), a config, a class, or itself."""
    if identifier is None:
        raise ValueError(f"optimizer must be one of {', '.join(_KNOWN)}, got None")
    if isinstance(identifier, str):
        identifier = identifier.lower()
    elif isinstance(identifier, dict) and isinstance(identifier.get("class_name"), str):
        identifier = {**identifier, "class_name": identifier["class_name"].lower()}
    return resolve("optimizer", identifier, Optimizer, _KNOWN)


def deserialize(config: dict) -> Optimizer:
    """The inverse of ``serialize``; only this module's classes are built."""
    return get(config)
