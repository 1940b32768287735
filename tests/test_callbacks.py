"""Callbacks driven by hand: what each does to a model, and what the bar shows."""

import csv
import gc
import io
import os
import pickle
import warnings
import weakref

import numpy as np
import pytest

from minidl import callbacks, metrics
from minidl.layers import Dense, Dropout, Input
from minidl.models import Sequential, load_model
from minidl.optimizers import Adam
from minidl.optimizers.schedules import ExponentialDecay
from minidl.training import inference
from minidl.training.interrupts import Turns


class Optimizer:
    learning_rate = 1.0


class Model:
    """As much of a model as callbacks touch."""

    def __init__(self):
        self.params = np.zeros(3)
        self.optimizer = Optimizer()
        self.metrics = [metrics.get("accuracy"), metrics.get("mse")]
        self.stop_training = False
        self.saved, self.best_logs, self.turns = [], {}, Turns()

    def save(self, path):
        self.saved.append(("model", str(path)))

    def save_weights(self, path):
        self.saved.append(("weights", str(path)))


def run(callback, logs, model=None, steps=3):
    """Epochs as fit runs them; returns the model. params are the epoch's number."""
    model = model or Model()
    group = callbacks.CallbackList([callback], model=model, epochs=len(logs), steps=steps, verbose=0)
    group.on_train_begin()
    for epoch, log in enumerate(logs):
        group.on_epoch_begin(epoch)
        for batch in range(steps):
            group.on_train_batch_begin(batch)
            group.on_train_batch_end(batch, {"loss": log.get("loss", 0.0)})
        model.params[...] = epoch
        group.on_epoch_end(epoch, log)
        if model.stop_training:
            break
    group.on_train_end()
    return model


def losses(*values):
    return [{"loss": value, "val_loss": value} for value in values]


def test_history():
    history = callbacks.History()
    model = run(history, [{"loss": 2.0}, {"loss": 1.0, "val_loss": 3.0}])
    assert history.history == {"loss": [2.0, 1.0], "val_loss": [3.0]}
    assert history.epoch == [0, 1]
    assert model.history is history


def test_a_model_goes_when_nobody_uses_it():
    """Its arrays are not left to the collector of cycles, which large ones would outrun."""
    gc.collect()
    gc.disable()
    try:
        model = Sequential([Dense(3, input_shape=(2,))])
        model.compile("adam", "mse")
        history = model.fit(np.eye(2), np.ones((2, 3)), epochs=2, verbose=0)
        model.predict(np.eye(2))
        assert history.model is model and model.history is history
        copy = pickle.loads(pickle.dumps(history))
        assert copy.model is None and copy.history == history.history and copy.epoch == [0, 1]
        gone = weakref.ref(model)
        del model
        assert gone() is None and history.model is None and len(history.history["loss"]) == 2
    finally:
        gc.enable()


def test_early_stopping_patience_and_restore():
    stopper = callbacks.EarlyStopping(patience=2, restore_best_weights=True)
    model = run(stopper, losses(3.0, 1.0, 2.0, 1.5, 0.1))
    assert (stopper.stopped_epoch, stopper.best, stopper.best_epoch) == (3, 1.0, 1)
    np.testing.assert_array_equal(model.params, 1.0)
    # without the two epochs of patience used up it does not stop, and keeps the last parameters
    kept = run(callbacks.EarlyStopping(patience=2), losses(3.0, 1.0, 2.0, 0.5))
    assert not kept.stop_training
    np.testing.assert_array_equal(kept.params, 3.0)


def test_early_stopping_restores_while_nobody_reads():
    class Watched(Turns):
        def take(self, work, *arguments):
            seen.append(model.params.copy())
            super().take(work, *arguments)
            seen.append(model.params.copy())

    model, seen = Model(), []
    model.turns = Watched()
    run(callbacks.EarlyStopping(patience=2, restore_best_weights=True), losses(3.0, 1.0, 2.0, 1.5), model)
    assert np.array_equal(seen, [[3.0] * 3, [1.0] * 3])


def test_early_stopping_min_delta_direction_and_start():
    stopper = callbacks.EarlyStopping(patience=1, min_delta=0.5)
    run(stopper, losses(3.0, 2.8, 1.0))
    assert stopper.stopped_epoch == 1
    up = callbacks.EarlyStopping(monitor="val_accuracy", patience=1)
    run(up, [{"val_accuracy": a} for a in (0.1, 0.2, 0.3, 0.25)])
    assert (up.stopped_epoch, up.best) == (3, 0.3)
    late = callbacks.EarlyStopping(patience=1, start_from_epoch=3)
    run(late, losses(1.0, 2.0, 3.0, 4.0, 3.5, 3.6))
    assert late.stopped_epoch == 5
    base = callbacks.EarlyStopping(patience=2, baseline=0.5)
    run(base, losses(3.0, 2.0, 1.0, 0.9))  # improves, but never beats the baseline
    assert base.stopped_epoch == 0 and base.wait == 4
    run(base, losses(3.0, 2.0, 2.5))
    assert base.stopped_epoch == 2


