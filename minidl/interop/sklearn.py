"""scikit-learn: a classifier for its pipelines, its estimators as teachers. Needs ``minidl[sklearn]``."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..layers import Dense, Input
from ..losses import KnowledgeDistillation, SparseCategoricalCrossentropy
from ..models import Sequential
from ..optimizers import Adam
from ..teachers import Teacher, as_teacher
from ..validation import describe

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
except ImportError as error:
    raise ImportError(
        'minidl.interop.sklearn needs scikit-learn >= 1.6: pip install "minidl[sklearn]"'
    ) from error


_DATA: dict = dict(dtype=[np.float32, np.float64], accept_sparse="csr")
"""What ``X`` is made: sparse matrices of other formats become CSR."""


@dataclass(eq=False, repr=False)  # of its constructor scikit-learn reads the signature
class MinidlClassifier(ClassifierMixin, BaseEstimator):
    """A multilayer perceptron, distilled from ``teacher`` if one is given.

    ``y`` holds labels of any type, strings too; ``predict`` gives them back. ``X`` is an array, a data frame of numbers
    or a sparse matrix, whose rows become dense a slice at a time.

    Parameters
    ----------
    hidden_layer_sizes, activation : the net; it ends in softmax over the classes.
    epochs, batch_size, learning_rate : training, with Adam.
    teacher : None, or anything ``minidl.distill`` takes, or a fitted scikit-learn classifier. Its classes must
        be in the order of ``classes_``.
    temperature, hard_weight, soft_weight : of the distillation loss.
    random_state : None or an int, the model's ``seed``.

    Attributes
    ----------
    classes_, n_features_in_ ; model_ : the ``Sequential``.
    """

    hidden_layer_sizes: Sequence[int] = (64, 64)
    activation: str = "relu"
    epochs: int = 20
    batch_size: int = 32
    learning_rate: float = 0.001
    teacher: object = None
    temperature: float = 2.0
    hard_weight: float = 0.5
    soft_weight: float = 0.5
    random_state: int | None = None

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def fit(self, X, y, sample_weight=None):
        X, y = validate_data(self, X, y, **_DATA)
        check_classification_targets(y)
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, X)
            if not np.any(sample_weight):
                raise ValueError("sample_weight must not be zero for all samples")
        self.classes_, labels = np.unique(y, return_inverse=True)
        layers = [Dense(units, activation=self.activation) for units in self.hidden_layer_sizes]
        outputs = max(2, len(self.classes_))
        layers = [Input((X.shape[1],)), *layers, Dense(outputs, activation="softmax")]
        self.model_ = Sequential(layers, seed=self.random_state)
        loss, teacher = SparseCategoricalCrossentropy(), self.teacher
        if teacher is not None:
            loss = KnowledgeDistillation(self.temperature, self.hard_weight, self.soft_weight)
            if hasattr(teacher, "predict_proba") and not callable(teacher):
                teacher = sklearn_teacher(teacher)
        self.model_.compile(optimizer=Adam(self.learning_rate), loss=loss)
        arguments = dict(epochs=self.epochs, batch_size=self.batch_size, verbose=0)
        self.model_.fit(X, labels, sample_weight=sample_weight, target_model=teacher, **arguments)
        return self

    def _outputs(self, X, predict: str) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, **_DATA, reset=False)
        return getattr(self.model_, predict)(X)[:, : len(self.classes_)]

    def predict_proba(self, X) -> np.ndarray:
        probs = self._outputs(X, "predict").astype(np.float64)
        return probs / probs.sum(axis=1, keepdims=True)

    def predict(self, X) -> np.ndarray:
        answers = self._outputs(X, "predict_logits").argmax(axis=1)
        return self.classes_[answers]


def sklearn_teacher(estimator: object) -> Teacher:
    """A fitted classifier as a teacher: the logarithms of its probabilities, which are raised to 1e-7 first."""
    if not hasattr(estimator, "predict_proba"):
        raise TypeError(f"estimator must have predict_proba, got {describe(estimator)}")
    return as_teacher(lambda x: estimator.predict_proba(x.reshape(len(x), -1)), from_probs=True)
