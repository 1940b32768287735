"""Initial weights, by Keras 3's formulas.

``initializer(shape, dtype, rng)`` draws from ``rng``, a NumPy generator that the model derives from its seed.
An initializer with a ``seed`` of its own gives the same values at every call, whatever the ``rng``.
Values are drawn in float64 and then rounded, so a float32 and a float64 model of one seed begin alike.
"""

import math

import numpy as np

from .registry import Configurable, Registry
from .registry import serialize as serialize
from .validation import check_choice, check_dtype, check_float, check_int, check_shape, describe

# The standard deviation of a standard normal that is cut off at two standard deviations on either side.
_TRUNCATED_STDDEV = 0.87962566103423978


def compute_fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """(fan_in, fan_out) of a weight: ``(in, out)`` of a matrix, the length twice of a vector."""
    if len(shape) == 1:
        return shape[0], shape[0]
    field = math.prod(shape[:-2])
    return shape[-2] * field, shape[-1] * field


def _truncated_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal draws; those beyond two standard deviations are drawn again."""
    values = rng.standard_normal(shape)
    while (beyond := np.abs(values) >= 2).any():
        values[beyond] = rng.standard_normal(int(beyond.sum()))
    return values


class Initializer(Configurable):
    """Subclass it with ``draw(shape, rng)``, which returns an array of any float dtype."""

    def __call__(self, shape, dtype="float32", rng: np.random.Generator | None = None) -> np.ndarray:
        """A new C-contiguous array. With ``rng`` None and no seed the values are unpredictable."""
        if rng is not None and not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng must be a numpy.random.Generator or None, got {describe(rng)}")
        seed = getattr(self, "seed", None)
        if seed is not None or rng is None:
            rng = np.random.default_rng(seed)
        shape, dtype = check_shape("shape", shape), check_dtype("float32" if dtype is None else dtype)
        return np.ascontiguousarray(self.draw(shape, rng), dtype=dtype)

    def draw(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} must define draw(shape, rng)")


INITIALIZERS = Registry("initializer", Initializer)


@INITIALIZERS.register("zero")
class Zeros(Initializer):
    """0 everywhere."""

    def draw(self, shape, rng):
        return np.zeros(shape)


@INITIALIZERS.register("one")
class Ones(Initializer):
    """1 everywhere."""

    def draw(self, shape, rng):
        return np.ones(shape)


@INITIALIZERS.register()
class Constant(Initializer):
    """``value`` everywhere."""

    def __init__(self, value: float = 0.0):
        self.value = check_float("value", value)

    def draw(self, shape, rng):
        return np.full(shape, self.value)


class _Random(Initializer):
    def __init__(self, seed: int | None = None):
        self.seed = None if seed is None else check_int("seed", seed, minimum=0)


@INITIALIZERS.register("normal")
class RandomNormal(_Random):
    """Normal with the given mean and standard deviation."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None):
        super().__init__(seed)
        self.mean = check_float("mean", mean)
        self.stddev = check_float("stddev", stddev, minimum=0)

    def draw(self, shape, rng):
        return self.mean + self.stddev * rng.standard_normal(shape)


@INITIALIZERS.register()
class TruncatedNormal(RandomNormal):
    """As ``RandomNormal``; values two or more standard deviations from the mean are drawn again."""

    def draw(self, shape, rng):
        return self.mean + self.stddev * _truncated_normal(rng, shape)


@INITIALIZERS.register("uniform")
class RandomUniform(_Random):
    """Uniform on [minval, maxval)."""

    def __init__(self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None):
        super().__init__(seed)
        self.minval = check_float("minval", minval)
        self.maxval = check_float("maxval", maxval, minimum=self.minval)

    def draw(self, shape, rng):
        return rng.uniform(self.minval, self.maxval, shape)


