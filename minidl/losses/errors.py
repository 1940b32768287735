"""Errors, margins and angles between outputs and targets. Formulas and defaults are Keras 3's.

yhat are the model's outputs, y the targets, both (B, C). Each formula is the loss of one sample. Both the class and the
function beneath it run the kernel of their name in ``kernels/errors.py``.
"""

from ..validation import blocks, check_choice
from .base import LOSSES, Loss
from .supervised import per_sample


@LOSSES.register()
class LogCosh(Loss):
    """Mean over the outputs of ``log(cosh(yhat - y))``: e^2 / 2 for a small error e, |e| - log 2 for a large one.

    Gradient by the outputs: ``tanh(yhat - y) / (B C)``.
    """


log_cosh = per_sample(LogCosh)


@LOSSES.register("mape", "MAPE")
class MeanAbsolutePercentageError(Loss):
    """Mean over the outputs of ``100 |y - yhat| / max(|y|, 1e-7)``; at y = yhat the gradient is 0."""


mean_absolute_percentage_error = per_sample(MeanAbsolutePercentageError)


@LOSSES.register("msle", "MSLE")
class MeanSquaredLogarithmicError(Loss):
    """Mean over the outputs of ``[log(1 + y) - log(1 + yhat)]^2``, y and yhat at least 1e-7.

    The gradient of an output at or below 1e-7 is 0: let the model end with an activation that is positive.
    """


mean_squared_logarithmic_error = per_sample(MeanSquaredLogarithmicError)


@LOSSES.register()
class Poisson(Loss):
    """Mean over the outputs of ``yhat - y log(yhat + 1e-7)``, for counts y; gradient ``1 - y / (yhat + 1e-7)``.

    It is NaN for an output below 0: let the model end with an activation that is positive, as softplus.
    """


poisson = per_sample(Poisson)


@LOSSES.register()
class Hinge(Loss):
    """Mean over the outputs of ``max(1 - y yhat, 0)``, y -1 or 1. Targets 0 and 1 are taken for -1 and 1.

    At a margin of 0 the gradient is 0. Raises ValueError for targets of which some are 0 and others neither 0 nor 1:
    Keras takes a 0 for -1 in some batches of them, and in others not.
    """

    def check_y(self, y, shape, rows, dtype, argument="y", of="x") -> tuple:
        labels, targets = super().check_y(y, shape, rows, dtype, argument, of)
        if any((block == 0).any() for _, block in blocks(targets)):
            for first, block in blocks(targets):
                others = ((block != 0) & (block != 1)).reshape(len(block), -1)
                if others.any():
                    row = int(others.any(axis=1).argmax())
                    found = block.reshape(len(block), -1)[row][others[row]][0]
                    raise ValueError(
                        f"{argument} must hold -1 and 1, or 0 and 1, got zeros and {found} at index {first + row}"
                    )
        return labels, targets


hinge = per_sample(Hinge)


@LOSSES.register()
class SquaredHinge(Hinge):
    """Mean over the outputs of ``max(1 - y yhat, 0)^2``. Targets are those of `Hinge`."""


squared_hinge = per_sample(SquaredHinge)


@LOSSES.register()
class CategoricalHinge(Loss):
    """``max(max_j (1 - y_j) yhat_j - sum_j y_j yhat_j + 1, 0)``, y a one-hot row, of 0 and 1 or of -1 and 1.

    Of several largest terms the first has the gradient; at a margin of 0 it is 0. Outputs must be (B, C).
    """

    is_of_rows = True


categorical_hinge = per_sample(CategoricalHinge)


@LOSSES.register()
class CosineSimilarity(Loss):
    """``-sum(y yhat) / (|y| |yhat|)``, norms of less than 1e-7 counting as that: -1 for the same direction.

    ``axis``: that of the outputs, -1 or, which is the same, 1. Outputs must be (B, C).
    """

    is_of_rows = True

    def __init__(
        self, axis: int = -1, reduction: str | None = "sum_over_batch_size", name: str | None = None
    ):
        super().__init__(reduction, name)
        self.axis = check_choice("axis", axis, (-1, 1))


cosine_similarity = per_sample(CosineSimilarity)
