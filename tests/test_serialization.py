"""Files: what is saved comes back to the bit, a crash loses nothing, and no bytes can do harm."""

import errno
import io
import json
import os
import pickle
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
import zipfile
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from small_run import exit_code, forked, wait_for

from minidl import initializers, losses, metrics, optimizers
from minidl.callbacks import ModelCheckpoint
from minidl.constraints import MaxNorm
from minidl.layers import (
    Activation,
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    Input,
    Layer,
    LeakyReLU,
    RandomTranslation,
    ReLU,
    Rescaling,
    Softmax,
)
from minidl.metrics import TopKCategoricalAccuracy
from minidl.models import Sequential, clone_model, load_model
from minidl.optimizers.schedules import CosineDecay
from minidl.regularizers import L1L2


def make(optimizer="adam", dtype="float32", compiled=True):
    layers = [
        Input((4, 4)),
        RandomTranslation(0.25, 0.25),
        Rescaling(0.5, -0.1),
        Flatten(),
        GaussianNoise(0.1),
        Dense(6, "relu", kernel_regularizer=L1L2(1e-3, 1e-2), kernel_constraint=MaxNorm(2.0)),
        Dropout(0.3),
        LeakyReLU(0.1),
        ReLU(),
        Dense(5, "gelu", use_bias=False, kernel_initializer="he_normal"),
        Activation("tanh"),
        Dense(3),
        Softmax(),
    ]
    model = Sequential(layers, name="pupil", seed=3, dtype=dtype)
    if compiled:
        model.compile(
            optimizer, "sparse_categorical_crossentropy", ["accuracy", TopKCategoricalAccuracy(2, "top")][:1]
        )
    return model


def data(rows=8):
    rng = np.random.default_rng(1)
    return rng.normal(size=(rows, 4, 4)), rng.integers(0, 3, rows)


def trained(**kwargs):
    model = make(**kwargs)
    for _ in range(3):
        model.train_on_batch(*data())
    model.epoch = 4
    return model


def small(path, steps=1):
    """A short file, for tests that read it thousands of times."""
    model = Sequential([Input((2,)), Dense(2, "relu"), Dense(2, "softmax")], name="small", seed=0)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    for _ in range(steps):
        model.train_on_batch(np.eye(2), [0, 1])
    model.save(path)
    return model


# -- round trips -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "optimizer",
    [
        "sgd",
        optimizers.SGD(0.05, momentum=0.9, nesterov=True),
        optimizers.RMSprop(0.01, centered=True, momentum=0.5),
        optimizers.Adam(CosineDecay(0.01, 50), amsgrad=True, global_clipnorm=1.0),
        optimizers.AdamW(clipvalue=0.5),
    ],
    ids=lambda optimizer: getattr(optimizer, "name", optimizer),
)
def test_a_loaded_model_goes_on_to_the_same_bits(tmp_path, optimizer, dtype):
    if not isinstance(optimizer, str):
        optimizer = type(optimizer).from_config(optimizer.get_config())
    model = trained(optimizer=optimizer, dtype=dtype)
    path = tmp_path / "model.npz"
    model.save(path)
    loaded = load_model(path)
    assert (loaded.name, loaded.seed, loaded.epoch, loaded.dtype) == ("pupil", 3, 4, np.dtype(dtype))
    assert loaded.get_config() == model.get_config()
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert loaded.optimizer.iterations == 3
    assert [m.get_config() for m in loaded.metrics] == [m.get_config() for m in model.metrics]
    np.testing.assert_array_equal(loaded.params, model.params)
    for _ in range(3):
        assert loaded.train_on_batch(*data()) == model.train_on_batch(*data())
    np.testing.assert_array_equal(loaded.params, model.params)
    # and the state does matter
    fresh = load_model(path)
    fresh.draw_epoch = 5
    for _ in range(3):
        fresh.train_on_batch(*data())
    assert not np.array_equal(fresh.params, model.params)


@pytest.mark.parametrize(
    "loss",
    [
        losses.CategoricalCrossentropy(),
        losses.MeanSquaredError(),
        losses.KnowledgeDistillation(temperature=2.5, hard_weight=0.3, soft_weight=0.7),
    ],
    ids=lambda loss: loss.name,
)
def test_losses_come_back(tmp_path, loss):
    model = make(compiled=False)
    model.compile("sgd", loss, TopKCategoricalAccuracy(k=2, name="top"))
    model.save(tmp_path / "m.npz")
    loaded = load_model(tmp_path / "m.npz")
    assert type(loaded.loss) is type(loss) and loaded.loss.get_config() == loss.get_config()
    assert (loaded.metrics[0].k, loaded.metrics[0].name) == (2, "top")


