"""A scikit-learn forest teaches a minidl student. Needs scikit-learn.

    python examples/sklearn_teacher.py

An estimator gives probabilities and no logits, and a forest's are often exactly 0. ``sklearn_teacher`` raises those
of n trees for C classes to 1 / (n + C) at least, and takes their logarithm.
"""

from __future__ import annotations

try:
    from sklearn.ensemble import ExtraTreesClassifier
except ImportError as error:
    raise ImportError("this example needs sklearn: pip install scikit-learn") from error

import minidl
from minidl.datasets import mnist
from minidl.interop.sklearn import sklearn_teacher
from minidl.layers import Dense, Input
from minidl.losses import KnowledgeDistillation
from minidl.models import Sequential


def main(digits=6000, epochs=20, trees=200, verbose=0):
    (x, y), (x_test, y_test) = mnist.load_subset()
    x, x_test = (images.reshape(-1, 784).astype("float32") / 255 for images in (x[:digits], x_test))
    y = y[:digits]

    forest = ExtraTreesClassifier(trees, min_samples_leaf=2, random_state=0).fit(x, y)

    student = Sequential(
        [Input((784,)), Dense(32, activation="relu"), Dense(10, activation="softmax")], seed=0
    )
    report = minidl.distill(
        sklearn_teacher(forest),
        student,
        x,
        y,
        loss=KnowledgeDistillation(temperature=2.0, hard_weight=0.5, soft_weight=0.5),
        epochs=epochs,
        test_data=(x_test, y_test),
        plain_student=True,
        verbose=verbose,
    )
    print(report)
    return report


if __name__ == "__main__":
    main()
