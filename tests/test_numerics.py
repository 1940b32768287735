"""Numbers at the edge: extreme ones come out right, and those that are none are found."""

import math
import warnings

import extended as exact
import numpy as np
import pytest
from extended import Real
from small_run import BATCH, CLASSES, FEATURES, STEPS, TEACHER, X, Y, fit, new_model

from minidl import distill, losses
from minidl.callbacks import Callback, TerminateOnNaN
from minidl.layers import Dense, GaussianNoise, Input, Layer
from minidl.models import Sequential
from minidl.optimizers import SGD
from minidl.optimizers.schedules import PiecewiseConstantDecay

# -- numbers that are none -------------------------------------------------------------------------


class Recorder(Callback):
    """Looks at every step, which ``fit`` must therefore run one at a time."""

    def __init__(self):
        super().__init__()
        self.states, self.bad = [], []

    def on_train_begin(self, logs=None):
        self.states.append(self.model.params.copy())

    def on_train_batch_end(self, batch, logs=None):
        self.states.append(self.model.params.copy())
        finite = math.isfinite(logs["loss"]) and np.isfinite(self.model.params).all()
        self.bad.append(not finite)


def exploding(after, rate, make=SGD):
    """A model whose learning rate becomes ``rate`` after so many steps."""
    return new_model(optimizer=make(PiecewiseConstantDecay([after - 1], [0.01, rate])))


@pytest.mark.parametrize("layerwise", [False, True])
@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize("after, rate", [(1, 3e38), (STEPS, 1e30), (40, 3e38), (61, 1e25)])
def test_the_first_step_that_is_not_finite_is_found(after, rate, stepwise, layerwise, capsys):
    recorder = Recorder()
    with pytest.warns(RuntimeWarning):
        fit(exploding(after, rate), epochs=4, callbacks=[recorder])
    first_bad = recorder.bad.index(True)
    assert first_bad >= after

    model, terminator = exploding(after, rate), TerminateOnNaN()
    if layerwise:
        model.ops = lambda training=False, logits=False: None
    fit(model, epochs=4, callbacks=[terminator] + [Recorder()] * stepwise)
    epoch, step = divmod(first_bad, STEPS)
    assert terminator.found.startswith(f"epoch {epoch + 1} of 4, step {step + 1} of {STEPS}: ")
    assert any(f"'{layer.name}'" in terminator.found for layer in model.layers)
    assert terminator.found in capsys.readouterr().out
    assert np.array_equal(model.params, recorder.states[first_bad]) and np.isfinite(model.params).all()
    assert model.optimizer.iterations == first_bad
    assert model.epoch == epoch and model.history.epoch == list(range(epoch + 1))


@pytest.mark.parametrize("augmented", [False, True], ids=["cached", "online"])
@pytest.mark.parametrize("after, rate", [(STEPS, 1e30), (40, 3e38), (2 * STEPS, 1e39)])
def test_it_is_found_in_distillation_too(after, rate, augmented):
    def run(callback):
        optimizer = SGD(PiecewiseConstantDecay([after - 1], [0.01, rate]))
        noise = [GaussianNoise(0.1)] if augmented else []
        layers = [Input((FEATURES,)), *noise, Dense(9, "relu"), Dense(CLASSES, "softmax")]
        student = Sequential(layers, seed=1)
        teacher = (lambda x: 3 * x[:, :CLASSES]) if augmented else TEACHER
        settings = dict(batch_size=BATCH, epochs=4, verbose=0, optimizer=optimizer, callbacks=[callback])
        return student, distill(teacher, student, X, Y, temperature=4.0, **settings)

    recorder = Recorder()
    with pytest.warns(RuntimeWarning, match=rf"epoch \d of 4, step \d+ of {STEPS}: "):
        diverged, told = run(recorder)
    first_bad = recorder.bad.index(True)
    assert first_bad >= after and not np.isfinite(diverged.params).all()
    assert told.student.accuracy == 0 and math.isnan(told.student.loss) and "nan" in str(told)
    assert any("training diverged" in note for note in told.notes)

    terminator = TerminateOnNaN()
    student, report = run(terminator)
    epoch, step = divmod(first_bad, STEPS)
    assert terminator.found.startswith(f"epoch {epoch + 1} of 4, step {step + 1} of {STEPS}: ")
    assert any(f"'{layer.name}'" in terminator.found for layer in student.layers)
    assert np.array_equal(student.params, recorder.states[first_bad]) and np.isfinite(student.params).all()
    assert student.optimizer.iterations == first_bad
    assert report.history.epoch == list(range(epoch + 1)) == list(range(len(report.history.history["loss"])))


