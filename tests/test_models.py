"""Sequential: the flat vector and its views, building, compiling, one step against NumPy, bad input."""

import copy
import io
import pickle
import sys
import warnings

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st
from own_layers import Scale

from minidl import losses, optimizers, utils
from minidl.constraints import Constraint, MaxNorm
from minidl.layers import (
    Activation,
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    Input,
    RandomTranslation,
    Rescaling,
    Softmax,
)
from minidl.models import Sequential, clone_model
from minidl.regularizers import L2
from minidl.training.layerwise import layerwise_step
from minidl.training.samples import Samples
from minidl.training.tally import Tally


class HalfDense(Dense):
    """A built-in layer that computes something else: its operations would not tell."""

    def forward(self, x, training=False):
        return super().forward(x, training) * self.dtype.type(0.5)

    def backward(self, dout):
        return super().backward(dout * self.dtype.type(0.5))


def classifier(*, loss="sparse_categorical_crossentropy", optimizer="sgd", metrics=None, **kwargs):
    model = Sequential([Input((4,)), Dense(5, "relu"), Dense(3, "softmax")], seed=7, **kwargs)
    model.compile(optimizer, loss, metrics)
    return model


def data(rows=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 4)), rng.integers(0, 3, rows)


def state_of(model):
    return [
        model.params.copy(),
        model.epoch,
        model.optimizer and model.optimizer.iterations,
        len(model.layers),
    ]


def unchanged(model, before):
    after = state_of(model)
    return np.array_equal(before[0], after[0], equal_nan=True) and before[1:] == after[1:]


# -- the flat vector -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_view_one_flat_vector(dtype):
    model = classifier(dtype=dtype)
    assert model.params.dtype == model.grads.dtype == model.dtype == np.dtype(dtype)
    assert model.params.shape == model.grads.shape == (4 * 5 + 5 + 5 * 3 + 3,)
    assert model.params.ctypes.data % 64 == model.grads.ctypes.data % 64 == 0
    for layer in model.layers:
        for view, gradient in ((layer.weight, layer.dweight), (layer.bias, layer.dbias)):
            assert np.shares_memory(view, model.params) and np.shares_memory(gradient, model.grads)
    model.params[...] = np.arange(model.params.size)
    np.testing.assert_array_equal(np.concatenate([w.ravel() for w in model.weights]), model.params)
    model.layers[1].weight[2, 1] = -1
    assert model.params[25 + 2 * 3 + 1] == -1
    np.testing.assert_array_equal(model.segments, [[0, 20], [20, 5], [25, 15], [40, 3]])


def test_vectors_cannot_be_detached():
    model = classifier()
    with pytest.raises(AttributeError, match=r"write model.params\[...\] = value"):
        model.params = np.zeros(43)
    with pytest.raises(AttributeError, match=r"write model.grads\[...\] = value"):
        model.grads = np.zeros(43)
    before = model.params.copy()
    model.params *= 2
    np.testing.assert_array_equal(model.layers[0].weight.ravel(), 2 * before[:20])


