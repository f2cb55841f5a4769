"""Downloads that can be cut, resumed and checked: a file is there when all of it is, and is what was promised."""

import base64
import hashlib
import json
import re
import shutil
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException, HTTPMessage, InvalidURL
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from cnnexp import __version__
from cnnexp.console import byte_progress, warn
from cnnexp.errors import UserError
from cnnexp.files import exclusive, open_file, write_atomic
from cnnexp.formats import read_json

SCHEMES = ("http", "https", "file")
WAITS_S = (0.5, 1.0, 2.0, 4.0)  # before another attempt, as long as none gets further than those before it
TIMEOUT_S = 30.0  # of silence
CHUNK = 1 << 16
PASSING = {408, 425, 429, 500, 502, 503, 504}  # answers of a server that may do better in a moment (RFC 9110, 6585)
VALIDATORS = ("ETag", "Last-Modified")


@dataclass(frozen=True)
class ExpectedFile:
    """What is known beforehand of a file: its bytes, and their SHA-256 in hex."""

    size: int | None = None
    sha256: str | None = None


class _Dropped(Exception):  # noqa: N818  it is no error yet
    """The connection was lost; another attempt may get the rest."""


def is_url(text: str) -> bool:
    """Whether this is a URL of any kind, and no path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text) is not None


def address(url: str) -> SplitResult:
    """The parts of a URL.

    Raises:
        UserError: it is none.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # which is parsed only here
    except ValueError as error:
        raise UserError(f"{url.partition('://')[0]}://...: is no address ({error})") from error
    return parts


def shown(url: str) -> str:
    """A URL for messages: without user, password and query, which may hold keys."""
    parts = address(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def file_name(url: str, promise: ExpectedFile) -> str:
    """A name for the file of a URL, with a part of the digest of its content; where that is not known, of the URL."""
    name = re.sub(r"[^\w.-]", "_", unquote(address(url).path).rpartition("/")[2])[-80:].lstrip(".") or "archive"
    return f"{(promise.sha256 or _digest_of(url))[:8]}-{name}"


def download(url: str, path: Path, promise: ExpectedFile = ExpectedFile()) -> None:
    """Get a file by http, https or file, unless it is there; proxies are taken from the environment.

    User and password in the address are sent as Basic authorization (RFC 7617), to its host alone.

    What comes is kept in `path.part`, and what tells its version in `path.part.json`: a download that was cut, even
    by a kill, goes on where it stopped, if the server can do that and the file there has not changed (RFC 9110,
    13.1.5 and 14.2). A lost connection is tried again. Of two processes, one waits for the other.

    Raises:
        UserError: a URL of another kind; the server refuses; the connection stays lost; another size or digest
            than promised (then what came is deleted); the disk is full.
    """
    if address(url).scheme.lower() not in SCHEMES:
        raise UserError(f"{shown(url)}: cannot be downloaded; give an address that begins with http:// or https://")
    with exclusive(path, "dataset.downloads"):
        if path.is_file():
            _check(path, path, url, promise)
            return
        part = _Part(path, url)
        _fetch(part, promise)
        _check(part.file, path, url, promise, part)
        part.file.rename(path)
        part.note.unlink(missing_ok=True)


class _Part:
    """The part of a file that has come, and a note of the version that it is of."""

    def __init__(self, path: Path, url: str) -> None:
        self.url = url
        self.file = path.with_name(f"{path.name}.part")
        self.note = path.with_name(f"{path.name}.part.json")
        try:
            facts = read_json(self.note, dict[str, Any])
            same = facts["url"] == _digest_of(url)
            self.validators: dict[str, str] = {name: str(facts[name]) for name in VALIDATORS if name in facts}
            self.total: int | None = None if facts["total"] is None else int(facts["total"])
        except (UserError, ValueError, KeyError, TypeError):
            same = False
        if not same or (self.total is not None and self.size() > self.total):
            self.begin(None, {})

    def size(self) -> int:
        return self.file.stat().st_size if self.file.is_file() else 0

    def begin(self, total: int | None, validators: dict[str, str]) -> None:
        """Empty the part: what comes now is of this version."""
        self.file.write_bytes(b"")  # first: a note never stands beside the bytes of another version
        self.total, self.validators = total, validators
        facts = {"url": _digest_of(self.url), "total": total} | validators
        write_atomic(self.note, json.dumps(facts).encode())

    def remove(self) -> None:
        self.note.unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)


def _digest_of(url: str) -> str:
    return hashlib.sha256(url.encode()).hexdigest()  # a URL may hold keys


# --------------------------------------------------------------------------------------------- attempts


def _fetch(part: _Part, promise: ExpectedFile) -> None:
    """Attempt by attempt, until all is there."""
    furthest, failures = part.size(), 0
    while part.total is None or part.size() < part.total:
        try:
            _attempt(part, promise)
            return
        except _Dropped as error:
            failures = 0 if part.size() > furthest else failures + 1
            furthest = max(furthest, part.size())
            of = f" of {part.total:,}" if part.total is not None else ""
            where = f"{shown(part.url)}: {error}, at {part.size():,}{of} bytes"
            if failures > len(WAITS_S):
                raise UserError(f"{where}; the same line again goes on from there") from error
            warn(f"{where}; trying again")
            time.sleep(WAITS_S[max(failures - 1, 0)])


