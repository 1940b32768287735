"""The MNIST digits: 60,000 + 10,000 images of 28x28 pixels, or the 8,000 that come with minidl.

MNIST is by Y. LeCun, C. Cortes and C. J. C. Burges, licence CC BY-SA 3.0: LICENSE-MNIST.txt beside this file.
"""

import hashlib
import os
import sys
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import numpy as np

from ..archive import replacing
from .idx import read_idx

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
FILES = {  # name: (bytes, SHA-256) of the .gz as published
    "train-images-idx3-ubyte": (9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
    "train-labels-idx1-ubyte": (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
    "t10k-images-idx3-ubyte": (1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
    "t10k-labels-idx1-ubyte": (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
}

_SCHEMES = ("http://", "https://")

Split = tuple[np.ndarray, np.ndarray]


def load_data(path: str | os.PathLike | None = None) -> tuple[Split, Split]:
    """All of MNIST, ``(x_train, y_train), (x_test, y_test)``, as Keras gives it.

    Images are uint8 ``(60000, 28, 28)`` and ``(10000, 28, 28)``, labels uint8 ``(60000,)`` and ``(10000,)``.

    Parameters
    ----------
    path : a folder with the four IDX files (``train-images-idx3-ubyte`` and so on, with or without ``.gz``). Any
        data set in MNIST's four files will do, Fashion-MNIST for one. By default the folder named by the
        environment variable ``MINIDL_DATA``, or else the user's cache folder. Files that are in neither are
        downloaded to ``MINIDL_DATA`` if it is set, else to the cache, and their SHA-256 is checked.

    Raises FileNotFoundError if ``path`` is given and lacks a file; ValueError, naming the file, if one is damaged or
    images and labels do not belong together; OSError if no mirror could be reached or none gave the right bytes.
    """
    if path is not None:
        found = _find(Path(path))
        if missing := [name for name in FILES if name not in found]:
            raise FileNotFoundError(
                f"path must be a folder with MNIST's four files, {path} has no {missing[0]}"
            )
        return _read(found)
    if chosen := os.environ.get("MINIDL_DATA"):
        if len(found := _find(Path(chosen))) == len(FILES):
            return _read(found)
    folders = [Path(chosen)] if chosen else []
    try:
        folders.append(cache_folder())
    except OSError:
        if not chosen:
            raise
    return _read({name: _fetch(name, folders) for name in FILES})


def load_subset() -> tuple[Split, Split]:
    """8,000 digits of MNIST that are part of the package: no network, about 30 ms.

    Returns ``(x_train, y_train), (x_test, y_test)``: uint8 images ``(6000, 28, 28)``, 600 of each class, evenly
    spaced in MNIST's training set, and ``(2000, 28, 28)``, 200 of each class, evenly spaced in its test set (whose
    first half is easier than its second); labels uint8. Made by ``make_subset``.
    """
    with resources.files(__package__).joinpath("mnist_subset.npz").open("rb") as file, np.load(file) as data:
        return (data["x_train"], data["y_train"]), (data["x_test"], data["y_test"])


def make_subset(folder: str | os.PathLike, output: str | os.PathLike) -> None:
    """Write the file that ``load_subset`` reads, ``mnist_subset.npz``, from MNIST's four IDX files in ``folder``."""
    arrays = {}
    for part, (x, y), per_class in zip(("train", "test"), load_data(folder), (600, 200), strict=True):
        rows = _evenly_spaced(y, per_class)
        arrays |= {f"x_{part}": x[rows], f"y_{part}": y[rows]}
    np.savez_compressed(output, **arrays)


def _evenly_spaced(labels: np.ndarray, per_class: int) -> np.ndarray:
    """Indices of ``per_class`` samples of each class, evenly spaced, in the order of the file."""
    chosen = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        if len(rows) < per_class:
            raise ValueError(f"class {label} has {len(rows)} samples, {per_class} are wanted")
        chosen.append(rows[np.arange(per_class) * len(rows) // per_class])
    return np.sort(np.concatenate(chosen))


def cache_folder() -> Path:
    """Where downloads go when ``MINIDL_DATA`` is not set: ``minidl/mnist`` in the user's cache folder.

    Raises OSError where the user has no home folder, as in a container with a user id of its own.
    """
    places = {"win32": ("LOCALAPPDATA", "AppData/Local"), "darwin": ("", "Library/Caches")}
    variable, below = places.get(sys.platform, ("XDG_CACHE_HOME", ".cache"))
    try:
        base = os.environ.get(variable) or Path.home() / below
    except RuntimeError as error:
        raise OSError("there is no home folder to keep data in: name a folder in MINIDL_DATA") from error
    return Path(base) / "minidl" / "mnist"


def _find(folder: Path) -> dict[str, Path]:
    """The ones of the four files that are in ``folder``, plain or gzipped."""
    files = [(name, folder / (name + ending)) for name in FILES for ending in ("", ".gz")]
    return {name: file for name, file in files if file.is_file()}


def _fetch(name: str, folders: list[Path]) -> Path:
    """The published file: from one of ``folders`` if its hash is right, else downloaded to the first of them."""
    size, digest = FILES[name]
    for place in folders:
        file = place / (name + ".gz")
        if file.is_file() and file.stat().st_size == size:
            if hashlib.sha256(file.read_bytes()).hexdigest() == digest:
                return file
    try:
        folders[0].mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{error}: no data can be kept there. Name a folder in MINIDL_DATA") from error
    try:
        return download(
            [mirror + name + ".gz" for mirror in MIRRORS], folders[0] / (name + ".gz"), size, digest
        )
    except OSError as error:
        hint = "put MNIST's four IDX files in a folder and name it in MINIDL_DATA, or use mnist.load_subset()"
        raise OSError(f"{error}\nWithout a network: {hint}.") from error


def _read(files: dict[str, Path]) -> tuple[Split, Split]:
    parts = []
    for part in ("train", "t10k"):
        images, labels = files[part + "-images-idx3-ubyte"], files[part + "-labels-idx1-ubyte"]
        x, y = read_idx(images), read_idx(labels)
        if x.ndim != 3 or x.dtype != np.uint8:
            raise ValueError(f"{images}: images must be uint8 with 3 dimensions, got {x.dtype} {x.shape}")
        if y.ndim != 1 or y.dtype != np.uint8:
            raise ValueError(f"{labels}: labels must be uint8 with 1 dimension, got {y.dtype} {y.shape}")
        if len(x) != len(y):
            raise ValueError(f"{labels}: {len(y)} labels for the {len(x)} images of {images}")
        parts.append((x, y))
    return tuple(parts)


def download(
    urls: Sequence[str],
    path: Path,
    size: int,
    digest: str,
    timeout: float = 15.0,
    patience: float = 300.0,
) -> Path:
    """Fetch a file of ``size`` bytes and SHA-256 ``digest`` from the first of the mirrors ``urls`` that gives it.

    No mirror is trusted: nothing is written before length and hash are right. ``timeout`` is the seconds to wait for
    an answer before the next mirror is tried, ``patience`` the seconds a whole transfer may take. OSError if no
    mirror gave the file.
    """
    from http.client import (
        HTTPException,
    )  # the web's modules take long to import, and only downloads need them

    path.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for url in urls:
        if not url.lower().startswith(_SCHEMES):
            raise ValueError(f"urls must be http or https addresses, got {url!r}")
        try:
            body = _get(url, size, timeout, patience)
            if (got := hashlib.sha256(body).hexdigest()) != digest:
                raise ValueError(f"SHA-256 is {got}, expected {digest}")
        except (OSError, HTTPException, ValueError) as error:
            failures.append(f"{url}: {error}")
            continue
        with replacing(path) as file:
            file.write(body)
        return path
    raise OSError(f"could not download {path.name}:\n  " + "\n  ".join(failures))


def _get(url: str, size: int, timeout: float, patience: float) -> bytes:
    """The body of ``url``, which must have ``size`` bytes."""
    from urllib import error, request

    class WebRedirect(request.HTTPRedirectHandler):
        """Refuses to be sent on to file:, ftp: and data: addresses."""

        def redirect_request(self, req, fp, code, msg, headers, newurl):
            if not newurl.lower().startswith(_SCHEMES):
                raise error.URLError(f"redirected to {newurl!r}, which is not http or https")
            return super().redirect_request(req, fp, code, msg, headers, newurl)

    body = bytearray()
    give_up = time.monotonic() + patience
    with request.build_opener(WebRedirect).open(url, timeout=timeout) as response:
        # read1 returns after one read of the socket: the clock is checked even if bytes arrive one by one
        while chunk := response.read1(1 << 16):
            body += chunk
            if len(body) > size:
                raise ValueError(f"sent more than the {size} bytes this file has")
            if time.monotonic() > give_up:
                raise TimeoutError(f"took longer than {patience:g} seconds")
    if len(body) < size:
        raise ValueError(f"sent {len(body)} of {size} bytes")
    return bytes(body)
