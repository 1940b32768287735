"""Layers in a row over flat parameter vectors: what a model computes, apart from how it is trained."""

import copy
import itertools
from collections.abc import Callable, Iterable

import numpy as np

from ..callbacks import say
from ..kernels.program import (
    ACTIVATION,
    BATCH_NORMALIZATION,
    DROPOUT,
    GAUSSIAN_NOISE,
    MOVING_NORMALIZATION,
    RANDOM_TRANSLATION,
    Op,
)
from ..kernels.random import LAYER, key_of
from ..parameters import FlatParameters
from ..registry import overridden, refuse_uncalled
from ..validation import check_array, check_bool, check_input_shape, check_int, check_shape, describe, warn
from .base import Layer, ops_of
from .dense import Activation, Dense, Softmax
from .rowwise import Dropout, Flatten, GaussianNoise, Input, RandomLayer, RandomTranslation
from .summary import summarize

AUGMENTING = (GaussianNoise, RandomTranslation)
"""Layers that change inputs at random. A teacher is asked about the changed inputs."""
_IN_TRAINING_ONLY = (DROPOUT, GAUSSIAN_NOISE, RANDOM_TRANSLATION)
_IN_INFERENCE = {BATCH_NORMALIZATION: MOVING_NORMALIZATION}
"""What takes an operation's place there."""
_WITHOUT_ACTIVATION = (Dropout, Flatten, GaussianNoise)


