"""Models as C files: what is written, what is refused, and that a file is compared with predict before it is kept."""

import ctypes
import re
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from c_nets import build, call, error, gcc, load
from test_readme import blocks

import minidl
from minidl.activations import NAMES
from minidl.interop.c import export, exporting, source
from minidl.layers import (
    LAYERS,
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    Input,
    Layer,
    LeakyReLU,
    Rescaling,
)
from minidl.models import Sequential

__all__ = ["gcc"]  # the fixture
rng = np.random.default_rng(1)
PAGE = Path(__file__).parents[1] / "docs" / "c.md"


def net(*layers, inputs=6, **options) -> Sequential:
    return Sequential([Input((inputs,)), *layers], name="student", seed=1, **options)


def student() -> Sequential:
    return net(Dense(8, "tanh"), Dense(3, "softmax"))


# ---- what is written


def test_every_layer_and_activation_has_a_form():
    assert set(LAYERS.classes.values()) == set(source._LAYERS)
    assert set(NAMES) - {"linear"} <= set(source.FUNCTIONS)


@pytest.mark.parametrize(
    "sizes", [(5, 3), (1, 1), (7, 1, 2), (30, 1200, 10), (784, 64, 64, 10)], ids="-".join and str
)
def test_sizes(sizes, gcc, tmp_path):
    inputs, *hidden, last = sizes
    model = net(*(Dense(units, "relu") for units in hidden), Dense(last, "softmax"), inputs=inputs)
    written = source.c_source(model, "student")
    library = load(gcc, tmp_path, {"student": written.text})
    x = rng.normal(size=(8, inputs)).astype(np.float32)
    assert error(call(library, "student", x, (last,)), model.predict(x)) <= 1e-6
    assert written.constants == model.params.nbytes
    outputs = [*hidden, last]  # two arrays take turns; one is for the parts of long sums
    parts = [units for size, units in zip(sizes, outputs, strict=False) if size >= 1024]
    assert written.stack == 4 * sum(max(each, default=0) for each in (outputs[::2], outputs[1::2], parts))