def test_without_restore_the_model_stops_behind_the_step():
    recorder = Recorder()
    with pytest.warns(RuntimeWarning):
        fit(exploding(40, 3e38), epochs=4, callbacks=[recorder])
    first_bad = recorder.bad.index(True)
    model = exploding(40, 3e38)
    fit(model, epochs=4, callbacks=[TerminateOnNaN(restore=False)])
    assert np.array_equal(model.params, recorder.states[first_bad + 1], equal_nan=True)
    assert model.optimizer.iterations == first_bad + 1 and not np.isfinite(model.params).all()


def test_without_the_callback_a_warning_names_the_step():
    with pytest.warns(
        RuntimeWarning, match=rf"epoch 2 of 3, step \d+ of {STEPS}: the loss is (nan|inf)"
    ) as seen:
        model = exploding(30, 3e38)
        fit(model, epochs=3)
    assert len([w for w in seen if w.category is RuntimeWarning]) == 1
    assert seen[0].filename.endswith("small_run.py")  # where fit was called
    assert not np.isfinite(model.params).all()  # the control: that is what restoring prevents


@pytest.mark.parametrize("layerwise", [False, True])
def test_parameters_lost_in_the_last_step_of_an_epoch_are_told_of(layerwise):
    """Its loss was finite, and no other follows that would show it."""
    model = exploding(STEPS - 1, 1e39)
    if layerwise:
        model.ops = lambda training=False, logits=False: None
    what = f"weight of layer '{model.layers[-1].name}' after the update is not finite"
    with pytest.warns(RuntimeWarning, match=f"epoch 1 of 1, step {STEPS} of {STEPS}: {what}") as seen:
        history = fit(model).history
    assert np.isfinite(history["loss"]).all() and not np.isfinite(model.params).all()
    assert seen[0].filename.endswith("small_run.py")


def test_looking_for_nan_changes_nothing():
    plain, watched = new_model(), new_model()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = fit(plain, epochs=3)
        second = fit(watched, epochs=3, callbacks=[TerminateOnNaN(raise_error=True)])
    assert np.array_equal(plain.params, watched.params) and first.history == second.history