def test_early_stopping_nan_is_no_improvement():
    stopper = callbacks.EarlyStopping(patience=1, restore_best_weights=True)
    model = run(stopper, losses(1.0, float("nan")))
    assert stopper.stopped_epoch == 1
    np.testing.assert_array_equal(model.params, 0.0)


def test_unknown_monitor():
    with pytest.warns(UserWarning, match="no log 'val_loss'. There are: loss"):
        run(callbacks.EarlyStopping(), [{"loss": 1.0}])
    with pytest.raises(ValueError, match="pass mode='min' or mode='max'"):
        run(callbacks.EarlyStopping(monitor="speed"), [{"speed": 1.0}, {"speed": 2.0}])
    for callback in (
        callbacks.EarlyStopping("val_los"),
        callbacks.ReduceLROnPlateau("acc"),
        callbacks.ModelCheckpoint("x.npz", "val_los", save_best_only=True),
    ):  # one that never stops, reduces, saves
        with pytest.raises(
            ValueError, match="'(val_los|acc)' is no loss and no metric.*There are: loss, val_loss"
        ):
            run(callback, losses(1.0, 2.0))
    run(callbacks.EarlyStopping(monitor="speed", mode="max"), [{"speed": 1.0}, {"speed": 2.0}])
    for monitor in ("val_los", "sped"):  # no better where the direction was given
        for mode in ("min", "max"):
            with pytest.raises(ValueError, match=f"no log '{monitor}'. There are: loss, val_loss"):
                run(callbacks.EarlyStopping(monitor, mode=mode), losses(1.0, 2.0))


def test_a_log_that_another_callback_adds_is_monitored():
    """Listed before; of a validation that is not in every epoch, it is waited for."""
    x, y = samples()

    def add(epoch, logs):
        logs["speed"] = 1.0
        if "val_loss" in logs:
            logs["val_speed"] = float(-epoch)

    def train(*listed):
        options = dict(epochs=6, verbose=0, validation_split=0.2, validation_freq=2)
        return learner().fit(x, y, callbacks=listed, **options).epoch

    def stop(monitor):
        return callbacks.EarlyStopping(monitor, mode="max", patience=1)

    adds = callbacks.LambdaCallback(on_epoch_end=add)
    assert len(train(adds, stop("speed"))) == 2
    with pytest.raises(ValueError, match="no log 'speed'. There are: loss, accuracy$"):
        train(stop("speed"), adds)
    with pytest.warns(UserWarning, match="no log 'val_speed'. There are: loss, accuracy, speed$"):
        assert len(train(adds, stop("val_speed"))) == 4  # the second validation was worse than the first
    found = "no log 'val_sped'. There are: loss, accuracy, "
    with pytest.warns(UserWarning, match=found), pytest.raises(ValueError, match=f"{found}val_loss"):
        train(adds, stop("val_sped"))


def test_model_checkpoint(tmp_path):
    path = tmp_path / "sub" / "{epoch:02d}-{val_loss:.2f}.npz"
    model = run(callbacks.ModelCheckpoint(path), losses(1.0, 0.5))
    names = [str(tmp_path / "sub" / name) for name in ("01-1.00.npz", "02-0.50.npz")]
    assert model.saved == [("model", name) for name in names]
    assert (tmp_path / "sub").is_dir()
    best = callbacks.ModelCheckpoint(tmp_path / "best.npz", save_best_only=True, save_weights_only=True)
    assert len(run(best, losses(1.0, 2.0, 0.5, 0.7)).saved) == 2
    threshold = callbacks.ModelCheckpoint("x.npz", save_best_only=True, initial_value_threshold=0.6)
    assert len(run(threshold, losses(1.0, 2.0, 0.5, 0.7)).saved) == 1
    some = callbacks.ModelCheckpoint(str(tmp_path / "{epoch}-{batch}.npz"), save_freq=2)
    model = run(some, losses(1.0, 1.0), steps=5)
    assert [name.rsplit("/")[-1] for _, name in model.saved] == [
        "1-2.npz",
        "1-4.npz",
        "2-1.npz",
        "2-3.npz",
        "2-5.npz",
    ]
    with pytest.raises(ValueError, match="names 'val_acc', but there are only: epoch, loss, val_loss"):
        run(callbacks.ModelCheckpoint("{val_acc}.npz"), losses(1.0))


