"""Sequential: layers over one flat parameter vector.

``forward`` and ``backward`` run layer by layer in Python; ``fit``, ``evaluate`` and ``predict`` use the
compiled loop of ``training.py``. Both call the same kernels in the same order and end with the same bits;
``Sequential._layerwise_step`` is one training step to read.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from . import inference, training, utils
from . import losses as losses_module
from . import metrics as metrics_module
from . import optimizers as optimizers_module
from .callbacks import check_verbose
from .constraints import MaxNorm
from .kernels.activations import CODES, activation_forward
from .kernels.losses import Batch, loss_batch
from .kernels.metrics import metric_rows
from .kernels.ops import ACTIVATION, DROPOUT, GAUSSIAN_NOISE, RANDOM_TRANSLATION, Op
from .kernels.random import INITIALIZER, LAYER, make_key
from .kernels.simd import aligned_zeros
from .kernels.threads import flush_denormals, restore_denormals
from .kernels.updates import add_regularizer, max_norm
from .layers import (
    Activation,
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    Input,
    Layer,
    RandomTranslation,
    Softmax,
)
from .samples import check_samples
from .validation import (
    check_array,
    check_bool,
    check_dtype,
    check_inputs,
    check_int,
    check_labels,
    check_logits,
    check_rows,
    check_shape,
    check_targets,
    describe,
)
from .watch import uninterrupted

_TRAINING_ONLY = (DROPOUT, GAUSSIAN_NOISE, RANDOM_TRANSLATION)
_model_numbers = itertools.count()


class Objective(NamedTuple):
    """How a model is trained with a loss: the kernel's number and settings, and where the loss is applied."""

    kind: int
    hyper: np.ndarray
    on_logits: bool
    """True: to what goes into the final softmax or sigmoid, which is then left out. False: to the output."""


