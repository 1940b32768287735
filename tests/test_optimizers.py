"""Optimizer classes, schedules, penalties and constraints: numbers worked by hand, configs, bad input."""

import json

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import minidl.optimizers as optimizers
from minidl import Dense, Input, Sequential, constraints, load_model, losses, regularizers
from minidl.kernels.updates import KEEPS
from minidl.optimizers import SGD, Adam, AdamW, RMSprop, schedules
from minidl.optimizers.schedules import (
    CosineDecay,
    CosineDecayRestarts,
    ExponentialDecay,
    InverseTimeDecay,
    PiecewiseConstantDecay,
    PolynomialDecay,
)

EVERY = [
    SGD(),
    SGD(0.1, momentum=0.9, weight_decay=0.01),
    SGD(0.1, momentum=0.9, nesterov=True, clipvalue=0.5),
    Adam(),
    Adam(CosineDecay(0.1, 20), amsgrad=True, clipnorm=1.0),
    AdamW(0.01, global_clipnorm=2.0),
    RMSprop(),
    RMSprop(0.01, momentum=0.5),
    RMSprop(0.01, centered=True),
    RMSprop(ExponentialDecay(0.1, 10, 0.5), centered=True, momentum=0.5, name="mine"),
]


def walk(optimizer, steps=6, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    params = rng.standard_normal(30).astype(dtype)
    for _ in range(steps):
        optimizer.step(params, rng.standard_normal(30).astype(dtype))
    return params


def fresh(optimizer):
    return optimizers.get(json.loads(json.dumps(optimizers.serialize(optimizer))))


def test_keras_defaults():
    assert SGD().get_config() == {
        "name": "sgd",
        "learning_rate": 0.01,
        "weight_decay": None,
        "clipnorm": None,
        "clipvalue": None,
        "global_clipnorm": None,
        "momentum": 0.0,
        "nesterov": False,
    }
    config = Adam().get_config()
    assert (config["learning_rate"], config["beta_1"], config["beta_2"]) == (0.001, 0.9, 0.999)
    assert (config["epsilon"], config["amsgrad"]) == (1e-7, False)
    assert AdamW().get_config() == {**config, "name": "adamw", "weight_decay": 0.004}
    config = RMSprop().get_config()
    assert (config["learning_rate"], config["rho"], config["momentum"]) == (0.001, 0.9, 0.0)
    assert (config["epsilon"], config["centered"]) == (1e-7, False)


def test_one_step_by_hand():
    params, grads = np.array([1.0, -2.0]), np.array([0.5, 4.0])
    SGD(0.1).step(params, grads)
    np.testing.assert_allclose(params, [0.95, -2.4], rtol=1e-15)

    params = np.array([1.0])
    momentum = SGD(0.1, momentum=0.5)
    for expected in (0.8, 0.5):  # u = -0.2, then 0.5*-0.2 - 0.2 = -0.3
        momentum.step(params, np.array([2.0]))
        assert params[0] == pytest.approx(expected)
    params = np.array([1.0])
    SGD(0.1, momentum=0.5, nesterov=True).step(params, np.array([2.0]))
    assert params[0] == pytest.approx(1 - 0.5 * 0.2 - 0.2)

    params = np.array([1.0])
    AdamW(0.1, weight_decay=0.5, epsilon=0.0).step(params, np.array([3.0]))
    assert params[0] == pytest.approx(1 - 1 * 0.5 * 0.1 - 0.1)  # the first Adam step is lr*sign(g)

    params = np.array([10.0])  # the example of Keras's documentation
    RMSprop(0.1).step(params, np.array([10.0]))
    assert params[0] == pytest.approx(9.683772, abs=1e-6)


@pytest.mark.parametrize("name", [7, "", True])
@pytest.mark.parametrize(
    "make",
    [
        lambda name: SGD(name=name),
        lambda name: setattr(SGD(), "name", name),
        lambda name: ExponentialDecay(0.1, 10, 0.5, name=name),
        lambda name: CosineDecay(0.1, 10, name=name),
        lambda name: PiecewiseConstantDecay([1], [0.1, 0.2], name=name),
        lambda name: losses.MeanSquaredError(name=name),
    ],
)
def test_a_name_is_a_string(make, name):
    with pytest.raises(TypeError, match=f"name must be a non-empty string, got {name!r}"):
        make(name)
    make("fine")


@pytest.mark.parametrize("optimizer", EVERY, ids=str)
def test_config_survives_json_and_gives_the_same_run(optimizer):
    one, two = fresh(optimizer), fresh(optimizer)
    assert type(one) is type(optimizer) and one.get_config() == optimizer.get_config()
    np.testing.assert_array_equal(walk(one), walk(two))
    assert one.iterations == 6
    assert len(one.slots) == 3 and sum(slot.size > 0 for slot in one.slots) == len(KEEPS[one.kind])
    changed = fresh(optimizer)
    if changed.schedule is None:
        changed.learning_rate = 0.5 * changed.learning_rate
        assert not np.array_equal(walk(changed), walk(fresh(optimizer)))


@pytest.mark.parametrize("optimizer", EVERY, ids=str)
def test_slots_and_iterations_are_the_whole_state(optimizer):
    rng = np.random.default_rng(1)
    gradients = rng.standard_normal((8, 12)).astype(np.float32)
    straight, resumed = np.ones(12, np.float32), np.ones(12, np.float32)
    whole, first, second = fresh(optimizer), fresh(optimizer), fresh(optimizer)
    for grads in gradients:
        whole.step(straight, grads.copy())
    for grads in gradients[:5]:
        first.step(resumed, grads.copy())
    second.build(resumed)
    for slot, kept in zip(second.slots, first.slots, strict=True):
        slot[...] = kept
    second.iterations = first.iterations
    for grads in gradients[5:]:
        second.step(resumed, grads.copy())
    np.testing.assert_array_equal(straight, resumed)


def test_a_setting_changed_on_the_way_finds_its_slot():
    optimizer, params = SGD(0.1), np.zeros(3)
    optimizer.step(params, np.ones(3))
    optimizer.momentum = 0.5
    for expected in (-0.2, -0.35):
        optimizer.step(params, np.ones(3))
        np.testing.assert_allclose(params, expected, rtol=1e-14)


def test_clipping_goes_by_variable_and_comes_first():
    grads = np.array([3.0, 4.0, 0.3, 0.4])
    segments = np.array([[0, 2], [2, 2]])
    for options, expected in (
        ({"clipnorm": 1.0}, [0.6, 0.8, 0.3, 0.4]),
        ({"clipvalue": 0.35}, [0.35, 0.35, 0.3, 0.35]),
        ({"global_clipnorm": 1.0}, grads / np.linalg.norm(grads)),
    ):
        optimizer, params, given_grads = SGD(1.0, **options), np.zeros(4), grads.copy()
        optimizer.build(params, segments)
        optimizer.step(params, given_grads)
        np.testing.assert_allclose(params, -np.asarray(expected), rtol=1e-14)
        np.testing.assert_allclose(given_grads, expected, rtol=1e-14)
    params = np.zeros(4)
    SGD(1.0, clipnorm=1.0).step(params, grads.copy())  # unbuilt: one variable
    np.testing.assert_allclose(params, -grads / np.linalg.norm(grads), rtol=1e-14)


def test_names():
    for name, cls in {"sgd": SGD, "Adam": Adam, "ADAMW": AdamW, "RMSprop": RMSprop}.items():
        assert type(optimizers.get(name)) is cls
    assert type(optimizers.get(Adam)) is Adam
    mine = Adam(0.5)
    assert optimizers.get(mine) is mine
    with pytest.raises(ValueError, match="unknown optimizer 'adan': did you mean 'adam'"):
        optimizers.get("Adan")
    with pytest.raises(ValueError, match="unknown optimizer 'os.system'"):
        optimizers.get({"class_name": "os.system", "config": {}})
    with pytest.raises(ValueError, match="unknown learning-rate schedule"):
        optimizers.get(
            {"class_name": "sgd", "config": {"learning_rate": {"class_name": "Mine", "config": {}}}}
        )
    with pytest.raises(ValueError, match="got None"):
        optimizers.get(None)
    with pytest.raises(TypeError, match="optimizer must be .* got 3"):
        optimizers.get(3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(-1.0), "learning_rate must be >= 0, got -1.0"),
        (lambda: Adam(float("nan")), "learning_rate must be finite, got nan"),
        (lambda: Adam("fast"), "learning_rate must be a number, got 'fast'"),
        (lambda: SGD(momentum=1.5), "momentum must be <= 1, got 1.5"),
        (lambda: SGD(nesterov=1), "nesterov must be True or False"),
        (lambda: Adam(beta_1=1.0), "beta_1 must be < 1, got 1.0"),
        (lambda: Adam(beta_2=-0.1), "beta_2 must be >= 0, got -0.1"),
        (lambda: Adam(epsilon=-1e-8), "epsilon must be >= 0"),
        (lambda: AdamW(weight_decay=None), "weight_decay must be a number >= 0 for AdamW, got None"),
        (lambda: AdamW(weight_decay=-1), "weight_decay must be >= 0, got -1"),
        (lambda: RMSprop(rho=1), "rho must be < 1, got 1"),
        (lambda: SGD(clipnorm=0), "clipnorm must be > 0, got 0"),
        (lambda: SGD(clipnorm=1, clipvalue=1), "at most one of clipnorm, clipvalue and global_clipnorm"),
        (lambda: CosineDecay(0.0, 10), "initial_learning_rate must be > 0"),
        (lambda: CosineDecay(0.1, 0), "decay_steps must be > 0"),
        (lambda: CosineDecay(0.1, 10, warmup_target=0.2, warmup_steps=-1), "warmup_steps must be >= 0"),
        (lambda: ExponentialDecay(0.1, 10, -0.5), "decay_rate must be > 0"),
        (lambda: PolynomialDecay(0.1, 0), "decay_steps must be > 0"),
        (lambda: PolynomialDecay(0.1, 10, power=-1), "power must be >= 0, got -1"),
        (lambda: PolynomialDecay(0.1, 10, cycle=1), "cycle must be True or False"),
        (lambda: InverseTimeDecay(0.1, 10, -0.5), "decay_rate must be >= 0"),
        (lambda: CosineDecayRestarts(0.1, 10, t_mul=0.5), "t_mul must be >= 1, got 0.5"),
        (lambda: CosineDecayRestarts(0.1, -1), "first_decay_steps must be > 0"),
        (
            lambda: PiecewiseConstantDecay([1, 2], [0.1, 0.2]),
            "one entry more than boundaries, got 2 values for 2",
        ),
        (lambda: PiecewiseConstantDecay([2, 2], [0.1, 0.2, 0.3]), "boundaries must rise strictly"),
        (lambda: PiecewiseConstantDecay(3, [0.1, 0.2]), "boundaries must be a list of numbers"),
        (lambda: regularizers.L2(-1), "l2 must be >= 0, got -1"),
        (lambda: regularizers.L1(float("inf")), "l1 must be finite"),
        (lambda: regularizers.get("l3"), "unknown regularizer 'l3'"),
        (lambda: constraints.MaxNorm(0), "max_value must be > 0, got 0"),
        (lambda: constraints.MaxNorm(1, axis=1), "axis must be <= 0, got 1"),
        (lambda: constraints.UnitNorm(1), "axis must be <= 0, got 1"),
        (lambda: constraints.MinMaxNorm(-1), "min_value must be >= 0, got -1"),
        (lambda: constraints.MinMaxNorm(2), "max_value must be >= 2, got 1"),
        (lambda: constraints.MinMaxNorm(rate=1.5), "rate must be <= 1, got 1.5"),
        (
            lambda: constraints.get("non_negative"),
            "unknown constraint 'non_negative': did you mean 'non_neg'",
        ),
        (lambda: constraints.get("maxnorm"), "unknown constraint 'maxnorm': did you mean"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


@pytest.mark.parametrize(
    ("make", "setting", "value", "message"),
    [
        (SGD, "lr", 0.1, "SGD has no setting 'lr': did you mean 'learning_rate'"),
        (SGD, "clip_norm", 1.0, "did you mean 'clipnorm'"),
        (SGD, "momentumm", 0.9, "did you mean 'momentum'"),
        (AdamW, "learning_rate", -0.1, "learning_rate must be >= 0, got -0.1"),
        (SGD, "momentum", 1.5, "momentum must be <= 1, got 1.5"),
        (SGD, "nesterov", 1, "nesterov must be True or False"),
        (Adam, "beta_1", 1.0, "beta_1 must be < 1, got 1.0"),
        (Adam, "beta_2", "0.9", "beta_2 must be a number, got '0.9'"),
        (Adam, "epsilon", -1e-8, "epsilon must be >= 0"),
        (AdamW, "weight_decay", None, "weight_decay must be a number >= 0 for AdamW, got None"),
        (RMSprop, "rho", 1, "rho must be < 1, got 1"),
        (lambda: SGD(clipnorm=1), "clipvalue", 1, "at most one of clipnorm, clipvalue and global_clipnorm"),
    ],
)
def test_bad_settings_of_a_built_optimizer(make, setting, value, message):
    optimizer = make()
    before = optimizer.get_config()
    with pytest.raises((ValueError, TypeError, AttributeError), match=message):
        setattr(optimizer, setting, value)
    assert optimizer.get_config() == before


@pytest.mark.parametrize("make", [SGD, Adam, AdamW, RMSprop])
def test_a_learning_rate_of_0_can_be_given_set_saved_and_loaded(make, tmp_path):
    model = Sequential([Input((3,)), Dense(1)], seed=0)
    model.compile(make(0), "mse")
    x, before = np.ones((8, 3)), model.params.copy()
    model.fit(x, x[:, :1], epochs=2, verbose=0)
    assert np.array_equal(model.params, before)
    model.optimizer.learning_rate = 0.1
    model.fit(x, x[:, :1], epochs=1, verbose=0)
    assert not np.array_equal(model.params, before)
    model.optimizer.learning_rate = 0  # the last value of many schedules
    model.save(tmp_path / "model.npz")
    assert load_model(tmp_path / "model.npz").optimizer.learning_rate == 0


@pytest.mark.parametrize(
    ("params", "grads", "message"),
    [
        ([1.0], np.ones(1), "params must be a NumPy array"),
        (np.ones(3), np.ones(4), "grads must match params"),
        (np.ones(3), np.ones(3, np.float32), "grads must match params"),
        (np.ones(3, int), np.ones(3, int), "params must be float32 or float64"),
        (np.ones(3), np.ones(3, ">f8"), "grads must be float32 or float64"),
        (np.ones((3, 1)), np.ones((3, 1)), "params must be a flat array"),
        (np.ones(0), np.ones(0), "params must be a flat array, not empty"),
        (np.ones(6)[::2], np.ones(3), "params must be C-contiguous"),
        (np.broadcast_to(1.0, 1), np.ones(1), "params must be writeable"),
    ],
)
def test_bad_arrays(params, grads, message):
    optimizer = Adam()
    with pytest.raises((ValueError, TypeError), match=message):
        optimizer.step(params, grads)
    assert optimizer.iterations == 0 and not optimizer.built


def test_arrays_of_another_model_or_sharing_memory_are_refused():
    optimizer, params = SGD(), np.ones(4)
    with pytest.raises(ValueError, match="must not share memory"):
        optimizer.step(params, params)
    optimizer.step(params, np.ones(4))
    for other in (np.ones(5), np.ones(4, np.float32)):
        with pytest.raises(ValueError, match="was built for 4 parameters of float64, got"):
            optimizer.step(other, other.copy())


# ---- learning rates

SCHEDULES = [
    CosineDecay(0.1, 30),
    CosineDecay(0.1, 30, alpha=0.2),
    CosineDecay(0.01, 30, alpha=0.1, warmup_target=0.3, warmup_steps=11),
    ExponentialDecay(0.1, 7, 0.8),
    ExponentialDecay(0.1, 7, 0.8, staircase=True),
    PiecewiseConstantDecay([5, 20], [1.0, 0.5, 0.1]),
    PolynomialDecay(0.1, 30),
    PolynomialDecay(0.1, 7, 0.01, power=0.5, cycle=True),
    InverseTimeDecay(0.1, 7, 0.8),
    InverseTimeDecay(0.1, 7, 0.8, staircase=True),
    CosineDecayRestarts(0.1, 9),
    CosineDecayRestarts(0.1, 9, t_mul=1, m_mul=0.8, alpha=0.1),
    CosineDecayRestarts(0.1, 10, t_mul=1.1, m_mul=0.9),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_schedules_take_numbers_and_arrays_and_survive_json(schedule):
    rates = schedule(np.arange(100))
    assert rates.shape == (100,)
    np.testing.assert_allclose(rates, [schedule(i) for i in range(100)], rtol=1e-15)
    assert type(schedule(3)) is float
    again = schedules.deserialize(json.loads(json.dumps(schedules.serialize(schedule))))
    np.testing.assert_array_equal(again(np.arange(100)), rates)


def test_schedules_against_their_formulas():
    for i in range(80):
        assert SCHEDULES[0](i) == pytest.approx(reference.cosine_decay(i, 0.1, 30), abs=1e-16)
        assert SCHEDULES[1](i) == pytest.approx(reference.cosine_decay(i, 0.1, 30, 0.2))
        warm = reference.cosine_decay(i, 0.01, 30, 0.1, 0.3, 11)
        assert SCHEDULES[2](i) == pytest.approx(warm)
        assert SCHEDULES[3](i) == pytest.approx(0.1 * 0.8 ** (i / 7))
        assert SCHEDULES[4](i) == pytest.approx(0.1 * 0.8 ** (i // 7))
        assert SCHEDULES[5](i) == (1.0 if i <= 5 else 0.5 if i <= 20 else 0.1)
        assert SCHEDULES[6](i) == pytest.approx(reference.polynomial_decay(i, 0.1, 30))
        assert SCHEDULES[7](i) == pytest.approx(reference.polynomial_decay(i, 0.1, 7, 0.01, 0.5, True))
        assert SCHEDULES[8](i) == pytest.approx(0.1 / (1 + 0.8 * i / 7))
        assert SCHEDULES[9](i) == pytest.approx(0.1 / (1 + 0.8 * (i // 7)))


def restarts_agree(schedule, *settings):
    expected = [reference.cosine_decay_restarts(i, 0.1, *settings) for i in range(4000)]
    np.testing.assert_allclose(schedule(np.arange(4000)), expected, atol=1e-12)


def test_restarts_against_their_formula_at_thousands_of_steps():
    for settings in ((9,), (9, 1, 0.8, 0.1), (50, 2, 0.9), (7, 3), (9, 10, 0.5), (64, 1.5), (1, 2)):
        restarts_agree(CosineDecayRestarts(0.1, *settings), *settings)
        with pytest.raises(AssertionError):
            restarts_agree(CosineDecayRestarts(0.1, *settings), settings[0] + 1, *settings[1:])
    rate = CosineDecayRestarts(0.1, 10, t_mul=1.1)
    assert (
        rate(21) == pytest.approx(0.1) and rate(20) < 0.01
    )  # 21 = 10 + 11, where 2.1 is no number of float64


@given(st.sampled_from(SCHEDULES), st.integers(0, 500), st.integers(1, 300), st.integers(1, 299))
def test_a_slice_of_a_run_has_the_same_rates(schedule, first, count, cut):
    optimizer = SGD(schedule)
    whole = optimizer.learning_rates(first, count)
    cut = min(cut, count)
    parts = [optimizer.learning_rates(first, cut), optimizer.learning_rates(first + cut, count - cut)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    optimizer.iterations = first
    assert optimizer.learning_rate == whole[0]


def test_learning_rate_can_be_set_unless_a_schedule_rules():
    optimizer = SGD(0.1)
    optimizer.learning_rate = 0.25
    np.testing.assert_array_equal(optimizer.learning_rates(7, 3), [0.25] * 3)
    with pytest.raises(ValueError, match="learning_rate must be >= 0, got -1"):
        optimizer.learning_rate = -1
    optimizer.learning_rate = PiecewiseConstantDecay([0], [1.0, 0.5])
    assert optimizer.learning_rate == 1.0
    params = np.zeros(1)
    for expected in (-1.0, -1.5):  # the first step has step number 0
        optimizer.step(params, np.ones(1))
        assert params[0] == expected
    with pytest.raises(TypeError, match="learning_rate follows PiecewiseConstantDecay"):
        optimizer.learning_rate = 0.1


def test_a_schedule_of_ones_own():
    class Halving(schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.5**step if step < 4 else float("nan")

    optimizer = SGD(Halving())
    np.testing.assert_array_equal(optimizer.learning_rates(1, 3), [0.5, 0.25, 0.125])
    with pytest.raises(ValueError, match="learning_rate must be finite and >= 0, got nan .* at step 4"):
        optimizer.learning_rates(2, 5)


# ---- regularizers and constraints


def test_regularizers():
    weight = np.array([[1.0, -2.0], [0.0, 3.0]])
    assert regularizers.L1(0.5)(weight) == 3.0
    assert regularizers.L2(0.5)(weight) == 7.0
    assert regularizers.L1L2(0.5, 0.25)(weight) == 6.5
    assert regularizers.get("l2").l2 == regularizers.get("L1").l1 == 0.01
    both = regularizers.get("l1_l2")
    assert (both.l1, both.l2) == (0.01, 0.01)
    for silent in ("l1l2", "L1L2", regularizers.L1L2):  # Keras 3 takes these for no penalty at all
        with pytest.raises(ValueError, match=r"says no coefficients.*write L1L2\(l1=0.01"):
            regularizers.get(silent)
    assert regularizers.get(None) is None
    for one in (regularizers.l1(0.1), regularizers.l2(0.1), both):
        assert regularizers.deserialize(regularizers.serialize(one)).get_config() == one.get_config()
    with pytest.raises(TypeError, match="Mine must not define __call__"):
        type("Mine", (regularizers.Regularizer,), {"__call__": lambda self, w: 1.0})


def test_max_norm():
    weight = np.array([[3.0, 0.3], [4.0, 0.4]])
    bounded = constraints.MaxNorm(1.0)(weight)
    np.testing.assert_allclose(bounded, [[0.6, 0.3], [0.8, 0.4]], rtol=1e-6)
    np.testing.assert_array_equal(weight, [[3.0, 0.3], [4.0, 0.4]])
    assert constraints.get("max_norm").max_value == 2.0
    made = constraints.deserialize(constraints.serialize(constraints.MaxNorm(3)))
    assert made.get_config() == {"max_value": 3.0, "axis": 0}


def test_constraints_are_saved(tmp_path):
    rules = constraints.NonNeg(), constraints.UnitNorm(), constraints.MinMaxNorm(0.5, 2, rate=0.5)
    for rule, name in zip(rules, ("non_neg", "unit_norm", "min_max_norm"), strict=True):
        made = constraints.deserialize(json.loads(json.dumps(constraints.serialize(rule))))
        assert type(made) is type(rule) is type(constraints.get(name)) is getattr(constraints, name)
        assert made.get_config() == rule.get_config()
    layers = [Dense(3, kernel_constraint=rule, bias_constraint="non_neg") for rule in rules]
    model = Sequential([Input((4,)), *layers], seed=1)
    model.save(tmp_path / "model.npz")
    again = load_model(tmp_path / "model.npz")
    for one, two in zip(model.constraint_table, again.constraint_table, strict=True):
        np.testing.assert_array_equal(one, two)
    assert len(one) == 6


# ---- what a new optimizer takes


def test_a_subclass_needs_its_own_settings_and_a_kind():
    """The common options, the config and the checks come with the base class."""

    class Momentum(optimizers.Optimizer):
        kind = SGD(momentum=0.5).kind

        def __init__(self, learning_rate=0.1, momentum=0.5, **options):
            super().__init__(learning_rate, **options)
            self.momentum = momentum

    mine, known = Momentum(clipnorm=0.7, weight_decay=0.1), SGD(0.1, 0.5, clipnorm=0.7, weight_decay=0.1)
    np.testing.assert_array_equal(walk(mine), walk(known))
    assert not np.array_equal(walk(Momentum(momentum=0.6, clipnorm=0.7, weight_decay=0.1)), walk(known))
    expected = {**known.get_config(), "name": "momentum"}
    del expected["nesterov"]
    assert mine.get_config() == expected
    with pytest.raises(
        ValueError, match="unknown optimizer 'momentum'"
    ):  # only minidl's own are known by name
        optimizers.get("momentum")


@pytest.mark.parametrize("cls", [SGD, Adam, AdamW, RMSprop])
def test_unknown_keywords_are_refused_by_name(cls):
    with pytest.raises(TypeError, match="unexpected keyword argument 'decay'"):
        cls(decay=0.1)
    with pytest.raises(TypeError, match="positional argument"):
        cls(*[0.1] * 12)
