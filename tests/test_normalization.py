"""Batch and layer normalisation, and PReLU: values, gradients, moving averages, both ways of running."""

import copy
import pickle
from pathlib import Path

import numpy as np
import parity_cases as cases
import pytest
import reference
from test_layers import DTYPES, assert_gradients, ready
from test_memory_safety import Fences

import minidl
from minidl.callbacks import EarlyStopping, LambdaCallback, TerminateOnNaN
from minidl.constraints import MaxNorm
from minidl.gradcheck import GradientError
from minidl.initializers import Constant
from minidl.kernels import featurewise, program
from minidl.kernels.matmul import Block
from minidl.kernels.thread_choice import ThreadChoice
from minidl.layers import (
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    Layer,
    LayerNormalization,
    PReLU,
    Softmax,
)
from minidl.models import Sequential, clone_model, load_model
from minidl.optimizers import SGD, Adam, AdamW
from minidl.regularizers import L2
from minidl.training import compiled as compiled_steps

GOLDEN = Path(__file__).parent / "golden" / "parity.npz"
SPARSE = "sparse_categorical_crossentropy"
SAMPLES, BATCH = 50, 16  # the last batch has 2 rows
rng = np.random.default_rng(3)
X = rng.standard_normal((SAMPLES, 12)).astype("f4")
Y = rng.integers(0, 4, SAMPLES)


def nets():
    def usual():
        first = [Dense(20, input_shape=(12,)), BatchNormalization(), Activation("relu")]
        return [*first, Dense(40), BatchNormalization(momentum=0.5), Activation("tanh"), Dense(4, "softmax")]

    def rows():
        first = [Dense(20, input_shape=(12,)), LayerNormalization(), Activation("gelu")]
        return [*first, Dense(40), PReLU("ones"), LayerNormalization(center=False), Dense(4, "softmax")]

    def mixed(wide=300, narrow=70):
        first = [Dense(wide), BatchNormalization(center=False, scale=False), PReLU(), Dropout(0.2)]
        end = [Dense(narrow, "silu"), LayerNormalization(scale=False), Dense(4, "softmax")]
        return [BatchNormalization(input_shape=(12,)), *first, *end]

    def frozen():
        first = [BatchNormalization(input_shape=(12,), gamma_regularizer=L2(0.1)), Dense(30, trainable=False)]
        return [*first, BatchNormalization(trainable=False), Dense(4, "softmax")]

    def last():
        constrained = BatchNormalization(gamma_constraint=MaxNorm(0.5), beta_regularizer=L2(0.1))
        return [Dense(4, input_shape=(12,)), PReLU(alpha_regularizer=L2(0.1)), constrained, Softmax()]

    return {net.__name__: net for net in (usual, rows, mixed, frozen, last)}


NETS = nets()


def train(layers, dtype="float32", layerwise=False, optimizer=lambda: Adam(0.01), **fit):
    model = Sequential(layers(), dtype=dtype, seed=5)
    model.compile(optimizer(), SPARSE, ["accuracy"])
    if layerwise:
        model.ops = lambda training=False, logits=False: None
    history = model.fit(X, Y, **{"batch_size": BATCH, "epochs": 3, "verbose": 0} | fit)
    return model, history.history


def with_threads(number, *arguments, **more):
    before = minidl.get_num_threads()
    try:
        minidl.set_num_threads(number)
        return train(*arguments, **more)
    finally:
        minidl.set_num_threads(before)


def same(first, second):
    return np.array_equal(first[0].params, second[0].params) and first[1] == second[1]


