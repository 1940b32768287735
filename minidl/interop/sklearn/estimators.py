"""``MLPClassifier`` and ``MLPRegressor``, with scikit-learn's own faces."""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import numpy as np
import scipy.sparse
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils import column_or_1d, compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels
from sklearn.utils.validation import _check_sample_weight, validate_data

from ...training.samples import Samples
from ...validation import describe
from .objectives import BinaryLogLoss, LogLoss, PoissonDeviance, SquaredError, TaughtBinaryLogLoss
from .perceptron import X_OPTIONS, Perceptron, Problem, checked_x

NO_LABELS, NO_WEIGHT = np.empty(0, np.int64), np.empty(0)


def learns_by_batches(estimator) -> bool:
    if estimator.solver == "lbfgs":
        raise AttributeError("partial_fit is only available for solver='adam' and 'sgd', got solver='lbfgs'")
    return True


def _check_one_kind(y) -> None:
    """A ValueError if an array of objects has classes that cannot be sorted, or None for a label that is missing."""
    if y.dtype == object and not all(isinstance(label, str) for label in y.flat):
        kinds = sorted({type(label).__name__ for label in y.flat})
        if len(kinds) > 1:
            raise ValueError(
                f"y must be all strings or all numbers, got objects of the types {', '.join(kinds)}"
            )


def checked_weight(sample_weight, X) -> np.ndarray:
    if sample_weight is None:
        return NO_WEIGHT
    weight = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
    if not weight.any():
        raise ValueError("sample_weight must not be zero for all samples")
    return weight


