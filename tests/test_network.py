"""The compiled loop and the layers end with the same bits, whatever the threads, slices and callbacks."""

import importlib

import numpy as np
import pytest

import minidl
from minidl.constraints import MaxNorm, MinMaxNorm, NonNeg, UnitNorm
from minidl.kernels import updates
from minidl.kernels.activations import CODES
from minidl.kernels.jit import JIT_DISABLED
from minidl.kernels.thread_choice import ThreadChoice
from minidl.layers import (
    Activation,
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    Layer,
    LeakyReLU,
    RandomTranslation,
    Rescaling,
    Softmax,
)
from minidl.losses import DistillationLoss, MeanSquaredError
from minidl.models import Sequential
from minidl.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from minidl.optimizers.schedules import ExponentialDecay
from minidl.regularizers import L1L2
from minidl.training import compiled as compiled_steps

epochs = importlib.import_module("minidl.training.fit")  # minidl.training.fit is the function
SAMPLES, BATCH, EPOCHS = 50, 16, 2  # the last batch is short
rng = np.random.default_rng(3)


def vectors(features=12):
    return rng.standard_normal((SAMPLES, features)).astype("f4")


def images():
    return rng.integers(0, 256, (SAMPLES, 6, 5), dtype=np.uint8)


def dense(activation="relu", **settings):
    return [Dense(20, activation=activation, input_shape=(12,), **settings), Dense(4, activation="softmax")]


LABELS = rng.integers(0, 4, SAMPLES)
ROWS = np.eye(4, dtype="f4")[LABELS]


def every(base):
    """The library's public classes under ``base``, so that a new one is tested without wiring."""
    found = [part for cls in base.__subclasses__() for part in [cls, *every(cls)]]
    return [cls for cls in found if cls.__module__.startswith("minidl.") and cls.__name__[0] != "_"]


def dense_for(loss):
    """A student's layers and y, as the distillation loss wants them."""
    final = {"softmax": "softmax", "sigmoid": "sigmoid", None: None}[loss.fused_activation]
    y = LABELS if loss.sparse is None else np.where(np.arange(SAMPLES)[:, None] % 5, ROWS, -1.0)
    return lambda: [*dense()[:-1], Dense(4, activation=final)], y