# -- values and gradients of the layers --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows, features", [(1, 3), (2, 1), (5, 16), (33, 70)])
def test_values_follow_the_naive_formulas(dtype, rows, features):
    x = (100 + rng.standard_normal((rows, features))).astype(dtype)
    tolerance = {"rtol": 2e4 * np.finfo(dtype).eps, "atol": 2e4 * np.finfo(dtype).eps}
    batch = ready(BatchNormalization(epsilon=0.01), (features,), dtype)
    out, mean, variance = reference.batch_normalization(x.astype("f8"), batch.gamma, batch.beta, 0.01)
    before = batch.moving_mean.copy(), batch.moving_variance.copy()
    np.testing.assert_allclose(batch.forward(x, training=True), out, **tolerance)
    for moving, old, now in zip(batch.weights[2:], before, (mean, variance), strict=True):
        np.testing.assert_allclose(moving, old * 0.99 + now * 0.01, **tolerance)
    batch.moving_variance[...] = 4.0
    expected = (x - batch.moving_mean) / np.sqrt(4.01) * batch.gamma + batch.beta
    np.testing.assert_allclose(batch.forward(x), expected, **tolerance)
    row = ready(LayerNormalization(epsilon=0.01), (features,), dtype)
    out = reference.layer_normalization(x.astype("f8"), row.gamma, row.beta, 0.01)
    np.testing.assert_allclose(row.forward(x), out, **tolerance)
    ramp = ready(PReLU(), (features,), dtype)
    np.testing.assert_allclose(ramp.forward(x - 100), reference.prelu(x - 100, ramp.alpha), **tolerance)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(5,), (3, 4)])
@pytest.mark.parametrize(
    "layer",
    [
        lambda: BatchNormalization(),
        lambda: BatchNormalization(center=False, epsilon=0.1),
        lambda: BatchNormalization(scale=False),
        lambda: LayerNormalization(),
        lambda: LayerNormalization(scale=False, center=False),
        lambda: PReLU(),
    ],
)
def test_gradients_by_differences(layer, shape, training):
    layer = ready(layer(), shape)
    if isinstance(layer, BatchNormalization):
        layer.moving_variance[...] = 1.5
        parameters, layer.parameters = layer.parameters, layer.parameters[:-2]  # no gradient of the averages
        names = [parameter.name for parameter in layer.parameters]
        layer.parameters = parameters
        frozen = layer.moving_mean.copy(), layer.moving_variance.copy()
        x, dout = rng.standard_normal((4, *shape)), rng.standard_normal((4, *shape))

        def value():
            layer.moving_mean[...], layer.moving_variance[...] = frozen
            return (layer.forward(x, training=training) * dout).sum()

        value()
        got = [layer.backward(dout), *(getattr(layer, f"d{name}").copy() for name in names)]
        for gradient, array in zip(got, [x, *(getattr(layer, name) for name in names)], strict=True):
            expected = np.empty_like(array)
            for index in np.ndindex(array.shape):
                kept, sides = array[index], []
                for step in (1e-5, -1e-5):
                    array[index] = kept + step
                    sides.append(value())
                array[index] = kept
                expected[index] = (sides[0] - sides[1]) / 2e-5
            np.testing.assert_allclose(gradient, expected, rtol=1e-6, atol=1e-7)
    else:
        x = rng.standard_normal((4, *shape))
        assert_gradients(layer, np.where(abs(x) < 0.01, 0.5, x), training=training)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("net", NETS)
def test_gradients_in_a_net(net, training):
    sizes = (20, 18) if net == "mixed" else ()  # every entry costs two passes forward
    model = Sequential(NETS[net](*sizes), dtype="float64", seed=2)
    model.params[...] += 0.1 * np.random.default_rng(0).random(model.params.size)
    x = X[:6].astype("f8")
    before = model.params.copy()
    minidl.check_gradients(model, x, Y[:6], SPARSE, training=training)
    assert np.array_equal(model.params, before)  # averages as well


