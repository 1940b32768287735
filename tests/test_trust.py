"""The same seed, the same bits: wherever, however and however often a model is trained."""

import hashlib

import numpy as np
import pytest
from small_run import CLASSES, FEATURES, TEACHER, fit, fractions

from minidl.kernels import target
from minidl.kernels.jit import JIT_DISABLED
from minidl.layers import Activation, Dense, Dropout
from minidl.models import Sequential
from minidl.optimizers import Adam

# By hardware FMA: with it (AVX2 and AVX-512 alike) a product and a sum are rounded once, without it twice.
GOLDEN = {
    ("float32", True): "570d7b43c102980d",
    ("float64", True): "f6631ec61f23bd11",
    ("float32", False): "80153838b017d6b8",
    ("float64", False): "e0ff2940a7a932a2",
}


def golden_model(dtype):
    model = Sequential(
        [
            Dense(40, "relu", input_shape=(FEATURES,)),
            Dropout(0.25),
            Dense(33, "gelu"),
            Dense(CLASSES),
            Activation("softmax"),
        ],
        seed=7,
        dtype=dtype,
    )
    model.params[...] = 0.3 * fractions(model.params.size, scale=1009)  # NumPy's streams may change
    model.compile(Adam(0.01), "sparse_categorical_crossentropy", ["accuracy"])
    return model


def digest(array):
    return hashlib.sha256(array.astype(array.dtype.newbyteorder("<")).tobytes()).hexdigest()[:16]


def golden_run(dtype):
    model = golden_model(dtype)
    fit(model, epochs=2)
    numbers = dict(temperature=4.0, hard_weight=0.1, soft_weight=0.9)
    fit(model, epochs=4, initial_epoch=2, target_model=TEACHER, **numbers)
    return model


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_ends_with_the_committed_bits(dtype):
    model = golden_run(dtype)
    if JIT_DISABLED:
        assert np.isfinite(model.params).all()  # plain Python equals the kernels to rounding only
        return
    assert digest(model.params) == GOLDEN[dtype, target.HAS_FMA]
    model.params[0] = np.nextafter(model.params[0], model.dtype.type(1))
    assert digest(model.params) != GOLDEN[dtype, target.HAS_FMA]
