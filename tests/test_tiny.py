"""`minidl.tiny`, the page of plain NumPy, computes what the engine computes: the same losses and parameters.

Both start from the same float64 weights and take the same batches for an epoch, the last one short. They add in
another order, so they agree to rounding, not to the bit.
"""

import ast
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import minidl
from minidl import tiny

SIZES, N = [12, 16, 8, 5], 7 * tiny.BATCH_SIZE + 9
# In place of a generator: it does not shuffle, as fit(shuffle=False).
IN_ORDER = SimpleNamespace(permutation=np.arange)
TINY = {"sgd": lambda params: tiny.sgd(params, 0.1), "adam": lambda params: tiny.adam(params, 0.01)}
ORIGINAL = tiny.distillation_loss
ENGINE = {"sgd": lambda: minidl.SGD(0.1), "adam": lambda: minidl.Adam(0.01)}


def data(distilled: bool) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    y = np.eye(SIZES[-1])[rng.integers(0, SIZES[-1], N)]
    teacher_logits = 6 * rng.normal(size=(N, SIZES[-1]))
    return [rng.normal(size=(N, SIZES[0])), y, teacher_logits][: 3 if distilled else 2]


def by_tiny(optimizer: str, distilled: bool) -> tuple[list[float], np.ndarray]:
    """Each step's loss, and all parameters after the epoch in one vector."""
    params = tiny.make_params(SIZES, np.random.default_rng(3), np.float64)
    losses = tiny.train(params, TINY[optimizer](params), 1, IN_ORDER, *data(distilled))
    return losses, np.concatenate([param.ravel() for param in params])


def by_the_engine(optimizer: str, distilled: bool) -> tuple[list[float], np.ndarray]:
    layers = [minidl.Dense(units, "relu") for units in SIZES[1:-1]]
    model = minidl.Sequential(
        [minidl.Input((SIZES[0],)), *layers, minidl.Dense(SIZES[-1], "softmax")], dtype="float64"
    )
    model.set_weights(tiny.make_params(SIZES, np.random.default_rng(3), np.float64))
    model.compile(optimizer=ENGINE[optimizer](), loss="categorical_crossentropy")
    x, y, *teacher_logits = data(distilled)
    teaching = {}
    if distilled:
        teaching = dict(target_model=teacher_logits[0], temperature=tiny.TEMPERATURE)
        teaching |= dict(hard_weight=tiny.HARD_WEIGHT, soft_weight=tiny.SOFT_WEIGHT)
    means = []  # Keras's batch logs are running means over the epoch's samples
    watch = minidl.LambdaCallback(on_train_batch_end=lambda batch, logs: means.append(logs["loss"]))
    settings = dict(batch_size=tiny.BATCH_SIZE, epochs=1, shuffle=False, verbose=0, callbacks=[watch])
    model.fit(x, y, **settings, **teaching)
    return means, model.params.copy()


def running_means(losses: list[float]) -> np.ndarray:
    sizes = np.minimum(tiny.BATCH_SIZE, N - tiny.BATCH_SIZE * np.arange(len(losses)))
    return np.cumsum(losses * sizes) / np.cumsum(sizes)


def agree(optimizer: str, distilled: bool) -> bool:
    losses, params = by_tiny(optimizer, distilled)
    means, engine_params = by_the_engine(optimizer, distilled)
    assert len(losses) == len(means) == 8
    return np.allclose(running_means(losses), means, rtol=1e-11, atol=0) and np.allclose(
        params, engine_params, rtol=1e-9, atol=1e-11
    )


@pytest.mark.parametrize("distilled", [False, True], ids=["plain", "distilled"])
@pytest.mark.parametrize("optimizer", TINY)
def test_same_losses_and_parameters_as_the_engine(optimizer, distilled):
    assert agree(optimizer, distilled)


def without_t_squared(logits, y, teacher_logits):
    hard_loss, hard_dlogits = (tiny.HARD_WEIGHT * part for part in tiny.crossentropy(logits, y))
    loss, dlogits = ORIGINAL(logits, y, teacher_logits)
    scale = tiny.TEMPERATURE**-2
    return hard_loss + scale * (loss - hard_loss), hard_dlogits + scale * (dlogits - hard_dlogits)


def gradient_of_another_temperature(logits, y, teacher_logits):
    loss, _ = ORIGINAL(logits, y, teacher_logits)
    return loss, ORIGINAL(logits, y, teacher_logits, 3.9)[1]


@pytest.mark.parametrize("wrong", [without_t_squared, gradient_of_another_temperature])
def test_a_wrong_distillation_loss_is_caught(monkeypatch, wrong):
    monkeypatch.setattr(tiny, "distillation_loss", wrong)
    assert not agree("adam", distilled=True)


def test_another_epsilon_of_adam_is_caught(monkeypatch):
    monkeypatch.setitem(TINY, "adam", lambda params: tiny.adam(params, 0.01, epsilon=1e-5))
    assert not agree("adam", distilled=False)


def test_gradient_check(monkeypatch):
    assert tiny.check_gradients() < 1e-7
    monkeypatch.setattr(tiny, "relu_backward", lambda dout, out: dout)
    assert tiny.check_gradients() > 1e-3


def test_the_value_and_the_gradient_are_of_one_loss(monkeypatch):
    """A factor of T in the gradient alone is seen by the gradient check; one in both is not, see above."""
    monkeypatch.setattr(tiny, "distillation_loss", gradient_of_another_temperature)
    assert tiny.check_gradients() > 1e-4


def test_one_page_that_needs_nothing_but_numpy():
    source = Path(tiny.__file__).read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 200
    imported = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.Import, ast.ImportFrom))
    ]
    assert sorted(ast.unparse(node) for node in imported) == [
        "import numpy as np",
        "import os",
        "import subprocess",
        "import sys",
    ]


@pytest.mark.parametrize("given", [{}, {"OMP_NUM_THREADS": "2"}], ids=["unset", "set"])
def test_products_of_one_thread_unless_the_user_says_otherwise(given):
    """BLAS threads spin while they wait for each other: beside two busy processes the page took minutes."""
    source = Path(tiny.__file__).read_text(encoding="utf-8")
    begin = source.index('if __name__ == "__main__"')
    called, ran = [], []
    begun_again = SimpleNamespace(
        run=lambda command, env, check: called.append((command, env["OMP_NUM_THREADS"]))
    )
    names = dict(
        os=SimpleNamespace(environ=given), subprocess=begun_again, sys=sys, main=lambda: ran.append(1)
    )
    exec(source[begin:], {**names, "__name__": "__main__", "__file__": "tiny.py"})
    again = [([sys.executable, "tiny.py"], "1")]
    assert (called, ran) == (([], [1]) if given else (again, []))


def test_it_runs(monkeypatch, capsys):
    """``python -m minidl.tiny``, with its epochs cut to a few steps."""
    train = tiny.train
    monkeypatch.setattr(
        tiny,
        "train",
        lambda params, update, epochs, rng, *data: train(params, update, 1, rng, *(a[:640] for a in data)),
    )
    tiny.main()
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == 9 and shown[0].startswith("Gradients:")
    errors = [int(line.split(" errors")[0].split()[-1]) for line in shown[1:-1]]
    assert f"{np.mean(errors[1:4]):.1f} alone, {np.mean(errors[4:]):.1f} from a teacher" in shown[-1]
