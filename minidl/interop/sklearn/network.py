"""The net of an estimator: a `Sequential` with scikit-learn's initial weights."""

import numbers
from collections.abc import Iterable

import numpy as np

from ...layers import Activation, BatchNormalization, Dense, Dropout, Input
from ...models import Sequential
from ...regularizers import L2
from ...validation import check_int, describe

_ACTIVATIONS = {"identity": None, "logistic": "sigmoid", "tanh": "tanh", "relu": "relu"}
_MOST_SEED = np.iinfo(np.int32).max


def hidden_sizes(hidden_layer_sizes) -> list[int]:
    """The units of each hidden layer; a number is one layer."""
    if isinstance(hidden_layer_sizes, numbers.Integral):
        return [check_int("hidden_layer_sizes", hidden_layer_sizes, minimum=1)]
    if isinstance(hidden_layer_sizes, (str, bytes)) or not isinstance(hidden_layer_sizes, Iterable):
        raise TypeError(
            f"hidden_layer_sizes must be a number of units, as 100, or one for each hidden layer, as (64, 32), got "
            f"{describe(hidden_layer_sizes)}"
        )
    return [
        check_int(f"hidden_layer_sizes[{place}]", size, minimum=1)
        for place, size in enumerate(hidden_layer_sizes)
    ]


def build(estimator, sizes: list[int], final: str | None, dtype: str, rng) -> Sequential:
    """A net of these ``sizes``, inputs and outputs included, that ends in ``final``."""
    activation, layers = _ACTIVATIONS[estimator.activation], [Input((sizes[0],))]
    for units in sizes[1:-1]:
        if estimator.batch_normalization:
            layers += [_dense(units), BatchNormalization(), Activation(activation)]
        else:
            layers.append(_dense(units, activation))
        if estimator.dropout:
            layers.append(Dropout(estimator.dropout))
    model = Sequential([*layers, _dense(sizes[-1], final)], dtype=dtype, seed=0)
    _initialize(model, 2.0 if estimator.activation == "logistic" else 6.0, rng)
    if estimator.dropout:  # after all that scikit-learn draws here, which then is the same
        model.seed = int(rng.randint(_MOST_SEED))
    return model


def _dense(units: int, activation: str | None = None) -> Dense:
    return Dense(units, activation, kernel_initializer="zeros")  # drawn by `_initialize`


def _initialize(model: Sequential, factor: float, rng) -> None:
    """Glorot and Bengio 2010: weights and biases from [-b, b], b = sqrt(factor / (in + out))."""
    for layer in dense_layers(model):
        bound = np.sqrt(factor / sum(layer.weight.shape))
        layer.weight[...] = rng.uniform(-bound, bound, layer.weight.shape)
        layer.bias[...] = rng.uniform(-bound, bound, layer.bias.shape)


def dense_layers(model: Sequential) -> list[Dense]:
    return [layer for layer in model.layers if isinstance(layer, Dense)]


def set_penalty(model: Sequential, l2: float) -> None:
    """``l2`` times the sum of the squared weights, biases left out, belongs to the loss."""
    penalty = L2(l2) if l2 else None
    for layer in dense_layers(model):
        if repr(layer.kernel_regularizer) != repr(penalty):
            layer.kernel_regularizer = penalty


def check_sizes(estimator) -> None:
    """Refuse to go on with a net of other sizes."""
    wanted = hidden_sizes(estimator.hidden_layer_sizes)
    found = [layer.units for layer in dense_layers(estimator.model_)[:-1]]
    if wanted != found:
        raise ValueError(
            f"hidden_layer_sizes must stay {tuple(found)} to go on with the net (warm_start, partial_fit), "
            f"got {tuple(wanted)}"
        )


def arrays(model: Sequential) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Views of the weights and of the biases, layer by layer."""
    layers = dense_layers(model)
    return [layer.weight for layer in layers], [layer.bias for layer in layers]


def set_arrays(model: Sequential, coefs, intercepts) -> None:
    """Copy arrays of the user's to where the net has its own, or change nothing."""
    pairs = list(zip(("coefs_", "intercepts_"), (coefs, intercepts), arrays(model), strict=True))
    for name, given, views in pairs:
        found, wanted = [np.shape(array) for array in given], [view.shape for view in views]
        if found != wanted:
            raise ValueError(f"{name} must have shapes {wanted}, got {found}")
    for _, given, views in pairs:
        for array, view in zip(given, views, strict=True):
            view[...] = array
