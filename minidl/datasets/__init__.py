"""Data sets: ``mnist`` (downloaded or from a folder, and a part of it inside the package)."""

from __future__ import annotations

from . import mnist
from .idx import read_idx

__all__ = ["mnist", "read_idx"]
