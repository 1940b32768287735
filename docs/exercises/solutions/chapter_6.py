"""Solutions of chapter 6."""

import numpy as np

BYTES_TO_TRAIN = 4 * 4 * 55_050  # four vectors of four-byte numbers

MEETINGS_A_STEP = 2  # before the weight gradients, and after the update


def lay_out(shapes):
    sizes = [int(np.prod(shape)) for shape in shapes]
    vector, views, at = np.zeros(sum(sizes), np.float32), [], 0
    for shape, size in zip(shapes, sizes, strict=True):
        views.append(vector[at : at + size].reshape(shape))
        at += size
    return vector, views


def share_of_dweight(dweight, x, dout, thread, threads):
    columns = dweight.shape[1]
    mine = slice(
        columns * thread // threads, columns * (thread + 1) // threads
    )  # of the weights, not of the batch
    part = np.zeros_like(dweight[:, mine])
    for row in range(len(x)):
        part += np.outer(x[row], dout[row, mine])
    dweight[:, mine] = part


def order(seed, epoch, count):
    return np.random.default_rng([seed, epoch]).permutation(count)