class Stack(FlatParameters):
    """Layers in a row: built for an input shape, run forward and backward, described as a table.

    ``_logits_layers`` are the layers without a final softmax or sigmoid, on the same weights. Losses that are
    fused with that activation run these.
    """

    def __init__(self, layers: Iterable[Layer] | None, dtype: np.dtype, seed: int):
        self.dtype = dtype
        self.seed = seed
        self.built = False
        self.predictors: dict = {}
        self._layers: list[Layer] = []
        self._logits_layers: list[Layer] = []
        self._input: Input | None = None
        self._clear()
        does_more = "backward(dout, logits=False) if it does more than its layers"
        refuse_uncalled(self, f"forward(x, training=False, logits=False), and {does_more}")
        if isinstance(layers, Layer) or not isinstance(layers, (Iterable, type(None))):
            raise TypeError(f"layers must be a list of layers, got {describe(layers)}")
        self._add_all(() if layers is None else layers)

    # -- building ------------------------------------------------------------------------------------

    @property
    def layers(self) -> list[Layer]:
        return list(self._layers)

    def _add_all(self, layers: Iterable[Layer]) -> None:
        """Put each of them on top, or none if one is refused; the parameters are laid out once."""
        before = len(self._layers)
        try:
            for layer in layers:
                self._append(layer)
            if self._layers and self._layers[-1].built:
                self._attach()
        except Exception:
            if added := self._layers[before:]:
                del self._layers[before:]
                for layer in added:  # they may be used in another model
                    layer._in_model = False
                    layer.unbuild()
                self._attach() if self._layers else self._unbuild()
            raise

    def _append(self, layer: Layer) -> None:
        """Put ``layer`` on top, and build it if the shape of its input is known; its parameters have no place yet."""
        if not isinstance(layer, Layer):
            hint = ": write it with ()" if isinstance(layer, type) else ""
            raise TypeError(f"layer must be a minidl.layers.Layer, got {describe(layer)}{hint}")
        if isinstance(layer, Input):
            if self._input is not None or self._layers:
                raise ValueError("Input must come first and only once in a Sequential")
            if layer._dtype is not None and layer._dtype != self.dtype:
                wanted = f"the model's, {self.dtype}, got {layer._dtype}"
                raise ValueError(f"dtype of layer {layer.name} must be {wanted}: make the model with dtype=")
            layer.build(layer.input_shape)
            self._input = layer
            return
        if getattr(layer, "_in_model", False):
            raise ValueError(f"layer {layer.name!r} already belongs to a model: make a new one of its class")
        if any(layer.name == other.name for other in self._layers):
            raise ValueError(f"layer names must be distinct, got a second {layer.name!r}")
        if self._layers:
            shape = self._layers[-1].output_shape if self._layers[-1].built else None
        else:
            shape = layer.input_shape if self._input is None else self._input.input_shape
        if shape is not None:
            layer.build(shape)
        layer._in_model = True
        self._layers.append(layer)

    def pop(self) -> Layer:
        if not self._layers:
            raise ValueError("there are no layers in the model")
        layer = self._layers.pop()
        layer._in_model = False
        if self.built:
            first = layer.parameters[0].offset if layer.parameters else self.params.size
            layer.attach(np.array(self.params[first:]), np.array(self.grads[first:]), 0)
            self._attach()
        return layer

    def build(self, input_shape: int | tuple[int | None, ...] | None = None) -> None:
        if not self._layers:
            raise ValueError("a model without layers cannot be built: add a layer first")
        if isinstance(input_shape, (tuple, list)) and len(input_shape) > 1:
            batch, *sample = input_shape
            if batch is None or tuple(sample) == self.input_shape:
                input_shape = tuple(sample)
            elif tuple(input_shape) != self.input_shape:  # Keras would take the first for the batch
                raise ValueError(
                    f"input_shape must begin with None, for the batch, got {input_shape!r}: if its first axis is the "
                    f"batch, write {(None, *sample)}; if it is one sample, {(None, *input_shape)}"
                )
        if input_shape is None:
            if not self.built:
                raise ValueError("input_shape must be given: no layer says what the model's input is")
            return
        shape = check_shape("input_shape", input_shape)
        if self.input_shape not in (None, shape):
            raise ValueError(f"input_shape of {self.name} is {self.input_shape}, got {shape}")
        if self.built:
            return
        try:
            self._build_layers(shape)
            self._attach()
        except Exception:
            self._unbuild()
            raise

    def _build_layers(self, shape: tuple[int, ...]) -> None:
        for layer in self._layers:
            layer.build(shape)
            layer._in_model = True
            shape = layer.output_shape

    def _unbuild(self) -> None:
        """Undo ``build``, whose shape turned out to be wrong."""
        for layer in self._layers:
            layer.unbuild()
        self._clear()
        self.built = False

    def fill(self, layers: list[Layer], input_shape: tuple[int, ...] | None, size: int | None = None) -> None:
        """Give an empty model all its layers at once.

        With ``size`` it is refused unless it has that many parameters, before any is allocated; they stay 0.
        """
        self._layers = layers
        if input_shape is None:
            return
        self._input = Input(shape=input_shape)
        self._input.build(input_shape)
        self._build_layers(input_shape)
        count = sum(layer.count_params() for layer in layers)
        if size is not None and count != size:
            raise ValueError(f"the layers have {count} parameters, but there are values for {size}")
        if layers:
            self._attach(initialize=size is None)

    def _attach(self, initialize: bool = True) -> None:
        """Lay the parameters out anew, and find the layers that give the logits."""
        self._lay_out(initialize)
        self.predictors = {}
        self._logits_layers = self._layers
        if self.final_activation in ("softmax", "sigmoid"):
            *self._logits_layers, last = self._layers
            if type(last) is Dense:
                linear = copy.copy(last)  # the same layer, on the same weights, without its activation
                linear._activation = type(last._activation)("linear")
                self._logits_layers.append(linear)
        self.built = True

    def build_for(self, x: object) -> None:
        """Build a model that takes its input shape from the data."""
        if not self._layers:
            raise ValueError(f"{self.name} has no layers: add a layer first")
        if not self.built:
            self.build((None, *check_input_shape(x, None).shape[1:]))

    # -- description ---------------------------------------------------------------------------------

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        if self._input is not None:
            return self._input.input_shape
        return self._layers[0].input_shape if self._layers else None

    @property
    def output_shape(self) -> tuple[int, ...] | None:
        return self._layers[-1].output_shape if self.built and self._layers else None

    @property
    def final_activation(self) -> str | None:
        """The last layer's activation by name, "linear" for a plain Dense.

        None where the logits before it are not known: after a layer of the user's own, for a softmax over the last of
        several axes, and where dropout, noise or Flatten follows an activation.
        """
        layers = [layer for layer in self._layers if type(layer) not in _WITHOUT_ACTIVATION]
        if not layers:
            return "linear"
        last = layers[-1]
        if type(last) not in (Dense, Activation, Softmax):
            return None
        is_flat = len(last.output_shape or (1,)) == 1
        # of a softmax over the last of several axes, the logits are no (B, C) matrix
        is_known = last is self._layers[-1] and (last.activation != "softmax" or is_flat)
        return last.activation if is_known or last.activation == "linear" else None

    def hides_a_softmax(self) -> bool:
        """Whether a softmax follows another, or only dropout follows a softmax."""
        layers = [layer for layer in self._layers if type(layer) not in _WITHOUT_ACTIVATION]
        softmax = [getattr(layer, "activation", None) == "softmax" for layer in layers]
        twice = len(layers) > 1 and softmax[-2] and not layers[-1].parameters
        return twice or (softmax[-1] and self.final_activation is None and len(self.output_shape) == 1)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of that name, or at that index."""
        if (name is None) == (index is None):
            raise ValueError(f"give either name or index, got name={name!r} and index={index!r}")
        if index is not None:
            return self._layers[check_int("index", index, -len(self._layers), len(self._layers) - 1)]
        names = [layer.name for layer in self._layers]
        if name not in names:
            raise ValueError(f"there is no layer {name!r}; there are {names}")
        return self._layers[names.index(name)]

    @property
    def version(self) -> int:
        """How often a setting was changed on a built layer: a training that runs then reads all of them anew."""
        return sum(layer._version for layer in self._layers)

    def warn_of_what_cannot_learn(self) -> None:
        if self.parameters and not self.learning():
            warn(f"{self.name} learns nothing: no layer with parameters is trainable")
        for layer in self._layers:
            if getattr(layer, "activation", None) == "softmax" and layer.output_shape[-1] == 1:
                what = f"layer {layer.name} is a softmax over one number, which is always 1"
                warn(f"{what}: nothing below it learns. One probability is a sigmoid")

    # -- layer by layer ------------------------------------------------------------------------------

    def forward(self, x: np.ndarray, training: bool = False, logits: bool = False) -> np.ndarray:
        """The output (B, ...) of a batch ``x`` (B, ...).

        ``training`` turns dropout and noise on. They draw the same numbers until ``set_step`` or a training
        step says that another step has begun. ``logits`` stops before a final softmax or sigmoid.
        """
        check_bool("training", training)
        check_bool("logits", logits)
        self.build_for(x)
        out = np.require(check_array("x", x), self.dtype, "CAW")  # kernels are compiled for writeable arrays
        if out.ndim == 1 and self.input_shape == (1,):
            out = out[:, None]
        if out.shape[1:] != self.input_shape:
            check_input_shape(out, self.input_shape)  # says what is wrong
        rows = len(out)
        for layer in self._logits_layers if logits else self._layers:
            out = layer.forward(out, training=training)
        if np.shape(out) != (rows, *self.output_shape):  # a layer of the user's own; kernels trust the shape
            wanted = ", ".join(str(size) for size in (rows, *self.output_shape))
            raise ValueError(
                f"forward of layer {self._layers[-1].name} must return shape ({wanted}), as its output_shape "
                f"says, got {describe(out)}"
            )
        return np.require(out, self.dtype, "CAW")

    def backward(self, dout: np.ndarray, logits: bool = False) -> np.ndarray:
        """From ``dout``, the gradient of what the last ``forward`` returned, to ``dx``; fills ``grads``.

        ``logits`` must be what it was in that ``forward``. What no layer writes, as a frozen one, is 0.
        """
        self.require_built("backward")
        check_bool("logits", logits)
        self.grads[...] = 0
        for layer in reversed(self._logits_layers if logits else self._layers):
            dout = layer.backward(dout)
        return dout

    def backward_to_learn(self, dout: np.ndarray, logits: bool) -> None:
        """``backward`` down to the lowest layer that learns. What no layer has written, or a frozen one, is 0."""
        self.grads[...] = 0
        learns = [any(p.trainable for p in layer.parameters) for layer in self._layers]
        layers = self._logits_layers if logits else self._layers
        if overridden(self, "backward"):
            self.backward(dout, logits=logits)
            layers = []
        for layer in reversed(layers[learns.index(True) if any(learns) else len(learns) :]):
            dout = layer.backward(dout)
        self.clear_gradients_of_what_does_not_learn()

    def __call__(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        return self.forward(x, training=training)

    def set_step(self, epoch: int, step: int, first_row: int = 0) -> None:
        """Key the random layers' draws with (seed, layer, epoch, step), as the compiled loop does.

        ``first_row``: where the rows of the next forward begin in their batch.
        """
        for index, layer in enumerate(self._layers):
            if isinstance(layer, RandomLayer):
                layer.first_row = first_row
            seed = _own_seed(layer)
            layer.key = key_of(self.seed if seed < 0 else seed, LAYER + index, epoch, step)

    def ops(self, training: bool = False, logits: bool = False) -> list[Op] | None:
        """The layers as primitive operations for the compiled loop; None if a part of them is the user's own."""
        self.require_built("ops")
        if self.own_constraints or overridden(self, "forward", "backward"):
            return None
        found = []
        for index, layer in enumerate(self._layers):
            ops = ops_of(layer)
            if ops is None:
                return None
            learns = layer.trainable and bool(layer.parameters)  # a layer of moving averages alone moves them
            ops = [op._replace(layer=index, trainable=learns, seed=_own_seed(layer)) for op in ops]
            if not training:
                ops = [
                    op._replace(kind=_IN_INFERENCE.get(op.kind, op.kind))
                    for op in ops
                    if op.kind not in _IN_TRAINING_ONLY
                ]
            found += ops
        if logits and self._logits_layers is not self._layers:
            assert found[-1].kind == ACTIVATION
            found.pop()
        return found

    # -- augmentation --------------------------------------------------------------------------------

    def augmenting_layer(self) -> Layer | None:
        """The layer that changes inputs at random before any parameter sees them, or None."""
        before = itertools.takewhile(lambda layer: not layer.parameters, self._layers)
        return next((layer for layer in before if isinstance(layer, AUGMENTING)), None)

    def augmented(self, x: np.ndarray) -> np.ndarray:
        """``x`` after the noise and jitter the model begins with, as the step that is set draws them."""
        for layer in itertools.takewhile(lambda layer: isinstance(layer, AUGMENTING), self._layers):
            x = layer.forward(x, training=True)
        return x

    def summary(
        self, line_length: int | None = None, print_fn: Callable[[str], object] | None = None
    ) -> None:
        """Print the layers: output shapes, numbers of parameters, their bytes, and multiply-adds a sample.

        Multiply-adds are those of matrix products, one for each weight of a `Dense`. ``line_length``: names of layers
        are cut to keep lines that short; by default they are as long as they are. ``print_fn`` is given each line. In a
        notebook the model itself shows the same table.
        """
        if line_length is not None:
            check_int("line_length", line_length, minimum=1)
        for line in summarize(self).lines(line_length):
            say(f"{line}\n") if print_fn is None else print_fn(line)

    def _repr_html_(self) -> str:
        return summarize(self).html()

    # -- copies --------------------------------------------------------------------------------------

    def __getstate__(self) -> dict:
        remade = {"_grads": None, "_logits_layers": None, "predictors": {}}
        return {**self.__dict__, "_params": np.array(self.params), **remade}

    def __setstate__(self, state: dict) -> None:
        """Copies and unpickled models: views are made anew, of vectors of their own."""
        self.__dict__.update(state)
        if self.built:
            self._attach()

    def __copy__(self):
        return copy.deepcopy(self)  # a layer views one model's vectors

    def __repr__(self) -> str:
        shapes = [self.input_shape, *(layer.output_shape for layer in self._layers)]
        sizes = "-".join("?" if s is None else "x".join(str(n) for n in s) for s in shapes)
        return f"<{type(self).__name__} {self.name}: {sizes}, {self.dtype}>"


def _own_seed(layer: Layer) -> int:
    """The seed of a random layer that has one; -1: none."""
    return layer.seed if isinstance(layer, RandomLayer) and layer.seed is not None else -1
