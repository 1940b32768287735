"""Layers: each one's forward and, under it, its backward.

A layer maps a batch ``x`` (B, *input_shape) to ``out`` (B, *output_shape). ``backward`` takes ``dout``, the
gradient of the loss with respect to what ``forward`` returned, and returns ``dx``; on the way it overwrites
the gradients of the layer's own parameters. Nothing is accumulated and nothing has to be zeroed.

Parameters live in the model's flat vectors: ``layer.weight`` and ``layer.dweight`` are views of them.

A layer of your own, in plain NumPy::

    class Scale(Layer):
        def build(self, input_shape):
            self.add_weight("gain", input_shape, initializer="ones")

        def forward(self, x, training=False):
            self.x = x
            return x * self.gain

        def backward(self, dout):
            self.dgain[...] = (dout * self.x).sum(axis=0)
            return dout * self.gain
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from . import constraints, initializers, regularizers
from .constraints import Constraint
from .initializers import Initializer
from .kernels import random
from .kernels.activations import CODES, NEEDS_INPUT, activation_backward, activation_forward
from .kernels.elementwise import rescale
from .kernels.matmul import dense_backward, dense_forward
from .kernels.ops import ACTIVATION, DENSE, DROPOUT, GAUSSIAN_NOISE, RANDOM_TRANSLATION, RESCALING, Op
from .registry import serialize, snake_case
from .regularizers import Regularizer
from .validation import (
    check_array,
    check_bool,
    check_choice,
    check_float,
    check_int,
    check_shape,
    describe,
    unknown_name,
)

_LINEAR = CODES["linear"]
_SOFTMAX = CODES["softmax"]
_SLOPES = {"leaky_relu": 0.2, "elu": 1.0}  # what Keras gives these names
_ALIASES = {"swish": "silu"}

_names_given: defaultdict[str, itertools.count] = defaultdict(itertools.count)


def _automatic_name(kind: type) -> str:
    """dense, dense_1, dense_2, ...: counted over the process, as in Keras."""
    stem = snake_case(kind.__name__.lstrip("_"))
    number = next(_names_given[stem])
    return f"{stem}_{number}" if number else stem


@dataclass
class Parameter:
    """One trainable array of a layer and its place in the model's flat vectors.

    ``offset`` is -1 until the layer is attached. ``initializer(shape, dtype, rng)`` gives the first value.
    """

    name: str
    shape: tuple[int, ...]
    initializer: object
    regularizer: object | None = None
    constraint: object | None = None
    offset: int = -1

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Layer:
    """The base of all layers; subclass it and define ``forward`` and ``backward``.

    Parameters
    ----------
    name : str, default a name made from the class ("dense", "dense_1", ...)
    input_shape : tuple of int, optional
        Shape of one sample. A model's first layer needs it, or an ``Input``, to be built before any data.
    input_dim : int, optional
        ``input_dim=n`` is ``input_shape=(n,)``.

    Attributes
    ----------
    built : bool
    input_shape, output_shape : tuple of int, without the batch axis; None until known
    parameters : list of Parameter
    weights : list of the parameters' views, in that order
    dtype : the model's dtype; None until attached
    key : uint64, what a random layer draws with; the model sets it before each training step
    """

    built = False
    _fixed = frozenset({"input_shape", "output_shape"})
    """What cannot be set once the layer is built: parameters and compiled loop are laid out by it."""

    def __init__(
        self,
        name: str | None = None,
        input_shape: int | tuple[int, ...] | None = None,
        input_dim: int | None = None,
    ):
        if name is not None and not (isinstance(name, str) and name):
            raise TypeError(f"name must be a non-empty string, got {describe(name)}")
        if input_dim is not None:
            if input_shape is not None:
                raise ValueError(
                    f"give input_dim or input_shape, not both: got {input_dim!r} and {input_shape!r}"
                )
            input_shape = (check_int("input_dim", input_dim, minimum=1),)
        self.name = name or _automatic_name(type(self))
        self.input_shape = None if input_shape is None else check_shape("input_shape", input_shape)
        self.output_shape = None
        self.parameters: list[Parameter] = []
        self.dtype = None
        self.key = np.uint64(0)
        self._declared_shape = self.input_shape
        self._views: dict[str, np.ndarray] = {}

    # -- what a subclass defines --------------------------------------------------------------------

    def build(self, input_shape: tuple[int, ...]) -> None:
        """Add the parameters and set ``output_shape`` (which is ``input_shape`` unless set here)."""

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """``out`` (B, *output_shape) of ``x`` (B, *input_shape)."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(self, x, training=False)")

    def backward(self, dout: np.ndarray) -> np.ndarray:
        """``dx`` from ``dout``, the gradient of what the last ``forward`` returned."""
        raise NotImplementedError(f"{type(self).__name__} must define backward(self, dout)")

    def get_config(self) -> dict:
        """The arguments that make this layer again; a subclass adds its own."""
        config = {"name": self.name}
        if self._declared_shape is not None:
            config["input_shape"] = list(self._declared_shape)
        return config

    def ops(self) -> list[Op] | None:
        """The layer as primitive operations for the compiled loop; None: it runs in Python."""
        return None

    # -- what the base class does -------------------------------------------------------------------

    @classmethod
    def from_config(cls, config: dict) -> Layer:
        """A new, unbuilt layer from what ``get_config`` returned."""
        return cls(**config)

    def __init_subclass__(cls, **kwargs):
        """Wrap a subclass's ``build``: shapes and ``built`` are then right without a call to super()."""
        super().__init_subclass__(**kwargs)
        if "build" in vars(cls):
            cls.build = _recording_shapes(vars(cls)["build"])

    def add_weight(
        self,
        name: str,
        shape: int | tuple[int, ...],
        initializer: str | Initializer = "zeros",
        regularizer: str | Regularizer | None = None,
        constraint: str | Constraint | None = None,
    ) -> None:
        """Declare a trainable array: ``self.<name>`` and ``self.d<name>`` once the layer is attached."""
        if not (isinstance(name, str) and name.isidentifier()):
            raise ValueError(f"name of a weight must be a Python identifier, got {name!r}")
        taken = set(dir(type(self))) | set(self.__dict__)
        taken.update(prefix + parameter.name for parameter in self.parameters for prefix in ("", "d"))
        for attribute in (name, f"d{name}"):
            if attribute in taken:
                raise ValueError(f"layer {self.name} already has {attribute!r}: rename its weight {name!r}")
        self.parameters.append(
            Parameter(
                name,
                check_shape("shape", shape),
                initializers.get(initializer),
                regularizers.get(regularizer),
                constraints.get(constraint),
            )
        )

    def attach(self, params: np.ndarray, grads: np.ndarray, offset: int) -> int:
        """Make the parameters views of the flat vectors from ``offset`` on; the offset after them."""
        self.dtype = params.dtype
        self._views.clear()
        for parameter in self.parameters:
            parameter.offset = offset
            place = slice(offset, offset + parameter.size)
            self._views[parameter.name] = params[place].reshape(parameter.shape)
            self._views[f"d{parameter.name}"] = grads[place].reshape(parameter.shape)
            offset += parameter.size
        return offset

    @property
    def weights(self) -> list[np.ndarray]:
        return [getattr(self, parameter.name) for parameter in self.parameters]

    def get_weights(self) -> list[np.ndarray]:
        """Copies of the parameters."""
        return [view.copy() for view in self.weights]

    def set_weights(self, weights) -> None:
        """Overwrite the parameters with arrays of the same shapes; nothing is changed if one does not fit."""
        arrays = [check_array(f"weights[{index}]", array) for index, array in enumerate(weights)]
        shapes = [parameter.shape for parameter in self.parameters]
        if [array.shape for array in arrays] != shapes:
            raise ValueError(
                f"weights of {self.name} must have shapes {shapes}, got {[array.shape for array in arrays]}"
            )
        for view, array in zip(self.weights, arrays, strict=True):
            view[...] = array

    def count_params(self) -> int:
        return sum(parameter.size for parameter in self.parameters)

    def __getattr__(self, name):
        # reached only when the ordinary look-up found nothing
        views = self.__dict__.get("_views", {})
        if name in views:
            return views[name]
        for parameter in self.__dict__.get("parameters", ()):
            if name in (parameter.name, f"d{parameter.name}"):
                raise AttributeError(f"{self.name}.{name} does not exist before the model is built")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name, value):
        view = self.__dict__.get("_views", {}).get(name)
        if view is not None and value is not view:  # `layer.weight *= 2` assigns the view itself
            raise AttributeError(
                f"{self.name}.{name} is a view of the model's flat vector: write layer.{name}[...] = value"
            )
        if self.built and name in self._fixed:
            raise AttributeError(
                f"{self.name}.{name} is {getattr(self, name)!r} since the layer was built, and cannot become "
                f"{value!r}: make a new layer"
            )
        super().__setattr__(name, value)

    def __repr__(self):
        return f"<{type(self).__name__} {self.name}: {self.input_shape} -> {self.output_shape}>"

    # -- helpers of the built-in layers -------------------------------------------------------------

    def _batch(self, argument: str, array, shape: tuple[int, ...] | None) -> np.ndarray:
        """``array`` checked against (B, *shape), as kernels want it: contiguous, in the layer's dtype."""
        if type(array) is not np.ndarray or array.dtype.kind not in "buif":
            array = check_array(argument, array, allow_empty=True)
        if shape is None:
            raise RuntimeError(f"{self.name} is not built: add it to a model, or call build and attach")
        if array.shape[1:] != shape or array.ndim == 0:
            wanted = ", ".join(str(size) for size in shape)
            raise ValueError(
                f"{argument} of layer {self.name} must have shape (B, {wanted}), got {array.shape}"
            )
        dtype = self.dtype or (array.dtype if array.dtype == np.float64 else np.float32)
        # writeable and aligned as well: kernels would be compiled anew for arrays that are not
        return np.require(array, dtype, "CAW")

    def _input(self, x) -> np.ndarray:
        return self._batch("x", x, self.input_shape)

    def _gradient(self, dout, last) -> np.ndarray:
        """``dout`` for a backward whose forward kept ``last`` (None: there was no forward)."""
        if last is None:
            raise RuntimeError(f"backward of layer {self.name} called before its forward")
        dout = self._batch("dout", dout, self.output_shape)
        if len(dout) != len(last):
            raise ValueError(
                f"dout of layer {self.name} must have {len(last)} rows, as its last forward, got {len(dout)}"
            )
        return dout

    @property
    def _size(self) -> int:
        return math.prod(self.input_shape)


