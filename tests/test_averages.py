"""Averages of the parameters and gradients accumulated over batches, against Keras's rules written out in NumPy."""

import copy
import json
import pickle

import numpy as np
import pytest
import reference

import minidl
from minidl import Dense, Input, Sequential, load_model, optimizers
from minidl.callbacks import LambdaCallback
from minidl.constraints import Constraint, MaxNorm
from minidl.optimizers import SGD, Adagrad, Adam, Lion, Nadam
from minidl.optimizers.schedules import ExponentialDecay
from minidl.regularizers import L2

RNG = np.random.default_rng(0)
GRADIENTS = RNG.standard_normal((23, 12)) + RNG.standard_normal(12)
X, Y = RNG.standard_normal((90, 6)).astype("float32"), RNG.integers(0, 3, 90)
SPARSE = "sparse_categorical_crossentropy"


def simulated(rule, rate, steps=1, ema=None, every=0, decay=0.0, clip=np.inf, **settings):
    """(parameters, average) after all of `GRADIENTS`; ``rate`` is a function of the batch's number."""
    w, average, collected, state = np.ones(12), np.zeros(12), 0.0, {}
    for batch, gradient in enumerate(GRADIENTS):
        updates, collected = batch // steps, collected + gradient
        if batch % steps == steps - 1:
            mean, collected = collected / steps, 0.0
            mean = mean * min(1.0, clip / np.linalg.norm(mean))
            w = rule(w - w * decay * rate(batch), mean, state, rate(batch), **settings)
        if ema is not None:
            kept = ema if updates else 0.0
            average = kept * average + (1 - kept) * w
            if every and (updates + 1) % every == 0:
                w = average
    return w, average


AVERAGED = {"use_ema": True, "ema_momentum": 0.8}
WAYS = {  # name: (the optimizer, what is simulated)
    "average": (lambda: SGD(0.1, **AVERAGED), {"rule": reference.sgd, "rate": lambda i: 0.1, "ema": 0.8}),
    "overwritten": (
        lambda: Adam(0.1, **AVERAGED, ema_overwrite_frequency=4),
        {"rule": reference.adam, "rate": lambda i: 0.1, "ema": 0.8, "every": 4},
    ),
    "accumulated": (
        lambda: Adam(0.1, gradient_accumulation_steps=3),
        {"rule": reference.adam, "rate": lambda i: 0.1, "steps": 3},
    ),
    "accumulated, clipped, decayed, scheduled": (
        lambda: SGD(
            ExponentialDecay(0.1, 5, 0.5), 0.9, weight_decay=0.2, clipnorm=0.5, gradient_accumulation_steps=4
        ),
        {
            "rule": reference.sgd, "rate": lambda i: 0.1 * 0.5 ** (i / 5), "steps": 4, "decay": 0.2, "clip": 0.5,
            "momentum": 0.9,
        },
    ),
    "both": (
        lambda: Nadam(0.1, **AVERAGED, ema_overwrite_frequency=2, gradient_accumulation_steps=5),
        {"rule": reference.nadam, "rate": lambda i: 0.1, "ema": 0.8, "every": 2, "steps": 5},
    ),
}  # fmt: skip


def run(optimizer, gradients=GRADIENTS, params=None):
    params = np.ones(12) if params is None else params
    for gradient in gradients:
        optimizer.step(params, gradient.copy())
    return params


@pytest.mark.parametrize("way", WAYS)
def test_against_the_rules_written_out(way):
    make, told = WAYS[way]
    expected, average = simulated(**told)
    optimizer = make()
    params = run(optimizer)
    np.testing.assert_allclose(params, expected, rtol=1e-12)
    assert optimizer.batches == len(GRADIENTS) and optimizer.iterations == len(GRADIENTS) // told.get(
        "steps", 1
    )
    if "ema" in told:
        optimizer.finalize_variable_values(params)
        np.testing.assert_allclose(params, average, rtol=1e-12)
    for name in {"steps", "ema", "every"} & told.keys():  # another count, or momentum, would be seen
        other = told | {name: told[name] * 2 if name != "ema" else 0.5}
        if name != "ema":
            assert abs(simulated(**other)[0] - expected).max() > 1e-3, name
        else:
            assert abs(simulated(**other)[1] - average).max() > 1e-3


@pytest.mark.parametrize("way", WAYS)
def test_slots_and_batches_are_the_whole_state(way):
    whole, first, second = (WAYS[way][0]() for _ in range(3))
    expected, params = run(whole), np.ones(12)
    run(first, GRADIENTS[:10], params)  # in the middle of an accumulation of 3, 4; at the end of one of 5
    second.build(params)
    assert len(second.slots) == 5
    for slot, kept in zip(second.slots, first.slots, strict=True):
        slot[...] = kept
    second.batches = first.batches
    run(second, GRADIENTS[10:], params)
    np.testing.assert_array_equal(params, expected)
    again = optimizers.get(json.loads(json.dumps(optimizers.serialize(whole))))
    np.testing.assert_array_equal(run(again), expected)
    assert again.get_config() == whole.get_config()


