"""Matrix multiply: minidl.matmul at the training shapes and on cubes, and the ladder that leads to it.

    python -m benchmarks.matmul [--quick]

The ladder multiplies two 512-cubes seven times over, from three nested Python loops to two threads, and
so shows what each idea buys.
"""

from __future__ import annotations

import sys

import numpy as np

from .harness import OURS, Case, Peer, Suite, Target, Wrong
from .harness import main as run
from .report import duration

# ---------------------------------------------------------------- the work


class Product(Peer):
    """out = op(a) op(b), the op a transpose where ``layout`` has a T: "NN", "TN", "NT"."""

    def prepare(self, case: dict) -> None:
        self.layout = case["layout"]
        self.a, self.b = operands(case)
        self.out = np.zeros((case["m"], case["n"]), np.float32)
        self.build()

    def build(self) -> None: ...

    def outputs(self) -> np.ndarray:
        self.run(1)
        return self.out


def operands(case: dict) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(case["m"] + 7 * case["k"] + 31 * case["n"])
    m, k, n = case["m"], case["k"], case["n"]
    a = rng.standard_normal((k, m) if case["layout"][0] == "T" else (m, k), dtype=np.float32)
    b = rng.standard_normal((n, k) if case["layout"][1] == "T" else (k, n), dtype=np.float32)
    return a, b


def verify(case: Case, peer: type, out: np.ndarray) -> None:
    """Every element within the rounding error that any order of summation may make."""
    a, b = (x.astype(np.float64) for x in operands(case.params))
    a, b = (a.T if case.params["layout"][0] == "T" else a), (b.T if case.params["layout"][1] == "T" else b)
    rows = getattr(peer, "rows", None)
    a = a[:rows]
    expected, magnitude = a @ b, np.abs(a) @ np.abs(b)
    if out.shape != expected.shape or not np.isfinite(out).all():
        raise Wrong(f"a finite {expected.shape} product was expected, got {out.shape}")
    # an order of summation loses at most about k half-ulps; random errors lose far less
    excess = float((np.abs(out - expected) / magnitude).max()) / (
        np.finfo(np.float32).eps * (4 + case.params["k"] ** 0.5)
    )
    if excess > 1.0:
        raise Wrong(f"the product's rounding error is {excess:.1f} times what float32 allows")


class Minidl(Product):
    def load(self) -> None:
        import minidl

        minidl.set_num_threads(self.threads)
        self.matmul = minidl.matmul

    def run(self, count: int) -> None:
        first, second = self.layout[0] == "T", self.layout[1] == "T"
        for _ in range(count):
            self.matmul(self.a, self.b, out=self.out, transpose_a=first, transpose_b=second)


class Compiled(Minidl):
    """The kernel as the training loop calls it: from compiled code, with nothing to check and no array to unpack."""

    threads_supported = (1,)

    def load(self) -> None:
        import numba

        from minidl.kernels.matmul import matmul

        @numba.njit(nogil=True)
        def repeated(out, a, b, transpose_a, transpose_b, count):
            for _ in range(count):
                matmul(out, a, b, transpose_a, transpose_b)

        self.repeated = repeated

    def run(self, count: int) -> None:
        self.repeated(self.out, self.a, self.b, self.layout[0] == "T", self.layout[1] == "T", count)


class Numpy(Product):
    def build(self) -> None:
        self.a, self.b = (
            (self.a.T if self.layout[0] == "T" else self.a),
            (self.b.T if self.layout[1] == "T" else self.b),
        )

    def run(self, count: int) -> None:
        for _ in range(count):
            np.matmul(self.a, self.b, out=self.out)


class Torch(Numpy):
    def load(self) -> None:
        import torch

        torch.set_num_threads(self.threads)
        self.torch = torch

    def build(self) -> None:
        super().build()
        self.a, self.b, self.result = (self.torch.from_numpy(x) for x in (self.a, self.b, self.out))

    def run(self, count: int) -> None:
        with self.torch.inference_mode():
            for _ in range(count):
                self.torch.mm(self.a, self.b, out=self.result)


# ---------------------------------------------------------------- the ladder

PYTHON_ROWS = 4  # of the 512: three nested Python loops over all of it would take a minute


class PlainPython(Product):
    threads_supported = (1,)
    rows = PYTHON_ROWS
    share = PYTHON_ROWS / 512

    def load(self) -> None:
        from minidl.ladder.rungs import plain_python

        self.function = plain_python

    def build(self) -> None:
        self.lists = self.a[: self.rows].tolist(), self.b.tolist()

    def outputs(self) -> np.ndarray:
        self.run(1)
        return np.array(self.result, np.float32)

    def run(self, count: int) -> None:
        for _ in range(count):
            self.result = self.function(*self.lists)


