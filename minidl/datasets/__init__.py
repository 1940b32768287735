"""Data sets: ``mnist`` (downloaded, from a folder, or the subset inside the package)."""

from . import mnist as mnist
from .idx import read_idx as read_idx
