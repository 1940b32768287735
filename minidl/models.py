"""Sequential: layers in a row that are trained, with Keras's face. Each method hands over to the room that does it.

What layers compute stands in ``layers/``, how they are trained in ``training/`` (``training/layerwise.py`` is one
training step to read), how parameters lie in ``parameters.py``, files in ``archive.py``.
"""

from __future__ import annotations

import abc
import contextlib
import copy
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from . import archive, losses, optimizers, training, utils
from . import metrics as metrics_module
from .callbacks import History, check_verbose
from .keras_methods import CompileOptions, KerasMethods, check_compile_options
from .layers.base import Layer, given_name
from .layers.chain import path as chain_path
from .layers.configs import check_custom_objects, layer_config, layers_from_configs
from .model_files import ModelFiles, read
from .registry import Configurable, Sealed, Unpack, overridden
from .training.interrupts import Turns, taken, untrained
from .training.objective import Objective, objective_of
from .training.options import FitOptions, takes
from .training.saving import CHECKS, check_attribute, restore_training
from .validation import check_bool, check_dtype, check_int, check_shape, describe

_CONFIG_ERRORS = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
"""What building a model from a foreign config can raise."""
_OF_CALLS = 2**62  # in the place of an epoch: the draws of ``model(x, training=True)``