# name: (layers, x, y, compile arguments, fit arguments)
CASES = {
    "labels": (dense, vectors, LABELS, {"loss": "sparse_categorical_crossentropy"}, {}),
    "one-hot": (
        dense, vectors, ROWS, {"loss": "categorical_crossentropy", "metrics": ["accuracy", "mae"]}, {},
    ),
    **{
        name: (lambda name=name: dense(name), vectors, ROWS, {"loss": "categorical_crossentropy"}, {})
        for name in CODES
    },
    "stack": (
        lambda: [
            Rescaling(1 / 255, -0.5, input_shape=(6, 5)),
            RandomTranslation(0.2, 0.2),
            Flatten(),
            GaussianNoise(0.1),
            Dense(17),
            LeakyReLU(),
            Dropout(0.3),
            Dense(9, use_bias=False),
            Activation("gelu"),
            Dense(4),
            Softmax(),
        ],
        images, ROWS, {"loss": "categorical_crossentropy", "metrics": ["accuracy"]}, {},
    ),
    "one way": (
        lambda: [RandomTranslation((0, 0.4), (-0.4, 0.2), input_shape=(6, 5)), Flatten(), *dense()[1:]],
        images, ROWS, {"loss": "categorical_crossentropy"}, {},
    ),
    "wide": (
        lambda: [Dense(300, "relu", input_shape=(12,)), Dense(280, "tanh"), Dense(4)],
        vectors, ROWS, {"loss": MeanSquaredError, "optimizer": "adam"}, {},
    ),
    "one output": (
        lambda: [Dense(70, "relu", input_shape=(12,)), Dense(64, "tanh"), Dense(1, "sigmoid")],
        vectors, (LABELS > 1).astype("f4"), {"loss": "binary_crossentropy", "optimizer": "adam"}, {},
    ),
    "one row a step": (
        lambda: [Dense(130, "relu", input_shape=(12,)), Dense(64, "relu"), Dense(4, "softmax")],
        vectors, LABELS, {"loss": "sparse_categorical_crossentropy", "optimizer": "adam"}, {"batch_size": 1},
    ),
    "weights": (
        dense, vectors, LABELS, {"loss": "sparse_categorical_crossentropy"},
        {"sample_weight": rng.random(SAMPLES), "class_weight": {0: 2.0, 3: 0.5}},
    ),
    "penalties and constraints": (
        lambda: dense(kernel_regularizer=L1L2(0.01, 0.02), kernel_constraint=MaxNorm(0.8)),
        vectors, LABELS, {"loss": "sparse_categorical_crossentropy", "optimizer": lambda: Adam(0.01)}, {},
    ),
    "every constraint": (
        lambda: [
            Dense(9, "relu", kernel_constraint=MinMaxNorm(0.5, 0.8, 0.7), bias_constraint=NonNeg(), input_dim=12),
            Dense(7, "tanh", kernel_constraint=NonNeg(), bias_constraint=UnitNorm()),
            Dense(4, "softmax", kernel_constraint=UnitNorm(), bias_constraint=MaxNorm(0.1)),
        ],
        vectors, LABELS, {"loss": "sparse_categorical_crossentropy", "optimizer": lambda: Adam(0.01)}, {},
    ),
    **{
        type(optimizer()).__name__ + str(index): (
            dense, vectors, LABELS, {"loss": "sparse_categorical_crossentropy", "optimizer": optimizer}, {},
        )
        for index, optimizer in enumerate([
            lambda: SGD(0.1), lambda: SGD(0.1, momentum=0.9), lambda: SGD(0.1, momentum=0.9, nesterov=True),
            lambda: Adam(amsgrad=True), lambda: AdamW(), lambda: RMSprop(),
            lambda: RMSprop(momentum=0.5, centered=True),
            lambda: Adam(clipnorm=0.1), lambda: Adam(global_clipnorm=0.1), lambda: SGD(clipvalue=0.01),
            lambda: Adam(ExponentialDecay(0.01, 2, 0.5)),
        ])
    },
    **{
        f"{optimizer.__name__} by default": (
            dense, vectors, LABELS, {"loss": "sparse_categorical_crossentropy", "optimizer": optimizer}, {},
        )
        for optimizer in every(Optimizer)
    },
    **{
        f"distil {loss().name}": (
            dense_for(loss)[0], vectors, dense_for(loss)[1], {"loss": loss},
            {"target_model": (3 * rng.standard_normal((SAMPLES, 4))).astype("f4")},
        )
        for loss in every(DistillationLoss)
    },
    **{
        f"{loss().name} by default": (
            dense, vectors, LABELS if loss.sparse else ROWS, {"loss": loss, "optimizer": lambda: SGD(0.01)}, {},
        )
        for loss in minidl.losses.LOSSES.classes.values() if not loss.distills
    },
}  # fmt: skip


def train(case, dtype="float32", layerwise=False, **fit):
    layers, x, y, compiled, arguments = CASES[case]
    model = Sequential(layers(), dtype=dtype, seed=5)
    compiled = {key: value() if callable(value) else value for key, value in compiled.items()}
    model.compile(**compiled)
    generator_state = rng.bit_generator.state
    rng.bit_generator.state = np.random.default_rng(11).bit_generator.state
    data = x()
    rng.bit_generator.state = generator_state
    if layerwise:
        model.ops = lambda training=False, logits=False: None  # as for a model with a layer of the user's own
    arguments = {"batch_size": BATCH, "epochs": EPOCHS, "verbose": 0} | arguments | fit
    history = model.fit(data, y, **arguments)
    return model, history


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_compiled_and_layerwise_end_with_the_same_bits(case, dtype):
    compiled, first = train(case, dtype)
    layerwise, second = train(case, dtype, layerwise=True)
    assert np.array_equal(compiled.params, layerwise.params)
    assert np.isfinite(compiled.params).all()
    for key in first.history:
        np.testing.assert_allclose(first.history[key], second.history[key], rtol=1e-12)


