"""minidl's losses, divided as scikit-learn divides: by the sum of a batch's weights, the penalty included."""

import numpy as np

from ...kernels import reductions
from ...losses import (
    BinaryCrossentropy,
    BinaryKnowledgeDistillation,
    HalfMeanSquaredError,
    KnowledgeDistillation,
    Loss,
    SparseCategoricalCrossentropy,
)


class ByWeight(Loss):
    """Base of the others: a mean by the samples' weights once `penalize` was called, as each fit does."""

    ignored = -(2**62)  # no label: a row without one has its weight, for its teacher
    _penalty_rows = 0.0

    def penalize(self, rows: int) -> None:
        """The net's penalty is meant for batches of so many rows; what is divided by another sum has another share."""
        self._penalty_rows = float(rows)

    @property
    def penalty_rows(self) -> float:  # type: ignore[override]
        return self._penalty_rows

    @property
    def divisor(self) -> int:
        return reductions.WEIGHTS if self._penalty_rows else super().divisor


class LogLoss(ByWeight, SparseCategoricalCrossentropy):
    """Of more than two classes."""


class TaughtLogLoss(ByWeight, KnowledgeDistillation):
    """The same with a teacher."""


class BinaryLogLoss(ByWeight, BinaryCrossentropy):
    """Of two classes."""


class TaughtBinaryLogLoss(ByWeight, BinaryKnowledgeDistillation):
    """Of two classes, or the sum over several labels, with a teacher; with the weights 1 and 0 without one."""


class SquaredError(ByWeight, HalfMeanSquaredError):
    """Half the squared errors, summed over the outputs."""


class PoissonDeviance(ByWeight, Loss):
    """Half the Poisson deviance ``y log(y / o) - y + o`` of outputs ``o = exp(z)``, summed over the outputs.

    Gradient by z: ``(o - y) / B``. It is plain NumPy, so training runs step by step in Python.
    """

    _is_own = True

    def value_and_grad(self, logits, y, sample_weight=None) -> tuple[float, np.ndarray]:
        rates = np.exp(logits)
        log_y = np.log(np.where(y > 0, y, 1.0))
        values = (y * (log_y - logits) - y + rates).sum(axis=1)
        weight = np.ones(len(y)) if sample_weight is None else sample_weight
        share = weight / weight.sum() if weight.any() else weight
        return float(values @ share), (rates - y) * share[:, None]
