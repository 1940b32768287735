"""Keras: models as teachers, and converted both ways; ``.keras`` files read without Keras. Needs ``minidl[keras]``.

::

    from minidl.interop.keras import from_keras, keras_teacher, to_keras
    model = from_keras("model.keras")          # needs h5py alone, minidl[h5py]
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..constraints import CONSTRAINTS, Constraint
from ..initializers import INITIALIZERS, Initializer
from ..layers import Input, Layer, Normalization
from ..models import Sequential
from ..regularizers import Regularizer
from ..teachers import Teacher
from ..validation import describe, warn
from . import check_same, import_extra, refuse_own_parts
from .assembly import check_model, teacher_of
from .keras_form import CLASSES, GELU_TANH, MODELS, RULES, model_of, model_of_file


def keras_teacher(model: object, from_probs: bool = False) -> Teacher:
    """A Keras model as a teacher, in inference mode.

    Parameters
    ----------
    model : gives logits. A Sequential or functional model that ends in softmax or sigmoid is refused unless
        ``from_probs`` is True. What another model ends with is not known: answers that look like probabilities are
        refused.
    from_probs : the model gives probabilities, whose logarithms (or log-odds) teach, raised to 1e-7 before. Logits
        are better, for they have no floor.
    """
    keras = import_extra("keras", "keras", "keras")
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model, got {describe(model)}")

    def run(x: np.ndarray) -> np.ndarray:
        answers = model.predict_on_batch(x)
        if not isinstance(answers, np.ndarray):
            raise TypeError(f"model {model.name!r} must have one output, got {describe(answers)}")
        return answers

    run.__name__ = model.name
    return teacher_of(run, f"model {model.name!r}", _ending(keras, model), from_probs)


def _ending(keras: Any, model: Any) -> str | None:
    """The activation that a Sequential or functional model is known to end with."""
    while _is_plain(model):
        if type(model).__name__ == "Functional":
            if len(model.outputs) != 1:
                return None
            model = model.outputs[0]._keras_history.operation
        else:
            model = model.layers[-1] if model.layers else None
    if isinstance(model, keras.layers.Softmax):
        return "softmax"
    activation = getattr(model, "activation", None)
    return next(
        (name for name in ("softmax", "sigmoid") if activation is getattr(keras.activations, name)), None
    )


def _is_plain(model: Any) -> bool:
    """Whether it is Keras's own Sequential or functional model: a subclass may have another ``call``."""
    return type(model).__name__ in MODELS and _is_of_keras(type(model))


def _is_of_keras(thing: Any) -> bool:
    return getattr(thing, "__module__", "").split(".")[0] == "keras"


# ---- from Keras


def from_keras(model: Any) -> Sequential:
    """A Keras 3 model as a minidl model with copies of its weights: a Sequential, or a functional chain of one path.

    The layers may be those that minidl has, by Keras's names and with all their arguments, except RandomTranslation,
    which shifts otherwise in Keras. Nested models are unfolded. Names, frozen layers, regularizers and constraints are
    carried, and so are initializers; of one that minidl has not, a warning tells. What ``compile`` had set is not
    carried: optimizer, loss and metrics.

    Parameters
    ----------
    model : a live model, or the path of its ``.keras`` file, which is read without Keras (``minidl[h5py]``), and runs
        no code. HDF5 files of ``save("model.h5")`` and of ``save_weights`` are refused.

    Raises ValueError, naming the layer, for one that minidl has no counterpart of, or a setting of it, before anything
    is built; and if a live model gives other numbers than its conversion. Keras multiplies matrices in float32, in
    layers of float64 too, where both sides agree to 1e-6 therefore.
    """
    if isinstance(model, (str, os.PathLike)):
        return model_of_file(model)
    keras = import_extra("keras", "keras", "keras")
    if not isinstance(model, keras.Model):
        raise TypeError(f"model must be a keras.Model or the path of a .keras file, got {describe(model)}")
    _refuse_own(keras, model)
    if not model.built:
        raise ValueError(f"model {model.name!r} is not built: give it an Input, or call it on data")
    node = keras.saving.serialize_keras_object(model)
    converted = model_of(node, lambda entry: [np.asarray(array) for array in entry.live.get_weights()], model)
    _check_same(keras, converted, model)
    return converted


def _check_same(keras: Any, model: Sequential, theirs: Any) -> None:
    """`check_same` in float32: Keras multiplies matrices in it, even where its layers say float64."""
    if model.dtype != np.float32:
        layers = []
        for layer in model.layers:
            config = layer.get_config().items()
            layers.append(
                type(layer).from_config(
                    {key: value for key, value in config if key.rpartition("_")[2] not in RULES}
                )
            )
        single = Sequential([Input(model.input_shape), *layers], name=model.name)
        single.params[...] = model.params
        model = single
    check_same(model, lambda x: keras.ops.convert_to_numpy(theirs(x, training=False)).astype(np.float32))