def test_a_long_sum_is_right_to_1e_6(gcc, tmp_path, monkeypatch):
    model = net(Dense(5), inputs=40_000)  # more than an int may count on a small processor
    x = rng.normal(size=(8, 40_000)).astype(np.float32)
    exact = x.astype(np.float64) @ model.layers[0].weight.astype(np.float64)
    text = source.c_source(model, "student").text
    assert "for (long " in text and "int i" not in text
    assert error(call(load(gcc, tmp_path, {"student": text}), "student", x, (5,)), exact) <= 1e-6
    monkeypatch.setattr(source, "_BLOCK", 40_001)
    text = source.c_source(model, "student").text
    assert error(call(load(gcc, tmp_path, {"student": text}), "student", x, (5,)), exact) > 1e-6


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activations_of_numbers_of_any_size(dtype, gcc, tmp_path):
    sizes = np.array([1e-30, 1e-8, 1e-3, 0.5, 1, 10, 20, 88, 89, 100, 700, 1e4, 1e18, 1e30])
    x = np.concatenate([-sizes[::-1], [0], sizes]).astype(dtype)
    models = {name: net(Activation(name), inputs=len(x), dtype=dtype) for name in NAMES}
    texts = {name: source.c_source(model, f"net_{name}").text for name, model in models.items()}
    library = load(gcc, tmp_path, texts)
    for name, model in models.items():
        found = call(library, f"net_{name}", x[None], model.output_shape)
        wanted = getattr(minidl.activations, name)(x.astype(np.float64)[None])
        assert np.isfinite(found).all(), name
        # predict's own gelu has lost four bits where it is 1e-22
        precision = {"float32": 4, "float64": 20}[dtype] * np.finfo(dtype).eps
        np.testing.assert_allclose(found, wanted, precision, 1e-37, err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weights_are_read_as_the_same_bits(dtype, gcc, tmp_path):
    bits = rng.integers(0, 2**32, (32, 40), dtype=np.uint64) << np.uint64(32 if dtype == "float64" else 0)
    bits |= rng.integers(0, 2**32, bits.shape, dtype=np.uint64) if dtype == "float64" else np.uint64(0)
    weight = bits.view("float64") if dtype == "float64" else bits.astype(np.uint32).view("float32")
    weight = np.where(np.isfinite(weight), weight, 1).astype(dtype)
    info = np.finfo(dtype)
    weight[0, :5] = info.max, info.tiny, info.smallest_subnormal, info.eps, -0.0
    model = net(Dense(40, use_bias=False), inputs=32, dtype=dtype)
    model.layers[0].weight[...] = weight
    library = load(gcc, tmp_path, {"student": source.c_source(model, "student").text})
    one_by_one = np.eye(32, dtype=dtype)
    np.testing.assert_array_equal(call(library, "student", one_by_one, (40,)), weight)


def test_nothing_is_global_but_predict_and_nothing_is_written_to(gcc, tmp_path):
    if shutil.which("nm") is None:
        pytest.skip("needs nm")
    library = build(gcc, tmp_path, {"student": source.c_source(student(), "student").text}, "-c")
    symbols = subprocess.run(["nm", str(library)], capture_output=True, text=True, check=True).stdout
    kinds = [line.split()[-2:] for line in symbols.splitlines()]
    assert [name for kind, name in kinds if kind.isupper() and kind != "U"] == ["student_predict"]
    assert not [name for kind, name in kinds if kind.lower() in "bd"]
    undefined = {name for kind, name in kinds if kind == "U"}
    assert undefined <= {"expf", "tanhf", "_GLOBAL_OFFSET_TABLE_", "__stack_chk_fail"}


def test_threads_may_call_at_once_and_x_may_be_out(gcc, tmp_path):
    model = net(Dense(6, "gelu"), Dense(6))
    library = load(gcc, tmp_path, {"student": source.c_source(model, "student").text})
    x = rng.normal(size=(2000, 6)).astype(np.float32)
    wanted, found = call(library, "student", x, (6,)), {}
    threads = [
        threading.Thread(target=lambda k=k: found.update({k: call(library, "student", x, (6,))}))
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(np.array_equal(each, wanted) for each in found.values())
    for row in x:
        library.student_predict(*[ctypes.c_void_p(row.ctypes.data)] * 2)
    np.testing.assert_array_equal(x, wanted)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_example_main_reads_samples_and_prints_outputs(dtype, gcc, tmp_path):
    model = net(Dense(3, "softplus"), inputs=2, dtype=dtype)
    program = build(gcc, tmp_path, {"student": source.c_source(model, "student").text}, "-Dstudent_MAIN")

    def run(text):
        return subprocess.run([str(program)], input=text, capture_output=True, text=True)

    found = run("1 2\n3.5e-1\n-4")
    lines = [list(map(float, line.split(" "))) for line in found.stdout.splitlines()]
    assert found.returncode == 0 and not found.stderr
    np.testing.assert_allclose(lines, model.predict(np.array([[1, 2], [0.35, -4]])), 1e-6)
    assert run("").returncode == 0 and run("").stdout == ""
    for text, message in (("1 2 3", "the last sample is too short"), ("1 2 x 4", "this is not a number")):
        assert run(text).returncode == 1 and run(text).stderr == f"{message}\n"


# ---- names


def test_names(tmp_path):
    for given, made in (
        ("student", "student"), ("2nd net!", "net_2nd_net"), ("__x", "x"), ("int", "net_int"), ("ä*/", "net"),
    ):  # fmt: skip
        model = Sequential([Input((2,)), Dense(1)], name=given)
        assert export(model, tmp_path / "a.c", verify=False).name == made
        assert f"void {made}_predict(const float *x, float *out);" in (tmp_path / "a.c").read_text()
    for wrong in ("2nd", "a-b", "", "_x", "while", "ä", "a b", "a\n", 3):
        with pytest.raises(ValueError, match="name must be a C identifier"):
            export(student(), tmp_path / "b.c", name=wrong, verify=False)
    assert not (tmp_path / "b.c").exists()


# ---- what is refused, before anything is written


class Scale(Layer):
    def forward(self, x, training=False):
        return 2 * x

    def backward(self, dout):
        return 2 * dout


class Doubled(Dense):
    def forward(self, x, training=False):
        return 2 * super().forward(x)


class Own(Sequential):
    def forward(self, x, training=False, **more):
        return 2 * super().forward(x, training, **more)


class Predicting(Sequential):
    def predict(self, x, **more):
        return 2 * super().predict(x, **more)


def broken(what: float) -> Sequential:
    model = student()
    model.layers[1].weight[2, 1] = what
    return model


def flat_normalization() -> Layer:
    return BatchNormalization(epsilon=0, moving_variance_initializer="zeros", name="mine")


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: net(Dense(3), Scale(name="mine")), r"layer 'mine' \(Scale\)"),
        (lambda: net(Doubled(3, name="mine")), r"layer 'mine' \(Doubled\)"),
        (lambda: Own([Input((2,)), Dense(3)], name="mine"), r"'mine' \(Own\) has a forward of your own"),
        (lambda: Predicting([Input((2,)), Dense(3)], name="mine"), "has a predict of your own"),
        (lambda: Sequential([Dense(3)]), "export needs a built model"),
        (lambda: broken(np.nan), r"has a weight of nan at \(2, 1\): only finite numbers"),
        (lambda: broken(np.inf), r"has a weight of inf at \(2, 1\)"),
        (lambda: net(Rescaling(1e300, name="mine"), Dense(2)), r"'mine' \(Rescaling\) has a scale of inf:"),
        (lambda: net(Dense(2), LeakyReLU(1e300, name="mine")), r"'mine' \(LeakyReLU\) has a setting of inf:"),
        (lambda: net(flat_normalization(), Dense(2)), r"'mine' .* has a scale of inf at \(0,\)"),
    ],
)
@pytest.mark.parametrize("quantize", [False, True])
def test_what_has_no_c_form_is_refused_by_name(make, message, quantize, tmp_path, recwarn):
    (tmp_path / "a.c").write_text("as it was")
    with pytest.raises(ValueError, match=message):
        export(make(), tmp_path / "a.c", quantize)
    assert (
        (tmp_path / "a.c").read_text() == "as it was" and len(list(tmp_path.iterdir())) == 1 and not recwarn
    )


