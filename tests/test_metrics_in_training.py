"""Metrics that are functions of several sums, and functions of the user's, while a model is trained and evaluated."""

import copy
import csv
import pickle
import warnings

import numpy as np
import pytest
from small_run import StopAt, same_state

import minidl
from minidl import metrics
from minidl.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TerminateOnNaN,
)
from minidl.layers import Dense, Dropout, Input, Layer
from minidl.models import Sequential, load_model
from minidl.optimizers import Adam
from minidl.training import compiled

ROWS, BATCH = 210, 32
STEPS = -(-ROWS // BATCH)
rng = np.random.default_rng(11)
X = rng.normal(size=(ROWS, 6)).astype("f4")
NUMBERS = (X[:, :3] + 0.5 * rng.normal(size=(ROWS, 3))).astype("f4")
DECISIONS = (NUMBERS > 0.2).astype("f4")
LABELS = np.argmax(NUMBERS, axis=1)


def furthest(y_true, y_pred):
    return np.abs(y_true - y_pred).max()


def distance(y_true, y_pred):
    return np.abs(y_true - y_pred).mean(axis=1)


def surprise(y_true, y_pred):
    assert y_true.ndim == 1 and y_true.min() >= 0
    return -np.log(y_pred[np.arange(len(y_true)), y_true])


def of_decisions():
    several = metrics.Precision(thresholds=[0.3, 0.6], name="several")
    f1 = metrics.F1Score(threshold=0.5)
    return ["accuracy", "auc", several, metrics.Recall(class_id=1), f1, "bce", furthest, "mse", distance]


def of_numbers():
    return [
        metrics.R2Score(),
        "root_mean_squared_error",
        "mape",
        "mae",
        metrics.R2Score(None, name="each"),
        furthest,
    ]


def of_labels():
    return ["sparse_categorical_crossentropy", "accuracy", surprise]


KINDS = {
    "decisions": ("sigmoid", "binary_crossentropy", DECISIONS, of_decisions),
    "numbers": ("linear", "mse", NUMBERS, of_numbers),
    "labels": ("softmax", "sparse_categorical_crossentropy", LABELS, of_labels),
}


def new_model(kind="decisions", made=None, dropout=0.2):
    head, loss, _, listed = KINDS[kind]
    model = Sequential([Input((6,)), Dense(12, "tanh"), Dropout(dropout), Dense(3, head)], seed=4)
    model.compile(Adam(0.01), loss, listed() if made is None else made)
    return model


def fit(model, kind="decisions", **arguments):
    y = KINDS[kind][2]
    return model.fit(X, y, **{"batch_size": BATCH, "verbose": 0, "epochs": 3, **arguments}).history


def layerwise(model, *arguments, **more):
    model.ops = lambda training=False, logits=False: None
    return fit(model, *arguments, **more)


def assert_same(history, other, but=()):
    assert list(history) == list(other)
    for name in history:
        for a, b in zip(history[name], other[name], strict=True):
            if name in but:
                np.testing.assert_allclose(a, b, rtol=1e-12)
            else:
                np.testing.assert_array_equal(a, b, err_msg=name)


# -- what is shown ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_evaluate_shows_what_the_metric_makes_of_all_predictions(kind):
    model, y = new_model(kind), KINDS[kind][2]
    fit(model, kind, epochs=1)
    logs, pred = model.evaluate(X, y, batch_size=ROWS, verbose=0, return_dict=True), model.predict(X)
    assert list(logs) == ["loss", *(metric.name for metric in model.metrics)]
    for metric in model.metrics:
        np.testing.assert_allclose(logs[metric.name], metric(y, pred), rtol=1e-9, err_msg=metric.name)
    listed = model.evaluate(X, y, verbose=0)
    assert len(listed) == len(logs) and listed[0] == pytest.approx(logs["loss"])


@pytest.mark.parametrize("kind", KINDS)
def test_training_shows_the_results_over_its_own_batches(kind):
    """Each batch's prediction as it was before its step: by a model without dropout that is trained in parts."""
    whole, model, y = new_model(kind, dropout=0.0), new_model(kind, dropout=0.0), KINDS[kind][2]
    history = fit(whole, kind, epochs=1, shuffle=False)
    judged = [copy.deepcopy(metric) for metric in model.metrics]
    for first in range(0, ROWS, BATCH):
        rows = slice(first, first + BATCH)
        pred = model.predict(X[rows])
        for metric in judged:
            metric.update_state(y[rows], pred)
        model.train_on_batch(X[rows], y[rows])
    for metric in judged:
        np.testing.assert_allclose(history[metric.name][0], metric.result(), rtol=1e-4, err_msg=metric.name)


def test_a_function_of_a_whole_batch_follows_the_batches_of_evaluate():
    model = new_model()
    each = [furthest(DECISIONS[i : i + 50], model.predict(X[i : i + 50])) for i in range(0, ROWS, 50)]
    logs = model.evaluate(X, DECISIONS, batch_size=50, verbose=0, return_dict=True)
    assert logs["furthest"] == pytest.approx(np.mean(each), rel=1e-6)
    history = fit(model, validation_data=(X, DECISIONS), validation_batch_size=ROWS, epochs=1)
    assert history["val_furthest"][0] == pytest.approx(furthest(DECISIONS, model.predict(X)), rel=1e-6)


def test_large_data_are_evaluated_in_whole_batches(monkeypatch):
    from minidl.training import inference

    model = new_model()
    expected = model.evaluate(X, DECISIONS, batch_size=20, verbose=0, return_dict=True)
    monkeypatch.setattr(inference, "CHUNK_BYTES", 50 * 6 * 4)  # 50 rows, of which 40 are whole batches
    found = model.evaluate(X, DECISIONS, batch_size=20, verbose=0, return_dict=True)
    assert_same(
        {k: [v] for k, v in found.items()},
        {k: [v] for k, v in expected.items()},
        but=("loss", "accuracy", "mse"),
    )


def test_train_on_batch():
    model = new_model()
    pred = model.predict(X[:50])  # dropout changes what a step sees
    logs = new_model(dropout=0.0).train_on_batch(X[:50], DECISIONS[:50], return_dict=True)
    assert logs["auc"] == pytest.approx(metrics.AUC()(DECISIONS[:50], pred)) and logs["several"].shape == (2,)


# -- the same bits, however it runs ----------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["batches", "one thread", "watched", "unwatched", "validated"])
def test_slices_and_threads_change_no_bit(kind, how):
    fits = {
        "batches": {"callbacks": [LambdaCallback(on_train_batch_end=lambda batch, logs: None)]},
        "watched": {"callbacks": [TerminateOnNaN()]},
        "unwatched": {"epochs": 12},
    }
    arguments = fits.get(how, {})
    expected = fit(new_model(kind), kind, callbacks=[Callback()], epochs=arguments.get("epochs", 3))
    model, threads = new_model(kind), minidl.get_num_threads()
    if how == "validated":
        arguments = {"validation_data": (X, KINDS[kind][2])}
    try:
        minidl.set_num_threads(1 if how == "one thread" else 2)
        found = fit(model, kind, **arguments)
    finally:
        minidl.set_num_threads(threads)
    assert_same({name: values for name, values in found.items() if not name.startswith("val_")}, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_long_steps_change_no_bit(monkeypatch, kind):
    expected = fit(new_model(kind), kind)
    monkeypatch.setattr(compiled, "_PART_FLOPS", 0.0)
    monkeypatch.setattr(compiled, "_PART_ROWS", 8)
    assert_same(fit(new_model(kind), kind), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_short_slices_change_no_bit(monkeypatch, kind):
    """Where the predictions of more steps would take too much memory."""
    expected = fit(new_model(kind), kind)
    monkeypatch.setattr(compiled, "CHUNK_BYTES", 2 * BATCH * 3 * 4)
    model, runs = new_model(kind), []
    run = compiled.CompiledSteps.run
    monkeypatch.setattr(
        compiled.CompiledSteps,
        "run",
        lambda self, order, *rest: (runs.append(len(order)), run(self, order, *rest))[1],
    )
    assert_same(fit(model, kind), expected)
    assert max(runs) == 2 * BATCH


@pytest.mark.parametrize("kind", KINDS)
def test_layer_by_layer_shows_the_same(kind):
    model, other = new_model(kind), new_model(kind)
    kernels = ["loss", *(metric.name for metric in model.metrics if metric.has_kernel)]
    assert_same(layerwise(other, kind), fit(model, kind), but=kernels)
    assert same_state(model, other)


@pytest.mark.parametrize("kind", KINDS)
def test_metrics_do_not_change_the_parameters(kind):
    model, other = new_model(kind), new_model(kind, made=[])
    fit(model, kind)
    fit(other, kind)
    assert same_state(model, other)


@pytest.mark.parametrize("kind", ["numbers", "labels"])
@pytest.mark.parametrize("run", [fit, layerwise])
def test_a_function_may_write_to_what_it_gets(run, kind):
    """It gets copies: nothing of it reaches the training."""

    def spoil(y_true, y_pred):
        y_true[:], y_pred[:] = 0, 0
        return 1.0

    plain, spoilt = new_model(kind, []), new_model(kind, [spoil])
    y = KINDS[kind][2].copy()
    assert run(plain, kind)["loss"] == run(spoilt, kind)["loss"]
    np.testing.assert_array_equal(plain.params, spoilt.params)
    np.testing.assert_array_equal(KINDS[kind][2], y)


@pytest.mark.parametrize("run", [fit, layerwise])
@pytest.mark.parametrize("stop", [3, STEPS + 2])
@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_goes_on_where_it_was_left(tmp_path, kind, stop, run):
    whole = new_model(kind)
    history = run(whole, kind)
    model = new_model(kind)
    run(model, kind, callbacks=[StopAt(stop)])
    model.save(tmp_path / "m.npz")
    functions = {"furthest": furthest, "distance": distance, "surprise": surprise}
    resumed = load_model(tmp_path / "m.npz", custom_objects=functions)
    assert resumed.unfinished == model.unfinished and resumed.unfinished.step == stop % STEPS
    for again in (resumed, copy.deepcopy(model), pickle.loads(pickle.dumps(model)) if run is fit else model):
        rest = run(again, kind, initial_epoch=again.epoch)
        assert same_state(again, whole)
        assert_same(rest, {name: values[stop // STEPS :] for name, values in history.items()})


def test_forgotten_sums_would_be_noticed():
    model, whole = new_model(), new_model()
    history = fit(whole, epochs=1)
    fit(model, epochs=1, callbacks=[StopAt(3)])
    sums = {**model.unfinished.metric_sums, "auc": [0.0] * len(model.unfinished.metric_sums["auc"])}
    model.unfinished = model.unfinished._replace(metric_sums=sums)
    assert fit(model, epochs=1)["auc"] != history["auc"] and same_state(model, whole)


def test_sums_of_another_setting_are_not_taken():
    model = new_model(made=[metrics.AUC(num_thresholds=50)])
    fit(model, epochs=1, callbacks=[StopAt(3)])
    model.compile(model.optimizer, model.loss, [metrics.AUC()])
    logs = fit(model, epochs=1)
    assert 0 < logs["auc"][0] < 1


@pytest.mark.parametrize(
    "changed, message",
    [({"auc": [1.0, "x"]}, "the sum of auc must be a number"), ({"auc": {}}, "the sum of auc must be")],
)
def test_a_files_sums_are_checked(tmp_path, changed, message):
    model = new_model(made=["auc"])
    fit(model, epochs=1, callbacks=[StopAt(3)])
    model.unfinished = model.unfinished._replace(metric_sums=changed)
    model.save(tmp_path / "m.npz")
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path / "m.npz")


def test_rows_without_a_label_are_left_out():
    y, teacher = np.where(np.arange(ROWS) % 3 == 0, -1, LABELS), NUMBERS
    model = new_model("labels")
    model.compile(Adam(0.01), minidl.KnowledgeDistillation(), of_labels())
    logs = model.fit(X, y, BATCH, 2, 0, target_model=teacher, shuffle=False).history
    assert logs["surprise"][1] == pytest.approx(logs["sparse_categorical_crossentropy"][1], rel=1e-5)
    y[:] = -1
    model.compile(Adam(0.01), minidl.KnowledgeDistillation(hard_weight=0.0), of_labels())
    assert list(model.fit(X, y, BATCH, 1, 0, target_model=teacher).history) == ["loss"]


@pytest.mark.parametrize("run", ["compiled", "layerwise"])
def test_rows_of_targets_without_a_label_are_left_out(run):
    y, labelled = DECISIONS.copy(), np.arange(ROWS) % 3 > 0
    y[~labelled] = -1
    model = new_model(made=["auc", "bce", distance], dropout=0.0)
    model.optimizer.learning_rate = 1e-12
    if run == "layerwise":
        model.ops = lambda training=False, logits=False: None
    expected, pred = DECISIONS[labelled], model.predict(X)[labelled]
    logs = model.fit(X, y, BATCH, 1, 0, target_model=NUMBERS).history
    for metric in model.metrics:
        np.testing.assert_allclose(logs[metric.name][0], metric(expected, pred), rtol=1e-5)


def test_weights_of_samples_leave_metrics_alone():
    model = new_model(dropout=0.0)
    fit(model, epochs=1)
    plain = model.evaluate(X, DECISIONS, verbose=0, return_dict=True)
    weighted = model.evaluate(X, DECISIONS, verbose=0, return_dict=True, sample_weight=np.arange(ROWS))
    for name in plain.keys() - {"loss"}:
        np.testing.assert_array_equal(plain[name], weighted[name])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_training_that_diverges_is_told_once(dtype):
    """Its metrics are no numbers, or those of no decision at all; they add no warning of their own."""
    model = Sequential([Input((6,)), Dense(12), Dense(3)], seed=4, dtype=dtype)
    listed = [
        *of_numbers()[:-1],
        "auc",
        "precision",
        metrics.F1Score(),
        metrics.Recall(top_k=2),
        "bce",
        "hinge",
        "poisson",
    ]
    model.compile(minidl.optimizers.SGD(1e6), "mse", listed)
    with pytest.warns(RuntimeWarning) as told:
        logs = model.fit(X, NUMBERS, BATCH, 30, 0).history
    assert [str(one.message)[:8] for one in told] == ["epoch 1 "]
    assert np.isnan(logs["r2_score"][-1]) and logs["precision"][-1] == 0.0


# -- functions that are wrong ----------------------------------------------------------------------


def test_a_wrong_function_is_refused_before_any_step():
    def wrong(y_true, y_pred):
        return np.zeros(3)

    model = new_model(made=[wrong])
    before = model.params.copy()
    with pytest.raises(
        ValueError, match=r"metric 'wrong' must return a number for each .*\(3,\) for 32 samples"
    ):
        fit(model)
    assert np.array_equal(model.params, before) and model.optimizer.iterations == 0


@pytest.mark.parametrize("run", [fit, layerwise])
def test_a_function_that_raises_later_leaves_a_whole_model(run):
    """It is told once the slice is over, and the model says where it is."""
    calls = []

    def moody(y_true, y_pred):
        calls.append(len(y_true))
        if len(calls) == 5:
            raise ZeroDivisionError("moody")
        return np.zeros(len(y_true))

    model, whole = new_model(made=[moody, "auc"]), new_model(made=["auc"])
    with pytest.raises(ZeroDivisionError, match="moody"):
        run(model, epochs=80)
    done = model.epoch * STEPS + (model.unfinished.step if model.unfinished else 0)
    assert model.optimizer.iterations == done > 0
    logs = run(model, epochs=80, initial_epoch=model.epoch)
    history = run(whole, epochs=80)
    assert same_state(model, whole) and len(logs["auc"]) == 80 - done // STEPS
    assert logs["auc"] == history["auc"][done // STEPS :]
    assert np.isnan(logs["moody"][0]) == (done % STEPS > 0) and logs["moody"][-1] == 0.0


def test_outputs_of_several_axes_are_refused():
    class Same(Layer):
        def forward(self, x, training=False):
            return x

        def backward(self, dout):
            return dout

    model = Sequential([Input((4, 3)), Same()])
    model.compile("sgd", "mse", ["mape"])
    with pytest.raises(ValueError, match=r"metric mape needs outputs of shape \(B, C\), got \(B, .*Flatten"):
        model.evaluate(np.zeros((6, 4, 3)), np.ones((6, 4, 3)), verbose=0)


def test_compile_refuses_what_does_not_fit():
    model = new_model("labels", made=[])
    for given, message in (
        (["auc"], "'auc' needs targets shaped as the output"),
        ([distance, distance], "distinct names"),
        ([metrics.SparseCategoricalCrossentropy(name="loss")], "distinct names other than 'loss'"),
        ([3], "metric must be a name, a config or Metric, got 3"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            model.compile("sgd", "sparse_categorical_crossentropy", given)
    model = new_model(made=[])
    with pytest.raises(ValueError, match="class_id of metric 'recall' must be < 3, got 3"):
        model.compile("sgd", "bce", [metrics.Recall(class_id=3)])


# -- callbacks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "monitor", "direction"),
    [
        ("decisions", "val_auc", "up"), ("decisions", "val_recall", "up"), ("decisions", "bce", "down"),
        ("numbers", "val_r2_score", "up"), ("numbers", "root_mean_squared_error", "down"), ("numbers", "mape", "down"),
    ],
)  # fmt: skip
def test_monitors_know_which_direction_is_better(tmp_path, kind, monitor, direction):
    model, y = new_model(kind), KINDS[kind][2]
    stopping = EarlyStopping(monitor, patience=100, restore_best_weights=True)
    callbacks = [
        stopping,
        ModelCheckpoint(tmp_path / "best.npz", monitor, save_best_only=True),
        ReduceLROnPlateau(monitor, patience=1),
    ]
    history = fit(model, kind, epochs=6, validation_data=(X[:50], y[:50]), callbacks=callbacks)
    best = (max if direction == "up" else min)(history[monitor])
    assert stopping.best == best and model.best_logs[monitor] == best
    functions = {"furthest": furthest, "distance": distance}
    saved = load_model(tmp_path / "best.npz", custom_objects=functions)
    if monitor.startswith("val_"):
        again = saved.evaluate(X[:50], y[:50], verbose=0, return_dict=True)[monitor.removeprefix("val_")]
        assert again == pytest.approx(best, rel=1e-6)


def test_several_numbers_cannot_be_monitored_and_a_function_needs_a_mode():
    with pytest.raises(ValueError, match="monitor='f1_score' has 3 numbers, and one is needed"):
        fit(new_model(), callbacks=[EarlyStopping("f1_score")])
    with pytest.raises(
        ValueError, match="monitor='furthest' is a function of yours, .*pass mode='min' or mode='max'"
    ):
        fit(new_model(), callbacks=[EarlyStopping("furthest")])
    fit(new_model(), callbacks=[EarlyStopping("furthest", mode="min")])


def test_several_numbers_in_logs(tmp_path, capsys):
    model = new_model(made=[metrics.F1Score(threshold=0.5)])
    history = fit(model, epochs=2, verbose=2, callbacks=[CSVLogger(tmp_path / "log.csv")])
    assert [values.shape for values in history["f1_score"]] == [(3,), (3,)]
    assert f"f1_score: {history['f1_score'][0].mean():.4f}" in capsys.readouterr().out
    with open(tmp_path / "log.csv", newline="") as file:
        shown = [row["f1_score"] for row in csv.DictReader(file)]
    assert shown == [str(values.tolist()) for values in history["f1_score"]]


# -- files -----------------------------------------------------------------------------------------


def test_a_saved_model_keeps_its_metrics(tmp_path):
    model = new_model()
    fit(model, epochs=1)
    model.save(tmp_path / "m.npz")
    with pytest.raises(
        ValueError, match="m.npz.*metric furthest is a function of your own: pass custom_objects="
    ):
        load_model(tmp_path / "m.npz")
    loaded = load_model(tmp_path / "m.npz", custom_objects={"furthest": furthest, "distance": distance})
    kept = [metrics.serialize(metric) for metric in model.metrics]
    assert [metrics.serialize(metric) for metric in loaded.metrics] == kept
    one, other = (each.evaluate(X, DECISIONS, verbose=0, return_dict=True) for each in (model, loaded))
    assert_same({k: [v] for k, v in one.items()}, {k: [v] for k, v in other.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(loaded, epochs=2, initial_epoch=1)