def test_learning_rate_scheduler():
    rates = []

    def halve(epoch, rate):
        rates.append(rate)
        return rate / 2

    logs = losses(1.0, 1.0, 1.0)
    model = run(callbacks.LearningRateScheduler(halve), logs)
    assert rates == [1.0, 0.5, 0.25]
    assert model.optimizer.learning_rate == 0.125
    assert [log["learning_rate"] for log in logs] == [0.5, 0.25, 0.125]
    assert (
        run(callbacks.LearningRateScheduler(lambda epoch: 0.1 + epoch), losses(1, 1)).optimizer.learning_rate
        == 1.1
    )
    with pytest.raises(ValueError, match="must be finite, got nan"):
        run(callbacks.LearningRateScheduler(lambda epoch, rate: float("nan")), losses(1.0))


def test_reduce_on_plateau():
    reducer = callbacks.ReduceLROnPlateau(factor=0.5, patience=2, cooldown=1, min_lr=0.3)
    logs = losses(*[1.0] * 8)
    model = run(reducer, logs)
    # worse since epoch 1: halved after epoch 2; cools down for one epoch, halved again (to min_lr) after 4
    assert [log["learning_rate"] for log in logs] == [1.0, 1.0, 1.0, 0.5, 0.5, 0.3, 0.3, 0.3]
    assert model.optimizer.learning_rate == 0.3


def test_csv_logger(tmp_path):
    path = tmp_path / "log.csv"
    run(callbacks.CSVLogger(path), [{"loss": 2.0}, {"loss": 1.0}])
    run(callbacks.CSVLogger(path, append=True), [{"loss": 0.5, "val_loss": 4.0}])
    rows = list(csv.DictReader(path.open()))
    assert [row["loss"] for row in rows] == ["2.0", "1.0", "0.5"]
    assert path.read_text().splitlines()[0] == "epoch,loss,val_loss"
    run(callbacks.CSVLogger(path, separator=";"), [{"loss": 2.0}])
    assert path.read_text().splitlines() == ["epoch;loss;val_loss", "0;2.0;NA"]


def test_csv_logger_appends_under_the_files_own_headings(tmp_path):
    path = tmp_path / "log.csv"
    log = callbacks.CSVLogger(path, append=True)
    run(log, [{"loss": 2.0, "accuracy": 0.5}])
    run(log, [{"accuracy": 0.6, "loss": 1.0}, {"loss": 0.5}])
    rows = list(csv.DictReader(path.open()))
    assert [(row["loss"], row["accuracy"]) for row in rows] == [("2.0", "0.5"), ("1.0", "0.6"), ("0.5", "NA")]
    before = path.read_bytes()
    with pytest.raises(ValueError, match="log.csv has no heading for mse: log into another file"):
        run(log, [{"loss": 1.0, "mse": 3.0}])
    with pytest.raises(ValueError, match="must begin with the heading 'epoch' to append"):
        run(callbacks.CSVLogger(path, separator=";", append=True), losses(1.0))
    assert path.read_bytes() == before
    run(callbacks.CSVLogger(path), [{"loss": 1.0, "mse": 3.0}])
    assert path.read_text().splitlines()[0] == "epoch,loss,mse,val_loss,val_mse"


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n0,2.0,", "\n0,2.0,1"])
def test_csv_logger_begins_a_line_where_the_last_was_cut(tmp_path, ending):
    path = tmp_path / "log.csv"
    path.write_bytes(f"epoch,loss,val_loss{ending}".encode())
    run(callbacks.CSVLogger(path, append=True), [{"loss": 0.5}])
    lines = path.read_text().splitlines()
    assert lines == [*f"epoch,loss,val_loss{ending}".split(), "0,0.5,NA"]


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"epoch,loss\n0,\xff\n"])
def test_csv_logger_names_a_file_that_is_no_text(tmp_path, content):
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read .*log\.csv: .*utf-8"):
        run(callbacks.CSVLogger(path, append=True), losses(1.0))
    assert path.read_bytes() == content


def test_terminate_on_nan(capsys):
    model = run(callbacks.TerminateOnNaN(), losses(1.0, float("inf"), 1.0))
    assert model.stop_training
    assert "Batch 0: the loss is inf" in capsys.readouterr().out
    with pytest.raises(RuntimeError, match="the loss is nan at batch 0"):
        run(callbacks.TerminateOnNaN(raise_error=True), losses(float("nan")))
    assert not run(callbacks.TerminateOnNaN(), losses(1.0)).stop_training


def test_lambda_callback():
    seen = []
    run(
        callbacks.LambdaCallback(
            lambda epoch, logs: seen.append(epoch),
            on_train_batch_end=lambda batch, logs: seen.append(logs["loss"]),
        ),
        losses(7.0),
        steps=2,
    )
    assert seen == [0, 7.0, 7.0]
    with pytest.raises(TypeError, match="got on_epoch_finish"):
        callbacks.LambdaCallback(on_epoch_finish=print)


def test_older_batch_hooks_are_called():
    class Old(callbacks.Callback):
        seen = 0

        def on_batch_end(self, batch, logs=None):
            self.seen += 1

    old = Old()
    run(old, losses(1.0), steps=4)
    assert old.seen == 4