def _attempt(part: _Part, promise: ExpectedFile) -> None:
    """Ask for what is missing, and append it.

    Raises:
        _Dropped: it did not come to its end, or the server could not go on in the middle.
        UserError: it is of no use to try again.
    """
    start = part.size()
    with _open(part, start, promise) as response:
        if response.status == 206:
            _check_range(part, start, response.headers)
        else:
            start, length = 0, response.headers.get("Content-Length")
            total = int(length) if length and length.isdigit() else None
            part.begin(total, {name: response.headers[name] for name in VALIDATORS if response.headers[name]})
        total = part.total
        if promise.size is not None and total not in (None, promise.size):
            part.remove()
            raise UserError(f"{shown(part.url)}: has {total:,} bytes, not {promise.size:,}: it is another file now")
        free = shutil.disk_usage(part.file.parent).free
        if total is not None and total - start > free:
            missing = f"{(total - start) / 1e6:,.0f} MB are needed, {free / 1e6:,.0f} MB are free"
            raise UserError(f"{part.file.parent}: {missing}; make room, or give another folder")
        with (
            part.file.open("ab") as file,
            byte_progress(f"downloading {Path(urlsplit(part.url).path).name}", total, start) as advance,
        ):
            for chunk in _chunks(response):
                file.write(chunk)
                advance(len(chunk))
    if total is not None and part.size() < total:
        raise _Dropped("the connection was cut")


def _open(part: _Part, start: int, promise: ExpectedFile) -> Any:
    """The server's answer to a request for the bytes from `start` on."""
    headers = {"User-Agent": f"cnnexp/{__version__}", "Accept-Encoding": "identity"}
    tag = part.validators.get("ETag", "W/")
    version = part.validators.get("Last-Modified") if tag.startswith("W/") else tag  # a weak tag will not do
    if start and (version or promise.sha256):
        headers["Range"] = f"bytes={start}-"
        headers |= {"If-Range": version} if version else {}
    try:
        return build_opener(_HttpOnly).open(_request(part.url, headers), timeout=TIMEOUT_S)
    except HTTPError as error:
        with error:
            if error.code == 416:  # the file there ends before our part does
                part.remove()
                part.begin(None, {})
            elif error.code not in PASSING:
                raise UserError(f"{shown(part.url)}: the server answers {error.code} {error.reason}") from error
        raise _Dropped(f"the server answers {error.code} {error.reason}") from error
    except (InvalidURL, ValueError) as error:
        raise UserError(f"{shown(part.url)}: is no address ({error})") from error
    except URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise UserError(f"{shown(part.url)}: its certificate cannot be trusted: {error.reason}") from error
        raise _Dropped(_first_line(error.reason)) from error
    except (OSError, HTTPException) as error:
        raise _Dropped(_first_line(error)) from error


def _request(url: str, headers: Mapping[str, str]) -> Request:
    """A request in which user and password are no part of the address; urllib would take them for the host's name."""
    parts = address(url)
    who, _, host = parts.netloc.rpartition("@")
    request = Request(parts._replace(netloc=host).geturl(), headers=dict(headers))
    if who:
        name, _, password = who.partition(":")
        told = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {told}")
    return request


def _host(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port: who is told the password."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _check_range(part: _Part, start: int, headers: Message) -> None:
    """The answer goes on where our part ends, and is of the same version; if not, all is asked for anew."""
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", ""))
    follows = found and int(found[1]) == start and found[2] in ("*", str(part.total))
    changed = [name for name in VALIDATORS if headers[name] and headers[name] != part.validators.get(name)]
    if not follows or changed:
        part.begin(None, {})
        raise _Dropped("the file has changed there")


def _chunks(response: Any) -> Iterator[bytes]:
    try:
        while chunk := response.read1(CHUNK):
            yield chunk
    except (OSError, HTTPException) as error:
        raise _Dropped(_first_line(error)) from error


def _first_line(error: object) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return f"the connection was lost ({text.splitlines()[0]})"


class _HttpOnly(HTTPRedirectHandler):
    """Follows a redirection to http and https only; urllib would go on to ftp too."""

    def redirect_request(  # noqa: PLR0913 - the signature is urllib's
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise UserError(f"{shown(req.full_url)}: leads to {shown(newurl)}, which is no http or https address")
        target = _request(newurl, {})  # which may bring a password of its own
        request = super().redirect_request(req, fp, code, msg, headers, target.full_url)
        told = target.get_header("Authorization")
        if not told and _host(req.full_url) == _host(target.full_url):
            told = req.get_header("Authorization")
        if request and told:
            request.add_unredirected_header("Authorization", told)
        return request


# ------------------------------------------------------------------------------------------------ check


def _check(file: Path, path: Path, url: str, promise: ExpectedFile, part: _Part | None = None) -> None:
    """Compare with what was promised; what has just come and is wrong is deleted."""
    size = file.stat().st_size
    found = wanted = f"{size:,} bytes"
    if promise.size is not None:
        wanted = f"{promise.size:,} bytes"
    if found == wanted and promise.sha256 is not None:
        found, wanted = file_sha256(file), promise.sha256
    if found == wanted:
        return
    if part:
        part.remove()
        raise UserError(
            f"{shown(url)}: what came is another file than expected: {found}, not {wanted} (SHA-256 or size); it was "
            "deleted, and the same line again starts anew"
        )
    raise UserError(
        f"{path}: is another file than {shown(url)}: {found}, not {wanted} (SHA-256 or size); delete it, so that it is "
        "downloaded"
    )


def file_sha256(path: Path) -> str:
    """SHA-256, in hex, of a file of any size, with a progress bar.

    Raises:
        OSError: it cannot be read.
    """
    whole = hashlib.sha256()
    with open_file(path) as file, byte_progress(f"checking {path.name}", path.stat().st_size) as advance:
        while chunk := file.read(1 << 20):
            whole.update(chunk)
            advance(len(chunk))
    return whole.hexdigest()
