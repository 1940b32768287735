"""Warnings, and whether a process says anything at all."""

import sys
import warnings
from contextvars import ContextVar

quiet: ContextVar[bool] = ContextVar("quiet", default=False)
"""Whether nothing is said and nothing warned of: of several processes that train together, the first does it."""


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """A warning that points at the first caller outside of minidl."""
    if quiet.get():
        return
    level, frame, package = 2, sys._getframe(1), __name__.split(".")[0]
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == package:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
