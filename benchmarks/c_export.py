"""A trained net as C: the time of one sample beside ONNX Runtime and predict, and the size beside emlearn and m2cgen.

python -m benchmarks.c_export [--quick]

Needs gcc, and ``size`` of binutils for the sizes. emlearn and m2cgen are left out where they are not installed.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import inference
from .harness import OURS, Case, Missing, Refused, Suite, Target, require_close
from .harness import main as run
from .trainers import forward, initial_weights, minidl_net, softmax

FAST, SMALL = ("-O3", "-march=native"), ("-Os",)


class Source(NamedTuple):
    """A file of C, the function in it that predicts a sample, of float or double, and where its headers are."""

    text: str
    function: str
    real: str = "float"
    headers: str = "."


# ---------------------------------------------------------------- who writes C


def minidl_source(arrays, quantize: bool = False) -> Source:
    import minidl
    from minidl.interop.c.source import c_source

    return Source(c_source(minidl_net(minidl, arrays), "net", quantize).text, "net_predict")


def int8_source(arrays) -> Source:
    return minidl_source(arrays, quantize=True)


def emlearn_source(arrays) -> Source:
    """What ``emlearn.convert`` writes of scikit-learn's MLPClassifier with these weights, without its fit."""
    try:
        from emlearn import common, net
    except ImportError as error:
        raise Missing(str(error)) from error
    activations = ["relu"] * (len(arrays) // 2 - 1) + ["softmax"]
    text = net.c_generate_net_loadable(activations, arrays[::2], arrays[1::2], "net")
    sizes = len(arrays[0]), len(arrays[-1])
    text += (
        f"\nvoid net_probs(const float *x, float *out)\n"
        f"{{\n    eml_net_predict_proba(&net, x, {sizes[0]}, out, {sizes[1]});\n}}\n"
    )
    return Source(text, "net_probs", headers=common.get_include_dir())


def m2cgen_source(arrays) -> Source:
    """Of scikit-learn's LogisticRegression; MLPClassifier it refuses. It gives logits, in double."""
    try:
        import m2cgen
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise Missing(str(error)) from error
    model = LogisticRegression()
    model.coef_, model.intercept_ = arrays[0].T.astype(np.float64), arrays[1].astype(np.float64)
    model.classes_ = np.arange(len(model.intercept_))
    sys.setrecursionlimit(100 + 20 * len(arrays[0]))  # its expression is as deep as there are inputs
    text = m2cgen.export_to_c(model)
    text += "\nvoid net_logits(const double *x, double *out)\n{\n    score((double *)x, out);\n}\n"
    return Source(text, "net_logits", real="double")


def compile_source(source: Source, folder: str, flags: tuple[str, ...], *more: str) -> Path:
    """An object file."""
    compiler = shutil.which("gcc")
    if compiler is None:
        raise Missing("gcc is not installed")
    path, out = Path(folder, "net.c"), Path(folder, "net.o")
    path.write_text(source.text)
    command = [compiler, *flags, *more, "-c", str(path), "-o", str(out), "-I", source.headers]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Refused(f"gcc fails: {done.stderr.strip()[-500:]}")
    return out


# ---------------------------------------------------------------- peers


class OneThread(inference.Predictor):
    threads_supported = (1,)

    @staticmethod
    def expected(arrays, x) -> np.ndarray:
        """In float64, of the weights that its file has."""
        return softmax(forward([a.astype(np.float64) for a in arrays], x.astype(np.float64)))


class Predict(OneThread, inference.Minidl): ...


class Onnx(OneThread, inference.Onnx): ...


class CFile(OneThread):
    """The loop over calls is C too, in a file of its own, so that no call can be left out."""

    def source(self) -> Source:
        return minidl_source(self.arrays)

    def build(self) -> None:
        source = self.source()
        self.x = self.x.astype({"float": np.float32, "double": np.float64}[source.real])
        self.out = np.empty((1, self.sizes[-1]), self.x.dtype)
        types = f"const {source.real} *x, {source.real} *out"
        loop = (
            f"void {source.function}({types});\nvoid loop({types}, long count)\n"
            f"{{\n    while (count-- > 0)\n        {source.function}(x, out);\n}}\n"
        )
        with tempfile.TemporaryDirectory() as folder:
            net = compile_source(source, folder, FAST, "-fPIC")
            Path(folder, "loop.c").write_text(loop)
            library = Path(folder, "net.so")
            link = ["gcc", "-O1", "-fPIC", "-shared", f"{folder}/loop.c", str(net), "-o", str(library), "-lm"]
            subprocess.run(link, check=True)
            self.library = ctypes.CDLL(str(library))  # it stays loaded without its file
        self.function, self.loop = self.library[source.function], self.library.loop
        self.pointers = ctypes.c_void_p(self.x.ctypes.data), ctypes.c_void_p(self.out.ctypes.data)

    def predict(self):
        self.function(*self.pointers)
        return self.out

    def run(self, count: int) -> None:
        self.loop(*self.pointers, ctypes.c_long(count))


class CFileFromPython(CFile):
    """A call of ctypes for each sample."""

    run = inference.Predictor.run


class Int8(CFile):
    def source(self) -> Source:
        return int8_source(self.arrays)

    @staticmethod
    def expected(arrays, x):
        from minidl.interop.c.source import quantized

        pairs = [quantized(array) if array.ndim == 2 else (array, 1) for array in arrays]
        return OneThread.expected([np.float64(q) * scale for q, scale in pairs], x)


class Emlearn(CFile):
    def source(self) -> Source:
        return emlearn_source(self.arrays)

    @staticmethod
    def expected(arrays, x):
        return OneThread.expected([array.astype(np.float64).round(6) for array in arrays], x)


class M2cgen(CFile):
    def source(self) -> Source:
        return m2cgen_source(self.arrays)

    @staticmethod
    def expected(arrays, x):
        return forward([array.astype(np.float64) for array in arrays], x.astype(np.float64))


PEERS = {
    OURS: CFile,
    "minidl-int8": Int8,
    "minidl-from-python": CFileFromPython,
    "minidl-predict": Predict,
    "onnxruntime": Onnx,
    "emlearn": Emlearn,
    "m2cgen": M2cgen,
}


def verify(case: Case, peer: type, outputs: np.ndarray) -> None:
    wanted = peer.expected(initial_weights(case.params["sizes"]), inference.rows(case.params))
    require_close([outputs], [wanted], 1e-5, "the outputs")


# ---------------------------------------------------------------- sizes

WRITERS = {
    "minidl": minidl_source,
    "minidl, int8": int8_source,
    "emlearn": emlearn_source,
    "m2cgen": m2cgen_source,
}


def object_size(source: Source, flags: tuple[str, ...]) -> tuple[int, int]:
    """(bytes of code and constants, bytes of memory that is written to) of the object file."""
    if shutil.which("size") is None:
        raise Missing("size (binutils) is not installed")
    with tempfile.TemporaryDirectory() as folder:
        told = subprocess.run(
            ["size", str(compile_source(source, folder, flags))], capture_output=True, text=True, check=True
        ).stdout
    text, data, bss = map(int, told.splitlines()[1].split()[:3])
    return text, data + bss


def size_of(writer: str, sizes: list[int]) -> dict:
    try:
        source = WRITERS[writer](initial_weights(sizes))
        small, fast = object_size(source, SMALL), object_size(source, FAST)
    except Refused as error:
        return {"writer": writer, "refused": str(error)}
    return {"writer": writer, "source": len(source.text), "small": small, "fast": fast}


def measure_sizes(results: dict) -> list[str]:
    """Add the sizes to the results; returns them in Markdown."""
    lines = ["## Sizes", "", SIZES_NOTE, ""]
    lines += ["| net | written by | source, kB | -Os, kB | -O3, kB | written to, bytes |"]
    lines += ["| --- | --- | ---: | ---: | ---: | ---: |"]
    results["sizes"] = {}
    by_name = {case.name: case for case in CASES}
    for record in results["cases"]:
        case = by_name[record["name"]]
        writers = [writer for writer in WRITERS if writer.startswith(OURS) or writer in case.peers]
        found = [size_of(writer, case.params["sizes"]) for writer in writers]
        results["sizes"][case.name] = found
        for row in found:
            if "refused" in row:
                lines.append(f"| {case.name} | {row['writer']} | {row['refused']} | | | |")
                continue
            kilobytes = [row["source"], row["small"][0], row["fast"][0]]
            cells = [f"{count / 1000:,.1f}" for count in kilobytes] + [f"{row['small'][1]:,}"]
            lines.append(f"| {case.name} | {row['writer']} | {' | '.join(cells)} |")
    return [*lines, ""]


SIZES_NOTE = (
    "Object files of gcc: code and constants (text, read-only data), and memory that is written to (data, bss), which "
    "minidl's files have none of. emlearn keeps two arrays there, so its function is for one thread at a time, and it "
    "writes weights with six decimals. m2cgen writes no MLPs (it refuses scikit-learn's MLPClassifier as "
    "'not supported'): it stands beside the linear net alone, with double weights, and gives logits."
)


# ---------------------------------------------------------------- the suite


def _case(*sizes: int) -> Case:
    peers = [name for name in PEERS if name != ("m2cgen" if len(sizes) > 2 else "emlearn")]
    work = 2.0 * sum(i * o for i, o in zip(sizes, sizes[1:], strict=False))
    name = "-".join(map(str, sizes))
    return Case(name, {"sizes": list(sizes), "batch": 1}, tuple(peers), work)


CASES = [_case(4, 16, 3), _case(784, 10), _case(64, 32, 10), _case(784, 64, 64, 10), _case(784, 512, 512, 10)]
SUITE = Suite(
    name="c_export",
    title="One sample by a net as C, float32",
    unit="sample",
    module="benchmarks.c_export",
    peers=PEERS,
    cases=CASES,
    verify=verify,
    quick=("4-16-3", "784-10", "784-64-64-10"),
    slice_seconds=0.1,
    budget_seconds=3.0,
    targets=[
        Target(f"{case.name} as C, to ONNX Runtime", case.name, ("onnxruntime",), 0.6) for case in CASES
    ],
    notes=(
        "One sample a call, one thread. minidl is the exported file, minidl-int8 the one with int8 weights. Both, "
        "emlearn and m2cgen are compiled by gcc -O3 -march=native and called in a loop of C, as a program in C would. "
        "minidl-from-python is the exported file called through ctypes; minidl-predict and onnxruntime are called by "
        "their Python functions. Verified against float64, with the weights that each file has."
    ),
    sections=measure_sizes,
)


def main(arguments: list[str] | None = None) -> int:
    return run(SUITE, arguments, threads=[1])


if __name__ == "__main__":
    sys.exit(main())
