"""Random nets of minidl, to be carried to other libraries, and the comparison of two sides."""

import numpy as np

from minidl.layers import (
    ELU,
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    Input,
    LayerNormalization,
    LeakyReLU,
    Normalization,
    PReLU,
    ReLU,
    Rescaling,
    Softmax,
)
from minidl.models import Sequential

NAMES = "linear relu sigmoid tanh softmax gelu gelu_tanh silu softplus elu leaky_relu".split()
LIMITS = {"float32": 1e-6, "float64": 1e-12}
"""How far two sides may be apart, in units of the largest output, or of 0.1: what is inside the net is of size 1."""


def layers(rng, width, everywhere):
    """Layers without a change of width, each with random settings; ``everywhere``: those that PyTorch has, too."""
    truth = rng.random(3) < 0.5
    of_both = [
        Activation(str(rng.choice(NAMES))),
        ReLU(max_value=6.0 if truth[0] else 1.5),
        ReLU(threshold=0.25, max_value=1.0 if truth[0] else None),
        LeakyReLU(float(rng.uniform(0, 1))),
        ELU(float(rng.uniform(0, 2))),
        PReLU("ones", trainable=bool(truth[1])),
        Softmax(),
        Dropout(0.3),
        Flatten(),
        BatchNormalization(momentum=0.9, epsilon=0.1, center=bool(truth[0]), scale=bool(truth[1])),
        LayerNormalization(epsilon=0.1, center=bool(truth[0]), scale=bool(truth[1])),
        Dense(width, str(rng.choice(NAMES)), use_bias=bool(truth[2]), trainable=bool(truth[0])),
    ]
    of_keras = [
        GaussianNoise(0.1),
        Rescaling(0.5, rng.normal(size=width)),
        Normalization(
            mean=rng.normal(size=width), variance=rng.uniform(0.5, 2, width), invert=bool(truth[0])
        ),
        ReLU(max_value=2.0, negative_slope=0.1, threshold=0.5),
        Dense(width, kernel_regularizer="l2", kernel_constraint="max_norm", bias_initializer="ones"),
    ]
    return of_both if everywhere else of_both + of_keras


def random_net(seed, everywhere=True):
    """A net of three to six layers with random parameters, of either dtype."""
    rng = np.random.default_rng(seed)
    width = int(rng.integers(2, 9))
    dtype = "float32" if seed % 2 else "float64"
    model = Sequential([Input((int(rng.integers(1, 7)),)), Dense(width)], dtype=dtype, seed=seed)
    for _ in range(rng.integers(2, 6)):
        model.add(rng.choice(np.array(layers(rng, width, everywhere), object)))
    for layer in model.layers:
        for entry in layer.parameters:
            low, high = (0.5, 2) if entry.name == "moving_variance" else (-1, 1)
            getattr(layer, entry.name)[...] = rng.uniform(low, high, entry.shape)
    return model


def samples(model, rows=20, seed=0):
    return np.random.default_rng(seed).normal(size=(rows, *model.input_shape)).astype(model.dtype)


def check_equal(ours, theirs, dtype=None):
    """Both sides give the same numbers, as far as ``dtype`` goes, by default that of both."""
    assert ours.shape == theirs.shape and (dtype or ours.dtype == theirs.dtype)
    limit = LIMITS[dtype or ours.dtype.name] * max(abs(ours).max(), 0.1)
    assert abs(ours.astype("f8") - theirs).max() <= limit