def stream_of(terminal):
    stream = io.StringIO()
    stream.isatty = lambda: terminal
    return stream


def drawn(verbose, terminal=False, epochs=2, title=None):
    stream = stream_of(terminal)
    bar = callbacks.ProgressBar(verbose=verbose, stream=stream, title=title)
    bar._INTERVAL = 0.0
    logs = [{"loss": 0.5, "accuracy": 0.00012}] * epochs
    run(bar, logs)
    return stream.getvalue()


def test_progress_bar():
    assert drawn(0) == ""
    lines = drawn(2)
    assert drawn("auto").count("\n") == lines.count("\n") == 2
    assert lines.startswith("Epoch 1/2 - ") and lines.endswith(" - loss: 0.5000 - accuracy: 1.2000e-04\n")
    bar = drawn("auto", terminal=True)
    assert bar.startswith("Epoch 1/2\n\r1/3 ") and bar.count("\r") == 8
    assert "\r3/3 ━━━━━━━━━━━━━━━━━━━━ " in bar
    assert drawn(1, epochs=1).startswith("\r1/3 ")


def test_progress_with_a_title_says_what_trains():
    assert drawn(0, title="student") == ""
    assert [line.split(" - ")[0] for line in drawn(2, title="student").splitlines()] == [
        "student  epoch 1/2",
        "student  epoch 2/2",
    ]
    assert drawn(1, title="student").startswith("student  epoch 1/2\n\r1/3 ")
    assert drawn("auto", terminal=True, epochs=1, title="student").startswith("student  epoch 1/1\n\r")
    for wrong in ("", 3):
        with pytest.raises(TypeError, match="title must be a non-empty string, got"):
            callbacks.ProgressBar(title=wrong)


def test_a_line_for_each_of_several_trainings():
    for verbose, terminal, expected in (
        (0, True, ""),
        (2, True, "run 1: 3 errors\nrun 2: 4 errors\n"),
        ("auto", False, "run 1: 3 errors\nrun 2: 4 errors\n"),
        ("auto", True, "\rrun 1, epoch 1 of 100\rrun 1: 3 errors      \n\rrun 2\rrun 2: 4 errors\n"),
    ):
        stream = stream_of(terminal)
        line = callbacks.LineProgress(verbose, stream)
        line.show("run 1, epoch 1 of 100")
        line.end("run 1: 3 errors")
        line.show("run 2")
        line.end("run 2: 4 errors")
        assert stream.getvalue() == expected


def test_progress_bar_where_only_ascii_can_be_shown():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    run(callbacks.ProgressBar(verbose=1, stream=stream), losses(1.0))
    assert b"\r3/3 ==================== " in raw.getvalue()


class Broken(io.StringIO):
    """A stream on a disk that is full after some lines."""

    def __init__(self, lines):
        super().__init__()
        self.lines, self.asked = lines, 0

    def write(self, text):
        self.asked += 1
        if self.asked > self.lines:
            raise OSError(28, "No space left on device")
        return super().write(text)


@pytest.mark.parametrize("lines", [0, 2])
def test_a_display_that_breaks_gives_up_and_training_goes_on(lines):
    broken, closed = Broken(lines), io.StringIO()
    closed.close()
    for stream in (broken, closed):
        model = learner()
        bar = callbacks.ProgressBar(verbose=2, stream=stream)
        with pytest.warns(UserWarning, match="progress can no longer be shown .*training goes on") as seen:
            history = model.fit(*samples(), epochs=5, verbose=0, callbacks=[bar])
        assert history.epoch == list(range(5)) and len(seen) == 1
    assert broken.asked == lines + 1 and len(broken.getvalue().splitlines()) == lines


@pytest.mark.parametrize(
    "talker",
    [
        callbacks.EarlyStopping("loss", patience=1, mode="max", restore_best_weights=True, verbose=1),
        callbacks.LearningRateScheduler(lambda epoch: 0.1, verbose=1),
        callbacks.ReduceLROnPlateau("loss", patience=1, mode="max", verbose=1),
        callbacks.TerminateOnNaN(),
    ],
    ids=lambda talker: type(talker).__name__,
)
def test_a_callback_that_cannot_print_lets_training_go_on(talker, monkeypatch):
    broken = Broken(0)
    monkeypatch.setattr("sys.stdout", broken)
    x, y = samples()
    x[0, 0] = 1e38 if isinstance(talker, callbacks.TerminateOnNaN) else 0.0
    model = Sequential([Dense(5, "relu", input_shape=(6,)), Dense(3)], seed=1)
    model.compile("sgd", "mse")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model.fit(x, np.eye(3)[y], epochs=3, verbose=0, callbacks=[talker])
    lost = [str(warning.message) for warning in seen if "can no longer be shown" in str(warning.message)]
    assert len(lost) == 1 and "No space left on device" in lost[0] and broken.asked == 1


