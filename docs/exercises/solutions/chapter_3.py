"""Solutions of chapter 3."""

import math

STEP_1_CORRECTED = 1.0
STEP_10_CORRECTED = 1.0
STEP_1_UNCORRECTED = 3.2  # 0.1 / sqrt(0.001)
STEP_10_UNCORRECTED = 6.5  # (1 - 0.9^10) / sqrt(1 - 0.999^10)

LARGEST_RATE = 0.04  # 2 / 50
DISTANCE = 0.1  # 0.01 (1 + 0.9 + 0.81 + ...)

LEFT_OF_A_WEIGHT = 0.905  # (1 - 0.0001)^1000, about exp(-0.1)


def adam_steps(gradients, rate, corrected):
    m = v = 0.0
    steps = []
    for t, g in enumerate(gradients, 1):
        m += (1 - 0.9) * (g - m)
        v += (1 - 0.999) * (g * g - v)
        correction = math.sqrt(1 - 0.999**t) / (1 - 0.9**t) if corrected else 1.0
        steps.append(rate * correction * m / (math.sqrt(v) + 1e-7))
    return steps


def momentum_steps(gradients, rate, momentum):
    u, steps = 0.0, []
    for g in gradients:
        u = momentum * u - rate * g
        steps.append(-u)
    return steps


def cosine(step, rate, steps):
    return rate * (1 + math.cos(math.pi * min(step / steps, 1))) / 2
