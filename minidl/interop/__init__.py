"""Bridges to other libraries: scikit-learn, ONNX, C, PyTorch, Keras, safetensors, MPI. Each is a module and an extra.

What has no exact counterpart is refused by name; what was converted is run on both sides and compared.
"""

import copy
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ..layers import (
    LAYERS,
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    Layer,
    LayerNormalization,
    Normalization,
    RandomTranslation,
    ReLU,
    Rescaling,
)
from ..models import Sequential
from ..registry import overridden

OFF_AT_INFERENCE = (Dropout, GaussianNoise, RandomTranslation)


def import_extra(package: str, bridge: str, extra: str) -> Any:
    """An optional package; if it is missing, the error says which extra installs it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f'minidl.interop.{bridge} needs {package}: pip install "minidl[{extra}]"'
        ) from error


def refuse_own_parts(model: Sequential, library: str) -> None:
    """ValueError for a layer of the user's own, or a model that computes in another way: ``library`` cannot know it."""
    if method := overridden(model, "forward", "predict", "predict_logits"):
        raise ValueError(
            f"model {model.name!r} ({type(model).__name__}) has a {method} of your own and no {library} form"
        )
    for layer in model.layers:
        _refuse_own(layer, library)


def _refuse_own(layer: Layer, library: str) -> None:
    if LAYERS.classes.get(type(layer).__name__) is not type(layer):  # a subclass may have another forward
        raise ValueError(
            f"layer {layer.name!r} ({type(layer).__name__}) is your own and has no {library} form"
        )


def activation_of(layer: Layer, library: str) -> tuple[str, float]:
    """(name, slope) of the activation ``layer`` ends with; the slope counts for leaky_relu and elu only.

    "linear" for a layer without an activation. ValueError for one that ``library`` has no counterpart of.
    """
    _refuse_own(layer, library)
    if isinstance(layer, ReLU) and (layer.max_value is not None or layer.threshold):
        raise ValueError(f"layer {layer.name!r} (ReLU with max_value or threshold) has no {library} form")
    name = layer.activation if isinstance(layer, (Activation, Dense)) else "linear"
    return name, layer._activation.slope if isinstance(layer, (Activation, Dense)) else 0.0


def normalization_arrays(layer: BatchNormalization | LayerNormalization) -> dict[str, np.ndarray]:
    """gamma, beta and moving averages by name; what the layer has none of is 1 or 0."""
    found = {"gamma": np.ones(layer.input_shape[-1:]), "beta": np.zeros(layer.input_shape[-1:])}
    return found | {entry.name: getattr(layer, entry.name) for entry in layer.parameters}


ROUNDING = {"float32": 1e-6, "float64": 1e-9}
"""How far a conversion's outputs may be from the model's, in units of the outputs' size."""
_MOVED = 4
"""So many times as far as the outputs move when all that is computed moves by its last bit."""
_CURVED = {"elu", "gelu", "gelu_tanh", "sigmoid", "silu", "softmax", "softplus", "tanh"}
"""Activations that libraries approximate, with an error of the last bit of 1 where they are near 0."""
_SAMPLES = 64


def check_same(model: Sequential, other: Callable[[np.ndarray], np.ndarray], logits: bool = False) -> None:
    """Refuse a conversion whose outputs differ from the model's by more than rounding explains.

    ``other(x)`` is compared with ``predict(x)`` (``logits``: ``predict_logits(x)``) on 64 random samples, spread as the
    model's first layer expects; half of them are ten times larger. They are given as batches of 1 and of 63. An output
    may differ by ``ROUNDING`` of its size, the largest that it has on these samples, plus four times what it is seen to
    move by when each input and each layer's output is moved by its last bit, up or down at random. Rounding does so
    too: where a net makes much of it, no two ways to compute it are closer.

    Raises ValueError if the shapes or the numbers differ, or if the model itself gives NaN or infinity.
    """
    rng = np.random.default_rng(0)
    x = _typical_samples(model, rng)
    ours = model.predict_logits(x) if logits else model.predict(x, verbose=0)
    theirs = np.concatenate([other(x[:1]), other(x[1:])])
    if not np.isfinite(ours).all():
        raise ValueError(
            f"model {model.name!r} gives NaN or infinity for random samples, so nothing can be compared"
        )
    what = f"model {model.name!r} and its conversion give different numbers for the same x"
    if ours.shape != theirs.shape:
        raise ValueError(f"{what}: shape {ours.shape} and {theirs.shape}")
    by_rounding = _moved_by_rounding(model, x, ours, logits, rng)
    allowed = ROUNDING[model.dtype.name] * np.abs(ours).max(axis=0) + _MOVED * by_rounding
    wrong = np.argwhere(~(np.abs(theirs - ours) <= allowed))  # a NaN compares as false
    if len(wrong):
        place = tuple(wrong[0])
        raise ValueError(
            f"{what}: {ours[place]} and {theirs[place]}, where rounding explains {allowed[place[1:]]:.1e}. A part was "
            "changed in a way that cannot be converted"
        )


def _moved_by_rounding(
    model: Sequential, x: np.ndarray, ours: np.ndarray, logits: bool, rng: np.random.Generator
) -> np.ndarray:
    """How far each output moves at most where inputs and layers' outputs are moved by their last bit, in four runs."""

    def moved(array: np.ndarray, size: float | np.ndarray) -> np.ndarray:
        up_or_down = rng.integers(0, 2, array.shape) * 2 - 1
        return (array + epsilon * size * up_or_down).astype(array.dtype)

    epsilon = np.finfo(model.dtype).eps
    out = np.concatenate([x] * 4)
    out = moved(out, np.abs(out))
    for layer in model._logits_layers if logits else model.layers:
        out = copy.copy(layer).forward(out)  # the model's own keeps what a backward may need
        smallest = 1.0 if getattr(layer, "activation", "") in _CURVED else 0.0
        out = moved(out, np.maximum(smallest, np.abs(out).max(axis=0)))
    return np.abs(out - np.concatenate([ours] * 4)).max(axis=0)


def _typical_samples(model: Sequential, rng: np.random.Generator) -> np.ndarray:
    """Samples that the layers that bring inputs into a range bring to mean 0 and variance 1, half of them to 100."""
    x = rng.normal(size=(_SAMPLES, *model.input_shape))
    x[_SAMPLES // 2 :] *= 10
    first = next(
        (layer for layer in model.layers if not isinstance(layer, (*OFF_AT_INFERENCE, Flatten))), None
    )
    if isinstance(first, (Normalization, Rescaling, BatchNormalization)):
        x = x.reshape(-1, *first.input_shape)
        if isinstance(first, BatchNormalization):
            x = x * np.sqrt(first.moving_variance + first.epsilon) + first.moving_mean
        else:
            center, scale, offset = first.affine()
            x = (x - offset) / np.where(scale, scale, 1) + center
    return x.reshape(-1, *model.input_shape).astype(model.dtype)
