"""Your answers to chapter 6."""

# 1. The bytes of parameters, gradients and Adam's m and v of 784-64-64-10 in float32.
BYTES_TO_TRAIN = None

# 2. How often threads meet in a step, where each keeps to its own rows forward and backward.
MEETINGS_A_STEP = None


def lay_out(shapes):
    """1. (vector, views): one float32 vector of zeros for arrays of all these shapes, and a view of it for each."""
    raise NotImplementedError


def share_of_dweight(dweight, x, dout, thread, threads):
    """2. Write ``thread``'s part of x^T dout to dweight (I, O), and nothing else.

    x is (B, I) and dout (B, O). All threads together write all of it, each about as much. Each number has the bits of
    ``for row in range(B): dweight[i, o] += x[row, i] * dout[row, o]``, begun at 0, for any number of threads.
    """
    raise NotImplementedError


def order(seed, epoch, count):
    """3. 0 ... count - 1 in a random order that depends on seed and epoch alone, and differs for each pair of them."""
    raise NotImplementedError
