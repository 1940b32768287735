"""What a student learns from a teacher: one class of many, answers of yes and no, or numbers."""

import math
from typing import NamedTuple

import numpy as np

from .. import losses
from ..losses.softmax import looks_like_probabilities
from ..validation import check_array


class Task(NamedTuple):
    """A kind of answer, and what goes with it where nothing else is asked for."""

    name: str
    loss: type[losses.DistillationLoss]
    metric: str  # of training

    def metrics(self, model) -> list[str]:
        """Those of training; none where sigmoids are left to the loss, for 0.5 is a probability."""
        return [] if self.name == "binary" and model.final_activation != "sigmoid" else [self.metric]

    def answers(self, model, x) -> np.ndarray:
        """The model's answers (N, C) to samples: logits, or the outputs of a regression."""
        if self.name == "regression":
            return model.predict(x).reshape(len(x), -1)
        return model.predict_logits(x)

    def loss_of(self, settings: dict) -> losses.DistillationLoss:
        """The task's loss with this temperature and these weights, as far as they are given."""
        if "temperature" in settings and self.name == "regression":
            given = settings["temperature"]
            raise ValueError(f"temperature softens probabilities; a regression has none, got {given}")
        return self.loss(**settings)

    def loss_for(self, y, settings: dict) -> losses.DistillationLoss:
        """As `loss_of`; where y is None, one that by default needs no labels."""
        weights = {} if y is not None else {"hard_weight": 0.0, "soft_weight": 1.0}
        return self.loss_of(weights | settings)


TASKS = {
    # what makes answers of logits: see `Loss.fused_activation`
    "softmax": Task("classification", losses.KnowledgeDistillation, "accuracy"),
    "sigmoid": Task("binary", losses.BinaryKnowledgeDistillation, "binary_accuracy"),
    None: Task("regression", losses.RegressionDistillation, "mse"),
}


def task_of(loss: losses.Loss) -> Task:
    """The task that a distillation loss belongs to."""
    return TASKS.get(loss.fused_activation, TASKS["softmax"])


def choose_task(model, y) -> Task:
    """The task of a built student, where no distillation loss says it. The first line that applies counts:

    ===================================  =============================================  ==============
    the student                          y                                              task
    ===================================  =============================================  ==============
    is compiled with a distilling loss   any                                            of that loss
    ends in softmax                      any                                            classification
    ends in sigmoid                      any                                            binary
    is compiled with a loss of logits    any                                            of that loss
    has several outputs                  class indices                                  classification
    is compiled with mse, mae, huber...  any                                            regression
    has several outputs                  None, or rows of probabilities that sum to 1   classification
    has any outputs                      any other                                      regression
    ===================================  =============================================  ==============

    Raises ValueError where the last line would apply and y holds 0 and 1 alone, which may be meant as answers.
    """
    loss, final, outputs = model.loss, model.final_activation, math.prod(model.output_shape)
    if loss is not None and loss.distills:
        return task_of(loss)
    if final in ("softmax", "sigmoid"):
        return TASKS[final]
    if loss is not None and loss.fused_activation is not None:
        return task_of(loss)
    y = None if y is None else check_array("y", y)
    classes = losses.KnowledgeDistillation()
    if outputs > 1 and y is not None and classes.holds_labels(y, outputs):
        return TASKS["softmax"]
    if loss is not None and loss.kind(True) >= 0:  # not one of the user's own
        return TASKS[None]
    if outputs > 1 and (y is None or (y.ndim == 2 and looks_like_probabilities(y))):
        return TASKS["softmax"]
    if y is not None and ((y == 0) | (abs(y) == 1)).all():
        raise ValueError(
            f"student ends in {outputs} output{'s' * (outputs > 1)} without an activation, and y holds 0 and 1 alone: "
            'end with activation="sigmoid" to learn answers of yes or no, or give loss=RegressionDistillation() to '
            "learn the numbers"
        )
    return TASKS[None]
