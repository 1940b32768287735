"""Losses and their reductions, compared with Keras 3 on PyTorch: values, gradients, and a few short trainings.

Written once for both sides, as ``parity_cases``: ``benchmarks/parity.py --write`` keeps Keras's numbers in
``golden/losses.npz``, and ``test_parity_losses.py`` compares minidl's with them.
"""

from __future__ import annotations

import numpy as np

TOLERANCE = 1e-5  # of the largest entry

_BALANCED = {"apply_class_balancing": True, "alpha": 0.3, "gamma": 1.5, "label_smoothing": 0.1}
_ALL = {"alpha": 0.6, "gamma": 3.5, "label_smoothing": 0.2}
_LOGITS = {"from_logits": True}

# name: (class, settings, which of `inputs` are the targets, which are the outputs)
LOSSES = {
    "log_cosh": ("LogCosh", {}, "numbers", "logits"),
    "poisson": ("Poisson", {}, "counts", "positive"),
    "hinge": ("Hinge", {}, "bits", "logits"),
    "hinge, signs": ("Hinge", {}, "signs", "logits"),
    "squared_hinge": ("SquaredHinge", {}, "bits", "logits"),
    "categorical_hinge": ("CategoricalHinge", {}, "one_hot", "logits"),
    "percentage": ("MeanAbsolutePercentageError", {}, "numbers", "logits"),
    "logarithmic": ("MeanSquaredLogarithmicError", {}, "counts", "positive"),
    "logarithmic, clipped": ("MeanSquaredLogarithmicError", {}, "numbers", "logits"),
    "cosine": ("CosineSimilarity", {}, "numbers", "logits"),
    "cosine, sum": ("CosineSimilarity", {"axis": 1, "reduction": "sum"}, "numbers", "logits"),
    "binary focal": ("BinaryFocalCrossentropy", _LOGITS, "bits", "logits"),
    "binary focal, balanced": ("BinaryFocalCrossentropy", _LOGITS | _BALANCED, "bits", "logits"),
    "binary focal of probabilities": ("BinaryFocalCrossentropy", _BALANCED, "bits", "probs"),
    "focal": ("CategoricalFocalCrossentropy", _LOGITS, "one_hot", "logits"),
    "focal, all": ("CategoricalFocalCrossentropy", _LOGITS | _ALL, "one_hot", "logits"),
    "focal of probabilities": ("CategoricalFocalCrossentropy", _ALL, "one_hot", "probs"),
    "sum": ("MeanSquaredError", {"reduction": "sum"}, "numbers", "logits"),
    "mean": ("Huber", {"reduction": "mean"}, "numbers", "logits"),
    "weighted mean": ("MeanSquaredError", {"reduction": "mean_with_sample_weight"}, "numbers", "logits"),
    "none": ("BinaryCrossentropy", {"reduction": None}, "bits", "probs"),
    "ignored": ("SparseCategoricalCrossentropy", _LOGITS | {"ignore_class": 9}, "ignored", "logits"),
    "ignored, probabilities": ("SparseCategoricalCrossentropy", {"ignore_class": 9}, "ignored", "probs"),
    "ignored, sum": (
        "SparseCategoricalCrossentropy", _LOGITS | {"ignore_class": 9, "reduction": "sum"}, "ignored", "logits",
    ),
    "ignored, weighted mean": (
        "SparseCategoricalCrossentropy",
        _LOGITS | {"ignore_class": 9, "reduction": "mean_with_sample_weight"}, "ignored", "logits",
    ),
}  # fmt: skip

