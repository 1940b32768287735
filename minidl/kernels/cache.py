"""Compiled code on disk: one file for each function and signature, which proves that it is what was asked for.

A file begins with a digest of its key and its content. The key names all that the machine code follows from: function
and signature, every source file of this folder, the versions of Python, Numba and llvmlite, and the processor. A file
is written whole under another name, then renamed. So what a crash, a full disk, an upgrade or another process leaves
behind is either right or not used: then it costs a compilation, which replaces it, and never changes a number.

Code is read from the first of `FOLDERS` that has it, and kept in the first that can be written to.
"""

import contextlib
import hashlib
import importlib.resources
import itertools
import os
import pickle
import secrets
import sys
import tempfile
from pathlib import Path

import llvmlite
import numba
from numba.core.compiler import CompileResult
from numba.core.serialize import dumps


def _source_stamp() -> str | None:
    """A digest of every file of this folder, in a zip or as .pyc too; None where there are none to read.

    A kernel's code contains that of the kernels it calls, wherever they stand. So any edit discards all code.
    """
    entries = []
    # it is raised in an app that PyInstaller froze without the hook of minidl
    with contextlib.suppress(FileNotFoundError):
        entries = sorted(importlib.resources.files(__package__).iterdir(), key=lambda entry: entry.name)
    found = [entry for entry in entries if entry.name.endswith((".py", ".pyc"))]
    digest = hashlib.sha256()
    for entry in found:
        digest.update(entry.name.encode() + entry.read_bytes())
    return digest.hexdigest() if found else None


def _folders() -> list[Path]:
    """Where code may lie: what NUMBA_CACHE_DIR says; else beside the sources, or in the user's cache folder."""
    here = Path(__file__).parent
    own = f"minidl_{hashlib.sha256(str(here).encode()).hexdigest()[:16]}"  # apart from other copies of minidl
    if numba.config.CACHE_DIR:
        return [Path(numba.config.CACHE_DIR) / own]
    home = Path(os.path.expanduser("~"))
    defaults = {"win32": home / "AppData" / "Local", "darwin": home / "Library" / "Caches"}
    given = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    user = Path(given) if given else defaults.get(sys.platform, home / ".cache")
    return [folder for folder in (here / "__pycache__", user / own) if folder.is_absolute()]


_STAMP, FOLDERS = _source_stamp(), _folders()
_PART = ".part"
"""The suffix of a file's name while the file is being written."""
_STALE = 600.0
"""After so many seconds a file with that suffix was left by a killed process: writing one takes milliseconds."""
ADVICE = "let NUMBA_CACHE_DIR name a folder that can be written to"
_VERSIONS = sys.version, numba.__version__, llvmlite.__version__, numba.config.OPT


def folder() -> Path | None:
    """The folder that new code is kept in; None if none of `FOLDERS` can be written to."""
    for candidate in FOLDERS if _STAMP else ():
        with contextlib.suppress(OSError):
            candidate.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=candidate).close()
            return candidate
    return None


class FunctionCache:
    """Stands in a dispatcher for Numba's own cache. ``name`` tells the function from all others, ``has_entry`` whether
    Python can call what is kept (see `jit.Kernel`)."""

    cache_path = None

    def __init__(self, name: str, has_entry: bool = True):
        self._name, self._has_entry = name, has_entry

    def _key(self, signature, codegen) -> bytes:
        return repr((self._name, self._place(signature, codegen), _STAMP)).encode()

    def _place(self, signature, codegen) -> str:
        return repr((str(signature), self._has_entry, codegen.magic_tuple(), _VERSIONS))

    def _file(self, signature, codegen) -> str:
        """A later version of the sources takes the place of an earlier one; another signature, processor or Python
        has a file of its own."""
        place = self._place(signature, codegen).encode()
        return f"{self._name}-{hashlib.sha256(place).hexdigest()[:24]}.nbc"

    def has(self, signature, target) -> bool:
        """Whether there is a file for ``signature``, whatever it holds."""
        names = [cache._file(signature, target.codegen()) for cache in self._that_serve()]
        return any((folder / name).exists() for folder in FOLDERS for name in names)

    def _that_serve(self) -> list["FunctionCache"]:
        """Kernels can call code that Python can call, too."""
        return [self] if self._has_entry else [self, FunctionCache(self._name)]

    def load_overload(self, signature, target):
        """The compiled function, or None."""
        target.refresh()
        for cache, candidate in itertools.product(self._that_serve(), FOLDERS if _STAMP else ()):
            key, name = cache._key(signature, target.codegen()), cache._file(signature, target.codegen())
            with contextlib.suppress(Exception):  # no file, no right to read it, not of this key, damaged
                content = (candidate / name).read_bytes()
                if content[:32] == hashlib.sha256(key + content[32:]).digest():
                    return CompileResult._rebuild(target, *pickle.loads(content[32:]))
        return None

    def save_overload(self, signature, compiled) -> None:
        """Keep the compiled function. A failure (a full disk) leaves things as they were."""
        with contextlib.suppress(Exception):
            name = self._file(signature, compiled.codegen)
            data = dumps(compiled._replace(type_annotation="")._reduce())  # a listing that nobody reads
            target = folder() / name
            temporary = target.with_suffix(f".{secrets.token_hex(4)}{_PART}")
            try:
                # with the rights that the user's umask gives, for others to read
                with open(temporary, "xb") as file:
                    file.write(hashlib.sha256(self._key(signature, compiled.codegen) + data).digest() + data)
                os.replace(temporary, target)
                for part in target.parent.glob(f"*{_PART}"):
                    if part.stat().st_mtime < target.stat().st_mtime - _STALE:
                        part.unlink()
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
