"""Make ``mnist_subset.npz``, the digits inside the package, from MNIST's IDX files.

python -m minidl.datasets.make_subset FOLDER [OUTPUT]
"""

import sys
from pathlib import Path

import numpy as np

from . import mnist

TRAIN_PER_CLASS, TEST_PER_CLASS = 600, 200


def choose(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Indices of ``per_class`` samples of each class, evenly spaced, in the order of the file."""
    chosen = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) < per_class:
            raise ValueError(f"class {label} has {len(rows)} samples, {per_class} are wanted")
        chosen.append(rows[np.arange(per_class) * len(rows) // per_class])
    return np.sort(np.concatenate(chosen))


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    if len(arguments) not in (1, 2):
        sys.exit(__doc__)
    output = Path(arguments[1]) if len(arguments) == 2 else Path(__file__).with_name("mnist_subset.npz")
    (x_train, y_train), (x_test, y_test) = mnist.load_data(arguments[0])
    train, test = choose(y_train, TRAIN_PER_CLASS), choose(y_test, TEST_PER_CLASS)
    arrays = dict(x_train=x_train[train], y_train=y_train[train], x_test=x_test[test], y_test=y_test[test])
    np.savez_compressed(output, **arrays)
    print(f"{output}: {len(train)} + {len(test)} digits, {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