def test_a_backward_that_forgets_the_batch_is_caught():
    class Forgets(BatchNormalization):
        def backward(self, dout):
            super().backward(dout)
            return dout * self.gamma / np.sqrt(self._x.var(axis=0) + self.epsilon)

    class SumsNothing(PReLU):
        def backward(self, dout):
            dx = super().backward(dout)
            self.dalpha[...] = dout.mean(axis=0)
            return dx

    for wrong, name in ((Forgets(), "bias"), (SumsNothing(), "alpha")):
        model = Sequential([Dense(5, input_dim=12), wrong, Dense(4, "softmax")], dtype="float64", seed=1)
        assert model.ops() is None  # a subclass with a backward of its own runs layer by layer
        with pytest.raises(GradientError, match=name if name == "alpha" else "dense"):
            minidl.check_gradients(model, X[:6], Y[:6], SPARSE)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", featurewise.FEATUREWISE)
def test_no_kernel_leaves_its_arrays(name, dtype):
    fenced, row = Fences(), featurewise.FEATUREWISE[name]
    for rows, n in [(1, 1), (3, 5), (5, 16), (7, 17), (12, 20), (3, 70)]:
        x, dout = (rng.standard_normal((rows, n)).astype(dtype) for _ in range(2))
        f, kept = np.array([0.001, 0.9]), np.ones(row.kept(rows, n), dtype)
        for size in (n, 0):
            gamma = rng.standard_normal(size).astype(dtype)
            for left, right in {(0, n), (0, min(n, 16)), (min(n - 1, 16), n)}:
                block, part = Block(0, rows, left, right), np.zeros(right - left if size else 0, dtype)
                out, averages = np.zeros_like(x), np.ones(2 * n, dtype)
                fenced(featurewise.FORWARD[name], out, x, gamma, gamma.copy(), kept, f, block)
                featurewise.FORWARD[name](out, x, gamma, gamma, kept, f, block)
                fenced(featurewise.BACKWARD[name], out, dout, x, gamma, kept, f, block)
                for moving in (averages, averages[:0]):
                    arrays = part, part.copy() if name != "PRELU" else part[:0], moving
                    fenced(featurewise.GRADIENTS[name], *arrays, dout, x, kept, f, block)


# -- both ways of running, threads, parts ------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", [Adam, lambda: AdamW(0.01, weight_decay=0.1, global_clipnorm=0.1)])
@pytest.mark.parametrize("net", NETS)
def test_both_ways_and_any_number_of_threads_end_with_the_same_bits(net, optimizer, dtype, all_threads):
    expected = train(NETS[net], dtype, layerwise=True, optimizer=optimizer)
    assert np.isfinite(expected[0].params).all()
    for number in (1, 2, 3) if dtype == "float32" else (2,):
        found = with_threads(number, NETS[net], dtype, optimizer=optimizer)
        assert found[0].ops(training=True) is not None
        assert same(found, expected)
    assert np.array_equal(found[0].predict(X), expected[0].forward(X.astype(dtype)))
    assert not np.array_equal(Sequential(NETS[net](), dtype=dtype, seed=5).params, found[0].params)


@pytest.mark.parametrize("batch_size", [1, 7, 50])
def test_batches_of_any_size(batch_size, all_threads):
    expected = train(NETS["mixed"], layerwise=True, batch_size=batch_size)
    for number in (1, 2):
        assert same(with_threads(number, NETS["mixed"], batch_size=batch_size), expected)


@pytest.mark.parametrize("net", ["usual", "rows", "mixed"])
def test_a_long_step_is_split_only_where_rows_do_not_depend_on_each_other(monkeypatch, net, all_threads):
    expected, parts = train(NETS[net]), []
    monkeypatch.setattr(compiled_steps, "_PART_FLOPS", 1.0)
    monkeypatch.setattr(compiled_steps, "_PART_ROWS", 5)
    made = program.Part
    monkeypatch.setattr(program, "Part", lambda *rows: parts.append(rows) or made(*rows))
    assert same(with_threads(2, NETS[net]), expected)
    assert ((0, 5, False) in parts) == (net == "rows")


