"""Fetch one file of known size and hash from a list of mirrors; trust none of them."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

_CHUNK = 1 << 16
_SCHEMES = ("http://", "https://")


def sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


class _WebRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if not newurl.lower().startswith(_SCHEMES):
            raise urllib.error.URLError(f"redirected to {newurl!r}, which is not http or https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """An opener that knows the web and nothing else: no file:, ftp: or data: addresses."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _WebRedirect(),
    ):
        opener.add_handler(handler)
    return opener


def _get(url: str, size: int, timeout: float, patience: float) -> bytes:
    """The body of ``url``, which must have ``size`` bytes."""
    body = bytearray()
    give_up = time.monotonic() + patience
    with _opener().open(url, timeout=timeout) as response:
        # read1 returns with what one read of the socket gave, so that a body that
        # trickles in byte by byte cannot keep the loop from looking at the clock.
        while chunk := response.read1(_CHUNK):
            body += chunk
            if len(body) > size:
                raise ValueError(f"sent more than the {size} bytes this file has")
            if time.monotonic() > give_up:
                raise TimeoutError(f"took longer than {patience:g} seconds")
    if len(body) < size:
        raise ValueError(f"sent {len(body)} of {size} bytes")
    return bytes(body)


def download(
    urls: Sequence[str],
    path: str | os.PathLike,
    size: int,
    digest: str,
    timeout: float = 15.0,
    patience: float = 300.0,
) -> Path:
    """Fetch a file from the first of ``urls`` that gives exactly the right bytes.

    Nothing is written before length and SHA-256 are right, and then to a temporary file that is
    renamed: ``path`` is never a partial or altered file, and nothing else is left behind.

    Parameters
    ----------
    urls : the same file on several mirrors, tried in order; http or https.
    path : where to put it; the folder is made if need be.
    size, digest : its length in bytes and SHA-256 in hexadecimal.
    timeout : seconds without an answer before a mirror is given up.
    patience : seconds a whole transfer may take.

    Raises
    ------
    OSError
        if no mirror gave the file (with what each did), or the folder cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for url in urls:
        if not url.lower().startswith(_SCHEMES):
            raise ValueError(f"urls must be http or https addresses, got {url!r}")
        try:
            body = _get(url, size, timeout, patience)
            if (got := hashlib.sha256(body).hexdigest()) != digest:
                raise ValueError(f"SHA-256 is {got}, expected {digest}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            failures.append(f"{url}: {error}")
            continue
        _write(path, body)
        return path
    raise OSError(f"could not download {path.name}:\n  " + "\n  ".join(failures))


def _write(path: Path, body: bytes) -> None:
    """Write beside ``path``, then rename: at any moment ``path`` is absent, old or whole."""
    handle, temporary = tempfile.mkstemp(prefix=path.name + ".", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
