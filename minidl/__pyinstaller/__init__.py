"""PyInstaller finds here what an app needs of minidl besides its modules: the embedded digits, and the sources."""

from pathlib import Path


def get_hook_dirs() -> list[str]:
    return [str(Path(__file__).parent)]
