"""How long until it runs: import, first training with nothing cached, first training with everything cached.

    python -m benchmarks.startup [--quick]

Every sample is a new process.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile

from .harness import OURS, ROOT, Case, Missing, Refused, Suite, Target, Wrong, thread_environment
from .harness import main as run

IMPORT, COLD, WARM = "import", "first fit, nothing cached", "first fit, caches warm"

# The same little training in each library; `loss` must be near log(10), that of an untrained classifier.
_DATA = (
    "import numpy as np; x = np.random.default_rng(0).random((32, 784), dtype='f4'); y = np.arange(32) % 10"
)
_KERAS_FIT = """
m = k.Sequential([k.layers.Input((784,)), k.layers.Dense(64, activation='relu'),
                  k.layers.Dense(64, activation='relu'), k.layers.Dense(10, activation='softmax')])
m.compile(optimizer='adam', loss='sparse_categorical_crossentropy')
loss = m.fit(x, y, batch_size=32, epochs=1, verbose=0).history['loss'][0]
"""
_TORCH_FIT = """
m = torch.nn.Sequential(torch.nn.Linear(784, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU(),
                        torch.nn.Linear(64, 10))
o = torch.optim.Adam(m.parameters(), fused=True)
l = torch.nn.functional.cross_entropy(m(torch.from_numpy(x)), torch.from_numpy(y))
l.backward(); o.step(); loss = l.item()
"""
_JAX_FIT = """
w = [(rng.normal(0, (2 / i) ** .5, (i, o)).astype('f4'), np.zeros(o, 'f4'))
     for i, o in ((784, 64), (64, 64), (64, 10))]
def f(w, x, y):
    for a, b in w[:-1]: x = jax.nn.relu(x @ a + b)
    return optax.softmax_cross_entropy_with_integer_labels(x @ w[-1][0] + w[-1][1], y).mean()
opt = optax.adam(1e-3); state = opt.init(w)
@jax.jit
def step(w, state, x, y):
    l, g = jax.value_and_grad(f)(w, x, y); u, state = opt.update(g, state, w)
    return l, optax.apply_updates(w, u), state
l, w, state = step(w, state, x, y); loss = float(l)
"""
_SKLEARN_FIT = "m = MLPClassifier((64, 64), batch_size=32, max_iter=1).fit(x, y); loss = m.loss_"


class Library:
    """Statements: what is imported, what trains (setting ``loss``), where it caches compiled code."""

    threads_supported = None

    def __init__(self, imports: str, fit: str = "", cache: str | None = None):
        self.imports, self.fit, self.cache = imports, fit, cache


PEERS = {
    OURS: Library("import minidl; minidl.Sequential", "k = minidl" + _KERAS_FIT, "NUMBA_CACHE_DIR"),
    "numba alone": Library("import numba"),
    "numpy": Library("import numpy"),
    "sklearn": Library(
        "import warnings; warnings.simplefilter('ignore')\nfrom sklearn.neural_network import MLPClassifier",
        _SKLEARN_FIT,
    ),
    "torch": Library("import torch", _TORCH_FIT),
    "jax": Library(
        "import jax, optax", "rng = np.random.default_rng(0)" + _JAX_FIT, "JAX_COMPILATION_CACHE_DIR"
    ),
    "keras-jax": Library(
        "import os; os.environ['KERAS_BACKEND'] = 'jax'\nimport keras",
        "k = keras" + _KERAS_FIT,
        "JAX_COMPILATION_CACHE_DIR",
    ),
    "keras-torch": Library(
        "import os; os.environ['KERAS_BACKEND'] = 'torch'\nimport keras", "k = keras" + _KERAS_FIT
    ),
}


def program(library: Library, fit: bool) -> str:
    """Python that prints {"seconds", "loss"}: from before the import to after the first fit."""
    lines = ["import sys, time, json", "t = time.perf_counter()", library.imports, "loss = None"]
    if fit:
        lines += [_DATA, library.fit]
    return "\n".join(
        [*lines, "t = time.perf_counter() - t", "print(json.dumps({'seconds': t, 'loss': loss}))"]
    )


class NewProcess:
    """A contender every sample of which is a process from start to end."""

    def __init__(self, suite: Suite, peer: str, threads: int):
        self.suite, self.peer, self.threads = suite, peer, threads
        self.memory: dict[str, float] = {}
        self.details: dict[str, float] = {}
        self._warm = tempfile.TemporaryDirectory()

    def start(self, case: Case) -> None:
        """Run it once: files get into the page cache, code into the warm cache, the loss is checked."""
        self._case, self._library = case, PEERS[self.peer]
        self.suite.verify(case, type(self), self._once(self._warm.name)["loss"])

    def sample(self) -> tuple[float, float]:
        if self._case.name != COLD:
            return self._once(self._warm.name)["seconds"], 1.0
        with tempfile.TemporaryDirectory() as empty:
            return self._once(empty)["seconds"], 1.0

    def stop(self) -> None:
        self._warm.cleanup()

    def _once(self, cache: str) -> dict:
        environment = {**os.environ, **thread_environment(self.threads), "PYTHONPATH": str(ROOT)}
        if self._library.cache:
            environment[self._library.cache] = cache
            environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        done = subprocess.run(
            [sys.executable, "-c", program(self._library, self._case.name != IMPORT)],
            env=environment,
            text=True,
            capture_output=True,
            timeout=300,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise (Missing if "ModuleNotFoundError" in last else Refused)(last)
        return json.loads(done.stdout.strip().splitlines()[-1])


def verify(case: Case, peer: type, loss: float | None) -> None:
    if case.name != IMPORT and not (loss is not None and abs(loss - math.log(10)) < 2.0):
        raise Wrong(f"the loss of an untrained classifier of 10 is about {math.log(10):.1f}, got {loss}")


FITTING = tuple(name for name, library in PEERS.items() if library.fit)


def sections(results: dict) -> list[str]:
    """minidl's import beside Numba's, and its first fit beyond its import: the promised differences."""
    times = {
        (r["name"], key.rpartition("@")[0]): entry["median"]
        for r in results["cases"]
        for key, entry in r["times"].items()
    }
    lines = []
    ours, numba = times.get((IMPORT, OURS)), times.get((IMPORT, "numba alone"))
    if ours and numba:
        lines.append(
            f"- `import minidl` takes {ours - numba:.2f} s longer than `import numba` (promised: 0.15 s)."
        )
    if ours and (WARM, OURS) in times:
        lines.append(
            f"- Caches warm, a first `fit` ends {times[WARM, OURS] - ours:.2f} s after the import "
            f"(promised: 0.5 s)."
        )
    if ours and (COLD, OURS) in times:
        lines.append(
            f"- Nothing cached, it ends {times[COLD, OURS] - ours:.1f} s after the import (promised: 10 s)."
        )
    return ["## Promises", "", *lines, ""] if lines else []


SUITE = Suite(
    name="startup",
    title="From nothing to the first training step",
    unit="process",
    module="benchmarks.startup",
    peers=PEERS,
    verify=verify,
    contender=NewProcess,
    quick=(IMPORT, WARM),
    rounds=5,
    budget_seconds=40.0,
    cases=[Case(IMPORT, {}, tuple(PEERS)), Case(COLD, {}, FITTING), Case(WARM, {}, FITTING)],
    sections=sections,
    targets=[
        Target(
            f"{name}, to the fastest of JAX, Keras and PyTorch",
            name,
            ("jax", "keras-jax", "keras-torch", "torch"),
            1.0,
        )
        for name in (IMPORT, WARM)
    ],
    notes="From before the import to after it, or to the end of a first fit of 784-64-64-10 on one batch. "
    "Nothing cached: the folder for compiled code is empty; caches warm: it is not, the files are in memory.",
)


def main(arguments: list[str] | None = None) -> int:
    return run(SUITE, arguments, threads=[2])


if __name__ == "__main__":
    sys.exit(main())
