"""What all layers share: names, shapes, and parameters that are views of the model's flat vectors."""

import functools
import itertools
import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np

from .. import constraints, initializers, regularizers
from ..constraints import Constraint
from ..initializers import Initializer
from ..kernels.ops import Op
from ..registry import Configurable, Registry, snake_case
from ..regularizers import Regularizer
from ..validation import check_array, check_int, check_shape, describe

_names_given: defaultdict[str, itertools.count] = defaultdict(itertools.count)


@dataclass
class Parameter:
    """One trainable array of a layer and its place in the model's flat vectors.

    ``offset`` is -1 until the layer is attached. ``initializer(shape, dtype, rng)`` gives the first value.
    """

    name: str
    shape: tuple[int, ...]
    initializer: Initializer
    regularizer: Regularizer | None = None
    constraint: Constraint | None = None
    offset: int = -1

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


class LayerOptions(TypedDict, total=False):
    """The arguments of `Layer`, which every layer takes by keyword."""

    name: str | None
    input_shape: int | tuple[int, ...] | None
    input_dim: int | None


def _recording_shapes(build):
    """``build`` that starts from an unbuilt layer and afterwards records the shapes and sets ``built``."""

    @functools.wraps(build)
    def wrapped(self, input_shape):
        if self.__dict__.get("_building"):  # super().build() of a subclass
            return build(self, input_shape)
        input_shape = check_shape("input_shape", input_shape)
        if self._declared_shape not in (None, input_shape):
            raise ValueError(
                f"layer {self.name} has input_shape {self._declared_shape}, but its input is {input_shape}"
            )
        self.unbuild()
        self.input_shape = input_shape
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