@dataclass(eq=False, repr=False)
class MLPClassifier(ClassifierMixin, Perceptron):
    """scikit-learn's ``MLPClassifier`` on minidl's kernels.

    ``hidden_layer_sizes`` to ``max_fun`` are scikit-learn's parameters, with its order, its defaults and its meaning,
    and so are the attributes. With the same ``random_state`` both begin with the same weights, take the same batches
    and end with the same net, to rounding. It is computed in float32 if ``X`` is float32, else (and with
    ``solver="lbfgs"``) in float64.

    Parameters
    ----------
    dropout : this share of each hidden layer's outputs is left out at random in training, in [0, 1).
    batch_normalization : whether each hidden layer's sums are normalised by their batch before the activation.
    class_weight : None, "balanced" or {class: weight}; times ``sample_weight``, as in scikit-learn.

    Attributes
    ----------
    classes_, loss_, best_loss_, loss_curve_, validation_scores_, best_validation_score_, t_, n_iter_, coefs_,
    intercepts_, n_features_in_, feature_names_in_, n_layers_, n_outputs_, out_activation_ : scikit-learn's. ``coefs_``
        and ``intercepts_`` are the net's own arrays: what is written to them, or put in their place, is used.
    model_ : the ``Sequential``, to save, to convert, or to teach.
    """

    _: KW_ONLY
    class_weight: Mapping | Literal["balanced"] | None = None

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def fit(self, X, y, sample_weight=None):
        """Train on X (N, features) and y: classes of any type (N,), or 0 and 1 for each of several labels."""
        return self._fit(X, y, sample_weight)

    @available_if(learns_by_batches)
    def partial_fit(self, X, y, sample_weight=None, classes=None):
        """One epoch on these samples. ``classes``: all there will ever be; the first call needs them."""
        self._check_classes(y, classes)
        return self._fit(X, y, sample_weight, incremental=True)

    def _check_classes(self, y, classes) -> None:
        """Keep ``classes`` at the first call of partial_fit, and hold later ones to them."""
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight='balanced' needs all samples, which partial_fit has not: give the weights, "
                "as sklearn.utils.class_weight.compute_class_weight computes them"
            )
        known = getattr(self, "classes_", None)
        if known is None and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if known is None:
            is_multilabel = type_of_target(y).startswith("multilabel")
            self.classes_ = unique_labels(y) if is_multilabel else unique_labels(classes)
        elif classes is not None and not np.array_equal(known, unique_labels(classes)):
            raise ValueError(
                f"`classes={classes!r}` is not the same as on last call to partial_fit, was: {known!r}"
            )

    def _problem(self, X, y, sample_weight, is_first, incremental):
        X, y = validate_data(self, X, y, **X_OPTIONS, multi_output=True, reset=is_first)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        _check_one_kind(y)
        check_classification_targets(y)
        if y.ndim == 2 and type_of_target(y) == "multiclass-multioutput":
            raise ValueError(
                "Multioutput target data is not supported: y has several columns of classes; columns of 0 and 1 are "
                "taken for labels, and sklearn.multioutput.MultiOutputClassifier fits one classifier to each column"
            )
        weight = checked_weight(sample_weight, X)
        if self.class_weight is not None:
            of_class = compute_sample_weight(self.class_weight, y)
            weight = weight * of_class if weight.size else of_class
        self._set_classes(y, is_first and not incremental)
        return self._encoded(checked_x(X, X.dtype), y, weight)

    def _set_classes(self, y, anew: bool) -> None:
        found = np.unique(y) if y.ndim == 1 else unique_labels(y)
        if anew or not hasattr(self, "classes_"):
            self.classes_ = found
            return
        unknown = np.setdiff1d(found, self.classes_)
        if self.warm_start and not np.array_equal(found, self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                f"Previously got {self.classes_}, `y` has {found}"
            )
        if len(unknown):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. 'y' has {found}."
            )

    def _encoded(self, x, y, weight) -> Problem:
        """The classes as numbers: of more than two the index, else rows of 0 and 1."""
        if y.ndim == 2:
            y = y.toarray() if scipy.sparse.issparse(y) else y
            samples = Samples(x, NO_LABELS, np.ascontiguousarray(y, dtype=x.dtype), None, weight)
            return Problem(samples, TaughtBinaryLogLoss(1.0, 1.0, 0.0), y.shape[1], "logistic")
        index = np.searchsorted(self.classes_, y).astype(np.int64)
        if len(self.classes_) > 2:
            samples = Samples(x, index, None, None, weight)
            return Problem(samples, LogLoss(), len(self.classes_), "softmax")
        samples = Samples(x, NO_LABELS, index[:, None].astype(x.dtype), None, weight)
        return Problem(samples, BinaryLogLoss(), 1, "logistic")

    def _decided(self, logits: np.ndarray) -> np.ndarray:
        """The classes by number (N,), or 0 and 1 for each of several labels (N, labels)."""
        if self.out_activation_ == "softmax":
            return logits.argmax(axis=1)
        if self.n_outputs_ > 1:
            return (logits > 0).astype(np.int64)
        return ((logits[:, 0] > 0) & (len(self.classes_) > 1)).astype(np.int64)

    def _score_of(self, held_out: Samples) -> float:
        """The accuracy, of several labels that of whole rows."""
        answers = self._decided(self.model_.predict_logits(held_out.x))
        if held_out.targets is None:
            right = answers == held_out.labels
        else:
            right = (answers.reshape(held_out.targets.shape) == held_out.targets).all(axis=1)
        return float(np.average(right, weights=held_out.weight if held_out.weight.size else None))

    def predict(self, X) -> np.ndarray:
        """The class of each sample (N,); of several labels rows of 0 and 1."""
        answers = self._decided(self._outputs(X, logits=True))
        return answers if answers.ndim == 2 else self.classes_[answers]

    def predict_proba(self, X) -> np.ndarray:
        """The probability of each class, in the order of ``classes_``, or of each of several labels."""
        probs = self._outputs(X)
        if self.n_outputs_ > 1:
            return probs
        return np.hstack([1 - probs, probs])[:, : len(self.classes_)]

    def predict_log_proba(self, X) -> np.ndarray:
        """The logarithm of ``predict_proba``."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))


def problem_of_numbers(loss: str, x, y: np.ndarray, weight: np.ndarray) -> Problem:
    """To learn the numbers y (N, outputs)."""
    samples = Samples(x, NO_LABELS, np.ascontiguousarray(y, dtype=x.dtype), None, weight)
    if loss == "squared_error":
        return Problem(samples, SquaredError(), y.shape[1], "identity")
    if y.min() < 0:
        raise ValueError(f"loss='poisson' needs y >= 0, got {y.min():g}")
    return Problem(samples, PoissonDeviance(), y.shape[1], "exp")


@dataclass(eq=False, repr=False)
class _WithLoss:
    """A base of its own, so that ``loss`` is the first parameter, as in scikit-learn."""

    loss: Literal["squared_error", "poisson"] = "squared_error"


@dataclass(eq=False, repr=False)
class MLPRegressor(RegressorMixin, Perceptron, _WithLoss):
    """scikit-learn's ``MLPRegressor`` on minidl's kernels. See ``MLPClassifier`` for what is the same and what is more.

    ``loss="poisson"`` is for counts: the net's output is the logarithm of what ``predict`` gives. It trains step by
    step in Python, more slowly than the squared error.
    """

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X, y, sample_weight=None):
        """Train on X (N, features) and numbers y, (N,) or (N, outputs)."""
        return self._fit(X, y, sample_weight)

    @available_if(learns_by_batches)
    def partial_fit(self, X, y, sample_weight=None):
        """One epoch on these samples."""
        return self._fit(X, y, sample_weight, incremental=True)

    def _problem(self, X, y, sample_weight, is_first, incremental):
        options = dict(multi_output=True, y_numeric=True, reset=is_first)
        X, y = validate_data(self, X, y, **X_OPTIONS, **options)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        y = y.reshape(len(y), -1)
        if not is_first and y.shape[1] != self.n_outputs_:
            raise ValueError(
                f"y must have the {self.n_outputs_} outputs of the net so far, got {describe(y)}"
            )
        return problem_of_numbers(self.loss, checked_x(X, X.dtype), y, checked_weight(sample_weight, X))

    def _answers(self, outputs: np.ndarray) -> np.ndarray:
        outputs = np.exp(outputs) if self.out_activation_ == "exp" else outputs
        return outputs[:, 0] if self.n_outputs_ == 1 else outputs

    def _score_of(self, held_out: Samples) -> float:
        """R2, NaN for answers that are not finite."""
        answers = self._answers(self.model_.predict(held_out.x))
        if not np.isfinite(answers).all():
            return np.nan
        weight = held_out.weight if held_out.weight.size else None
        return float(r2_score(held_out.targets, answers, sample_weight=weight))

    def predict(self, X) -> np.ndarray:
        """The numbers (N,) or (N, outputs)."""
        return self._answers(self._outputs(X))