# name: (class, settings, the final activation, targets)
TRAININGS = {
    "sum": ("MeanSquaredError", {"reduction": "sum"}, "linear", "numbers"),
    "weighted mean": ("Huber", {"reduction": "mean_with_sample_weight"}, "linear", "numbers"),
    "ignored": ("SparseCategoricalCrossentropy", {"ignore_class": 9}, "softmax", "ignored"),
    "ignored, sum": ("SparseCategoricalCrossentropy", {"ignore_class": 9, "reduction": "sum"}, "softmax", "ignored"),
    "log_cosh": ("LogCosh", {}, "linear", "numbers"),
    "poisson": ("Poisson", {}, "softplus", "counts"),
    "squared_hinge": ("SquaredHinge", {}, "tanh", "bits"),
    "cosine": ("CosineSimilarity", {}, "linear", "numbers"),
    "binary focal": ("BinaryFocalCrossentropy", _BALANCED, "sigmoid", "bits"),
    "focal": ("CategoricalFocalCrossentropy", _ALL, "softmax", "one_hot"),
    "focal of probabilities": ("CategoricalFocalCrossentropy", {}, "sigmoid", "one_hot"),
}  # fmt: skip

ROWS, FEATURES, CLASSES, BATCH_SIZE, EPOCHS = 27, 4, 5, 8, 3


def inputs() -> dict[str, np.ndarray]:
    """By their names above; RandomState's numbers are frozen for all NumPy versions."""
    random = np.random.RandomState(3)
    logits = 2 * random.randn(ROWS, CLASSES)
    labels = random.randint(0, CLASSES, ROWS)
    bits = random.randint(0, 2, (ROWS, CLASSES)).astype(np.float64)
    return {
        "x": random.randn(ROWS, FEATURES),
        "logits": logits,
        "positive": np.exp(logits / 2),
        "probs": np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True),
        "numbers": random.randn(ROWS, CLASSES),
        "counts": random.poisson(2.0, (ROWS, CLASSES)).astype(np.float64),
        "bits": bits,
        "signs": 2 * bits - 1,
        "one_hot": np.eye(CLASSES)[labels],
        "ignored": np.where(np.arange(ROWS) % 4 == 0, 9, labels),
        "weight": (np.arange(ROWS) % 4 / 2).astype(np.float64),
        "first": 0.5 * random.randn(FEATURES, 6),
        "last": 0.5 * random.randn(6, CLASSES),
    }


def value(lib, name: str, weighted: bool, convert=lambda array, watched: array):
    """(the loss, the outputs it was called with). ``convert`` makes tensors, the outputs ``watched`` by autograd."""
    given = inputs()
    class_name, settings, y, outputs = LOSSES[name]
    loss, pred = getattr(lib.losses, class_name)(**settings), convert(given[outputs], True)
    weight = convert(given["weight"], False) if weighted else None
    return loss(convert(given[y], False), pred, weight), pred


def train(lib, name: str) -> dict[str, np.ndarray]:
    """Three epochs in float32 with sample weights, the last batch of each a small one; then an evaluation."""
    given = inputs()
    class_name, settings, activation, targets = TRAININGS[name]
    model = lib.models.Sequential()
    model.add(lib.layers.Input((FEATURES,)))
    model.add(lib.layers.Dense(6, activation="tanh", use_bias=False))
    model.add(lib.layers.Dense(CLASSES, activation=activation, use_bias=False))
    model.set_weights([given["first"].astype("f4"), given["last"].astype("f4")])
    optimizer = lib.optimizers.SGD(0.02)
    model.compile(optimizer=optimizer, loss=getattr(lib.losses, class_name)(**settings), metrics=["accuracy"])
    data = given["x"].astype("f4"), given[targets].astype("i8" if targets == "ignored" else "f4")
    options = {"batch_size": BATCH_SIZE, "verbose": 0, "sample_weight": given["weight"].astype("f4")}
    history = model.fit(*data, epochs=EPOCHS, shuffle=False, **options).history
    return {
        "loss": np.array(history["loss"], np.float64),
        "accuracy": np.array(history["accuracy"], np.float64),
        "test": np.array(model.evaluate(*data, **options), np.float64),
        "head": np.asarray(model.get_weights()[-1], np.float64),
    }


def disagreement(found, expected) -> float:
    """The largest difference by the largest entry."""
    found, expected = np.asarray(found), np.asarray(expected)
    return float(np.max(np.abs(found - expected)) / max(np.max(np.abs(expected)), 1e-30))
