"""``DistilledClassifier`` and ``DistilledRegressor``: a small net that learns from a teacher."""

import copy
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import validate_data

from ...training.samples import Samples
from . import network, teachers, tuning
from .estimators import (
    NO_LABELS,
    MLPClassifier,
    MLPRegressor,
    checked_weight,
    learns_by_batches,
    problem_of_numbers,
)
from .objectives import BinaryLogLoss, TaughtBinaryLogLoss, TaughtLogLoss
from .perceptron import X_OPTIONS, Perceptron, Problem, checked_x

_WIDER = 4


@dataclass(eq=False, repr=False)
class Distilled(Perceptron):
    """What both have of the teacher."""

    _: KW_ONLY
    teacher: Any = None
    hard_weight: float = 0.5
    soft_weight: float = 0.5

    def __sklearn_clone__(self):
        """A clone whose teacher is fitted if this one's is: it is frozen, or scikit-learn would unfit it."""
        teacher, given = self.teacher, copy.copy(self)
        if teachers.is_estimator(teacher) and teachers.is_fitted(teacher):
            given.teacher = teacher if isinstance(teacher, FrozenEstimator) else FrozenEstimator(teacher)
        return super(Distilled, given).__sklearn_clone__()

    def _wider(self) -> Perceptron:
        """The teacher in place of None: a net like this one, its hidden layers four times as wide."""
        kind: Any = MLPClassifier if isinstance(self, MLPClassifier) else MLPRegressor
        hidden = [_WIDER * units for units in network.hidden_sizes(self.hidden_layer_sizes)]
        own = {name: getattr(self, name) for name in kind._get_param_names()}
        return kind(**own | {"hidden_layer_sizes": tuple(hidden) or (100,), "warm_start": False})

    def _find_teacher(self, X, y, sample_weight, incremental: bool) -> Any:
        """Make ``teacher_``: the one that was given, or a clone fitted on X and y."""
        if self.hard_weight == self.soft_weight == 0:
            raise ValueError("hard_weight and soft_weight must not both be 0: nothing would be learnt")
        if y is None and self.soft_weight == 0:
            raise ValueError("soft_weight must be > 0 without y: the teacher is all there is to learn from")
        if y is None and self.early_stopping:
            raise ValueError("early_stopping=True needs y: the held-out samples are judged by their labels")
        given = self._wider() if self.teacher is None else self.teacher
        teachers.check_teacher(given)
        if not incremental:
            self.teacher_ = teachers.fitted(given, X, y, sample_weight)
        else:
            before = getattr(self, "teacher_", given)
            classes = getattr(self, "classes_", None)
            self.teacher_ = teachers.fitted_further(given, before, X, y, sample_weight, classes)
        return self.teacher_


