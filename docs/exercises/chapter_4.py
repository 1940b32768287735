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


# 3. Does distillation at T = 4 with weights 0.1 and 0.9 pay? "pays" or "harms" is a difference to labels alone of more
# than two standard errors over five seeds, else "neither". In brackets: the test errors of the teacher, and of the
# student from labels alone.
DOES_IT_PAY = {
    "digits, 6,000, taught by MLP": None,  # (57.6, 108.2; it saw shifted digits)
    "scikit-learn's digits, taught by forest": None,  # (19.2, 25.6)
    "wine, taught by MLP": None,  # (1.2, 3.2 of 71 test samples)
    "clouds, clean, taught by boosting": None,  # (1,257.8, 1,187.6)
    "clouds, 1:50, taught by boosting": None,  # (110.6, 80.8; two classes, one sample in fifty of the second)
}