@INITIALIZERS.register()
class VarianceScaling(_Random):
    """Mean 0 and variance ``scale / n``, where n is fan_in, fan_out or, for fan_avg, their mean.

    ``uniform`` draws from [-limit, limit) with ``limit = sqrt(3*scale/n)``. ``truncated_normal`` cuts a normal
    off at two standard deviations; it is widened so that the variance after the cut is ``scale/n``.
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
    ):
        super().__init__(seed)
        self.scale = check_float("scale", scale, above=0)
        self.mode = check_choice("mode", mode, ("fan_in", "fan_out", "fan_avg"))
        distribution = "truncated_normal" if distribution == "normal" else distribution
        allowed = ("truncated_normal", "untruncated_normal", "uniform")
        self.distribution = check_choice("distribution", distribution, allowed)

    def draw(self, shape, rng):
        fan_in, fan_out = compute_fans(shape)
        n = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, n)
        if self.distribution == "uniform":
            limit = math.sqrt(3 * variance)
            return rng.uniform(-limit, limit, shape)
        if self.distribution == "untruncated_normal":
            return math.sqrt(variance) * rng.standard_normal(shape)
        return math.sqrt(variance) / _TRUNCATED_STDDEV * _truncated_normal(rng, shape)


class _Named(VarianceScaling):
    """A ``VarianceScaling`` with the ``settings`` that stand in the class statement."""

    settings: dict

    def __init_subclass__(cls, **settings) -> None:
        super().__init_subclass__()
        cls.settings = settings or cls.settings

    def __init__(self, seed: int | None = None):
        super().__init__(**self.settings, seed=seed)


@INITIALIZERS.register()
class GlorotUniform(_Named, scale=1.0, mode="fan_avg", distribution="uniform"):
    """Uniform with limit sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""


@INITIALIZERS.register()
class GlorotNormal(_Named, scale=1.0, mode="fan_avg", distribution="truncated_normal"):
    """Truncated normal of variance 2 / (fan_in + fan_out) (Glorot & Bengio 2010)."""


@INITIALIZERS.register()
class HeUniform(_Named, scale=2.0, mode="fan_in", distribution="uniform"):
    """Uniform with limit sqrt(6 / fan_in) (He et al. 2015)."""


@INITIALIZERS.register()
class HeNormal(_Named, scale=2.0, mode="fan_in", distribution="truncated_normal"):
    """Truncated normal of variance 2 / fan_in (He et al. 2015)."""


@INITIALIZERS.register()
class LecunUniform(_Named, scale=1.0, mode="fan_in", distribution="uniform"):
    """Uniform with limit sqrt(3 / fan_in)."""


@INITIALIZERS.register()
class LecunNormal(_Named, scale=1.0, mode="fan_in", distribution="truncated_normal"):
    """Truncated normal of variance 1 / fan_in."""


@INITIALIZERS.register()
class Orthogonal(_Random):
    """``gain`` times a uniformly drawn matrix with orthonormal columns, or rows if it has fewer (Saxe et al. 2014).

    Q of the QR decomposition of a matrix of standard normal draws, each column with the sign of R's diagonal entry.
    Of more than two axes, all but the last are taken as rows. A vector raises a ValueError.
    """

    def __init__(self, gain: float = 1.0, seed: int | None = None):
        super().__init__(seed)
        self.gain = check_float("gain", gain)

    def draw(self, shape, rng):
        if len(shape) < 2:
            raise ValueError(f"shape must have at least two axes for Orthogonal, got {shape}")
        rows, columns = math.prod(shape[:-1]), shape[-1]
        draws = rng.standard_normal((max(rows, columns), min(rows, columns)))
        q, r = np.linalg.qr(draws)
        q *= np.sign(np.diag(r))
        return self.gain * (q.T if rows < columns else q).reshape(shape)


@INITIALIZERS.register()
class Identity(Initializer):
    """``gain`` on the diagonal, 0 elsewhere, for a matrix of any two sizes. Other shapes raise a ValueError."""

    def __init__(self, gain: float = 1.0):
        self.gain = check_float("gain", gain)

    def draw(self, shape, rng):
        if len(shape) != 2:
            raise ValueError(f"shape must have two axes for Identity, got {shape}")
        return self.gain * np.eye(*shape)


zeros, ones, constant, identity = Zeros, Ones, Constant, Identity
random_normal, truncated_normal, random_uniform = RandomNormal, TruncatedNormal, RandomUniform
variance_scaling = VarianceScaling
glorot_uniform, glorot_normal = GlorotUniform, GlorotNormal
he_uniform, he_normal = HeUniform, HeNormal
lecun_uniform, lecun_normal = LecunUniform, LecunNormal
orthogonal = Orthogonal


def get(identifier) -> Initializer:
    """An initializer from its name (``"glorot_uniform"``), a config, a class, or itself."""
    initializer = INITIALIZERS.get(identifier)
    if initializer is None:
        raise ValueError("initializer must be a name, a config or an Initializer, got None")
    return initializer


deserialize = get