def test_an_uncompiled_model_stays_one(tmp_path):
    model = make(compiled=False)
    model.save(tmp_path / "m")
    loaded = load_model(tmp_path / "m")  # the name is taken as it is
    assert loaded.optimizer is None
    np.testing.assert_array_equal(loaded.params, model.params)


def test_numpy_reads_it_without_pickle(tmp_path):
    model = trained()
    model.save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz", allow_pickle=False) as arrays:
        assert sorted(arrays) == ["config", "params", "slot0", "slot1"]
        np.testing.assert_array_equal(arrays["params"], model.params)
        assert json.loads(arrays["config"].tobytes())["version"] == 1


def test_equal_models_make_equal_files(tmp_path):
    model = trained()
    model.save(tmp_path / "a")
    model.save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_weights_alone(tmp_path):
    model = trained()
    model.save_weights(tmp_path / "w.npz")
    model.save(tmp_path / "m.npz")
    for name in ("w.npz", "m.npz"):
        for dtype in ("float32", "float64"):
            other = make(dtype=dtype)
            other.load_weights(tmp_path / name)
            np.testing.assert_array_equal(other.params, model.params)
            assert other.epoch == 0
    with pytest.raises(
        ValueError, match="w.npz holds weights only: make the model and call its load_weights"
    ):
        load_model(tmp_path / "w.npz")
    other = Sequential([Input((4,)), Dense(3)])
    before = other.params.copy()
    with pytest.raises(
        ValueError, match=r"w.npz holds weights of shapes .*, the model has \[\[4, 3\], \[3\]\]"
    ):
        other.load_weights(tmp_path / "w.npz")
    np.testing.assert_array_equal(other.params, before)


class Doubling(Dense):
    def forward(self, x, training=False):
        return 2 * super().forward(x, training)

    def backward(self, dout):
        return super().backward(2 * dout)


class Dense2(Doubling):
    pass


Dense2.__name__ = "Dense"  # as a user's class may well be called


@pytest.mark.parametrize("kind", [Doubling, Dense2])
def test_custom_layers_must_be_named(tmp_path, kind):
    model = Sequential([Input((2,)), kind(3)], seed=1)
    model.save(tmp_path / "m.npz")
    with pytest.raises(ValueError, match="m.npz: layer class .* is not minidl's: pass custom_objects="):
        load_model(tmp_path / "m.npz")
    loaded = load_model(tmp_path / "m.npz", custom_objects={kind.__name__: kind})
    x = np.ones((1, 2), np.float32)
    np.testing.assert_array_equal(loaded.forward(x), model.forward(x))
    with pytest.raises(TypeError, match="custom_objects must be a dict of name: class"):
        load_model(tmp_path / "m.npz", custom_objects=[kind])


# -- writing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failed_save_keeps_the_old_file(tmp_path, monkeypatch, function):
    path = tmp_path / "m.npz"
    model = small(path)
    before = path.read_bytes()
    model.train_on_batch(np.eye(2), [0, 1])

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, function, full)
        with pytest.raises(OSError, match="cannot save: No space left on device.*m.npz") as caught:
            model.save(path)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["m.npz"]
    model.train_on_batch(np.eye(2), [0, 1])
    model.save(path)
    assert load_model(path).optimizer.iterations == 3


def as_nobody():
    """Permissions do not bind root."""
    if os.geteuid() == 0:
        os.seteuid(65534)


