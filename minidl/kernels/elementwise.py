"""Elementwise passes over an array: rescale and copy. (The search for NaN and infinity is in `infer`.)"""

from .jit import jit


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
