"""Each layer against the naive formula, its backward against differences, its bad arguments, its views."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from own_layers import Scale

from minidl import Sequential
from minidl.activations import NAMES
from minidl.kernels.matmul import dense_forward
from minidl.kernels.program import ACTIVATION, DENSE
from minidl.kernels.random import make_key
from minidl.layers import (
    Activation,
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    Input,
    Layer,
    LeakyReLU,
    RandomTranslation,
    ReLU,
    Rescaling,
    Softmax,
    base,
)

DTYPES = (np.float32, np.float64)
KEY = np.uint64(make_key(3, 16, 0, 0))


def ready(layer, input_shape, dtype=np.float64, seed=0, offset=0):
    """The layer built and attached to vectors of its own, its parameters drawn."""
    layer.build(input_shape)
    size = offset + layer.count_params()
    params, grads = np.zeros(size, dtype), np.full(size, np.nan, dtype)
    assert layer.attach(params, grads, offset) == size
    params[offset:] = np.random.default_rng(seed).normal(size=size - offset)
    layer.key = KEY
    return layer


def sample(shape, dtype=np.float64, seed=1):
    """Numbers at least 0.05 from the kinks at 0, -1 and 1 of the activations tested here."""
    x = np.random.default_rng(seed).uniform(0.05, 0.95, shape)
    return ((x + np.random.default_rng(seed + 1).integers(-2, 2, shape)) * 1.0).astype(dtype)


def differences(function, x, dout, epsilon=1e-5):
    """sum(dout * function(x)) differentiated by each entry of x."""
    dx = np.empty_like(x)
    for index in np.ndindex(x.shape):
        kept = x[index]
        x[index] = kept + epsilon
        above = (function(x) * dout).sum()
        x[index] = kept - epsilon
        below = (function(x) * dout).sum()
        x[index] = kept
        dx[index] = (above - below) / (2 * epsilon)
    return dx


def assert_gradients(layer, x, training=True, rtol=1e-6, atol=1e-7):
    out = layer.forward(x, training=training)
    dout = np.random.default_rng(5).normal(size=out.shape)
    dx = layer.backward(dout)
    got = [dx, *(getattr(layer, f"d{p.name}").copy() for p in layer.parameters)]
    expected = [differences(lambda x: layer.forward(x, training=training), x.copy(), dout)]
    for view in layer.weights:
        expected.append(differences(lambda _: layer.forward(x, training=training), view, dout))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


# -- forward and backward -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.integers(1, 7), st.integers(1, 20), st.integers(1, 20), st.sampled_from(NAMES), st.booleans())
def test_dense_forward(dtype, rows, inputs, units, activation, use_bias):
    layer = ready(Dense(units, activation, use_bias), (inputs,), dtype, offset=3)
    x = sample((rows, inputs), dtype)
    bias = layer.bias if use_bias else 0
    expected = reference.activation(activation, reference.matmul(x, layer.weight) + bias)
    out = layer.forward(x)
    assert out.dtype == dtype and out.shape == (rows, units)
    np.testing.assert_allclose(out, expected, rtol=2e4 * np.finfo(dtype).eps, atol=2e2 * np.finfo(dtype).eps)


def test_activations_that_keras_has():
    known = "linear relu leaky_relu sigmoid tanh softmax gelu silu softplus elu"
    assert set(known.split()) <= set(NAMES)
    assert [Activation(name).activation for name in (*known.split(), "swish", None)] == [
        *known.split(),
        "silu",
        "linear",
    ]


@pytest.mark.parametrize("activation", NAMES)
def test_dense_gradients(activation):
    layer = ready(Dense(5, activation), (4,))
    layer.weight[...] *= 0.7
    assert_gradients(layer, sample((3, 4), seed=11))


@pytest.mark.parametrize("activation", NAMES)
@pytest.mark.parametrize("shape", [(6,), (3, 4)])
def test_activation(activation, shape):
    layer = ready(Activation(activation), shape)
    x = sample((2, *shape))
    np.testing.assert_allclose(layer.forward(x), reference.activation(activation, x), rtol=1e-12)
    assert_gradients(layer, x)


@pytest.mark.parametrize(
    "layer, shape",
    [
        (Softmax(), (5,)),
        (ReLU(), (5,)),
        (ReLU(negative_slope=0.1), (5,)),
        (ReLU(max_value=1.0, negative_slope=0.1, threshold=0.0), (3, 2)),
        (ReLU(1.5, 0.2, 1.0), (5,)),
        (LeakyReLU(), (5,)),
        (LeakyReLU(0.05), (5,)),
        (Dropout(0.4), (3, 4)),
        (Flatten(), (2, 3)),
        (Rescaling(0.3, -1.0), (2, 3)),
        (GaussianNoise(0.01), (5,)),
        (RandomTranslation(0.5, 0.34, fill_value=0.7), (4, 3)),
        (RandomTranslation((-0.25, 0.5), (0.0, 0.34)), (4, 3, 2)),
        (Scale(), (5,)),
        (Input((5,)), (5,)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Layer) else "",
)
def test_gradients_of_the_other_layers(layer, shape):
    ready(layer, shape)
    assert_gradients(layer, sample((4, *shape), seed=8), training=True)
    assert_gradients(layer, sample((4, *shape), seed=8), training=False)


def test_a_wrong_backward_is_caught():
    class Forgetful(Scale):
        def backward(self, dout):
            self.dgain[...] = (dout * self.x).sum(axis=0)
            return dout

    with pytest.raises(AssertionError):
        assert_gradients(ready(Forgetful(), (5,)), sample((4, 5)))


def test_relu_variants_by_hand():
    x = np.array([[-10.0, -5.0, 0.0, 5.0, 10.0]])

    def apply(layer):
        return ready(layer, (5,)).forward(x)[0].tolist()

    # Keras's own examples
    assert apply(ReLU(max_value=10, negative_slope=0.5)) == [-5, -2.5, 0, 5, 10]
    assert apply(ReLU(max_value=5.0)) == [0, 0, 0, 5, 5]
    assert apply(ReLU(threshold=5.0)) == [0, 0, 0, 0, 10]
    assert apply(LeakyReLU(negative_slope=0.5)) == [-5, -2.5, 0, 5, 10]
    assert apply(Activation("leaky_relu")) == [-2, -1, 0, 5, 10]  # 0.2 by name, 0.3 as a layer
    np.testing.assert_allclose(apply(LeakyReLU()), [-3, -1.5, 0, 5, 10])


def test_at_its_threshold_relu_gives_0_and_its_backward_agrees():
    for layer in (ReLU(threshold=1.0), ReLU(max_value=3.0, threshold=1.0, negative_slope=0.5)):
        ready(layer, (3,))
        x = np.array([[1.0, 1.0 - 1e-6, 1.0 + 1e-6]])
        out = layer.forward(x)[0]
        assert out[0] == 0 and abs(out[1]) < 2e-6 and out[2] == x[0, 2]
        assert layer.backward(np.ones((1, 3)))[0].tolist() == [layer.negative_slope, layer.negative_slope, 1]


def test_flatten_takes_no_data_format_for_a_name():
    assert Flatten("channels_last", name="flat").name == "flat"
    for wrong in ("channels_first", "flat"):
        with pytest.raises(
            ValueError, match=f"data_format must be one of None, 'channels_last', got '{wrong}'"
        ):
            Flatten(wrong)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"batch_size": "many"}, "batch_size of an Input must be left out, got 'many'"),
        ({"batch_size": 0}, "batch_size of an Input must be left out, got 0"),
        ({"batch_size": 8}, "batch_size of an Input must be left out, got 8: every size of batch fits"),
        ({"dtype": "flaot32"}, "dtype must be 'float32' or 'float64', got 'flaot32'"),
        ({"dtype": "complex64"}, "dtype must be 'float32' or 'float64'"),
        ({"dtype": "str"}, "dtype must be 'float32' or 'float64'"),
        ({"dtype": "uint8"}, "dtype must be 'float32' or 'float64'"),  # Keras would cut 0.7 to 0
        ({"dtype": "float64"}, "dtype of layer .* must be the model's, float32, got float64"),
    ],
)
def test_an_input_takes_no_argument_without_effect(arguments, message):
    for dtype in ("float32", "float64"):
        model = Sequential([Input((3,), dtype=dtype), Dense(2)], dtype=dtype)
        assert model.predict(np.ones((5, 3))).dtype == dtype
    with pytest.raises((ValueError, TypeError), match=message):
        Sequential([Input((3,), **arguments), Dense(2)])


def test_a_dense_layer_without_bias_has_none():
    layer = ready(Dense(3, use_bias=False), (4,))
    assert layer.bias is None and len(layer.weights) == 1
    assert ready(Dense(3), (4,)).bias is not None


def test_a_method_of_one_layer_cannot_be_replaced_where_the_compiled_loop_would_not_see_it():
    layer, own = ready(Dense(3), (4,)), ready(Scale(), (4,))
    for name in ("forward", "backward", "ops", "build"):
        with pytest.raises(AttributeError, match=rf"{layer.name}\.{name} cannot be replaced on one layer"):
            setattr(layer, name, lambda *_: 0)
    own.forward = lambda x, training=False: 0 * x
    assert not own.forward(np.ones((1, 4))).any()


@pytest.mark.parametrize("layer", [ReLU(), ReLU(6.0), LeakyReLU(), Activation("gelu"), Dropout(0), Dense(2)])
def test_nan_passes(layer):
    ready(layer, (2,))
    assert np.isnan(layer.forward(np.array([[np.nan, 1.0]]))).any()


def test_softmax_backpropagates_its_jacobian():
    layer = ready(Softmax(), (3,))
    x = np.log([[1.0, 2.0, 5.0]])
    p = layer.forward(x)[0]
    np.testing.assert_allclose(p, [1 / 8, 2 / 8, 5 / 8])
    np.testing.assert_allclose(layer.backward(np.array([[1.0, 0, 0]]))[0], [7 / 64, -2 / 64, -5 / 64])


@given(st.floats(0, 0.95), st.integers(1, 5), st.integers(1, 30))
def test_dropout(rate, rows, columns):
    layer = ready(Dropout(rate), (columns,))
    x = sample((rows, columns))
    np.testing.assert_allclose(layer.forward(x, training=True), reference.dropout(x, rate, KEY), rtol=1e-12)
    np.testing.assert_allclose(layer.backward(x), reference.dropout(x, rate, KEY), rtol=1e-12)
    assert np.array_equal(layer.forward(x), x)
    assert np.array_equal(layer.backward(x), x)


def test_dropout_follows_its_key_and_its_backward_the_forward():
    layer = ready(Dropout(0.5), (50,))
    ones = np.ones((4, 50))
    first = layer.forward(ones, training=True)
    layer.key = np.uint64(make_key(3, 16, 0, 1))
    assert np.array_equal(layer.backward(ones), first)  # the key the forward used
    assert not np.array_equal(layer.forward(ones, training=True), first)


def test_random_translation_moves_whole_images():
    x = sample((6, 5, 4, 2))
    for factors, low, high in (
        ((0.4, 0.25), (-2, -1), (2, 1)),
        (((0.0, 0.4), (-0.25, 0.0)), (0, -1), (2, 0)),
        ((-0.2, 0.0), (-1, 0), (1, 0)),
    ):
        layer = ready(RandomTranslation(*factors, fill_value=9.0), (5, 4, 2))
        shifts = reference.random_shifts(KEY, 6, low, high)
        assert np.array_equal(layer.forward(x, training=True), reference.translate(x, shifts, 9.0))
        assert np.array_equal(layer.forward(x), x)


def test_gaussian_noise_only_in_training():
    layer = ready(GaussianNoise(0.5), (200,))
    x = sample((10, 200))
    noise = layer.forward(x, training=True) - x
    assert abs(noise.std() - 0.5) < 0.05
    assert np.array_equal(layer.forward(x), x)
    assert np.array_equal(layer.backward(x), x)


def test_rescaling_of_bytes():
    out = ready(Rescaling(1 / 255), (2,), np.float32).forward(np.array([[0, 255]], np.uint8))
    assert out.dtype == np.float32 and out.tolist() == [[0, 1]]


def test_forward_leaves_its_input_and_backward_its_dout_alone():
    for layer in (Dense(4, "relu"), Activation("elu"), Softmax(), Dropout(0.5), GaussianNoise(1)):
        ready(layer, (4,))
        x, dout = sample((3, 4)), sample((3, 4), seed=7)
        kept_x, kept_dout = x.copy(), dout.copy()
        layer.forward(x, training=True)
        layer.backward(dout)
        assert np.array_equal(x, kept_x) and np.array_equal(dout, kept_dout)


def test_input_of_any_memory_layout():
    layer = ready(Dense(3), (4,))
    x = sample((6, 4))
    expected = layer.forward(x)
    compiled = len(getattr(dense_forward, "signatures", ()))
    read_only = x.copy()
    read_only.flags.writeable = False
    unaligned = np.frombuffer(b"." + x.tobytes(), offset=1).reshape(x.shape)
    assert not unaligned.flags.aligned
    for same in (read_only, unaligned, np.asfortranarray(x), x[::-1].copy()[::-1], x.astype(">f8")):
        assert np.array_equal(layer.forward(same), expected)
    assert len(getattr(dense_forward, "signatures", ())) == compiled
    whole = np.round(x * 10).astype(np.int16)
    assert np.array_equal(layer.forward(whole), layer.forward(whole.astype(float)))


# -- parameters -----------------------------------------------------------------------------------------


def test_parameters_are_views():
    layer = Dense(3)
    layer.build((4,))
    params, grads = np.arange(20.0), np.zeros(20)
    assert layer.attach(params, grads, 2) == 17
    assert np.shares_memory(layer.weight, params) and np.shares_memory(layer.dbias, grads)
    assert layer.weight.tolist() == np.arange(2.0, 14.0).reshape(4, 3).tolist()
    assert layer.kernel is layer.weight
    layer.bias[...] = -1
    assert params[14:17].tolist() == [-1, -1, -1]
    layer.weight *= 2  # in place, so allowed
    assert params[3] == 6
    assert [(p.name, p.shape, p.size, p.offset) for p in layer.parameters] == [
        ("weight", (4, 3), 12, 2),
        ("bias", (3,), 3, 14),
    ]


def test_assigning_a_parameter_is_refused():
    layer = ready(Dense(3), (4,))
    with pytest.raises(AttributeError, match=r"write layer\.weight\[\.\.\.\] = value"):
        layer.weight = np.ones((4, 3))
    with pytest.raises(AttributeError, match="dbias"):
        layer.dbias = 0
    assert np.shares_memory(layer.weight, layer.weights[0])


def test_parameters_before_the_model_is_built():
    layer = Dense(3, name="top")
    layer.build((4,))
    with pytest.raises(AttributeError, match=r"top\.weight does not exist before the model is built"):
        _ = layer.weight
    with pytest.raises(AttributeError, match="no attribute 'wieght'"):
        _ = layer.wieght


def test_get_and_set_weights():
    layer = ready(Dense(2), (3,))
    values = [np.ones((3, 2)), np.zeros(2)]
    layer.set_weights(values)
    assert layer.get_weights()[0].tolist() == values[0].tolist()
    with pytest.raises(ValueError, match=r"weights must be 2 arrays, got 1"):
        layer.set_weights(values[:1])
    with pytest.raises(ValueError, match=r"weights\[0\] must have shape \(3, 2\), got \(2, 3\)"):
        layer.set_weights([np.ones((2, 3)), np.ones(2)])
    assert layer.weight.tolist() == values[0].tolist()


def test_building_again_starts_over():
    layer = ready(Dense(2), (3,))
    layer.build((5,))
    assert [p.shape for p in layer.parameters] == [(5, 2), (2,)]
    assert layer.input_shape == (5,)
    layer.unbuild()
    assert not layer.built and layer.parameters == [] and layer.input_shape is layer.output_shape is None
    declared = ready(Dense(2, input_dim=3), (3,))
    declared.unbuild()
    assert declared.input_shape == (3,)
    with pytest.raises(RuntimeError, match="is not built"):
        layer.forward(np.ones((1, 5)))


def test_a_layer_of_ones_own():
    layer = Scale()
    assert not layer.built
    ready(layer, (3,))
    assert layer.built and layer.input_shape == layer.output_shape == (3,)
    assert layer.ops() is None and layer.count_params() == 3
    assert Scale.from_config(layer.get_config()).name == layer.name

    class Twice(Scale):  # super().build() is not needed, and does no harm
        def build(self, input_shape):
            super().build(input_shape)
            self.add_weight("shift", input_shape)

    assert [p.name for p in ready(Twice(), (3,)).parameters] == ["gain", "shift"]

    class Empty(Layer):
        pass

    with pytest.raises(NotImplementedError, match="Empty must define forward"):
        Empty().forward(np.ones((1, 1)))

    class Clash(Layer):
        def build(self, input_shape):
            self.add_weight("forward", (1,))

    with pytest.raises(ValueError, match="'forward'"):
        Clash().build((1,))


# -- names, configs, ops --------------------------------------------------------------------------------


def test_automatic_names(monkeypatch):
    monkeypatch.setattr(base, "_names_given", defaultdict(itertools.count))
    made = [Dense(1), Dense(1), Dropout(0.1), Dense(1), GaussianNoise(1.0), LeakyReLU(), Dense(1, name="out")]
    assert [layer.name for layer in made] == [
        "dense",
        "dense_1",
        "dropout",
        "dense_2",
        "gaussian_noise",
        "leaky_re_lu",
        "out",
    ]


CONFIGURED = [
    Input((3, 2), name="images"),
    Dense(4, "gelu", False, "he_normal", "ones", "l2", "max_norm", name="d", input_shape=(7,)),
    Activation("swish"),
    Softmax(),
    ReLU(6.0, 0.1, 0.2),
    LeakyReLU(0.2),
    Dropout(0.3, seed=4),
    Flatten(input_shape=(2, 2)),
    Rescaling(2.0, 1.0),
    GaussianNoise(0.2),
    RandomTranslation((-0.1, 0.2), 0.3, fill_value=1.0),
]


@pytest.mark.parametrize("layer", CONFIGURED, ids=lambda layer: type(layer).__name__)
def test_config_round_trip(layer):
    config = json.loads(json.dumps(layer.get_config()))
    again = type(layer).from_config(config)
    assert again.get_config() == layer.get_config()
    assert again.name == layer.name and again.input_shape == layer.input_shape


def test_ops_describe_the_layer():
    layer = ready(Dense(3, "leaky_relu"), (4,), offset=5)
    dense, activation = layer.ops()
    assert (dense.kind, dense.in_size, dense.out_size, dense.weight, dense.bias) == (DENSE, 4, 3, 5, 17)
    assert (activation.kind, activation.in_size, activation.f[0]) == (ACTIVATION, 3, 0.2)
    assert ready(Dense(3, use_bias=False), (4,)).ops()[0].bias == -1
    for nothing in (Dropout(0), Flatten(), Activation("linear"), GaussianNoise(0), RandomTranslation(0, 0.1)):
        assert ready(nothing, (4, 3)).ops() == []
    for python_only in (ReLU(6.0), Softmax()):
        assert ready(python_only, (4, 3)).ops() is None
    (jitter,) = ready(RandomTranslation(2 / 28, 2 / 28, fill_value=-1), (28, 28)).ops()
    assert jitter.i == (28, 28, 1, -2, 2, -2, 2) and jitter.f[0] == -1
    (one_way,) = ready(RandomTranslation((0, 0.5), 0.0), (4, 3)).ops()
    assert one_way.i == (4, 3, 1, 0, 2, 0, 0)


# -- bad input ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: Dense(0), ValueError, "units must be >= 1, got 0"),
        (lambda: Dense(-3), ValueError, "units must be >= 1, got -3"),
        (lambda: Dense(2.5), TypeError, "units must be an integer, got 2.5"),
        (lambda: Dense(2, "rleu"), ValueError, "unknown activation 'rleu': did you mean 'relu'"),
        (lambda: Dense(2, np.tanh), TypeError, "activation must be a name"),
        (lambda: Dense(2, use_bias="yes"), TypeError, "use_bias must be True or False"),
        (lambda: Dense(2, kernel_initializer="glorot"), ValueError, "unknown .*'glorot'"),
        (lambda: Dense(2, input_dim=3, input_shape=(3,)), ValueError, "input_dim or input_shape, not both"),
        (lambda: Dense(2, input_dim=0), ValueError, "input_dim must be >= 1, got 0"),
        (lambda: Dense(2, name=3), TypeError, "name must be a non-empty string, got 3"),
        (lambda: Activation("softmaxx"), ValueError, "did you mean 'softmax'"),
        (lambda: Dropout(1.0), ValueError, "rate must be < 1, got 1.0"),
        (lambda: Dropout(-0.1), ValueError, "rate must be >= 0, got -0.1"),
        (lambda: Dropout("half"), TypeError, "rate must be a number"),
        (lambda: Dropout(float("nan")), ValueError, "rate must be finite, got nan"),
        (lambda: GaussianNoise(-1), ValueError, "stddev must be >= 0, got -1"),
        (lambda: LeakyReLU(-0.1), ValueError, "negative_slope must be >= 0"),
        (lambda: ReLU(max_value=-1), ValueError, "max_value must be >= 0"),
        (lambda: Softmax(axis=0), ValueError, "axis must be -1 .*got 0"),
        (lambda: Rescaling("1/255"), TypeError, "scale must be a number"),
        (lambda: RandomTranslation(1.5, 0), ValueError, "height_factor must be <= 1, got 1.5"),
        (lambda: RandomTranslation(0, (1, 2, 3)), ValueError, r"width_factor must be a number or \(lowest"),
        (lambda: RandomTranslation(0, 0, fill_mode="reflect"), ValueError, "fill_mode .*got 'reflect'"),
        (lambda: Input(), ValueError, "shape must be given"),
        (lambda: Input((0,)), ValueError, "must be >= 1, got 0"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_shapes_that_do_not_fit_name_the_layer():
    with pytest.raises(ValueError, match=r"layer top needs input of shape \(B, features\).*Flatten"):
        Dense(3, name="top").build((4, 5))
    with pytest.raises(ValueError, match=r"layer jitter needs images .*\(784,\)"):
        RandomTranslation(0.1, 0.1, name="jitter").build((784,))
    with pytest.raises(ValueError, match=r"layer top has input_shape \(3,\), but its input is \(4,\)"):
        Dense(3, name="top", input_dim=3).build((4,))
    layer = ready(Dense(3, name="top"), (4,))
    with pytest.raises(ValueError, match=r"x of layer top must have shape \(B, 4\), got \(2, 5\)"):
        layer.forward(np.ones((2, 5)))
    layer.forward(np.ones((2, 4)))
    with pytest.raises(ValueError, match=r"dout of layer top must have shape \(B, 3\), got \(2, 4\)"):
        layer.backward(np.ones((2, 4)))
    with pytest.raises(ValueError, match="dout of layer top must have 2 rows, as its last forward, got 5"):
        layer.backward(np.ones((5, 3)))


@pytest.mark.parametrize("layer", [Dense(3), Activation("relu"), Dropout(0.5), RandomTranslation(0.1, 0.1)])
def test_backward_before_forward(layer):
    shape = (3, 3) if isinstance(layer, RandomTranslation) else (3,)
    ready(layer, shape)
    with pytest.raises(RuntimeError, match=f"backward of layer {layer.name} called before its forward"):
        layer.backward(np.ones((2, *shape)))


def test_forward_before_build():
    with pytest.raises(RuntimeError, match="top is not built"):
        Dense(3, name="top").forward(np.ones((2, 4)))