def test_the_layer_is_named():
    class Breaks(Layer):
        calls = 0

        def forward(self, x, training=False):
            self.calls += 1
            return x * np.float32(np.nan if self.calls > 7 else 1)

        def backward(self, dout):
            return dout

    model = Sequential([Dense(3, input_shape=(FEATURES,)), Breaks(name="culprit"), Dense(CLASSES, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(RuntimeError, match=r"epoch 1 of 1, step 8 of 25: the output of layer 'culprit'"):
        fit(model, callbacks=[TerminateOnNaN(raise_error=True)])
    assert model.optimizer.iterations == 7 and np.isfinite(model.params).all()


# -- at the edge -----------------------------------------------------------------------------------

# name: (loss, its oracle of (z, v, labels, one-hot rows)); those without a teacher ignore v
LOSSES = {
    "categorical": (
        losses.CategoricalCrossentropy(from_logits=True),
        lambda z, v, y, rows: exact.crossentropy(z, rows),
    ),
    "sparse": (
        losses.SparseCategoricalCrossentropy(from_logits=True),
        lambda z, v, y, rows: exact.crossentropy(z, rows),
    ),
    "binary": (
        losses.BinaryCrossentropy(from_logits=True),
        lambda z, v, y, rows: exact.binary_crossentropy(z, rows),
    ),
    "mse": (losses.MeanSquaredError(), lambda z, v, y, rows: exact.squared_error(z, rows)),
    "half mse": (losses.HalfMeanSquaredError(), lambda z, v, y, rows: exact.half_squared_error(z, rows)),
    "mae": (losses.MeanAbsoluteError(), lambda z, v, y, rows: exact.absolute_error(z, rows)),
    "huber": (losses.Huber(), lambda z, v, y, rows: exact.huber(z, rows)),
    "KD": (losses.KnowledgeDistillation(4.0, 0.0, 1.0), lambda z, v, y, rows: exact.soft(z, v, 4)),
    "KD at T 3": (losses.KnowledgeDistillation(3.0, 0.0, 1.0), lambda z, v, y, rows: exact.soft(z, v, 3)),
    "KD at T 20": (losses.KnowledgeDistillation(20.0, 0.0, 1.0), lambda z, v, y, rows: exact.soft(z, v, 20)),
    "KD with labels": (
        losses.KnowledgeDistillation(4.0, 0.5, 0.5),
        lambda z, v, y, rows: tuple(
            (hard + soft) / 2
            for hard, soft in zip(exact.crossentropy(z, rows), exact.soft(z, v, 4), strict=True)
        ),
    ),
    "KD standardized": (
        losses.KnowledgeDistillation(2.0, 0.0, 1.0, standardize=True),
        lambda z, v, y, rows: exact.standardized(z, v, 2),
    ),
    "DKD": (
        losses.DecoupledKD(hard_weight=0.0, warmup_epochs=0),
        lambda z, v, y, rows: exact.decoupled(z, v, y, 4, 1, 8),
    ),
    "NKD": (
        losses.NormalizedKD(hard_weight=0.0, temperature=2.0),
        lambda z, v, y, rows: exact.normalized(z, v, y, 2, Real(1.5), 1),
    ),
    "LogitMatching": (losses.LogitMatching(0.0, 1.0), lambda z, v, y, rows: exact.logit_matching(z, v)),
    "sigmoids": (
        losses.BinaryKnowledgeDistillation(4.0, 0.0, 1.0),
        lambda z, v, y, rows: exact.sigmoids(z, v, 4),
    ),
    "regression": (
        losses.RegressionDistillation(0.5, 0.5),
        lambda z, v, y, rows: tuple(
            (hard + soft) / 2
            for hard, soft in zip(
                exact.squared_error(z, rows), exact.squared_error(z, v.astype(Real)), strict=True
            )
        ),
    ),
    "DIST": (
        losses.DIST(hard_weight=0.0, temperature=2.0),
        lambda z, v, y, rows, copies=1: exact.dist(z, v, 2, 1, 1, copies),
    ),
}

SCALES = [1e-310, 1e-42, 1e-3, 1.0, 30.0, 1e3, 1e4]
OF_THE_BATCH = ("DIST",)
ON_TWO_CLASSES = ("KD standardized", "DKD", "NKD", "DIST")


def logits_of(scale, rows, classes, dtype, seed=0):
    """Some of every size up to ``scale``; two equal rows, one of a single peak, one of zeros."""
    rng = np.random.default_rng([seed, classes])
    z = (rng.uniform(-scale, scale, (rows, classes)) * rng.choice([1, 1e-2], (rows, classes))).astype(dtype)
    z[0], z[1], z[1, -1] = z[-1], -dtype(scale), dtype(scale)
    z[2] = 0
    return z


def condition(name, z):
    """How much the gradient magnifies rounding: where logits are divided by their spread, by that much."""
    spread = z.std(axis=1, ddof=1).astype(float) + 1e-7 if name in ON_TWO_CLASSES[::3] else np.ones(1)
    return max(1.0, 1 / spread.min() if name == "KD standardized" else 1 / max(spread.max(), 1e-3))


def check_loss(name, z, v, labels):
    """Value and gradient against extended precision, row by row where rows are independent."""
    loss, oracle = LOSSES[name]
    rows, classes = z.shape
    one_hot = np.eye(classes)[labels]
    y = labels if loss.sparse is not False else one_hot
    if name in ("KD", "KD at T 3", "KD at T 20", "KD standardized", "LogitMatching"):
        y = None
    values, gradient = oracle(z, v, labels, one_hot.astype(Real))
    whole = name in OF_THE_BATCH
    parts = [slice(0, rows)] if whole else [slice(row, row + 1) for row in range(rows)]
    temperature = getattr(loss, "temperature", 1.0)
    eps = float(np.finfo(z.dtype).eps)
    for part in parts:
        teacher = (v[part],) if loss.distills else ()
        value, dlogits = loss.value_and_grad(z[part], None if y is None else y[part], *teacher)
        expected, dexpected = (
            float(values[part].mean()),
            (gradient[part] / (part.stop - part.start)).astype(np.float64),
        )
        assert dlogits.dtype == z.dtype and np.isfinite(value) and np.isfinite(dlogits).all()
        slack = 200 * eps * max(1.0, temperature) ** 2 * (1 + np.log(classes))
        assert abs(value - expected) <= slack + 100 * eps * abs(expected), (name, z[part], value, expected)
        slack = (
            200 * eps * max(1.0, temperature) * max(1.0, np.abs(dexpected).max()) * condition(name, z[part])
        )
        assert np.abs(dlogits - dexpected).max() <= slack, (name, z[part], dlogits, dexpected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_right_from_denormal_to_huge_logits(name, dtype):
    for classes in (1, 2, 3, 10, 17, 1100):
        if classes == 1 and name in ON_TWO_CLASSES:
            continue  # nothing to teach: see test_distillation_losses.py
        labels = np.arange(6) % classes
        for scale in SCALES:
            with np.errstate(all="ignore"):
                z, v = (logits_of(scale, 6, classes, dtype, seed) for seed in (0, 1))
                check_loss(name, z, v, labels)
                check_loss(name, z, z, labels)  # the teacher's very logits


@pytest.mark.parametrize("mistake", ["value", "gradient", "row"])
def test_a_wrong_loss_would_be_noticed(mistake, monkeypatch):
    def wrong(z, v, y, rows):
        value, gradient = exact.crossentropy(z, rows)
        if mistake == "value":
            value = value * Real(1.0001)
        elif mistake == "gradient":
            gradient = gradient * Real(1.001)
        else:
            gradient[3] = gradient[4]
        return value, gradient

    z = logits_of(30.0, 6, 10, np.float32)
    check_loss("sparse", z, z, np.arange(6))
    monkeypatch.setitem(LOSSES, "sparse", (LOSSES["sparse"][0], wrong))
    with pytest.raises(AssertionError):
        check_loss("sparse", z, z, np.arange(6))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("temperature", [1.0, 4.0, 20.0])
def test_softmax_is_right_from_denormal_to_huge_logits(dtype, temperature):
    eps = np.finfo(dtype).eps
    for classes in (1, 2, 10, 1100, 100_000):
        for scale in SCALES if classes < 100_000 else [1e4]:
            with np.errstate(all="ignore"):
                z = logits_of(scale, 6, classes, dtype)
            log_q = exact.log_softmax(z, temperature)
            q, found = losses.softmax(z, temperature), losses.log_softmax(z, temperature)
            assert np.isfinite(q).all() and np.isfinite(found).all()
            assert np.abs(q - np.exp(log_q)).max() <= 100 * eps
            assert np.abs(q.astype(float).sum(axis=1) - 1).max() <= 100 * eps
            assert (np.abs(found - log_q) <= 100 * eps * (1 + np.abs(log_q))).all()
            assert np.array_equal(losses.boltzmann(-z, temperature), q)


ROWS, DISTINCT = 100_000, 100  # every row many times, so that the oracle need not take so long


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_a_huge_batch_are_right(name, dtype):
    loss, oracle = LOSSES[name]
    z, v = (logits_of(30.0, DISTINCT, 10, dtype, seed) for seed in (0, 1))
    labels = np.arange(DISTINCT) % 10
    copies = {"copies": ROWS // DISTINCT} if name in OF_THE_BATCH else {}
    values, gradient = oracle(z, v, labels, np.eye(10, dtype=Real)[labels], **copies)
    z, v, labels = (np.repeat(array, ROWS // DISTINCT, axis=0) for array in (z, v, labels))
    y = labels if loss.sparse is not False else np.eye(10)[labels]
    value, dlogits = loss.value_and_grad(z, y, *((v,) if loss.distills else ()))
    assert value == pytest.approx(float(values.mean()), rel=1e-5 if dtype == np.float32 else 1e-11)
    # DIST's gradient holds sums over the batch, added up one after the other in float64
    slack = (1000 * np.finfo(dtype).eps + ROWS * 2.0**-52) * max(1.0, float(np.abs(gradient).max()))
    expected = np.repeat(gradient.astype(float), ROWS // DISTINCT, axis=0)
    assert np.abs(dlogits.astype(float) * ROWS - expected).max() <= slack


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["sparse", "mse", "KD with labels", "DKD", "NKD", "LogitMatching", "DIST"])
def test_a_training_step_on_huge_logits_and_a_huge_batch(name, dtype):
    """Through ``fit``: the model's output is its one-hot input times the logits of a table, up to 1e4."""
    loss, oracle = LOSSES[name]
    table, teacher = (logits_of(1e4, 20, 10, np.dtype(dtype).type, seed) for seed in (0, 1))
    labels = np.arange(20) % 10
    one_hot = np.eye(10, dtype=Real)[labels]
    rows = np.arange(ROWS) % 20
    model = Sequential([Dense(10, use_bias=False, input_shape=(20,))], dtype=dtype)
    model.compile(SGD(1.0), loss)
    model.set_weights([table])
    x, y = (
        np.eye(20, dtype=dtype)[rows],
        (labels if loss.sparse is not False else one_hot.astype(float))[rows],
    )
    settings = {"target_model": teacher[rows]} if loss.distills else {}
    found = model.fit(x, y, batch_size=ROWS, verbose=0, **settings).history["loss"][0]
    copies = {"copies": ROWS // 20} if name in OF_THE_BATCH else {}
    values, gradient = oracle(table, teacher, labels, one_hot, **copies)
    eps = float(np.finfo(dtype).eps)
    rel = max(100 * eps, ROWS * 2.0**-52)  # float64 is added up one after the other
    assert found == pytest.approx(float(values.mean()), rel=rel)
    after = model.params.reshape(20, 10)
    step, expected = table.astype(Real) - after, gradient / 20
    assert np.isfinite(after).all()
    assert np.abs(step - expected).max() <= 500 * eps * max(1e4, np.abs(expected).max())
    if not loss.distills:
        expected = oracle(after, None, labels, one_hot)[0].mean()
        assert model.evaluate(x, y, verbose=0) == pytest.approx(float(expected), rel=rel)