def _recording_shapes(build):
    @functools.wraps(build)
    def wrapped(self, input_shape):
        if self.__dict__.get("_building"):  # super().build() of a subclass
            return build(self, input_shape)
        input_shape = check_shape("input_shape", input_shape)
        if self._declared_shape not in (None, input_shape):
            raise ValueError(
                f"layer {self.name} has input_shape {self._declared_shape}, but its input is {input_shape}"
            )
        self.built, self.parameters, self.dtype = False, [], None
        self._views.clear()
        self.input_shape, self.output_shape = input_shape, None
        self._building = True
        try:
            build(self, input_shape)
        finally:
            self._building = False
        if self.output_shape is None:
            self.output_shape = input_shape
        self.built = True
        return None

    return wrapped


Layer.build = _recording_shapes(Layer.build)  # __init_subclass__ is not called for Layer itself


def _rows(array: np.ndarray) -> np.ndarray:
    """A batch as a matrix (B, D)."""
    return array.reshape(len(array), -1)


class Input(Layer):
    """Declares the shape of one sample; data pass through unchanged.

    ``Input(shape=(784,))``. ``batch_size`` and ``dtype`` are taken for Keras's sake: any batch size fits, and
    inputs are converted to the model's dtype.
    """

    def __init__(
        self,
        shape: int | tuple[int, ...] | None = None,
        batch_size: int | None = None,
        dtype: str | None = None,
        name: str | None = None,
    ):
        if shape is None:
            raise ValueError("shape must be given: Input(shape=(784,))")
        super().__init__(name=name, input_shape=check_shape("shape", shape))

    def forward(self, x, training=False):
        return self._input(x)

    def backward(self, dout):
        return self._batch("dout", dout, self.output_shape)

    def get_config(self):
        return {"name": self.name, "shape": list(self._declared_shape)}

    def ops(self):
        return []