def test_a_trained_model_fulfils_its_constraints():
    (first, bias), (second, unit), (third, small) = (
        layer.weights for layer in train("every constraint")[0].layers
    )
    free = train("labels")[0].layers[0]
    assert bias.min() == 0 and second.min() == 0 and min(free.weight.min(), free.bias.min()) < 0
    assert np.linalg.norm(unit) == pytest.approx(1, rel=1e-5)
    np.testing.assert_allclose(np.linalg.norm(third, axis=0), 1, rtol=1e-5)
    norms = np.linalg.norm(first, axis=0)  # moved by 0.7 of the way, after each step
    assert np.linalg.norm(small) <= 0.1 + 1e-6 and 0.5 < norms.min() and norms.max() < 0.9


def test_a_translation_one_way_is_compiled_and_differs_from_one_both_ways():
    one_way, _ = train("one way")
    assert one_way.ops(training=True) is not None
    layers, *case = CASES["one way"]
    wrong = RandomTranslation(0.4, (-0.4, 0.2), input_shape=(6, 5))
    CASES["both ways"] = (lambda: [wrong, *layers()[1:]], *case)
    try:
        assert not np.array_equal(train("both ways")[0].params, one_way.params)
    finally:
        del CASES["both ways"]


def test_training_did_change_the_parameters():
    trained, _ = train("labels")
    assert not np.array_equal(trained.params, Sequential(dense(), seed=5).params)
    other = Sequential(dense(), seed=6)
    assert not np.array_equal(Sequential(dense(), seed=5).params, other.params)


@pytest.mark.parametrize("case", ["labels", "stack", "wide", "penalties and constraints", "distil dist"])
def test_bits_do_not_depend_on_threads(case, all_threads):
    before = minidl.get_num_threads()
    try:
        found = []
        for number in (1, 2, 3):
            minidl.set_num_threads(number)
            found.append(train(case)[0].params)
    finally:
        minidl.set_num_threads(before)
    assert np.array_equal(found[0], found[1]) and np.array_equal(found[0], found[2])


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("case", ["labels", "stack", "wide", "penalties and constraints"])
def test_bits_do_not_depend_on_the_parts_of_a_step(monkeypatch, case, number, all_threads):
    expected, history = train(case)
    monkeypatch.setattr(compiled_steps, "_PART_FLOPS", 1.0)
    monkeypatch.setattr(compiled_steps, "_PART_ROWS", 5)
    before = minidl.get_num_threads()
    try:
        minidl.set_num_threads(number)
        found, in_parts = train(case)
    finally:
        minidl.set_num_threads(before)
    assert np.array_equal(expected.params, found.params) and history.history == in_parts.history


@pytest.mark.parametrize("case", ["labels", "stack", "wide", "penalties and constraints"])
def test_bits_do_not_depend_on_when_the_time_of_a_call_is_up(monkeypatch, case, all_threads):
    """After each step: then the next call goes on, on another number of threads; a slice may end early, too."""
    expected, history = train(case)
    counts, steps = iter([1, 3, 2, 2, 1] * 10_000), []
    monkeypatch.setattr(ThreadChoice, "next", lambda self, most: (min(most, next(counts)), 0.0))
    monkeypatch.setattr(ThreadChoice, "record", lambda self, count, done, seconds: steps.append(done))
    monkeypatch.setattr(compiled_steps, "_MOST_CALLS", 3)
    before = minidl.get_num_threads()
    try:
        minidl.set_num_threads(3)
        found, in_calls = train(case)
    finally:
        minidl.set_num_threads(before)
    assert set(steps) == {1}
    assert np.array_equal(expected.params, found.params) and history.history == in_calls.history


@pytest.fixture
def kept():
    """The memory that fits have left to further ones: none at the test's beginning."""
    compiled_steps._kept.clear()
    yield compiled_steps._kept
    compiled_steps._kept.clear()


