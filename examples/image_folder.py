"""Images from a folder: PNG, JPEG and what else Pillow reads. Needs pillow.

    python examples/image_folder.py [folder]

The folder has one folder for each class, with its images: `cats/1.png`, `dogs/1.jpg`, ... They may differ in size.
Without one, some of the embedded digits are written as PNG files first. Images stay bytes in memory: `Rescaling` makes
them numbers from 0 to 1, batch by batch.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

try:
    from PIL import Image
except ImportError as error:
    raise ImportError("this example needs pillow: pip install pillow") from error

import minidl
from minidl.datasets import mnist
from minidl.layers import Dense, Flatten, Input, RandomTranslation, Rescaling

ENDINGS = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".webp"}


def load(folder, size):
    """(images uint8 (N, height, width) in grey, labels (N,), names of the classes)."""
    paths = sorted(path for path in Path(folder).glob("*/*") if path.suffix.lower() in ENDINGS)
    if not paths:
        raise ValueError(f"folder must hold CLASS/NAME.png, got {folder} without any")
    images = np.empty((len(paths), *size), np.uint8)
    for image, path in zip(images, paths, strict=True):
        with Image.open(path) as file:
            image[...] = file.convert("L").resize(size[::-1])
    names, labels = np.unique([path.parent.name for path in paths], return_inverse=True)
    return images, labels, names


def write_digits(folder, count):
    (images, labels), _ = mnist.load_subset()
    for number, (image, label) in enumerate(zip(images[:count], labels[:count], strict=True)):
        place = folder / f"digit {label}"
        place.mkdir(exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")


def main(folder=None, size=(28, 28), count=2000, epochs=20, verbose=0):
    with tempfile.TemporaryDirectory() as written:
        if folder is None:
            folder = written
            write_digits(Path(folder), count)
        x, y, names = load(folder, size)
    test, train = np.split(np.random.default_rng(0).permutation(len(x)), [len(x) // 4])

    layers = [Input(size), RandomTranslation(0.1, 0.1), Rescaling(1 / 255), Flatten(), Dense(128, "relu")]
    model = minidl.Sequential([*layers, Dense(len(names), "softmax")], seed=0)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    model.fit(x[train], y[train], epochs=epochs, verbose=verbose)

    loss, accuracy = model.evaluate(x[test], y[test], verbose=0)
    print(
        f"{len(train)} images of {len(names)} classes to learn from; of {len(test)} others {accuracy:.1%} are right"
    )
    return accuracy


if __name__ == "__main__":
    main(*sys.argv[1:2])
