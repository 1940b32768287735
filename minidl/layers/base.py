"""The base of all layers: names, shapes, parameters as views of the model's flat vectors."""

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
from ..kernels.program import Op
from ..parameters import set_weights
from ..registry import (
    Configurable,
    Registry,
    constructor_arguments,
    is_minidls,
    refuse_uncalled,
    snake_case,
)
from ..regularizers import Regularizer
from ..validation import check_array, check_bool, check_int, check_name, check_shape, known_names
from .chain import Symbol, extended

_names_given: defaultdict[str, itertools.count] = defaultdict(itertools.count)


def given_name(name: str | None, kind: str) -> str:
    """``name``; None: one made from ``kind``, as in Keras counted over the process: dense, dense_1, dense_2, ..."""
    if name is None:
        number = next(_names_given[kind])
        return f"{kind}_{number}" if number else kind
    return check_name(name, kind)


@dataclass
class Parameter:
    """One array of a layer. ``offset``: its place in the model's flat vectors, -1 until attached."""

    name: str
    shape: tuple[int, ...]
    initializer: Initializer
    regularizer: Regularizer | None = None
    constraint: Constraint | None = None
    offset: int = -1
    trainable: bool = True
    learns: bool = True  # False: no gradient ever changes it, as a moving average

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


class LayerOptions(TypedDict, total=False):
    """The arguments of `Layer`, which every layer takes by keyword."""

    name: str | None
    input_shape: int | tuple[int, ...] | None
    input_dim: int | None
    trainable: bool


def _recording_shapes(build):
    """``build`` that starts from an unbuilt layer and afterwards records the shapes and sets ``built``."""

    @functools.wraps(build)
    def wrapped(self, input_shape):
        if self.__dict__.get("_building"):  # super().build() of a subclass
            build(self, input_shape)
            return
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
        self.output_shape = self.output_shape or input_shape
        self.built = True

    return wrapped


@functools.cache
def _attributes_of_any_layer() -> frozenset[str]:
    return frozenset(vars(Layer(name="layer")))