def net(**rules):
    return [
        Dense(11, "relu", input_dim=6, **rules),
        Dense(9, "tanh", **rules),
        Dense(3, "softmax"),
    ]


RULES = {"kernel_regularizer": L2(0.01), "kernel_constraint": MaxNorm(0.9)}
MAKERS = {
    "average": lambda: Adam(0.01, **AVERAGED),
    "overwritten": lambda: Lion(0.003, **AVERAGED, ema_overwrite_frequency=3),
    "accumulated": lambda: SGD(0.1, 0.9, gradient_accumulation_steps=4),
    "all": lambda: Adagrad(
        ExponentialDecay(0.1, 9, 0.5), weight_decay=0.1, clipnorm=0.1, **AVERAGED, ema_overwrite_frequency=2,
        gradient_accumulation_steps=3,
    ),
}  # fmt: skip


def trained(maker, dtype="float32", layerwise=False, frozen=(), rules=RULES, model=None, **fit):
    if model is None:
        model = Sequential(net(**rules), dtype=dtype, seed=3)
        model.compile(MAKERS[maker](), SPARSE)
    for index in frozen:
        model.layers[index].trainable = False
    if layerwise:
        model.ops = lambda training=False, logits=False: None
    model.fit(X, Y, **{"batch_size": 16, "epochs": 3, "verbose": 0, **fit})
    return model


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("frozen", [(), (1,)], ids=str)
@pytest.mark.parametrize("rules", [{}, RULES], ids=["", "rules"])
@pytest.mark.parametrize("maker", MAKERS)
def test_both_ways_end_with_the_same_bits(maker, rules, frozen, dtype):
    one, two = (trained(maker, dtype, way, frozen, rules) for way in (False, True))
    assert one.ops(training=True) is not None  # the first ran in the compiled loop
    np.testing.assert_array_equal(one.params, two.params)
    for slot, other in zip(one.optimizer.slots, two.optimizer.slots, strict=True):
        np.testing.assert_array_equal(slot, other)
    fresh = Sequential(net(**rules), dtype=dtype, seed=3)
    for index in range(3):
        is_same = np.array_equal(one.layers[index].weight, fresh.layers[index].weight)
        assert is_same == (index in frozen)


@pytest.mark.parametrize("maker", MAKERS)
def test_threads_change_no_bit(maker):
    before, found = minidl.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            minidl.set_num_threads(number)
            found.append(trained(maker).params)
    finally:
        minidl.set_num_threads(before)
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


@pytest.mark.parametrize("layerwise", [False, True])
def test_a_batch_of_four_is_four_batches_of_one_quarter(layerwise):
    whole = Sequential(net(), dtype="float64", seed=3)
    whole.compile(SGD(0.1, 0.9), SPARSE)
    whole.fit(X[:80], Y[:80], batch_size=16, epochs=2, shuffle=False, verbose=0)
    parts = Sequential(net(), dtype="float64", seed=3)
    parts.compile(MAKERS["accumulated"](), SPARSE)
    if layerwise:
        parts.ops = lambda training=False, logits=False: None
    parts.fit(X[:80], Y[:80], batch_size=4, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(parts.params, whole.params, rtol=1e-9, atol=1e-12)
    assert (parts.optimizer.batches, parts.optimizer.iterations) == (
        40,
        10,
    ) and whole.optimizer.iterations == 10


def test_nothing_changes_before_the_last_batch_of_an_update():
    model, seen = Sequential(net(), seed=3), []
    model.compile(MAKERS["accumulated"](), SPARSE)
    look = LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(model.params.copy()))
    trained(None, model=model, epochs=1, callbacks=[look])
    changed = [not np.array_equal(one, two) for one, two in zip(seen[:-1], seen[1:], strict=True)]
    assert changed == [False, False, True, False, False]


@pytest.mark.parametrize("maker", MAKERS)
def test_fit_ends_with_the_average_and_callbacks_see_the_parameters(maker):
    seen = {}
    model = Sequential(net(), seed=3)
    model.compile(MAKERS[maker](), SPARSE)
    look = LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.update(epoch=model.params.copy()),
        on_train_end=lambda logs: seen.update(end=model.params.copy()),
    )
    trained(
        None, model=model, callbacks=[look], batch_size=13, epochs=2
    )  # an update that overwrites is not the last
    np.testing.assert_array_equal(seen["end"], model.params)
    if model.optimizer.use_ema:
        np.testing.assert_array_equal(model.params, model.optimizer.slots[3])
    assert np.array_equal(seen["epoch"], model.params) == (not model.optimizer.use_ema)