class _Elementwise:
    """An activation by name: its code, its slope, and the kernel calls, shared by Dense and Activation."""

    def __init__(self, name: str | None, slope: float | None = None):
        if name is None:
            name = "linear"
        if not isinstance(name, str):
            raise TypeError(f"activation must be a name (str) or None, got {describe(name)}")
        name = _ALIASES.get(name, name)
        if name not in CODES:
            raise unknown_name("activation", name, CODES)
        self.name = name
        self.code = CODES[name]
        self.slope = _SLOPES.get(name, 0.0) if slope is None else slope

    def forward(self, x):
        """(x kept for the backward, out). ``x`` may be overwritten: most derivatives follow from ``out``."""
        if self.code == _LINEAR:
            return x, x
        out = np.empty_like(x) if self.code in NEEDS_INPUT else x
        activation_forward(out, x, self.code, self.slope)
        return x, out

    def backward(self, dout, out, x):
        if self.code == _LINEAR:
            return dout
        dx = np.empty_like(dout)
        activation_backward(dx, dout, out, x, self.code, self.slope)
        return dx

    def ops(self, size):
        if self.code == _LINEAR:
            return []
        return [Op(ACTIVATION, size, size, activation=self.code, f=(self.slope, 0.0))]


class Dense(Layer):
    """out = activation(x weight + bias), weight (in, units), bias (units,).

    Arguments, defaults and initial distribution are those of Keras 3. ``activation`` is one of linear relu
    leaky_relu sigmoid tanh softmax gelu silu softplus elu. Input must be (B, in): put a Flatten before it
    otherwise.
    """

    _fixed = Layer._fixed | {"units", "activation", "use_bias"}

    def __init__(
        self,
        units: int,
        activation: str | None = None,
        use_bias: bool = True,
        kernel_initializer: str | Initializer = "glorot_uniform",
        bias_initializer: str | Initializer = "zeros",
        kernel_regularizer: str | Regularizer | None = None,
        kernel_constraint: str | Constraint | None = None,
        input_dim: int | None = None,
        input_shape: int | tuple[int, ...] | None = None,
        name: str | None = None,
        bias_regularizer: str | Regularizer | None = None,
        bias_constraint: str | Constraint | None = None,
    ):
        super().__init__(name=name, input_shape=input_shape, input_dim=input_dim)
        self.units = check_int("units", units, minimum=1)
        self._activation = _Elementwise(activation)
        self.activation = self._activation.name
        self.use_bias = check_bool("use_bias", use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        self._x = self._pre = self._out = None

    def build(self, input_shape):
        if len(input_shape) != 1:
            raise ValueError(
                f"layer {self.name} needs input of shape (B, features), got (B, {str(input_shape)[1:]}: "
                "put a Flatten layer before it"
            )
        self.add_weight(
            "weight",
            (input_shape[0], self.units),
            self.kernel_initializer,
            self.kernel_regularizer,
            self.kernel_constraint,
        )
        if self.use_bias:
            self.add_weight(
                "bias", (self.units,), self.bias_initializer, self.bias_regularizer, self.bias_constraint
            )
        self.output_shape = (self.units,)

    @property
    def kernel(self) -> np.ndarray:
        """Keras's name of ``weight``."""
        return self.weight

    def _bias(self, name):
        return getattr(self, name) if self.use_bias else np.empty(0, self.dtype)

    def forward(self, x, training=False):
        self._x = self._input(x)
        pre = np.empty((len(self._x), self.units), self.dtype)
        dense_forward(pre, self._x, self.weight, self._bias("bias"))
        self._pre, self._out = self._activation.forward(pre)
        return self._out

    def backward(self, dout):
        dout = self._activation.backward(self._gradient(dout, self._out), self._out, self._pre)
        dx = np.empty_like(self._x)
        dense_backward(dx, self.dweight, self._bias("dbias"), dout, self._x, self.weight)
        return dx

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "activation": self.activation,
            "use_bias": self.use_bias,
            "kernel_initializer": serialize(self.kernel_initializer),
            "bias_initializer": serialize(self.bias_initializer),
            "kernel_regularizer": serialize(self.kernel_regularizer),
            "bias_regularizer": serialize(self.bias_regularizer),
            "kernel_constraint": serialize(self.kernel_constraint),
            "bias_constraint": serialize(self.bias_constraint),
        }

    def ops(self):
        offsets = {parameter.name: parameter.offset for parameter in self.parameters}
        dense = Op(DENSE, self._size, self.units, weight=offsets["weight"], bias=offsets.get("bias", -1))
        return [dense, *self._activation.ops(self.units)]


