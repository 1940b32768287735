"""What a CSR matrix costs: peak memory and time of fit and predict, beside the same numbers in a dense array.

``python -m benchmarks.sparse`` makes 20,000 rows of 5,000 columns with 1 % of the entries, and runs each form in a
process of its own. The results must be equal to the bit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from . import report
from .harness import ROOT

ROWS, COLUMNS, DENSITY = 20_000, 5_000, 0.01
FORMS = ("csr", "dense")


def measure(form: str, rows: int, columns: int) -> dict:
    """Train and predict in this process; returns seconds, MiB and a digest of the results."""
    import scipy.sparse

    import minidl
    from minidl.layers import Dense, Input

    rng = np.random.default_rng(0)
    x = scipy.sparse.random_array((rows, columns), density=DENSITY, format="csr", dtype=np.float32, rng=rng)
    y = rng.integers(0, 10, rows)
    model = minidl.Sequential([Input((columns,)), Dense(64, "relu"), Dense(10, "softmax")], seed=0)
    model.compile("adam", "sparse_categorical_crossentropy")
    # compile the kernels before the clock runs
    model.evaluate(x[:64], y[:64], verbose=0)
    model.fit(x[:64], y[:64], verbose=0)
    before = _peak()
    x = x if form == "csr" else x.toarray()
    began = time.perf_counter()
    model.fit(x, y, epochs=2, verbose=0)
    fitted = time.perf_counter()
    outputs = model.predict(x)
    seconds = fitted - began, time.perf_counter() - fitted
    digest = hashlib.sha256(model.params.tobytes() + outputs.tobytes()).hexdigest()
    held = x.nbytes if form == "dense" else x.data.nbytes + x.indices.nbytes + x.indptr.nbytes
    times = dict(zip(("fit", "predict"), seconds, strict=True))
    return {
        "form": form,
        "holds": held / 2**20,
        "grew": _peak() - before,
        "peak": _peak(),
        **times,
        "digest": digest,
    }


def _peak() -> float:
    """The most memory that this process has had, in MiB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def markdown(results: dict) -> str:
    lines = [
        f"| {run['form']} | {run['holds']:,.0f} | {run['grew']:,.0f} | {run['peak']:,.0f} | {run['fit']:.2f} | "
        f"{run['predict']:.2f} |"
        for run in results["runs"]
    ]
    rows = "\n".join(lines)
    machine, equal = results["machine"], "equal to the bit" if results["equal"] else "NOT equal"
    return (
        f"# A CSR matrix as x\n\n{results['rows']:,} rows of {results['columns']:,} columns, {DENSITY:.0%} of the "
        f"entries, float32; {results['columns']}-64-10, two epochs of batches of 32, then a prediction of all rows. "
        f"The results of both forms are {equal}.\n\n{machine['processor']}, {machine['date']}.\n\n"
        "| x | its own MiB | peak grew by MiB | peak MiB | fit, s | predict, s |\n"
        f"| --- | ---: | ---: | ---: | ---: | ---: |\n{rows}\n"
    )


def main(arguments: list[str] | None = None) -> int:
    command = argparse.ArgumentParser(prog="python -m benchmarks.sparse")
    command.add_argument(
        "--quick", action="store_true", help="a tenth of the rows; no result file is replaced"
    )
    command.add_argument("--form", choices=FORMS, help="this one, in this process")
    command.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    options = command.parse_args(arguments)
    rows = ROWS // 10 if options.quick else ROWS
    if options.form:
        print(json.dumps(measure(options.form, rows, COLUMNS)))
        return 0
    runs = []
    for form in FORMS:
        child = [sys.executable, "-m", "benchmarks.sparse", "--form", form, *["--quick"] * options.quick]
        done = subprocess.run(child, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    results = {"suite": "sparse", "machine": report.machine(), "rows": rows, "columns": COLUMNS, "runs": runs}
    results["equal"] = len({run["digest"] for run in runs}) == 1
    text = markdown(results)
    print(text)
    for path in report.write_files("sparse", results, text, None, options.output, not options.quick):
        print(f"wrote {path}")
    return 0 if results["equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
