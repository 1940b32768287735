"""Losses that learn from labels: cross-entropies and the errors used most. Formulas and defaults are Keras 3's.

z are the logits (B, C), q the probabilities ``softmax(z)``, yhat the model's outputs, y the targets. Each formula
is the loss of one sample. The class gives the mean over the batch, the function of its name one loss per sample. Both
run the kernel of that name in ``kernels/supervised.py`` or ``kernels/errors.py``.
"""

from collections.abc import Callable

import numpy as np

from ..registry import function_of
from ..validation import check_array, check_bool, check_float, check_int
from .base import LOSSES, Loss
from .softmax import as_real

CLASS_OF: dict[Callable, type[Loss]] = {}
"""Function for the loss of each sample -> class of that loss; filled by `per_sample`."""


def _loss_of_each_sample(loss: Loss, y_true, y_pred) -> np.ndarray:
    pred, y = as_real("y_pred", y_pred), check_array("y_true", y_true)
    if getattr(loss, "axis", -1) not in (-1, pred.ndim - 1):
        raise ValueError(
            f"axis must be -1 or {pred.ndim - 1}, the last of y_pred {pred.shape}, got {loss.axis}"
        )
    rows = pred.reshape(-1, pred.shape[-1])
    if loss.sparse and y.ndim == pred.ndim and y.shape[-1] == 1:
        y = y[..., 0]
    expected = pred.shape[:-1] if loss.sparse else pred.shape
    if y.shape != expected:
        rule = f"shape {expected} for" if loss.sparse else "the shape of"
        raise ValueError(f"y_true must have {rule} y_pred {pred.shape}, got {y.shape}")
    y = y.reshape(-1) if loss.sparse else y.reshape(rows.shape)
    batch = loss._checked_batch(("y_pred", "y_true"), rows, y, None, None)
    batch.row_scale[:] = 1.0
    return loss._row_losses(batch).astype(pred.dtype).reshape(pred.shape[:-1])


def per_sample(cls: type[Loss]) -> Callable[..., np.ndarray]:
    """``function(y_true, y_pred, ...)`` for the loss of each sample, (..., C) -> (...), with the class's settings."""
    function = function_of(cls, _loss_of_each_sample, leave_out=("reduction", "name"))
    CLASS_OF[function] = cls
    return function


@LOSSES.register()
class CategoricalCrossentropy(Loss):
    """``-sum_i y_i log q_i``, y a row of class probabilities (B, C): one-hot rows, or any others.

    ``label_smoothing`` s replaces y by ``y (1 - s) + s / C``. Without ``from_logits`` the model's outputs are
    probabilities; they are normalised and clipped to [1e-7, 1 - 1e-7]. Gradient by the logits: ``(q - y) / B``.
    """

    fused_activation = "softmax"

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ):
        super().__init__(reduction, name)
        self.from_logits = check_bool("from_logits", from_logits)
        self.label_smoothing = check_float("label_smoothing", label_smoothing, minimum=0, maximum=1)


categorical_crossentropy = per_sample(CategoricalCrossentropy)


def check_ignore_class(ignore_class: int | None) -> int | None:
    """None, or any whole number of 32 bits."""
    return None if ignore_class is None else check_int("ignore_class", ignore_class, -(2**31), 2**31 - 1)


@LOSSES.register()
class SparseCategoricalCrossentropy(Loss):
    """``-log q_y``, y a class index: (B,) or (B, 1).

    A row whose label is ``ignore_class``, any whole number, has loss and gradient 0, and the mean is that of the other
    rows; metrics see it, as in Keras. Otherwise as `CategoricalCrossentropy`.
    """

    fused_activation = "softmax"
    sparse = True

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ):
        super().__init__(reduction, name)
        self.from_logits = check_bool("from_logits", from_logits)
        self.ignore_class = check_ignore_class(ignore_class)


sparse_categorical_crossentropy = per_sample(SparseCategoricalCrossentropy)


@LOSSES.register("bce", "BCE")
class BinaryCrossentropy(CategoricalCrossentropy):
    """Mean over the outputs of ``-[y log o + (1 - y) log(1 - o)]``, ``o = sigmoid(z)``.

    On logits it is exact at any size; probabilities are clipped to [1e-7, 1 - 1e-7]. ``label_smoothing`` s
    replaces y by ``y (1 - s) + s / 2``. Gradient by the logits: ``(o - y) / (B C)``.
    """

    fused_activation = "sigmoid"


binary_crossentropy = per_sample(BinaryCrossentropy)


@LOSSES.register("mse", "MSE")
class MeanSquaredError(Loss):
    """Mean over the outputs of ``(y - yhat)^2``."""


mean_squared_error = per_sample(MeanSquaredError)


@LOSSES.register()
class HalfMeanSquaredError(Loss):
    """``1/2 sum over the outputs of (y - yhat)^2``: over the batch, the textbooks' ``1/(2B) sum``.

    Gradient by the outputs: ``(yhat - y) / B``. Of two vectors, each entry is a sample.
    """

    vector_is_sample = False


half_mean_squared_error = per_sample(HalfMeanSquaredError)


@LOSSES.register("mae", "MAE")
class MeanAbsoluteError(Loss):
    """Mean over the outputs of ``|y - yhat|``; at 0 the gradient is 0."""


mean_absolute_error = per_sample(MeanAbsoluteError)


@LOSSES.register()
class Huber(Loss):
    """Mean over the outputs of ``e^2 / 2`` where ``|e| <= delta``, else ``delta |e| - delta^2 / 2``, e = y - yhat."""

    def __init__(
        self, delta: float = 1.0, reduction: str | None = "sum_over_batch_size", name: str | None = None
    ):
        super().__init__(reduction, name)
        self.delta = check_float("delta", delta, above=0)


huber = per_sample(Huber)


@LOSSES.register("kld", "KLD")
class KLDivergence(Loss):
    """``sum_i y_i log(y_i / q_i)`` on probabilities, both clipped to [1e-7, 1]."""


kl_divergence = per_sample(KLDivergence)
