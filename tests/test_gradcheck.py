"""The gradient checker: right gradients pass, and each kind of wrong one is caught and named."""

from __future__ import annotations

import numpy as np
import pytest
from own_layers import Scale

from minidl.gradcheck import GradientError, check_gradients
from minidl.layers import Activation, Dense, Dropout, Flatten, RandomTranslation, ReLU
from minidl.losses import HalfMeanSquaredError, KnowledgeDistillation
from minidl.models import Sequential

SPARSE = "sparse_categorical_crossentropy"
RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 4))
LABELS = RNG.integers(0, 3, 6)
TEACHER = RNG.normal(size=(6, 3)) * 3


def network(*middle, activation="softmax", dtype="float64"):
    layers = [Dense(5, "tanh", name="first"), *middle, Dense(3, activation, name="last")]
    model = Sequential(layers, dtype=dtype, seed=3)
    model.build((4,))
    return model


def caught(model, loss=SPARSE, **kwargs):
    with pytest.raises(GradientError) as info:
        check_gradients(model, X, LABELS, loss, **kwargs)
    return info.value


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_right_gradients_pass_and_the_model_is_left_alone(dtype):
    model = network(Scale(), Dropout(0.3), dtype=dtype)
    model.grads[...] = 7
    kept = model.params.copy()
    error = check_gradients(model, X, LABELS, SPARSE)
    assert isinstance(error, float) and error < 1e-8
    assert np.array_equal(model.params, kept) and (model.grads == 7).all()
    assert model.dtype == dtype and model.layers[0].weight.dtype == dtype


def test_the_compiled_loss_is_the_default():
    model = network()
    model.compile("sgd", SPARSE)
    assert check_gradients(model, X, LABELS) < 1e-8
    with pytest.raises(ValueError, match="loss must be given"):
        check_gradients(network(), X, LABELS)


def test_images_and_bytes():
    model = Sequential([RandomTranslation(0.4, 0.4), Flatten(), Dense(3)], seed=1)
    x = np.random.default_rng(1).integers(0, 255, (4, 5, 5), dtype=np.uint8)
    assert check_gradients(model, x, np.zeros((4, 3)), HalfMeanSquaredError(), atol=1e-5) < 1


class ForgetsOneTemperature(KnowledgeDistillation):
    def value_and_grad(self, logits, y, teacher_logits, sample_weight=None):
        value, dlogits = super().value_and_grad(logits, y, teacher_logits, sample_weight=sample_weight)
        return value, dlogits / self.temperature


class ForgetsItsGradient(HalfMeanSquaredError):
    def value_and_grad(self, logits, y, sample_weight=None):
        value, dlogits = super().value_and_grad(logits, y, sample_weight=sample_weight)
        return value, np.zeros_like(dlogits)


@pytest.mark.parametrize("temperature", [1.1, 4.0, 20.0])
def test_a_gradient_off_by_a_factor_of_t_is_caught(temperature):
    right = KnowledgeDistillation(temperature=temperature)
    assert check_gradients(network(), X, LABELS, right, teacher_logits=TEACHER) < 1e-7
    wrong = caught(network(), ForgetsOneTemperature(temperature=temperature), teacher_logits=TEACHER)
    assert wrong.got == pytest.approx(wrong.expected / temperature, rel=1e-4)


def test_a_zeroed_gradient_is_caught():
    with pytest.raises(GradientError, match="got 0;"):
        check_gradients(network(activation=None), X, RNG.normal(size=(6, 3)), ForgetsItsGradient())


class Broken(Dense):
    """A Dense layer whose gradients go through ``harm``."""

    harm = staticmethod(lambda layer, dx: dx)

    def backward(self, dout):
        return self.harm(self, super().backward(dout))


def broken(harm):
    layer = Broken(5, "tanh", name="broken")
    layer.harm = harm
    return network(layer)


def zero_weight(layer, dx):
    layer.dweight[...] = 0
    return dx


def one_bias_entry(layer, dx):
    layer.dbias[2] += 1e-3
    return dx


def transposed(layer, dx):
    layer.dweight[...] = layer.dweight.T.copy()
    return dx


def test_a_wrong_parameter_gradient_is_named():
    assert check_gradients(broken(lambda layer, dx: dx), X, LABELS, SPARSE) < 1e-8
    error = caught(broken(zero_weight))
    assert (error.layer, error.parameter, error.got) == ("broken", "weight", 0.0)
    assert abs(error.expected) > 1e-4
    error = caught(broken(one_bias_entry))
    assert (error.layer, error.parameter, error.index) == ("broken", "bias", (2,))
    assert error.got == pytest.approx(error.expected + 1e-3)
    assert str(error).startswith("gradient of broken.bias[2]: expected ")
    assert "; 1 of " in str(error)
    assert caught(broken(transposed)).parameter == "weight"


