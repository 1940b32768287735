"""scikit-learn: its multilayer perceptrons on minidl's kernels, the same distilled, and its estimators as teachers.

``perceptron`` holds what the estimators share and reads first; ``docs/sklearn.md`` is the page for users. Needs
``minidl[sklearn]``.
"""

from .. import import_extra

import_extra("sklearn.frozen", "sklearn", "sklearn")  # of scikit-learn 1.6

from .distilled import DistilledClassifier, DistilledRegressor  # noqa: E402
from .estimators import MLPClassifier, MLPRegressor  # noqa: E402
from .teachers import sklearn_teacher  # noqa: E402

__all__ = ["DistilledClassifier", "DistilledRegressor", "MLPClassifier", "MLPRegressor", "sklearn_teacher"]


def __getattr__(name: str):
    if name == "MinidlClassifier":
        raise ImportError(
            "MinidlClassifier is now MLPClassifier, with scikit-learn's parameters (epochs is max_iter, learning_rate "
            "learning_rate_init), and with a teacher DistilledClassifier: from minidl.interop.sklearn import "
            "DistilledClassifier, MLPClassifier"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
