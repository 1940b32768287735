"""Seeds, and labels as rows of zeros and ones."""

import random

import numpy as np

from .validation import check_array, check_finite, check_int, find_no_label

_seeds: np.random.SeedSequence | None = None


def set_random_seed(seed: int) -> None:
    """Make everything random that follows repeatable: models made without a seed, NumPy and ``random``.

    Models made afterwards get different seeds, the same ones each time, in the order they are made.
    ``seed`` is an integer in 0..2**32-1 (what NumPy's own global generator takes).
    """
    global _seeds
    seed = check_int("seed", seed, minimum=0, maximum=2**32 - 1)
    _seeds = np.random.SeedSequence(seed)
    random.seed(seed)
    np.random.seed(seed)


def next_seed() -> int:
    """The seed of a model made without one: the next after ``set_random_seed``, else an unpredictable one."""
    source = np.random.SeedSequence() if _seeds is None else _seeds.spawn(1)[0]
    return int(source.generate_state(1, np.uint32)[0])


def to_categorical(x, num_classes: int | None = None) -> np.ndarray:
    """Class indices as rows with a single 1: float64 of shape ``x.shape + (num_classes,)``.

    A last axis of size 1 is dropped first, as in Keras. Without ``num_classes`` it is ``max(x) + 1``.
    Raises ValueError where x is not a whole number in 0..num_classes-1.
    """
    is_single = not isinstance(x, (list, tuple)) and np.ndim(x) == 0
    labels = check_array("x", np.asarray(x)[None] if is_single else x)
    if labels.ndim > 1 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    check_finite("x", labels)
    if num_classes is not None:
        num_classes = check_int("num_classes", num_classes, minimum=1)
    limit = 2**31 - 1 if num_classes is None else num_classes - 1
    found = find_no_label(labels, 0, limit)
    if found is not None:
        where = found[1] if isinstance(found[1], tuple) else (found[1],)
        raise ValueError(f"x must hold whole numbers in 0..{limit}, got {found[0]} at index {where}")
    flat = labels.astype(np.int64).reshape(-1)
    if num_classes is None:
        num_classes = int(flat.max()) + 1
    rows = np.zeros((flat.size, num_classes))
    rows[np.arange(flat.size), flat] = 1
    return rows.reshape(*(() if is_single else labels.shape), num_classes)
