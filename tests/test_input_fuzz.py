"""Arbitrary calls: each works, or is refused by name and changes nothing."""

import re
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_run import fractions

import minidl
from minidl.callbacks import ModelCheckpoint, TerminateOnNaN
from minidl.layers import Dense
from minidl.models import Sequential

N, WIDE = 7, 5
SMALL_X, SMALL_Y = fractions(N, WIDE), np.arange(N) % 3


def small_model():
    model = Sequential([Dense(4, "relu", input_shape=(WIDE,)), Dense(3, "softmax")], seed=1)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return model


def train_small(model):
    model.fit(SMALL_X, SMALL_Y, batch_size=3, epochs=2, verbose=0)
    return model.params.copy()


shapes = st.sampled_from(
    [(N, WIDE), (N, 3), (N,), (N, 1), (N, 4), (WIDE,), (0, WIDE), (N, WIDE, 1), (), (2, 0)]
)
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
    st.sampled_from(
        [2**31, 2**63, -(2**70), np.int8(2), np.float32(0.5), np.float64(np.nan), np.bool_(True)]
    ),
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
    "loss": (
        lambda model, **a: minidl.losses.SparseCategoricalCrossentropy(from_logits=True)(**a),
        dict(y_true=SMALL_Y, y_pred=fractions(N, 3), sample_weight=None),
    ),
    "metric": (
        lambda model, **a: minidl.metrics.SparseCategoricalAccuracy()(**a),
        dict(y_true=SMALL_Y, y_pred=fractions(N, 3), sample_weight=None),
    ),
    "forward": (lambda model, **a: model.forward(**a), dict(x=SMALL_X, training=True, logits=False)),
    "backward": (
        lambda model, dout: (model.forward(SMALL_X, training=True), model.backward(dout)),
        dict(dout=fractions(N, 3)),
    ),
    "step": (
        lambda model, **a: minidl.optimizers.Adam().step(**a),
        dict(params=fractions(N), grads=fractions(N)),
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
            words += ["teacher", "target_model", "compile", "loss"]
            message = str(error).replace("-", "_")
            assert re.search(rf"\b({'|'.join(words)})(s|es)?\b", message), (
                f"{name}: {error!r} names no argument"
            )
            assert np.array_equal(before, model.params, equal_nan=True), name
            assert model.optimizer.iterations == iterations, name
            assert all(
                a is b for a, b in zip(compiled, (model.optimizer, model.loss, model.metrics), strict=True)
            )


def fuzz(sequence):
    fresh = small_model()
    initial = fresh.get_weights()
    model = small_model()
    for name, arguments in sequence:
        if not too_much(arguments):
            call_and_look(model, name, arguments)
    model.set_weights(initial)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    model.draw_epoch = 0  # draws go on from fit to fit
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
        raise ValueError("x is wrong" if change == "params" else "something else is wrong: an axis")

    monkeypatch.setitem(CALLS, "fit", (bad, CALLS["fit"][1]))
    with pytest.raises(AssertionError):
        call_and_look(small_model(), "fit", {"x": SMALL_X})


@pytest.mark.parametrize("name", ["fit", "evaluate", "predict"])
def test_an_array_for_verbose_is_refused_by_name(name):
    model = Sequential([Dense(2, input_dim=3)])
    model.compile("sgd", "mse")
    data = [np.zeros((4, 3)), np.zeros((4, 2))][: 1 if name == "predict" else 2]
    with pytest.raises((TypeError, ValueError), match="verbose"):
        getattr(model, name)(*data, verbose=np.zeros((2, 2), bool))


def test_distillation_refuses_an_array_for_verbose_by_name():
    teacher, student = small_model(), small_model()
    before = student.get_weights()
    for distillation in (
        lambda **a: minidl.distill(teacher, student, SMALL_X, SMALL_Y, **a),
        lambda **a: minidl.mutual_learning([teacher, student], SMALL_X, SMALL_Y, **a),
    ):
        with pytest.raises((TypeError, ValueError), match="verbose"):
            distillation(verbose=np.zeros((2, 2), bool))
    np.testing.assert_array_equal(student.get_weights()[0], before[0])
