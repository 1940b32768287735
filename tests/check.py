"""All that a change must pass, in one command: ``python -m tests.check``.

Style (ruff), format (ruff), the public API's types (mypy), the tests (pytest). Arguments are handed on to pytest:
``python -m tests.check -x tests/test_losses.py``. It needs ``pip install -e ".[test,dev]"``.
"""

from __future__ import annotations

import subprocess
import sys

CHECKS = ["ruff check .", "ruff format --check .", "mypy", "pytest -q"]


def main(arguments: list[str]) -> int:
    """Run every check, also after one has failed; 1 if any has."""
    failed = []
    for check in CHECKS:
        name, *rest = check.split()
        command = [name, *rest, *(arguments if name == "pytest" else [])]
        print("+", " ".join(command), flush=True)
        if subprocess.run([sys.executable, "-m", *command]).returncode:
            failed.append(name if name != "ruff" else f"ruff {rest[0]}")
    print("failed: " + ", ".join(failed) if failed else "all checks passed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
