"""A file behind an address becomes a file in a cache: fetched once, bounded in size, and never used unless its SHA-256 is the declared one.

DIR/SHA256/NAME   the file, there whole or not at all
"""

from __future__ import annotations

import hashlib
import http.client
import re
import tempfile
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import SplitResult, urlsplit

from makegood import __version__
from makegood.errors import CaseError, DataError, Problem

MOST = 4 << 30  # bytes of one file
_PATIENCE_S = 30.0  # without a byte
_BLOCK = 1 << 20
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_WHERE = "data.source"
_BY_HAND = "or fetch the file by hand and write data.source: PATH (or --data PATH)"


def fetched(address: str, sha256: str | None, cache: Path | None = None, *, most: int = MOST) -> Path:
    """Return the file behind an address: out of the cache where it lies there as declared, else fetched into it.

    The cache is a folder, by default ~/.cache/makegood. Addresses are https, or http on this machine alone; they lead nowhere else.
    Raises `CaseError` for another address and where no SHA-256 is declared, `DataError` when nothing comes, more than `most` bytes
    come, or others than those declared.
    """
    parts = _checked(address)
    if sha256 is None:
        expected = "the SHA-256 of the file, as its publisher states it: what comes from elsewhere is used only if it is what was meant"
        mend = "or fetch the file, look at it, and write what `sha256sum FILE` prints"
        raise CaseError(Problem("data.sha256", "nothing", expected, mend))
    file = (cache or Path.home() / ".cache" / "makegood") / sha256 / _name(parts)
    if file.is_file() and _hash(file) == sha256:
        return file
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        got, mend = f"{file.parent}: {error.strerror}", "name another in MAKEGOOD_CACHE"
        raise CaseError(Problem("the cache", got, "a folder that can be written to", mend)) from None
    try:
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".") as folder:  # beside the file, so that moving it is one step
            part = Path(folder, file.name)
            _fetch(address, parts, part, most)
            verified(part, sha256, address).replace(file)
    except (http.client.HTTPException, OSError) as error:  # urllib's errors are OSErrors
        mend = f"look at the address and the network, {_BY_HAND}"
        raise DataError(Problem(_WHERE, f"{address}: {_reason(error)}", "the file behind this address", mend)) from None
    return file


def verified(path: Path, sha256: str, name: str) -> Path:
    """Return the path of a file whose SHA-256 is the declared one; raises `DataError` when it is another."""
    found = _hash(path)
    if found != sha256:
        mend = "it was damaged on its way or changed at its place: get it anew, and change data.sha256 only if you know why"
        raise DataError(Problem("data.sha256", f"{found} of {name}", sha256, mend))
    return path


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _checked(address: str) -> SplitResult:
    """Return the parts of an address that may be fetched."""
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError:  # brackets that do not close, a port that is no number
        parts, host = urlsplit(""), None
    if "@" in parts.netloc:
        raise CaseError(Problem(_WHERE, f"an address with a name or password on {host}", "an address without", _BY_HAND))
    if not (host and (parts.scheme == "https" or (parts.scheme == "http" and host in _LOOPBACK))):
        raise CaseError(Problem(_WHERE, address, "an https address", _BY_HAND))
    return parts


def _name(parts: SplitResult) -> str:
    """Return the file's name, whose end tells what it is.

    >>> _name(urlsplit("https://example.org/a/b%20c.csv.gz?x=1")), _name(urlsplit("https://example.org"))
    ('b-20c.csv.gz', 'file')
    """
    return re.sub(r"[^\w.-]+", "-", PurePosixPath(parts.path).name).strip(".-")[-100:] or "file"


class _SameWay(urllib.request.HTTPRedirectHandler):
    """Follow a redirection to https; to http only from and to this machine, and to nothing else."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Return the next request, or raise where it leads to an address that may not be fetched."""
        try:
            parts = _checked(newurl)
        except CaseError:
            raise urllib.error.URLError(f"it leads on to {newurl}, which is no https address") from None
        if parts.scheme != "https" and urlsplit(req.full_url).scheme == "https":
            raise urllib.error.URLError(f"it leads from https to {newurl}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch(address: str, parts: SplitResult, into: Path, most: int) -> None:
    """Write what an address answers; raises `DataError` when it is too much or ends early, and what urllib raises."""
    direct = [urllib.request.ProxyHandler({})] if parts.hostname in _LOOPBACK else []
    opener = urllib.request.build_opener(_SameWay, *direct)
    request = urllib.request.Request(address, headers={"User-Agent": f"makegood/{__version__}"})
    with opener.open(request, timeout=_PATIENCE_S) as answer, into.open("wb") as out:
        told = answer.headers.get("Content-Length", "")
        length, got = int(told) if told.isdecimal() else 0, 0
        while length <= most and (block := answer.read(_BLOCK)):
            got += len(block)
            if got > most:  # also where the answer did not say its length, or not the true one
                break
            out.write(block)
    if max(got, length) > most:
        raise DataError(Problem(_WHERE, f"more than {most:,} bytes behind {address}", f"at most {most:,}", _BY_HAND))
    if got < length:
        raise DataError(Problem(_WHERE, f"{got:,} of {length:,} bytes from {address}", "the whole file", f"try again, {_BY_HAND}"))


def _reason(error: Exception) -> str:
    """Return why nothing came, in a few words."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()
        return f"{error.code} {error.reason}"
    if isinstance(error, urllib.error.URLError):
        return _reason(error.reason) if isinstance(error.reason, Exception) else str(error.reason)
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