def spoil(kept) -> None:
    """What a diverged fit could leave in its memory, and worse."""
    for memory in kept.values():
        for array in (*memory.buffers, *memory.panels):
            array[...] = np.nan if array.dtype.kind == "f" else 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "case",
    ["one-hot", "stack", "wide", "one output", "penalties and constraints", "distil decoupled_kd", "weights"],
)
def test_bits_do_not_depend_on_what_an_earlier_fit_has_left_in_memory(case, dtype, kept):
    expected, _ = train(case, dtype)
    assert len(kept) == 1
    (memory,) = kept.values()
    spoil(kept)
    assert np.array_equal(train(case, dtype)[0].params, expected.params)
    assert list(kept.values()) == [memory]  # the second fit has used it


def test_a_fit_within_a_fit_has_memory_of_its_own(kept):
    expected, _ = train("stack")
    inner, taken = [], []

    class Trains(minidl.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            taken.append(len(kept))
            inner.append(train("stack")[0].params)
            spoil(kept)

    model, _ = train("stack", callbacks=[Trains()])
    assert np.array_equal(model.params, expected.params)
    assert all(np.array_equal(params, expected.params) for params in inner)
    assert taken == [0, 1]  # none while the outer fit had it; then what the inner one left


def test_a_changed_setting_reaches_a_fit_that_finds_memory(kept):
    def fit_twice(change):
        model = Sequential([Dropout(0.1, input_shape=(12,)), *dense()], seed=5)
        model.compile("sgd", "sparse_categorical_crossentropy")
        x = np.random.default_rng(7).standard_normal((SAMPLES, 12)).astype("f4")
        for _ in range(2):
            model.fit(x, LABELS, batch_size=BATCH, verbose=0)
            change(model)
        return model.params

    def drop(model):
        model.layers[0].rate = 0.5

    def freeze(model):
        model.layers[1].trainable = False

    def penalize(model):
        model.layers[1].kernel_regularizer = L1L2(0.01, 0.02)

    def recompile(model):
        model.compile(SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy", ["accuracy"])

    changes = [lambda model: None, drop, freeze, penalize, recompile]
    found = [fit_twice(change) for change in changes]
    for change, params in zip(changes, found, strict=True):
        expected = fit_twice(lambda model, change=change: (change(model), kept.clear()))
        assert np.array_equal(params, expected)
    assert len({params.tobytes() for params in found}) == len(found)


def test_memory_is_kept_of_few_fits_and_of_small_ones(kept):
    x, y = np.zeros((40, 3), "f4"), np.arange(40) % 2
    for batch_size in range(1, 30):
        model = Sequential([Dense(2, "softmax", input_dim=3)], seed=1)
        model.compile("sgd", "sparse_categorical_crossentropy")
        model.fit(x, y, batch_size=batch_size, verbose=0)
        assert 0 < len(kept) <= compiled_steps._MOST_KEPT
    kept.clear()
    model = Sequential([Dense(20_000, "relu", input_dim=3), Dense(2, "softmax")], seed=1)
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=40, verbose=0)
    assert not kept


class EveryBatch(minidl.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.batches = []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append((batch, logs["loss"]))


class EveryEpoch(minidl.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.seen = epoch


@pytest.fixture
def shapes(monkeypatch):
    """The shapes of the orders that slices were run on: of two axes where a slice has several epochs."""
    run, found = compiled_steps.CompiledSteps.run, []

    def record(self, order, first_step, metric_sums):
        found.append(np.shape(order))
        return run(self, order, first_step, metric_sums)

    monkeypatch.setattr(compiled_steps.CompiledSteps, "run", record)
    return found


@pytest.mark.parametrize("case", ["labels", "stack", "one row a step", "weights", "RMSprop6", "Adam10"])
def test_epochs_in_one_call_are_as_epochs_one_by_one(case, shapes):
    together, history = train(case, epochs=7)
    assert len(shapes[0]) == 2
    shapes.clear()
    apart, expected = train(case, epochs=7, callbacks=[EveryEpoch()])
    assert {len(shape) for shape in shapes} == {1}
    assert np.array_equal(together.params, apart.params) and history.history == expected.history
    assert history.epoch == list(range(7)) and together.history is history
    for model in (together, apart):
        assert (model.epoch, model.draw_epoch, model.unfinished) == (7, 7, None)


@pytest.mark.parametrize(
    "watched",
    [
        {"callbacks": [minidl.callbacks.TerminateOnNaN()]},
        {"validation_split": 0.2},
        {"verbose": 2},
        {"target_model": 3 * np.eye(4, dtype="f4")[LABELS] - 1},
    ],
    ids=lambda watched: next(iter(watched)),
)
def test_epochs_that_are_watched_run_one_by_one(watched, shapes):
    train("labels", epochs=3, **watched)
    assert {len(shape) for shape in shapes} == {1}


def test_a_slice_may_end_in_the_middle_of_any_of_its_epochs(monkeypatch):
    expected, history = train("labels", epochs=7)
    run, given = compiled_steps.CompiledSteps.run, []

    def fewer(self, order, first_step, metric_sums):
        if np.ndim(order) == 1:
            return run(self, order, first_step, metric_sums)
        given.append(len(order))
        whole = run(self, order[:1], 0, metric_sums[:1])  # one epoch and two steps of the next
        self._model.draw_epoch += 1
        part = run(self, order[1, : 2 * BATCH], 0, metric_sums[1])
        self._model.draw_epoch -= 1
        return np.concatenate([whole, part])

    monkeypatch.setattr(compiled_steps.CompiledSteps, "run", fewer)
    model, found = train("labels", epochs=7)
    assert given[:2] == [7, 5]
    assert np.array_equal(model.params, expected.params) and found.history == history.history
    assert (model.epoch, model.draw_epoch, model.unfinished) == (7, 7, None)


def test_bits_do_not_depend_on_slices_or_verbosity(monkeypatch, capsys):
    expected, history = train("stack")
    callback = EveryBatch()
    stepwise, _ = train("stack", callbacks=[callback], verbose=2)
    monkeypatch.setattr(epochs, "_SLICE_SECONDS", 1e-9)
    sliced, _ = train("stack", verbose=1)
    assert np.array_equal(expected.params, stepwise.params) and np.array_equal(expected.params, sliced.params)
    batches = -(-SAMPLES // BATCH)
    assert [batch for batch, _ in callback.batches] == list(range(batches)) * EPOCHS
    assert callback.batches[-1][1] == pytest.approx(history.history["loss"][-1])


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    whole, _ = train("stack", epochs=4)
    half, _ = train("stack", epochs=2)
    half.save(tmp_path / "half.npz")
    resumed = minidl.models.load_model(tmp_path / "half.npz")
    data = np.random.default_rng(11).integers(0, 256, (SAMPLES, 6, 5), dtype=np.uint8)
    resumed.fit(data, ROWS, batch_size=BATCH, epochs=4, initial_epoch=resumed.epoch, verbose=0)
    assert np.array_equal(whole.params, resumed.params)


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.astype("f8"),
        lambda x: x.astype(">f4"),
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=0)[::2],
        lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view("f4").reshape(x.shape),
    ],
    ids=["float64", "big-endian", "fortran", "strided", "misaligned read-only"],
)
def test_any_layout_of_inputs_gives_the_same_bits(convert):
    x = vectors()
    results = []
    for data in (x, convert(x)):
        model = Sequential(dense(), seed=5)
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(data, LABELS, batch_size=BATCH, verbose=0)
        results.append((model.params, model.predict(data), model.predict_logits(data)))
    for first, second in zip(*results, strict=True):
        assert np.array_equal(first, second)


@pytest.mark.parametrize("count", [1, 2, 95, 96, 97, 300])
def test_predict_equals_forward(count):
    model = Sequential(dense("gelu"), seed=5)
    x = rng.standard_normal((count, 12)).astype("f4")
    assert np.array_equal(model.predict(x), model.forward(x))
    assert np.array_equal(model.predict_logits(x), model.forward(x, logits=True))


def test_evaluate_by_hand():
    # one input, one output, no activation: predictions 2x, errors -1, 0, 3; mean of squares (1 + 0 + 9)/3
    model = Sequential([Dense(1, use_bias=False, input_shape=(1,))])
    model.set_weights([np.array([[2.0]])])
    model.compile("sgd", "mse", metrics=["mae"])
    loss, mae = model.evaluate(np.array([[1.0], [2.0], [3.0]]), np.array([1.0, 4.0, 9.0]), verbose=0)
    assert loss == pytest.approx(10 / 3) and mae == pytest.approx(4 / 3)


def test_fit_one_step_by_hand():
    # loss (2x - y)^2 with x = 1, y = 1: gradient 2(2 - 1) = 2; SGD with rate 0.1: weight 2 - 0.2
    model = Sequential([Dense(1, use_bias=False, input_shape=(1,))])
    model.set_weights([np.array([[2.0]])])
    model.compile(SGD(0.1), "mse")
    history = model.fit(np.array([[1.0]]), np.array([1.0]), verbose=0)
    assert history.history["loss"] == [1.0]
    assert model.params.tolist() == [pytest.approx(1.8)]


class Twice(Layer):
    def forward(self, x, training=False):
        return 2 * x

    def backward(self, dout):
        return 2 * dout


def test_a_layer_of_the_users_own_trains():
    model = Sequential([Dense(8, "relu", input_shape=(12,)), Twice(), Dense(4, "softmax")], seed=1)
    model.compile("adam", "sparse_categorical_crossentropy")
    history = model.fit(vectors(), LABELS, epochs=5, batch_size=BATCH, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]


def test_dead_units_leave_no_denormals():
    model = Sequential(dense(), seed=5)
    model.layers[0].bias[...] = -1e3  # every unit dead: gradients 0, Adam's averages shrink forever
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(vectors(), LABELS, epochs=300, batch_size=BATCH, verbose=0)
    if JIT_DISABLED:
        assert np.isfinite(model.params).all()
        return
    for slot in model.optimizer.slots[:2]:
        assert ((slot == 0) | (np.abs(slot) >= np.finfo("f4").tiny)).all()


def test_codes_reach_kernels_as_plain_integers():
    """An enumeration's member would give the same results, but costs 200 us in each call of the compiled loop."""
    optimizers = [SGD(), SGD(momentum=0.5), Adam(), Adam(amsgrad=True), RMSprop(centered=True)]
    kinds = [optimizer.kind for optimizer in optimizers]
    for name in minidl.losses.LOSSES.classes:
        loss = minidl.losses.get(name)
        kinds += [loss.kind(True), loss.kind(False)]
    assert len(kinds) > 25 and {type(kind) for kind in kinds} == {int}
    assert type(updates.Rule(kinds[0])) is not int  # a member is told from its number


@pytest.mark.parametrize("limit", ["clipvalue", "clipnorm", "global_clipnorm"])
def test_a_callback_may_set_a_limit(limit):
    """The next slice heeds it, both ways; without it the parameters would be others."""

    class Limits(minidl.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            setattr(self.model.optimizer, limit, 1e-3)

    x = np.random.default_rng(2).random((SAMPLES, 12), np.float32)

    def trained(by_layers, callbacks):
        model = Sequential(dense("tanh"), seed=1)
        model.compile(SGD(0.5), "sparse_categorical_crossentropy")
        if by_layers:
            model.ops = lambda training=False, logits=False: None
        model.fit(x, LABELS, epochs=3, batch_size=8, verbose=0, callbacks=callbacks)
        return model.params.copy()

    compiled, layerwise = trained(False, [Limits()]), trained(True, [Limits()])
    assert np.array_equal(compiled, layerwise)
    assert not np.array_equal(compiled, trained(False, None))