def _refuse_own(keras: Any, model: Any) -> None:
    """Refuse models, layers and activations that are not Keras's own, whose config may say something else."""
    if not _is_plain(model):
        raise ValueError(
            f"model {model.name!r} ({type(model).__name__}) is neither a keras.Sequential nor a functional chain"
        )
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            _refuse_own(keras, layer)
        elif not _is_of_keras(type(layer)):
            kind = type(layer).__name__
            raise ValueError(
                f"layer {layer.name!r} ({kind}) is a class of your own, which minidl cannot know"
            )
        activation = getattr(layer, "activation", None)
        if activation is not None and not _is_of_keras(activation) and not _is_gelu_tanh(keras, activation):
            raise ValueError(
                f"layer {layer.name!r} has the activation {activation}, which minidl cannot know"
            )


# ---- to Keras


def _is_gelu_tanh(keras: Any, activation: Any) -> bool:
    return keras.saving.get_registered_name(activation) == GELU_TANH


def _gelu_tanh(keras: Any) -> Any:
    """The function of that activation, registered, so that Keras reads it from files in which this was called."""
    known = keras.saving.get_registered_object(GELU_TANH)
    if known is not None:
        return known

    @keras.saving.register_keras_serializable(package="minidl")
    def gelu_tanh(x):
        return keras.activations.gelu(x, approximate=True)

    return gelu_tanh


def to_keras(model: Sequential) -> Any:
    """The same net as a built ``keras.Sequential`` with copies of the weights, not compiled.

    Names, frozen layers, initializers, regularizers and constraints are carried. Optimizer, loss and metrics are not:
    ``compile`` the result. The activation "gelu_tanh" becomes a function that is registered as "minidl>gelu_tanh"; to
    load such a file in another process, call ``to_keras`` or register one of that name first.

    Raises ValueError, naming the layer, for one that Keras has no counterpart of (RandomTranslation, which shifts
    otherwise there, and those of your own), and if both sides give different numbers.
    """
    keras = import_extra("keras", "keras", "keras")
    check_model(model, "to_keras")
    refuse_own_parts(model, "Keras")
    settings = [_keras_settings(keras, layer, model.dtype.name) for layer in model.layers]
    layers = [
        getattr(keras.layers, type(layer).__name__)(**each)
        for layer, each in zip(model.layers, settings, strict=True)
    ]
    result = keras.Sequential(
        [keras.Input(model.input_shape, dtype=model.dtype.name), *layers], name=model.name
    )
    for theirs, ours in zip(layers, model.layers, strict=True):
        if ours.parameters:
            theirs.set_weights(ours.get_weights())
    _check_same(keras, model, result)
    return result


def _keras_settings(keras: Any, layer: Layer, dtype: str) -> dict[str, Any]:
    """A layer's arguments as Keras takes them."""
    if type(layer).__name__ not in CLASSES:
        raise ValueError(f"layer {layer.name!r} ({type(layer).__name__}) has no counterpart in Keras")
    if isinstance(layer, Normalization) and layer.mean is None:
        raise ValueError(f"layer {layer.name!r} has no mean and variance yet: call its adapt(x_train) first")
    found: dict[str, Any] = {"dtype": dtype, "trainable": layer.trainable}
    for key, value in layer.get_config().items():
        given = getattr(layer, key)
        if isinstance(given, Initializer):
            found[key] = _initializer(keras, layer, key, given)
        elif isinstance(given, Regularizer):
            found[key] = keras.regularizers.L1L2(given.l1, given.l2)
        elif isinstance(given, Constraint):
            if type(given) not in CONSTRAINTS.classes.values():
                raise ValueError(f"{key} of layer {layer.name!r} ({type(given).__name__}) is your own")
            found[key] = getattr(keras.constraints, type(given).__name__)(**given.get_config())
        elif key == "activation" and value == "gelu_tanh":
            found[key] = _gelu_tanh(keras)
        elif key not in ("input_shape", "input_dim"):
            found[key] = value
    return found


def _initializer(keras: Any, layer: Layer, key: str, given: Initializer) -> Any:
    name = type(given).__name__
    if type(given) in INITIALIZERS.classes.values() and hasattr(keras.initializers, name):
        return getattr(keras.initializers, name)(**given.get_config())
    warn(
        f"{key} of layer {layer.name!r} ({name}) has no counterpart in Keras and is left out: the weights are there"
    )
    return "zeros"