def test_get_and_set_weights():
    model = classifier()
    weights = model.get_weights()
    assert [w.shape for w in weights] == [(4, 5), (5,), (5, 3), (3,)]
    weights[0][...] = 9.0
    assert not (model.layers[0].weight == 9.0).any()  # copies
    model.set_weights(weights)
    assert (model.layers[0].weight == 9.0).all()
    before = state_of(model)
    for bad, message in (
        (weights[:3], "weights must be 4 arrays, got 3"),
        ([*weights[:3], np.zeros(4)], r"weights\[3\] must have shape \(3,\), got \(4,\)"),
        ([*weights[:3], np.array(["a", "b", "c"])], r"weights\[3\] must hold real numbers"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            model.set_weights(bad)
    with pytest.raises(TypeError, match="weights must be a list of arrays"):
        model.set_weights(np.zeros(43))
    assert unchanged(model, before)


# -- building --------------------------------------------------------------------------------------


def test_initial_weights_follow_the_seed():
    first, second = classifier(), classifier()
    np.testing.assert_array_equal(first.params, second.params)
    other = Sequential([Input((4,)), Dense(5, "relu"), Dense(3, "softmax")], seed=8)
    assert not np.array_equal(first.params, other.params)
    assert (first.layers[0].bias == 0).all()
    limit = np.sqrt(6 / (4 + 5))
    assert abs(first.layers[0].weight).max() <= limit and first.layers[0].weight.std() > limit / 4
    # a layer's weights do not depend on what comes after it
    longer = Sequential([Input((4,)), Dense(5, "relu"), Dense(9), Dense(3)], seed=7)
    np.testing.assert_array_equal(longer.layers[0].weight, first.layers[0].weight)
    # two layers of one shape differ
    twins = Sequential([Input((4,)), Dense(4), Dense(4)], seed=7)
    assert not np.array_equal(twins.layers[0].weight, twins.layers[1].weight)


def test_global_seed():
    def draw():
        return [Sequential([Dense(3, input_dim=4)]).params.copy() for _ in range(2)]

    utils.set_random_seed(11)
    one, two = draw()
    assert not np.array_equal(one, two)
    utils.set_random_seed(11)
    again = draw()
    np.testing.assert_array_equal([one, two], again)


def test_adding_keeps_what_is_there():
    model = Sequential(seed=3)
    model.add(Dense(5, input_dim=4))
    model.layers[0].weight[...] = 2.0
    model.add(Dense(2))
    assert (model.layers[0].weight == 2.0).all() and model.params.size == 25 + 12
    assert model.input_shape == (4,) and model.output_shape == (2,)
    last = model.pop()
    assert model.params.size == 25 and (model.params[:20] == 2.0).all()
    assert last.weight.shape == (5, 2) and not np.shares_memory(last.weight, model.params)
    model.add(last)
    assert model.params.size == 37


def test_deferred_build():
    model = Sequential([Dense(5, "relu"), Dense(3, "softmax")], seed=7)
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert not model.built and model.output_shape is None and model.weights == []
    for call in (model.count_params, model.get_weights, lambda: model.save("x"), lambda: model.backward(0)):
        with pytest.raises(ValueError, match="needs a built model"):
            call()
    x, y = data()
    model.train_on_batch(x, y)
    assert model.built and model.input_shape == (4,)
    same = Sequential([Dense(5, "relu"), Dense(3, "softmax")], seed=7)
    same.build((None, 4))
    np.testing.assert_array_equal(same.params, classifier().params)


def test_a_refused_call_does_not_build():
    x, y = data()
    model = Sequential([Dense(5, "relu"), Dense(3, "softmax")], seed=7)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    nan = np.full((6, 9), np.nan)
    for call in (
        lambda: model.fit(nan, y),
        lambda: model.fit(np.ones((6, 9)), y + 7),
        lambda: model.fit(np.ones((6, 9)), y, batch_size=0),
        lambda: model.train_on_batch(np.ones((6, 9)), y[:2]),
        lambda: model.evaluate(np.ones((6, 9)), y, sample_weight="no"),
        lambda: model.predict(nan),
        lambda: model.predict(x, batch_size=0),
        lambda: model.predict(x, verbose=7),
        lambda: model.build((2, 2)),
    ):
        with pytest.raises((ValueError, TypeError)):
            call()
        assert not model.built and model.params.size == 0 and model.input_shape is None
        assert [layer.built for layer in model.layers] == [False, False]
    model.fit(x, y, verbose=0)
    assert model.predict(x).shape == model.predict_logits(x).shape == (6, 3)
    same = classifier(optimizer="adam", metrics=["accuracy"])
    same.fit(x, y, verbose=0)
    np.testing.assert_array_equal(model.params, same.params)


def test_input_layers_and_shapes():
    model = Sequential([Input((2, 3)), Flatten(), Dense(4)])
    assert [type(layer) for layer in model.layers] == [Flatten, Dense]
    assert model.forward(np.zeros((5, 2, 3))).shape == (5, 4)
    assert Sequential([Flatten(input_shape=(2, 3)), Dense(4)]).input_shape == (2, 3)
    assert Sequential([Input((1,)), Dense(2)]).forward([1.0, 2.0, 3.0]).shape == (3, 2)


def test_a_summary_where_only_ascii_can_be_shown(monkeypatch):
    raw, name = io.BytesIO(), "Schüler"
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    model = classifier(name=name)
    model.summary()
    assert rb'Model: "Sch\xfcler"' in raw.getvalue() and b"Total params: 43" in raw.getvalue()
    with pytest.raises(UnicodeEncodeError):  # the control
        model.summary(print_fn=print)
    lines = []
    model.summary(print_fn=lines.append)
    assert name in lines[0], "a function of one's own is given it as it is"


def test_summary(capsys):
    model = classifier(name="student")
    model.summary()
    out = capsys.readouterr().out
    assert 'Model: "student"' in out and "(None, 3)" in out and "Total params: 43 (0.17 KB, float32)" in out
    assert [line.split() for line in out.splitlines()[1:5]] == [
        ["Layer", "(type)", "Output", "Shape", "Params", "Bytes", "Multiply-adds"],
        [
            "-" * len(name)
            for name in (
                f"{model.layers[0].name} (Dense)",
                "Output Shape",
                "Params",
                "Bytes",
                "Multiply-adds",
            )
        ],
        [model.layers[0].name, "(Dense)", "(None,", "5)", "25", "100", "20"],
        [model.layers[1].name, "(Dense)", "(None,", "3)", "18", "72", "15"],
    ]
    assert "Multiply-adds of matrix products, a sample: 35\n" in out
    lines = []
    Sequential([Dense(3)]).summary(print_fn=lines.append)
    assert any("? (unbuilt)" in line for line in lines)
    assert repr(model) == "<Sequential student: 4-5-3, float32>"
    assert model.get_layer(index=0) is model.layers[0]
    assert model.get_layer(model.layers[1].name) is model.layers[1]
    with pytest.raises(ValueError, match="there is no layer 'x'"):
        model.get_layer("x")


def test_a_summary_is_cut_to_a_length_and_names_what_it_cannot_count():
    class Own(Dense):
        def forward(self, x, training=False):
            return super().forward(x, training)

    wide = Sequential([Dense(3, input_dim=4, name="a_name_that_is_long_" * 5), Softmax(), Own(2, name="own")])
    lines, cut = [], []
    wide.summary(print_fn=lines.append)
    wide.summary(70, print_fn=cut.append)
    assert max(map(len, lines[1:6])) > 100 and max(map(len, cut[1:6])) <= 70 and cut[3].startswith("a_name_")
    assert lines[5].split()[-3:] == ["8", "32", "?"] and lines[4].split()[-3:] == ["0", "0", "0"]
    assert (
        "Multiply-adds of matrix products, a sample: 12, without those of own, which only its own code knows"
        in lines
    )
    with pytest.raises(ValueError, match="line_length must be >= 1, got 0"):
        wide.summary(0)


# -- forward, backward, logits ---------------------------------------------------------------------


@pytest.mark.parametrize("final", ["softmax", "sigmoid"])
@pytest.mark.parametrize("own_layer", [False, True])
def test_logits_stand_before_the_final_activation(final, own_layer):
    last = [Dense(3), Activation(final)] if own_layer else [Dense(3, final)]
    model = Sequential([Input((4,)), *last], dtype="float64", seed=1)
    x, _ = data()
    logits = model.forward(x, logits=True)
    np.testing.assert_allclose(logits, x @ model.layers[0].weight + model.layers[0].bias, rtol=1e-12)
    dlogits = np.random.default_rng(1).normal(size=logits.shape)
    dx = model.backward(dlogits, logits=True)
    np.testing.assert_allclose(model.layers[0].dweight, x.T @ dlogits, rtol=1e-12)
    np.testing.assert_allclose(dx, dlogits @ model.layers[0].weight.T, rtol=1e-12)
    # the gradient of the output itself is another one
    model.forward(x)
    assert not np.allclose(model.backward(dlogits), dx)
    assert len(model.ops(logits=True)) == len(model.ops()) - 1 == 1


def test_ops():
    model = Sequential([Input((4,)), GaussianNoise(0.1), Dense(5, "relu"), Dropout(0.5), Dense(3, "softmax")])
    assert len(model.ops(training=True)) == 6 and len(model.ops()) == 4
    assert [op.layer for op in model.ops(training=True)] == [0, 1, 1, 2, 3, 3]
    assert [op.weight for op in model.ops() if op.weight >= 0] == [0, 25]
    assert Sequential([Input((4,)), Scale()]).ops() is None
    assert Sequential([Input((4,)), HalfDense(3)]).ops() is None  # inherits ops that no longer describe it
    assert Sequential([Input((4,)), type("Plain", (Dense,), {})(3)]).ops() is not None


def test_dropout_repeats_until_the_step_changes():
    model = Sequential([Input((50,)), Dropout(0.5)], seed=1)
    x = np.ones((2, 50))
    model.set_step(0, 0)
    first = model.forward(x, training=True)
    np.testing.assert_array_equal(first, model.forward(x, training=True))
    model.set_step(0, 1)
    assert not np.array_equal(first, model.forward(x, training=True))
    np.testing.assert_array_equal(model.forward(x), x)


# -- compile ---------------------------------------------------------------------------------------


def test_where_the_loss_is_applied():
    def objective(final, loss):
        return Sequential([Input((4,)), Dense(3, final)]).objective(losses.get(loss))

    crossentropy = losses.CategoricalCrossentropy()
    on_logits = losses.CategoricalCrossentropy(from_logits=True)
    assert objective("softmax", crossentropy)[::2] == (crossentropy.kind(True), True)
    assert objective(None, on_logits)[::2] == (crossentropy.kind(True), False)
    assert objective("sigmoid", crossentropy)[::2] == (crossentropy.kind(False), False)
    binary = losses.BinaryCrossentropy()
    assert objective("sigmoid", binary)[::2] == (binary.kind(True), True)
    assert objective("tanh", "mse").on_logits is False
    distilling = losses.KnowledgeDistillation()
    assert objective("softmax", distilling).on_logits is True
    assert objective(None, distilling).on_logits is False
    own = Sequential([Input((4,)), Dense(3, "softmax"), Scale()])
    assert own.objective(crossentropy)[::2] == (crossentropy.kind(False), False)
    ends = Sequential([Input((4,)), Dense(3), Softmax()])
    assert ends.objective(crossentropy).on_logits is True


def test_compile_refuses_what_cannot_train():
    model = classifier()
    before = (model.optimizer, model.loss, model.metrics)
    linear = Sequential([Input((4,)), Dense(3)])
    with pytest.raises(
        ValueError, match="ends without an activation: end with activation='softmax', or .*from_logits"
    ):
        linear.compile(loss="categorical_crossentropy")
    with pytest.raises(
        ValueError, match="needs logits, but the model ends with softmax: leave from_logits out"
    ):
        model.compile(loss=losses.CategoricalCrossentropy(from_logits=True))
    images = Sequential([Input((2, 2)), Activation("softmax")])
    with pytest.raises(ValueError, match="add a Flatten"):
        images.compile(loss="categorical_crossentropy")
    with pytest.raises(ValueError, match="did you mean 'categorical_crossentropy'"):
        model.compile(loss="categorical_crosentropy")
    with pytest.raises(ValueError, match="did you mean 'adam'"):
        model.compile("adan")
    with pytest.raises(ValueError, match="did you mean 'accuracy'"):
        model.compile(metrics=["acuracy"])
    with pytest.raises(ValueError, match="needs targets shaped as the output"):
        model.compile(loss="sparse_categorical_crossentropy", metrics=["mse"])
    assert (model.optimizer, model.loss, model.metrics) == before
    # an unbuilt model finds out when it is built
    late = Sequential([Dense(3)])
    late.compile(loss="categorical_crossentropy")
    with pytest.raises(ValueError, match="ends without an activation"):
        late.train_on_batch(*data())


def test_an_optimizer_serves_one_model():
    adam = optimizers.Adam()
    model = classifier(optimizer=adam)
    model.train_on_batch(*data())
    with pytest.raises(ValueError, match="already trains another model: pass a new one"):
        classifier(optimizer=adam)
    model.compile(adam, "sparse_categorical_crossentropy")  # its own may go on
    assert model.optimizer.iterations == 1


def test_fit_before_compile():
    model = Sequential([Input((4,)), Dense(3, "softmax")])
    x, y = data()
    for call in (model.fit, model.evaluate, model.train_on_batch):
        with pytest.raises(ValueError, match=r"call compile\(optimizer, loss\) before"):
            call(x, y)
    model.compile("sgd")
    with pytest.raises(ValueError, match="train_on_batch needs a loss"):
        model.train_on_batch(x, y)
    compiled = classifier()
    compiled.add(Dense(2))
    with pytest.raises(ValueError, match="call compile"):
        compiled.train_on_batch(x, y)


# -- one step --------------------------------------------------------------------------------------


@given(st.integers(1, 9), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_step_is_the_textbooks(rows, weighted, seed):
    x, y = data(rows, seed)
    weight = np.random.default_rng(seed).uniform(0, 2, rows) if weighted else None
    model = Sequential([Input((4,)), Dense(5, "tanh"), Dense(3, "softmax")], dtype="float64", seed=seed)
    model.compile(optimizers.SGD(0.1), "sparse_categorical_crossentropy", ["accuracy"])
    expected = reference.tanh_classifier_step(model.get_weights(), x, y, weight, learning_rate=0.1)
    loss, accuracy = model.train_on_batch(x, y, sample_weight=weight)
    assert loss == pytest.approx(expected[0], rel=1e-10)
    assert accuracy == pytest.approx(expected[1])
    for found, wanted in zip(model.get_weights(), expected[2], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


def test_the_comparison_would_see_a_wrong_step():
    x, y = data()
    model = Sequential([Input((4,)), Dense(5, "tanh"), Dense(3, "softmax")], dtype="float64", seed=1)
    loss, _, weights = reference.tanh_classifier_step(model.get_weights(), x, y, None, learning_rate=0.1)
    _, _, other = reference.tanh_classifier_step(
        model.get_weights(), x, y, np.full(6, 2.0), learning_rate=0.1
    )
    assert not np.allclose(weights[0], other[0], rtol=1e-10, atol=1e-12)


def test_penalties_constraints_and_clipping_are_applied_in_order():
    x, y = data()
    layers = [Input((4,)), Dense(3, "softmax", kernel_regularizer=L2(0.5), kernel_constraint=MaxNorm(0.3))]
    model = Sequential(layers, dtype="float64", seed=2)
    model.compile(optimizers.SGD(0.1, clipnorm=0.2), "sparse_categorical_crossentropy")
    weight, bias = model.get_weights()
    probs = reference.activation("softmax", x @ weight + bias)
    dlogits = (probs - np.eye(3)[y]) / 6
    dweight = x.T @ dlogits + 2 * 0.5 * weight
    dbias = dlogits.sum(0)
    dweight *= min(1.0, 0.2 / np.linalg.norm(dweight))
    dbias *= min(1.0, 0.2 / np.linalg.norm(dbias))
    weight, old = weight - 0.1 * dweight, weight
    norms = np.linalg.norm(weight, axis=0)
    weight = weight * np.minimum(norms, 0.3) / (1e-7 + norms)
    loss = model.train_on_batch(x, y)
    assert loss == pytest.approx(-np.log(probs[np.arange(6), y]).mean() + 0.5 * (old**2).sum(), rel=1e-10)
    np.testing.assert_allclose(model.layers[0].weight, weight, rtol=1e-10)
    np.testing.assert_allclose(model.layers[0].bias, bias - 0.1 * dbias, rtol=1e-10)
    assert model.penalty() == pytest.approx(0.5 * (weight**2).sum())


def test_own_layers_and_constraints_train():
    class Positive(Constraint):
        def __call__(self, weight):
            return np.maximum(weight, 0)

    model = Sequential([Input((4,)), Scale(), Dense(3, "softmax", kernel_constraint=Positive())], seed=1)
    model.compile(optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    assert model.ops(training=True) is None
    x, y = data(30)
    first = model.train_on_batch(x, y)
    for _ in range(50):
        last = model.train_on_batch(x, y)
    assert last < first and (model.layers[1].weight >= 0).all() and not (model.layers[0].gain == 1).any()


def test_train_on_batch_returns_and_refuses():
    model = classifier(metrics=["accuracy"])
    x, y = data()
    assert set(model.train_on_batch(x, y, return_dict=True)) == {"loss", "accuracy"}
    assert isinstance(classifier().train_on_batch(x, y), float)
    np.testing.assert_allclose(
        classifier().train_on_batch(x, y, class_weight={0: 2.0, 1: 2.0, 2: 2.0}),
        2 * classifier().train_on_batch(x, y),
    )
    before = state_of(model)
    nan = x.copy()
    nan[2, 1] = np.nan
    for args, message in (
        ((nan, y), r"x must be finite, got nan at index \(2, 1\)"),
        ((x[:, :3], y), r"x must have shape \(N, 4\), got \(6, 3\)"),
        ((x, y + 5), "y must hold whole numbers in 0..2"),
        ((x, y[:4]), "y must have one row per sample of x: expected 6, got 4"),
        ((x, np.eye(3)[y]), "y must hold one class index a sample"),
        ((x, None), "y must be given"),
        ((x, y, -np.ones(6)), "sample_weight must be >= 0, got -1.0 at index 0"),
        ((x, y, None, {5: 1.0}), "class_weight key must be <= 2, got 5"),
        ((x[:0], y[:0]), "x must not be empty"),
        ((x.astype(complex), y), "x must hold real numbers"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            model.train_on_batch(*args)
    assert unchanged(model, before)
    model.train_on_batch(x, y)


def test_distilling_step_wants_the_teachers_logits():
    model = classifier(loss=losses.KnowledgeDistillation(temperature=2.0))
    x, y = data()
    with pytest.raises(ValueError, match="teacher_logits must be an array, got None"):
        model.train_on_batch(x, y)
    with pytest.raises(ValueError, match=r"teacher_logits must have shape \(N, 3\), got \(6, 2\)"):
        model.train_on_batch(x, y, teacher_logits=np.zeros((6, 2)))
    logits = np.random.default_rng(3).normal(size=(6, 3))
    first = model.train_on_batch(x, y, teacher_logits=logits)
    for _ in range(30):
        last = model.train_on_batch(x, y, teacher_logits=logits)
    assert last < first
    with pytest.raises(ValueError, match="teacher_logits are for a distilling loss"):
        classifier().train_on_batch(x, y, teacher_logits=logits)


def test_an_online_teacher_sees_the_augmented_inputs():
    seen = []

    class Teacher:
        def logits(self, x, temperature):
            seen.append(x)
            return np.zeros((len(x), 3))

    images = np.arange(2 * 16.0).reshape(2, 4, 4)
    model = Sequential([Input((4, 4)), RandomTranslation(0.25, 0.25), Flatten(), Dense(3, "softmax")], seed=1)
    model.compile("sgd", losses.KnowledgeDistillation())

    def step(model):
        batch = Samples(images.astype(np.float32), np.zeros(2, np.int64), None, None, np.empty(0))
        model.prepare_optimizer()
        layerwise_step(model, batch, model.loss, Tally(model, [], True), step=3, online_teacher=Teacher())

    step(model)
    model.set_step(0, 3)
    np.testing.assert_array_equal(seen[0], model.layers[0].forward(images.astype(np.float32), training=True))
    assert not np.array_equal(seen[0], images)
    hidden = Sequential(
        [Input((4, 4)), Rescaling(0.1), RandomTranslation(0.25, 0.25), Flatten(), Dense(3, "softmax")]
    )
    hidden.compile("sgd", losses.KnowledgeDistillation())
    with pytest.raises(
        ValueError, match="the teacher cannot be shown the same samples: put .* before 'rescaling"
    ):
        hidden.fit(images, np.zeros(2, int), target_model=lambda x: np.zeros((len(x), 3)))


# -- copies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
def test_copies_have_vectors_of_their_own(copied):
    model = classifier(optimizer="adam")
    x, y = data()
    model.train_on_batch(x, y)
    twin = copied(model)
    assert not np.shares_memory(twin.params, model.params)
    assert np.shares_memory(twin.layers[0].weight, twin.params)
    assert np.shares_memory(twin._logits_layers[-1].weight, twin.params)
    assert twin.train_on_batch(x, y) == model.train_on_batch(x, y)
    np.testing.assert_array_equal(twin.params, model.params)


def test_configs_and_clones():
    model = Sequential(
        [Input((2, 2)), Flatten(), Dense(3, "relu", kernel_regularizer="l2"), Dense(2)], seed=5
    )
    again = Sequential.from_config(model.get_config())
    np.testing.assert_array_equal(again.params, model.params)
    assert again.get_config() == model.get_config()
    clone = clone_model(model)
    assert clone.seed != model.seed and [w.shape for w in clone.weights] == [w.shape for w in model.weights]
    own = Sequential([Input((4,)), Scale()])
    with pytest.raises(ValueError, match="layer class Scale is not minidl's: pass custom_objects"):
        Sequential.from_config(own.get_config())
    assert type(Sequential.from_config(own.get_config(), {"Scale": Scale}).layers[0]) is Scale


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda: Sequential(dtype="float16"),
            ValueError,
            "dtype must be 'float32' or 'float64', got 'float16'",
        ),
        (lambda: Sequential(seed=-1), ValueError, "seed must be >= 0, got -1"),
        (lambda: Sequential(seed=1.5), TypeError, "seed must be an integer"),
        (lambda: Sequential(name=3), TypeError, "name must be a non-empty string"),
        (lambda: Sequential(Dense(3)), TypeError, "layers must be a list of layers"),
        (lambda: Sequential(["dense"]), TypeError, "layer must be a minidl.layers.Layer, got 'dense'"),
        (lambda: Sequential([Dense]), TypeError, r"write it with \(\)"),
        (lambda: Sequential([Dense(3), Input((3,))]), ValueError, "Input must come first and only once"),
        (lambda: Sequential([Input((3,)), Input((3,))]), ValueError, "Input must come first and only once"),
        (
            lambda: Sequential([Dense(2, name="a"), Dense(2, name="a")]),
            ValueError,
            "must be distinct, got a second 'a'",
        ),
        (lambda: Sequential().build((3,)), ValueError, "a model without layers cannot be built"),
        (lambda: Sequential([Dense(2)]).build(), ValueError, "input_shape must be given"),
        (lambda: Sequential([Dense(2)]).build("ab"), TypeError, "input_shape must be an integer or a tuple"),
        (lambda: Sequential([Dense(2, input_dim=3)]).build((4,)), ValueError, r"is \(3,\), got \(4,\)"),
        (lambda: Sequential().pop(), ValueError, "no layers"),
        (lambda: Sequential().forward(np.zeros((1, 2))), ValueError, "has no layers"),
        (lambda: clone_model("x"), TypeError, "model must be a Sequential"),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_refused_layer_changes_nothing():
    model = Sequential([Input((2, 2)), Flatten(), Dense(3)], seed=1)
    before = model.params.copy()
    shared = model.layers[1]
    with pytest.raises(ValueError, match="already belongs to a model"):
        Sequential([Input((4,))]).add(shared)
    flat = Sequential([Input((2, 2))])
    with pytest.raises(ValueError, match="put a Flatten layer before it"):
        flat.add(Dense(3))
    assert flat.layers == []
    with pytest.raises(TypeError):
        model.add(None)
    np.testing.assert_array_equal(model.params, before)
    assert len(model.layers) == 2


def test_layers_of_a_refused_list_fit_another_model():
    first, second = Dense(3), Dense(2)
    with pytest.raises(TypeError, match="layer must be"):
        Sequential([Input((4,)), first, second, None])
    with pytest.raises(ValueError, match="distinct"):
        Sequential([Input((4,)), first, second, Dense(2, name=first.name)])
    model = Sequential([Input((5,)), first, second])
    assert [layer.weight.shape for layer in model.layers] == [(5, 3), (3, 2)]
    with pytest.raises(ValueError, match="already belongs to a model"):  # of another model, it stays there
        Sequential([Input((5,)), first])
    assert model.predict(np.zeros((1, 5), np.float32)).shape == (1, 2)


@pytest.mark.parametrize("bad", [-np.inf, np.inf, np.nan])
@pytest.mark.parametrize("first", [lambda: [], lambda: [Activation("relu")], lambda: [Rescaling(0.5)]])
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_predict_names_what_is_not_finite_even_where_no_output_shows_it(bad, first, rows):
    """ReLU makes 0 of -inf; and what overflows on the way was finite."""
    layers = [Input((4,)), *first(), Dense(3, "relu", kernel_initializer="ones"), Dense(2)]
    model = Sequential(layers, seed=0)
    x = np.ones((rows, 4), np.float32)
    assert np.isfinite(model.predict(x)).all()
    x[rows // 2, 2] = 3e38
    x[rows // 2, 3] = 3e38
    assert model.predict(x).shape == (rows, 2)
    x[rows // 2, 3] = bad
    with pytest.raises(ValueError, match=rf"x must be finite, got {bad} at index \({rows // 2}, 3\)"):
        model.predict(x)


def test_fit_evaluate_and_predict_refuse():
    model = classifier(metrics=["accuracy"])
    x, y = data()
    nan = x.copy()
    nan[2, 1] = np.inf
    before = state_of(model)
    calls = [
        (lambda: model.fit(nan, y), r"x must be finite, got inf at index \(2, 1\)"),
        (lambda: model.fit(x, y, epochs=1.5), "epochs must be an integer"),
        (lambda: model.fit(x, y, batch_size=-1), "batch_size must be >= 1, got -1"),
        (lambda: model.fit(x, y, verbose="loud"), "verbose must be one of"),
        (lambda: model.fit(x, y, validation_split=1.0), "validation_split must be < 1"),
        (lambda: model.fit(x, y, validation_data=x), "validation_data must be"),
        (lambda: model.fit(x, y, callbacks=[print]), "callbacks must be minidl.callbacks.Callback"),
        (lambda: model.fit(x, y, class_weight=[1, 2, 3]), "class_weight must be a dict"),
        (lambda: model.fit(x, y, sample_weight=[1.0]), "sample_weight must have one row per sample"),
        (lambda: model.fit(x, y, target_model=model), "teacher"),
        (
            lambda: model.fit(x, y, target_model=np.zeros((6, 3)), temperature=0),
            "temperature must be > 0, got 0",
        ),
        (lambda: model.evaluate(x, y[:3]), "y must have one row per sample of x: expected 6, got 3"),
        (lambda: model.evaluate(x), "y must be given"),
        (lambda: model.predict(x[:, :2]), r"x must have shape \(N, 4\), got \(6, 2\)"),
        (lambda: model.predict(None), "x must be an array, got None"),
        (lambda: model.predict_logits(nan), "x must be finite"),
        (lambda: model.forward(x[:, :2]), r"x must have shape \(N, 4\), got \(6, 2\)"),
    ]
    for call, message in calls:
        with pytest.raises((ValueError, TypeError), match=message):
            call()
        assert unchanged(model, before), message
    model.fit(x, y, verbose=0)
    assert isinstance(model.evaluate(x, y, verbose=0), list)


# -- networks that no user means --------------------------------------------------------------------------


def test_build_takes_the_first_axis_for_the_batch_only_where_it_says_so():
    def made():
        return Sequential([Flatten(), Dense(10)])

    model = made()
    with pytest.raises(
        ValueError, match=r"must begin with None, for the batch, got \(32, 28, 28\).*\(None, 28, 28\)"
    ):
        model.build((32, 28, 28))
    assert not model.built
    for shape, count in (((None, 28, 28), 7850), ([None, 32, 28, 28], 250890), ((784,), 7850), (784, 7850)):
        model = made()
        model.build(shape)
        assert model.count_params() == count
    model = Sequential([Flatten(input_shape=(28, 28)), Dense(10)])
    for same in ((32, 28, 28), (28, 28), (None, 28, 28)):  # it is known what a sample is
        model.build(same)
    with pytest.raises(ValueError, match="must begin with None"):
        model.build((28, 32))


SOFTMAX_LOSSES = [name for name, loss in losses.LOSSES.classes.items() if loss.fused_activation == "softmax"]


@pytest.mark.parametrize("name", SOFTMAX_LOSSES)
@pytest.mark.parametrize("activation", ["softmax", None])
def test_no_loss_of_a_softmax_over_one_output(name, activation):
    """It is 0 whatever the model predicts: training would run and learn nothing."""
    x, y = np.ones((4, 2)), np.zeros((4, 1), int)
    loss = losses.get(name)
    if activation is None and not loss.distills:
        loss = type(loss)(from_logits=True)
    model = Sequential([Dense(3), Dense(1, activation)])
    model.compile("sgd", loss)
    message = rf"loss {loss.name} needs two or more outputs, got 1: .* binary_crossentropy"
    with pytest.raises(ValueError, match=message):
        if loss.distills:
            model.fit(x, y, target_model=np.zeros((4, 1)), verbose=0)
        else:
            model.fit(x, y, verbose=0)
    built = Sequential([Dense(1, activation, input_dim=2)])
    with pytest.raises(ValueError, match=message):
        built.compile("sgd", loss)


@pytest.mark.parametrize("loss", ["mse", "binary_crossentropy"])
@pytest.mark.parametrize(
    "layers",
    [[Dense(1, "softmax")], [Dense(1), Softmax()], [Dense(1, "softmax"), Dense(1, "sigmoid")]],
    ids=["0", "1", "2"],
)
def test_a_softmax_over_one_number_is_named_where_it_would_learn(layers, loss):
    model = Sequential([type(layer).from_config(layer.get_config()) for layer in layers])
    model.compile("sgd", loss)
    for call in (model.train_on_batch, lambda x, y: model.fit(x, y, verbose=0)):
        with pytest.warns(UserWarning, match="is a softmax over one number, which is always 1"):
            call(np.ones((4, 2)), np.ones(4))
    right = Sequential([Dense(1, "sigmoid")])
    right.compile("sgd", loss)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        right.fit(np.ones((4, 2)), np.ones(4), verbose=0)


def test_class_weight_of_one_output_goes_by_the_nearest_whole_number():
    """As in Keras, and not by whether the target is more than a half."""
    x, y = np.random.default_rng(0).normal(size=(8, 3)), np.array([-1, 0, 0.4, 0.5, 1, 1.6, 2, 7])
    by_class = {-1: 3.0, 1: 5.0, 2: 0.5}
    weights = [3.0, 1, 1, 1, 5, 0.5, 0.5, 1]

    def value(**weighted):
        model = Sequential([Dense(1, input_shape=(3,))], seed=0)
        model.compile("sgd", "mse")
        return model.train_on_batch(x, y, **weighted)

    assert value(class_weight=by_class) == pytest.approx(value(sample_weight=weights))
    assert value(class_weight={3: 9.0}) == value()


def test_settings_that_are_no_booleans_are_refused(tmp_path):
    """``"no"`` is true in Python: a file was overwritten by it."""
    model = Sequential([Dense(1, input_shape=(3,))])
    model.compile("sgd", "mse")
    x, y = np.ones((4, 3)), np.ones(4)
    for argument, misuse in (
        ("overwrite", lambda: model.save(tmp_path / "model.npz", overwrite="no")),
        ("overwrite", lambda: model.save_weights(tmp_path / "model.npz", overwrite="no")),
        ("return_dict", lambda: model.evaluate(x, y, verbose=0, return_dict="no")),
        ("return_dict", lambda: model.train_on_batch(x, y, return_dict="no")),
    ):
        with pytest.raises(TypeError, match=f"{argument} must be True or False, got 'no'"):
            misuse()
    assert model.optimizer.iterations == 0 and not list(tmp_path.iterdir())
