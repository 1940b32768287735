"""Run every benchmark: ``python -m benchmarks [--quick] [--data FOLDER]``; soak and hinton_mnist are apart."""

from __future__ import annotations

import argparse
import importlib
import sys

SCRIPTS = (
    "matmul",
    "train_step",
    "distillation_loss",
    "logit_cache",
    "inference",
    "startup",
    "estimators",
    "time_to_accuracy",
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a taste of each; no result file is replaced")
    parser.add_argument("--data", help="folder with the four MNIST IDX files, for time_to_accuracy")
    options = parser.parse_args(arguments)
    failed = []
    for name in SCRIPTS:
        command = ["--quick"] if options.quick else []
        if name == "time_to_accuracy":
            if options.data is None:
                print("time_to_accuracy: left out, it needs --data FOLDER", flush=True)
                continue
            command += ["--data", options.data]
        print(f"\n=== {name} ===", flush=True)
        if importlib.import_module(f"benchmarks.{name}").main(command):
            failed.append(name)
    if failed:
        print(f"incomplete or wrong: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