class Sequential(Sealed, KerasMethods, ModelFiles):
    """A stack of layers.

    A subclass may override ``forward`` (with its arguments ``training`` and ``logits``) and ``backward``: training and
    prediction then run layer by layer.

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
    draw_epoch : the number by which that epoch's order, dropout and noise are drawn; it counts on from fit to fit.
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
        dtype = check_dtype(dtype)
        seed = utils.next_seed() if seed is None else CHECKS["seed"](seed)
        self.name = given_name(name, "sequential")
        self.epoch = self.draw_epoch = self._calls = 0
        self._weights_given_at: int | None = None  # the optimizer's step
        self.unfinished: training.Unfinished | None = None
        self.best_logs: dict[str, float] = {}  # the best that a `ModelCheckpoint` has seen
        self.turns = Turns()
        self.stop_training = False
        self.was_taught = False  # by a teacher, as fit's target_model
        self.history: History | None = None
        self.optimizer: optimizers.Optimizer | None = None
        self.loss: losses.Loss | None = None
        self.metrics: list[metrics_module.Metric] = []
        super().__init__(layers, dtype, seed)

    _checked = check_attribute

    # -- layers --------------------------------------------------------------------------------------

    @untrained
    def add(self, layer: Layer) -> None:
        """Put ``layer`` on top. If the input's shape is known it is built at once; other weights stay.

        A compiled model has to be compiled again.
        """
        self._add_all([layer])
        self._forget_compilation()

    @untrained
    def pop(self) -> Layer:
        """Take the last layer away; a compiled model has to be compiled again."""
        layer = super().pop()
        self._forget_compilation()
        return layer

    def build(self, input_shape: int | tuple[int | None, ...] | None = None) -> None:
        """Make the parameters for samples of ``input_shape``: ``(None, 28, 28)`` as in Keras, ``(784,)`` or 784.

        ``(32, 28, 28)`` raises a ValueError: Keras takes the 32 for the batch, and this would be another model.
        """
        was_built = self.built
        super().build(input_shape)
        if self.loss is not None and not was_built:  # compiled before: now it shows whether the loss fits
            try:
                self.objective(self.loss)
            except Exception:
                self._unbuild()
                raise

    def _forget_compilation(self) -> None:
        if self.optimizer is not None and (self.built or self.optimizer.built):
            self.optimizer, self.loss, self.metrics = None, None, []

    def _attach(self, initialize: bool = True) -> None:
        super()._attach(initialize)
        self.set_step(self.draw_epoch, 0)

    def _unbuild(self) -> None:
        super()._unbuild()
        if self.optimizer is not None:
            self.optimizer.forget()

    @contextlib.contextmanager
    def _built_for(self, x: object):
        """Build for the data, but not if the call they belong to is refused before the first step."""
        was_built = self.built
        self.build_for(x)
        try:
            yield
        except (ValueError, TypeError):
            if not was_built and not (self.optimizer is not None and self.optimizer.batches):
                self._unbuild()
            raise

    @taken
    def __call__(self, x: np.ndarray, training: bool = False) -> np.ndarray:
        """``forward(x, training)``; with ``training`` every call draws dropout and noise anew."""
        if check_bool("training", training):
            self._calls += 1
            self.set_step(_OF_CALLS, self._calls)
        return self.forward(x, training=training)

    # -- what training needs to know -----------------------------------------------------------------

    @untrained
    def compile(
        self, optimizer="rmsprop", loss=None, metrics=None, **of_keras: Unpack[CompileOptions]
    ) -> None:
        """Set how the model is trained.

        Parameters
        ----------
        optimizer : a name ("adam") or a ``minidl.optimizers`` object, which serves one model.
        loss : a name ("mse"), a ``minidl.losses`` object, or your own ``(y_true, y_pred) -> (value, gradient)``.
        metrics : names ("accuracy"), ``minidl.metrics`` objects, functions of ``(y_true, y_pred)``.
        of_keras : jit_compile, run_eagerly, steps_per_execution and auto_scale_loss are taken and change nothing.
            loss_weights and weighted_metrics are refused, as they would change results.

        A crossentropy on a model that ends with the matching softmax or sigmoid is applied to the logits,
        fused with that activation: the same value, and exact at any size of logits.
        """
        check_compile_options(of_keras)
        optimizer = optimizers.get(optimizer)
        if optimizer.built and optimizer is not self.optimizer:
            raise ValueError(
                f"optimizer {optimizer.name} already trains another model: pass a new one, "
                "as optimizer.from_config(optimizer.get_config())"
            )
        loss = losses.get_to_train(loss)
        metrics = metrics_module.get_all(metrics)
        if self.built and loss is not None:
            self.objective(loss)
            if loss.sparse is not None:
                for metric in metrics:
                    metric.check_fits(loss.sparse, math.prod(self.output_shape))
        if optimizer is not self.optimizer:
            self.leave_epoch()
            done = 0 if self.optimizer is None else self.optimizer.batches
            if self._weights_given_at == done:
                self.draw_epoch = 0
            elif done:
                self.draw_epoch += 1  # train_on_batch draws by the steps, which begin again
            self._weights_given_at = None
        self.best_logs = self.best_logs if repr(loss) == repr(self.loss) else {}
        self.optimizer, self.loss, self.metrics = optimizer, loss, metrics
        self.stop_training = False

    def objective(self, loss) -> Objective:
        """How ``loss`` meets this model's output, or a ValueError that says why it cannot."""
        if loss.fused_activation == "softmax" and self.output_shape == (1,):
            raise ValueError(
                f"loss {loss.name} needs two or more outputs, got 1: a softmax over one is always 1, so the loss would "
                'be 0 whatever the model predicts. Two classes are Dense(2, "softmax"), or Dense(1, "sigmoid") with '
                "loss binary_crossentropy"
            )
        return objective_of(self, loss)

    def require_compiled(self, what: str, loss: bool = True) -> None:
        """A ValueError unless ``compile`` was called (with a loss)."""
        if self.optimizer is None:
            raise ValueError(f"call compile(optimizer, loss) before {what}")
        if loss and self.loss is None:
            raise ValueError(f"{what} needs a loss: compile(loss=...) was called without one")

    def prepare_optimizer(self) -> None:
        """Make the optimizer's state for this model's parameters, once."""
        if self.params.size == 0:
            raise ValueError(f"{self.name} has no parameters to train")
        self.optimizer.build(self.params, self.segments)

    # -- training ------------------------------------------------------------------------------------

    @takes(FitOptions)
    def fit(self, options: FitOptions) -> History:
        self.require_compiled("fit", loss=options.target_model is None)
        return self.turns.train("fit", options.communicator.run, self._fit, options)

    def _fit(self, options: FitOptions) -> History:
        stream, x = training.open_stream(options)
        with self._built_for(x):
            self.prepare_optimizer()
            self.warn_of_what_cannot_learn()
            if stream is not None:
                return training.fit_stream(self, options, stream)
            fit = training.tuned_fit if options.temperature == training.AUTO else training.fit
            return fit(self, options)

    def train_on_batch(
        self, x, y=None, sample_weight=None, class_weight=None, return_dict=False, teacher_logits=None
    ) -> float | list[float] | dict[str, float]:
        """One step on one batch, layer by layer. Returns what ``evaluate`` does, as it was before the step.

        A distilling loss takes the teacher's logits (B, C) of this batch.
        """
        check_bool("return_dict", return_dict)
        self.require_compiled("train_on_batch")
        with self._built_for(x):
            logs = training.train_on_batch(self, x, y, sample_weight, class_weight, teacher_logits)
        return logs if return_dict else self._in_order(logs)

    def _in_order(self, logs: dict[str, float]) -> float | list[float]:
        return list(logs.values()) if self.metrics else logs["loss"]

    def evaluate(
        self,
        x,
        y=None,
        batch_size: int | None = 32,
        verbose: int | str = "auto",
        sample_weight=None,
        return_dict: bool = False,
        steps: int | None = None,
    ) -> float | list[float] | dict[str, float]:
        """Loss and metrics on ``x, y`` in inference mode: ``[loss, metric, ...]``, or the loss alone.

        ``x`` may be an iterable of batches, as in ``fit``: ``steps`` of them, by default all, are joined.
        """
        check_bool("return_dict", return_dict)
        self.require_compiled("evaluate")
        x, y, sample_weight = training.arrays_of(x, y, sample_weight, batch_size, steps)
        with self._built_for(x):
            logs = self.turns.read(lambda: training.evaluate(self, x, y, batch_size, verbose, sample_weight))
        return logs if return_dict else self._in_order(logs)

    def predict(
        self, x, batch_size: int | None = None, verbose: int | str = 0, steps: int | None = None
    ) -> np.ndarray:
        """The output (N, ...) for all of ``x``; of an iterable for all batches or ``steps``. Says nothing."""
        if steps is not None or (type(x) is not np.ndarray and training.is_stream(x)):
            return self.predict_stream(x, batch_size, steps)
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
            return self.turns.read(training.predict, self, x, logits)
        with self._built_for(x):
            return training.predict(self, x, logits)

    # -- files, copies ------------------------------------------------------------------

    def get_config(self) -> dict:
        """The architecture as plain data: name, dtype, seed, input_shape, each layer's class and config."""
        own = {"class_name": type(self).__name__} if overridden(self, "forward", "backward") else {}
        return {
            **own,
            "name": self.name,
            "dtype": self.dtype.name,
            "seed": self.seed,
            "input_shape": None if self.input_shape is None else list(self.input_shape),
            "layers": [layer_config(layer) for layer in self._layers],
        }

    @classmethod
    def from_config(cls, config: dict, custom_objects: Mapping[str, Callable] | None = None) -> Sequential:
        """An untrained model from ``get_config``; ``custom_objects`` maps your own classes' names to them."""
        return _from_config(config, {cls.__name__: cls, **check_custom_objects(custom_objects)})

    @taken
    def __getstate__(self) -> dict:
        return {**super().__getstate__(), "history": None, "optimizer": copy.deepcopy(self.optimizer)}


