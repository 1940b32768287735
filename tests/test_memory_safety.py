"""No kernel reads or writes outside its arrays, and arrays of any layout give the same results.

Each kernel runs on ordinary arrays and on copies between an unmapped page and bytes of a known value, at either
end: nothing faults, those bytes stay, and the results are the same bits.
"""

import faulthandler
import itertools
import signal
from functools import partial

import numpy as np
import pytest
from guarded import Guards
from numpy.lib.stride_tricks import as_strided
from small_run import BATCH, CLASSES, FEATURES, X, Y, exit_code, fit, forked, new_model, same_state

import minidl
from minidl.callbacks import LambdaCallback
from minidl.constraints import MaxNorm
from minidl.kernels import (
    infer,
    losses,
    matmul,
    metrics,
    program,
    random,
    restraints,
    rowwise,
    simd,
    threads,
    updates,
)
from minidl.kernels.activations import CODES, NEEDS_INPUT, activation_backward, activation_forward
from minidl.kernels.barrier import ALONE
from minidl.kernels.batch import gather as gather_rows
from minidl.kernels.jit import JIT_DISABLED, jit
from minidl.kernels.softmax import log_softmax_forward, softmax_backward, softmax_forward
from minidl.layers import (
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    Layer,
    LeakyReLU,
    RandomTranslation,
    Rescaling,
)
from minidl.losses import SparseCategoricalCrossentropy
from minidl.models import Sequential
from minidl.optimizers import SGD, Adam, RMSprop
from minidl.regularizers import L1L2

# -- guard pages -----------------------------------------------------------------------------------

DTYPES = [np.float32, np.float64]
ALL = range(1, 71)
ODD = [(1, 1025), (3, 2049), (257, 33), (129, 127), (1, 4099)]  # beyond a chunk of a row, a block of rows
SHAPES = [(rows, columns) for rows in (1, 2, 7, 33) for columns in ALL] + [(rows, 5) for rows in ALL] + ODD
EVERY_SHAPE = [(rows, columns) for rows in ALL for columns in ALL] + ODD

every_shape = pytest.mark.parametrize(
    "shapes", [pytest.param(SHAPES, id="some"), pytest.param(EVERY_SHAPE, id="all", marks=pytest.mark.long)]
)


def same_bits(found, right):
    return found.dtype == right.dtype and found.tobytes() == right.tobytes()


class Fences:
    """Calls kernels once on arrays as they are and once between guard pages, at both ends: the same bits."""

    def __init__(self):
        self._guards = [Guards(at_end=True), Guards(at_end=False)]

    def __call__(self, kernel, *arguments):
        places = [index for index, value in enumerate(arguments) if isinstance(value, np.ndarray)]
        given = [arguments[index] for index in places]

        def call(arrays):
            changed = list(arguments)
            for index, array in zip(places, arrays, strict=True):
                changed[index] = array
            return kernel(*changed)

        right = [array.copy() for array in given]
        returned = call(right)
        for guards in self._guards:
            found = guards.place(*given)
            again = call(found)
            guards.check()
            assert again == returned or (again != again and returned != returned)
            for index, pair in zip(places, zip(found, right, strict=True), strict=True):
                assert same_bits(*pair), f"argument {index} of {kernel}"


def test_the_guard_page_guards():
    def reads_on():
        faulthandler.disable()
        x = Guards(at_end=True).place(np.zeros(5))[0]
        as_strided(x, (6,)).sum()

    assert exit_code(forked(reads_on)) == -signal.SIGSEGV


def test_a_stray_write_or_another_result_would_be_noticed():
    def before(x):
        return as_strided(x[:1], (2,), (-x.itemsize,))

    def writes(x):
        before(x)[1] = 7

    def reads(out, x):
        out[0] = before(x)[1]

    guards = Guards(at_end=True)
    writes(*guards.place(np.zeros(9)))
    with pytest.raises(AssertionError, match="a write beside array 0"):
        guards.check()
    with pytest.raises(AssertionError, match="argument 0 of"):
        Fences()(reads, np.zeros(1), np.zeros(9))


