"""A training that ends too early, by a kill or a key, goes on to the bits of one that did not."""

import math
import os
import random
import signal
import time
import warnings
from contextlib import suppress

import numpy as np
import pytest
from small_run import (
    BATCH,
    CLASSES,
    FEATURES,
    FOREVER,
    SAMPLES,
    STEPS,
    StopAt,
    X,
    Y,
    at_step,
    distil,
    exit_code,
    fit,
    forked,
    fractions,
    is_whole,
    layerwise,
    new_model,
    online,
    same_state,
    wait_for,
    watched,
)

from minidl import archive
from minidl.callbacks import LambdaCallback, LearningRateScheduler, ModelCheckpoint, TerminateOnNaN
from minidl.layers import Dense, Layer
from minidl.models import Sequential, load_model
from minidl.optimizers import SGD, Adam

# -- in the middle of an epoch ---------------------------------------------------------------------


def weighted(model, **arguments):
    return fit(model, sample_weight=np.abs(fractions(SAMPLES)), class_weight={1: 2.0}, **arguments)


@pytest.mark.parametrize("stop", [1, STEPS - 1, STEPS + 7, 2 * STEPS])
@pytest.mark.parametrize("run", [fit, distil, layerwise, online, weighted, watched])
def test_an_epoch_goes_on_where_it_was_left(tmp_path, run, stop):
    whole = new_model()
    history = run(whole, epochs=4).history
    model = new_model()
    run(model, epochs=4, callbacks=[StopAt(stop)])
    assert model.optimizer.iterations == stop and model.epoch == stop // STEPS
    assert (model.unfinished is None) == (stop % STEPS == 0)
    model.save(tmp_path / "m.npz")
    for resumed in (load_model(tmp_path / "m.npz"), model):  # from the file, and in the same process
        assert resumed.unfinished == model.unfinished
        rest = run(resumed, epochs=4, initial_epoch=resumed.epoch)
        assert same_state(resumed, whole) and resumed.epoch == 4 and resumed.unfinished is None
        assert rest.epoch == list(range(stop // STEPS, 4))
        assert rest.history == {name: values[stop // STEPS :] for name, values in history.items()}


def test_an_epoch_begun_anew_would_be_noticed():
    whole, model = at_step(2 * STEPS, fit), at_step(STEPS + 7, fit)
    model.unfinished = None
    fit(model, epochs=2, initial_epoch=1)
    assert not same_state(model, whole)


@pytest.mark.parametrize(
    "changed",
    [{"batch_size": 20}, {"shuffle": False}, {"validation_split": 0.1}],
    ids=lambda c: next(iter(c)),
)
def test_other_batches_begin_the_epoch_anew_and_say_so(changed):
    model = at_step(STEPS + 7, fit)
    steps = -(-int(SAMPLES * (1 - changed.get("validation_split", 0))) // changed.get("batch_size", BATCH))
    with pytest.warns(
        UserWarning, match="epoch 2 was left after 7 steps of batch_size 16 on 400 samples"
    ) as seen:
        fit(model, epochs=2, initial_epoch=1, **changed)
    assert seen[0].filename.endswith("small_run.py")  # where fit was called
    assert model.optimizer.iterations == STEPS + 7 + steps and model.epoch == 2


def test_another_epoch_is_a_whole_one_and_that_is_said():
    model = at_step(STEPS + 7, fit)
    with pytest.warns(
        UserWarning,
        match="epoch 2 was left after 7 steps.*this fit begins epoch 1 anew.*initial_epoch=1 and the same",
    ):
        fit(model, epochs=1)
    assert model.optimizer.iterations == 2 * STEPS + 7 and model.epoch == 1
    fit(model, epochs=2, initial_epoch=1)  # nothing is left to warn of


# -- draws -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [fit, layerwise, online])
def test_fits_one_after_the_other_draw_as_one(tmp_path, run):
    whole, model, repeated = new_model(), new_model(), new_model()
    run(whole, epochs=4)
    for _ in range(4):
        run(model, epochs=1)
        repeated.draw_epoch = 0
        run(repeated, epochs=1)
        model.save(tmp_path / "m.npz")
        model = load_model(tmp_path / "m.npz")
    assert same_state(model, whole) and (model.epoch, model.draw_epoch) == (1, 4)
    assert not same_state(repeated, whole)  # the same order and masks each time would be noticed


@pytest.mark.parametrize("run", [fit, layerwise])
def test_a_later_fit_goes_on_where_it_was_left(tmp_path, run):
    whole, model = new_model(), new_model()
    run(whole, epochs=2)
    run(whole, epochs=3)
    run(model, epochs=2)
    run(model, epochs=3, callbacks=[StopAt(3 * STEPS + 7)])
    model.save(tmp_path / "m.npz")
    for resumed in (load_model(tmp_path / "m.npz"), model):
        assert (resumed.epoch, resumed.draw_epoch) == (1, 3)
        run(resumed, epochs=3, initial_epoch=1)
        assert same_state(resumed, whole) and (resumed.epoch, resumed.draw_epoch) == (3, 5)


def test_an_epoch_that_is_left_is_not_drawn_again():
    model = at_step(STEPS + 7, fit)
    assert (model.epoch, model.draw_epoch) == (1, 1)
    model.set_weights(model.get_weights())
    assert model.draw_epoch == 2
    fit(model, epochs=2, initial_epoch=1)
    assert (model.epoch, model.draw_epoch) == (2, 3)


def test_a_model_begun_anew_draws_as_a_new_one():
    """The same weights and a new optimizer, in either order: an experiment that is repeated in one process."""
    whole = at_step(2 * STEPS, fit)
    initial = new_model().get_weights()
    for order in ("weights first", "optimizer first"):
        model = at_step(STEPS + 7, fit)
        steps = [
            lambda model=model: model.set_weights(initial),
            lambda model=model: model.compile(Adam(0.003), model.loss, model.metrics),
        ]
        for step in steps if order == "weights first" else reversed(steps):
            step()
        assert model.draw_epoch == 0
        fit(model, epochs=2)
        assert same_state(model, whole), order
    model.compile(Adam(0.003), model.loss, model.metrics)
    assert model.draw_epoch == 3  # with the weights it has, it goes on


def test_a_first_fit_draws_by_its_own_epochs():
    late, whole = new_model(), new_model()
    fit(late, epochs=4, initial_epoch=3)
    whole.draw_epoch = 3
    fit(whole, epochs=1)
    assert same_state(late, whole) and late.draw_epoch == 4


def test_files_without_a_draw_epoch_go_on_at_their_epoch(tmp_path, monkeypatch):
    model, whole = at_step(2 * STEPS, fit), at_step(3 * STEPS, fit)
    write = archive.write

    def as_before(path, config, arrays, overwrite):
        del config["training"]["draw_epoch"]
        write(path, config, arrays, overwrite)

    monkeypatch.setattr(archive, "write", as_before)
    model.save(tmp_path / "old.npz")
    resumed = load_model(tmp_path / "old.npz")
    fit(resumed, epochs=3, initial_epoch=2)
    assert same_state(resumed, whole)


def test_single_steps_draw_anew_after_compile():
    def losses_of(model):
        return [model.train_on_batch(X[:16], Y[:16])[0] for _ in range(3)]

    model = new_model(optimizer=SGD(1e-9))
    first = losses_of(model)
    model.compile(SGD(1e-9), model.loss, model.metrics)
    again = losses_of(model)
    assert len({round(loss, 4) for loss in first + again}) == 6  # another mask each time
    model.compile(SGD(1e-9), model.loss, model.metrics)
    model.draw_epoch = 1
    assert losses_of(model) == pytest.approx(again, abs=1e-5)


def test_calls_in_training_mode_draw_anew():
    model, twin = new_model(), new_model()
    outputs = [model(X[:5], training=True) for _ in range(20)]
    assert np.std(outputs, axis=0).min() > 1e-3
    assert np.array_equal(outputs, [twin(X[:5], training=np.True_) for _ in range(20)])
    assert np.array_equal(
        model.forward(X[:5], training=True), outputs[-1]
    )  # its draws last until the next step
    assert np.array_equal(model(X[:5]), model(X[:5]))
    other = new_model()
    fit(model, epochs=2)
    fit(other, epochs=2)
    assert same_state(model, other)  # training draws by itself


@pytest.mark.parametrize(
    "forget",
    [
        lambda model: model.compile("adam", "sparse_categorical_crossentropy"),
        lambda model: model.set_weights(model.get_weights()),
    ],
)
def test_a_new_beginning_forgets_the_place(forget):
    model = at_step(STEPS + 7, fit)
    assert model.unfinished.step == 7
    model.compile(model.optimizer, model.loss, model.metrics)  # the same optimizer: it goes on
    assert model.unfinished.step == 7
    forget(model)
    assert model.unfinished is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(model, batch_size=50)


def test_logs_of_other_metrics_are_of_the_rest():
    model = at_step(STEPS + 7, fit)
    whole = at_step(STEPS + 7, fit)
    model.compile(model.optimizer, "sparse_categorical_crossentropy", [])
    losses = []
    fit(
        whole, epochs=2, initial_epoch=1,
        callbacks=[LambdaCallback(on_train_batch_end=lambda batch, logs: losses.append(logs["loss"]))],
    )  # fmt: skip
    found = fit(model, epochs=2, initial_epoch=1).history["loss"][0]
    of_seven = at_step(STEPS + 7, fit).unfinished.loss_sum
    assert found == pytest.approx((losses[-1] * SAMPLES - of_seven) / (SAMPLES - 7 * BATCH), rel=1e-12)


def test_a_learning_rate_is_not_scheduled_twice():
    def run(model, callbacks=(), **arguments):
        return fit(
            model, callbacks=[*callbacks, LearningRateScheduler(lambda epoch, rate: 0.5 * rate)], **arguments
        )

    whole = new_model()
    run(whole, epochs=3)
    model = new_model()
    run(model, epochs=3, callbacks=[StopAt(STEPS + 3)])
    run(model, epochs=3, initial_epoch=1)
    assert same_state(model, whole) and model.optimizer.learning_rate == whole.optimizer.learning_rate


def test_batches_between_two_checkpoints(tmp_path):
    """Every ``save_freq`` batches, whether or not the epoch was begun here."""
    model = at_step(STEPS + 7, fit)
    fit(model, epochs=2, initial_epoch=1, callbacks=[ModelCheckpoint(tmp_path / "{batch}.npz", save_freq=10)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["17.npz"]


class Breaks(Layer):
    """Passes everything on until so many batches have come by; then NaN."""

    batches = math.inf

    def forward(self, x, training=False):
        self.batches -= 1
        return x * np.float32(np.nan if self.batches < 0 else 1)

    def backward(self, dout):
        return dout


@pytest.mark.parametrize("step", [4, STEPS, STEPS + 1, STEPS + 9])
def test_training_goes_on_from_the_step_before_a_nan(tmp_path, step):
    def broken_after(batches):
        model = Sequential([Dense(9, input_shape=(FEATURES,)), Breaks(), Dense(CLASSES, "softmax")], seed=1)
        model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
        model.layers[1].batches = batches
        return model

    whole, model = broken_after(math.inf), broken_after(step - 1)
    history = fit(whole, epochs=3).history
    fit(model, epochs=3, callbacks=[TerminateOnNaN()])
    assert model.optimizer.iterations == step - 1 and model.epoch == (step - 1) // STEPS
    model.save(tmp_path / "m.npz")
    resumed = load_model(tmp_path / "m.npz", custom_objects={"Breaks": Breaks})
    rest = fit(resumed, epochs=3, initial_epoch=resumed.epoch).history
    assert same_state(resumed, whole)
    assert rest == {name: values[(step - 1) // STEPS :] for name, values in history.items()}


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"step": STEPS}, "step must be <= 24, got 25"),
        ({"step": 0}, "step must be >= 1"),
        ({"batch_size": 0}, "batch_size must be >= 1"),
        ({"batch_size": SAMPLES}, "step must be <= 0"),
        ({"samples": 7.0}, "samples must be an integer"),
        ({"shuffle": 1}, "shuffle must be True or False"),
        ({"loss_sum": None}, "the sum of loss must be a number"),
        ({"metric_sums": {"accuracy": "x"}}, "the sum of accuracy must be a number"),
        ({"metric_sums": [1]}, "cannot read"),
        ({"other": 1}, "cannot read"),
    ],
)
def test_a_place_that_cannot_be_is_refused(tmp_path, monkeypatch, changed, message):
    model = at_step(7, fit)
    model.save(tmp_path / "good.npz")
    assert load_model(tmp_path / "good.npz").unfinished == model.unfinished

    class Changed:
        def _asdict(self):
            return {**model.unfinished._asdict(), **changed}

    other = at_step(7, fit)
    vars(other)["unfinished"] = Changed()  # past the check of the attribute
    other.save(tmp_path / "m.npz")
    with pytest.raises(ValueError, match=message) as caught:
        load_model(tmp_path / "m.npz")
    assert "m.npz" in str(caught.value)


# -- kills -----------------------------------------------------------------------------------------


def kill_and_resume(folder, run, moments, save_freq):
    """Kill a training at each of ``moments``; every file it leaves loads and goes on to the same bits.

    A moment: so many checkpoints have been written, and so many seconds more have passed.
    """
    run(new_model())  # compiled, or loaded, before the first fork
    path, found, iterations = folder / "m.npz", 0, set()

    def checkpoints():
        """How many were seen so far: each is another file."""
        with suppress(FileNotFoundError):
            seen.add((path.stat().st_ino, path.stat().st_mtime_ns))
        return len(seen)

    def work():
        run(new_model(), epochs=FOREVER, callbacks=[ModelCheckpoint(path, save_freq=save_freq)])

    for wanted, seconds in moments:
        seen = set()
        child = forked(work)
        wait_for(lambda wanted=wanted: checkpoints() >= wanted, child)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        assert exit_code(child) == -signal.SIGKILL
        if not path.exists():  # killed before the first checkpoint was whole
            continue
        found += 1
        resumed = load_model(path)
        iterations.add(resumed.optimizer.iterations)
        assert is_whole(resumed, run)
        whole, epochs = new_model(), resumed.epoch + 2
        history = run(whole, epochs=epochs).history
        rest = run(resumed, epochs=epochs, initial_epoch=resumed.epoch).history
        assert same_state(resumed, whole)
        assert rest == {name: values[-2:] for name, values in history.items()}
        for left in folder.iterdir():  # the file, and what a kill in the middle of writing leaves
            assert left == path or left.name.endswith(".tmp")
            left.unlink()
    assert found >= sum(wanted > 0 for wanted, _ in moments) and len(iterations) > 1


def moments(count, seed):
    """Anywhere from the first step on; three of four within or after the writing of a checkpoint."""
    rng = random.Random(seed)
    return [(number % 4 * rng.randint(1, 3), rng.uniform(0, 0.05)) for number in range(count)]


RUNS = [(fit, "epoch"), (distil, "epoch"), (fit, 7), (distil, 7), (fit, 1)]  # 1: killed in writing, mostly


@pytest.mark.parametrize("run, save_freq", RUNS)
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, run, save_freq):
    kill_and_resume(tmp_path, run, moments(4, 1), save_freq)


@pytest.mark.long
@pytest.mark.parametrize("run, save_freq", RUNS)
def test_a_hundred_killed_runs_go_on_to_the_same_bits(tmp_path, run, save_freq):
    kill_and_resume(tmp_path, run, moments(100, 2), save_freq)


def test_a_resumed_run_that_differs_would_be_noticed():
    model = new_model()
    fit(model, epochs=2)
    model.params[3] = np.nextafter(model.params[3], np.float32(1))
    assert not is_whole(model, fit)


class KillingFile:
    """A file whose process is killed once so many bytes are written."""

    def __init__(self, file, most):
        self._file, self._left = file, most

    def write(self, data):
        data = bytes(data)
        self._file.write(data[: max(0, self._left)])
        self._left -= len(data)
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return len(data)

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._file.close()


def kill_instead(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_kill_anywhere_in_writing_leaves_the_old_file_or_the_new(tmp_path):
    path, old, new = tmp_path / "m.npz", at_step(STEPS, fit), at_step(STEPS + 7, fit)
    old.save(path)
    whole = path.read_bytes()
    new.save(tmp_path / "new")
    size = (tmp_path / "new").stat().st_size
    calls = []

    def truncated_at(length):
        def work():
            archive.open = lambda *args: KillingFile(open(*args, buffering=0), length)
            new.save(path)

        return work

    def in_place_of(name, number):  # of the second fsync, say, which is the folder's
        def work():
            original = getattr(os, name)

            def count(*arguments):
                calls.append(0)
                return kill_instead() if len(calls) == number else original(*arguments)

            setattr(os, name, count)
            new.save(path)

        return work

    stages = [truncated_at(length) for length in range(0, size, size // 9)]
    stages += [in_place_of("fsync", 1), in_place_of("replace", 1)]
    for work in stages:
        assert exit_code(forked(work)) == -signal.SIGKILL
        assert path.read_bytes() == whole and same_state(load_model(path), old)
    assert exit_code(forked(in_place_of("fsync", 2))) == -signal.SIGKILL
    resumed = load_model(path)
    assert same_state(resumed, new) and resumed.unfinished == new.unfinished
    fit(resumed, epochs=2, initial_epoch=1)
    assert same_state(resumed, at_step(2 * STEPS, fit))