def test_a_checkpoint_that_cannot_be_saved_ends_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        best = callbacks.ModelCheckpoint(tmp_path / "file" / "model.npz")
        learner().fit(*samples(), epochs=2, verbose=0, callbacks=[best])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_csv_log_that_breaks_lets_training_go_on():
    log = callbacks.CSVLogger("/dev/full")
    for _ in range(2):  # the next fit tries again
        with pytest.warns(
            UserWarning, match="/dev/full can no longer be written to .*training goes on"
        ) as seen:
            history = learner().fit(*samples(), epochs=3, verbose=0, callbacks=[log])
        assert history.epoch == [0, 1, 2] and len(seen) == 1


@pytest.mark.parametrize("mode", ["auto", "min"])
def test_a_log_that_never_comes_is_missed_once(mode):
    stop = callbacks.EarlyStopping("val_loss", mode=mode)
    with pytest.warns(UserWarning, match="there is no log 'val_loss'. There are: loss, accuracy") as seen:
        history = learner().fit(*samples(), epochs=4, verbose=0, callbacks=[stop])
    assert history.epoch == [0, 1, 2, 3] and len(seen) == 1


@pytest.mark.parametrize(
    "callback, name, meant",
    [
        (callbacks.EarlyStopping(), "patiance", "patience"),
        (callbacks.ModelCheckpoint("m.npz"), "monitors", "monitor"),
        (callbacks.CSVLogger("log.csv"), "seperator", "separator"),
        (callbacks.ProgressBar(), "verbos", "verbose"),
        (callbacks.LambdaCallback(), "on_epoch_ned", "on_epoch_end"),
    ],
)
def test_a_misspelt_attribute_of_a_callback_is_refused(callback, name, meant):
    with pytest.raises(AttributeError, match=f"no setting '{name}': did you mean '{meant}'"):
        setattr(callback, name, 3)
    assert not hasattr(callback, name)


def test_what_users_set_on_callbacks_they_may_set():
    class Own(callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.losses = []

    class Patient(callbacks.EarlyStopping):
        def on_train_begin(self, logs=None):
            super().on_train_begin()
            self.losses = []

    stop = callbacks.EarlyStopping("loss")
    stop.patience, stop.best, stop.model, stop._mine = 3, 0.5, None, 1
    stop.on_epoch_end = lambda epoch, logs=None: None
    with pytest.raises(TypeError, match="patience must be an integer, got 'many'"):
        stop.patience = "many"
    own, patient = Own(), Patient("loss")
    own.tag = patient.tag = "mine"
    learner().fit(*samples(), epochs=2, verbose=0, callbacks=[own, patient, stop])
    assert own.losses == patient.losses == [] and stop.patience == 3


def test_progress_bar_of_evaluate_and_not_of_validation():
    stream = io.StringIO()
    bar = callbacks.ProgressBar(verbose=2, stream=stream)
    bar.set_params({"steps": 2})
    bar.on_test_begin()
    bar.on_test_batch_end(1, {"loss": 1.0})
    bar.on_test_end({"loss": 1.0})
    assert stream.getvalue().endswith("- loss: 1.0000\n")
    length = len(stream.getvalue())
    bar.on_train_begin()
    bar.on_test_begin()
    bar.on_test_end({"loss": 1.0})
    assert len(stream.getvalue()) == length


def test_bad_input():
    with pytest.raises(TypeError, match="got the class EarlyStopping: write EarlyStopping\\(\\)"):
        callbacks.CallbackList([callbacks.EarlyStopping])
    with pytest.raises(TypeError, match="callbacks must be minidl.callbacks.Callback, got 'x'"):
        callbacks.CallbackList(["x"])
    with pytest.raises(TypeError, match="callbacks must be a list"):
        callbacks.CallbackList(3)
    with pytest.raises(ValueError, match="mode must be one of 'auto', 'min', 'max', got 'up'"):
        callbacks.EarlyStopping(mode="up")
    with pytest.raises(ValueError, match="patience must be >= 0, got -1"):
        callbacks.EarlyStopping(patience=-1)
    with pytest.raises(ValueError, match="factor must be < 1, got 1.0"):
        callbacks.ReduceLROnPlateau(factor=1.0)
    with pytest.raises(TypeError, match="save_freq must be an integer"):
        callbacks.ModelCheckpoint("x.npz", save_freq="batch")
    for schedule in (0.1, lambda: 0.1, lambda epoch, rate, more: 0.1):
        with pytest.raises(
            TypeError, match="schedule must be a function of epoch and learning rate, or of epoch"
        ):
            callbacks.LearningRateScheduler(schedule)
    with pytest.raises(TypeError, match="callbacks must be a list of minidl.callbacks.Callback, got 'early'"):
        callbacks.CallbackList("early")
    for separator in ("", ", ", 3):
        with pytest.raises(TypeError, match="separator must be one character"):
            callbacks.CSVLogger("x.csv", separator=separator)
    with pytest.raises(TypeError, match="append must be True or False, got 'no'"):
        callbacks.CSVLogger("x.csv", append="no")
    for option in ("save_best_only", "save_weights_only"):
        with pytest.raises(TypeError, match=f"{option} must be True or False, got 'false'"):
            callbacks.ModelCheckpoint("x.npz", **{option: "false"})
    with pytest.raises(TypeError, match="restore_best_weights must be True or False, got 'no'"):
        callbacks.EarlyStopping(restore_best_weights="no")
    for make in (
        callbacks.EarlyStopping,
        callbacks.ReduceLROnPlateau,
        lambda verbose: callbacks.ModelCheckpoint("x.npz", verbose=verbose),
        lambda verbose: callbacks.LearningRateScheduler(abs, verbose=verbose),
    ):
        with pytest.raises(ValueError, match="verbose must be one of 'auto', 0, 1, 2, got 'x'"):
            make(verbose="x")
        assert make(verbose=True).verbose == 1
    with pytest.raises(TypeError, match="on_predict_end is never called: predict takes no callbacks"):
        callbacks.LambdaCallback(on_predict_end=print)
    with pytest.raises(ValueError, match="verbose must be one of 'auto', 0, 1, 2, got 3"):
        callbacks.check_verbose(3)
    assert callbacks.check_verbose(True) == 1


# -- under fit -------------------------------------------------------------------------------------


def learner(seed=1):
    model = Sequential([Input((6,)), Dense(8, "relu"), Dropout(0.2), Dense(3, "softmax")], seed=seed)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return model


def samples(rows=100):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 6)).astype(np.float32)
    return x, x[:, :3].argmax(axis=1)


