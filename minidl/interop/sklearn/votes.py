"""The least probability that a classifier can tell of: where it counts votes, what none of them says."""

from typing import Any

from ...teachers.answers import PROBABILITY_FLOOR

_VOTES = {
    "ForestClassifier": lambda forest: len(forest.estimators_),  # random forests and extra trees
    "BaggingClassifier": lambda bagging: len(bagging.estimators_),
    "KNeighborsClassifier": lambda neighbors: neighbors.n_neighbors,
}
"""The number of votes by the name of a class, or of one that it is derived from; no import is needed to know it."""


def least_probability(estimator: Any, classes: int) -> float:
    """What smaller probabilities are raised to: 1 / (n + C) of n votes for C classes, else 1e-7.

    A forest of n trees gives a class without a vote the probability 0. It does not know that: by Laplace's rule of
    succession it has seen 0 of n. Taken for 1e-7, and softened at T = 4, whether one tree or none voted would be a
    factor of 18, and a student would learn little else.
    """
    answering = _who_answers(estimator)
    for kind in type(answering).__mro__:
        if kind.__name__ in _VOTES:
            return 1 / (_VOTES[kind.__name__](answering) + classes)
    return PROBABILITY_FLOOR


def _who_answers(estimator: Any) -> Any:
    """The last step of a pipeline, what a search has found, what is frozen: whoever gives the probabilities."""
    if hasattr(estimator, "steps"):
        return _who_answers(estimator.steps[-1][1])
    if type(estimator).__name__ == "FrozenEstimator":
        return _who_answers(estimator.estimator)
    found = getattr(estimator, "best_estimator_", None)
    return estimator if found is None else _who_answers(found)
