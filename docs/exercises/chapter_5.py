"""Your answers to chapter 5."""

# 1. For each rung one of "interpreter", "latency", "bytes", "far rows", "lanes times clock".
WAITS_FOR = None
# WAITS_FOR = {
#     "plain Python": "",
#     "naive Numba": "",
#     "loops reordered": "",
#     "blocked": "",
#     "SIMD micro-kernel": "",
#     "packed": "",
# }

# The part of the ceiling, 0 to 1, that 1 number, 1 vector, 4 vectors and 12 vectors of independent sums can reach:
# 8 lanes, two FMAs a cycle, a latency of four cycles. Four numbers.
PARTS_OF_THE_CEILING = None

# 2. The bytes a term that move between registers and cache, if eight rows of b are taken at a time.
BYTES_A_TERM_EIGHT_ROWS = None
# Into how many of 64 sets, with lines of 64 bytes, the rows of a panel of b (n, n) in float32 fall.
SETS_512 = None
SETS_1024 = None
SETS_800 = None


def by_tiles(a, b, height, width):
    """3. a b, computed tile by tile: a tile (height, width) of c, smaller at the edges, gathers all of its sums first.

    Each number must have the bits of ``for p in range(k): c[i, j] += a[i, p] * b[p, j]``. Two loops over the tiles, one
    over p, and NumPy inside. c has the dtype of a.
    """
    raise NotImplementedError
