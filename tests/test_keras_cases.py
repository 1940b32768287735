"""Cases in the spirit of Keras's unit tests, for what minidl shares with it; `test_parity` replays whole trainings.

The numbers are Keras 3.15's (JAX, float32, seven digits): the class named in a row was called with the row's
arguments on the arrays below. What minidl does otherwise on purpose is said where it is tested.
"""

import csv

import numpy as np
import pytest

from minidl import callbacks, constraints, initializers, layers, losses, metrics, models, optimizers
from minidl.layers import Activation, Dense, Flatten, Input, LeakyReLU, ReLU
from minidl.models import Sequential
from minidl.optimizers import schedules
from minidl.regularizers import L1, L1L2, L2

TRUE = np.array([[1.5, -2, 0.5], [0, 3, -1], [4, 4, 4]])
PRED = np.array([[1, 2, 0], [0.5, -1, -1.5], [4, 4.25, 3]])
PROBS = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.25, 0.5, 0.25]])
SOFT = np.array([[0.6, 0.3, 0.1], [0.2, 0.2, 0.6], [0, 1, 0]])
LOGITS = np.array([[2, -1, 0.5], [0, 3, -2], [-1.5, 0.25, 1]])
LABELS, ONE_HOT, BITS = np.arange(3), np.eye(3), np.array([[1.0, 0, 1], [0, 0, 1], [1, 1, 0]])
WEIGHT = np.array([0.5, 2, 0])
LOGIT, SMOOTH = {"from_logits": True}, {"label_smoothing": 0.2}
ON_PROBS, ON_LOGITS = [0.356675, 1.203973, 1.386294], [0.2413113, 0.05498521, 0.4411227]


@pytest.mark.parametrize(
    "name, settings, y_true, y_pred, each",
    [  # each: with reduction "none"; Keras's other reductions are means of these
        ("MeanSquaredError", {}, TRUE, PRED, [5.5, 5.5, 0.3541667]),
        ("MeanAbsoluteError", {}, TRUE, PRED, [1.666667, 1.666667, 0.4166667]),
        ("Huber", {}, TRUE, PRED, [1.25, 1.25, 0.1770833]),
        ("Huber", {"delta": 0.5}, TRUE, PRED, [0.7083334, 0.7083334, 0.1354167]),
        ("KLDivergence", {}, SOFT, PROBS, [0.02914917, 0.0575364, 0.6931442]),
        ("CategoricalCrossentropy", {}, ONE_HOT, PROBS, ON_PROBS),
        ("CategoricalCrossentropy", SMOOTH, SOFT, PROBS, [1.026256, 1.074071, 0.7855668]),
        ("CategoricalCrossentropy", LOGIT, SOFT, LOGITS, [1.291311, 3.654985, 1.191123]),
        ("CategoricalCrossentropy", LOGIT | SMOOTH, ONE_HOT, LOGITS, [0.5413113, 0.5883186, 0.6577894]),
        ("SparseCategoricalCrossentropy", {}, LABELS, PROBS, ON_PROBS),
        ("SparseCategoricalCrossentropy", LOGIT, LABELS, LOGITS, ON_LOGITS),
        ("BinaryCrossentropy", {}, BITS, PROBS, [0.9608012, 0.324287, 0.7890412]),
        ("BinaryCrossentropy", SMOOTH, BITS, PROBS, [0.9620134, 0.4392866, 0.7890412]),
        ("BinaryCrossentropy", LOGIT, BITS, LOGITS, [0.3047556, 1.956221, 1.196872]),
        ("BinaryCrossentropy", LOGIT | SMOOTH, BITS, LOGITS, [0.4214222, 1.789554, 1.121871]),
    ],
)
def test_losses(name, settings, y_true, y_pred, each):
    """Without a reduction a loss is the function of its name."""
    cls = getattr(losses, name)
    assert cls(**settings)(y_true, y_pred) == pytest.approx(np.mean(each), rel=2e-6)
    assert cls(**settings)(y_true, y_pred, WEIGHT) == pytest.approx(each @ WEIGHT / 3, rel=2e-6)
    function = next(made for made, of in losses.supervised.CLASS_OF.items() if of is cls)
    np.testing.assert_allclose(function(y_true, y_pred, **settings), each, rtol=2e-6)
    for reduction, expected in (("none", each), (None, each), ("sum", np.sum(each)), ("mean", np.mean(each))):
        np.testing.assert_allclose(cls(**settings, reduction=reduction)(y_true, y_pred), expected, rtol=2e-6)