class Rung(Product):
    """A rung of ``python -m minidl ladder``, by the name of its function."""

    threads_supported = (1,)
    kernel = ""

    def load(self) -> None:
        from minidl.ladder import rungs

        self.function = getattr(rungs, self.kernel)

    def run(self, count: int) -> None:
        for _ in range(count):
            self.function(self.out, self.a, self.b)


LADDER = {"1 plain Python": PlainPython} | {
    name: type(kernel, (Rung,), {"kernel": kernel})
    for name, kernel in {
        "2 the same in Numba": "naive",
        "3 loops reordered": "reordered",
        "4 blocked for the caches": "blocked",
        "5 SIMD tile in registers": "tiled",
        "6 packed panels": "packed",
    }.items()
}


class TwoThreads(Minidl):
    threads_supported = (2,)


LADDER["7 two threads"] = TwoThreads
PEERS = {OURS: Minidl, "minidl-compiled": Compiled, "numpy": Numpy, "torch": Torch} | LADDER

# ---------------------------------------------------------------- the table

TRAINING = {  # name: batch, inputs, outputs of the dense layers of the two nets
    "small 1": (32, 784, 64),
    "small 2": (32, 64, 64),
    "small 3": (32, 64, 10),
    "big 1": (128, 784, 1200),
    "big 2": (128, 1200, 1200),
    "big 3": (128, 1200, 10),
}
CUBES = (16, 32, 64, 128, 256, 512, 1024, 2048)
RIVALS = ("numpy", "torch")


def _case(name: str, m: int, k: int, n: int, layout: str, group: str, peers: tuple[str, ...]) -> Case:
    traffic = 4.0 * (m * k + k * n + m * n)
    # arrays that fit in the caches are not read from memory again each time
    return Case(
        name,
        {"m": m, "k": k, "n": n, "layout": layout},
        peers,
        2.0 * m * k * n,
        traffic if traffic > 64e6 else 0.0,
        group=group,
    )


def _cases() -> list[Case]:
    everybody = (OURS, *RIVALS)
    shapes = (OURS, "minidl-compiled", *RIVALS)
    cases = []
    for name, (b, i, o) in TRAINING.items():
        cases.append(_case(f"{name} forward {b}x{i}x{o}", b, i, o, "NN", "training shapes", shapes))
        cases.append(_case(f"{name} dW {i}x{b}x{o}", i, b, o, "TN", "training shapes", shapes))
        if not name.endswith("1"):  # nobody needs the gradient of the data
            cases.append(_case(f"{name} dX {b}x{o}x{i}", b, o, i, "NT", "training shapes", shapes))
    cases += [_case(f"cube {s}", s, s, s, "NN", "cubes", everybody) for s in CUBES]
    ladder = _case("ladder, cube 512", 512, 512, 512, "NN", "ladder", tuple(LADDER))
    return [*cases, ladder]


CASES = _cases()
TARGETS = [
    Target(
        f"{c.name}, to the better of OpenBLAS and MKL",
        c.name,
        RIVALS,
        1 / 1.15 if c.group == "training shapes" else 1 / 0.95,
    )
    for c in CASES
    if c.group == "training shapes" or c.name in ("cube 256", "cube 512", "cube 1024", "cube 2048")
]


def ladder_section(results: dict) -> list[str]:
    """What each rung does and by how much it beats the one below."""
    lines, below = [], None
    for record in results["cases"]:
        if record["group"] != "ladder":
            continue
        lines += [
            "## The ladder",
            "",
            "| rung | time | GFLOP/s | times the rung before |",
            "| --- | ---: | ---: | ---: |",
        ]
        for key, entry in record["times"].items():
            seconds = entry["median"]
            rate = record["flops"] / seconds / 1e9
            gain = f"{below / seconds:.1f}" if below else ""
            lines.append(f"| {key.split('@')[0]} | {duration(seconds)} | {rate:.2f} | {gain} |")
            below = seconds
        lines.append("")
    return lines


SUITE = Suite(
    name="matmul",
    title="Matrix multiply, float32",
    unit="product",
    module="benchmarks.matmul",
    peers=PEERS,
    cases=CASES,
    verify=verify,
    quick=("small 1 forward 32x784x64", "big 1 dW 784x128x1200", "cube 256", "ladder, cube 512"),
    sections=ladder_section,
    targets=TARGETS,
    slice_seconds=0.1,
    budget_seconds=2.0,
    notes="m x k x n, k the summed dimension. dW multiplies by the transpose of the data (TN), dX by that of "
    "the weights (NT). numpy is OpenBLAS, torch is MKL; minidl-compiled is the kernel called from compiled code, as "
    "the training loop does. In the ladder, plain Python computes "
    f"{PYTHON_ROWS} of the 512 rows and its time is multiplied up.",
)


def main(arguments: list[str] | None = None) -> int:
    return run(SUITE, arguments)


if __name__ == "__main__":
    sys.exit(main())
