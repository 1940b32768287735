"""scikit-learn's perceptrons and minidl's with the same parameters on six sets: one fit, and the accuracy it gives.

    python -m benchmarks.estimators [--quick]

Both are the default estimators with the same ``random_state``, fitted on the same three quarters of each set, in
float32 and in float64. Sets come with scikit-learn or with minidl (the digits of MNIST), or are generated.
"""

from __future__ import annotations

import functools
import statistics
import sys
import warnings

import numpy as np

from .harness import OURS, Case, Peer, Resident, Suite, Target, Wrong
from .harness import main as run

SEEDS = (0, 1, 2)
SETS = {
    # max_iter; scikit-learn takes a few tenths of a second
    "wine": 100,
    "breast_cancer": 60,
    "digits": 30,
    "classification": 20,
    "regression": 20,
    "mnist": 5,
}
BOUND = 0.15


@functools.cache
def load(name: str, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x, y, x_test, y_test of a set; the columns are standardised, pixels are in [0, 1]."""
    from sklearn import datasets

    from minidl.datasets import mnist

    if name == "mnist":
        (x, y), _ = mnist.load_subset()
        x = x.reshape(len(x), -1) / 255
    elif name == "classification":
        x, y = datasets.make_classification(4000, 20, n_informative=10, n_classes=4, random_state=0)
    elif name == "regression":
        x, y = datasets.make_friedman1(4000, noise=1.0, random_state=0)
        y = (y - y.mean()) / y.std()
    else:
        x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    if name != "mnist":
        x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)
    order = np.random.default_rng(0).permutation(len(x))
    train, test = np.split(order, [3 * len(x) // 4])
    x = x.astype(dtype)
    return x[train], y[train], x[test], y[test]


class Estimator(Peer):
    """Fits one library's estimator."""

    module = ""

    def load(self) -> None:
        import importlib

        warnings.simplefilter("ignore")  # that it has not converged
        self.library = importlib.import_module(self.module)

    def prepare(self, case: dict) -> None:
        self.case = case
        self.x, self.y, self.x_test, self.y_test = load(case["set"], case["dtype"])
        self.make(0).set_params(max_iter=1).fit(self.x, self.y)  # compiled before the clock runs

    def make(self, seed: int):
        kind = "MLPRegressor" if self.case["set"] == "regression" else "MLPClassifier"
        return getattr(self.library, kind)(random_state=seed, max_iter=self.case["max_iter"])

    def outputs(self) -> list[float]:
        """The score on the held-out quarter (accuracy, of numbers R2) with each seed."""
        fitted = [self.make(seed).fit(self.x, self.y) for seed in SEEDS]
        return [float(each.score(self.x_test, self.y_test)) for each in fitted]

    def run(self, count: int) -> None:
        for _ in range(count):
            self.make(0).fit(self.x, self.y)


class Minidl(Estimator):
    module = "minidl.interop.sklearn"


class Sklearn(Estimator):
    module = "sklearn.neural_network"


PEERS = {OURS: Minidl, "sklearn": Sklearn}


@functools.cache
def expected(set_name: str, dtype: str, max_iter: int) -> list[float]:
    """scikit-learn's scores."""
    peer = Sklearn()
    with warnings.catch_warnings():
        peer.load()
        peer.prepare({"set": set_name, "dtype": dtype, "max_iter": max_iter})
        return peer.outputs()


def verify(case: Case, peer: type, outputs: list[float]) -> None:
    wanted = expected(*case.params.values())
    apart = abs(statistics.mean(outputs) - statistics.mean(wanted))
    allowed = max(statistics.stdev(wanted), 0.005)
    if not apart <= allowed:
        raise Wrong(f"scores {outputs} are {apart:.4f} from scikit-learn's {wanted}, {allowed:.4f} allowed")


class Scored(Resident):
    """A contender that keeps its scores beside its times."""

    def start(self, case: Case) -> None:
        super().start(case)
        self.details = {"scores": self._worker.call("outputs")[0]}


def sections(results: dict) -> list[str]:
    rows = []
    for record in results["cases"]:
        for key, entry in record["times"].items():
            mean, deviation = statistics.mean(entry["scores"]), statistics.stdev(entry["scores"])
            rows.append(f"| {record['name']} | {key} | {mean:.4f} | {deviation:.4f} |")
    header = ["| | | mean score | deviation |", "| --- | --- | ---: | ---: |"]
    about = f"Accuracy, of the regression R2, on the held-out quarter, with {len(SEEDS)} seeds."
    return ["## Scores", "", about, "", *header, *rows, ""]


CASES = [
    Case(f"{name}, {dtype}", {"set": name, "dtype": dtype, "max_iter": most}, tuple(PEERS), group=dtype)
    for dtype in ("float32", "float64")
    for name, most in SETS.items()
]
SUITE = Suite(
    name="estimators",
    title="One fit of scikit-learn's perceptrons",
    unit="fit",
    module="benchmarks.estimators",
    peers=PEERS,
    cases=CASES,
    verify=verify,
    quick=("wine, float32", "digits, float64"),
    contender=Scored,
    rounds=5,
    targets=[Target(f"{case.name}, to scikit-learn", case.name, ("sklearn",), BOUND) for case in CASES],
    sections=sections,
    notes="Default estimators (one hidden layer of 100, Adam, batches of 200) for "
    + ", ".join(f"{most} epochs of {name}" for name, most in SETS.items())
    + "; the whole fit is timed, scikit-learn's checks of the data included. Verified: the mean score of three seeds "
    "is scikit-learn's within its deviation.",
)


def main(arguments: list[str] | None = None) -> int:
    return run(SUITE, arguments)


if __name__ == "__main__":
    sys.exit(main())
