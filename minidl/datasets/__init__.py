"""Data sets: ``mnist`` (downloaded, from a folder, or the subset inside the package)."""

from __future__ import annotations

from . import mnist
from .idx import read_idx

__all__ = ["mnist", "read_idx"]
