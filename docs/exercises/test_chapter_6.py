"""Judges the answers to chapter 6."""

import inspect

import numpy as np

import minidl
from minidl.kernels import network


def test_exercise_1_one_vector(answers):
    sizes = [minidl.Dense(64, "relu"), minidl.Dense(64, "relu"), minidl.Dense(10)]
    model = minidl.Sequential([minidl.Input((784,)), *sizes], seed=0)
    assert answers.BYTES_TO_TRAIN == model.params.nbytes + model.grads.nbytes + 2 * model.params.nbytes
    vector, views = answers.lay_out([(3, 4), (4,), (4, 2), (2,)])
    assert vector.shape == (26,) and [view.shape for view in views] == [(3, 4), (4,), (4, 2), (2,)]
    vector[:] = np.arange(26)
    views[1][...] = -1  # a view writes to the vector
    assert views[0].ravel().tolist() == list(range(12)) and vector[12:16].tolist() == [-1] * 4
    assert views[2].ravel().tolist() == list(range(16, 24)) and views[3].tolist() == [24, 25]


def test_exercise_2_the_same_bits_for_any_number_of_threads(answers):
    # the compiled loop's own step, below `while`
    step = inspect.getsource(network._train_together).split("while ")[1].split("restore_denormals")[0]
    assert answers.MEETINGS_A_STEP == step.count("meet(team)")
    rng = np.random.default_rng(0)
    x, dout = (rng.normal(size=shape).astype(np.float32) for shape in ((64, 7), (64, 10)))
    expected = np.zeros((7, 10), np.float32)
    for row in range(64):
        expected += np.outer(x[row], dout[row])
    for threads in (1, 2, 3, 4):
        dweight = np.full((7, 10), np.nan, np.float32)
        for thread in range(threads):
            before = np.isnan(dweight).sum()
            answers.share_of_dweight(dweight, x, dout, thread, threads)
            assert before - np.isnan(dweight).sum() <= np.ceil(10 / threads) * 7, (
                "one thread computed too much"
            )
        assert np.array_equal(dweight, expected)


def test_exercise_3_an_order_without_a_state(answers):
    orders = {
        (seed, epoch): list(answers.order(seed, epoch, 50)) for seed in (0, 1, 2) for epoch in (0, 1, 2)
    }
    assert all(sorted(found) == list(range(50)) for found in orders.values())
    assert len({tuple(found) for found in orders.values()}) == 9
    np.random.seed(5)
    for (seed, epoch), found in reversed(orders.items()):
        assert list(answers.order(seed, epoch, 50)) == found