MORE_PROBS = np.array([[0.4, 0.4, 0.2], [0.1, 0.8, 0.1], [0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
MORE_LABELS, MORE_ONE_HOT = np.array([1, 0, 2, 2]), np.eye(3)[[1, 0, 2, 2]]
FIRST_WEIGHT, SECOND_WEIGHT = np.array([0.2, 0.3, 0.5]), np.array([1, 0, 3, 0.5])


@pytest.mark.parametrize(
    "name, settings, first, second, plain, weighted",
    [  # result() after the first batch and after the second, without and with sample weights; the fourth row ties
        ("SparseCategoricalAccuracy", {}, LABELS, MORE_LABELS, (0.3333333, 0.2857143), (0.2, 0.5818182)),
        ("SparseTopKCategoricalAccuracy", {"k": 2}, LABELS, MORE_LABELS, (1, 0.8571429), (1, 0.9090909)),
        ("SparseTopKCategoricalAccuracy", {"k": 1}, LABELS, MORE_LABELS, (1 / 3, 3 / 7), (0.2, 0.7636364)),
        ("CategoricalAccuracy", {}, ONE_HOT, MORE_ONE_HOT, (0.3333333, 0.2857143), (0.2, 0.5818182)),
        ("TopKCategoricalAccuracy", {"k": 2}, ONE_HOT, MORE_ONE_HOT, (1, 0.8571429), (1, 0.9090909)),
        ("BinaryAccuracy", {}, BITS, MORE_ONE_HOT, (0.6666667, 0.5714286), (0.6, 0.6242424)),
        ("MeanSquaredError", {}, ONE_HOT, MORE_ONE_HOT, (0.2083334, 0.2635714), (0.2411667, 0.1850606)),
        ("MeanAbsoluteError", {}, ONE_HOT, MORE_ONE_HOT, (0.3888889, 0.4428572), (0.43, 0.3872727)),
    ],
)
def test_metrics_over_two_batches(name, settings, first, second, plain, weighted):
    for weights, expected in (((None, None), plain), ((FIRST_WEIGHT, SECOND_WEIGHT), weighted)):
        metric = getattr(metrics, name)(**settings)
        metric.update_state(first, PROBS, weights[0])
        assert metric.result() == pytest.approx(expected[0], rel=1e-6)
        metric.update_state(second, MORE_PROBS, weights[1])
        assert metric.result() == pytest.approx(expected[1], rel=1e-6)
        metric.reset_state()
        assert metric.result() == 0


GRADIENTS = np.array([[0.5, -1, 0], [0.25, 2, 1e-3], [-1, 0.5, 0], [3, -0.25, -2e-3], [0.1, 0.1, 4]])


@pytest.mark.parametrize(
    "name, settings, expected",
    [  # from [1, -2, 3] with learning_rate 0.1, after GRADIENTS
        ("SGD", {"momentum": 0.9}, [0.40027, -2.37629, 2.600036]),
        ("SGD", {"momentum": 0.9, "nesterov": True}, [0.175243, -2.473661, 2.240132]),
        ("SGD", {"weight_decay": 0.05}, [0.6921169, -2.084124, 2.525847]),
        ("SGD", {"clipnorm": 1.0}, [0.9301649, -2.0487, 2.900079]),
        ("SGD", {"clipvalue": 0.3}, [0.935, -2.015, 2.9701]),
        ("Adam", {}, [0.7366781, -2.031332, 2.844836]),
        ("Adam", {"amsgrad": True}, [0.7366788, -2.031332, 2.844865]),
        ("Adam", {"beta_1": 0.5, "beta_2": 0.7, "epsilon": 0.01}, [0.7586504, -2.055047, 2.915022]),
        ("AdamW", {}, [0.7349544, -2.027407, 2.838964]),
        ("AdamW", {"weight_decay": 0.3, "amsgrad": True}, [0.6152522, -1.753792, 2.430006]),
        ("RMSprop", {"centered": True}, [0.4682745, -2.008551, 2.702905]),
        ("RMSprop", {"momentum": 0.9}, [-0.6149151, -1.829411, 2.413323]),
        ("RMSprop", {"rho": 0.5, "momentum": 0.5, "centered": True}, [0.3569936, -1.96587, 2.731446]),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_optimizers(name, settings, expected, dtype):
    optimizer = getattr(optimizers, name)(learning_rate=0.1, **settings)
    params = np.array([1, -2, 3], dtype)
    for gradient in GRADIENTS.astype(dtype):
        optimizer.step(params, gradient)
    np.testing.assert_allclose(params, expected, rtol=1e-5)
    assert optimizer.iterations == 5


@pytest.mark.parametrize(
    "schedule, rates",
    [  # rate by step
        (schedules.ExponentialDecay(0.1, 10, 0.5), {0: 0.1, 1: 0.0933033, 5: 0.07071068, 25: 0.01767767}),
        (schedules.ExponentialDecay(0.1, 10, 0.5, staircase=True), {0: 0.1, 9: 0.1, 10: 0.05, 20: 0.025}),
        (schedules.PiecewiseConstantDecay([3, 6], [1.0, 0.5, 0.1]), {0: 1, 3: 1, 4: 0.5, 6: 0.5, 7: 0.1}),
        (schedules.CosineDecay(0.2, 8), {0: 0.2, 2: 0.1707107, 4: 0.1, 7: 0.007612038, 8: 0, 20: 0}),
        (schedules.CosineDecay(0, 8, 0.1, warmup_target=0.4, warmup_steps=4), {1: 0.1, 4: 0.4, 8: 0.22}),
    ],
)
def test_schedules(schedule, rates):
    for step, rate in rates.items():
        assert schedule(step) == pytest.approx(rate, rel=1e-5, abs=1e-9)


W = np.array([[1, -2], [0, 3], [-0.5, 0.25]])


def test_regularizers():
    penalties = [L1()(W), L2()(W), L1L2()(W), L1L2(0.1, 0.2)(W), L1(0.5)(W), L2(0.5)(W)]
    assert penalties == pytest.approx([0.0675, 0.143125, 0, 3.5375, 3.375, 7.15625])


@pytest.mark.parametrize(
    "limit, first, second", [(0.5, 0.4472135, 0.4150287), (2.0, 1, 1.660115), (10.0, 1, 3)]
)
def test_max_norm(limit, first, second):
    weight = constraints.MaxNorm(limit)(W)
    assert (weight[0, 0], weight[1, 1]) == (pytest.approx(first), pytest.approx(second))


X = np.array([[-2, -0.5, 0, 0.5, 1, 6, 8]], np.float32)


def output(layer, x=X, training=False):
    return Sequential([Input(x.shape[1:]), layer], seed=0)(x, training=training)


@pytest.mark.parametrize(
    "layer, expected",
    [
        (ReLU(max_value=6), [0, 0, 0, 0.5, 1, 6, 6]),
        (ReLU(negative_slope=0.2), [-0.4, -0.1, 0, 0.5, 1, 6, 8]),
        (ReLU(threshold=1), [0, 0, 0, 0, 0, 6, 8]),
        (ReLU(6, negative_slope=0.5, threshold=1), [-1.5, -0.75, -0.5, -0.25, 0, 6, 6]),
        (LeakyReLU(), [-0.6, -0.15, 0, 0.5, 1, 6, 8]),
        (LeakyReLU(0.1), [-0.2, -0.05, 0, 0.5, 1, 6, 8]),
        (Activation("elu"), [-0.8646647, -0.3934693, 0, 0.5, 1, 6, 8]),  # minidl has no layer ELU(alpha)
        (layers.Rescaling(0.5, -1), [-2, -1.25, -1, -0.75, -0.5, 2, 3]),
    ],
)
def test_layers(layer, expected):
    np.testing.assert_allclose(output(layer), [expected], rtol=1e-6)


def test_dense_flatten_and_random_layers():
    layer = Dense(2, kernel_initializer="ones", bias_initializer=initializers.Constant(0.5))
    np.testing.assert_allclose(output(layer, np.array([[1, 2, 3]], np.float32)), [[6.5, 6.5]])
    images = np.arange(12, dtype=np.float32).reshape(1, 2, 3, 2)
    assert np.array_equal(output(Flatten(), images), [np.arange(12)])
    ones = np.ones((200, 50), np.float32)
    dropped = output(layers.Dropout(0.25), ones, True)
    np.testing.assert_allclose(np.unique(dropped), [0, 1 / 0.75], rtol=1e-6)
    assert (dropped == 0).mean() == pytest.approx(0.25, abs=0.02)
    assert output(layers.GaussianNoise(0.5), ones, True).std() == pytest.approx(0.5, abs=0.02)
    for layer in (layers.Dropout(0.25), layers.GaussianNoise(0.5)):
        assert np.array_equal(output(layer, ones), ones)


def small(optimizer="sgd"):
    model = Sequential([Input((3,)), Dense(4, "relu"), Dense(2)], seed=0)
    model.compile(optimizer, "mse")
    return model


@pytest.mark.parametrize(
    "settings, series, stopped, best",
    [  # the epoch that stopped (0: none) and the best one, both from 0
        ({"patience": 1}, [3, 2, 2, 1], 2, 1),
        ({"patience": 2}, [3, 2, 2, 1, 1, 1], 5, 3),
        ({"patience": 1, "min_delta": 0.5}, [3, 2.7, 2.6, 2.4], 1, 0),
        ({"patience": 2, "baseline": 1.0}, [3, 2, 1.5, 1.2], 0, 3),
        ({"patience": 1, "start_from_epoch": 2}, [1, 2, 3, 3, 3], 3, 2),
        ({"patience": 2, "mode": "max"}, [1, 3, 2, 2, 2], 3, 1),
        ({"patience": 0}, [1, 1, 1], 1, 0),
    ],
)
def test_early_stopping(settings, series, stopped, best):
    callback, model = callbacks.EarlyStopping("loss", **{"mode": "min", **settings}), small()
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, value in enumerate(series):
        callback.on_epoch_end(epoch, {"loss": value})
        if model.stop_training:
            break
    assert (callback.stopped_epoch, callback.best_epoch) == (stopped, best)


@pytest.mark.parametrize(
    "settings, series, rates",
    [  # the rate after each epoch, from 1
        ({"patience": 1}, [1, 1, 1, 0.5], [1, 0.5, 0.25, 0.25]),
        ({"patience": 2}, [1, 1, 1, 1, 1], [1, 1, 0.5, 0.5, 0.25]),
        ({"patience": 1, "cooldown": 2}, [1] * 6, [1, 0.5, 0.5, 0.25, 0.25, 0.125]),
        ({"patience": 1, "min_lr": 0.3}, [1] * 4, [1, 0.5, 0.3, 0.3]),
        ({"patience": 1, "min_delta": 0.2}, [1, 0.9, 0.7], [1, 0.5, 0.5]),
        ({"patience": 1, "mode": "max"}, [1, 2, 1], [1, 1, 0.5]),
    ],
)
def test_reduce_on_plateau(settings, series, rates):
    callback = callbacks.ReduceLROnPlateau("loss", factor=0.5, **{"mode": "min", **settings})
    model = small(optimizers.SGD(1.0))
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, (value, rate) in enumerate(zip(series, rates, strict=True)):
        callback.on_epoch_end(epoch, {"loss": value})
        assert model.optimizer.learning_rate == pytest.approx(rate)


def trained(callback, optimizer="sgd"):
    model = small(optimizer)
    x = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    return model, model.fit(x, x[:, :2], epochs=3, verbose=0, callbacks=[callback]).history


def test_callbacks_in_fit(tmp_path, capsys):
    model, history = trained(callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2))
    assert history["learning_rate"] == [0.005, 0.0025, 0.00125]
    model, history = trained(callbacks.CSVLogger(tmp_path / "log.csv", separator=";"))
    with open(tmp_path / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert [float(row["loss"]) for row in rows] == pytest.approx(history["loss"])
    best = callbacks.ModelCheckpoint(tmp_path / "{epoch:02d}.npz", "loss", mode="max", save_best_only=True)
    model, history = trained(best)
    assert history["loss"][0] == max(history["loss"]) == best.best
    assert sorted(path.name for path in tmp_path.glob("*.npz")) == ["01.npz"]
    assert models.load_model(tmp_path / "01.npz").epoch == 1
    # Keras keeps the NaN; minidl goes back to the step before
    model, history = trained(callbacks.TerminateOnNaN(), optimizers.SGD(1e30))
    assert len(history["loss"]) == 2 and np.isfinite(model.params).all()
    assert "terminating training" in capsys.readouterr().out


def test_a_rate_at_its_minimum_to_rounding_is_not_reduced(capsys):
    """As in Keras, which compares in float32: 0.001 and a rate a last bit above it are one."""
    callback = callbacks.ReduceLROnPlateau("loss", patience=1, min_lr=1e-3, mode="max", cooldown=5, verbose=1)
    model, _ = trained(callback, optimizers.SGD(1e-3 * (1 + 1e-12)))
    assert model.optimizer.learning_rate == 1e-3 * (1 + 1e-12) and capsys.readouterr().out == ""


@pytest.mark.parametrize("target, loss", [(0, 0), (1, 5), (0.5, 0.75), (1.6, 2.56), (2, 4), (-1, 1)])
def test_class_weight_of_one_output(target, loss):
    """Keras rounds targets to classes; those without a weight count once. Weights 3 of class 0 and 5 of class 1."""
    model = Sequential([Input((3,)), Dense(1, kernel_initializer="zeros")])
    model.compile(optimizers.SGD(0), "mse")
    targets, weight = np.full((4, 1), target, float), {0: 3.0, 1: 5.0}
    history = model.fit(np.ones((4, 3)), targets, class_weight=weight, epochs=1, verbose=0).history
    assert history["loss"] == pytest.approx([loss])


def test_sequential(capsys):
    model = Sequential(name="net")
    model.add(Flatten())
    for layer in (Dense(3, "relu", name="hidden"), Dense(2, "softmax", name="out", use_bias=False)):
        model.add(layer)
    assert not model.built
    model.build((None, 2, 2))
    assert model.built and model.input_shape == (2, 2) and model.output_shape == (2,)
    assert [weight.shape for weight in model.get_weights()] == [(4, 3), (3,), (3, 2)]
    assert model.count_params() == 21 and model.get_layer("hidden") is model.layers[1]
    model.summary()
    text = capsys.readouterr().out
    assert "net" in text and "hidden" in text and "21" in text
    again = Sequential.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    again.set_weights(model.get_weights())
    assert np.array_equal(again(np.ones((2, 2, 2))), model(np.ones((2, 2, 2))))
    clone = models.clone_model(model)
    assert [layer.name for layer in clone.layers] == [layer.name for layer in model.layers]
    assert not np.array_equal(clone.get_weights()[0], model.get_weights()[0])
