"""Bridges to optional packages are tested where these are installed; CI installs them all."""

import importlib.util
import os

import pytest

REQUIRED = "MINIDL_EXTRAS"
"""Set in the stage of CI that has every extra: there an absent package is a failure."""


def needs(*packages: str) -> None:
    """Skip the test module that calls this where a package is absent; fail where all must be there."""
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    if absent and os.environ.get(REQUIRED):
        raise ModuleNotFoundError(f"{REQUIRED} is set, and these packages are absent: {', '.join(absent)}")
    if absent:
        pytest.skip(f"needs {', '.join(absent)}", allow_module_level=True)
