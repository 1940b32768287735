"""A program as a user writes it, for mypy to check: ``mypy`` reads this file and the types that minidl gives it.

Nothing here runs in the tests. Each ``type: ignore`` marks a mistake that mypy must find: if it does not, the comment
is unused, and that is an error, too.
"""

from __future__ import annotations

import numpy as np

import minidl
from minidl.callbacks import Callback, EarlyStopping, History, ModelCheckpoint
from minidl.datasets import mnist
from minidl.distillation import DistillationReport, born_again, distill
from minidl.layers import Dense, Dropout, Input, Layer
from minidl.losses import DIST, DecoupledKD, KnowledgeDistillation, Loss, Ramp
from minidl.models import Sequential, load_model
from minidl.optimizers import SGD, Adam, Optimizer
from minidl.optimizers.schedules import CosineDecay
from minidl.teachers import Ensemble, load_logits, save_logits


def chain(batches: list[tuple[np.ndarray, np.ndarray]]) -> Sequential:
    inputs = Input((784,))
    model = minidl.Model(inputs, Dense(10, "softmax")(inputs), name="chain")
    model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
    history: History = model.fit(batches, steps_per_epoch=3, validation_data=batches)
    probs: np.ndarray = model.predict(batches, steps=2)
    print(history.history, probs.shape, model.metrics_names, model.to_json(), model.input.shape)
    return model


def train() -> list[float]:
    (x_train, y_train), (x_test, y_test) = mnist.load_subset()
    pixels: np.ndarray = x_train.reshape(-1, 784) / 255
    layers: list[Layer] = [Input((784,)), Dense(64, activation="relu"), Dropout(0.2), Dense(10, "softmax")]
    layers += [Dense(8, activation=minidl.activations.tanh), Dense(8, minidl.activations.gelu)]
    model = Sequential(layers, seed=1)
    optimizer: Optimizer = Adam(CosineDecay(0.001, 1000))
    model.compile(optimizer=optimizer, loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    callbacks: list[Callback] = [EarlyStopping(patience=3), ModelCheckpoint("best.npz")]
    history: History = model.fit(pixels, y_train, epochs=2, validation_split=0.1, callbacks=callbacks)
    probs: np.ndarray = model.predict(pixels)
    model.save("model.npz")
    again: Sequential = load_model("model.npz")
    count: int = again.count_params()
    weights: list[np.ndarray] = again.get_weights()
    print(history.history, probs.shape, count, len(weights), len(x_test), len(y_test))
    return [float(value) for value in history.history["loss"]]


def teach(teacher: Sequential, student: Sequential, x: np.ndarray, y: np.ndarray) -> float | None:
    loss: Loss = KnowledgeDistillation(temperature=Ramp(8.0, 2.0, 10), hard_weight=0.1, soft_weight=0.9)
    report: DistillationReport = distill(teacher, student, x, y, loss=loss, epochs=3)
    distill(Ensemble([teacher, student], mean="geometric"), student, x, y, loss=DIST())
    distill(lambda rows: teacher.predict_logits(rows), student, x, y, loss=DecoupledKD(temperature=4.0))
    logits: np.ndarray = teacher.predict_logits(x)
    save_logits("logits.npz", logits, x, teacher)
    distill(load_logits("logits.npz", x, teacher), student, x, y)
    print(report, born_again)
    return report.student.accuracy


def compute(a: np.ndarray) -> np.ndarray:
    minidl.set_random_seed(0)
    minidl.set_num_threads(2)
    seconds: float = minidl.warmup()
    threads: int = minidl.get_num_threads()
    print(seconds, threads, SGD(0.1, momentum=0.9))
    return minidl.softmax(minidl.matmul(a, a, transpose_b=True), temperature=4.0)


def mistakes(model: Sequential, x: np.ndarray) -> None:
    Dense("64")  # type: ignore[arg-type]
    model.count_params() + "1"  # type: ignore[operator]
    model.fti(x, x)  # type: ignore[attr-defined]
    minidl.set_num_threads("2")  # type: ignore[arg-type]
    minidl.softmax(x, temperature="4")  # type: ignore[arg-type]
    KnowledgeDistillation(temperature="4")  # type: ignore[arg-type]