def no_more_than(size):
    """No file of this process may grow beyond so many bytes, as if the disk were full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize(
    "hinder, reason",
    [
        (lambda folder: no_more_than(0), "File too large"),
        (lambda folder: no_more_than(300), "File too large"),
        (lambda folder: (folder.chmod(0o555), as_nobody()), "Permission denied"),
        (lambda folder: os.rename(folder, folder.parent / "gone"), "No such file"),
    ],
    ids=["full", "nearly full", "read-only", "gone"],
)
def test_a_place_that_becomes_unusable_costs_nothing(hinder, reason):
    """In a process of its own: saves, and then a checkpoint within fit (which makes a folder that is missing)."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)  # pytest's own folders are closed to anybody else
        folder = Path(place) / "folder"
        folder.mkdir()
        path = folder / "m.npz"
        model = small(path)
        before = path.read_bytes()

        def train(*callbacks):
            model.fit(np.eye(2), [0, 1], verbose=0, callbacks=list(callbacks))

        def work():
            hinder(folder)
            for save in (model.save, model.save_weights):
                with pytest.raises(OSError, match=f"cannot save: {reason}.*m.npz"):
                    save(path)
            with nullcontext() if reason == "No such file" else pytest.raises(OSError, match=reason):
                train(ModelCheckpoint(path))
            iterations = model.optimizer.iterations
            train()
            assert model.optimizer.iterations == iterations + 1 and np.isfinite(model.params).all()

        assert exit_code(forked(work)) == 0
        kept = Path(place, "gone" if reason == "No such file" else "folder", "m.npz")
        assert kept.read_bytes() == before and os.listdir(kept.parent) == ["m.npz"]


def test_an_interrupt_leaves_no_temporary_file(tmp_path, monkeypatch):
    path = tmp_path / "m.npz"
    model = small(path)

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.save(path)
    assert os.listdir(tmp_path) == ["m.npz"]


def test_places_that_cannot_be_written(tmp_path):
    model = small(tmp_path / "m.npz")
    with pytest.raises(FileNotFoundError, match="missing/m.npz"):
        model.save(tmp_path / "missing" / "m.npz")
    with pytest.raises(OSError, match="cannot save"):
        model.save(tmp_path)
    with pytest.raises(FileExistsError, match="overwrite is False"):
        model.save(tmp_path / "m.npz", overwrite=False)
    with pytest.raises(TypeError, match="path must be a string or a path, got 3"):
        model.save(3)
    with pytest.raises(ValueError, match="path must name a file"):
        model.save("")
    with pytest.raises(FileNotFoundError):
        load_model(tmp_path / "none.npz")
    assert os.listdir(tmp_path) == ["m.npz"]


