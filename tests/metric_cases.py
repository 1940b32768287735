"""Metrics that are compared with Keras 3, written once for both sides: see ``parity_cases.py``.

``results(lib, name)`` runs with ``lib`` being keras or minidl. ``benchmarks/parity.py`` runs it with both and keeps
Keras's numbers in ``golden/metrics.json``.
"""

from __future__ import annotations

import numpy as np

TOLERANCE = 1e-5
BATCHES, ROWS = 3, 40

_POINTS = [0.0, 1.0, 0.25, 0.5, 0.75, 0.1, 1 / 199, 100 / 199, 0.3]  # predictions that stand at a threshold


def _binary(rng, rows):
    y = rng.randint(0, 2, (rows, 1))
    return y, np.clip(0.3 * y + rng.uniform(0, 0.7, (rows, 1)), 0, 1)


def _edges(rng, rows):
    return rng.randint(0, 2, (rows, 1)), rng.choice(_POINTS, (rows, 1))


def _without(value):
    return lambda rng, rows: (np.full((rows, 1), value), rng.uniform(0, 1, (rows, 1)))


def _several(rng, rows):
    y = (rng.uniform(size=(rows, 4)) < [0.5, 0.2, 0.7, 0.0]).astype(int)  # the last is never positive
    return y, np.clip(0.2 * y + rng.choice(_POINTS, (rows, 4)) * 0.8, 0, 1)


def _one_hot(rng, rows):
    labels, pred = _labels(rng, rows)
    return np.eye(4)[labels], pred