def _from_config(config: dict, custom: dict[str, type], size: int | None = None) -> Sequential:
    """A model from its config. With ``size`` it is refused before anything is allocated unless it has that many
    parameters, and they stay 0."""
    if not isinstance(config, dict) or not isinstance(config.get("layers"), list):
        raise ValueError(f"config must be what Sequential.get_config gives, got {describe(config)}")
    name = config.get("class_name", "Sequential")  # given if the class has a forward or backward of its own
    cls = {"Sequential": Sequential, **custom}.get(name)
    if not (isinstance(cls, type) and issubclass(cls, Sequential)):
        raise ValueError(f"model class {name} is not minidl's: pass custom_objects={{{name!r}: {name}}}")
    model = cls(name=config.get("name"), dtype=config.get("dtype", "float32"), seed=config.get("seed"))
    layers, shape = layers_from_configs(config["layers"], custom), config.get("input_shape")
    model.fill(layers, None if shape is None else check_shape("input_shape", shape), size)
    return model


def load_model(path, custom_objects: Mapping[str, Callable] | None = None) -> Sequential:
    """The model of a file ``Sequential.save`` wrote, compiled and with its optimizer's state if it was.

    Only minidl's own classes and those in ``custom_objects`` (name: class or function) are ever built, nothing is
    unpickled. Raises ValueError, naming the file, if it is corrupt, foreign or of another version.
    """
    custom = check_custom_objects(custom_objects)
    config, arrays = read(path)
    shown = archive.check_path(path)
    if config.get("kind") == "weights":
        raise ValueError(f"{shown} holds weights only: make the model and call its load_weights")
    with archive.naming(shown, _CONFIG_ERRORS):
        model, params = _from_config(config["model"], custom, size=len(arrays["params"])), arrays["params"]
        if model.dtype != params.dtype:
            raise ValueError(f"the model is {model.dtype}, its parameters are {params.dtype}")
        if not model.built:
            raise ValueError("the model has no input_shape")
        model.params[...] = params
        restore_training(model, config, arrays, custom)
    return model