class Activation(Layer):
    """out = activation(x), by name: linear relu leaky_relu sigmoid tanh softmax gelu silu softplus elu.

    Softmax is over the last axis, and its backward is the true Jacobian, p * (dp - sum(dp * p)).
    """

    _fixed = Layer._fixed | {"activation", "negative_slope", "max_value", "threshold"}

    def __init__(
        self,
        activation: str | None,
        name: str | None = None,
        input_shape: int | tuple[int, ...] | None = None,
        input_dim: int | None = None,
    ):
        super().__init__(name=name, input_shape=input_shape, input_dim=input_dim)
        self._set(activation)

    def _set(self, activation, slope=None):
        self._activation = _Elementwise(activation, slope)
        self.activation = self._activation.name
        self._x = self._out = None

    def _matrix(self, array):
        """Rows of softmax are the last axis; for elementwise formulas any matrix will do."""
        return array.reshape(-1, self.input_shape[-1])

    def forward(self, x, training=False):
        x = self._input(x)
        if self._activation.code == _LINEAR:
            self._x = self._out = x
            return x
        self._x, self._out = x, np.empty_like(x)
        activation_forward(
            self._matrix(self._out), self._matrix(x), self._activation.code, self._activation.slope
        )
        return self._out

    def backward(self, dout):
        dout = self._gradient(dout, self._out)
        matrices = (self._matrix(array) for array in (dout, self._out, self._x))
        return self._activation.backward(*matrices).reshape(dout.shape)

    def get_config(self):
        return {**super().get_config(), "activation": self.activation}

    def ops(self):
        if self._activation.code == _SOFTMAX and len(self.input_shape) > 1:
            return None  # the loop's rows are whole samples
        return self._activation.ops(self._size)


