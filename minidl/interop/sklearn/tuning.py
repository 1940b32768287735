"""``temperature="auto"``: temperature and weights are chosen on held-out samples, by `minidl.training.tuning`'s rule.

30 % of the samples are held out. Each candidate trains an estimator of the same parameters on the others, and is judged
by the squared distance of its probabilities from the labels (Brier's score).
"""

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state

from ...training.tuning import CANDIDATES, choose
from .objectives import TaughtBinaryLogLoss, TaughtLogLoss

_SHARE = 0.3
_FEWEST = 20  # to hold out: fewer say nothing
WITHOUT_LABELS = CANDIDATES[0][0], 0.0, 1.0


def search(estimator, problem) -> tuple[float, float, float]:
    """Temperature, hard_weight and soft_weight; the first candidate where there are too few samples to judge."""
    samples = problem.samples
    rows, seed = np.arange(len(samples.x)), check_random_state(estimator.random_state).randint(2**31 - 1)
    if _SHARE * len(rows) < _FEWEST:
        return CANDIDATES[0]
    learnt, held = train_test_split(rows, test_size=_SHARE, random_state=seed)
    judged, scores = samples.take(held), []
    wanted = judged.targets if judged.targets is not None else np.eye(problem.outputs)[judged.labels]
    for numbers in CANDIDATES:
        loss = TaughtLogLoss if problem.out_activation == "softmax" else TaughtBinaryLogLoss
        trial = clone(estimator).set_params(random_state=seed, verbose=False, warm_start=False)
        trial.classes_ = estimator.classes_
        trial._train(problem._replace(samples=samples.take(learnt), loss=loss(*numbers)))
        score = ((trial.model_.predict(judged.x) - wanted) ** 2).sum(axis=1)
        scores.append(score * judged.weight if judged.weight.size else score)
    return CANDIDATES[choose(scores)]