@pytest.mark.parametrize("layerwise", [False, True])
@pytest.mark.parametrize("maker", MAKERS)
def test_a_training_goes_on_from_a_file_in_the_middle_of_an_accumulation(maker, layerwise, tmp_path):
    path, model = tmp_path / "model.npz", Sequential(net(**RULES), seed=3)
    model.compile(MAKERS[maker](), SPARSE)

    def save(batch, logs):
        if model.epoch == 1 and batch == 3:
            model.save(path)

    trained(None, model=model, layerwise=layerwise, callbacks=[LambdaCallback(on_train_batch_end=save)])
    again = load_model(path)
    steps = model.optimizer.batches_to_an_update
    assert again.optimizer.batches == 10 and again.optimizer.slots[4].any() == (steps > 1)
    trained(None, model=again, initial_epoch=1)
    np.testing.assert_array_equal(again.params, model.params)
    for slot, other in zip(again.optimizer.slots, model.optimizer.slots, strict=True):
        np.testing.assert_array_equal(slot, other)
    for other in (copy.deepcopy(again), pickle.loads(pickle.dumps(again))):
        np.testing.assert_array_equal(other.optimizer.slots[3], model.optimizer.slots[3])
        assert other.optimizer.batches == model.optimizer.batches


def test_files_have_no_more_than_they_need(tmp_path):
    for maker, names in ((lambda: Adam(), set()), (MAKERS["all"], {"average", "accumulated"})):
        model = Sequential(net(), seed=3)
        model.compile(maker(), SPARSE)
        trained(None, model=model, epochs=1)
        model.save(tmp_path / "model.npz")
        held = {name.removesuffix(".npy") for name in np.load(tmp_path / "model.npz").files}
        assert held & {"average", "accumulated"} == names
        config = json.loads(np.load(tmp_path / "model.npz")["config"].tobytes())["compile"]["optimizer"][
            "config"
        ]
        assert ("use_ema" in config) == ("gradient_accumulation_steps" in config) == bool(names)


def test_the_average_is_taken_before_the_constraint():
    class Halved(Constraint):
        def __call__(self, weight):
            return weight / 2

    model = Sequential(
        [Input((2,)), Dense(1, use_bias=False, kernel_constraint=Halved())], dtype="float64", seed=1
    )
    model.compile(SGD(0.0, **AVERAGED), "mse")
    w = model.params.copy()
    model.train_on_batch(np.ones((1, 2)), np.ones((1, 1)))
    np.testing.assert_array_equal(model.params, w / 2)
    np.testing.assert_array_equal(model.optimizer.slots[3], w)


def test_a_layer_that_learns_later_has_an_average():
    model = Sequential(net(), seed=3)
    model.compile(MAKERS["average"](), SPARSE)
    before = model.layers[1].get_weights()
    trained(None, model=model, frozen=(1,))
    assert np.array_equal(model.layers[1].weight, before[0])
    model.layers[1].trainable = True
    trained(None, model=model, epochs=1)
    moved = abs(model.layers[1].weight - before[0]).max()
    assert 0 < moved < 0.1


def test_what_the_average_is_made_of_cannot_be_changed_later():
    for name, value in (("use_ema", True), ("gradient_accumulation_steps", 3)):
        optimizer = Adam()
        setattr(optimizer, name, value)
        optimizer = Adam()
        optimizer.build(np.ones(3))
        with pytest.raises(
            AttributeError, match=f"{name} of adam is .* once it trains: make a new optimizer"
        ):
            setattr(optimizer, name, value)
        optimizer.ema_momentum = 0.5
        with pytest.raises(ValueError, match="ema_momentum must be <= 1, got 2"):
            optimizer.ema_momentum = 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"use_ema": 1}, "use_ema must be True or False"),
        ({"ema_momentum": -0.1}, "ema_momentum must be >= 0, got -0.1"),
        ({"ema_overwrite_frequency": 0}, "ema_overwrite_frequency must be >= 1, got 0"),
        ({"ema_overwrite_frequency": 1.5}, "ema_overwrite_frequency must be an integer, got 1.5"),
        ({"gradient_accumulation_steps": 1}, "gradient_accumulation_steps must be >= 2, got 1"),
        ({"gradient_accumulation_steps": True}, "gradient_accumulation_steps must be an integer, got True"),
        ({"loss_scale_factor": 128.0}, "loss_scale_factor must be None: it guards arithmetic in float16"),
    ],
)
def test_bad_input(settings, message):
    for cls in (SGD, Adam, Nadam, Adagrad, Lion):
        with pytest.raises((TypeError, ValueError), match=message):
            cls(**settings)


def test_counts():
    optimizer = SGD(ExponentialDecay(1.0, 1, 0.5), gradient_accumulation_steps=4)
    optimizer.batches = 11
    assert optimizer.iterations == 2 and optimizer.learning_rate == 0.5**11
    optimizer.iterations = 3
    assert optimizer.batches == 12
    with pytest.raises(ValueError, match="batches must be >= 0, got -1"):
        optimizer.batches = -1