class Softmax(Activation):
    """softmax over the last axis; backward: p * (dp - sum(dp * p))."""

    def __init__(
        self,
        axis: int = -1,
        name: str | None = None,
        input_shape: int | tuple[int, ...] | None = None,
        input_dim: int | None = None,
    ):
        if axis != -1:
            raise ValueError(f"axis must be -1 (the last), got {axis!r}")
        super().__init__("softmax", name=name, input_shape=input_shape, input_dim=input_dim)

    def get_config(self):
        return Layer.get_config(self)


class LeakyReLU(Activation):
    """x where x > 0, else negative_slope * x."""

    def __init__(
        self,
        negative_slope: float = 0.3,
        name: str | None = None,
        input_shape: int | tuple[int, ...] | None = None,
        input_dim: int | None = None,
    ):
        Layer.__init__(self, name=name, input_shape=input_shape, input_dim=input_dim)
        self.negative_slope = check_float("negative_slope", negative_slope, minimum=0)
        self._set("leaky_relu", self.negative_slope)

    def get_config(self):
        return {**Layer.get_config(self), "negative_slope": self.negative_slope}


class ReLU(Activation):
    """x where x > threshold, at most max_value; else negative_slope * (x - threshold).

    With ``max_value`` or ``threshold`` set the layer runs in NumPy, outside the compiled loop.
    """

    def __init__(
        self,
        max_value: float | None = None,
        negative_slope: float = 0.0,
        threshold: float = 0.0,
        name: str | None = None,
        input_shape: int | tuple[int, ...] | None = None,
        input_dim: int | None = None,
    ):
        Layer.__init__(self, name=name, input_shape=input_shape, input_dim=input_dim)
        self.max_value = None if max_value is None else check_float("max_value", max_value, minimum=0)
        self.negative_slope = check_float("negative_slope", negative_slope, minimum=0)
        self.threshold = check_float("threshold", threshold, minimum=0)
        self._plain = self.max_value is None and self.threshold == 0
        self._set("leaky_relu" if self.negative_slope else "relu", self.negative_slope)

    def forward(self, x, training=False):
        if self._plain:
            return super().forward(x, training)
        self._x = x = self._input(x)
        above = x if self.max_value is None else np.minimum(x, x.dtype.type(self.max_value))
        below = x.dtype.type(self.negative_slope) * (x - x.dtype.type(self.threshold))
        # written so that NaN takes the upper branch and stays
        self._out = np.where(x < x.dtype.type(self.threshold), below, above)
        return self._out

    def backward(self, dout):
        if self._plain:
            return super().backward(dout)
        dout, x = self._gradient(dout, self._out), self._x
        slope = np.where(x <= self.threshold, self.negative_slope, 1.0)
        if self.max_value is not None:
            slope[(x > self.threshold) & (x >= self.max_value)] = 0.0
        return dout * slope.astype(dout.dtype)

    def get_config(self):
        return {
            **Layer.get_config(self),
            "max_value": self.max_value,
            "negative_slope": self.negative_slope,
            "threshold": self.threshold,
        }

    def ops(self):
        return super().ops() if self._plain else None