def test_slices_that_end_anywhere_change_no_bit(monkeypatch, all_threads):
    expected = train(NETS["usual"])
    counts = iter([1, 3, 2, 2, 1] * 10_000)
    monkeypatch.setattr(ThreadChoice, "next", lambda self, most: (min(most, next(counts)), 0.0))
    assert same(with_threads(3, NETS["usual"]), expected)
    every = LambdaCallback(on_train_batch_end=lambda batch, logs: None)
    assert same(train(NETS["usual"], callbacks=[every]), expected)


def test_what_an_earlier_fit_left_in_memory_does_not_matter():
    compiled_steps._kept.clear()
    expected = train(NETS["mixed"])
    for memory in compiled_steps._kept.values():
        for array in (*memory.buffers, *memory.panels):
            array[...] = np.nan if array.dtype.kind == "f" else 1
    assert same(train(NETS["mixed"]), expected)


# -- moving averages ---------------------------------------------------------------------------------------


def test_averages_follow_each_batch_and_weights_stand_in_keras_order():
    model = Sequential([BatchNormalization(input_shape=(12,), momentum=0.9), Dense(4, "softmax")], seed=1)
    layer = model.layers[0]
    names = [parameter.name for parameter in layer.parameters]
    assert names == ["gamma", "beta", "moving_mean", "moving_variance"]
    assert [weight.tolist()[0] for weight in model.get_weights()[:4]] == [1, 0, 0, 1]
    model.compile(SGD(0.0), SPARSE)
    model.fit(X, Y, batch_size=BATCH, epochs=2, shuffle=False, verbose=0, sample_weight=rng.random(SAMPLES))
    mean, variance = np.zeros(12), np.ones(12)
    for first in [*range(0, SAMPLES, BATCH)] * 2:
        rows = X[first : first + BATCH].astype("f8")
        mean = 0.9 * mean + 0.1 * rows.mean(axis=0)
        variance = 0.9 * variance + 0.1 * rows.var(axis=0)  # biased
    np.testing.assert_allclose(layer.moving_mean, mean, atol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, variance, rtol=1e-5)
    assert [len(views) for views in (model.trainable_weights, model.non_trainable_weights)] == [4, 2]


@pytest.mark.parametrize("layerwise", [False, True])
@pytest.mark.parametrize(
    "optimizer",
    [
        lambda: AdamW(0.01, weight_decay=0.5),
        lambda: SGD(0.1, weight_decay=0.5, clipvalue=1e-3),
        lambda: SGD(0.0, momentum=0.9, global_clipnorm=1e-3),
    ],
)
def test_only_batches_move_the_averages(optimizer, layerwise):
    def averages(optimizer, **settings):
        layers = [BatchNormalization(input_shape=(12,), **settings), Dense(4, "softmax")]
        model, _ = train(lambda: layers, optimizer=optimizer, layerwise=layerwise)
        return np.array(model.layers[0].weights[-2:])

    found = averages(optimizer, beta_regularizer=L2(0.3), gamma_constraint=MaxNorm(0.1))
    assert np.array_equal(found, averages(lambda: SGD(0.0)))
    assert not np.array_equal(found, averages(lambda: SGD(0.0), momentum=0.98))


def test_a_frozen_layer_uses_its_averages_and_keeps_them(all_threads):
    def frozen():
        first = [Dense(6, input_dim=12), BatchNormalization(trainable=False)]
        return [*first, Dense(4, "softmax")]

    found = [train(frozen, layerwise=True), *(with_threads(number, frozen) for number in (1, 2))]
    for model, _ in found:
        assert same((model, 0), (found[0][0], 0))
        gamma, beta, mean, variance = model.layers[1].weights
        assert (mean == 0).all() and (variance == 1).all() and (gamma == 1).all() and (beta == 0).all()
    model = found[0][0]
    x = X[:5]
    assert np.array_equal(model.forward(x, training=True), model.forward(x))
    model.layers[1].trainable = True
    assert not np.array_equal(model.forward(x, training=True), model.forward(x))
    assert [entry.trainable for entry in model.layers[1].parameters] == [True, True, False, False]


