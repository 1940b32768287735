"""Focal cross-entropy (Lin et al., ICCV 2017): samples that are known well count less. Formulas, defaults: Keras 3's.

On the logits, where the model ends in the matching softmax or sigmoid or with ``from_logits``, nothing is clipped, and
value and gradient are exact at any size. Each formula is the loss of one sample; kernels are in ``kernels/focal.py``.
"""

from ..validation import check_bool, check_float
from .base import LOSSES
from .supervised import BinaryCrossentropy, CategoricalCrossentropy, per_sample


@LOSSES.register()
class BinaryFocalCrossentropy(BinaryCrossentropy):
    """Mean over the outputs of ``w (1 - p)^gamma c``: c the output's cross-entropy, p = y o + (1 - y) (1 - o).

    w is 1, or with ``apply_class_balancing`` ``alpha y + (1 - alpha) (1 - y)``. ``label_smoothing`` s replaces y by
    ``y (1 - s) + s / 2``. Of probabilities c clips them to [1e-7, 1 - 1e-7]. gamma >= 0; 0 gives the cross-entropy.
    """

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ):
        super().__init__(from_logits, label_smoothing, reduction, name)
        self.apply_class_balancing = check_bool("apply_class_balancing", apply_class_balancing)
        self.alpha = check_float("alpha", alpha, minimum=0, maximum=1)
        self.gamma = check_float("gamma", gamma, minimum=0)


binary_focal_crossentropy = per_sample(BinaryFocalCrossentropy)


@LOSSES.register()
class CategoricalFocalCrossentropy(CategoricalCrossentropy):
    """``-alpha sum_i y_i (1 - q_i)^gamma log q_i``, y a row of class probabilities (B, C).

    ``label_smoothing`` s replaces y by ``y (1 - s) + s / C``. Of probabilities, these are normalised and clipped to
    [1e-7, 1 - 1e-7]. gamma >= 0. alpha is one number >= 0; a weight for each class is fit's class_weight.
    """

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = None,
    ):
        super().__init__(from_logits, label_smoothing, reduction, name)
        self.alpha = check_float("alpha", alpha, minimum=0)
        self.gamma = check_float("gamma", gamma, minimum=0)


categorical_focal_crossentropy = per_sample(CategoricalFocalCrossentropy)
