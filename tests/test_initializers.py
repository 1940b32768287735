"""Initial weights: variance, limits, reproducibility, names, bad input."""

import json
import math

import numpy as np
import pytest

from minidl import Dense, Sequential, initializers
from minidl.registry import snake_case

FAN_IN, FAN_OUT = 300, 200
VARIANCE = {
    "glorot_uniform": 2 / (FAN_IN + FAN_OUT),
    "glorot_normal": 2 / (FAN_IN + FAN_OUT),
    "he_uniform": 2 / FAN_IN,
    "he_normal": 2 / FAN_IN,
    "lecun_uniform": 1 / FAN_IN,
    "lecun_normal": 1 / FAN_IN,
    "random_normal": 0.05**2,
    "random_uniform": 0.1**2 / 12,
    "truncated_normal": (0.05 * 0.87962566) ** 2,
    "variance_scaling": 1 / FAN_IN,
}


def draw(name, dtype="float64", seed=0):
    return initializers.get(name)((FAN_IN, FAN_OUT), dtype, np.random.default_rng(seed))


@pytest.mark.parametrize("name", VARIANCE)
def test_mean_and_variance(name):
    values, sigma = draw(name), math.sqrt(VARIANCE[name])
    n = values.size
    assert abs(values.mean()) < 5 * sigma / math.sqrt(n)
    # the variance of n draws of these families is known to within sqrt(2/n) of itself or better
    spread = 5 * math.sqrt(2 / n)
    assert values.var() == pytest.approx(VARIANCE[name], rel=spread)
    assert values.var() != pytest.approx(1.1 * VARIANCE[name], rel=spread)
    assert len(np.unique(values)) == n


@pytest.mark.parametrize("name", VARIANCE)
def test_limits(name):
    largest, sigma = abs(draw(name)).max(), math.sqrt(VARIANCE[name])
    if "uniform" in name:
        limit = math.sqrt(3) * sigma
    elif name == "random_normal":
        limit = 6 * sigma
        assert largest > 3 * sigma
        return
    else:
        limit = 2 * sigma / 0.87962566103423978
    assert 0.99 * limit < largest <= limit


@pytest.mark.parametrize("name", VARIANCE)
def test_the_generator_decides(name):
    np.testing.assert_array_equal(draw(name), draw(name))
    assert not np.array_equal(draw(name), draw(name, seed=1))
    np.testing.assert_array_equal(draw(name).astype(np.float32), draw(name, "float32"))
    cls = type(initializers.get(name))
    seeded = cls(seed=7)
    first = seeded((5, 4), "float32", np.random.default_rng(0))
    np.testing.assert_array_equal(first, seeded((5, 4), "float32", np.random.default_rng(1)))
    assert not np.array_equal(initializers.get(name)((5, 4)), initializers.get(name)((5, 4)))


def test_constants_and_output_form():
    for name, value in {"zeros": 0, "Ones": 1}.items():
        made = initializers.get(name)((3, 2))
        assert made.dtype == np.float32 and made.flags.c_contiguous and (made == value).all()
    assert (initializers.Constant(0.25)(4, "float64") == 0.25).all()


def test_identity():
    for shape in ((3, 3), (2, 4), (4, 2)):
        made = initializers.get("identity")(shape)
        assert made.dtype == np.float32 and made.flags.c_contiguous
        np.testing.assert_array_equal(
            made, [[float(i == j) for j in range(shape[1])] for i in range(shape[0])]
        )
    np.testing.assert_array_equal(initializers.Identity(gain=-2.5)((2, 3)), [[-2.5, 0, 0], [0, -2.5, 0]])


def unit_columns(matrix):
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(matrix.shape[1]), atol=1e-12)


@pytest.mark.parametrize("shape", [(6, 6), (9, 4), (4, 9), (1, 5), (3, 2, 4)])
def test_orthogonal(shape):
    rng = np.random.default_rng
    made = initializers.get("orthogonal")(shape, "float64", rng(0))
    matrix = made.reshape(-1, shape[-1])
    unit_columns(matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T)
    np.testing.assert_allclose(
        initializers.Orthogonal(gain=3.0)(shape, "float64", rng(0)), 3 * made, rtol=1e-14
    )
    np.testing.assert_array_equal(initializers.Orthogonal()(shape, "float64", rng(0)), made)
    assert not np.array_equal(initializers.Orthogonal()(shape, "float64", rng(1)), made)
    seeded = initializers.Orthogonal(seed=7)
    np.testing.assert_array_equal(seeded(shape, "float64", rng(0)), seeded(shape, "float64", rng(1)))
    with pytest.raises(AssertionError):
        unit_columns(rng(0).standard_normal((6, 6)))