def test_a_layer_frozen_by_a_callback_stops_to_move_in_both_ways():
    def run(layerwise):
        def freeze(epoch, logs):
            callback.model.layers[1].trainable = epoch == 1

        callback = LambdaCallback(on_epoch_begin=freeze)
        return train(NETS["usual"], layerwise=layerwise, callbacks=[callback])

    assert same(run(False), run(True))


def test_inference_and_teachers_move_nothing():
    model, _ = train(NETS["usual"])
    before = model.params.copy()
    model.predict(X), model.evaluate(X, Y, verbose=0), model(X)
    student = Sequential([Dense(4, "softmax", input_dim=12)], seed=1)
    student.compile("adam", SPARSE)
    student.fit(X, Y, target_model=model, temperature=2.0, hard_weight=0.5, soft_weight=0.5, verbose=0)
    assert np.array_equal(model.params, before)
    logits = model.forward(X, logits=True)
    np.testing.assert_array_equal(model.predict_logits(X), logits)
    model(X, training=True)
    assert not np.array_equal(model.params, before)


def test_a_batch_of_one_row_has_variance_0():
    layer = ready(BatchNormalization(momentum=0.5), (3,))
    layer.moving_mean[...], layer.moving_variance[...] = 0.0, 1.0
    x = np.array([[1e6, -3.0, 0.1]])
    assert np.array_equal(layer.forward(x, training=True), layer.beta[None])
    assert layer.moving_mean.tolist() == (x[0] / 2).tolist() and layer.moving_variance.tolist() == [0.5] * 3
    assert not layer.backward(np.ones((1, 3))).any()


def test_no_rows_move_nothing():
    layer = ready(BatchNormalization(), (3,))
    before = [weight.copy() for weight in layer.weights]
    assert layer.forward(np.zeros((0, 3)), training=True).shape == (0, 3)
    assert all(np.array_equal(*pair) for pair in zip(before, layer.weights, strict=True))


# -- steps that are undone, files, copies ------------------------------------------------------------------


class Fails(Layer):
    """Raises in its backward."""

    def forward(self, x, training=False):
        return x

    def backward(self, dout):
        raise OverflowError("no")


def test_a_step_that_fails_moves_no_average():
    model = Sequential([Dense(6, input_dim=12), Fails(), BatchNormalization(), Dense(4, "softmax")], seed=1)
    model.compile("adam", SPARSE)
    before = model.params.copy()
    with pytest.raises(OverflowError):
        model.fit(X, Y, verbose=0)
    assert np.array_equal(model.params, before)


@pytest.mark.parametrize("restore", [True, False])
def test_a_step_that_is_not_finite_is_undone_with_its_averages(restore):
    x = X.copy()
    x[20] = 3e38
    found = []
    for layerwise in (False, True):
        model = Sequential(NETS["usual"](), seed=5)
        model.compile(Adam(0.01), SPARSE)
        if layerwise:
            model.ops = lambda training=False, logits=False: None
        stop = [TerminateOnNaN(restore=restore)]
        model.fit(x, Y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=stop)
        found.append(model)
    first = Sequential(NETS["usual"](), seed=5)
    first.compile(Adam(0.01), SPARSE)
    first.fit(X[:BATCH], Y[:BATCH], batch_size=BATCH, shuffle=False, verbose=0)
    for model in found:
        if restore:
            assert np.array_equal(model.params, first.params)
        else:
            assert not np.isfinite(model.params).all()


