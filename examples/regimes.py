"""The regimes of distillation, one after the other, on the embedded digits.

    python examples/regimes.py

No labels, few labels, more data without labels, an ensemble, a teacher stopped early, self-distillation, the
uniform teacher (which is label smoothing), generations, and models that teach each other.
"""

from __future__ import annotations

import copy

import numpy as np

import minidl
from minidl.callbacks import EarlyStopping
from minidl.datasets import mnist
from minidl.layers import Dense, Dropout, Input
from minidl.losses import KnowledgeDistillation
from minidl.models import Sequential


def net(units, seed=0, dropout=0.0):
    layers = [
        Input((784,)),
        Dense(units, activation="relu"),
        Dropout(dropout),
        Dense(10, activation="softmax"),
    ]
    return Sequential(layers, seed=seed)


def main(digits=6000, epochs=20, units=(256, 32), verbose=0):
    (x, y), (x_test, y_test) = mnist.load_subset()
    x, x_test = (images.reshape(-1, 784).astype("float32") / 255 for images in (x[:digits], x_test))
    y, results = y[:digits].astype(int), {}
    held_out = digits // 5  # chooses the epoch at which the teacher stops; nothing is reported on it

    # A teacher stopped where it did best on held-out data. It teaches like any other.
    teacher = net(units[0], dropout=0.3)
    teacher.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    stop = EarlyStopping(monitor="val_loss", patience=3, restore_best_weights=True)
    teacher.fit(
        x[held_out:], y[held_out:], epochs=2 * epochs, validation_data=(x[:held_out], y[:held_out]), callbacks=[stop],
        verbose=verbose,
    )  # fmt: skip
    settings = dict(epochs=epochs, verbose=verbose, test_data=(x_test, y_test))

    def learn(name, teacher, labels=y, samples=x, student=None, **more):
        student = net(units[1], seed=1) if student is None else student
        report = minidl.distill(teacher, student, samples, labels, **{**settings, **more})
        results[name] = report.student.errors
        return student

    learn("labels and teacher", teacher)
    learn("no labels", teacher, labels=None)
    few = np.where(np.arange(len(y)) < len(y) // 10, y, -1)  # -1: no label
    learn("a tenth of the labels", teacher, labels=few)
    half = len(x) // 2
    learn("half the digits", teacher, y[:half], x[:half])
    learn("half the digits, the others without labels", teacher, y[:half], x[:half], transfer=x[half:])

    other = net(units[0], seed=2, dropout=0.3)
    other.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    other.fit(x, y, epochs=epochs, verbose=verbose)
    learn("two teachers", minidl.Ensemble([teacher, other]))

    # Self-distillation: the student is a new net of the teacher's kind, or a copy of the teacher.
    first = learn("labels and teacher", teacher)
    learn("self-distillation, anew", first, student=net(units[1], seed=3))
    learn("self-distillation, going on", copy.deepcopy(first), student=first)

    # Logits that are all equal are the uniform teacher: weights 0.9 and 0.1 at T = 1 smooth labels by 0.1.
    uniform = np.zeros((len(x), 10), np.float32)
    learn("label smoothing", uniform, loss=KnowledgeDistillation(1.0, 0.9, 0.1))

    seeds = iter(range(4, 100))
    born = minidl.born_again(lambda: net(units[1], next(seeds)), x, y, generations=2, **settings)
    results["born again, second generation"] = born.reports[-1].student.errors
    peers = [net(units[1], seed) for seed in (7, 8)]
    minidl.mutual_learning(peers, x, y, epochs=epochs, verbose=verbose)
    results["mutual learning, the first"] = int((peers[0].predict(x_test).argmax(axis=1) != y_test).sum())

    print(f"errors among {len(x_test)} test digits; the teacher's {errors(teacher, x_test, y_test)}")
    for name, count in results.items():
        print(f"{name:<44} {count:>5}")
    return results


def errors(model, x, y):
    return int((model.predict(x).argmax(axis=1) != y).sum())


if __name__ == "__main__":
    main()