def test_orthogonal_matrices_are_drawn_uniformly():
    """Each entry of one of n rows has mean 0 and variance 1/n; without R's signs the diagonal would be negative."""
    rng, count, n = np.random.default_rng(0), 4000, 3
    draws = np.array([initializers.Orthogonal()((n, n), "float64", rng) for _ in range(count)])
    spread = 5 / math.sqrt(n * count)
    assert abs(draws.mean(axis=0)).max() < spread
    np.testing.assert_allclose((draws**2).mean(axis=0), 1 / n, rtol=0.1)
    unsigned = np.array([np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(count)])
    assert abs(unsigned.mean(axis=0)).max() > spread


def test_fans():
    assert initializers.compute_fans((7,)) == (7, 7)
    assert initializers.compute_fans((7, 5)) == (7, 5)
    assert initializers.compute_fans((3, 3, 7, 5)) == (63, 45)


@pytest.mark.parametrize(
    "initializer",
    [
        initializers.Zeros(),
        initializers.Constant(2),
        initializers.RandomNormal(1, 2, seed=3),
        initializers.RandomUniform(-1, 2),
        initializers.TruncatedNormal(seed=1),
        initializers.VarianceScaling(2.0, "fan_out", "uniform", seed=1),
        initializers.HeNormal(seed=5),
        initializers.Orthogonal(2.0, seed=5),
        initializers.Identity(0.5),
    ],
    ids=repr,
)
def test_config_survives_json(initializer):
    config = json.loads(json.dumps(initializers.serialize(initializer)))
    again = initializers.deserialize(config)
    assert type(again) is type(initializer) and again.get_config() == initializer.get_config()
    rng = np.random.default_rng
    np.testing.assert_array_equal(again((4, 3), "float32", rng(0)), initializer((4, 3), "float32", rng(0)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: initializers.get("glorot_unifrom"), "unknown initializer .*did you mean 'glorot_uniform'"),
        (lambda: initializers.get(None), "got None"),
        (lambda: initializers.get(3), "initializer must be .* got 3"),
        (lambda: initializers.RandomNormal(stddev=-1), "stddev must be >= 0, got -1"),
        (lambda: initializers.RandomUniform(1, 0), "maxval must be >= 1, got 0"),
        (lambda: initializers.VarianceScaling(0), "scale must be > 0, got 0"),
        (lambda: initializers.VarianceScaling(mode="fan"), "mode must be one of"),
        (lambda: initializers.VarianceScaling(distribution="flat"), "distribution must be one of"),
        (lambda: initializers.HeNormal(seed=-1), "seed must be >= 0, got -1"),
        (lambda: initializers.Orthogonal("big"), "gain must be a number, got 'big'"),
        (
            lambda: initializers.Orthogonal()((3,)),
            r"shape must have at least two axes for Orthogonal, got \(3,\)",
        ),
        (lambda: initializers.Identity()(3), r"shape must have two axes for Identity, got \(3,\)"),
        (
            lambda: initializers.Identity()((3, 2, 2)),
            r"shape must have two axes for Identity, got \(3, 2, 2\)",
        ),
        (lambda: initializers.Zeros()((3, 2), "int32"), "dtype must be 'float32' or 'float64'"),
        (lambda: initializers.Zeros()((3, 0)), "must be >= 1, got 0"),
        (lambda: initializers.HeNormal()((3, 2), "float32", 7), "rng must be a numpy.random.Generator"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


@pytest.mark.parametrize("cls", initializers.INITIALIZERS.classes.values())
def test_the_name_in_snake_case_is_the_class_as_in_keras(cls):
    """So that ``truncated_normal(stddev=0.1)`` makes its instance."""
    assert getattr(initializers, snake_case(cls.__name__)) is cls
    if cls is not initializers.VarianceScaling:
        assert type(initializers.get(snake_case(cls.__name__))) is cls


@pytest.mark.parametrize("before", [0, 1])
def test_a_model_is_as_it_was_after_an_initializer_refused_a_shape(before):
    model = Sequential([Dense(3, input_shape=(4,)) for _ in range(before)], seed=1)
    kept = model.get_weights() if before else []
    with pytest.raises(ValueError, match="at least two axes"):
        model.add(Dense(2, bias_initializer="orthogonal", input_shape=(3 if before else 4,)))
    assert len(model.layers) == before and model.built == bool(before)
    for view, value in zip(model.weights, kept, strict=True):
        np.testing.assert_array_equal(view, value)
    model.add(Dense(2, kernel_initializer="orthogonal", input_shape=(3 if before else 4,)))
    assert len(model.layers) == before + 1 and abs(model.get_weights()[-2]).min() > 0
