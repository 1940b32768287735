"""One payment in a hundred is a fraud: class weights, the area under precision and recall, and the threshold.

    python examples/fraud.py

Accuracy means nothing here: 99 % is what "never" has. `AUC(curve="PR")` judges in which order the answers put the
payments. `class_weight="balanced"` hardly changes that order. It raises all answers: they are no probabilities any
more, and 0.5 finds most frauds. A threshold chosen on held-out payments serves either net; the table has both.
"""

from __future__ import annotations

import numpy as np

import minidl
from minidl.callbacks import EarlyStopping
from minidl.layers import Dense, Input, Normalization
from minidl.metrics import AUC

THRESHOLDS = 1 / (1 + np.exp(-np.linspace(-12, 12, 400)))
"""Most answers are near 0, where evenly spread thresholds would take them for one."""


def payments(count, rng, columns=12):
    """Made up: of a fraud some numbers are larger, and some more alike."""
    y = (rng.random(count) < 0.01).astype(int)
    x = rng.normal(size=(count, columns)).astype("f4")
    x[y == 1, :4] += 1.0
    x[y == 1, 4:8] *= 0.4
    return x, y


def counts_at(threshold, scores, y):
    """(precision, recall) if payments with at least this score are stopped."""
    stopped = scores >= threshold
    hits = int((stopped & (y == 1)).sum())
    return hits / max(1, stopped.sum()), hits / max(1, y.sum())


def best_threshold(scores, y):
    """The one of largest F1, the harmonic mean of precision and recall."""
    order = np.argsort(-scores)
    hits = np.cumsum(y[order])
    return scores[order[np.argmax(2 * hits / (np.arange(1, len(y) + 1) + y.sum()))]]


def main(count=60_000, epochs=20, verbose=0):
    rng = np.random.default_rng(0)
    x, y = payments(count, rng)
    train, held_out, test = np.split(np.arange(count), [count // 2, count * 3 // 4])

    results = {}
    print(f"{y[test].sum()} frauds among {len(test):,} payments")
    print(f"{'':<22}   {'at 0.5':^17}   {'threshold chosen':^17}")
    print(f"{'class_weight':<14} {'PR-AUC':>7}   precision  recall   precision  recall")
    for class_weight in (None, "balanced"):
        layers = [Input(x.shape[1:]), Normalization(), Dense(32, "relu"), Dense(1, "sigmoid")]
        model = minidl.Sequential(layers, seed=0)
        model.layers[0].adapt(x[train])
        area = AUC(curve="PR", thresholds=THRESHOLDS, name="pr_auc")
        model.compile("adam", "binary_crossentropy", [area])
        stop = EarlyStopping("val_pr_auc", mode="max", patience=5, restore_best_weights=True)
        model.fit(
            x[train], y[train], batch_size=128, epochs=epochs, verbose=verbose, class_weight=class_weight,
            validation_data=(x[held_out], y[held_out]), callbacks=[stop],
        )  # fmt: skip
        pr_auc = model.evaluate(x[test], y[test], verbose=0)[1]
        scores = model.predict(x[test], verbose=0)[:, 0]
        chosen = best_threshold(model.predict(x[held_out], verbose=0)[:, 0], y[held_out])
        rows = counts_at(0.5, scores, y[test]), counts_at(chosen, scores, y[test])
        results[class_weight] = (pr_auc, *rows)
        shown = "   ".join(f"{precision:>9.2f}  {recall:>6.2f}" for precision, recall in rows)
        print(f"{class_weight!s:<14} {pr_auc:>7.3f}   {shown}")
    return results


if __name__ == "__main__":
    main()