def _labels(rng, rows):
    pred = rng.dirichlet(np.ones(4), rows)
    pred[: rows // 4] = [0.25, 0.25, 0.5, 0.0]
    pred[rows // 4 : rows // 3] = [0.3, 0.3, 0.3, 0.1]  # the largest three times
    return rng.randint(0, 4, rows), pred


def _logits(rng, rows):
    y, pred = _binary(rng, rows)
    return y, 8 * (pred - 0.5)


def _numbers(rng, rows):
    y = rng.normal(size=(rows, 3)) + [0.0, 2.0, -1.0]
    return y, y + 0.5 * rng.normal(size=(rows, 3))


def _constant(rng, rows):
    y, pred = _numbers(rng, rows)
    y[:, 1] = 3.0
    return y, pred


def _with_zeros(rng, rows):
    y, pred = _numbers(rng, rows)
    y[::5], pred[1::7] = 0.0, 0.0
    return y, pred


MADE_BY = {
    "binary": _binary, "edges": _edges, "no positives": _without(0), "no negatives": _without(1),
    "several": _several, "one-hot": _one_hot, "labels": _labels, "logits": _logits, "numbers": _numbers,
    "constant": _constant, "zeros": _with_zeros,
}  # fmt: skip

_OF_SCORES = ("binary", "edges", "no positives", "no negatives", "several")


def _cases() -> dict[str, tuple[str, dict, str]]:
    """Class, settings and data by the name of the case."""
    listed: list[tuple[str, dict, tuple[str, ...]]] = []
    for curve in ("ROC", "PR"):
        for method in ("interpolation", "minoring", "majoring"):
            listed.append(("AUC", {"curve": curve, "summation_method": method}, _OF_SCORES))
    listed += [
        ("AUC", {"curve": "PRGAIN"}, ("binary", "edges", "no positives")),
        ("AUC", {"num_thresholds": 2}, ("edges",)),
        ("AUC", {"num_thresholds": 3}, ("edges",)),
        ("AUC", {"thresholds": [0.75, 0.1, 0.3]}, ("edges", "several")),
        ("AUC", {"thresholds": [0.25, 0.5, 0.75], "curve": "PR"}, ("edges",)),
        ("AUC", {"multi_label": True, "num_labels": 4}, ("several",)),
        ("AUC", {"multi_label": True, "curve": "PR"}, ("several",)),
        ("AUC", {"from_logits": True}, ("logits",)),
    ]
    for name in ("Precision", "Recall"):
        listed += [
            (name, {}, _OF_SCORES),
            (name, {"thresholds": 0.1}, ("edges",)),
            (name, {"thresholds": [0.5, 0.1, 0.75]}, ("edges", "several")),
            (name, {"thresholds": [0.0, 0.5, 1.0]}, ("edges",)),
            (name, {"class_id": 1}, ("several", "one-hot")),
            (name, {"top_k": 2, "class_id": 3}, ("one-hot",)),
            (name, {"top_k": 3, "thresholds": 0.3}, ("one-hot",)),
        ]
    for average in (None, "micro", "macro", "weighted"):
        listed += [
            ("F1Score", {"average": average}, ("one-hot", "several")),
            ("F1Score", {"average": average, "threshold": 0.5}, ("one-hot", "several", "no positives")),
        ]
    listed.append(("FBetaScore", {"beta": 2.0, "threshold": 0.4, "average": "macro"}, ("several",)))
    for way in (None, "uniform_average", "variance_weighted_average"):
        listed.append(("R2Score", {"class_aggregation": way}, ("numbers", "constant")))
    listed += [
        ("R2Score", {"num_regressors": 2}, ("numbers",)),
        ("RootMeanSquaredError", {}, ("numbers",)),
        ("MeanSquaredError", {}, ("numbers",)),
        ("MeanAbsoluteError", {}, ("numbers",)),
        ("MeanAbsolutePercentageError", {}, ("numbers", "zeros")),
        ("CosineSimilarity", {"axis": 1}, ("numbers", "zeros")),
        ("BinaryCrossentropy", {}, _OF_SCORES),
        ("BinaryCrossentropy", {"from_logits": True, "label_smoothing": 0.1}, ("logits",)),
        ("CategoricalCrossentropy", {}, ("one-hot",)),
        ("CategoricalCrossentropy", {"from_logits": True, "label_smoothing": 0.2}, ("one-hot",)),
        ("SparseCategoricalCrossentropy", {}, ("labels",)),
        ("SparseCategoricalCrossentropy", {"from_logits": True}, ("labels",)),
        ("SparseCategoricalCrossentropy", {"ignore_class": 2}, ("labels",)),
        ("KLDivergence", {}, ("one-hot",)),
        ("Poisson", {}, ("several",)),
        ("MeanSquaredLogarithmicError", {}, ("several", "numbers")),
        ("LogCoshError", {}, ("numbers",)),
        ("Hinge", {}, ("logits",)),
        ("SquaredHinge", {}, ("logits",)),
        ("CategoricalHinge", {}, ("one-hot",)),
    ]
    return {
        " ".join([name, *(f"{key}={value}" for key, value in settings.items()), f"on {data}"]): (name, settings, data)
        for name, settings, on in listed
        for data in on
    }  # fmt: skip


CASES = _cases()


def batches(data: str) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(y, y_pred float32, weight) of a few batches, the last one smaller."""
    rng, found = np.random.RandomState(sum(map(ord, data))), []
    for batch in range(BATCHES):
        y, pred = MADE_BY[data](rng, ROWS if batch < BATCHES - 1 else ROWS // 3)
        y = y if data == "labels" else y.astype(np.float32)
        found.append(
            (y, pred.astype(np.float32), rng.choice([0.0, 0.5, 1.0, 2.0], len(y)).astype(np.float32))
        )
    return found


def results(lib, name: str) -> np.ndarray:
    """What the metric of a case shows after each batch, first without and then with weights."""
    class_name, settings, data = CASES[name]
    metric, found = getattr(lib.metrics, class_name)(**settings), []
    for weighted in (False, True):
        metric.reset_state()
        for y, pred, weight in batches(data):
            metric.update_state(y, pred, sample_weight=weight if weighted else None)
            found.append(np.ravel(np.asarray(metric.result(), np.float64)))
    return np.concatenate(found)


def disagreement(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the expected number where that is above 1; NaN equals NaN."""
    same = np.isnan(found) & np.isnan(expected)
    return float(np.max(np.where(same, 0.0, np.abs(found - expected) / np.maximum(1.0, np.abs(expected)))))


# ---- logs of a training


def furthest(y, pred):
    """One number a batch: its mean over the batches counts the smaller last one like any other."""
    return abs(y - pred).max()


def distance(y, pred):
    """A number for each sample and output."""
    return abs(y - pred)


OF_FITS = {
    "decisions": ["accuracy", "AUC", "Precision", "Recall", ("F1Score", {"threshold": 0.5, "average": "micro"}), "bce"],
    "numbers": ["R2Score", "RootMeanSquaredError", "mape", "CosineSimilarity", "mse"],
}  # fmt: skip
HEADS = {"decisions": ("sigmoid", "binary_crossentropy"), "numbers": ("linear", "mse")}


def logs_of_fit(lib, case: str) -> dict[str, np.ndarray]:
    """Three epochs with validation, and an evaluation: each log's values."""
    rng, (head, loss) = np.random.RandomState(3), HEADS[case]
    x = rng.normal(size=(250, 5)).astype(np.float32)
    y = (x @ rng.normal(size=(5, 2)) + 0.5 * rng.normal(size=(250, 2))).astype(np.float32)
    if case == "decisions":
        y = (y > 0.5).astype(np.float32)
    made = [
        getattr(lib.metrics, given[0])(**given[1]) if isinstance(given, tuple) else given
        for given in OF_FITS[case]
    ]
    model = lib.models.Sequential()
    for layer in (lib.layers.Input((5,)), lib.layers.Dense(6, "tanh"), lib.layers.Dense(2, head)):
        model.add(layer)
    sizes = (5, 6), (6,), (6, 2), (2,)
    model.set_weights([rng.normal(size=size).astype(np.float32) * 0.5 for size in sizes])
    model.compile(lib.optimizers.SGD(0.1), loss, metrics=[*made, furthest, distance])
    history = model.fit(
        x[:200], y[:200], batch_size=32, epochs=3, shuffle=False, verbose=0, validation_data=(x[200:], y[200:])
    ).history  # fmt: skip
    tested = model.evaluate(x, y, batch_size=64, verbose=0, return_dict=True)
    found = {**history, **{f"test_{name}": [value] for name, value in tested.items()}}
    return {name: np.array(values, np.float64) for name, values in sorted(found.items())}
