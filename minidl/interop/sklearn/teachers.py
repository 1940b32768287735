"""Who teaches a ``DistilledClassifier`` or a ``DistilledRegressor``, and what it answers; ``sklearn_teacher``."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted, has_fit_parameter

from ...losses.softmax import looks_like_probabilities
from ...teachers import Teacher, as_teacher
from ...validation import check_array, check_finite, check_float, describe, warn
from .votes import least_probability


def sklearn_teacher(estimator: object, floor: float | None = None) -> Teacher:
    """A fitted scikit-learn estimator as a teacher, for ``minidl.distill`` and ``fit(target_model=)``.

    Of a classifier the logarithms of its probabilities, its columns in the order of its ``classes_``: class i of the
    student is the i-th of these. A warning says so where they are not 0, 1, 2, ... Of a regressor its numbers.

    ``floor``: what smaller probabilities are raised to first. By default 1 / (n + C) where they are shares of n votes
    for C classes, of a forest, of bagging or of the nearest neighbours (Laplace's rule of succession); else 1e-7.
    ValueError where it is not between 0 and 1 / C, or the estimator a regressor.
    """
    if isinstance(estimator, type) or not hasattr(estimator, "fit"):
        raise TypeError(f"estimator must be a fitted scikit-learn estimator, got {describe(estimator)}")
    if not is_fitted(estimator):
        raise ValueError(f"estimator {type(estimator).__name__} knows nothing yet: call its fit(X, y) first")
    if is_regressor(estimator):
        if floor is not None:
            raise ValueError(
                f"floor is for probabilities, and {type(estimator).__name__} answers numbers: leave it out"
            )
        return as_teacher(lambda x: estimator.predict(x.reshape(len(x), -1)), activation=None)  # type: ignore
    check_has_probabilities("estimator", estimator)
    classes = getattr(estimator, "classes_", None)
    if floor is not None:  # from 1 / C on all answers would be alike
        check_float("floor", floor, above=0.0, below=1 / max(1, np.size(classes)))
    if isinstance(classes, np.ndarray) and not np.array_equal(classes, np.arange(len(classes))):
        warn(
            f"the classes of {type(estimator).__name__} are {_few(classes)}, and a student has 0, 1, 2, ...: its "
            "class i is the i-th of them"
        )

    def answer(x):
        probs = estimator.predict_proba(x.reshape(len(x), -1))  # type: ignore[attr-defined]
        if isinstance(probs, np.ndarray) and looks_like_probabilities(probs):  # else it is refused
            least = least_probability(estimator, probs.shape[1]) if floor is None else floor
            raised = np.maximum(probs, least)
            probs = raised / raised.sum(axis=1, keepdims=True)
        return probs

    return as_teacher(answer, from_probs=True)


def check_has_probabilities(argument: str, estimator) -> None:
    if is_regressor(estimator):
        raise TypeError(f"{argument} must be a classifier, got the regressor {type(estimator).__name__}")
    if not hasattr(estimator, "predict_proba"):
        raise TypeError(
            f"{argument} must have predict_proba, got {type(estimator).__name__}: "
            "sklearn.calibration.CalibratedClassifierCV makes probabilities of what it decides by"
        )


def is_estimator(thing: object) -> bool:
    """Whether ``thing`` is an instance that scikit-learn's ``clone`` and ``fit`` are for."""
    return hasattr(thing, "get_params") and hasattr(thing, "fit") and not isinstance(thing, type)


def is_fitted(estimator: Any) -> bool:
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        return False
    except TypeError:  # no estimator of scikit-learn's kind: it must know itself
        return True
    return True


def check_teacher(teacher: object) -> None:
    """A TypeError for what cannot teach an estimator."""
    if is_estimator(teacher) or isinstance(teacher, Teacher):
        return
    if isinstance(teacher, (np.ndarray, list, tuple)):
        raise TypeError(
            "teacher must not be an array of answers: rows of a fold would not be its rows. Give what answers, or use "
            "Sequential.fit(x, y, target_model=array)"
        )
    if isinstance(teacher, type) or not (callable(teacher) or hasattr(teacher, "predict_logits")):
        raise TypeError(
            "teacher must be None, an estimator, a minidl model or a function X -> logits, got "
            f"{describe(teacher)}"
        )


def fitted(teacher: Any, X, y, sample_weight) -> Any:
    """The teacher, if it is fitted or no estimator; else a clone of it, fitted on X and y as the user gave them."""
    if not is_estimator(teacher) or is_fitted(teacher):
        return teacher
    if y is None:
        raise ValueError(
            f"This {type(teacher).__name__} teacher requires y to be passed, but the target y is None: it is not "
            "fitted. Fit it first to teach without labels"
        )
    return clone(teacher).fit(X, y, **_weight_for(teacher, sample_weight))


def fitted_further(teacher: Any, before: Any, X, y, sample_weight, classes) -> Any:
    """As `fitted`, by the teacher's own partial_fit. ``before``: what the last call made, or the teacher."""
    if not is_estimator(teacher) or is_fitted(teacher):
        return teacher
    if not hasattr(teacher, "partial_fit"):
        raise ValueError(
            f"partial_fit needs a fitted teacher, or one that has partial_fit itself, got {type(teacher).__name__}"
        )
    found = before if before is not teacher else clone(teacher)
    of_classes = {} if classes is None else {"classes": classes}
    return found.partial_fit(X, y, **of_classes, **_weight_for(teacher, sample_weight))


def _weight_for(teacher: Any, sample_weight) -> dict[str, Any]:
    if sample_weight is None:
        return {}
    if not has_fit_parameter(teacher, "sample_weight"):
        raise ValueError(
            f"sample_weight: the teacher {type(teacher).__name__} takes none; fit it first to leave it unweighted"
        )
    return {"sample_weight": sample_weight}


def classes_of(teacher: Any, y_classes: np.ndarray | None) -> np.ndarray | None:
    """All classes of y and of a teacher that tells its own; a teacher must know those of y. None: nobody tells."""
    known = getattr(teacher, "classes_", None) if is_estimator(teacher) else None
    if known is None or isinstance(known, list):  # of several labels
        return y_classes
    if y_classes is None:
        return np.asarray(known)
    unknown = np.setdiff1d(y_classes, known) if _comparable(y_classes, known) else y_classes
    if len(unknown):
        raise ValueError(
            f"y has the classes {_few(unknown)}, which the teacher {type(teacher).__name__} does not know: it knows "
            f"{_few(known)}"
        )
    return y_classes if len(known) == len(y_classes) else np.asarray(known)


def _comparable(a, b) -> bool:
    """Whether both are text, or neither is: numbers are not compared with text."""
    return all(isinstance(each, str) for each in a) == all(isinstance(each, str) for each in b)


def _few(classes: Sequence) -> str:
    shown = ", ".join(repr(each) for each in np.asarray(classes)[:10].tolist())
    return f"[{shown}{', ...' if len(classes) > 10 else ''}]"


def labels_of(teacher: Any, X) -> int:
    """How many answers of yes and no a fitted estimator gives to a sample of X; 0 where it gives one class."""
    answers = np.asarray(teacher.predict(X[:1])) if is_estimator(teacher) else np.empty(1)
    return answers.shape[1] if answers.ndim == 2 and answers.shape[1] > 1 else 0


def numbers_of(teacher: Any, X, checked, outputs: int | None) -> np.ndarray:
    """A regressor's answers (N, outputs) to X, as the user gave it; other teachers see it ``checked``."""
    if is_estimator(teacher):
        if is_classifier(teacher):
            raise TypeError(f"teacher must answer numbers, got the classifier {type(teacher).__name__}")
        answers = teacher.predict(X)
    elif hasattr(teacher, "predict_logits"):
        answers = teacher.predict(checked)
    else:
        answers = teacher(checked)
    return _shaped(answers, len_of(checked), outputs, "outputs")


def logits_of(teacher: Any, X, checked, classes: np.ndarray | None, labels: int) -> np.ndarray:
    """A classifier's answers to X as logits, columns in the order of ``classes``: (N, C), of two classes (N, 1).

    ``labels`` > 0: there are so many answers of yes and no, (N, labels). Probabilities are raised to
    `least_probability` first, and those of yes and no brought to [it, 1 - it].
    """
    if not is_estimator(teacher):
        return _other_logits(teacher, checked, classes, labels)
    check_has_probabilities("teacher", teacher)
    probs = teacher.predict_proba(X)
    if labels:
        if not labels_of(teacher, X):
            raise ValueError(
                f"y has {labels} labels of yes and no, and the teacher {type(teacher).__name__} answers one class"
            )
        if isinstance(probs, list):  # of each label the probabilities of no and yes, or of one alone
            _check_yes_and_no(teacher)
            ones = [np.asarray(of_label) == 1 for of_label in teacher.classes_]
            probs = np.stack([p @ one for p, one in zip(probs, ones, strict=True)], axis=1)
        return _log_odds(_shaped(probs, len_of(checked), labels, "labels"), least_probability(teacher, 2))
    classes_of(teacher, classes)  # refuses those that it does not know
    own = np.asarray(getattr(teacher, "classes_", classes))
    probs = _shaped(probs, len_of(checked), len(own), "classes")
    columns = np.searchsorted(own, classes, sorter=(sorter := np.argsort(own)))
    probs = probs[:, sorter[columns]]
    least = least_probability(teacher, len(own))
    if len(classes) > 2:
        return np.log(np.maximum(probs, least))
    return _log_odds(probs[:, 1:] if len(classes) == 2 else np.zeros((len(probs), 1)), least)


def _check_yes_and_no(teacher: Any) -> None:
    for label, of_label in enumerate(teacher.classes_):
        if not set(np.asarray(of_label).tolist()) <= {0, 1}:
            raise ValueError(
                f"teacher {type(teacher).__name__} must answer 0 or 1 for each of several labels, got the classes "
                f"{_few(of_label)} of label {label}"
            )


def _other_logits(teacher: Any, checked, classes, labels: int) -> np.ndarray:
    """The logits of a model or a function, whose columns are in the order of the sorted classes."""
    rows = len_of(checked)
    if labels and getattr(teacher, "final_activation", None) == "softmax":
        raise ValueError(
            f"y has {labels} labels of yes and no, and the teacher ends in softmax: it answers one class"
        )
    if isinstance(teacher, Teacher):
        answers = teacher.logits(checked)
    else:
        answers = teacher.predict_logits(checked) if hasattr(teacher, "predict_logits") else teacher(checked)
    answers = _shaped(answers, rows, None, "classes")
    if answers.shape[1] > 1 and rows > 1 and looks_like_probabilities(answers):
        raise ValueError(
            "teacher gives probabilities where logits are wanted: let it give logits, or wrap it, "
            "minidl.teachers.as_teacher(function, from_probs=True)"
        )
    count = labels or (answers.shape[1] if classes is None else len(classes))
    if not labels and count == 2 and answers.shape[1] == 2:
        return answers[:, 1:] - answers[:, :1]
    return _shaped(answers, rows, 1 if count <= 2 and not labels else count, "classes")


def _log_odds(probs: np.ndarray, least: float) -> np.ndarray:
    probs = np.clip(probs.astype(np.float64), least, 1 - least)
    return np.log(probs) - np.log1p(-probs)


def _shaped(answers, rows: int, columns: int | None, what: str) -> np.ndarray:
    """(rows, columns), finite; ``columns`` None: any."""
    answers = check_array("teacher's answers", answers)
    answers = answers[:, None] if answers.ndim == 1 else answers
    if answers.ndim != 2 or len(answers) != rows or columns not in (None, answers.shape[1]):
        wanted = f"({rows}, {columns or what})"
        raise ValueError(
            f"teacher must answer {wanted}, a column for each of the {what}, got {answers.shape}"
        )
    check_finite("teacher's answers", answers)
    return answers


def len_of(X) -> int:
    """Rows of an array or a sparse matrix, which has no len."""
    return X.shape[0]