def test_callbacks_do_not_change_a_run(tmp_path):
    x, y = samples()
    plain, watched = learner(), learner()
    plain.fit(x, y, epochs=3, verbose=0)
    seen = []
    history = watched.fit(
        x,
        y,
        epochs=3,
        verbose=0,
        validation_data=(x[:9], y[:9]),
        callbacks=[
            callbacks.CSVLogger(tmp_path / "log.csv"),
            callbacks.EarlyStopping(patience=50),
            callbacks.LambdaCallback(
                on_train_batch_end=lambda batch, logs: seen.append((batch, logs["loss"]))
            ),
        ],
    )
    np.testing.assert_array_equal(plain.params, watched.params)
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert [batch for batch, _ in seen] == [0, 1, 2, 3] * 3
    assert seen[-1][1] == pytest.approx(history.history["loss"][-1])
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [float(row["loss"]) for row in rows] == history.history["loss"]


def test_a_checkpoint_goes_on_to_the_same_bits(tmp_path):
    x, y = samples()
    whole = learner()
    saver = callbacks.ModelCheckpoint(tmp_path / "{epoch}.npz")
    history = whole.fit(x, y, epochs=6, verbose=0, callbacks=[saver])
    resumed = load_model(tmp_path / "3.npz")
    assert resumed.epoch == 3
    rest = resumed.fit(x, y, epochs=6, initial_epoch=resumed.epoch, verbose=0)
    np.testing.assert_array_equal(resumed.params, whole.params)
    assert rest.epoch == [3, 4, 5]
    assert rest.history["loss"] == history.history["loss"][3:]
    other = load_model(tmp_path / "3.npz")
    other.draw_epoch = 0
    other.fit(x, y, epochs=3, verbose=0)  # the draws of epochs 0..2 again are others
    assert not np.array_equal(other.params, whole.params)


def test_a_best_checkpoint_needs_a_value(tmp_path):
    x, y = samples()
    best = callbacks.ModelCheckpoint(tmp_path / "{epoch}.npz", save_best_only=True)
    with pytest.warns(UserWarning, match="there is no log 'val_loss'. There are: loss, accuracy"):
        learner().fit(x, y, epochs=4, verbose=0, validation_split=0.2, validation_freq=2, callbacks=[best])
    assert {path.name for path in tmp_path.iterdir()} <= {"2.npz", "4.npz"} and (tmp_path / "2.npz").exists()


