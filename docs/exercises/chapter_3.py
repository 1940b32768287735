"""Your answers to chapter 3."""

# 1. Adam's steps under a steady gradient, in learning rates, to one decimal (beta_1 0.9, beta_2 0.999).
STEP_1_CORRECTED = None
STEP_10_CORRECTED = None
STEP_1_UNCORRECTED = None
STEP_10_UNCORRECTED = None

# 2. The rate beyond which SGD leaves the minimum of 50 w^2 / 2.
LARGEST_RATE = None
# How far w moves in the end if one gradient is 1 and all later ones are 0, at rate 0.01 and momentum 0.9.
DISTANCE = None

# 3. What is left of a weight of 1 after 1,000 steps of AdamW without gradient, at rate 0.001 and weight_decay 0.1.
LEFT_OF_A_WEIGHT = None


def adam_steps(gradients, rate, corrected):
    """1. What Adam subtracts from a weight at each step, for these gradients of it: as many numbers.

    beta_1 is 0.9, beta_2 0.999, epsilon 1e-7 is added to the root of the uncorrected v.
    """
    raise NotImplementedError


def momentum_steps(gradients, rate, momentum):
    """2. The same of SGD with momentum."""
    raise NotImplementedError


def cosine(step, rate, steps):
    """3. The rate at ``step``: half a cosine from ``rate`` at step 0 to 0 at ``steps``, and 0 after that."""
    raise NotImplementedError
