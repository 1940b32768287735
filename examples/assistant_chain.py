"""Teacher -> assistant -> student: a net in between may help where the gap is wide.

    python examples/assistant_chain.py

Mirzadeh et al., "Improved knowledge distillation via teacher assistant", AAAI 2020 (arXiv 1902.03393). A chain
is `distill` called twice: the assistant learns from the teacher, and then teaches. The table shows whether it
helped. One run says little; `minidl.distill_sweep` repeats runs over seeds.
"""

from __future__ import annotations

import minidl
from minidl.datasets import mnist
from minidl.layers import Dense, Dropout, Input
from minidl.losses import KnowledgeDistillation
from minidl.models import Sequential


def net(*units, dropout=0.0, seed=0):
    layers = [Input((784,))]
    for count in units:
        layers += [Dense(count, activation="relu"), Dropout(dropout)]
    return Sequential([*layers, Dense(10, activation="softmax")], seed=seed)


def main(digits=6000, epochs=20, sizes=((512, 512), (128, 128), (32, 32)), verbose=0):
    (x, y), (x_test, y_test) = mnist.load_subset()
    x, x_test = (images.reshape(-1, 784).astype("float32") / 255 for images in (x[:digits], x_test))
    y, test = y[:digits], (x_test, y_test)
    settings = dict(epochs=epochs, test_data=test, verbose=verbose, loss=KnowledgeDistillation(4.0, 0.1, 0.9))

    teacher = net(*sizes[0], dropout=0.3)
    teacher.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    teacher.fit(x, y, epochs=epochs, verbose=verbose)

    direct = minidl.distill(teacher, net(*sizes[2]), x, y, plain_student=True, **settings)

    assistant, student = net(*sizes[1]), net(*sizes[2])
    first = minidl.distill(teacher, assistant, x, y, **settings)
    second = minidl.distill(assistant, student, x, y, **settings)

    print(f"errors among {len(x_test)} test digits")
    for name, figures in (
        ("teacher", first.teacher),
        ("assistant, from the teacher", first.student),
        ("student on labels alone", direct.plain),
        ("student, from the teacher", direct.student),
        ("student, from the assistant", second.student),
    ):
        print(f"{name:<28} {figures.layers:<16} {figures.errors:>5}")
    return direct, first, second


if __name__ == "__main__":
    main()
