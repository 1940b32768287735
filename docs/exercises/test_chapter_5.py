"""Judges the answers to chapter 5."""

import numpy as np
import pytest

from minidl.ladder.rungs import RUNGS


def test_exercise_1_what_rungs_wait_for(answers):
    waits = {rung.name: rung.waits.__name__.split("_of_")[0].replace("_", " ") for rung in RUNGS[:6]}
    assert answers.WAITS_FOR == waits
    expected = [min(1, numbers / (8 * 2 * 4)) for numbers in (1, 8, 32, 96)]  # of lanes x a cycle x latency
    assert pytest.approx(expected, rel=0.05) == list(answers.PARTS_OF_THE_CEILING)


def test_exercise_2_bytes_and_sets(answers):
    assert answers.BYTES_A_TERM_EIGHT_ROWS == 4 * (8 + 1 + 1) / 8
    for n, found in ((512, answers.SETS_512), (1024, answers.SETS_1024), (800, answers.SETS_800)):
        assert found == len({4 * n * row // 64 % 64 for row in range(n)})


def test_exercise_3_a_product_by_tiles(answers):
    rng = np.random.default_rng(0)
    for m, k, n in ((12, 40, 32), (13, 37, 21), (1, 5, 1)):
        a, b = (rng.normal(size=shape).astype(np.float32) for shape in ((m, k), (k, n)))
        c = np.zeros((m, n), np.float32)
        for i in range(m):
            for j in range(n):
                for p in range(k):
                    c[i, j] += a[i, p] * b[p, j]
        assert np.array_equal(answers.by_tiles(a, b, height=6, width=16), c)
