"""Seeds, and labels as rows of zeros and ones."""

import random

import numpy as np
import pytest

from minidl import utils
from minidl.utils import next_seed, set_random_seed, to_categorical


@pytest.fixture(autouse=True)
def without_a_global_seed(monkeypatch):
    monkeypatch.setattr(utils, "_seeds", None)
    python, numpy = random.getstate(), np.random.get_state()
    yield
    random.setstate(python)
    np.random.set_state(numpy)


def test_a_global_seed_makes_a_series_of_seeds():
    set_random_seed(5)
    first = [next_seed() for _ in range(4)], random.random(), np.random.rand()
    set_random_seed(5)
    assert first == ([next_seed() for _ in range(4)], random.random(), np.random.rand())
    assert len(set(first[0])) == 4
    set_random_seed(6)
    assert next_seed() != first[0][0]


def test_without_it_seeds_are_unpredictable():
    assert len({next_seed() for _ in range(10)}) == 10


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, None, "1", True])
def test_bad_seeds(seed):
    with pytest.raises((ValueError, TypeError), match="seed must be"):
        set_random_seed(seed)


@pytest.mark.parametrize(
    "labels", [[0, 2, 1], [[0], [2], [1]], np.array([0, 2, 1], np.uint8), [0.0, 2.0, 1.0]]
)
def test_rows(labels):
    rows = to_categorical(labels)
    assert rows.dtype == np.float64
    np.testing.assert_array_equal(rows, [[1, 0, 0], [0, 0, 1], [0, 1, 0]])
    assert to_categorical(labels, 5).shape == (3, 5)


def test_other_shapes():
    assert to_categorical([[0, 1], [2, 3]]).shape == (2, 2, 4)
    np.testing.assert_array_equal(to_categorical(1, 3), [0, 1, 0])
    np.testing.assert_array_equal(to_categorical([False, True]), np.eye(2))


@pytest.mark.parametrize(
    ("labels", "classes", "message"),
    [
        ([0, -1], None, r"whole numbers in 0\.\.\d+, got -1 at index \(1,\)"),
        ([[0, 3]], 3, r"whole numbers in 0\.\.2, got 3 at index \(0, 1\)"),
        ([0.5], None, "got 0.5 at index"),
        ([np.nan], None, "x must be finite"),
        ([], None, "x must not be empty"),
        (["a"], None, "x must hold real numbers"),
        ([1], 0, "num_classes must be >= 1, got 0"),
        ([1], 2.0, "num_classes must be an integer"),
        (None, None, "x must"),
    ],
)
def test_bad_labels(labels, classes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        to_categorical(labels, classes)
