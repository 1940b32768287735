"""What a batch's loss is, of its rows' losses: their weighted sum divided by the number of rows, or by something else.

That something is a factor on the weights of the batch: rows / divisor. It is 1 for the mean.
"""

import numpy as np

from .jit import jit

ROWS, COUNTED_ROWS, WEIGHTS, ONE = range(4)
"""Divisors: the number of rows, of rows whose label is not ignored, the sum of their weights, 1."""


@jit
def batch_factor(divisor, ignored, labels, weight, order, first, rows):
    """rows / divisor of the batch order[first : first + rows], 0 where the divisor is 0, as in Keras.

    An empty order is the identity. Rows whose label is ``ignored`` do not count. Without weights each is 1.
    """
    if divisor == ROWS:
        return 1.0
    if divisor == ONE:
        return np.float64(rows)
    counted = 0.0
    for i in range(first, first + rows):
        row = order[i] if order.size > 0 else i
        if labels.size == 0 or labels[row] != ignored:
            is_one = divisor == COUNTED_ROWS or weight.size == 0
            counted += 1.0 if is_one else weight[row]
    return rows / counted if counted > 0 else 0.0


@jit
def penalty_factor(penalty_rows, divisor, ignored, labels, weight, order, first, rows):
    """By what the regularizers' penalty on this batch is multiplied: 1, unless ``penalty_rows`` is set.

    Then it is penalty_rows / divisor of the batch, 0 where that is 0: see `Loss.penalty_rows`.
    """
    if penalty_rows == 0.0:
        return 1.0
    return penalty_rows / rows * batch_factor(divisor, ignored, labels, weight, order, first, rows)


@jit
def multiply_weights(out, divisor, ignored, labels, weight, order, batch_size):
    """out[i] = weight[i] times the `batch_factor` of its batch. Batches follow one another; ``order`` is empty."""
    for first in range(0, out.size, batch_size):
        rows = min(batch_size, out.size - first)
        factor = batch_factor(divisor, ignored, labels, weight, order, first, rows)
        for i in range(first, first + rows):
            out[i] = (weight[i] if weight.size > 0 else 1.0) * factor