class Layer(Configurable):
    """The base of all layers; subclass it and define ``forward`` and ``backward``.

    Parameters
    ----------
    name : str, default a name made from the class ("dense", "dense_1", ...)
    input_shape : tuple of int, optional
        Shape of one sample. If the first layer has it, or an ``Input`` does, the model is built before it sees data.
    input_dim : int, optional
        ``input_dim=n`` is ``input_shape=(n,)``.
    trainable : bool, default True
        False freezes the parameters: no gradient is computed for them, no penalty, constraint or weight decay touches
        them. It can be set at any time, and training follows with its next step, without a new ``compile``.

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
    _in_chain = False  # whether it was called on an Input or what follows one
    _version = 0  # how often a setting was changed on the built layer; a training that runs compares it
    not_in_config = frozenset({"input_dim"})
    changeable = frozenset({"trainable"})
    """Arguments of minidl's own constructors that can be set on a built layer. Training follows; others are fixed."""

    def __init__(
        self,
        name: str | None = None,
        input_shape: int | tuple[int, ...] | None = None,
        input_dim: int | None = None,
        trainable: bool = True,
    ):
        refuse_uncalled(self, "forward(x, training=False) and backward(dout)")
        if input_dim is not None:
            if input_shape is not None:
                raise ValueError(
                    f"give input_dim or input_shape, not both: got {input_dim!r} and {input_shape!r}"
                )
            input_shape = (check_int("input_dim", input_dim, minimum=1),)
        self.name = given_name(name, snake_case(type(self).__name__.lstrip("_")))
        self.input_shape = None if input_shape is None else check_shape("input_shape", input_shape)
        self.output_shape: tuple[int, ...] | None = None
        self.trainable = check_bool("trainable", trainable)
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

    def __call__(self, x, training: bool = False):
        """A place in a chain for ``minidl.Model``, where ``x`` is an ``Input`` or such a place; else ``forward``."""
        first = x[0] if isinstance(x, (list, tuple)) and x else x
        if isinstance(first, (Symbol, Layer)):
            return extended(self, x)
        return self.forward(x, training=training)

    def symbol(self) -> Symbol:
        """Where a chain begins: at an ``Input`` only."""
        raise TypeError(f"layer {self.name!r} was not called: write {self.name}(x), as of an Input x")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, ``input_shape`` only if it was given, ``trainable`` only if it is False."""
        config = super().get_config()
        if self._declared_shape is None:
            config.pop("input_shape", None)
        elif "input_shape" in config:
            config["input_shape"] = list(self._declared_shape)
        if self.trainable:  # earlier versions read the file, too
            config.pop("trainable", None)
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
        trainable: bool = True,
    ) -> None:
        """Declare ``self.<name>`` and ``self.d<name>``. What is not ``trainable`` is moved by no gradient."""
        if not (isinstance(name, str) and name.isidentifier()):
            raise ValueError(f"name of a weight must be a Python identifier, got {name!r}")
        taken = {*dir(self), *(prefix + p.name for p in self.parameters for prefix in ("", "d"))}
        for attribute in (name, f"d{name}"):
            if attribute in taken:
                raise ValueError(f"layer {self.name} already has {attribute!r}: rename its weight {name!r}")
        shape, initializer = check_shape("shape", shape), initializers.get(initializer)
        regularizer, constraint = regularizers.get(regularizer), constraints.get(constraint)
        learns = check_bool("trainable", trainable) and self.trainable, trainable
        self.parameters.append(Parameter(name, shape, initializer, regularizer, constraint, -1, *learns))

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
        set_weights(self.weights, weights)

    def count_params(self) -> int:
        """How many numbers the parameters hold."""
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
        return value  # the rules of layers depend on whether they are built: `__setattr__` checks them

    def __setattr__(self, name, value):
        known = self.__dict__
        if name[:1] == "_" and name not in known.get("_views", ()):  # no setting, and often set
            object.__setattr__(self, name, value)
            return
        # `layer.weight *= 2` assigns the view itself
        if known.get("_views", {}).get(name, value) is not value:
            raise AttributeError(
                f"{self.name}.{name} is a view of the model's flat vector: write layer.{name}[...] = value"
            )
        cls, settings = type(self), constructor_arguments(type(self))
        is_setting = name in settings and name != "dtype" and is_minidls(settings[name])
        is_made = self.built or known.get("_is_constructed", False)
        if is_setting and (name in known or is_made):
            is_fixed = name in self.not_in_config or (self.built and name not in self.changeable)
        else:
            is_fixed = self.built and name == "output_shape"
        if is_fixed:
            since = " since the layer was built," if self.built else ""
            was = f"{self.name}.{name} is {getattr(self, name, None)!r}"
            raise AttributeError(f"{was}{since} and cannot become {value!r}: make a new layer")
        if name in ("forward", "backward", "build", "ops") and cls.ops is not Layer.ops:
            raise AttributeError(f"{self.name}.{name} cannot be replaced on one layer: make a subclass")
        if is_made and is_minidls(cls) and not name.startswith("_") and not hasattr(self, name):
            raise AttributeError(f"{cls.__name__} has no setting {name!r}: {known_names(name, settings)}")
        if is_setting and name in known and name != "input_shape":
            self._change(settings[name], name, value)
        else:
            object.__setattr__(self, name, value)

    def _change(self, owner, argument: str, value) -> None:
        """Set an argument of ``owner``'s constructor as if the layer had been made with it, checks included."""
        names = constructor_arguments(owner).keys() - owner.not_in_config
        made = owner(**{name: getattr(self, name) for name in names} | {argument: value})
        state = _attributes_of_any_layer() - {argument}
        if self.built:
            made.build(self.input_shape)
            self._version += 1
        self.__dict__.update({name: made.__dict__[name] for name in vars(made).keys() - state})
        remade = {parameter.name: parameter for parameter in made.parameters}
        for parameter in self.parameters:
            like = remade.get(parameter.name, parameter)
            parameter.regularizer, parameter.constraint = like.regularizer, like.constraint
            parameter.trainable = self.trainable and parameter.learns

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


def ops_of(layer: Layer) -> list[Op] | None:
    """``layer.ops()``; None where a subclass redefines how a layer computes, but inherits the operations."""
    for cls in type(layer).__mro__:
        if "ops" in vars(cls):
            return layer.ops()
        if "forward" in vars(cls) or "backward" in vars(cls):
            return None
    return None


LAYERS = Registry("layer class", Layer, spellings=(str,))
