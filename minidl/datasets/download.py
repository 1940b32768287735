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


def download(
    urls: Sequence[str],
    path: str | os.PathLike,
    size: int,
    digest: str,
    timeout: float = 15.0,
    patience: float = 300.0,
) -> Path:
    """Fetch a file of ``size`` bytes and SHA-256 ``digest`` from the first of the mirrors ``urls`` that gives it.

    Nothing is written before length and hash are right. ``timeout`` is the seconds to wait for an answer before the
    next mirror is tried, ``patience`` the seconds a whole transfer may take. OSError if no mirror gave the file.
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