def test_an_activation_without_a_form_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.delitem(source.FUNCTIONS, "gelu")
    with pytest.raises(ValueError, match=r"layer 'mine' \(gelu\) has no C form"):
        export(net(Dense(3, "gelu", name="mine")), tmp_path / "a.c")
    monkeypatch.delitem(source._LAYERS, Dropout)
    with pytest.raises(ValueError, match=r"layer 'mine' \(Dropout\) has no C form"):
        export(net(Dense(3), Dropout(0.5, name="mine")), tmp_path / "a.c")


def test_arguments_are_checked(tmp_path):
    model, path, x = student(), tmp_path / "a.c", np.zeros((3, 6))
    for arguments, error_type, message in (
        ((None, path), TypeError, "model must be a Sequential, got None"),
        ((model, 3.5), TypeError, "path must be a string or a path"),
        ((model, path, "int8"), TypeError, "quantize must be True or False"),
        ((model, path, True, None, np.zeros((3, 5))), ValueError, r"x of data must have shape \(N, 6\)"),
        ((model, path, True, None, x * np.nan), ValueError, "x of data"),
        ((model, path, True, None, (x, np.zeros(3))), ValueError, "compile"),
        ((model, path, False, None, x), ValueError, "data must be left out without quantize=True"),
        ((model, path, False, None, None, "yes"), ValueError, "verify must be one of 'auto', True, False"),
    ):
        with pytest.raises(error_type, match=message):
            export(*arguments)
    model.compile(loss="sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match="y of data must have one row per sample of x: expected 3, got 2"):
        export(model, path, True, data=(x, np.zeros(2)))
    with pytest.raises(ValueError, match="y"):
        export(model, path, True, data=(x, np.array([0, 1, 3])), verify=False)
    assert not path.exists()


# ---- the check


def test_a_file_is_compiled_and_compared_before_it_is_kept(gcc, tmp_path, monkeypatch):
    written = export(student(), tmp_path / "a.c", verify=True)
    assert written.is_checked and written.path == str(tmp_path / "a.c") and written.name == "student"
    assert (
        str(written)
        == f"{tmp_path / 'a.c'}: {written.constants} bytes of constants, 44 bytes of stack a call"
    )
    before = (tmp_path / "a.c").read_text()
    for old, new, kind, message in (
        ("tanhF", "sinF", ValueError, "different numbers"),
        ("tanhF(x)", "tanhF(y)", RuntimeError, "failed as the C file was checked: (.|\n)*y"),
        ("return", "*(volatile int *)0 = 1; return", RuntimeError, "it ended with code"),
    ):
        changed = source.FUNCTIONS["tanh"].replace(old, new)
        with monkeypatch.context() as patch, pytest.raises(kind, match=message):
            patch.setitem(source.FUNCTIONS, "tanh", changed)
            export(student(), tmp_path / "a.c")
    assert (tmp_path / "a.c").read_text() == before and len(list(tmp_path.iterdir())) == 1


def test_without_a_compiler_it_is_said(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(exporting, "COMPILERS", ("no_such_compiler",))
    with pytest.raises(RuntimeError, match=r"verify=True needs a C compiler: .*\(no_such_compiler\)"):
        export(student(), tmp_path / "a.c", verify=True)
    assert not (tmp_path / "a.c").exists()
    assert not export(student(), tmp_path / "a.c", verify=False).is_checked and not recwarn
    with pytest.warns(UserWarning, match="the C file of student was not compared with predict"):
        assert not export(student(), tmp_path / "a.c").is_checked


# ---- the page


def test_the_pages_listings_run(gcc, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text(encoding="utf-8")
    names: dict = {}
    for listing in blocks("python", page):
        exec(compile(listing, "docs/c.md", "exec"), names)
    for line in capsys.readouterr().out.splitlines():
        assert re.sub(r"[0-9.]+%?", "N", line) in re.sub(r"[0-9.]+%?", "N", page)
        assert line in page or not line.startswith("student.c"), "sizes are exact"
    (app,) = blocks("c", page)
    (tmp_path / "app.c").write_text(app)
    for commands in blocks("bash", page):
        done = subprocess.run(commands, shell=True, capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr
    assert len(done.stdout.split()) == 10