def test_a_wrong_dx_is_seen_in_what_lies_before():
    assert caught(broken(lambda layer, dx: 2 * dx)).layer == "first"
    first = Broken(3, "softmax", input_dim=4)
    first.harm = lambda layer, dx: -dx
    error = caught(Sequential([first, Dense(3, "softmax")], dtype="float64", seed=1))
    assert (error.layer, error.parameter) == ("input", "x")


def test_a_gradient_that_is_never_written_is_caught():
    class Lazy(Scale):
        def backward(self, dout):
            return dout * self.gain

    error = caught(network(Lazy(name="lazy")))
    assert (error.layer, error.parameter) == ("lazy", "gain") and error.got == 0


def test_a_softmax_that_expects_probs_minus_target_is_caught():
    class Pretender(Activation):
        def backward(self, dout):
            return dout

    assert check_gradients(network(Activation("softmax")), X, LABELS, SPARSE) < 1e-8
    assert caught(network(Pretender("softmax"))).layer == "first"


def test_at_a_kink_any_slope_between_the_two_sides_is_right():
    x = np.zeros((2, 3))  # with no bias yet, every relu stands exactly at 0
    model = Sequential([Dense(4, "relu"), Dense(2)], dtype="float64", seed=2)
    model.build((3,))
    assert check_gradients(model, x, np.ones((2, 2)), "mse") < 1e-8

    class Outside(ReLU):
        def backward(self, dout):
            return np.where(self._x == 0, -0.5, self._x > 0) * dout

    model = Sequential([Dense(4), Outside(), Dense(2)], dtype="float64", seed=2)
    model.build((3,))
    with pytest.raises(GradientError):
        check_gradients(model, x, np.ones((2, 2)), "mse")


def test_a_kink_within_reach_of_the_step():
    model = Sequential([Dense(1, "relu"), Dense(1)], dtype="float64", seed=2)
    model.build((1,))
    for bias in (3e-6, -3e-6):  # epsilon is 1e-5
        model.params[...] = [1.0, bias, 1.0, 0.0]
        assert check_gradients(model, np.zeros((1, 1)), np.ones((1, 1)), "mse") < 1e-6


def test_a_layer_that_draws_anew_is_refused():
    class Restless(Scale):
        def forward(self, x, training=False):
            self.x = x + np.random.default_rng().normal(size=x.shape)
            return self.x * self.gain

    with pytest.raises(ValueError, match="changes from call to call"):
        check_gradients(network(Restless()), X, LABELS, SPARSE)


def test_a_layer_that_cannot_be_made_again_from_its_config_is_checked_as_it_is():
    class Stubborn(Scale):
        def __init__(self, size):
            super().__init__(name="stubborn")
            self.wrong_by = size

        def backward(self, dout):
            return self.wrong_by * super().backward(dout)

    for dtype in ("float32", "float64"):
        assert check_gradients(network(Stubborn(1), dtype=dtype), X, LABELS, SPARSE) < 1e-8
        assert caught(network(Stubborn(3), dtype=dtype)).layer == "first"


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"model": "net"}, TypeError, "model must be a Sequential, got 'net'"),
        ({"x": X[:, :3]}, ValueError, r"x must have shape \(N, 4\), got \(6, 3\)"),
        ({"y": LABELS[:4]}, ValueError, "y must have one row per sample of x: expected 6, got 4"),
        ({"y": LABELS + 2}, ValueError, "y must hold whole numbers in 0..2"),
        ({"loss": "crossentropy"}, ValueError, "'crossentropy'"),
        ({"epsilon": 0}, ValueError, "epsilon must be > 0, got 0"),
        ({"rtol": -1}, ValueError, "rtol must be >= 0, got -1"),
        ({"training": 1}, TypeError, "training must be True or False"),
        ({"teacher_logits": TEACHER}, ValueError, "teacher_logits must be None for loss"),
        ({"loss": KnowledgeDistillation()}, ValueError, "teacher_logits must be an array, got None"),
        ({"sample_weight": np.ones(5)}, ValueError, "sample_weight must have one row per sample"),
        ({"x": X * np.nan}, ValueError, "x must be finite"),
    ],
)
def test_bad_arguments(changes, error, message):
    arguments = {"model": network(), "x": X, "y": LABELS, "loss": SPARSE}
    with pytest.raises(error, match=message):
        check_gradients(**{**arguments, **changes})
