"""A loss that is a function of the user's, ``(y_true, y_pred) -> (value, gradient)``: proven, used, saved, refused."""

import copy
import pickle

import numpy as np
import pytest

from minidl import Dense, Sequential, losses, optimizers
from minidl.gradcheck import check_gradients
from minidl.models import clone_model, load_model

RNG = np.random.default_rng(1)
X = RNG.normal(size=(40, 4)).astype("f4")
Y, LABELS, WEIGHT = RNG.normal(size=(40, 3)).astype("f4"), RNG.integers(0, 3, 40), RNG.uniform(size=40)


def squared(y_true, y_pred):
    e = y_pred - y_true
    return (e**2).mean(), 2 * e / e.size


def squared_each(y_true, y_pred):
    e = y_pred - y_true
    return (e**2).mean(axis=1), 2 * e / e.shape[1]


def crossentropy_each(labels, probs):
    at = np.arange(len(probs)), labels
    gradient = np.zeros_like(probs)
    gradient[at] = -1 / probs[at]
    return -np.log(probs[at]), gradient


def absolute_in_place(y_true, y_pred):
    y_pred -= y_true
    return abs(y_pred).mean(), np.sign(y_pred) / y_pred.size


def in_single(y_true, y_pred):
    e = y_pred.astype("f4") - y_true.astype("f4")
    return float((e**2).mean()), 2 * e / np.float32(e.size)


def backwards(y_true, y_pred):
    value, gradient = squared(y_true, y_pred)
    return value, -gradient


def unscaled(y_true, y_pred):
    value, gradient = squared(y_true, y_pred)
    return value, gradient * y_pred.size


def wrong_at_the_labels(labels, probs):
    value, gradient = crossentropy_each(labels, probs)
    return value, 1.01 * gradient


def network(loss, final="linear", metrics=None):
    model = Sequential([Dense(6, "tanh", input_shape=(4,)), Dense(3, final)], seed=3)
    model.compile(optimizers.Adam(0.01), loss, metrics)
    return model


@pytest.mark.parametrize(
    ("own", "built_in", "final", "y", "weight"),
    [
        (squared, "mse", "linear", Y, None),
        (in_single, "mse", "linear", Y, None),
        (squared_each, "mse", "linear", Y, None),
        (squared_each, "mse", "softmax", Y, WEIGHT),
        (absolute_in_place, "mae", "linear", Y, None),
        (crossentropy_each, "sparse_categorical_crossentropy", "softmax", LABELS, WEIGHT),
    ],
)
def test_it_trains_as_the_built_in_loss_does(own, built_in, final, y, weight):
    models = network(own, final, ["accuracy"]), network(built_in, final, ["accuracy"])
    given = dict(sample_weight=weight, verbose=0)
    histories = [
        model.fit(X, y, epochs=3, batch_size=16, validation_split=0.2, **given).history for model in models
    ]
    assert list(histories[0]) == list(histories[1]) == ["loss", "accuracy", "val_loss", "val_accuracy"]
    for name in histories[0]:
        np.testing.assert_allclose(histories[0][name], histories[1][name], rtol=1e-4)
    np.testing.assert_allclose(models[0].params, models[1].params, rtol=1e-3, atol=1e-5)
    values = [model.evaluate(X, y, **given) for model in models]
    np.testing.assert_allclose(*values, rtol=1e-4)
    values = [model.train_on_batch(X[:8], y[:8], None if weight is None else weight[:8]) for model in models]
    np.testing.assert_allclose(*values, rtol=1e-4)


def test_it_is_called_as_other_losses_are():
    loss = losses.get(squared_each)
    assert loss(Y, Y + 2) == pytest.approx(4) and loss.name == "squared_each"
    assert loss(Y, Y + 2, WEIGHT) == pytest.approx(4 * WEIGHT.mean())
    value, gradient = losses.get(squared).value_and_grad(Y + 2, Y)
    assert value == pytest.approx(4) and gradient.dtype == np.float32
    np.testing.assert_allclose(gradient, 4 / Y.size, rtol=1e-5)
    assert losses.get(squared)([1.0, 2.0], [1.0, 4.0]) == 2.0
    check_gradients(network(squared_each), X[:5], Y[:5])
    model = network(None)
    assert check_gradients(model, X[:5], Y[:5], squared) < 1e-6