def test_a_link_is_followed(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link.npz").symlink_to(tmp_path / "real" / "m.npz")
    small(tmp_path / "link.npz")
    assert (tmp_path / "link.npz").is_symlink() and (tmp_path / "real" / "m.npz").is_file()


_SAVES_FOREVER = """
import sys
from minidl.layers import Dense, Input
from minidl.models import Sequential
model = Sequential([Input((300,)), Dense(300)], seed=0)
model.params[...] = 0
model.save(sys.argv[1])
print("ready", flush=True)
while True:
    model.params += 1
    model.save(sys.argv[1])
"""


def test_a_killed_save_leaves_a_whole_file(tmp_path):
    path = tmp_path / "m.npz"
    process = subprocess.Popen([sys.executable, "-c", _SAVES_FOREVER, path], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    rng = random.Random(0)
    for _ in range(20):
        time.sleep(rng.uniform(0, 0.01))
        process.send_signal(signal.SIGSTOP)  # any moment of a kill is such a moment
        params = load_model(path).params
        assert (params == params[0]).all()
        process.send_signal(signal.SIGCONT)
    wait_for(lambda: load_model(path).params[0] > 0, process.pid)
    process.kill()
    process.wait()
    process.stdout.close()
    params = load_model(path).params
    assert (params == params[0]).all() and params[0] > 0


# -- reading ---------------------------------------------------------------------------------------


def rewrite(path, config=None, members=None, compression=zipfile.ZIP_STORED):
    """Write the archive at ``path`` anew, after ``config`` and ``members`` have changed their arguments."""
    with np.load(path) as arrays:
        found = {f"{name}.npy": array for name, array in arrays.items()}
    if config is not None:
        parsed = json.loads(found["config.npy"].tobytes())
        parsed = config(parsed) or parsed
        found["config.npy"] = np.frombuffer(json.dumps(parsed).encode(), np.uint8)
    if members is not None:
        found = members(found) or found
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, array in found.items():
            if isinstance(array, bytes):
                archive.writestr(name, array)
                continue
            stream = io.BytesIO()
            np.lib.format.write_array(stream, np.asarray(array))
            archive.writestr(name, stream.getvalue())


LONG = [1] * 16_000, "x" * 16_000, {"x" * 16_000: 1}


@pytest.mark.parametrize(
    "place",
    [
        "version",
        "dtype",
        "model.class_name",
        "model.dtype",
        "model.input_shape",
        "model.input_shape.0",
        "model.layers.0.class_name",
        "model.layers.0.config",
        "model.layers.0.config.kernel_initializer",
        "model.layers.0.config.kernel_initializer.class_name",
        "model.layers.0.config.kernel_initializer.config",
        "compile.optimizer.class_name",
        "compile.optimizer.config",
        "compile.loss.config.reduction",
    ],
)
def test_a_message_does_not_repeat_a_long_entry(tmp_path, place):
    path = tmp_path / "m.npz"
    *parents, last = (int(key) if key.isdigit() else key for key in place.split("."))
    for long in LONG:
        small(path)

        def put(config, long=long):
            for key in parents:
                config = config[key]
            config[last] = long

        rewrite(path, config=put)
        with pytest.raises(ValueError, match=r"m\.npz: ") as error:
            load_model(path)
        assert len(str(error.value)) < 3000


class Bomb:
    def __reduce__(self):
        return os.system, ("touch /tmp/minidl-was-here",)


def npy(shape, descr="<f4"):
    """A header that promises an array of ``shape``, with nothing behind it."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"shape": shape, "fortran_order": False, "descr": descr})
    return stream.getvalue()


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(config=lambda c: c.update(version=2)), "it has version 2 of the format; version 1 is known"),
        (dict(config=lambda c: c.update(format="keras")), "it is not a minidl file"),
        (dict(config=lambda c: [1, 2]), "it is not a minidl file"),
        (dict(config=lambda c: c.update(dtype="float16")), "dtype must be float32 or float64"),
        (dict(config=lambda c: c.update(dtype="float64")), "'params' must be a vector of float64"),
        (
            dict(config=lambda c: c["model"]["layers"][0].update(class_name="Conv")),
            "unknown layer class 'Conv'",
        ),
        (
            dict(config=lambda c: c["model"]["layers"][0]["config"].update(units=3)),
            "parameters, but there are values",
        ),
        (
            dict(config=lambda c: c["model"]["layers"][0]["config"].update(units=10**12)),
            "parameters, but there are",
        ),
        (
            dict(config=lambda c: c["model"].update(input_shape=[10**9])),
            "parameters, but there are values for 12",
        ),
        (
            dict(config=lambda c: c["compile"]["optimizer"].update(class_name="os.system")),
            "unknown optimizer",
        ),
        (dict(config=lambda c: c["compile"].update(loss="no_such_loss")), "unknown loss 'no_such_loss'"),
        (
            dict(config=lambda c: c["compile"].update(metrics=[{"class_name": "M", "config": {}}])),
            "unknown metric",
        ),
        (dict(config=lambda c: c.update(compile=None)), "optimizer's state, but no optimizer"),
        (dict(config=lambda c: c["training"].update(epoch=-1)), "epoch must be >= 0, got -1"),
        (dict(members=lambda m: m.update({"extra.npy": np.zeros(3)})), "it holds 'extra.npy', which"),
        (dict(members=lambda m: m.update({"../evil.npy": np.zeros(3)})), "it holds '../evil.npy', which"),
        (dict(members=lambda m: m.update({"code.py": b"print(1)"})), "it holds 'code.py', which"),
        (dict(members=lambda m: m.__delitem__("params.npy")), "it holds no 'params'"),
        (
            dict(members=lambda m: m.__delitem__("slot0.npy")),
            r"optimizer adam needs \['slot0', 'slot1'\], got",
        ),
        (dict(members=lambda m: m.update({"slot2.npy": np.zeros(12, np.float32)})), "optimizer adam needs"),
        (
            dict(members=lambda m: m.update({"params.npy": np.zeros(7, np.float32)})),
            "its arrays differ in length",
        ),
        (
            dict(members=lambda m: m.update({"params.npy": np.zeros((3, 4), np.float32)})),
            "must be a vector of float32",
        ),
        (
            dict(members=lambda m: m.update({"params.npy": npy((10**12,))})),
            "another length than its header says",
        ),
        (
            dict(members=lambda m: m.update({"params.npy": b"\x93NUMPY\x03\x00" + b"\xff" * 64})),
            r"not \(1, 0\)",
        ),
        (dict(members=lambda m: m.update({"params.npy": b"hello"})), "cannot read"),
        (dict(members=lambda m: m.update({"config.npy": np.frombuffer(b"{" * 99, np.uint8)})), "cannot read"),
        (
            dict(members=lambda m: m.update({"config.npy": np.frombuffer(b"[" * 10**6, np.uint8)})),
            "cannot read",
        ),
        (dict(compression=zipfile.ZIP_DEFLATED), "is compressed, which minidl never does"),
    ],
)
def test_foreign_and_damaged_files(tmp_path, change, message):
    path = tmp_path / "m.npz"
    model = small(path)
    rewrite(path)
    load_model(path)  # rewriting alone does no harm
    rewrite(path, **change)
    with pytest.raises(ValueError, match=message) as caught:
        load_model(path)
    assert "m.npz" in str(caught.value)
    before = model.params.copy()
    if "compile" not in message and "params" in message:
        with pytest.raises(ValueError):
            model.load_weights(path)
        np.testing.assert_array_equal(model.params, before)


def test_pickles_are_not_executed(tmp_path):
    path = tmp_path / "m.npz"
    small(path)
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.array([Bomb()], dtype=object), allow_pickle=True)
    rewrite(path, members=lambda m: m.update({"params.npy": stream.getvalue()}))
    with pytest.raises(ValueError, match="m.npz: 'params' holds pickled objects"):
        load_model(path)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match="m.npz: it is not a minidl file"):
        load_model(path)
    assert not os.path.exists("/tmp/minidl-was-here")


def add_bomb(members):
    members["params.npy"] = npy((1 << 28,)) + bytes(1 << 28)


def test_a_zip_bomb_stays_small(tmp_path):
    path = tmp_path / "m.npz"
    small(path)
    rewrite(path, members=add_bomb, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    with pytest.raises(ValueError, match="is compressed"):
        load_model(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


def test_the_same_bytes_twice(tmp_path):
    """Two directory entries for one member: overlapping bombs are made so."""
    path = tmp_path / "m.npz"
    small(path)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("params.npy", npy((0,)))
    with pytest.raises(ValueError, match="m.npz: it holds 'params.npy' twice"):
        load_model(path)


def check_refused_or_whole(path, model) -> bool:
    """True if refused. A file that is read gives the model that was saved: its checksums say so."""
    try:
        loaded = load_model(path)
    except ValueError as error:
        assert str(path) in str(error), error
        return True
    np.testing.assert_array_equal(loaded.params, model.params)
    assert loaded.get_config() == model.get_config()
    return False


def test_truncated_at_every_length(tmp_path):
    path = tmp_path / "m.npz"
    model = small(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert check_refused_or_whole(path, model)
    path.write_bytes(whole)
    assert not check_refused_or_whole(path, model)


def mutated(data: bytes, rng: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        at = rng.randrange(len(found))
        size = rng.choice([1, 1, 2, 8, 100])
        how = rng.randrange(6)
        if how == 0:
            found[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            found[at : at + size] = rng.randbytes(size)
        elif how == 2:
            found[at : at + size] = bytes(size)
        elif how == 3:
            found[at : at + size] = b"\xff" * size
        elif how == 4:
            del found[at : at + size]
        else:
            other = rng.randrange(len(found))
            found[at:at] = found[other : other + size]
        found = found or bytearray(b"\0")
    return bytes(found)


def fuzz_bytes(path, count, seed):
    model = small(path)
    whole = path.read_bytes()
    rng = random.Random(seed)
    refused = 0
    for _ in range(count):
        path.write_bytes(mutated(whole, rng))
        refused += check_refused_or_whole(path, model)
    assert refused > count // 2  # most changes do break a file; those to dates and the like do not


_ODD = [
    None,
    True,
    -1,
    0,
    1,
    10**9,
    10**30,
    1e308,
    float("nan"),
    "",
    "x",
    "Dense",
    "adam",
    [],
    [[]],
    {},
    [10**9] * 9,
]


def fuzz_configs(path, count, seed):
    """Well-formed archives with one or two entries of the config replaced, removed or doubled."""
    small(path)
    with np.load(path) as arrays:
        original = {f"{name}.npy": array for name, array in arrays.items()}
    text = original["config.npy"].tobytes()
    rng = random.Random(seed)

    def places(node):
        keys = node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys:
            yield node, key
            yield from places(node[key])

    tracemalloc.start()
    refused = 0
    for _ in range(count):
        config = json.loads(text)
        for _ in range(rng.choice([1, 1, 2])):
            node, key = rng.choice(list(places(config)))
            how = rng.randrange(5)
            if how == 0:
                del node[key]
            elif how == 1 and isinstance(node, dict):
                node[rng.choice(["x", "name", "units", "class_name", "custom", "__init__"])] = node[key]
            elif how == 2 and isinstance(node, list):
                node.append(node[key])
            else:
                node[key] = rng.choice(_ODD)
        changed = dict(original)
        changed["config.npy"] = np.frombuffer(json.dumps(config).encode(), np.uint8)
        rewrite(path, members=lambda _, changed=changed: changed)
        tracemalloc.reset_peak()
        base = tracemalloc.get_traced_memory()[0]
        try:
            loaded = load_model(path)
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            assert loaded.params.size == 12
        assert tracemalloc.get_traced_memory()[1] - base < 8 << 20
    tracemalloc.stop()
    assert refused > count // 4


def test_mutated_files(tmp_path):
    fuzz_bytes(tmp_path / "m.npz", 1700, seed=1)


def test_mutated_configs(tmp_path):
    fuzz_configs(tmp_path / "m.npz", 300, seed=2)


@pytest.mark.long
def test_thousands_of_mutated_files(tmp_path):
    fuzz_bytes(tmp_path / "m.npz", 3000, seed=3)
    fuzz_configs(tmp_path / "m.npz", 2000, seed=4)


def test_the_fuzzer_would_see_wrong_values(tmp_path):
    path = tmp_path / "m.npz"
    model = small(path)
    rewrite(path, members=lambda m: m.update({"params.npy": m["params.npy"] + 1}))
    with pytest.raises(AssertionError):
        check_refused_or_whole(path, model)


def test_config_must_be_plain(tmp_path):
    class Odd(Dense):
        def get_config(self):
            return {**super().get_config(), "thing": object(), "number": np.float32(1)}

    with pytest.raises(TypeError, match="a config must hold plain data"):
        Sequential([Input((2,)), Odd(2)]).save(tmp_path / "m.npz")
    assert os.listdir(tmp_path) == []
    config = make().get_config()
    assert Sequential.from_config(config).get_config() == config


# -- classes of one's own --------------------------------------------------------------------------


class MyMetric(metrics.MeanSquaredError):
    def __init__(self, scale=2.0, name=None):
        super().__init__(name)
        self.scale = scale


class MyLoss(losses.Loss):
    def __init__(self, power=2.0, **options):
        super().__init__(**options)
        self.power = power

    def value_and_grad(self, logits, y, sample_weight=None):
        return float(np.mean((logits - y) ** 2)), 2 * (logits - y) / logits.size


class MySGD(optimizers.SGD):
    pass


class Double(Layer):
    def forward(self, x, training=False):
        return 2 * x

    def backward(self, dout):
        return 2 * dout


class MyStart(initializers.Initializer):
    def __init__(self, value=1.0):
        self.value = value

    def __call__(self, shape, dtype=None, rng=None):
        return np.full(shape, self.value)


def model_of_own_parts():
    model = Sequential([Dense(3, input_dim=4, kernel_initializer=MyStart(3.0)), Double(), Dense(2)], seed=1)
    model.compile(MySGD(0.01), MyLoss(power=3.0), [MyMetric(scale=4.0)])
    model.fit(np.eye(4), np.eye(4)[:, :2], epochs=2, verbose=0)
    return model


def test_ones_own_classes_are_loaded_or_asked_for_by_name(tmp_path):
    model, path = model_of_own_parts(), tmp_path / "m.npz"
    model.save(path)
    own = {cls.__name__: cls for cls in (MyMetric, MyLoss, MySGD, MyStart, Double)}
    loaded = load_model(path, custom_objects=own)
    assert (loaded.loss.power, loaded.metrics[0].scale) == (3.0, 4.0) and type(loaded.optimizer) is MySGD
    for resumed in (loaded, model):
        resumed.fit(np.eye(4), np.eye(4)[:, :2], epochs=3, initial_epoch=2, verbose=0)
    np.testing.assert_array_equal(loaded.params, model.params)
    for name in own:
        with pytest.raises(ValueError, match=rf"m.npz.*custom_objects=\{{'{name}': {name}\}}"):
            load_model(path, custom_objects={key: cls for key, cls in own.items() if key != name})


def test_a_clone_needs_no_custom_objects():
    model = model_of_own_parts()
    clone = clone_model(model)
    assert [type(layer) for layer in clone.layers] == [type(layer) for layer in model.layers]
    assert (clone.layers[0].weight == 3.0).all() and clone.seed != model.seed
    assert clone.optimizer is None and clone.epoch == clone.draw_epoch == 0
