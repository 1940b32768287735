"""Fetch one file of known size and hash from a list of mirrors, none of which is trusted."""

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from ..archive import replacing

_CHUNK = 1 << 16
_SCHEMES = ("http://", "https://")


class _WebRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses to be sent on to file:, ftp: and data: addresses."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if not newurl.lower().startswith(_SCHEMES):
            raise urllib.error.URLError(f"redirected to {newurl!r}, which is not http or https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _get(url: str, size: int, timeout: float, patience: float) -> bytes:
    """The body of ``url``, which must have ``size`` bytes."""
    body = bytearray()
    give_up = time.monotonic() + patience
    with urllib.request.build_opener(_WebRedirect).open(url, timeout=timeout) as response:
        # read1 returns after one read of the socket, so the clock is checked
        # even if the body arrives byte by byte.
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

    Nothing is written before length and SHA-256 are right, and then it is written to a temporary file
    that is renamed. So ``path`` is never a partial or altered file, and nothing else is left behind.

    Parameters
    ----------
    urls : the same file on several mirrors, tried in order; http or https.
    path : where to put it; the folder is created if it is missing.
    size, digest : its length in bytes and SHA-256 in hexadecimal.
    timeout : seconds to wait for an answer before the next mirror is tried.
    patience : seconds a whole transfer may take.

    Raises OSError if no mirror gave the file (with what each did), or if the folder cannot be written.
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
        with replacing(path) as file:
            file.write(body)
        return path
    raise OSError(f"could not download {path.name}:\n  " + "\n  ".join(failures))