@pytest.mark.parametrize("wrong", [backwards, unscaled, wrong_at_the_labels])
def test_a_wrong_gradient_is_refused_with_its_entry(wrong):
    final, y = ("softmax", LABELS) if wrong is wrong_at_the_labels else ("linear", Y)
    model = network(wrong, final)
    model.epoch = 2
    before = model.params.copy()
    message = (
        rf"gradient of loss {wrong.__name__} is wrong at \[\d+, \d\]: expected -?[\d.e-]+, .* got -?[\d.e-]+"
    )
    for call in (model.fit, model.evaluate, model.train_on_batch):
        with pytest.raises(ValueError, match=message):
            call(X, y)
    assert np.array_equal(model.params, before) and (model.epoch, model.optimizer.iterations) == (2, 0)
    with pytest.raises(ValueError, match=message):
        losses.get(wrong)(y, np.full((40, 3), 0.25) + Y * (final == "linear"))


def test_a_function_that_is_changed_is_looked_at_again():
    loss = losses.get(squared)
    assert loss(Y, Y + 1) == pytest.approx(1)
    loss.function = backwards
    with pytest.raises(ValueError, match="is wrong at"):
        loss(Y, Y + 1)


def test_edges_of_the_domain_are_no_errors():
    """log(p) at probabilities near 0 and 1, and kinks: a right function is never refused."""
    pred = np.array([[1e-12, 1 - 2e-12, 1e-12], [1 - 2e-12, 1e-12, 1e-12], [0.3, 0.3, 0.4]])
    assert losses.get(crossentropy_each)([1, 0, 2], pred) == pytest.approx(-np.log(0.4) / 3)
    assert losses.get(absolute_in_place)(Y, Y) == 0
    diverged = losses.get(crossentropy_each)
    with np.errstate(divide="ignore"):
        assert diverged([0, 0], np.array([[0.0, 1, 0], [0.0, 1, 0]])) == np.inf
    assert diverged([1, 0, 2], pred) > 0  # and is looked at now


def raises(error, message, loss, fit=True, **options):
    with pytest.raises(error, match=message):
        model = network(loss)
        if fit:
            model.fit(X, Y, verbose=0, **options)


def test_refusals():
    only = (
        "must return .value, gradient., got only .*no autograd, so write the gradient of the value by y_pred"
    )
    raises(TypeError, only, lambda y, p: ((y - p) ** 2).mean())
    raises(TypeError, only, lambda y, p: ((y - p) ** 2).mean(axis=1))
    raises(TypeError, only, lambda y, p: None)
    raises(
        ValueError,
        r"must have the shape of y_pred, \(16, 3\), got an array of shape \(3,\)",
        lambda y, p: (1.0, p[0]),
    )
    raises(ValueError, r"must be a number or one a sample, shape \(16,\), got", lambda y, p: (p, p))
    raises(TypeError, r"must be a function of \(y_true, y_pred\): too many", lambda y: y, fit=False)
    weighted = "need one value a sample, but loss squared returns a mean"
    raises(ValueError, weighted, squared, sample_weight=WEIGHT)
    raises(ValueError, weighted, squared, class_weight={0: 2.0})
    raises(ValueError, "y must have shape", squared, validation_data=(X, Y[:, :2]))


def test_it_is_saved_by_its_name(tmp_path):
    model = network(squared_each)
    model.fit(X, Y, verbose=0)
    path = tmp_path / "model.npz"
    model.save(path)
    with pytest.raises(ValueError, match=r"pass custom_objects=\{'squared_each': squared_each\}"):
        load_model(path)
    again = load_model(path, {"squared_each": squared_each})
    copies = [again, copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for one in (model, *copies):
        one.fit(X, Y, epochs=2, initial_epoch=1, verbose=0)
        assert one.loss.function is squared_each and np.array_equal(one.params, model.params)
    assert clone_model(model).loss is None
    model.compile("sgd", lambda y, p: squared(y, p))
    with pytest.raises(TypeError, match="cannot be saved: it is found again by its name"):
        model.save(path)


def test_a_name_of_minidl_s_own_stays_the_user_s(tmp_path):
    def huber(y_true, y_pred):
        return squared(y_true, y_pred)

    model = network(huber)
    model.save(tmp_path / "model.npz")
    with pytest.raises(ValueError, match="huber is a function of your own"):
        load_model(tmp_path / "model.npz")
    assert load_model(tmp_path / "model.npz", {"huber": huber}).loss.function is huber
