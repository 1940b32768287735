"""Solutions of chapter 4."""

import numpy as np

# p of the first class is e^(8/T) / (e^(8/T) + 9): 0.997, 0.451, 0.142; the norm of q - p is (p - 0.1) sqrt(10 / 9)
NORMS_WITHOUT = (0.946, 0.0925, 0.00222)  # divided by T
NORMS_WITH_T_SQUARED = (0.946, 1.48, 0.889)  # times T
SMALL_LOGITS_20_TO_1_WITHOUT = 1 / 400
SMALL_LOGITS_20_TO_1_WITH_T_SQUARED = 1.0


def softmax(z, T):
    e = np.exp((z - z.max(axis=1, keepdims=True)) / T)
    return e / e.sum(axis=1, keepdims=True)


def distillation_gradient(z, y, v, T, hard_weight, soft_weight):
    hard = softmax(z, 1.0) - y
    soft = T * (softmax(z, T) - softmax(v, T))  # T^2, and 1/T of the chain rule
    return (hard_weight * hard + soft_weight * soft) / len(z)


def labels_of_an_ignorant_teacher(y, soft_weight):
    return (1 - soft_weight) * y + soft_weight / y.shape[1]  # smoothed by soft_weight


def gradient_at_large_T(z, v):
    difference = z - v
    return (difference - difference.mean(axis=1, keepdims=True)) / z.size  # centred, over C and B


DOES_IT_PAY = {
    "digits, 6,000, taught by MLP": True,  # it knows shifted digits, which the student never sees
    "digits, 6,000, taught by forest": False,  # it knows no more than the labels, and is worse than smoothed ones
    "scikit-learn's digits, taught by MLP": False,  # it saw what the student sees
    "wine, taught by forest": False,  # so did this one, and two errors of 71 less is all that there is to learn
    "breast cancer, taught by MLP": False,  # a better teacher is not enough
}
