"""Whether an array holds a NaN or an infinity."""

from __future__ import annotations

from .barrier import meet, share, start_together
from .jit import jit
from .vectors import lanes, load, splat, total


@jit
def has_nonfinite(x, size):
    """Whether one of x[:size] is NaN or infinite: v - v is 0 for any other v."""
    width = lanes(x)
    bad, also_bad = splat(x, 0.0), splat(x, 0.0)  # two sums: an addition takes longer than to load a vector
    for at in range(0, size, 2 * width):
        part, next_part = load(x, at, size - at, 0.0), load(x, at + width, size - at - width, 0.0)
        bad, also_bad = bad + (part - part), also_bad + (next_part - next_part)
    one = total(bad + also_bad)
    return one != one


@jit
def search_nonfinite(team, x, found):
    """found[thread] = `has_nonfinite` of this thread's share of a flat x."""
    start_together(team)
    low, high = share(x.size, team, lanes(x))
    found[team.thread] = has_nonfinite(x[low:high], high - low)
    meet(team)