class Sequential:
    """A stack of layers.

    Parameters
    ----------
    layers : layers to ``add``, in order.
    name : str, default "sequential", "sequential_1", ...
    dtype : "float32" or "float64", of parameters and of all arithmetic.
    seed : int >= 0, source of the initial weights and of every random draw of training. Default: the next
        of the series ``minidl.utils.set_random_seed`` began, else a fresh one.

    Attributes
    ----------
    layers : the layers, an ``Input`` left out.
    params, grads : the flat vectors; layers' weights are views of them. Write ``params[...] = value``.
    segments : int64 (n, 2), offset and size of each parameter in them.
    epoch : number of finished epochs, saved with the model.
    unfinished : None, or where in the next epoch training was left, saved too (``training.Unfinished``).
    optimizer, loss, metrics : what ``compile`` made of its arguments.
    input_shape, output_shape : without the batch axis; None until built.
    """

    def __init__(
        self,
        layers: Iterable[Layer] | None = None,
        name: str | None = None,
        dtype: str = "float32",
        seed: int | None = None,
    ):
        if name is not None and not (isinstance(name, str) and name):
            raise TypeError(f"name must be a non-empty string, got {describe(name)}")
        if seed is not None:
            seed = check_int("seed", seed, minimum=0, maximum=2**63 - 1)
        self.dtype = check_dtype(dtype)
        self.seed = utils.next_seed() if seed is None else seed
        if name is None:
            number = next(_model_numbers)
            name = f"sequential_{number}" if number else "sequential"
        self.name = name
        self.epoch = 0
        self.unfinished: training.Unfinished | None = None
        self.stop_training = False
        self.was_taught = False  # by a teacher, as fit's target_model
        self.history = None
        self.optimizer: optimizers_module.Optimizer | None = None
        self.loss = None
        self.metrics: list[metrics_module.Metric] = []
        self._layers: list[Layer] = []
        self._logits_layers: list[Layer] = []
        self._input: Input | None = None
        self.built = False
        self._params = aligned_zeros(0, self.dtype)
        self._grads = aligned_zeros(0, self.dtype)
        if layers is not None:
            if isinstance(layers, Layer) or not isinstance(layers, Iterable):
                raise TypeError(f"layers must be a list of layers, got {describe(layers)}")
            for layer in layers:
                self.add(layer)

    # -- layers --------------------------------------------------------------------------------------

    @property
    def layers(self) -> list[Layer]:
        return list(self._layers)

    def add(self, layer: Layer) -> None:
        """Put ``layer`` on top. If the input's shape is known it is built at once; other weights stay.

        A compiled model has to be compiled again.
        """
        if not isinstance(layer, Layer):
            hint = ": write it with ()" if isinstance(layer, type) else ""
            raise TypeError(f"layer must be a minidl.layers.Layer, got {describe(layer)}{hint}")
        if isinstance(layer, Input):
            self._add_input(layer)
            return
        if getattr(layer, "_in_model", False):
            raise ValueError(f"layer {layer.name!r} already belongs to a model: make a new one of its class")
        if any(layer.name == other.name for other in self._layers):
            raise ValueError(f"layer names must be distinct, got a second {layer.name!r}")
        shape = self._shape_after(len(self._layers))
        if shape is None and not self._layers:
            shape = layer.input_shape
        if shape is not None:
            layer.build(shape)
        layer._in_model = True
        self._layers.append(layer)
        if shape is not None:
            self._attach()
        self._forget_compilation()

    def _add_input(self, layer: Input) -> None:
        if self._input is not None or self._layers:
            raise ValueError("Input must come first and only once in a Sequential")
        layer.build(layer.input_shape)
        self._input = layer

    def pop(self) -> Layer:
        """Take the last layer away; a compiled model has to be compiled again."""
        if not self._layers:
            raise ValueError("there are no layers in the model")
        layer = self._layers.pop()
        layer._in_model = False
        if self.built:
            layer.attach(*(np.array(v[self._offset_of(layer) :]) for v in (self._params, self._grads)), 0)
            self._attach()
        self._forget_compilation()
        return layer

    def _offset_of(self, layer: Layer) -> int:
        return layer.parameters[0].offset if layer.parameters else self._params.size

    def _shape_after(self, count: int) -> tuple[int, ...] | None:
        if count == 0:
            return None if self._input is None else self._input.input_shape
        return self._layers[count - 1].output_shape if self._layers[count - 1].built else None

    def build(self, input_shape: int | tuple[int | None, ...] | None = None) -> None:
        """Make the parameters for samples of ``input_shape``: ``(784,)`` or, as in Keras, ``(None, 784)``."""
        if not self._layers:
            raise ValueError("a model without layers cannot be built: add a layer first")
        if isinstance(input_shape, (tuple, list)) and input_shape and input_shape[0] is None:
            input_shape = input_shape[1:]
        if input_shape is None:
            if not self.built:
                raise ValueError("input_shape must be given: no layer says what the model's input is")
            return
        shape = check_shape(
            "input_shape", tuple(input_shape) if isinstance(input_shape, list) else input_shape
        )
        if self.input_shape not in (None, shape):
            raise ValueError(f"input_shape of {self.name} is {self.input_shape}, got {shape}")
        if self.built:
            return
        try:
            for layer in self._layers:
                layer.build(shape)
                shape = layer.output_shape
            self._attach()
            if self.loss is not None:
                self.objective(self.loss)
        except Exception:
            self._unbuild()
            raise

    def _unbuild(self) -> None:
        """Undo ``build``: the shape it was given turned out to be wrong."""
        for layer in self._layers:
            layer.built, layer.parameters, layer.dtype = False, [], None
            layer.input_shape, layer.output_shape = layer._declared_shape, None
            layer._views.clear()
        self._params, self._grads = aligned_zeros(0, self.dtype), aligned_zeros(0, self.dtype)
        self.built = False
        if self.optimizer is not None:
            self.optimizer.forget()

    def _stack(
        self, layers: list[Layer], input_shape: tuple[int, ...] | None, size: int | None = None
    ) -> None:
        """Fill an empty model at once. With ``size``: only if it has that many parameters; they stay zero."""
        self._layers = layers
        if input_shape is None:
            return
        self._input = Input(shape=input_shape)
        self._input.build(input_shape)
        shape = input_shape
        for layer in layers:
            layer.build(shape)
            layer._in_model = True
            shape = layer.output_shape
        count = sum(layer.count_params() for layer in layers)
        if size is not None and count != size:
            raise ValueError(f"the layers have {count} parameters, but there are values for {size}")
        if layers:
            self._attach(initialize=size is None)

    def _attach(self, initialize: bool = True) -> None:
        """Lay the parameters out anew; those that had a place keep their values, others are initialized."""
        old_size, old = self._params.size, self._params
        fresh = [layer for layer in self._layers if layer.dtype is None]
        size = sum(layer.count_params() for layer in self._layers)
        self._params, self._grads = aligned_zeros(size, self.dtype), aligned_zeros(size, self.dtype)
        self.predictors = {}
        self._params[: min(size, old_size)] = old[: min(size, old_size)]
        offset = 0
        for layer in self._layers:
            offset = layer.attach(self._params, self._grads, offset)
        for index, layer in enumerate(self._layers):
            if initialize and layer in fresh:
                for place, parameter in enumerate(layer.parameters):
                    rng = np.random.default_rng([self.seed, INITIALIZER, index, place])
                    view = getattr(layer, parameter.name)
                    view[...] = parameter.initializer(parameter.shape, self.dtype, rng)
        self._logits_layers = self._layers
        if self.final_activation in ("softmax", "sigmoid"):
            self._logits_layers = self._layers[:-1]
            last = self._layers[-1]
            if type(last) is Dense:
                # the same layer, on the same weights, without its activation
                linear = copy.copy(last)
                linear._activation = type(last._activation)("linear")
                self._logits_layers = [*self._logits_layers, linear]
        self.built = True
        self.set_step(self.epoch, 0)

    def _forget_compilation(self) -> None:
        if self.optimizer is not None and (self.built or self.optimizer.built):
            self.optimizer, self.loss, self.metrics = None, None, []

    @contextlib.contextmanager
    def _built_for(self, x: object):
        """Build for the data, but not if the call they belong to is refused before the first step."""
        was_built = self.built
        self._build_for(x)
        try:
            yield
        except (ValueError, TypeError):
            if not was_built and not (self.optimizer is not None and self.optimizer.iterations):
                self._unbuild()
            raise

    def _build_for(self, x: object) -> None:
        """Build a model whose input shape was left to the data."""
        if not self._layers:
            raise ValueError(f"{self.name} has no layers: add a layer first")
        if not self.built:
            self.build(check_inputs(x, None).shape[1:])

    def _require_built(self, what: str) -> None:
        if not self.built:
            raise ValueError(
                f"{what} needs a built model: give the first layer an input_shape, or call build(input_shape)"
            )

    @property
    def compiled_metrics(self) -> list[metrics_module.Metric]:
        return self.metrics

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
        """The last layer's activation by name, "linear" for a plain Dense, None for a user's own layer."""
        layers = [layer for layer in self._layers if type(layer) not in (Dropout, Flatten, GaussianNoise)]
        if not layers:
            return "linear"
        if type(layers[-1]) not in (Dense, Activation, Softmax):
            return None
        name = layers[-1].activation
        if layers[-1] is self._layers[-1]:
            # of a softmax over the last of several axes, the logits are no (B, C) matrix
            return name if name != "softmax" or len(layers[-1].output_shape or (1,)) == 1 else None
        return name if name == "linear" else None

    # -- parameters ----------------------------------------------------------------------------------

    @property
    def params(self) -> np.ndarray:
        return self._params

    @params.setter
    def params(self, value: np.ndarray) -> None:
        if value is not self._params:  # `model.params *= 2` assigns the vector itself
            raise AttributeError("layers view model.params: write model.params[...] = value")

    @property
    def grads(self) -> np.ndarray:
        return self._grads

    @grads.setter
    def grads(self, value: np.ndarray) -> None:
        if value is not self._grads:
            raise AttributeError("layers view model.grads: write model.grads[...] = value")

    @property
    def parameters(self) -> list:
        """Every layer's ``Parameter`` entries, in the order of the flat vector."""
        return [parameter for layer in self._layers for parameter in layer.parameters]

    @property
    def segments(self) -> np.ndarray:
        return np.array([(p.offset, p.size) for p in self.parameters], np.int64).reshape(-1, 2)

    @property
    def penalties(self) -> np.ndarray:
        """float64 (n, 2): l1 and l2 of each segment."""
        pairs = [
            (p.regularizer.l1, p.regularizer.l2) if p.regularizer else (0.0, 0.0) for p in self.parameters
        ]
        return np.array(pairs, np.float64).reshape(-1, 2)

    def penalty(self) -> float:
        """What the regularizers add to the loss."""
        return float(add_regularizer(self._params[:0], self._params, self.segments, self.penalties))

    @property
    def max_norms(self) -> tuple[np.ndarray, np.ndarray]:
        """int64 (n, 3) offset, rows, columns and float64 (n,) limits of the ``MaxNorm`` constraints."""
        bound = [p for p in self.parameters if type(p.constraint) is MaxNorm]
        places = [MaxNorm.segment(p.offset, p.shape) for p in bound]
        return np.array(places, np.int64).reshape(-1, 3), np.array([p.constraint.max_value for p in bound])

    @property
    def weights(self) -> list[np.ndarray]:
        """Views of all parameters, as [weight, bias, weight, bias, ...]."""
        return [view for layer in self._layers for view in layer.weights] if self.built else []

    trainable_weights = weights

    def count_params(self) -> int:
        self._require_built("count_params")
        return self._params.size

    def get_weights(self) -> list[np.ndarray]:
        """Copies of all parameters, as [weight, bias, weight, bias, ...]."""
        self._require_built("get_weights")
        return [view.copy() for view in self.weights]

    def set_weights(self, weights: Iterable) -> None:
        """Overwrite all parameters with arrays shaped as those of ``get_weights``, or change nothing."""
        self._require_built("set_weights")
        views = self.weights
        if isinstance(weights, np.ndarray) or not isinstance(weights, Iterable):
            raise TypeError(f"weights must be a list of arrays, got {describe(weights)}")
        arrays = list(weights)
        if len(arrays) != len(views):
            raise ValueError(f"weights must be {len(views)} arrays, got {len(arrays)}")
        for index, (view, value) in enumerate(zip(views, arrays, strict=True)):
            arrays[index] = check_array(f"weights[{index}]", value)
            if arrays[index].shape != view.shape:
                raise ValueError(f"weights[{index}] must have shape {view.shape}, got {arrays[index].shape}")
        for view, value in zip(views, arrays, strict=True):
            view[...] = value
        self.unfinished = None

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of that name, or at that index."""
        if (name is None) == (index is None):
            raise ValueError(f"give either name or index, got name={name!r} and index={index!r}")
        if index is not None:
            check_int("index", index, -len(self._layers), len(self._layers) - 1)
            return self._layers[index]
        for layer in self._layers:
            if layer.name == name:
                return layer
        raise ValueError(f"there is no layer {name!r}; there are {[layer.name for layer in self._layers]}")

    # -- layer by layer ------------------------------------------------------------------------------

    def forward(self, x: np.ndarray, training: bool = False, logits: bool = False) -> np.ndarray:
        """The output (B, ...) of a batch ``x`` (B, ...).

        ``training`` turns dropout and noise on; they draw the same numbers until ``set_step`` or a training
        step says that another step has begun. ``logits`` stops before a final softmax or sigmoid.
        """
        check_bool("training", training)
        check_bool("logits", logits)
        self._build_for(x)
        out = np.require(check_array("x", x), self.dtype, "CAW")  # kernels are compiled for writeable arrays
        if out.ndim == 1 and self.input_shape == (1,):
            out = out[:, None]
        if out.shape[1:] != self.input_shape:
            check_inputs(out, self.input_shape)  # says what is wrong
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

        ``logits`` must be what it was in that ``forward``.
        """
        self._require_built("backward")
        check_bool("logits", logits)
        for layer in reversed(self._logits_layers if logits else self._layers):
            dout = layer.backward(dout)
        return dout

    def __call__(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        return self.forward(x, training=training)

    def set_step(self, epoch: int, step: int) -> None:
        """Key the random layers' draws with (seed, layer, epoch, step), as the compiled loop does."""
        for index, layer in enumerate(self._layers):
            layer.key = np.uint64(make_key(self.seed, LAYER + index, epoch, step))

    def ops(self, training: bool = False, logits: bool = False) -> list[Op] | None:
        """The model as primitive operations for the compiled loop; None if a part of it is the user's own."""
        self._require_built("ops")
        if any(p.constraint is not None and type(p.constraint) is not MaxNorm for p in self.parameters):
            return None
        found = []
        for index, layer in enumerate(self._layers):
            ops = layer.ops() if _ops_describe(type(layer)) else None
            if ops is None:
                return None
            found += [op._replace(layer=index) for op in ops if training or op.kind not in _TRAINING_ONLY]
        if logits and self._logits_layers is not self._layers:
            assert found[-1].kind == ACTIVATION
            found.pop()
        return found

    # -- what training needs to know -----------------------------------------------------------------

    def compile(self, optimizer="rmsprop", loss=None, metrics=None) -> None:
        """Set how the model is trained.

        Parameters
        ----------
        optimizer : a name ("adam") or a ``minidl.optimizers`` object, which serves one model.
        loss : a name ("categorical_crossentropy") or a ``minidl.losses`` object.
        metrics : names ("accuracy") or ``minidl.metrics`` objects.

        A crossentropy on a model that ends with the matching softmax or sigmoid is applied to the logits,
        fused with that activation: the same value, and exact at any size of logits.
        """
        optimizer = optimizers_module.get(optimizer)
        if optimizer.built and optimizer is not self.optimizer:
            raise ValueError(
                f"optimizer {optimizer.name} already trains another model: pass a new one, "
                "as optimizer.from_config(optimizer.get_config())"
            )
        loss = None if loss is None else losses_module.get(loss)
        metrics = metrics_module.get_all(metrics)
        if self.built and loss is not None:
            self.objective(loss)
            if loss.sparse is not None:
                for metric in metrics:
                    metric.kind_for(loss.sparse, math.prod(self.output_shape))
        if optimizer is not self.optimizer:
            self.unfinished = None
        self.optimizer, self.loss, self.metrics = optimizer, loss, metrics
        self.stop_training = False

    def objective(self, loss) -> Objective:
        """How ``loss`` meets this model's output, or a ValueError that says why it cannot."""
        self._require_built("a loss")
        final, name = self.final_activation, loss.name
        wanted = loss.fused_activation
        if wanted is None:
            return Objective(loss.kind(False), loss.hyper, False)
        if len(self.output_shape) != 1:
            raise ValueError(
                f"loss {name} needs outputs of shape (B, C), got (B, *{self.output_shape}): add a Flatten"
            )
        if loss.distills or loss.from_logits:
            if loss.distills and self._hides_a_softmax():
                raise ValueError(
                    f"loss {name} needs logits, but the model's are probabilities already: let softmax be its "
                    "last layer, and there once"
                )
            if loss.distills and final == wanted:
                return Objective(loss.kind(True), loss.hyper, True)
            if final in ("softmax", "sigmoid"):
                instead = (
                    "leave from_logits out" if loss.from_logits and final == wanted else "end with Dense(C)"
                )
                raise ValueError(f"loss {name} needs logits, but the model ends with {final}: {instead}")
            return Objective(loss.kind(True), loss.hyper, False)
        if final == wanted:
            return Objective(loss.kind(True), loss.hyper, True)
        if final == "linear":
            raise ValueError(
                f"loss {name} needs probabilities, but the model ends without an activation: end with "
                f"activation={wanted!r}, or make the loss with from_logits=True"
            )
        return Objective(loss.kind(False), loss.hyper, False)

    def _hides_a_softmax(self) -> bool:
        """Whether a softmax stands behind another, or before nothing but dropout."""
        layers = [layer for layer in self._layers if type(layer) not in (Dropout, Flatten, GaussianNoise)]
        softmax = [getattr(layer, "activation", None) == "softmax" for layer in layers]
        twice = len(layers) > 1 and softmax[-2] and not layers[-1].parameters
        return twice or (softmax[-1] and self.final_activation is None and len(self.output_shape) == 1)

    def require_compiled(self, what: str, loss: bool = True) -> None:
        """A ValueError unless ``compile`` was called (with a loss)."""
        if self.optimizer is None:
            raise ValueError(f"call compile(optimizer, loss) before {what}")
        if loss and self.loss is None:
            raise ValueError(f"{what} needs a loss: compile(loss=...) was called without one")

    def prepare_optimizer(self) -> None:
        """Make the optimizer's state for this model's parameters, once."""
        if self._params.size == 0:
            raise ValueError(f"{self.name} has no parameters to train")
        self.optimizer.build(self._params, self.segments)

    def check_y(self, y, rows: int, loss=None, argument: str = "y") -> tuple[np.ndarray, np.ndarray]:
        """``(labels, targets)`` as the loss wants ``y``: one is filled, the other has size 0.

        labels: int64 (N,). targets: (N, C) of any real dtype, not copied.
        """
        loss = self.loss if loss is None else loss
        outputs = math.prod(self.output_shape)
        labels, targets = np.empty(0, np.int64), np.empty((0, 0), self.dtype)
        if y is None:
            if not loss.needs_labels:
                return labels, targets
            raise ValueError(f"{argument} must be given, got None: {loss.labels_missing()}")
        array = check_array(argument, y)
        sparse = loss.sparse
        if sparse is None:
            sparse = array[:1].size == 1 and outputs > 1
        if sparse:
            labels = check_labels(array, outputs, argument, unlabelled=loss.distills)
        else:
            limits = (0.0, 1.0) if loss.fused_activation is not None else None
            targets = check_targets(array, self.output_shape, self.dtype, argument, limits)
            targets = targets.reshape(len(targets), outputs)
        check_rows(argument, len(array), rows)
        return labels, targets

    # -- one step, to read ---------------------------------------------------------------------------

    def _layerwise_step(
        self,
        x: np.ndarray,
        y: np.ndarray | None,
        sample_weight: np.ndarray | None,
        *,
        step: int,
        loss,
        metrics: list[metrics_module.Metric],
        teacher_logits: np.ndarray | None = None,
        online_teacher=None,
    ) -> tuple[float, np.ndarray]:
        """One training step layer by layer, the readable twin of the compiled loop's.

        x (B, ...); y: class indices (B,) int64 or targets (B, C), or None; sample_weight (B,) float64; step:
        its number in the epoch. Returns the loss before the update, penalties included, and each metric's sum
        over the rows. ``online_teacher`` is asked for logits of the inputs as this step augments them.
        """
        objective = self.objective(loss)
        empty = np.empty((0, 0), self.dtype)
        labels, targets = np.empty(0, np.int64), empty
        if y is not None and y.ndim == 1:
            labels = np.require(y, np.int64, "CAW")  # kernels are compiled for writeable arrays
        elif y is not None:
            targets = np.require(y, self.dtype, "CAW")
        mode = flush_denormals()
        try:
            self.set_step(self.epoch, step)
            if online_teacher is not None:
                teacher_logits = online_teacher.logits(self._augmented(x), temperature=loss.temperature)
            out = self.forward(x, training=True, logits=objective.on_logits)
            rows = len(out)
            weight = np.ones(rows) if sample_weight is None else sample_weight
            teacher = empty
            if teacher_logits is not None:
                teacher = np.require(teacher_logits, self.dtype, "CAW")
            logits = out.reshape(rows, -1)
            if teacher_logits is not None and teacher.shape != logits.shape:
                raise ValueError(f"teacher must give logits of shape {logits.shape}, got {teacher.shape}")
            row_loss, dlogits = np.empty(rows), np.empty_like(logits)
            if objective.kind >= 0:
                batch = Batch(logits, labels, targets, teacher, weight / rows)
                loss_batch(objective.kind, row_loss, dlogits, batch, objective.hyper)
            else:  # the user's own
                value, gradient = loss.value_and_grad(
                    logits, labels if targets.size == 0 else targets, sample_weight
                )
                if np.shape(gradient) != logits.shape:
                    raise ValueError(
                        f"loss {loss.name} must give a gradient of shape {logits.shape}, got {describe(gradient)}"
                    )
                row_loss[:], dlogits[...] = value / rows, gradient
            metric_sums = self._metric_sums(metrics, objective, logits, labels, targets)
            self.backward(dlogits.reshape(out.shape), logits=objective.on_logits)
            penalty = add_regularizer(self._grads, self._params, self.segments, self.penalties)
            self.optimizer.apply_clipping(self._grads, self.segments)
            self.optimizer.update(self._params, self._grads)
            max_norm(self._params, *self.max_norms)
            self._apply_own_constraints()
        finally:
            restore_denormals(mode)
        total = np.cumsum(row_loss)[-1]  # added one after the other, as the loop does
        return float(total + penalty), metric_sums

    def _metric_sums(self, metrics, objective, logits, labels, targets) -> np.ndarray:
        """Each metric's sum over the rows of a batch."""
        predictions = logits
        if objective.on_logits and any(metric.needs_output_for(logits.shape[1]) for metric in metrics):
            predictions = np.empty_like(logits)
            activation_forward(predictions, logits, CODES[self.final_activation], 0.0)
        values, sums = np.empty(len(logits)), np.zeros(len(metrics))
        for index, metric in enumerate(metrics):
            kind = metric.kind_for(targets.size == 0, logits.shape[1])
            metric_rows(kind, values, predictions, labels, targets, metric.k)
            sums[index] = np.cumsum(values)[-1]
        return sums

    def _augmented(self, x: np.ndarray) -> np.ndarray:
        """``x`` after the noise and jitter the model begins with, as the step that is set draws them."""
        augmenting = (GaussianNoise, RandomTranslation)
        first = 0
        while first < len(self._layers) and type(self._layers[first]) in augmenting:
            x = self._layers[first].forward(x, training=True)
            first += 1
        for layer in self._layers[first:]:
            if layer.parameters:
                break
            if type(layer) in augmenting:
                raise ValueError(
                    f"layer {layer.name} augments inputs that other layers have changed, so the teacher "
                    "cannot see the same: put it first"
                )
        return x

    def _apply_own_constraints(self) -> None:
        """Constraints that are not minidl's, which only this way of running knows."""
        for layer in self._layers:
            for parameter in layer.parameters:
                if parameter.constraint is not None and type(parameter.constraint) is not MaxNorm:
                    view = getattr(layer, parameter.name)
                    view[...] = parameter.constraint(view)

    def train_on_batch(
        self, x, y=None, sample_weight=None, class_weight=None, return_dict=False, teacher_logits=None
    ) -> float | list[float] | dict[str, float]:
        """One step on one batch, layer by layer. Returns what ``evaluate`` does, as it was before the step.

        A distilling loss takes the teacher's logits (B, C) of this batch.
        """
        self.require_compiled("train_on_batch")
        with self._built_for(x):
            self.objective(self.loss)
            samples = check_samples(self, self.loss, x, y, sample_weight, class_weight)
            outputs = math.prod(self.output_shape)
            if self.loss.distills:
                check_logits(teacher_logits, len(samples.x), outputs, self.dtype)
                losses_module.check_logits("teacher_logits", teacher_logits)  # and no probabilities
            elif teacher_logits is not None:
                raise ValueError(
                    f"teacher_logits are for a distilling loss, and loss {self.loss.name} is none"
                )
            for metric in self.metrics:
                metric.kind_for(samples.targets is None, outputs)
            self.prepare_optimizer()
        labels = samples.labels if samples.labels.size else None
        rows = len(samples.x) if samples.targets is not None else int(np.count_nonzero(samples.labels >= 0))
        metrics = self.metrics if rows else []  # they compare with labels
        with uninterrupted():
            loss, sums = self._layerwise_step(
                np.ascontiguousarray(samples.x, dtype=self.dtype),
                labels if samples.targets is None else samples.targets,
                samples.weight if samples.weight.size else None,
                step=self.optimizer.iterations,
                loss=self.loss,
                metrics=metrics,
                teacher_logits=teacher_logits,
            )
        logs = {"loss": loss}
        logs.update((m.name, float(total) / rows) for m, total in zip(metrics, sums, strict=True))
        if return_dict:
            return logs
        return list(logs.values()) if self.metrics else loss

    # -- whole data sets -----------------------------------------------------------------------------

    def fit(
        self,
        x,
        y=None,
        batch_size: int | None = 32,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks=None,
        validation_split: float = 0.0,
        validation_data=None,
        shuffle: bool = True,
        class_weight=None,
        sample_weight=None,
        initial_epoch: int = 0,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
        *,
        target_model=None,
        temperature: float | None = None,
        hard_weight: float | None = None,
        soft_weight: float | None = None,
    ):
        """Train, and return the ``History``.

        Parameters
        ----------
        x : (N, *input_shape), any real dtype; may be a memory map. Rows are converted batch by batch.
        y : class indices or rows of targets, as the loss wants them. With a teacher -1 marks a sample without
            a label, which metrics and validation leave out; None: no labels, where ``hard_weight`` is 0.
        batch_size : samples a step. The last batch may be smaller.
        epochs, initial_epoch : epochs initial_epoch .. epochs-1 are run. If the model was interrupted, or saved, in
            the middle of an epoch, ``initial_epoch=model.epoch`` goes on at the next step of that epoch, with the
            same batches, draws and running sums, and so ends with the bits and the history of a run without a
            break. That takes the same batch_size, shuffle and number of samples; else a warning says that the
            epoch begins anew. ``compile`` with another optimizer and ``set_weights`` forget the place.
        verbose : 0 nothing, 1 a progress bar, 2 a line an epoch, "auto" 1 on a terminal and 2 elsewhere.
        callbacks : ``minidl.callbacks``.
        validation_split : this share of the samples, the last ones, is kept for validation.
        validation_data : (x, y) or (x, y, sample_weight) instead.
        shuffle : a new order each epoch.
        class_weight : {class: weight}; sample_weight : (N,). The weighted losses' sum is divided by B.
        target_model : a teacher (``minidl.teachers``): the loss is then ``KnowledgeDistillation`` with
            ``temperature`` (4.0), ``hard_weight`` (0.1) and ``soft_weight`` (0.9).

        Raises ValueError or TypeError for arguments that do not fit; the parameters are then as they were. Raises
        RuntimeError if a callback compiles the model or changes its layers, which has to wait until fit is over.
        """
        self.require_compiled("fit", loss=target_model is None)
        with self._built_for(x):
            self.prepare_optimizer()
            return training.fit(
                self,
                x,
                y,
                batch_size=batch_size,
                epochs=epochs,
                verbose=verbose,
                callbacks=callbacks,
                validation_split=validation_split,
                validation_data=validation_data,
                shuffle=shuffle,
                class_weight=class_weight,
                sample_weight=sample_weight,
                initial_epoch=initial_epoch,
                validation_batch_size=validation_batch_size,
                validation_freq=validation_freq,
                target_model=target_model,
                temperature=temperature,
                hard_weight=hard_weight,
                soft_weight=soft_weight,
            )

    def evaluate(
        self,
        x,
        y=None,
        batch_size: int | None = 32,
        verbose: int | str = "auto",
        sample_weight=None,
        return_dict: bool = False,
    ) -> float | list[float] | dict[str, float]:
        """Loss and metrics on ``x, y`` in inference mode: ``[loss, metric, ...]``, or the loss alone."""
        self.require_compiled("evaluate")
        with self._built_for(x):
            return inference.evaluate(
                self,
                x,
                y,
                batch_size=batch_size,
                verbose=verbose,
                sample_weight=sample_weight,
                return_dict=return_dict,
            )

    def predict(self, x, batch_size: int | None = None, verbose: int | str = 0) -> np.ndarray:
        """The output (N, ...) for every sample of ``x``. Nothing is printed, whatever ``verbose``."""
        if type(verbose) is not int or verbose != 0:  # an array would answer != with an array
            check_verbose(verbose)
        return self._predict(x, batch_size, False)

    def predict_logits(self, x, batch_size: int | None = None) -> np.ndarray:
        """As ``predict``, before a final softmax or sigmoid."""
        return self._predict(x, batch_size, True)

    def _predict(self, x, batch_size: int | None, logits: bool) -> np.ndarray:
        if batch_size is not None:
            check_int("batch_size", batch_size, minimum=1)
        if self.built:
            return inference.predict(self, x, batch_size, logits=logits)
        with self._built_for(x):
            return inference.predict(self, x, batch_size, logits=logits)

    # -- description, files, copies ------------------------------------------------------------------

    def summary(self, line_length: int = 65, print_fn: Callable[[str], object] = print) -> None:
        """Print the layers with their output shapes and numbers of parameters."""
        first, second = round(line_length * 0.45), round(line_length * 0.4)
        lines = [f'Model: "{self.name}"', "_" * line_length]
        lines += [" Layer (type)".ljust(first) + "Output Shape".ljust(second) + "Param #", "=" * line_length]
        for layer in self._layers:
            shape = "?" if layer.output_shape is None else str((None, *layer.output_shape))
            title = f" {layer.name} ({type(layer).__name__})"
            if len(title) >= first:
                title = title[: first - 4] + "..."
            count = f"{layer.count_params():,}" if layer.built else "? (unbuilt)"
            lines.append(title.ljust(first) + shape.ljust(second) + count)
        lines.append("=" * line_length)
        if self.built:
            lines.append(
                f"Total params: {self._params.size:,} ({self._params.nbytes / 1024:,.2f} KB, {self.dtype})"
            )
        else:
            lines.append("Total params: unknown until the model is built")
        for line in lines:
            print_fn(line)

    def save(self, path, overwrite: bool = True) -> None:
        """Write the model with its optimizer's state and all that is needed to train on."""
        from . import serialization

        serialization.save_model(self, path, overwrite=overwrite)

    def save_weights(self, path, overwrite: bool = True) -> None:
        """Write the parameters alone."""
        from . import serialization

        serialization.save_weights(self, path, overwrite=overwrite)

    def load_weights(self, path) -> None:
        """Take the parameters from a file of ``save_weights`` or ``save`` of a model with the same shapes."""
        from . import serialization

        serialization.load_weights(self, path)

    def get_config(self) -> dict:
        """The architecture as plain data: name, dtype, seed, input_shape, each layer's class and config."""
        from . import serialization

        return {
            "name": self.name,
            "dtype": self.dtype.name,
            "seed": self.seed,
            "input_shape": None if self.input_shape is None else list(self.input_shape),
            "layers": [serialization.layer_config(layer) for layer in self._layers],
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict[str, type] | None = None) -> Sequential:
        """An untrained model from ``get_config``; ``custom_objects`` maps your own classes' names to them."""
        from . import serialization

        return serialization.model_from_config(config, custom_objects)

    def __getstate__(self) -> dict:
        state = self.__dict__.copy()
        state["_params"], state["_grads"] = np.array(self._params), None
        state["_logits_layers"], state["history"], state["predictors"] = None, None, {}
        return state

    def __setstate__(self, state: dict) -> None:
        """Copies and unpickled models: views are made anew, of vectors of their own."""
        self.__dict__.update(state)
        if self.built:
            self._attach()

    def __repr__(self) -> str:
        shapes = [self.input_shape, *(layer.output_shape for layer in self._layers)]
        sizes = "-".join("?" if s is None else "x".join(str(n) for n in s) for s in shapes)
        return f"<Sequential {self.name}: {sizes}, {self.dtype}>"


def _ops_describe(kind: type) -> bool:
    """False where a subclass redefines how a layer computes, but inherits the operations that describe it."""
    for cls in kind.__mro__:
        if "ops" in vars(cls):
            return True
        if "forward" in vars(cls) or "backward" in vars(cls):
            return False
    return False


def load_model(path, custom_objects: dict[str, type] | None = None) -> Sequential:
    """The model of a file ``Sequential.save`` wrote, compiled and with its optimizer's state if it was.

    Only minidl's own classes and those in ``custom_objects`` (name: class) are ever built, nothing is
    unpickled. Raises ValueError, naming the file, if it is corrupt, foreign or of another version.
    """
    from . import serialization

    return serialization.load_model(path, custom_objects)


def clone_model(model: Sequential) -> Sequential:
    """A new model of the same architecture with initial weights of its own seed, not compiled."""
    if not isinstance(model, Sequential):
        raise TypeError(f"model must be a Sequential, got {describe(model)}")
    return type(model).from_config({**model.get_config(), "seed": utils.next_seed()})
