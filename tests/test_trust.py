"""What a user relies on without looking: see "What minidl promises" in the README."""

import hashlib
import math
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
import warnings
from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minidl
from minidl import training
from minidl.callbacks import Callback, ModelCheckpoint, TerminateOnNaN
from minidl.kernels import simd
from minidl.kernels.jit import JIT_DISABLED
from minidl.layers import Activation, Dense, Dropout, Layer
from minidl.models import Sequential, load_model
from minidl.optimizers import SGD, Adam
from minidl.optimizers.schedules import PiecewiseConstantDecay

SAMPLES, FEATURES, CLASSES, BATCH = 400, 12, 4, 16
STEPS = -(-SAMPLES // BATCH)


def fractions(*shape, scale=97):
    """Numbers in [-1, 1) that come from integers alone, the same on every machine."""
    count = math.prod(shape)
    numbers = (np.arange(count, dtype=np.int64) * 7919 + 13) % (2 * scale)
    return (numbers / scale - 1).astype("f4").reshape(shape)


X = fractions(SAMPLES, FEATURES)
Y = (np.arange(SAMPLES) * 31 // 7) % CLASSES
TEACHER = 3 * fractions(SAMPLES, CLASSES, scale=41)


def new_model(seed=5, optimizer=None, dtype="float32", units=24):
    layers = [
        Dense(units, "relu", input_shape=(FEATURES,)),
        Dropout(0.2),
        Dense(units, "gelu"),
        Dense(CLASSES, "softmax"),
    ]
    model = Sequential(layers, seed=seed, dtype=dtype)
    model.compile(optimizer or Adam(0.003), "sparse_categorical_crossentropy", ["accuracy"])
    return model


def fit(model, **arguments):
    return model.fit(X, Y, **{"batch_size": BATCH, "verbose": 0, **arguments})


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
    with pytest.warns(RuntimeWarning, match=rf"epoch 2 of 3, step \d+ of {STEPS}: the loss is (nan|inf)") as seen:
        model = exploding(30, 3e38)
        fit(model, epochs=3)
    assert len([w for w in seen if w.category is RuntimeWarning]) == 1
    assert seen[0].filename == __file__
    assert not np.isfinite(model.params).all()  # the control: that is what restoring prevents


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


# -- Ctrl-C ----------------------------------------------------------------------------------------


class StopAt(Callback):
    def __init__(self, iterations):
        super().__init__()
        self.iterations = iterations

    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations == self.iterations:
            self.model.stop_training = True


def at_step(iterations, run):
    """A fresh model after exactly so many steps of ``run(model, **fit_arguments)``."""
    model, epochs = new_model(), iterations // STEPS
    if epochs:
        run(model, epochs=epochs)
    if iterations % STEPS:
        stop = StopAt(iterations)
        run(model, epochs=epochs + 1, initial_epoch=epochs, callbacks=[stop])
    assert model.optimizer.iterations == iterations
    return model


def distil(model, **arguments):
    minidl.distill(TEACHER, model, X, Y, **{"batch_size": BATCH, "verbose": 0, **arguments})


FOREVER = 10**7


def interrupted(run, seconds):
    """A model whose training was interrupted after about so long; None if nothing was raised."""
    model = new_model()
    timer = threading.Timer(seconds, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    timer.start()
    try:
        run(model, epochs=FOREVER)
    except KeyboardInterrupt:
        return model
    finally:
        timer.cancel()


def is_whole(model, run):
    """Whether the model is what it was after its last finished step."""
    same = at_step(model.optimizer.iterations, run)
    slots = zip(model.optimizer.slots, same.optimizer.slots, strict=True)
    return np.array_equal(model.params, same.params) and all(np.array_equal(a, b) for a, b in slots)


@pytest.mark.parametrize("run", [fit, distil])
def test_an_interrupt_leaves_the_last_finished_step(run):
    rng = random.Random(1)
    for _ in range(4):
        model = interrupted(run, rng.uniform(0.02, 0.2))
        assert is_whole(model, run)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert np.float32(1e-40) * np.ones(1, "f4") != 0  # denormals are numbers again
        assert model.epoch == model.optimizer.iterations // STEPS
        epochs = model.history.epoch if model.history else []
        assert epochs in (list(range(model.epoch)), list(range(model.epoch - 1)))  # its logs come after its steps
        assert not epochs or {len(values) for values in model.history.history.values()} == {len(epochs)}
        before = model.params.copy()
        run(model, epochs=1)
        assert np.isfinite(model.params).all() and not np.array_equal(before, model.params)


def test_an_unguarded_interrupt_would_be_noticed(monkeypatch):
    monkeypatch.setattr(training, "uninterrupted", nullcontext)
    found = [is_whole(interrupted(fit, 0.15), fit) for _ in range(3)]
    assert not all(found)


def test_an_interrupt_from_within():
    """As Jupyter, an IDE's stop button or a library may do it."""

    class Interrupts(Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                signal.raise_signal(signal.SIGINT)

    model = new_model()
    with pytest.raises(KeyboardInterrupt):
        fit(model, epochs=5, callbacks=[Interrupts()])
    assert model.epoch == 3 and is_whole(model, fit)


def test_a_second_interrupt_does_not_wait():
    class Hangs(Layer):
        def forward(self, x, training=False):
            for _ in range(3):  # a user who loses patience
                signal.raise_signal(signal.SIGINT)
            raise AssertionError("never reached")

    model = Sequential([Dense(3, input_shape=(FEATURES,)), Hangs(), Dense(CLASSES, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(KeyboardInterrupt):
        fit(model)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_training_in_another_thread_leaves_signals_alone():
    models = []
    thread = threading.Thread(target=lambda: models.append(fit(new_model())))
    thread.start()
    thread.join()
    assert len(models) == 1


# -- processes -------------------------------------------------------------------------------------


def forked(work):
    """The id of a child that runs ``work``: everything imported and compiled is there already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on: helper threads are not copied
        child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def exit_code(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_real_ctrl_c(tmp_path):
    def work():
        model = new_model()
        try:
            fit(model, epochs=FOREVER, callbacks=[ModelCheckpoint(tmp_path / "running.npz")])
        except KeyboardInterrupt:
            model.save(tmp_path / "interrupted.npz")

    child = forked(work)
    while not (tmp_path / "running.npz").exists():
        time.sleep(0.01)
    os.kill(child, signal.SIGINT)
    assert exit_code(child) == 0
    assert is_whole(load_model(tmp_path / "interrupted.npz"), fit)


def kill_and_resume(folder, run, moments, save_freq):
    """Kill a training at each of ``moments`` (seconds); every file it leaves loads and goes on to the same bits."""
    fit(new_model())  # compiled, or loaded, before the first fork
    path, found, iterations = folder / "m.npz", 0, set()

    def work():
        run(new_model(), epochs=FOREVER, callbacks=[ModelCheckpoint(path, save_freq=save_freq)])

    for seconds in moments:
        child = forked(work)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        assert exit_code(child) == -signal.SIGKILL
        if not path.exists():  # killed before the first checkpoint was whole
            continue
        found += 1
        resumed = load_model(path)
        iterations.add(resumed.optimizer.iterations)
        assert is_whole(resumed, run)
        if save_freq == "epoch":
            run(resumed, epochs=resumed.epoch + 2, initial_epoch=resumed.epoch)
            whole = new_model()
            run(whole, epochs=resumed.epoch)
            assert np.array_equal(resumed.params, whole.params)
        else:
            fit(resumed)
        for left in folder.iterdir():  # the file, and what a kill in the middle of writing leaves
            assert left == path or left.name.endswith(".tmp")
            left.unlink()
    assert found and len(iterations) > 1


def moments(count, seed):
    rng = random.Random(seed)
    return [0.3] + [rng.uniform(0.005, 0.3) for _ in range(count - 1)]


@pytest.mark.parametrize("run, save_freq", [(fit, "epoch"), (distil, "epoch"), (fit, 7)])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, run, save_freq):
    kill_and_resume(tmp_path, run, moments(4, 1), save_freq)


@pytest.mark.long
@pytest.mark.parametrize("run, save_freq", [(fit, "epoch"), (distil, "epoch"), (fit, 7)])
def test_a_hundred_killed_runs_go_on_to_the_same_bits(tmp_path, run, save_freq):
    kill_and_resume(tmp_path, run, moments(100, 2), save_freq)


def test_a_resumed_run_that_differs_would_be_noticed(tmp_path):
    model = new_model()
    fit(model, epochs=2)
    model.params[3] = np.nextafter(model.params[3], np.float32(1))
    assert not is_whole(model, fit)


def test_a_forked_child_trains_to_the_same_bits():
    minidl.matmul(np.ones((300, 300)), np.ones((300, 300)))  # the helper threads have started
    whole = new_model()
    fit(whole, epochs=2)
    half = new_model()
    fit(half, epochs=1)
    expected = half.predict(X)

    def work():
        assert np.array_equal(half.predict(X), expected)
        fit(half, epochs=2, initial_epoch=1)
        assert np.array_equal(half.params, whole.params)

    assert exit_code(forked(work)) == 0


def train_elsewhere(queue, model):
    queue.put(model.predict(X))
    fit(model, epochs=2, initial_epoch=1)
    queue.put(model.params)


def test_a_spawned_process_trains_to_the_same_bits():
    model = new_model()
    fit(model, epochs=1)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=train_elsewhere, args=(queue, model))
    process.start()
    predicted, params = queue.get(timeout=300), queue.get(timeout=300)
    process.join()
    assert process.exitcode == 0 and np.array_equal(predicted, model.predict(X))
    fit(model, epochs=2, initial_epoch=1)
    assert np.array_equal(params, model.params)


# -- threads ---------------------------------------------------------------------------------------


def in_threads(*work):
    errors, results = [], [None] * len(work)
    together = threading.Barrier(len(work))

    def run(index):
        try:
            together.wait()
            results[index] = work[index]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def test_eight_threads_predict_at_once():
    model = new_model(units=150)
    fit(model, epochs=2)
    inputs = [X, X[:1], X[:97], X.astype("f8"), np.asfortranarray(X), X[::2], X[::-1], X[5:300]]
    expected = [(model.predict(x), model.predict_logits(x)) for x in inputs]
    model.predictors.clear()  # so that they race for these too

    def work(x):
        return lambda: [(model.predict(x), model.predict_logits(x)) for _ in range(10)]

    for found, right in zip(in_threads(*map(work, inputs)), expected, strict=True):
        for pair in found:
            assert np.array_equal(pair[0], right[0]) and np.array_equal(pair[1], right[1])


def test_models_train_at_once():
    def trained(seed, dtype):
        model = new_model(seed, dtype=dtype, units=60)
        history = fit(model, epochs=4)
        return model.params, history.history

    kinds = [(1, "float32"), (2, "float32"), (1, "float64")]
    expected = [trained(*kind) for kind in kinds]
    found = in_threads(*(lambda kind=kind: trained(*kind) for kind in kinds))
    for (params, history), (right, right_history) in zip(found, expected, strict=True):
        assert np.array_equal(params, right) and history == right_history
    assert not np.array_equal(expected[0][0], expected[1][0])


def test_training_while_another_thread_predicts():
    teacher, student = new_model(1), new_model(2)
    fit(teacher)
    expected = teacher.predict(X)
    alone = new_model(2)
    fit(alone, epochs=4)
    _, predictions = in_threads(
        lambda: fit(student, epochs=4), lambda: [teacher.predict(X) for _ in range(20)]
    )
    assert np.array_equal(student.params, alone.params)
    assert all(np.array_equal(found, expected) for found in predictions)


# -- the same bits everywhere ----------------------------------------------------------------------

# By hardware FMA: with it (AVX2 and AVX-512 alike) a product and a sum are rounded once, without it twice.
GOLDEN = {
    ("float32", True): "570d7b43c102980d",
    ("float64", True): "f6631ec61f23bd11",
    ("float32", False): "80153838b017d6b8",
    ("float64", False): "e0ff2940a7a932a2",
}


def golden_model(dtype):
    model = Sequential(
        [
            Dense(40, "relu", input_shape=(FEATURES,)),
            Dropout(0.25),
            Dense(33, "gelu"),
            Dense(CLASSES),
            Activation("softmax"),
        ],
        seed=7,
        dtype=dtype,
    )
    model.params[...] = 0.3 * fractions(model.params.size, scale=1009)  # NumPy's streams may change
    model.compile(Adam(0.01), "sparse_categorical_crossentropy", ["accuracy"])
    return model


def digest(array):
    return hashlib.sha256(array.astype(array.dtype.newbyteorder("<")).tobytes()).hexdigest()[:16]


def golden_run(dtype):
    model = golden_model(dtype)
    fit(model, epochs=2)
    fit(model, epochs=4, initial_epoch=2, target_model=TEACHER)
    return model


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_ends_with_the_committed_bits(dtype):
    model = golden_run(dtype)
    if JIT_DISABLED:
        assert np.isfinite(model.params).all()  # plain Python equals the kernels to rounding only
        return
    assert digest(model.params) == GOLDEN[dtype, simd.HAS_FMA]
    model.params[0] = np.nextafter(model.params[0], model.dtype.type(1))
    assert digest(model.params) != GOLDEN[dtype, simd.HAS_FMA]


# -- any layout of memory --------------------------------------------------------------------------


def read_only(array, tmp_path):
    array = array.copy()
    array.flags.writeable = False
    return array


def memory_mapped(array, tmp_path):
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
    np.save(path, array)
    return np.load(path, mmap_mode="r")


def misaligned(array, tmp_path):
    raw = np.zeros(array.nbytes + 1, np.uint8)
    raw[1:] = np.frombuffer(array.tobytes(), np.uint8)
    return raw[1:].view(array.dtype).reshape(array.shape)


LAYOUTS = {
    "strided": lambda array, tmp_path: np.repeat(np.repeat(array, 2, 0), 3, -1)[::2, ..., ::3]
    if array.ndim > 1
    else np.repeat(array, 2)[::2],
    "backwards": lambda array, tmp_path: array[::-1].copy()[::-1],
    "fortran": lambda array, tmp_path: np.asfortranarray(array),
    "byte-swapped": lambda array, tmp_path: array.astype(array.dtype.newbyteorder()),
    "broadcast": lambda array, tmp_path: np.lib.stride_tricks.as_strided(array, array.shape, array.strides),
    "read-only": read_only,
    "misaligned": misaligned,
    "memory-mapped": memory_mapped,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_results(layout, tmp_path):
    def convert(array):
        changed = LAYOUTS[layout](array, tmp_path)
        assert np.array_equal(changed, array)
        return changed

    weight = np.abs(fractions(SAMPLES)).astype("f8")
    one_hot = np.eye(CLASSES, dtype="f4")[Y]
    kernels = [
        kernel
        for name, module in sys.modules.items()
        if name.startswith("minidl.kernels")
        for kernel in vars(module).values()
    ]
    results, compiled = [], []
    for change in (lambda array: array, convert):
        x, y, rows, teacher, weights = map(change, (X, Y, one_hot, TEACHER, weight))
        before = [array.tobytes() for array in (x, y, rows, teacher, weights)]
        model = new_model()
        history = fit(model, epochs=1, sample_weight=weights).history
        history |= model.fit(x, y, batch_size=BATCH, verbose=0, sample_weight=weights).history
        model.fit(x, y, batch_size=BATCH, verbose=0, target_model=teacher, validation_data=(x, y, weights))
        model.compile("sgd", "categorical_crossentropy")
        model.fit(x, rows, batch_size=BATCH, verbose=0)
        model.set_weights([change(view) for view in model.get_weights()])
        values = [model.params, model.predict(x), model.predict_logits(x), model.evaluate(x, rows, verbose=0)]
        values += [minidl.matmul(x, teacher, transpose_a=True), minidl.softmax(teacher, 2.0)]
        values += [minidl.losses.KnowledgeDistillation().value_and_grad(rows, y, teacher)[1]]
        values += [minidl.losses.MeanSquaredError()(rows, x[:, :CLASSES])]
        values += [model.forward(x), model.train_on_batch(x, rows, weights), model.params.copy()]
        assert [array.tobytes() for array in (x, y, rows, teacher, weights)] == before
        results.append((history, values))
        compiled.append(sum(len(getattr(kernel, "signatures", ())) for kernel in kernels))
    assert compiled[0] == compiled[1]  # one machine code serves them all
    assert results[0][0] == results[1][0]
    for found, right in zip(results[1][1], results[0][1], strict=True):
        assert np.array_equal(found, right)


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.fit(X[:0], Y[:0], verbose=0),
        lambda model: model.fit(X[:, :0], Y, verbose=0),
        lambda model: model.predict(X[:0]),
        lambda model: model.evaluate(X[:0], Y[:0], verbose=0),
        lambda model: model.train_on_batch(X[:0], Y[:0]),
    ],
)
def test_nothing_to_work_on_is_refused(call):
    model = new_model()
    before = model.params.copy()
    with pytest.raises(ValueError, match="x must"):
        call(model)
    assert np.array_equal(model.params, before) and model.optimizer.iterations == 0


def test_products_of_nothing_are_zero():
    assert minidl.matmul(np.ones((0, 3)), np.ones((3, 2))).shape == (0, 2)
    assert (minidl.matmul(np.ones((4, 0)), np.ones((0, 2))) == 0).all()


# -- arbitrary calls -------------------------------------------------------------------------------

N, WIDE = 7, 5
SMALL_X, SMALL_Y = fractions(N, WIDE), np.arange(N) % 3


def small_model():
    model = Sequential([Dense(4, "relu", input_shape=(WIDE,)), Dense(3, "softmax")], seed=1)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return model


def train_small(model):
    model.fit(SMALL_X, SMALL_Y, batch_size=3, epochs=2, verbose=0)
    return model.params.copy()


shapes = st.sampled_from([(N, WIDE), (N, 3), (N,), (N, 1), (N, 4), (WIDE,), (0, WIDE), (N, WIDE, 1), (), (2, 0)])
dtypes = st.sampled_from("? i1 u1 i2 >i2 i4 u4 i8 u8 f2 f4 f8 >f4 >f8 c8 U3 S2 O M8[D] m8[s]".split())


@st.composite
def arrays(draw):
    shape, dtype = draw(shapes), np.dtype(draw(dtypes))
    base = np.random.default_rng(draw(st.integers(0, 5))).integers(0, 3, shape)
    if dtype.kind == "f":
        base = base * draw(st.sampled_from([1.0, -0.5, 1e-40, 1e30, 60000.0]))
        if base.size and draw(st.booleans()):
            flat = base.reshape(-1)
            bad = st.sampled_from([np.nan, np.inf, -np.inf, -1.0, 1e300])
            flat[draw(st.integers(0, flat.size - 1))] = draw(bad)
    with np.errstate(all="ignore"):
        array = base.astype(dtype)
    if array.ndim and draw(st.booleans()):
        array = np.asfortranarray(array[::-1])
    return array


junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.sampled_from([2**31, 2**63, -(2**70), np.int8(2), np.float32(0.5), np.float64(np.nan), np.bool_(True)]),
    st.floats(width=32),
    st.sampled_from([1e-300, 1e300, 1j]),
    st.text(max_size=4),
    st.sampled_from(["adam", "sgd", "mse", "relu", "softmax", "accuracy", "kl_divergence", "", b"x"]),
    st.lists(st.integers(-2, 4), max_size=8),
    st.just([[1, 2], [3]]),
    st.dictionaries(st.integers(-1, 4), st.floats(-1, 3), max_size=3),
    st.sampled_from([(), {}, set(), object(), int, slice(3), np.ma.masked_array([1.0, 2.0], [0, 1])]),
    arrays(),
)

# name: (how it is called, right arguments, whether it may change the model)
CALLS = {
    "fit": (
        lambda model, **a: model.fit(**a, verbose=0),
        dict(
            x=SMALL_X, y=SMALL_Y, batch_size=3, epochs=1, validation_split=0.0, validation_data=None, shuffle=True,
            class_weight=None, sample_weight=None, initial_epoch=0, validation_freq=1, validation_batch_size=None,
            callbacks=None,
        ),
    ),
    "distil": (
        lambda model, **a: model.fit(**a, verbose=0),
        dict(
            x=SMALL_X, y=SMALL_Y, target_model=fractions(N, 3), temperature=2.0, hard_weight=0.5, soft_weight=0.5,
            sample_weight=None,
        ),
    ),
    "distill": (
        lambda model, **a: minidl.distill(student=model, verbose=0, **a),
        dict(teacher=fractions(N, 3), x=SMALL_X, y=SMALL_Y, loss=None, optimizer=None, epochs=1, batch_size=3),
    ),
    "evaluate": (
        lambda model, **a: model.evaluate(**a, verbose=0),
        dict(x=SMALL_X, y=SMALL_Y, batch_size=3, sample_weight=None),
    ),
    "predict": (lambda model, **a: model.predict(**a), dict(x=SMALL_X, batch_size=None, verbose=0)),
    "predict_logits": (lambda model, **a: model.predict_logits(**a), dict(x=SMALL_X, batch_size=2)),
    "train_on_batch": (
        lambda model, **a: model.train_on_batch(**a),
        dict(x=SMALL_X, y=SMALL_Y, sample_weight=None, class_weight=None, teacher_logits=None),
    ),
    "compile": (
        lambda model, **a: model.compile(**a),
        dict(optimizer="sgd", loss="sparse_categorical_crossentropy", metrics=None),
    ),
    "set_weights": (
        lambda model, weight, bias: model.set_weights([weight, bias, *model.get_weights()[2:]]),
        dict(weight=np.ones((WIDE, 4)), bias=np.zeros(4)),
    ),
    "matmul": (
        lambda model, **a: minidl.matmul(**a),
        dict(a=SMALL_X, b=fractions(WIDE, 2), out=None, transpose_a=False, transpose_b=False),
    ),
    "softmax": (lambda model, **a: minidl.softmax(**a), dict(logits=fractions(N, 3), temperature=1.0)),
    "log_softmax": (lambda model, **a: minidl.log_softmax(**a), dict(logits=fractions(N, 3), temperature=1.0)),
    "boltzmann": (lambda model, **a: minidl.boltzmann(**a), dict(energies=fractions(N, 3), temperature=1.0)),
    "Dense": (
        lambda model, **a: minidl.layers.Dense(**a),
        dict(units=3, activation=None, use_bias=True, kernel_initializer="zeros", kernel_regularizer=None,
             kernel_constraint=None, input_dim=None, input_shape=None, name=None),
    ),
    "Dropout": (lambda model, **a: minidl.layers.Dropout(**a), dict(rate=0.5)),
    "Adam": (
        lambda model, **a: minidl.optimizers.Adam(**a),
        dict(
            learning_rate=0.1, beta_1=0.9, beta_2=0.99, epsilon=1e-7, clipnorm=None, clipvalue=None,
            weight_decay=None,
        ),
    ),
    "SGD": (lambda model, **a: minidl.optimizers.SGD(**a), dict(learning_rate=0.1, momentum=0.0, nesterov=False)),
    "KnowledgeDistillation": (
        lambda model, **a: minidl.losses.KnowledgeDistillation(**a),
        dict(temperature=2.0, hard_weight=0.5, soft_weight=0.5),
    ),
    "value_and_grad": (
        lambda model, **a: minidl.losses.KnowledgeDistillation().value_and_grad(**a),
        dict(logits=fractions(N, 3), y=SMALL_Y, teacher_logits=fractions(N, 3), sample_weight=None),
    ),
    "to_categorical": (lambda model, **a: minidl.utils.to_categorical(**a), dict(x=SMALL_Y, num_classes=3)),
    "Sequential": (lambda model, **a: Sequential(**a), dict(layers=None, name=None, dtype="float32", seed=1)),
    "EarlyStopping": (
        lambda model, **a: minidl.callbacks.EarlyStopping(**a),
        dict(monitor="loss", min_delta=0.0, patience=0, mode="auto", baseline=None),
    ),
    "TerminateOnNaN": (lambda model, **a: TerminateOnNaN(**a), dict(raise_error=False, restore=True)),
    "ModelCheckpoint": (
        lambda model, **a: ModelCheckpoint(**a),
        dict(filepath="m.npz", monitor="loss", save_freq="epoch", initial_value_threshold=None),
    ),
}  # fmt: skip


@st.composite
def calls(draw):
    """(name, arguments): right ones, up to three of them replaced by anything."""
    name = draw(st.sampled_from(sorted(CALLS)))
    arguments = dict(CALLS[name][1])
    for changed in draw(st.lists(st.sampled_from(sorted(arguments)), max_size=3, unique=True)):
        arguments[changed] = draw(junk)
    return name, arguments


def too_much(arguments):
    """Calls that are right and would take for ever: a trillion epochs, a layer of a billion units."""
    return any(
        isinstance(arguments.get(name), (int, np.integer)) and arguments[name] > 100
        for name in ("epochs", "units", "num_classes")
    )


def call_and_look(model, name, arguments):
    """Make the call; it works, or is refused by name and has changed nothing."""
    before, iterations = model.params.copy(), model.optimizer.iterations
    compiled = model.optimizer, model.loss, model.metrics
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            CALLS[name][0](model, **arguments)
        except (ValueError, TypeError) as error:
            words = [argument.removeprefix("kernel_").removesuffix("s") for argument in arguments]
            words += ["teacher", "target_model", "compile(", "loss "]
            assert any(word in str(error).replace("-", "_") for word in words), f"{name}: {error!r} names no argument"
            assert np.array_equal(before, model.params, equal_nan=True), name
            assert model.optimizer.iterations == iterations, name
            assert all(a is b for a, b in zip(compiled, (model.optimizer, model.loss, model.metrics), strict=True))


def fuzz(sequence):
    fresh = small_model()
    initial = fresh.get_weights()
    model = small_model()
    for name, arguments in sequence:
        if not too_much(arguments):
            call_and_look(model, name, arguments)
    model.set_weights(initial)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    assert np.array_equal(train_small(model), train_small(fresh))


@given(st.lists(calls(), min_size=1, max_size=4))
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
def test_arbitrary_calls_work_or_are_refused(sequence):
    fuzz(sequence)


@pytest.mark.long
@given(st.lists(calls(), min_size=1, max_size=4))
@settings(max_examples=10_000, suppress_health_check=list(HealthCheck))
def test_ten_thousand_arbitrary_calls_work_or_are_refused(sequence):
    fuzz(sequence)


@pytest.mark.parametrize("change", ["message", "params"])
def test_the_fuzzer_would_see_it(change, monkeypatch):
    def bad(model, **arguments):
        if change == "params":
            model.params[0] += 1
        raise ValueError("x is wrong" if change == "params" else "something is wrong")

    monkeypatch.setitem(CALLS, "fit", (bad, CALLS["fit"][1]))
    with pytest.raises(AssertionError):
        call_and_look(small_model(), "fit", {"x": SMALL_X})