def test_saved_copied_and_resumed_models_have_their_averages(tmp_path):
    whole, _ = train(NETS["usual"], epochs=4)
    model, _ = train(NETS["usual"], epochs=2)
    model.save(tmp_path / "m.npz")
    for other in (load_model(tmp_path / "m.npz"), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(other.params, model.params)
        other.fit(X, Y, batch_size=BATCH, epochs=4, initial_epoch=2, verbose=0)
        assert np.array_equal(other.params, whole.params)
    fresh = clone_model(model)
    fresh.set_weights(model.get_weights())
    assert np.array_equal(fresh.predict(X), model.predict(X))


def test_the_best_weights_have_their_averages():
    kept = {}
    stop = EarlyStopping(monitor="loss", mode="max", patience=1, restore_best_weights=True)
    model = Sequential(NETS["usual"](), seed=5)
    model.compile(Adam(0.01), SPARSE)
    keep = LambdaCallback(on_epoch_end=lambda epoch, logs: kept.setdefault(epoch, model.params.copy()))
    model.fit(X, Y, batch_size=BATCH, epochs=5, verbose=0, callbacks=[keep, stop])
    assert np.array_equal(model.params, kept[0]) and len(kept) > 1


def test_configs_and_settings():
    layer = BatchNormalization(
        1, 0.5, 0.01, False, True, "ones", "zeros", "ones", "zeros", "l2", L2(0.1), None, MaxNorm(1.0)
    )
    again = BatchNormalization.from_config(layer.get_config())
    assert again.get_config() == layer.get_config() and again.axis == 1 and again.momentum == 0.5
    assert BatchNormalization().get_config()["momentum"] == 0.99
    assert LayerNormalization([-1]).axis == -1 and LayerNormalization().epsilon == 1e-3
    model = Sequential([BatchNormalization(input_shape=(3,)), PReLU(), Dense(2)])
    model.layers[0].gamma_regularizer = L2(0.5)
    assert model.penalty() == 1.5
    with pytest.raises(AttributeError, match="momentum is 0.99 since the layer was built"):
        model.layers[0].momentum = 0.5
    lines = []
    model.summary(print_fn=lines.append)
    assert [line.split(" (")[0] for line in lines[-3:]] == [
        "Total params: 23",
        "Trainable params: 17",
        "Non-trainable params: 6",
    ]


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: BatchNormalization(synchronized=True), "synchronized must be False, got True"),
        (lambda: BatchNormalization(renorm=True), "renorm must be False, got True"),
        (lambda: LayerNormalization(rms_scaling=True), "rms_scaling must be False, got True"),
        (lambda: LayerNormalization(axis=[1, 2]), r"axis must be -1, the last, got \[1, 2\]"),
        (lambda: PReLU(shared_axes=[1]), r"shared_axes must be None, got \[1\]"),
        (lambda: BatchNormalization(momentum=1.5), "momentum must be"),
        (lambda: BatchNormalization(epsilon=-1), "epsilon must be"),
        (lambda: BatchNormalization(axis="last"), "axis must be"),
        (lambda: BatchNormalization(center=2), "center must be"),
        (lambda: BatchNormalization(gamma_initializer="onse"), "onse"),
        (lambda: BatchNormalization(axis=1, input_shape=(3, 4)).build((3, 4)), "axis of layer .* must be -1"),
        (lambda: LayerNormalization(axis=-2).build((3,)), "axis of layer .* must be -1"),
    ],
)
def test_what_is_not_known_is_refused_by_name(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


# -- against Keras -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, changed",
    [
        ("batch normalization", {"momentum": 0.9001}),
        ("layer normalization", {"epsilon": 0.00102}),
        ("prelu", {"alpha_initializer": Constant(0.9999)}),
    ],
)
def test_trains_and_predicts_as_keras_does(name, changed):
    with np.load(GOLDEN, allow_pickle=False) as file:
        start = f"between/{name}/"
        expected = {key[len(start) :]: file[key] for key in file.files if key.startswith(start)}
    assert set(expected) == {"loss", "predictions", "weights"}
    found = cases.with_layers_between(minidl, name)
    assert cases.between_disagreement(found, expected) < cases.GRADIENT_TOLERANCE
    found = cases.with_layers_between(minidl, name, **changed)
    assert cases.between_disagreement(found, expected) > cases.GRADIENT_TOLERANCE