class Dropout(Layer):
    """In training each number is dropped with probability ``rate``, the others divided by 1 - rate.

    No mask is stored: the backward repeats the draws from ``key``. ``seed`` is taken for Keras's sake; draws
    are keyed by the model's seed and the layer's place, so two layers never share a mask.
    """

    def __init__(
        self,
        rate: float,
        seed: int | None = None,
        name: str | None = None,
        input_shape: int | tuple[int, ...] | None = None,
        input_dim: int | None = None,
    ):
        super().__init__(name=name, input_shape=input_shape, input_dim=input_dim)
        self.rate = check_float("rate", rate, minimum=0, below=1)
        self.seed = None if seed is None else check_int("seed", seed)
        self._used = None

    def forward(self, x, training=False):
        x = self._input(x)
        self._used = x, np.uint64(self.key), training and self.rate > 0
        if not self._used[2]:
            return x
        out = np.empty_like(x)
        random.dropout(_rows(out), _rows(x), self.rate, self._used[1], 0)
        return out

    def backward(self, dout):
        x, key, dropped = self._used or (None, None, None)
        dout = self._gradient(dout, x)
        if not dropped:
            return dout
        dx = np.empty_like(dout)
        random.dropout(_rows(dx), _rows(dout), self.rate, key, 0)
        return dx

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "seed": self.seed}

    def ops(self):
        return [Op(DROPOUT, self._size, self._size, f=(self.rate, 0.0))] if self.rate else []


class Flatten(Layer):
    """(B, *shape) to (B, product of shape), in C order."""

    def build(self, input_shape):
        self.output_shape = (math.prod(input_shape),)

    def forward(self, x, training=False):
        return _rows(self._input(x))

    def backward(self, dout):
        dout = self._batch("dout", dout, self.output_shape)
        return dout.reshape(len(dout), *self.input_shape)

    def ops(self):
        return []


class Rescaling(Layer):
    """out = x * scale + offset: ``Rescaling(1 / 255)`` takes bytes to [0, 1]."""

    _fixed = Layer._fixed | {"scale", "offset"}

    def __init__(
        self,
        scale: float,
        offset: float = 0.0,
        name: str | None = None,
        input_shape: int | tuple[int, ...] | None = None,
        input_dim: int | None = None,
    ):
        super().__init__(name=name, input_shape=input_shape, input_dim=input_dim)
        self.scale = check_float("scale", scale)
        self.offset = check_float("offset", offset)

    def forward(self, x, training=False):
        x = self._input(x)
        out = np.empty_like(x)
        rescale(_rows(out), _rows(x), self.scale, self.offset)
        return out

    def backward(self, dout):
        dout = self._batch("dout", dout, self.output_shape)
        dx = np.empty_like(dout)
        rescale(_rows(dx), _rows(dout), self.scale, 0.0)
        return dx

    def get_config(self):
        return {**super().get_config(), "scale": self.scale, "offset": self.offset}

    def ops(self):
        return [Op(RESCALING, self._size, self._size, f=(self.scale, self.offset))]