def test_a_resumed_run_keeps_a_better_file(tmp_path):
    x, y = samples()

    def checkpoints(**arguments):
        last = callbacks.ModelCheckpoint(tmp_path / "last.npz")
        return [
            callbacks.ModelCheckpoint(tmp_path / "best.npz", "loss", save_best_only=True, **arguments),
            last,
        ]

    learner().fit(x, y, epochs=4, verbose=0, callbacks=checkpoints())
    best, before = load_model(tmp_path / "best.npz"), (tmp_path / "best.npz").read_bytes()
    assert best.epoch == 4 and best.best_logs == {"loss": load_model(tmp_path / "last.npz").best_logs["loss"]}
    for path in ("best.npz", "last.npz"):
        resumed = load_model(tmp_path / path)
        resumed.params[...] = 5.0  # much worse
        resumed.fit(x, y, epochs=5, initial_epoch=4, verbose=0, callbacks=checkpoints()[:1])
        assert (tmp_path / "best.npz").read_bytes() == before
    resumed.best_logs.clear()  # as in a file of weights alone
    with pytest.warns(
        UserWarning, match="best.npz is replaced by the first epoch.*Pass initial_value_threshold"
    ):
        resumed.fit(x, y, epochs=6, initial_epoch=5, verbose=0, callbacks=checkpoints()[:1])
    assert load_model(tmp_path / "best.npz").epoch == 6
    learner().fit(x, y, epochs=1, verbose=0, callbacks=checkpoints()[:1])  # a new model replaces the file
    assert load_model(tmp_path / "best.npz").epoch == 1


def test_a_later_fit_of_a_model_keeps_its_better_file(tmp_path):
    x, y = samples()
    path = tmp_path / "best.npz"

    def fit(model, path=path):
        model.fit(x, y, 16, 1, 0, callbacks=[callbacks.ModelCheckpoint(path, "loss", save_best_only=True)])

    model = learner()
    fit(model)
    before = path.read_bytes()
    for later in (model, load_model(path)):
        later.params[...] = 5.0  # much worse
        with pytest.warns(
            UserWarning, match="best.npz is kept: loss of this model was .* in an earlier fit"
        ) as seen:
            later.fit(
                x,
                y,
                epochs=3,
                verbose=0,
                callbacks=[callbacks.ModelCheckpoint(path, "loss", save_best_only=True)],
            )
        assert len(seen) == 1 and path.read_bytes() == before
    fit(later, tmp_path / "other.npz")  # no file to keep
    assert (tmp_path / "other.npz").exists()
    for renew in (
        lambda model: model.compile(model.optimizer, "half_mean_squared_error"),
        lambda model: model.set_weights([weight + 5 for weight in model.get_weights()]),
        lambda model: model.load_weights(path),
    ):
        again = load_model(path)
        assert again.best_logs
        again.compile(again.optimizer, again.loss)  # the same loss
        assert again.best_logs
        renew(again)
        assert again.best_logs == {}
    fit(again)  # the file is not kept for what another model was
    assert path.read_bytes() != before


@pytest.mark.parametrize(
    "callback",
    [callbacks.ReduceLROnPlateau("loss"), callbacks.LearningRateScheduler(lambda epoch: 0.1)],
    ids=lambda callback: type(callback).__name__,
)
def test_a_rate_that_follows_a_schedule_is_refused_before_training(callback):
    x, y = samples()
    model = learner()
    model.compile(Adam(ExponentialDecay(0.01, 10, 0.5)), model.loss)
    before = model.params.copy()
    with pytest.raises(
        TypeError, match=f"{type(callback).__name__} sets the learning rate, but .*ExponentialDecay"
    ):
        model.fit(x, y, epochs=3, verbose=0, callbacks=[callback])
    assert np.array_equal(model.params, before) and model.optimizer.iterations == 0


def test_hooks_of_a_validation_and_their_logs(monkeypatch):
    x, y = samples()
    seen = []

    class Seen(callbacks.Callback):
        wants_every_batch = False

    def record(hook):
        return lambda self, *arguments: seen.append((hook, *arguments))

    for hook in ("on_train_begin", "on_epoch_begin", "on_train_batch_begin", "on_test_begin", "on_test_end"):
        setattr(Seen, hook, record(hook))
    Seen.on_test_batch_begin, Seen.on_test_batch_end = record("test_batch_begin"), record("test_batch_end")
    monkeypatch.setattr(inference, "CHUNK_BYTES", 20 * 6 * 4)  # 20 rows
    history = (
        learner()
        .fit(
            x,
            y,
            epochs=1,
            verbose=0,
            validation_data=(x[:50], y[:50]),
            validation_batch_size=10,
            callbacks=[Seen()],
        )
        .history
    )
    called = dict.fromkeys(hook for hook, *_ in seen)
    assert list(called) == [
        "on_train_begin", "on_epoch_begin", "on_train_batch_begin",
        "on_test_begin", "test_batch_begin", "test_batch_end", "on_test_end",
    ]  # fmt: skip
    assert all(arguments[-1] == {} for hook, *arguments in seen if hook.endswith("begin"))
    batches = [(hook, index) for hook, index, *_ in seen if hook.startswith("test_batch")]
    assert batches == [
        ("test_batch_begin", 0), ("test_batch_end", 1), ("test_batch_begin", 2), ("test_batch_end", 3),
        ("test_batch_begin", 4), ("test_batch_end", 4),
    ]  # fmt: skip
    logs = [arguments[-1] for hook, *arguments in seen if hook in ("test_batch_end", "on_test_end")]
    assert logs[-2] == pytest.approx(logs[-1])
    assert {f"val_{name}": [value] for name, value in logs[-1].items()}.items() <= history.items()