@dataclass(eq=False, repr=False)
class DistilledClassifier(Distilled, MLPClassifier):
    """An ``MLPClassifier`` that learns from a teacher's probabilities too: small and fast where it serves.

    The loss of a sample is ``hard_weight CE(y, q) + soft_weight T^2 KL(p_T || q_T)``, p the teacher's probabilities, q
    the net's own, both at temperature T (Hinton, Vinyals and Dean 2015); of two classes, and of each of several labels,
    the same of the answers yes and no.

    Parameters
    ----------
    teacher : an estimator with ``predict_proba``, a minidl model, or a function X -> logits.

        - None: an ``MLPClassifier`` with this one's parameters and hidden layers four times as wide.
        - An estimator that is not fitted: a clone of it is fitted on the same X and y; in a search or a
          cross-validation these are the fold's.
        - A fitted one teaches as it is. ``clone``, and so each search, keeps it as ``FrozenEstimator(teacher)``. It
          must not have seen the samples that a search judges by.
        - A model or a function answers logits, its columns in the order of the sorted classes.

        An estimator is given X as it came, a data frame with its names too. Its columns are found by its ``classes_``.
        Before the logarithm is taken, probabilities are raised to 1 / (n + C) where they are shares of n votes for C
        classes (of a forest, of bagging, of the nearest neighbours), else to 1e-7; those of yes and no are brought to
        [this, 1 - this].
    hard_weight, soft_weight, temperature : of the loss. ``temperature="auto"`` chooses all three on held-out samples,
        labels alone among the candidates, for up to four trainings: see `tuning`.

    Attributes
    ----------
    teacher_ : what has taught. temperature_, hard_weight_, soft_weight_ : the numbers used. Others: ``MLPClassifier``.
    """

    temperature: float | Literal["auto"] = 2.0

    def fit(self, X, y=None, sample_weight=None):
        """Train on X and y; without y, for a fitted teacher, by the teacher's answers alone."""
        return self._fit(X, y, sample_weight)

    @available_if(learns_by_batches)
    def partial_fit(self, X, y, sample_weight=None, classes=None):
        """One epoch on these samples. The teacher is a fitted one, or learns beside by its own ``partial_fit``."""
        self._check_classes(y, classes)
        return self._fit(X, y, sample_weight, incremental=True)

    def _set_classes(self, y, anew: bool) -> None:
        super()._set_classes(y, anew)
        if anew and y.ndim == 1:
            self.classes_ = teachers.classes_of(self.teacher_, self.classes_)

    def _problem(self, X, y, sample_weight, is_first, incremental):
        teacher = self._find_teacher(X, y, sample_weight, incremental)
        if y is None:
            problem, logits = self._unlabelled(X, teacher, sample_weight, is_first)
        else:
            problem = super()._problem(X, y, sample_weight, is_first, incremental)
            labels = problem.outputs if problem.out_activation == "logistic" and problem.outputs > 1 else 0
            logits = teachers.logits_of(teacher, X, problem.samples.x, self.classes_, labels)
        problem = problem._replace(samples=problem.samples._replace(teacher_logits=logits))
        numbers = self.temperature, self.hard_weight if y is not None else 0.0, self.soft_weight
        if self.temperature == "auto":
            numbers = tuning.search(self, problem) if y is not None else tuning.WITHOUT_LABELS
        self.temperature_, self.hard_weight_, self.soft_weight_ = numbers
        loss = TaughtLogLoss if problem.out_activation == "softmax" else TaughtBinaryLogLoss
        return problem._replace(loss=loss(*numbers))

    def _unlabelled(self, X, teacher, sample_weight, is_first: bool) -> tuple[Problem, np.ndarray]:
        """What can be learnt without y, and the teacher's logits; the teacher tells what the classes are."""
        if self.class_weight is not None:
            raise ValueError("class_weight needs y, got y=None")
        given, X = X, validate_data(self, X, **X_OPTIONS, reset=is_first)
        x, labels = checked_x(X, X.dtype), teachers.labels_of(teacher, given)
        logits = teachers.logits_of(teacher, given, x, teachers.classes_of(teacher, None), labels)
        if is_first:
            known = teachers.classes_of(teacher, None)
            self.classes_ = np.arange(max(2, logits.shape[1])) if known is None else known
        elif logits.shape[1] != self.n_outputs_:
            raise ValueError(
                f"teacher must answer for the net's {self.n_outputs_} outputs, got {logits.shape[1]}"
            )
        is_softmax = logits.shape[1] > 2 and not labels
        index = np.full(len(logits), -1) if is_softmax else NO_LABELS
        samples = Samples(x, index, None, None, checked_weight(sample_weight, X))
        out_activation = "softmax" if is_softmax else "logistic"
        return Problem(samples, BinaryLogLoss(), logits.shape[1], out_activation), logits


@dataclass(eq=False, repr=False)
class DistilledRegressor(Distilled, MLPRegressor):
    """An ``MLPRegressor`` that learns from a teacher's answers too.

    Its targets are ``(hard_weight y + soft_weight v) / (hard_weight + soft_weight)``, v the teacher's answers: that is
    where the sum of both squared errors, with these weights, has its minimum, and of both Poisson deviances too.

    Parameters
    ----------
    teacher : as of ``DistilledClassifier``: None (an ``MLPRegressor`` four times as wide), an estimator, a minidl model
        or a function X -> numbers, (N,) or (N, outputs).
    hard_weight, soft_weight : only their ratio counts.

    Attributes
    ----------
    teacher_ : what has taught. Others: ``MLPRegressor``.
    """

    def fit(self, X, y=None, sample_weight=None):
        """Train on X and y; without y, for a fitted teacher, by the teacher's answers alone."""
        return self._fit(X, y, sample_weight)

    @available_if(learns_by_batches)
    def partial_fit(self, X, y, sample_weight=None):
        """One epoch on these samples. The teacher is a fitted one, or learns beside by its own ``partial_fit``."""
        return self._fit(X, y, sample_weight, incremental=True)

    def _problem(self, X, y, sample_weight, is_first, incremental):
        teacher = self._find_teacher(X, y, sample_weight, incremental)
        if y is None:
            checked = validate_data(self, X, **X_OPTIONS, reset=is_first)
            x = checked_x(checked, checked.dtype)
            answers = teachers.numbers_of(teacher, X, x, None if is_first else self.n_outputs_)
            return problem_of_numbers(self.loss, x, answers, checked_weight(sample_weight, checked))
        problem = super()._problem(X, y, sample_weight, is_first, incremental)
        x, targets = problem.samples.x, problem.samples.targets
        answers = teachers.numbers_of(teacher, X, x, problem.outputs)
        mixed = self.hard_weight * targets + self.soft_weight * answers
        mixed /= self.hard_weight + self.soft_weight
        return problem_of_numbers(self.loss, x, mixed, problem.samples.weight)
