"""A derivative against its central difference, one entry at a time: for `gradcheck` and losses of the user's own."""

from collections.abc import Callable


def difference(value: Callable[[], float], base: float, array, index, got: float, tolerance):
    """(expected, error, allowed) of the entry of ``array`` at ``index``, which is moved and put back.

    ``base`` is ``value()``, a function of the array; ``got`` the derivative to be judged; ``tolerance`` (epsilon, rtol,
    atol). An entry that fails is tried again with smaller steps, for a kink may lie within the first; exactly at a
    kink, any value between the slopes on either side is right.
    """
    kept, (epsilon, rtol, atol) = array[index], tolerance
    for shrink in (1, 10, 100):
        h = epsilon * max(1.0, abs(kept)) / shrink
        high, low = kept + h, kept - h
        array[index] = high
        above = value()
        array[index] = low
        below = value()
        array[index] = kept
        expected = (above - below) / (high - low)
        error = abs(got - expected)
        allowed = atol * max(1.0, abs(base)) + rtol * abs(expected)
        if error <= allowed:
            return expected, error, allowed
    left, right = (base - below) / h, (above - base) / h
    smooth = 1e-4 * (abs(left) + abs(right)) + 1e-6 * max(1.0, abs(base))
    if abs(right - left) > smooth and min(left, right) - allowed <= got <= max(left, right) + allowed:
        return expected, 0.0, allowed
    return expected, error, allowed
