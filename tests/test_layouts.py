"""Arrays of any layout in memory give the same results, unchanged."""

import sys

import numpy as np
import pytest
from numba.core.registry import CPUDispatcher
from small_run import BATCH, CLASSES, SAMPLES, TEACHER, X, Y, fit, fractions, new_model

import minidl
from minidl.kernels import threads


def read_only(array, tmp_path):
    array = array.copy()
    array.flags.writeable = False
    return array


def memory_mapped(array, tmp_path):
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.npy"
    np.save(path, array)
    return np.load(path, mmap_mode="r")


def misaligned(array, tmp_path):
    raw = np.zeros(array.nbytes + 1, np.uint8)
    raw[1:] = np.frombuffer(array.tobytes(), np.uint8)
    return raw[1:].view(array.dtype).reshape(array.shape)


LAYOUTS = {
    "strided": lambda array, tmp_path: (
        np.repeat(np.repeat(array, 2, 0), 3, -1)[::2, ..., ::3]
        if array.ndim > 1
        else np.repeat(array, 2)[::2]
    ),
    "backwards": lambda array, tmp_path: array[::-1].copy()[::-1],
    "fortran": lambda array, tmp_path: np.asfortranarray(array),
    "byte-swapped": lambda array, tmp_path: array.astype(array.dtype.newbyteorder()),
    "broadcast": lambda array, tmp_path: np.lib.stride_tricks.as_strided(array, array.shape, array.strides),
    "read-only": read_only,
    "misaligned": misaligned,
    "memory-mapped": memory_mapped,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_results(layout, tmp_path, monkeypatch):
    def convert(array):
        changed = LAYOUTS[layout](array, tmp_path)
        assert np.array_equal(changed, array)
        return changed

    weight = np.abs(fractions(SAMPLES)).astype("f8")
    one_hot = np.eye(CLASSES, dtype="f4")[Y]
    kernels = [
        kernel
        for name, module in sys.modules.items()
        if name.startswith("minidl.kernels")
        for kernel in vars(module).values()
        if isinstance(kernel, CPUDispatcher)
    ]
    results, compiled = [], []
    # the first round compiles; on one thread, since their number depends on how soon a call follows another
    monkeypatch.setattr(threads, "_num_threads", 1)
    for change in (np.asarray, np.asarray, convert):
        x, y, rows, teacher, weights = map(change, (X, Y, one_hot, TEACHER, weight))
        before = [array.tobytes() for array in (x, y, rows, teacher, weights)]
        model = new_model()
        history = fit(model, epochs=1, sample_weight=weights).history
        history |= model.fit(x, y, batch_size=BATCH, verbose=0, sample_weight=weights).history
        model.fit(x, y, batch_size=BATCH, verbose=0, target_model=teacher, validation_data=(x, y, weights))
        model.compile("sgd", "categorical_crossentropy")
        model.fit(x, rows, batch_size=BATCH, verbose=0)
        model.set_weights([change(view) for view in model.get_weights()])
        values = [model.params, model.predict(x), model.predict_logits(x), model.evaluate(x, rows, verbose=0)]
        values += [minidl.matmul(x, teacher, transpose_a=True), minidl.softmax(teacher, 2.0)]
        values += [minidl.losses.KnowledgeDistillation().value_and_grad(rows, y, teacher)[1]]
        values += [minidl.losses.MeanSquaredError()(rows, x[:, :CLASSES])]
        values += [model.forward(x), model.train_on_batch(x, rows, weights), model.params.copy()]
        assert [array.tobytes() for array in (x, y, rows, teacher, weights)] == before
        results.append((history, values))
        compiled.append(sum(len(kernel.signatures) for kernel in kernels))
    assert compiled[1] == compiled[2]  # one machine code serves them all
    assert results[1][0] == results[2][0]
    for found, right in zip(results[2][1], results[1][1], strict=True):
        assert np.array_equal(found, right)


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.fit(X[:0], Y[:0], verbose=0),
        lambda model: model.fit(X[:, :0], Y, verbose=0),
        lambda model: model.predict(X[:0]),
        lambda model: model.evaluate(X[:0], Y[:0], verbose=0),
        lambda model: model.train_on_batch(X[:0], Y[:0]),
    ],
)
def test_nothing_to_work_on_is_refused(call):
    model = new_model()
    before = model.params.copy()
    with pytest.raises(ValueError, match="x must"):
        call(model)
    assert np.array_equal(model.params, before) and model.optimizer.iterations == 0


def test_products_of_nothing_are_zero():
    assert minidl.matmul(np.ones((0, 3)), np.ones((3, 2))).shape == (0, 2)
    assert (minidl.matmul(np.ones((4, 0)), np.ones((0, 2))) == 0).all()
