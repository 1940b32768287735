"""fit, evaluate and predict on generators, lists of batches, loaders: the bits of arrays, and epochs as in Keras."""

from __future__ import annotations

import importlib.util
import warnings

import numpy as np
import pytest

import minidl
from minidl import Sequential
from minidl.callbacks import Callback, EarlyStopping, LambdaCallback, LearningRateScheduler, ModelCheckpoint
from minidl.layers import Dense, Dropout, GaussianNoise, Input
from minidl.training import streams

N, B = 150, 16  # the last batch is short
RNG = np.random.default_rng(3)
X = RNG.normal(size=(N, 8)).astype("f4")
Y = RNG.integers(0, 3, N)
WEIGHT = RNG.random(N)
STEPS = -(-N // B)


def make(
    loss="sparse_categorical_crossentropy",
    metrics=("accuracy",),
    dtype="float32",
    layerwise=False,
    optimizer="adam",
):
    layers = [Input((8,)), GaussianNoise(0.1), Dense(12, "relu"), Dropout(0.3), Dense(3, "softmax")]
    model = Sequential(layers, dtype=dtype, seed=4)
    model.compile(optimizer, loss, list(metrics))
    if layerwise:
        model.ops = lambda training=False, logits=False: None
    return model


def parts(x=X, y=Y, weight=None, size=B):
    for first in range(0, len(x), size):
        rows = slice(first, first + size)
        yield (x[rows], y[rows]) if weight is None else (x[rows], y[rows], weight[rows])


class Sequence:
    """As keras.utils.Sequence: a length and numbered batches, no iterator, no IndexError."""

    def __init__(self, size=B):
        self.size, self.epochs = size, 0

    def __len__(self):
        return -(-N // self.size)

    def __getitem__(self, number):
        rows = slice(number * self.size, (number + 1) * self.size)
        return X[rows], Y[rows]

    def on_epoch_end(self):
        self.epochs += 1


class Loader:
    """Begins anew each time it is iterated, and has no length; batches are lists, as a torch DataLoader's."""

    def __iter__(self):
        return (list(batch) for batch in parts())


def fit(x, *y, model=None, **settings):
    model = model or make()
    history = model.fit(x, *y, **{"epochs": 3, "verbose": 0} | settings)
    return model, history.history


def on_arrays(model=None, **settings):
    return fit(X, Y, model=model, **{"batch_size": B, "shuffle": False} | settings)


# -- the same bits as on arrays -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["list", "sequence", "loader", "generator", "generator with steps"])
def test_batches_give_the_bits_and_the_history_of_arrays(kind):
    expected, logs = on_arrays()
    if kind.startswith("generator"):
        endless = (batch for _ in range(3) for batch in parts())
        model, found = fit(endless, steps_per_epoch=STEPS)
    else:
        model, found = fit({"list": list(parts()), "sequence": Sequence(), "loader": Loader()}[kind])
    assert np.array_equal(model.params, expected.params) and found == logs
    assert (model.epoch, model.draw_epoch, model.unfinished) == (3, 3, None)
    assert model.optimizer.iterations == expected.optimizer.iterations


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layerwise", [False, True])
def test_both_ways_to_run_and_both_dtypes(dtype, layerwise):
    expected, _ = on_arrays(make(dtype=dtype))
    model, _ = fit(list(parts()), model=make(dtype=dtype, layerwise=layerwise))
    assert np.array_equal(model.params, expected.params)


def test_a_fit_on_batches_ends_with_the_average_of_the_parameters():
    def averaging():
        return make(optimizer=minidl.Adam(use_ema=True, gradient_accumulation_steps=2))

    expected, _ = on_arrays(averaging())
    model, _ = fit(list(parts()), model=averaging())
    assert np.array_equal(model.params, expected.params)
    without, _ = on_arrays(make(optimizer=minidl.Adam(gradient_accumulation_steps=2)))
    assert not np.array_equal(model.params, without.params)


def test_the_compiled_loop_runs_many_batches_at_once(monkeypatch):
    runs = []
    run = minidl.training.compiled.CompiledSteps.run

    def counted(self, order, *arguments):
        runs.append(len(order))
        return run(self, order, *arguments)

    monkeypatch.setattr("minidl.training.compiled.CompiledSteps.run", counted)
    fit(list(parts()), epochs=1)
    assert sum(runs) == N and max(runs) > 3 * B


@pytest.mark.parametrize("setting", ["_WINDOW_BYTES", "_WINDOW_SECONDS"])
def test_bits_do_not_depend_on_windows(monkeypatch, setting):
    expected, logs = on_arrays()
    monkeypatch.setattr(streams, setting, 3 * X[:B].nbytes if setting == "_WINDOW_BYTES" else 1e-7)
    model, found = fit(list(parts()))
    assert np.array_equal(model.params, expected.params) and found == logs


def test_other_batches_give_other_bits():
    expected, _ = on_arrays()
    assert not np.array_equal(fit(list(parts(size=B + 1)))[0].params, expected.params)
    assert not np.array_equal(fit(list(parts()), model=make(optimizer="sgd"))[0].params, expected.params)
    reverse = list(parts())[::-1]
    assert not np.array_equal(fit(reverse)[0].params, expected.params)


def test_weights_rows_of_targets_and_class_weights():
    rows = np.eye(3, dtype="f4")[Y]
    pairs = [
        (on_arrays(sample_weight=WEIGHT), fit(list(parts(weight=WEIGHT)))),
        (on_arrays(class_weight={0: 2.0, 2: 0.5}), fit(list(parts()), class_weight={0: 2.0, 2: 0.5})),
    ]
    model = make("categorical_crossentropy")
    model.fit(X, rows, batch_size=B, shuffle=False, epochs=3, verbose=0)
    pairs.append(((model, {}), fit(list(parts(y=rows)), model=make("categorical_crossentropy"))))
    for (expected, _), (found, _) in pairs:
        assert np.array_equal(found.params, expected.params)
    assert len({pair[0][0].params.tobytes() for pair in pairs[:2]}) == 2


def test_batches_of_every_size_are_the_steps_of_train_on_batch_without_draws():
    cuts = [0, 5, 5 + 16, 5 + 16 + 16, 60, 61, 100, N]
    irregular = [(X[a:b], Y[a:b]) for a, b in zip(cuts, cuts[1:], strict=False)]

    def plain():
        model = Sequential([Input((8,)), Dense(12, "relu"), Dense(3, "softmax")], seed=4)
        model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
        return model

    expected, losses = plain(), []
    for batch in irregular:
        losses.append(len(batch[0]) * expected.train_on_batch(*batch)[0])
    model, logs = fit(irregular, model=plain(), epochs=1)
    assert np.array_equal(model.params, expected.params)
    assert logs["loss"][0] == pytest.approx(sum(losses) / N, rel=1e-12)


def test_a_teacher_is_asked_about_the_batches():
    teacher = Sequential([Input((8,)), Dense(3)], seed=9)
    teacher.compile("adam", minidl.losses.SparseCategoricalCrossentropy(from_logits=True))
    teacher.fit(X, Y, verbose=0)
    without_noise = [Input((8,)), Dense(12, "relu"), Dense(3, "softmax")]

    def student(layers):
        model = Sequential(layers, seed=1)
        model.compile("adam")
        return model

    settings = {"target_model": teacher, "temperature": 2.0, "verbose": 0, "epochs": 2}
    expected = student(without_noise)
    expected.fit(X, Y, batch_size=B, shuffle=False, **settings)
    model = student([Input((8,)), Dense(12, "relu"), Dense(3, "softmax")])
    model.fit(list(parts()), **settings)
    assert np.array_equal(model.params, expected.params)
    with pytest.raises(ValueError, match="target_model must be a model or a function where x is an iterable"):
        model.fit(list(parts()), target_model=np.zeros((N, 3)), verbose=0)


def test_a_torch_loader():
    if importlib.util.find_spec("torch") is None:
        pytest.skip("needs torch")
    import torch

    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    model, logs = fit(torch.utils.data.DataLoader(data, batch_size=B))
    expected, wanted = on_arrays()
    assert np.array_equal(model.params, expected.params) and logs == wanted


# -- validation, evaluate, predict ------------------------------------------------------------------------------


def test_validation_on_batches():
    _, wanted = on_arrays(validation_data=(X, Y), validation_freq=2)
    endless = (batch for _ in range(9) for batch in parts())
    for settings in (
        {"validation_data": (X, Y)},
        {"validation_data": list(parts())},
        {"validation_data": Sequence(7)},
        {"validation_data": endless, "validation_steps": STEPS},
    ):
        _, found = fit(list(parts()), validation_freq=2, **settings)
        assert found == wanted
        settings["validation_data"] = (
            list(parts()) if "validation_steps" in settings else settings["validation_data"]
        )
        assert on_arrays(validation_freq=2, **settings)[1] == wanted
    _, weighted = on_arrays(validation_data=(X, Y, WEIGHT))
    assert fit(list(parts()), validation_data=list(parts(weight=WEIGHT)))[1] == weighted
    assert weighted["val_loss"] != on_arrays(validation_data=(X, Y))[1]["val_loss"]


def test_a_generator_for_validation_that_has_ended_is_warned_of():
    with pytest.warns(UserWarning, match=r"validation_data has run out of data after 10 batches"):
        _, logs = fit(list(parts()), validation_data=parts())
    assert len(logs["val_loss"]) == 1 and len(logs["loss"]) == 3


def test_evaluate_and_predict():
    model, _ = on_arrays()
    assert model.evaluate(parts(), verbose=0) == model.evaluate(X, Y, verbose=0)
    assert model.evaluate(parts(weight=WEIGHT), verbose=0) == model.evaluate(
        X, Y, sample_weight=WEIGHT, verbose=0
    )
    assert model.evaluate(Sequence(), steps=2, verbose=0) == model.evaluate(X[:32], Y[:32], verbose=0)
    for data in (parts(), Sequence(), Loader(), (batch[:1] for batch in parts()), (x for x, _ in parts())):
        assert np.array_equal(model.predict(data), model.predict(X))
    assert np.array_equal(model.predict(parts(), steps=3), model.predict(X[:48]))
    irregular = [(X[:5], Y[:5]), (X[5:40], Y[5:40]), (X[40:], Y[40:])]
    assert model.evaluate(irregular, verbose=0) == model.evaluate(X, Y, verbose=0)


# -- epochs -----------------------------------------------------------------------------------------------------


def test_a_generator_that_ends_ends_training_with_a_warning():
    with pytest.warns(UserWarning, match="x has run out of data after 10 batches, of this epoch 0"):
        model, logs = fit(parts())
    assert np.array_equal(model.params, on_arrays(epochs=1)[0].params)
    assert len(logs["loss"]) == model.epoch == 1
    with pytest.warns(
        UserWarning, match="after 10 batches, of this epoch 2: it must give 4 batches an epoch"
    ):
        model, logs = fit(parts(), steps_per_epoch=4)
    assert len(logs["loss"]) == 3 and model.optimizer.iterations == STEPS


def test_one_epoch_of_a_generator_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(parts(), epochs=1)
        fit(list(parts()), steps_per_epoch=STEPS // 2, epochs=2)  # exactly one round


def test_an_epoch_goes_on_where_the_last_one_ended():
    seen = []

    class Source:
        def __iter__(self):
            for number, batch in enumerate(parts()):
                seen.append(number)
                yield batch

    model, _ = fit(Source(), steps_per_epoch=5, epochs=4)
    assert seen == [*range(10), *range(10)] and model.optimizer.iterations == 20
    seen.clear()
    with pytest.warns(UserWarning, match="of this epoch 4: it must give 6 batches an epoch"):
        model, logs = fit(Source(), steps_per_epoch=6, epochs=3)
    assert seen == [*range(10), *range(6)] and len(logs["loss"]) == 3


def test_a_sequence_is_told_of_the_end_of_each_epoch():
    sequence = Sequence()
    fit(sequence)
    assert sequence.epochs == 3


def test_callbacks_are_called_as_on_arrays(tmp_path):
    class Records(Callback):
        def __init__(self):
            super().__init__()
            self.calls = []

        def on_train_batch_end(self, batch, logs=None):
            self.calls.append((batch, dict(logs)))

        def on_epoch_end(self, epoch, logs=None):
            self.calls.append((self.model.epoch, epoch, dict(logs)))

    def run(train):
        records = Records()
        callbacks = [
            records,
            LearningRateScheduler(lambda epoch: 0.01 / (1 + epoch)),
            EarlyStopping("loss", patience=2),
        ]
        model, _ = train(callbacks=callbacks, initial_epoch=1)
        return records.calls, model.params

    calls, params = run(on_arrays)
    found, found_params = run(lambda **settings: fit(list(parts()), **settings))
    assert found == calls and np.array_equal(found_params, params)
    fit(list(parts()), callbacks=[ModelCheckpoint(tmp_path / "model.npz")], epochs=2)
    again = minidl.load_model(tmp_path / "model.npz")
    assert again.epoch == 2 and again.unfinished is None
    fit(list(parts()), model=again, initial_epoch=2)
    assert np.array_equal(again.params, on_arrays()[0].params)


@pytest.mark.parametrize("source", [lambda: list(parts()), Sequence, Loader])
def test_training_that_is_left_in_an_epoch_begins_it_anew(source):
    model = make()

    def stop(batch, logs):
        model.stop_training = batch == 3

    fit(source(), model=model, callbacks=[LambdaCallback(on_train_batch_end=stop)])
    assert (model.epoch, model.draw_epoch, model.unfinished) == (0, 1, None)
    assert model.optimizer.iterations == 4

    def fails(batch, logs):
        if batch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(source(), model=model, callbacks=[LambdaCallback(on_train_batch_end=fails)])
    assert (model.epoch, model.draw_epoch, model.unfinished) == (0, 2, None)
    fit(source(), model=model)
    assert model.epoch == 3


def test_a_fit_on_arrays_that_was_left_is_said_to_begin_anew():
    model = make()

    def stop(batch, logs):
        model.stop_training = batch == 3

    on_arrays(model, callbacks=[LambdaCallback(on_train_batch_end=stop)])
    assert model.unfinished is not None
    with pytest.warns(
        UserWarning, match="epoch 1 was left in its middle; a fit on an iterable begins epoch 1 anew"
    ):
        fit(list(parts()), model=model)
    assert model.epoch == 3 and model.unfinished is None


def test_nan_is_found_and_undone():
    bad = list(parts())
    bad[4] = (bad[4][0] * np.float32(1e30), bad[4][1])
    model = make(optimizer=minidl.SGD(1e20))
    callback = minidl.TerminateOnNaN()
    _, logs = fit(bad, model=model, callbacks=[callback])
    assert model.stop_training and np.isfinite(model.params).all() and "step" in callback.found


def test_progress_is_shown(capsys):
    fit(list(parts()), verbose=2, epochs=1)
    assert "Epoch 1/1 - " in capsys.readouterr().out
    fit(Loader(), verbose=1, epochs=2)
    assert "10/10" in capsys.readouterr().out


# -- refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data, settings, error, message",
    [
        (lambda: parts(), {"y": Y}, ValueError, "y must be left out where x is an iterable"),
        (lambda: parts(), {"batch_size": 16}, ValueError, "batch_size must be left out .* got 16"),
        (lambda: parts(), {"sample_weight": WEIGHT}, ValueError, "sample_weight must be left out"),
        (lambda: parts(), {"validation_split": 0.2}, ValueError, "validation_split must be left out"),
        (lambda: parts(), {"steps_per_epoch": 0}, ValueError, "steps_per_epoch must be >= 1"),
        (
            lambda: X,
            {"y": Y, "steps_per_epoch": 2},
            ValueError,
            "steps_per_epoch counts the batches of an iterable",
        ),
        (lambda: X, {"y": Y, "validation_steps": 2}, ValueError, "validation_steps counts the batches"),
        (lambda: iter([]), {}, ValueError, "x must give at least one batch"),
        (lambda: iter([(X, Y, WEIGHT, 3)]), {}, ValueError, r"batch 1 of x must be \(x, y\) or"),
        (
            lambda: iter([(X[:3], Y[:2])]),
            {},
            ValueError,
            "y of batch 1 of x must have one row per sample of x",
        ),
        (lambda: iter([X[:3]]), {}, ValueError, "got y=None|y must|needs y"),
        (lambda: iter(["a"]), {}, TypeError, "x of batch 1 of x must hold real numbers"),
        (
            lambda: iter([(X[:, :3], Y)]),
            {},
            ValueError,
            r"x must have shape \(N, 8\).*iterable, from its step 1",
        ),
        (lambda: {"x": X}, {}, (TypeError, ValueError), "x must"),
    ],
)
def test_bad_data(data, settings, error, message):
    model = make()
    before = model.params.copy()
    with pytest.raises(error, match=message):
        model.fit(data(), **settings, verbose=0)
    assert np.array_equal(model.params, before) and (model.epoch, model.optimizer.iterations) == (0, 0)
    assert not model.turns.trained


def test_a_bad_batch_later_on_is_named():
    data = [*parts()][:6] + [(X[:B], Y[:B] + 7)]
    with pytest.raises(ValueError, match=r"whole numbers in 0..2 .*\(in x, an iterable, from its step"):
        fit(data)


def test_evaluate_and_predict_refuse_what_they_cannot_use():
    model = make()
    for use, message in (
        (lambda: model.evaluate(parts(), Y), "y must be left out"),
        (lambda: model.evaluate(parts(), batch_size=8), "batch_size must be left out"),
        (lambda: model.evaluate(X, Y, steps=3), "steps counts the batches of an iterable"),
        (lambda: model.predict(X, steps=3), "steps counts the batches of an iterable"),
        (lambda: model.predict(parts(), batch_size=8), "batch_size must be left out"),
        (lambda: model.predict(iter([])), "x must give at least one batch"),
        (
            lambda: model.evaluate(iter([(X, Y), (X[:, :2], Y)]), verbose=0),
            "x of x must have one shape in all batches",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            use()


def test_lists_of_samples_stay_data():
    model = make()
    assert not any(
        map(
            streams.is_stream,
            (X, X.tolist(), list(X), [X], (X, Y), [(1.0, 2.0)], "x", None, {}, range(3), Sequence),
        )
    )
    assert all(map(streams.is_stream, (parts(), [(X, Y)], [(X,)], Sequence(), Loader(), iter([X]))))
    assert np.array_equal(model.predict(list(X)), model.predict(X))


@pytest.mark.parametrize("layerwise", [False, True])
def test_a_generator_may_fill_the_same_arrays_again(layerwise):
    """Several batches are read before the first is used: each is copied."""

    def refilled():
        x, y, weight = np.empty((B, 8), "f4"), np.empty(B, int), np.empty(B)
        for batch in parts(weight=WEIGHT):
            rows = len(batch[0])
            for array, values in zip((x, y, weight), batch, strict=True):
                array[:rows] = values
            yield x[:rows], y[:rows], weight[:rows]

    model, other = make(layerwise=layerwise), make(layerwise=layerwise)
    history = model.fit(parts(weight=WEIGHT), verbose=0, validation_data=parts(weight=WEIGHT)).history
    assert history == other.fit(refilled(), verbose=0, validation_data=refilled()).history
    np.testing.assert_array_equal(model.params, other.params)
    assert model.evaluate(refilled(), verbose=0) == model.evaluate(parts(weight=WEIGHT), verbose=0)
    np.testing.assert_array_equal(
        model.predict(refilled(), verbose=0), model.predict(parts(weight=WEIGHT), verbose=0)
    )


def test_a_function_metric_is_called_once_a_batch(monkeypatch):
    """And once before the first step, whatever the windows."""
    monkeypatch.setattr(streams, "_WINDOW_BYTES", 1)  # a window for each batch
    calls = []

    def counted(y_true, y_pred):
        calls.append(len(y_true))
        return np.zeros(len(y_true))

    model = make()
    model.compile("sgd", "sparse_categorical_crossentropy", [counted])
    fit(list(parts()), model=model, epochs=2)
    sizes = [len(x) for x, _ in parts()]
    assert calls == [sizes[0], *sizes, *sizes]