def numbers(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def rows_that_sum_to_one(shape, dtype):
    return np.random.default_rng(1).dirichlet(np.ones(shape[1]), shape[0]).astype(dtype)


@jit
def copy(out, x):
    simd.copy(out, x)


@every_shape
@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_stay_inside(dtype, shapes):
    fences = Fences()
    sizes = sorted({(1, rows * columns) for rows, columns in shapes} if shapes is EVERY_SHAPE else shapes)
    for name, code in CODES.items():
        for shape in shapes if name == "softmax" else sizes:
            if name != "softmax" and shapes is SHAPES and shape[0] not in (1, 3, 257):
                continue  # elementwise: the size alone counts
            x, dout = 3 * numbers(shape, dtype), numbers(shape, dtype, 1)
            out = np.full_like(x, np.nan)
            fences(activation_forward, out, x, code, 0.1)
            activation_forward(out, x, code, 0.1)
            fences(activation_backward, np.full_like(x, np.nan), dout, out, x, code, 0.1)
            if code not in NEEDS_INPUT:
                fences(lambda both, code=code: activation_forward(both, both, code, 0.1), x)


@every_shape
@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_stays_inside(dtype, shapes):
    fences = Fences()
    for shape in shapes:
        x, out = 5 * numbers(shape, dtype), np.full(shape, np.nan, dtype)
        fences(softmax_forward, out, x, 2.0)
        fences(log_softmax_forward, out, x, 2.0)
        fences(softmax_backward, out, numbers(shape, dtype, 1), rows_that_sum_to_one(shape, dtype), 2.0)


ON_PROBS = [
    kind for kind in losses.Loss if kind.name.endswith("_ON_PROBS") or kind == losses.Loss.KL_DIVERGENCE
]
DISTILLING = [kind for kind in losses.Loss if "hard_weight" in losses.SETTINGS[kind]]


def loss_cases(kind, shape, dtype):
    """Arguments of `loss_batch` after the kind: labels, rows of targets and none; with a gradient and without."""
    rows, columns = shape
    values = rows_that_sum_to_one(shape, dtype) if kind in ON_PROBS else 3 * numbers(shape, dtype)
    targets = rows_that_sum_to_one(shape, dtype)
    labels = np.arange(rows) % columns
    if kind in DISTILLING:
        labels[rows // 2] = -1
    none, no_rows = np.empty(0, np.int64), np.empty((0, 0), dtype)
    teacher = 2 * numbers(shape, dtype, 2) if kind in DISTILLING else no_rows
    sparse = kind in DISTILLING or kind.name.startswith("SPARSE_")
    given = [(labels, no_rows)] if sparse else []
    given += [(none, targets)] if not sparse or kind in DISTILLING else []
    given += [(none, no_rows)] if kind in DISTILLING else []
    scale = np.random.default_rng(3).random(rows)
    for which, (y, rows_of_y) in enumerate(given):
        given_settings = {
            "temperature": 3.0, "hard_weight": 0.3 if y.size or rows_of_y.size else 0.0, "soft_weight": 0.7,
            "target_weight": 0.7, "beta": 0.7, "nontarget_weight": 2.0, "gamma": 2.0, "label_smoothing": 0.1,
            "delta": 1.0, "standardize": float(which == 1),
        }  # fmt: skip
        hyper = np.zeros(8)
        hyper[: len(losses.SETTINGS[kind])] = [
            given_settings.get(name, 1.0) for name in losses.SETTINGS[kind]
        ]
        dlogits = no_rows if which == 2 else np.full(shape, np.nan, dtype)
        yield np.full(rows, np.nan), dlogits, values, y, rows_of_y, teacher, scale, hyper


@every_shape
@pytest.mark.parametrize("dtype", DTYPES)
def test_losses_stay_inside(dtype, shapes):
    fences = Fences()
    for kind in losses.Loss:
        for shape in shapes:
            if shapes is SHAPES and shape[0] not in (1, 3, 7, 257):
                continue
            if shape[1] == 1 and kind in DISTILLING:
                continue  # a single class has nothing to teach
            for case in loss_cases(kind, shape, dtype):

                def run(row_loss, dlogits, *batch_and_hyper, kind=kind):
                    *batch, hyper = batch_and_hyper
                    losses.loss_batch(kind, row_loss, dlogits, losses.Batch(*batch), hyper)

                fences(run, *case)


@pytest.mark.parametrize("dtype", DTYPES)
def test_updates_stay_inside(dtype):
    fences, scalars = Fences(), np.zeros(8)
    for size in [*ALL, 127, 1025, 4099]:
        params, grads = numbers(size, dtype), numbers(size, dtype, 1)
        for kind, kept in updates.KEEPS.items():
            slots = [np.abs(numbers(size if i in kept else 0, dtype, 2)) for i in range(3)]
            fences(updates.step_scalars, scalars, kind, np.array([0.9, 0.99, 1e-7, 0.1, 0, 0, 0, 0]), 0.01, 3)
            updates.step_scalars(scalars, kind, np.array([0.9, 0.99, 1e-7, 0.1, 0, 0, 0, 0]), 0.01, 3)
            fences(partial(updates.update, kind), params, *slots, grads, scalars)
        segments = np.array([[0, size // 3], [size // 3, size - size // 3]])
        penalties = np.array([[0.1, 0.2], [0.0, 0.3]])
        fences(restraints.add_regularizer, grads, params, segments, penalties)
        fences(restraints.add_regularizer, grads[:0], params, segments, penalties)
        fences(restraints.sum_of_powers, grads, 0.0, 1.0)
        fences(restraints.clip_by_value, grads, 0.5)
        fences(restraints.clip_by_norm, grads, segments, 0.5)
        fences(restraints.clip_by_global_norm, grads, 0.5)
        for steps in (0, 3):
            fences(
                lambda g, a, at, n=steps: restraints.accumulate(g, a, at, n),
                grads,
                numbers(size, dtype, 3),
                segments,
            )
        for updates_done in (0, 3):
            averaging = np.array([0.9, 2.0])
            fences(restraints.move_average, numbers(size, dtype, 3), params, averaging, updates_done)
        places = [[0, size // 3, 3], [size - size // 3, 1, size // 3]]
        places = np.array(
            [[kind, *place] for kind in (restraints.NORMS, restraints.NOT_NEGATIVE) for place in places]
        )
        fences(
            restraints.constrain,
            params,
            places,
            np.array([[0, 0.5, 1], [0.1, 0.2, 0.5], [0, 0, 0], [0, 0, 0]]),
        )


@every_shape
@pytest.mark.parametrize("dtype", DTYPES)
def test_random_numbers_and_copies_stay_inside(dtype, shapes):
    fences, key = Fences(), np.uint64(12345)
    for shape in shapes:
        x, out = numbers(shape, dtype), np.full(shape, np.nan, dtype)
        fences(random.dropout, out, x, 0.4, key, 3)
        fences(lambda both: random.dropout(both, both, 0.4, key, 3), x)
        fences(random.gaussian_noise, out, x, 0.4, key, 3)
        fences(lambda both: random.gaussian_noise(both, both, 0.4, key, 3), x)
        fences(rowwise.rescale, out, x, 2.0, 1.0)
        fences(lambda both: rowwise.rescale(both, both, 2.0, 1.0), x)
        fences(copy, out, x)
        fences(random.permutation, np.arange(shape[0]), key)
        rows, columns = shape
        height = next(side for side in (7, 5, 3, 2, 1) if columns % side == 0)
        for max_dy, max_dx in ((0, 0), (1, 2), (height, columns // height)):
            image, reach = (
                random.Image(height, columns // height, 1),
                random.Reach(-max_dy, max_dy, -max_dx, max_dx),
            )
            fences(random.translate, out, x, image, reach, 0.5, key, 3, 1)
            fences(random.translate, out, x, image, reach, 0.0, key, 3, -1)
    image, reach = random.Image(2, 4, 3), random.Reach(-1, 1, -1, 1)
    fences(random.translate, np.empty((4, 24), dtype), numbers((4, 24), dtype), image, reach, 0.5, key, 0, 1)


@every_shape
@pytest.mark.parametrize("dtype", DTYPES)
def test_metrics_stay_inside(dtype, shapes):
    fences, none = Fences(), np.empty(0, np.int64)
    for shape in shapes:
        pred, targets = rows_that_sum_to_one(shape, dtype), np.round(rows_that_sum_to_one(shape, dtype))
        labels = np.arange(shape[0]) % (shape[1] + 1) - 1
        for kind in metrics.Metric:
            given = (labels, targets[:0]) if kind in metrics.SPARSE else (none, targets)
            fences(partial(metrics.metric_rows, kind), np.full(shape[0], np.nan), pred, *given, 2)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stored", [np.uint8, np.float32, np.float64])
def test_rows_are_gathered_from_inside(dtype, stored):
    fences = Fences()
    for rows, columns in [(5, columns) for columns in ALL] + [(2, 1025)]:
        x = (100 * np.abs(numbers((rows, columns), np.float64))).astype(stored)
        for order in (np.arange(rows)[::-1].copy(), np.empty(0, np.int64)):
            data = x.view(np.uint8).reshape(-1)

            def gather(out, data, order, x=x, rows=rows):
                data = data.view()
                data.flags.writeable = False
                stored_rows = program.Rows(data, x[0].nbytes, program.CODES_OF_DTYPES[x.dtype])
                gather_rows(out, stored_rows, order, 0, 0, rows)

            fences(gather, np.full(x.shape, np.nan, dtype), data, order)


PRODUCTS = [(m, k, n) for m in (1, 6, 13) for k in (0, 1, 9) for n in ALL] + [(m, 7, 33) for m in ALL]
PRODUCTS += [(m, k, 17) for m in (1, 14) for k in ALL] + [(129, 401, 97), (30, 17, 257), (41, 390, 45)]
PRODUCTS += [(1031, 257, 300)]  # A is packed
EVERY_PRODUCT = list(itertools.product(ALL, ALL, ALL))
EVERY_PRODUCT += [(129, 401, 97), (30, 17, 257), (41, 390, 45), (600, 700, 130), (257, 1025, 300)]


@pytest.mark.parametrize(
    "products",
    [pytest.param(PRODUCTS, id="some"), pytest.param(EVERY_PRODUCT, id="all", marks=pytest.mark.long)],
)
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_stay_inside(dtype, products):
    fences = Fences()
    ones = np.random.default_rng(0).standard_normal(1025 * 700).astype(dtype)
    for m, k, n in products:
        a, b, out = ones[: m * k], ones[1 : 1 + k * n], np.full((m, n), np.nan, dtype)
        for transpose_a, transpose_b in itertools.product((False, True), repeat=2):
            shape_a, shape_b = (k, m) if transpose_a else (m, k), (n, k) if transpose_b else (k, n)
            fences(matmul.matmul, out, a.reshape(shape_a), b.reshape(shape_b), transpose_a, transpose_b)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dense_layers_stay_inside(dtype):
    fences = Fences()
    for batch, inputs, outputs in PRODUCTS:
        if inputs == 0:
            continue
        x, weight, bias = (numbers(s, dtype) for s in ((batch, inputs), (inputs, outputs), (outputs,)))
        out = np.full((batch, outputs), np.nan, dtype)
        fences(matmul.dense_forward, out, x, weight, bias)
        fences(matmul.dense_forward, out, x, weight, bias[:0])
        gradients = np.full_like(x, np.nan), np.full_like(weight, np.nan), bias
        fences(matmul.dense_backward, *gradients, np.ones_like(out), x, weight)


# -- the whole loop between guard pages ------------------------------------------------------------


def arrays_in(value):
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from arrays_in(item)


def with_arrays(value, arrays):
    """``value``, tuples within tuples, with its arrays replaced by those of the iterator ``arrays``."""
    if isinstance(value, np.ndarray):
        return next(arrays)
    if isinstance(value, tuple):
        items = [with_arrays(item, arrays) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    return value


class GuardedCalls:
    """Stands in for a function of tuples of arrays: it is called on guarded copies, which are copied back."""

    def __init__(self, function, at_end):
        self._function, self._guards, self.calls = function, Guards(at_end), 0

    def __call__(self, *arguments, **keywords):
        arguments = tuple(a._function if isinstance(a, GuardedCalls) else a for a in arguments)
        distinct = {self._place(array): array for array in arrays_in(arguments)}
        distinct = {place: array for place, array in distinct.items() if array is not ALONE.sync}
        copies = dict(zip(distinct, self._guards.place(*distinct.values()), strict=True))
        for place, array in distinct.items():
            copies[place].flags.writeable = array.flags.writeable
        replaced = (copies.get(self._place(array), array) for array in arrays_in(arguments))
        result = self._function(*with_arrays(arguments, replaced), **keywords)
        self._guards.check()
        for place, array in distinct.items():
            if array.flags.writeable:
                array[...] = copies[place]
        self.calls += 1
        return result

    @staticmethod
    def _place(array):
        return array.ctypes.data, array.nbytes, array.shape, array.dtype


WIDTHS = [(1, 1, 2), (3, 5, 2), (16, 15, 10), (17, 33, 7), (31, 64, 3), (70, 69, 66), (7, 300, 11)]
ACTIVATIONS = [name for name in CODES if name != "softmax"]


def train_a_net(inputs, hidden, classes, rows, batch, dtype, number):
    """One training with a bit of everything; returns all that comes out of it."""
    rng = np.random.default_rng(number)
    kinds = [np.float32, np.float64, np.uint8]
    x = (200 * rng.random((rows, inputs, 1))).astype(kinds[number % 3])
    y, one_hot = rng.integers(0, classes, rows), np.eye(classes, dtype=dtype)[rng.integers(0, classes, rows)]
    penalty, jitters = L1L2(1e-3, 1e-3) if number % 2 else None, number % 2
    layers = [
        Rescaling(1 / 255, input_shape=(inputs, 1)),
        *[RandomTranslation(0.2, 0.2)] * jitters,
        Flatten(),
        Dense(hidden, ACTIVATIONS[number % len(ACTIVATIONS)], kernel_regularizer=penalty),
        GaussianNoise(0.1),
        Dropout(0.3),
        LeakyReLU(0.2),
        Dense(
            hidden,
            ACTIVATIONS[(number + 3) % len(ACTIVATIONS)],
            use_bias=False,
            kernel_constraint=MaxNorm(2.0),
        ),
        Dense(classes, "softmax"),
    ]
    model = Sequential(layers, seed=number, dtype=np.dtype(dtype).name)
    model.compile(["adam", "sgd", "rmsprop"][number % 3], "sparse_categorical_crossentropy", ["accuracy"])
    weight = rng.random(rows)
    settings = dict(batch_size=batch, epochs=2, verbose=0)
    history = model.fit(x, y, sample_weight=weight, **settings).history
    if not jitters:
        model.fit(x, y, target_model=rng.standard_normal((rows, classes)), **settings)
    model.compile("adam", "categorical_crossentropy", ["accuracy", "mae"])
    history |= model.fit(x, one_hot, **settings).history
    results = [model.params, model.predict(x), model.predict(x[:1]), model.predict_logits(x)]
    return history, [array.copy() for array in results]


@pytest.mark.parametrize(
    "widths", [pytest.param(WIDTHS, id="some"), pytest.param(None, id="all", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threads_used", [1, 2])
def test_the_whole_loop_stays_inside(dtype, threads_used, widths, monkeypatch, all_threads):
    if JIT_DISABLED and threads_used > 1:
        threads_used = 1
    if widths is None:
        rng = np.random.default_rng(0)
        widths = [tuple(rng.integers(1, 71, 3) + (0, 0, 1)) for _ in range(150)]
    before, lean_predictions = minidl.get_num_threads(), 0
    minidl.set_num_threads(threads_used)
    try:
        for number, (inputs, hidden, classes) in enumerate(widths):
            case = (
                int(inputs),
                int(hidden),
                int(classes),
                1 + 37 * number % 70,
                1 + 11 * number % 33,
                dtype,
                number,
            )
            right = train_a_net(*case)
            for at_end in (True, False):
                with monkeypatch.context() as patch:
                    run, lean = GuardedCalls(threads.run, at_end), GuardedCalls(infer.infer_rows, at_end)
                    patch.setattr(threads, "run", run)
                    patch.setattr(infer, "infer_rows", lean)
                    found = train_a_net(*case)
                assert run.calls or JIT_DISABLED
                lean_predictions += lean.calls
                assert found[0] == right[0]
                assert all(same_bits(*pair) for pair in zip(found[1], right[1], strict=True))
        assert lean_predictions > 0
    finally:
        minidl.set_num_threads(before)


@pytest.mark.parametrize("shape", [(1, 1, 1), (70, 33, 65), (129, 401, 97), (300, 5, 700), (700, 5, 300)])
def test_public_products_stay_inside(shape, monkeypatch):
    m, k, n = shape
    for dtype in DTYPES:
        a, b = numbers((m, k), dtype), numbers((k, n), dtype)
        right = minidl.matmul(a, b)
        for at_end in (True, False):
            placed = Guards(at_end).place(a, b, np.empty((m, n), dtype))
            assert same_bits(minidl.matmul(*placed[:2], out=placed[2]), right)
            transposed = Guards(at_end).place(a.T, b.T)
            assert same_bits(minidl.matmul(*transposed, transpose_a=True, transpose_b=True), right)


# -- what is changed while kernels rely on it ------------------------------------------------------


def after_the_first_epoch(change):
    return LambdaCallback(on_epoch_end=lambda epoch, logs: change() if epoch == 0 else None)


def test_labels_may_be_overwritten_during_training():
    y, untouched, model = Y.astype(np.int64), new_model(), new_model()
    fit(untouched, epochs=3)
    spoil = after_the_first_epoch(lambda: y.fill(10**9))
    model.fit(X, y, batch_size=BATCH, epochs=3, verbose=0, callbacks=[spoil], validation_data=(X, y))
    assert (y == 10**9).all() and same_bits(model.params, untouched.params)


@pytest.mark.parametrize(
    "layer, setting, value",
    [
        (Dense(3), "units", 10**6),
        (Dense(3), "use_bias", False),
        (Dense(3), "activation", "relu"),
        (Dense(3), "input_shape", (10**6,)),
        (Dense(3), "output_shape", (1,)),
        (LeakyReLU(0.1), "negative_slope", 0.2),
        (Rescaling(2.0), "scale", 3.0),
        (RandomTranslation(0.1, 0.1, input_shape=(4, 3)), "height_factor", 50.0),
    ],
    ids=str,
)
def test_what_a_layer_was_built_with_stays(layer, setting, value):
    before = getattr(layer, setting)
    setattr(layer, setting, before)  # before it is built
    model = Sequential([layer] if layer.input_shape else [Flatten(input_shape=(4, 3)), layer])
    with pytest.raises(AttributeError, match=rf"{layer.name}\.{setting} is .* since the layer was built"):
        setattr(layer, setting, value)
    out = model.predict(np.ones((2, 4, 3)))
    assert out.shape == (2, *layer.output_shape) and same_bits(out, model.forward(np.ones((2, 4, 3))))


class Narrow(Layer):
    """Says that it gives ``wide`` numbers a sample, and gives 3."""

    def __init__(self, wide):
        super().__init__(name="narrow")
        self.wide = wide

    def build(self, input_shape):
        self.output_shape = (self.wide,)

    def forward(self, x, training=False):
        return np.ascontiguousarray(x[:, :3])

    def backward(self, dout):
        return np.pad(dout, ((0, 0), (0, FEATURES - 3)))


@pytest.mark.parametrize("wide", [3, 4, 10**6])
def test_the_shape_a_layer_promises_is_what_it_gives(wide):
    model = Sequential([Dense(FEATURES, input_shape=(FEATURES,)), Narrow(wide)])
    model.compile("sgd", SparseCategoricalCrossentropy(from_logits=True), ["accuracy"])
    y = np.arange(len(X)) % min(wide, 4)
    before = model.params.copy()
    calls = [
        lambda: model.fit(X, y, verbose=0),
        lambda: model.evaluate(X, y, verbose=0),
        lambda: model.predict(X),
    ]
    for call in [*calls, lambda: model.train_on_batch(X, y)]:
        if wide == 3:
            call()
            continue
        with pytest.raises(ValueError, match=rf"forward of layer narrow must return shape \(\d+, {wide}\)"):
            call()
        assert same_bits(model.params, before)


def test_a_teacher_asked_every_step_gives_the_same_shape_every_time():
    model = Sequential([GaussianNoise(0.1, input_shape=(FEATURES,)), Dense(CLASSES, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    calls = itertools.count()

    def teach(x):
        return 5 * X[: len(x), : CLASSES - (next(calls) > 3)]

    with pytest.raises(ValueError, match=r"teacher must give logits of shape \(16, 4\), got \(16, 3\)"):
        fit(model, target_model=teach)
    assert model.optimizer.iterations > 0 and np.isfinite(model.params).all()


class Odd(SparseCategoricalCrossentropy):
    """A loss of the user's own, whose gradient would fit by broadcasting."""

    def kind(self, on_logits):
        return -1

    def value_and_grad(self, logits, y, sample_weight=None):
        value, gradient = super().value_and_grad(logits, y, sample_weight)
        return value, gradient[:, :1]


def test_a_gradient_of_another_shape_is_refused():
    model = new_model()
    model.compile("sgd", Odd())
    with pytest.raises(ValueError, match=r"must give a gradient of shape \(16, 4\), got .*\(16, 1\)"):
        fit(model)


@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize("layerwise", [False, True])
@pytest.mark.parametrize(
    "make, setting, value",
    [
        (lambda: SGD(0.01), "momentum", 0.9),
        (lambda: SGD(0.01, momentum=0.5), "momentum", 0.0),
        (lambda: Adam(0.01), "amsgrad", True),
        (lambda: RMSprop(0.01), "centered", True),
    ],
)
def test_an_optimizer_may_be_set_to_keep_more_during_training(make, setting, value, layerwise, stepwise):
    def model():
        made = new_model(optimizer=make())
        if layerwise:
            made.ops = lambda training=False, logits=False: None
        return made

    expected, found = model(), model()
    fit(expected, epochs=1)
    setattr(expected.optimizer, setting, value)
    fit(expected, epochs=3, initial_epoch=1)
    change = after_the_first_epoch(lambda: setattr(found.optimizer, setting, value))
    every = [LambdaCallback(on_train_batch_end=lambda batch, logs: None)] * stepwise
    fit(found, epochs=3, callbacks=[change, *every])
    assert same_state(found, expected) and np.isfinite(found.params).all()


def test_threads_set_during_training_share_the_buffers_there_are(monkeypatch, all_threads):
    used, run, before = [], threads.run, minidl.get_num_threads()
    monkeypatch.setattr(
        threads, "run", lambda *a, threads: (used.append(threads), run(*a, threads=threads))[1]
    )
    try:
        minidl.set_num_threads(1)
        model, alone = new_model(), new_model()
        fit(model, epochs=3, callbacks=[after_the_first_epoch(lambda: minidl.set_num_threads(3))])
        assert set(used) == {1}
        minidl.set_num_threads(1 if JIT_DISABLED else 3)
        fit(alone, epochs=3)  # the control
        assert max(used) == minidl.get_num_threads() and same_bits(model.params, alone.params)
    finally:
        minidl.set_num_threads(before)


@pytest.mark.parametrize("layerwise", [False, True])
@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.compile("adam", "sparse_categorical_crossentropy"),
        lambda model: model.pop(),
        lambda model: model.add(Dense(900)),
    ],
    ids=["compile", "pop", "add"],
)
def test_a_model_is_not_rebuilt_during_training(change, layerwise):
    model = new_model(optimizer=SGD(0.01))
    if layerwise:
        model.ops = lambda training=False, logits=False: None
    with pytest.raises(RuntimeError, match="has to wait until the fit that trains this model is over"):
        fit(model, epochs=3, callbacks=[LambdaCallback(on_epoch_begin=lambda epoch, logs: change(model))])
    model.add(Dense(CLASSES, "softmax"))
    model.compile("adam", "sparse_categorical_crossentropy")
    fit(model)
    assert np.isfinite(model.params).all()
