"""Single passes over an array: rescale, copy, and a search for NaN and infinity."""

from .barrier import meet, share, start_together
from .jit import jit
from .vectors import lanes, load, splat, total


@jit
def rescale(out, x, scale, offset):
    """out = x * scale + offset. May run in place. Backward: ``rescale(dx, dout, scale, 0.0)``."""
    a, b = x.dtype.type(scale), x.dtype.type(offset)
    flat_out, flat_x = out.reshape(out.size), x.reshape(x.size)
    # Two loops: LLVM does not vectorise one whose input and output may overlap in part.
    if out is x:
        for i in range(flat_out.size):
            flat_out[i] = flat_out[i] * a + b
    else:
        for i in range(flat_out.size):
            flat_out[i] = flat_x[i] * a + b


@jit
def copy(out, x):
    """out = x, equal shapes."""
    flat_out, flat_x = out.reshape(out.size), x.reshape(x.size)
    for i in range(flat_out.size):
        flat_out[i] = flat_x[i]


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
