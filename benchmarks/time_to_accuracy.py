"""Seconds to 98 % on the 10,000 test digits of MNIST, everything included.

    python -m benchmarks.time_to_accuracy --data FOLDER [--quick]

FOLDER holds the four IDX files of MNIST, gzipped or not. The clock runs from the start of the Python process
over imports, reading the files, compilation and training to the end of the first epoch after which 98 % are
right; only looking at the test digits is not counted. The same net, batch size and Adam for all, and in each
round the same initial weights. Shuffling differs, so the number of epochs does too: it is reported, and each
round has another seed, or the time would tell of one seed's luck.
"""

from __future__ import annotations

import sys
import tempfile

import numpy as np

from .harness import OURS, Case, Refused, Suite, Target, Worker, Wrong, parser
from .harness import main as run
from .trainers import TRAINERS, mnist

GOAL, MOST_EPOCHS = 0.98, 40
COLD = f"{OURS}-cold"  # with an empty folder for compiled code
NAMES = (
    OURS,
    "numpy",
    "sklearn",
    "torch-fused",
    "torch-compile",
    "jax-step",
    "jax-scan",
    "keras-jax",
    "keras-torch",
)
PEERS = {name: TRAINERS[name] for name in NAMES} | {COLD: TRAINERS[OURS]}
NETS = {"784-256-128-10, batch 64": (784, 256, 128, 10, 64)}


class Run:
    """A contender every sample of which is a process that trains from nothing until the goal."""

    def __init__(self, suite: Suite, peer: str, threads: int):
        self.suite, self.peer, self.threads = suite, peer, threads
        self.memory: dict[str, float] = {}
        self.details: dict[str, list[int]] = {"epochs": []}

    def start(self, case: Case) -> None:
        """A first run, not timed: reaching the goal is the verification; it also fills the caches."""
        self._case = case
        self.test_x, self.test_y = mnist(case.params["data"], "t10k")
        if self.peer != COLD:
            self.sample()
            self.details["epochs"].clear()

    def stop(self) -> None: ...

    def sample(self) -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as empty:
            cache = {"NUMBA_CACHE_DIR": empty} if self.peer == COLD else {}
            worker = Worker(self.suite.module, self.peer, self.threads, cache)
            try:
                return self._train(worker)
            finally:
                worker.close()

    def _train(self, worker: Worker) -> tuple[float, float]:
        looking, busy, right = 0.0, 0.0, 0.0
        params = self._case.params | {"seed": len(self.details["epochs"]) + 1}
        for method, arguments in [("load", ()), ("prepare", (params,))]:
            busy += worker.call(method, *arguments, stop=False)[2]
        for epoch in range(1, MOST_EPOCHS + 1):
            busy += worker.call("run", 1, stop=False)[2]
            total = worker.age() - looking
            began = worker.age()
            classes, _, _ = worker.call("predictions", self.test_x, stop=False)
            right = accuracy(classes, self.test_y)
            looking += worker.age() - began
            if right >= GOAL:
                self.details["epochs"].append(epoch)
                return total, busy / total
        raise Wrong(f"{right:.2%} of the test digits right after {MOST_EPOCHS} epochs, {GOAL:.0%} wanted")


def accuracy(classes: np.ndarray, labels: np.ndarray) -> float:
    """Share of right classes; an answer that is not one class a digit is refused."""
    if np.shape(classes) != labels.shape:
        raise Refused(f"{labels.shape} classes were expected, got {np.shape(classes)}")
    return float((np.asarray(classes) == labels).mean())


def sections(results: dict) -> list[str]:
    rows = [
        f"| {key} | {', '.join(map(str, entry['epochs']))} |"
        for r in results["cases"]
        for key, entry in r["times"].items()
    ]
    return ["## Epochs", "", "| | with each seed |", "| --- | ---: |", *rows, ""]


def suite(folder: str) -> Suite:
    cases = [
        Case(
            name,
            {"sizes": list(sizes), "batch": batch, "data": folder, "distilled": False, "epsilon": 1e-7},
            tuple(PEERS),
        )
        for name, (*sizes, batch) in NETS.items()
    ]
    return Suite(
        name="time_to_accuracy",
        title=f"Seconds to {GOAL:.0%} on MNIST",
        unit="run",
        module="benchmarks.time_to_accuracy",
        peers=PEERS,
        cases=cases,
        verify=lambda case, peer, outputs: None,
        quick=(cases[0].name,),
        contender=Run,
        rounds=3,
        sections=sections,
        targets=[Target(f"{case.name}, to the fastest peer", case.name, NAMES[1:], 1.0) for case in cases],
        notes="From the start of the process to the end of the first epoch with 98 % of the test digits "
        "right: imports, reading MNIST, compilation, training; caches of compiled code warm "
        f"except for {COLD}. Each round has another seed.",
    )


def main(arguments: list[str] | None = None) -> int:
    command = parser("time_to_accuracy")
    command.add_argument("--data", required=True, help="folder with the four MNIST IDX files")
    options = command.parse_args(arguments)
    try:
        mnist(options.data, "t10k")
    except FileNotFoundError as error:
        command.error(str(error))
    return run(suite(options.data), options=options)


if __name__ == "__main__":
    sys.exit(main())