class GaussianNoise(Layer):
    """In training, out = x + stddev * normal; the gradient passes unchanged. ``seed``: see Dropout."""

    def __init__(
        self,
        stddev: float,
        seed: int | None = None,
        name: str | None = None,
        input_shape: int | tuple[int, ...] | None = None,
        input_dim: int | None = None,
    ):
        super().__init__(name=name, input_shape=input_shape, input_dim=input_dim)
        self.stddev = check_float("stddev", stddev, minimum=0)
        self.seed = None if seed is None else check_int("seed", seed)

    def forward(self, x, training=False):
        x = self._input(x)
        if not training or self.stddev == 0:
            return x
        out = np.empty_like(x)
        random.gaussian_noise(_rows(out), _rows(x), self.stddev, np.uint64(self.key), 0)
        return out

    def backward(self, dout):
        return self._batch("dout", dout, self.output_shape)

    def get_config(self):
        return {**super().get_config(), "stddev": self.stddev, "seed": self.seed}

    def ops(self):
        if self.stddev == 0:
            return []
        return [Op(GAUSSIAN_NOISE, self._size, self._size, f=(self.stddev, 0.0))]


class RandomTranslation(Layer):
    """In training, each image (H, W) or (H, W, C) is shifted by its own whole number of pixels.

    A factor is a fraction of the height (positive: down) or width (positive: right), in [-1, 1]: one number
    for either way, or (lowest, highest). ``RandomTranslation(2 / 28, 2 / 28)`` jitters digits by up to two
    pixels. What moves in is ``fill_value``. Keras shifts by fractions of a pixel and reflects by default;
    here the shift is whole and the only ``fill_mode`` is "constant". ``seed``: see Dropout.
    """

    _fixed = Layer._fixed | {"height_factor", "width_factor"}

    def __init__(
        self,
        height_factor: float | tuple[float, float],
        width_factor: float | tuple[float, float],
        fill_mode: str = "constant",
        fill_value: float = 0.0,
        seed: int | None = None,
        name: str | None = None,
        input_shape: int | tuple[int, ...] | None = None,
        input_dim: int | None = None,
    ):
        super().__init__(name=name, input_shape=input_shape, input_dim=input_dim)
        self.height_factor, self._height = _bounds("height_factor", height_factor)
        self.width_factor, self._width = _bounds("width_factor", width_factor)
        self.fill_mode = check_choice("fill_mode", fill_mode, ("constant",))
        self.fill_value = check_float("fill_value", fill_value)
        self.seed = None if seed is None else check_int("seed", seed)
        self._used = None

    def build(self, input_shape):
        if len(input_shape) not in (2, 3):
            raise ValueError(
                f"layer {self.name} needs images (H, W) or (H, W, C), got samples of shape {input_shape}"
            )
        height, width, channels = (*input_shape, 1)[:3]
        self._image = height, width, channels
        low_dy, high_dy = (round(bound * height) for bound in self._height)
        low_dx, high_dx = (round(bound * width) for bound in self._width)
        self._reach = low_dy, high_dy, low_dx, high_dx

    def forward(self, x, training=False):
        x = self._input(x)
        self._used = x, np.uint64(self.key), training and any(self._reach)
        return self._shift(x, self.fill_value, 1)

    def backward(self, dout):
        dout = self._gradient(dout, self._used and self._used[0])
        return self._shift(dout, 0.0, -1)

    def _shift(self, x, fill_value, direction):
        _, key, shifts = self._used
        if not shifts:
            return x
        out = np.empty_like(x)
        random.translate_between(
            _rows(out), _rows(x), *self._image, *self._reach, fill_value, key, 0, direction
        )
        return out

    def get_config(self):
        return {
            **super().get_config(),
            "height_factor": self.height_factor,
            "width_factor": self.width_factor,
            "fill_mode": self.fill_mode,
            "fill_value": self.fill_value,
            "seed": self.seed,
        }

    def ops(self):
        if not any(self._reach):
            return []
        numbers = (*self._image, *self._reach)
        return [Op(RANDOM_TRANSLATION, self._size, self._size, i=numbers, f=(self.fill_value, 0.0))]


def _bounds(argument, factor):
    """A factor as given (for the config) and as (lowest, highest)."""
    if isinstance(factor, (tuple, list)):
        if len(factor) != 2:
            raise ValueError(f"{argument} must be a number or (lowest, highest), got {factor!r}")
        low, high = sorted(check_float(argument, bound, minimum=-1, maximum=1) for bound in factor)
        return [low, high], (low, high)
    factor = check_float(argument, factor, minimum=-1, maximum=1)
    return factor, (-abs(factor), abs(factor))