class Layer(Configurable):
    """The base of all layers; subclass it and define ``forward`` and ``backward``.

    Parameters
    ----------
    name : str, default a name made from the class ("dense", "dense_1", ...)
    input_shape : tuple of int, optional
        Shape of one sample. If the first layer has it, or an ``Input`` does, the model is built before it sees data.
    input_dim : int, optional
        ``input_dim=n`` is ``input_shape=(n,)``.

    A subclass hands these on as ``**options`` and keeps each argument of its own as an attribute of the same name:
    see the example in ``minidl.layers``.

    Attributes
    ----------
    built : bool
    input_shape, output_shape : tuple of int, without the batch axis; None until known
    parameters : list of Parameter
    weights : list of the parameters' views, in that order
    dtype : the model's dtype; None until attached
    key : uint64, the key of a random layer's draws; the model sets it before each training step
    """

    built = False
    not_in_config = frozenset({"input_dim"})
    fixed_once_built = frozenset({"input_shape", "output_shape"})
    """Attributes that cannot be set once the layer is built: parameters and compiled loop depend on them."""

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
        if name is None:  # dense, dense_1, dense_2, ...: counted over the process, as in Keras
            name = snake_case(type(self).__name__.lstrip("_"))
            number = next(_names_given[name])
            name = f"{name}_{number}" if number else name
        self.name = name
        self.input_shape = None if input_shape is None else check_shape("input_shape", input_shape)
        self.output_shape: tuple[int, ...] | None = None
        self.parameters: list[Parameter] = []
        self.dtype: np.dtype | None = None
        self.key = np.uint64(0)
        self._declared_shape = self.input_shape
        self._views: dict[str, np.ndarray] = {}

    # -- what a subclass defines --------------------------------------------------------------------

    @_recording_shapes
    def build(self, input_shape: tuple[int, ...]) -> None:
        """Add the parameters and set ``output_shape`` (which is ``input_shape`` unless set here)."""

    def forward(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """``out`` (B, *output_shape) of ``x`` (B, *input_shape)."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(self, x, training=False)")

    def backward(self, dout: np.ndarray) -> np.ndarray:
        """``dx`` from ``dout``, the gradient with respect to what the last ``forward`` returned.

        It also overwrites ``self.d<name>`` of every parameter.
        """
        raise NotImplementedError(f"{type(self).__name__} must define backward(self, dout)")

    def ops(self) -> list[Op] | None:
        """The layer as operations of the compiled loop, in order; None if it runs in Python only."""
        return None

    # -- what the base class does -------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, ``input_shape`` only if it was given."""
        config = super().get_config()
        if self._declared_shape is None:
            config.pop("input_shape", None)
        elif "input_shape" in config:
            config["input_shape"] = list(self._declared_shape)
        return config

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
        shape, initializer = check_shape("shape", shape), initializers.get(initializer)
        regularizer, constraint = regularizers.get(regularizer), constraints.get(constraint)
        self.parameters.append(Parameter(name, shape, initializer, regularizer, constraint))

    def unbuild(self) -> None:
        """Undo ``build``: parameters and shapes are forgotten, except the ``input_shape`` of the constructor."""
        self.built, self.parameters, self.dtype = False, [], None
        self.input_shape, self.output_shape = self._declared_shape, None
        self._views.clear()

    def attach(self, params: np.ndarray, grads: np.ndarray, offset: int) -> int:
        """Make the parameters views of the flat vectors from ``offset`` on; returns the offset after them."""
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
        """The parameters, as views of the model's flat vector."""
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
        """How many numbers are trained."""
        return sum(parameter.size for parameter in self.parameters)

    def __getattr__(self, name):
        # called only when the ordinary look-up found nothing
        views = self.__dict__.get("_views", {})
        if name in views:
            return views[name]
        for parameter in self.__dict__.get("parameters", ()):
            if name in (parameter.name, f"d{parameter.name}"):
                raise AttributeError(f"{self.name}.{name} does not exist before the model is built")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _checked(self, name, value):
        return value  # building sets attributes; `__setattr__` has the rules

    def __setattr__(self, name, value):
        view = self.__dict__.get("_views", {}).get(name)
        if view is not None and value is not view:  # `layer.weight *= 2` assigns the view itself
            raise AttributeError(
                f"{self.name}.{name} is a view of the model's flat vector: write layer.{name}[...] = value"
            )
        if self.built and name in self.fixed_once_built:
            raise AttributeError(
                f"{self.name}.{name} is {getattr(self, name)!r} since the layer was built, and cannot become "
                f"{value!r}: make a new layer"
            )
        super().__setattr__(name, value)

    def __repr__(self):
        return f"<{type(self).__name__} {self.name}: {self.input_shape} -> {self.output_shape}>"

    # -- helpers of the built-in layers -------------------------------------------------------------

    def _checked_batch(self, argument: str, array, shape: tuple[int, ...] | None) -> np.ndarray:
        """``array`` checked against (B, *shape) and made what kernels take: contiguous, the layer's dtype."""
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
        # writeable and aligned as well: kernels would be compiled again for arrays that are not
        return np.require(array, np.dtype(dtype), ["C", "A", "W"])

    def _checked_input(self, x) -> np.ndarray:
        return self._checked_batch("x", x, self.input_shape)

    def _checked_gradient(self, dout, last: np.ndarray | None) -> np.ndarray:
        """``dout`` for a backward. ``last`` is an array its forward kept; None means there was no forward."""
        if last is None:
            raise RuntimeError(f"backward of layer {self.name} called before its forward")
        dout = self._checked_batch("dout", dout, self.output_shape)
        if len(dout) != len(last):
            raise ValueError(
                f"dout of layer {self.name} must have {len(last)} rows, as its last forward, got {len(dout)}"
            )
        return dout

    @property
    def _size(self):
        """How many numbers one sample has."""
        return math.prod(self.input_shape)


LAYERS = Registry("layer class", Layer, spellings=(str,))


def as_matrix(array: np.ndarray) -> np.ndarray:
    """A batch as a matrix (B, D)."""
    return array.reshape(len(array), -1)
