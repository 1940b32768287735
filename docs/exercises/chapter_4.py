"""Your answers to chapter 4."""

# 1. A batch of one row, ten classes, a student with equal logits, a teacher with one logit of 8 and nine of 0. The norm
# of the soft term's gradient on the logits at T = 1, 4 and 20, soft_weight 1: three numbers, to 3 %.
NORMS_WITHOUT = None
NORMS_WITH_T_SQUARED = None
# The norm at T = 20 over that at T = 1, where all logits are far below 1.
SMALL_LOGITS_20_TO_1_WITHOUT = None
SMALL_LOGITS_20_TO_1_WITH_T_SQUARED = None


def distillation_gradient(z, y, v, T, hard_weight, soft_weight):
    """2. The gradient by z of hard_weight CE(y, q) + soft_weight T^2 KL(p || q), the mean over the rows.

    z, y, v: (B, C), the student's logits, the labels as rows of 0 and 1, the teacher's logits.
    """
    raise NotImplementedError


def labels_of_an_ignorant_teacher(y, soft_weight):
    """2. Labels (B, C) whose cross-entropy has the gradient of distillation from equal logits at T = 1.

    The weights are 1 - soft_weight and soft_weight.
    """
    raise NotImplementedError


def gradient_at_large_T(z, v):
    """2. What the gradient of T^2 KL(p || q), the mean over the rows, tends to as T grows."""
    raise NotImplementedError


# 3. Does distillation at T = 4 with weights 0.1 and 0.9 pay? True if it saves more than two standard errors over five
# seeds beside the better of labels alone and smoothed labels, else False. In brackets: the test errors of the teacher,
# from labels alone, and from smoothed labels.
DOES_IT_PAY = {
    "digits, 6,000, taught by MLP": None,  # (57.6, 108.2, 82.6; it saw shifted digits)
    "digits, 6,000, taught by forest": None,  # (105.4, 108.2, 82.6)
    "scikit-learn's digits, taught by MLP": None,  # (21.2, 25.6, 21.4)
    "wine, taught by forest": None,  # (0.8, 3.2, 3.0 of 71 test samples)
    "breast cancer, taught by MLP": None,  # (5.2, 6.6, 6.8 of 228 test samples)
}