def model_from_json(json_string: str, custom_objects: Mapping[str, Callable] | None = None) -> Sequential:
    """An untrained model of ``to_json``'s text. Raises TypeError for anything but text, ValueError for other text."""
    if not isinstance(json_string, (str, bytes)):
        raise TypeError(f"json_string must be what to_json gave, got {describe(json_string)}")
    with archive.naming("json_string", _CONFIG_ERRORS):
        node = json.loads(json_string)
        return _from_config(node["config"], check_custom_objects(custom_objects))


def clone_model(model: Sequential) -> Sequential:
    """A new model of the same architecture with initial weights of its own seed, not compiled."""
    if not isinstance(model, Sequential):
        raise TypeError(f"model must be a Sequential, got {describe(model)}")
    parts = [part for layer in model.layers for part in (layer, *vars(layer).values())]
    own = {type(part).__name__: type(part) for part in parts if isinstance(part, Configurable)}
    return type(model).from_config({**model.get_config(), "seed": utils.next_seed()}, own)


if TYPE_CHECKING:

    class Model(Sequential):
        def __init__(self, inputs, outputs, name: str | None = None, seed: int | None = None): ...

else:

    class Model(abc.ABC):  # noqa: B024
        """``Model(inputs, outputs, name=None, seed=None)``: a functional chain of one path, as a `Sequential`.

        ``inputs`` is an ``Input``, whose dtype is the model's; ``outputs`` what the last layer gave that was called.
        A second input or output, and a layer used twice, are refused. Every `Sequential` is an instance of `Model`.
        """

        def __new__(cls, inputs, outputs, name=None, seed=None):
            first, *layers = chain_path(inputs, outputs)
            name, dtype = given_name(name, "functional"), first._dtype or "float32"
            return Sequential([first, *layers], name, dtype, seed)

        def __init_subclass__(cls, **kwargs):
            raise TypeError(f"class {cls.__name__} must derive from minidl.Sequential, not from Model")

    Model.register(Sequential)
