"""Solutions of chapter 5."""

import numpy as np

WAITS_FOR = {
    "plain Python": "interpreter",
    "naive Numba": "latency",
    "loops reordered": "bytes",
    "blocked": "bytes",
    "SIMD micro-kernel": "far rows",
    "packed": "lanes times clock",
}

# Latency times rate is 4 x 2 = 8 vectors, 64 numbers, that must be under way.
PARTS_OF_THE_CEILING = (1 / 64, 1 / 8, 1 / 2, 1)

BYTES_A_TERM_EIGHT_ROWS = 5.0  # eight loads of b, one load and one store of c, for eight terms
SETS_512 = 2  # 2,048 bytes apart: two rows in each 4,096 bytes of sets
SETS_1024 = 1  # 4,096 bytes apart
SETS_800 = 32  # 3,200 bytes apart, 50 lines: every second set


def by_tiles(a, b, height, width):
    (m, k), n = a.shape, b.shape[1]
    c = np.empty((m, n), a.dtype)
    for i in range(0, m, height):
        for j in range(0, n, width):
            rows, columns = a[i : i + height], b[:, j : j + width]
            tile = np.zeros((rows.shape[0], columns.shape[1]), a.dtype)
            for p in range(k):
                tile += np.outer(rows[:, p], columns[p])
            c[i : i + height, j : j + width] = tile
    return c
