"""Losses with a teacher for students that end in sigmoids, and for regression: for all but one class of many.

Each output is a question of its own. z are the student's logits of sigmoids, o its outputs, v the teacher's of the
same kind, y the targets; all are (B, C), and C may be 1. Each formula is the loss of one sample.
"""

import numpy as np

from ..validation import check_array, check_float
from .base import LOSSES
from .distillation import DistillationLoss, Schedule
from .softmax import as_real


class _OfEachOutput(DistillationLoss):
    """On the model's outputs as they come. Any number may be a target, and any numbers a teacher's answer."""

    fused_activation: str | None = None
    sparse = False
    temperature = 1.0  # of those that have none

    def check_teacher(self, argument: str, answers) -> np.ndarray:
        return as_real(argument, check_array(argument, answers, ndim=2))


@LOSSES.register()
class BinaryKnowledgeDistillation(_OfEachOutput):
    """``sum over the outputs of hard_weight BCE(y, o) + soft_weight T^2 KL(p || q)``, for one sigmoid or several.

    ``o = sigmoid(z)``; ``q = sigmoid(z / T)`` and ``p = sigmoid(v / T)``; KL is that of two answers, yes and no:
    ``p log(p / q) + (1 - p) log((1 - p) / (1 - q))``. So an output counts as `KnowledgeDistillation` of the two
    logits (z, 0) does, taught by (v, 0). Both terms are sums over the outputs, not means as in
    `BinaryCrossentropy`, so the weights mean the same for any number of outputs. Hinton, Vinyals and Dean 2015
    (arXiv 1503.02531); T and the weights are by default those of `KnowledgeDistillation`.

    y (B, C), or (B,) for one output: 0 or 1 or between. A row of -1 has no label and only the soft term. y may be
    None where hard_weight is 0.

    Gradient: ``[hard_weight (o - y) + soft_weight T (q - p)] / B``.
    """

    fused_activation = "sigmoid"
    target_limits = (-1.0, 1.0)

    def __init__(
        self,
        temperature: Schedule = 2.0,
        hard_weight: Schedule = 0.5,
        soft_weight: Schedule = 0.5,
        name: str | None = None,
    ):
        super().__init__(name, temperature=temperature, hard_weight=hard_weight, soft_weight=soft_weight)

    def check_y(self, y, shape, rows, dtype, argument="y", of="x") -> tuple:
        """``(labels, targets)``: the targets, and 0 for each row that has a label, -1 for one that has none.

        labels are (0,) where every row has one.
        """
        labels, targets = super().check_y(y, shape, rows, dtype, argument, of)
        if targets is None or targets.min() >= 0:
            return labels, targets
        missing = targets == -1
        bad = ~((targets >= 0) | missing) | (missing != missing[:, :1])
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            raise ValueError(
                f"{argument} must hold rows of numbers in [0, 1], or of -1 alone for a sample without a label, "
                f"got {targets[row, column]} at index ({row}, {column}) of {targets[row]}"
            )
        return np.where(missing[:, 0], -1, 0), targets


@LOSSES.register()
class RegressionDistillation(_OfEachOutput):
    """``hard_weight mean (y - o)^2 + soft_weight mean (v - o)^2``, means over the outputs; there is no temperature.

    The sum has its minimum at the weighted mean of label and teacher. y may be None where hard_weight is 0; no
    number marks a single sample as unlabelled. The soft term is that of Ba and Caruana 2014 (arXiv 1312.6184) on
    outputs that may not be shifted.

    Gradient: ``(2 / C) [hard_weight (o - y) + soft_weight (o - v)] / B``.
    """

    def __init__(self, hard_weight: Schedule = 0.5, soft_weight: Schedule = 0.5, name: str | None = None):
        super().__init__(name, hard_weight=hard_weight, soft_weight=soft_weight)


@LOSSES.register()
class TeacherBoundedRegression(_OfEachOutput):
    """``hard_weight e(o) + soft_weight L_b`` with ``L_b = e(o) if e(o) + margin > e(v) else 0``, e(o) = mean (y - o)^2.

    The teacher's error e(v) is a bound: a student that is better by the margin is not pulled any further, and the
    teacher's outputs are never a target, so a wrong teacher does little harm. At the bound itself L_b jumps. y is
    needed. Chen et al., NIPS 2017, "Learning efficient object detection models with knowledge distillation", who
    take the sum in place of the mean over the outputs, and a smooth L1 as the hard term; soft_weight is their nu,
    0.5, and margin their m, a squared error.

    Gradient: ``(2 / C) (hard_weight + soft_weight [e(o) + margin > e(v)]) (o - y) / B``.
    """

    needs_target = True

    def __init__(
        self,
        margin: float = 0.0,
        hard_weight: Schedule = 1.0,
        soft_weight: Schedule = 0.5,
        name: str | None = None,
    ):
        super().__init__(name, hard_weight=hard_weight, soft_weight=soft_weight)
        self.margin = check_float("margin", margin, minimum=0)

    def labels_missing(self) -> str:
        instead = "loss=RegressionDistillation(hard_weight=0.0, soft_weight=1.0)"
        return f"{self.name} compares errors with the labels; without labels write {instead}"