def test_nothing_to_train_is_said():
    x, y = samples()
    model = learner()
    with pytest.warns(UserWarning, match="nothing is trained: initial_epoch=5 lies beyond epochs=1"):
        model.fit(x, y, initial_epoch=5, epochs=1, verbose=0)
    assert model.epoch == model.optimizer.iterations == 0
    model.fit(x, y, initial_epoch=1, epochs=1, verbose=0)  # a run that was finished


def test_early_stopping_restores_under_fit():
    x, y = samples()
    model, stopper, each = (
        learner(),
        callbacks.EarlyStopping("loss", mode="max", restore_best_weights=True),
        [],
    )
    stopper.patience = 3
    remember = callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: each.append(model.params.copy()))
    history = model.fit(x, y, epochs=30, verbose=0, callbacks=[remember, stopper])
    losses = history.history["loss"]
    assert stopper.best_epoch == int(np.argmax(losses)) == len(losses) - 4
    np.testing.assert_array_equal(model.params, each[stopper.best_epoch])
    assert not np.array_equal(model.params, each[-1])


def test_rates_under_fit():
    x, y = samples()
    model = learner()
    model.fit(x, y, epochs=2, verbose=0, callbacks=[callbacks.LearningRateScheduler(lambda epoch, rate: 0.0)])
    np.testing.assert_array_equal(model.params, learner().params)


def test_output_under_fit(capsys):
    x, y = samples()
    learner().fit(x, y, epochs=2, verbose=0)
    assert capsys.readouterr().out == ""
    learner().fit(x, y, epochs=2)
    lines = [line for line in capsys.readouterr().out.splitlines() if "loss" in line]
    assert len(lines) == 2 and lines[0].startswith("Epoch 1/2 - ")
    learner().fit(x, y, epochs=2, verbose=1)
    assert "\r4/4 " in capsys.readouterr().out


class _Overrides(callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        pass


class _OverridesTheOldHook(callbacks.Callback):
    def on_batch_begin(self, batch, logs=None):
        pass


class _IsContentWithSlices(_Overrides):
    wants_every_batch = False


class _LooksForNaNItself(callbacks.TerminateOnNaN):
    pass


class _NotDerived:
    """Only has a callback's methods, as a callback of another library may."""

    def __getattr__(self, name):
        if name.startswith(("on_", "set_")):
            return lambda *args, **kwargs: None
        raise AttributeError(name)


@pytest.mark.parametrize(
    "callback, wanted",
    [
        (callbacks.Callback(), False),
        (callbacks.ProgressBar(), False),
        (callbacks.History(), False),
        (callbacks.TerminateOnNaN(), False),
        (callbacks.EarlyStopping(), False),
        (callbacks.ReduceLROnPlateau(), False),
        (callbacks.CSVLogger("x.csv"), False),
        (callbacks.LearningRateScheduler(lambda epoch: 0.1), False),
        (callbacks.ModelCheckpoint("x.npz"), False),
        (callbacks.ModelCheckpoint("x.npz", save_freq=3), True),
        (callbacks.LambdaCallback(on_epoch_end=print), False),
        (callbacks.LambdaCallback(on_test_batch_end=print), False),
        (callbacks.LambdaCallback(on_train_batch_end=print), True),
        (_Overrides(), True),
        (_OverridesTheOldHook(), True),
        (_IsContentWithSlices(), False),
        (_LooksForNaNItself(), True),
        (_NotDerived(), True),
    ],
)
def test_who_wants_every_batch(callback, wanted):
    together = callbacks.CallbackList([callbacks.ProgressBar(), callback])
    assert together.wants_every_batch is wanted
    assert callbacks.CallbackList([together, callbacks.History()]).wants_every_batch is wanted


def test_training_calls_those_who_want_it_at_every_batch():
    x, y = np.random.default_rng(0).normal(size=(64, 4)), np.zeros(64, int)
    seen = {}

    def batches(cls):
        class Counts(cls):
            def __init__(self):
                super().__init__()
                self.count = 0

            def on_train_batch_end(self, batch, logs=None):
                self.count += 1

        return Counts()

    for cls in (callbacks.Callback, _IsContentWithSlices):
        counter = batches(cls)
        model = Sequential([Input((4,)), Dense(2, "softmax")], seed=1)
        model.compile("sgd", "sparse_categorical_crossentropy")
        model.fit(x, y, batch_size=1, epochs=3, verbose=0, callbacks=[counter])
        seen[cls] = counter.count
    assert seen[callbacks.Callback] == 3 * 64
    assert seen[_IsContentWithSlices] < 3 * 64
