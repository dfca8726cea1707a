"""One file from a server that may break off: resumed, patient, checked.

In:  a :class:`~sslaudio.data.corpora.base.Source` and a folder.
Out: the file in the folder, under its own name, with the published checksum.

What has come is kept beside it as ``NAME.part``, through a broken connection and through the end of
the process, and the rest is asked for by HTTP Range. A server that knows no ranges sends all again.
pooch compares the checksum and puts the file in its place.
"""

import base64
import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pooch
import requests

from sslaudio.data.corpora.base import Source
from sslaudio.data.progress import ProgressMaker, in_megabytes

TRIES = 5
"""In a row without a byte more, before it is given up."""
PAUSE_SECONDS = 1.0
"""After the first of them; twice as long after each other one: 15 s in all."""
CONNECT_SECONDS, READ_SECONDS = 10, 60
"""Time limits for a connection, and for its next bytes."""

_LONGEST_PAUSE_SECONDS = 60.0
_BLOCK = 1 << 16
_OK, _PART, _NOT_SATISFIABLE, _TOO_MANY, _SERVER_ERROR = 200, 206, 416, 429, 500
_GO_ON = "run the command again to go on"


def retrieve(source: Source, folder: Path, progress: ProgressMaker) -> tuple[Path, bool]:
    """A file of a server, from what of it is here already.

    Returns:
        Its path, and whether its bytes were compared with a checksum: the published one, or else
        the MD5 that the server told with them.

    Raises:
        ValueError: it is not there, not given out, or not what was published.
        OSError: the server cannot be reached, or breaks off time and again.
    """
    pooch.get_logger().setLevel("WARNING")
    server = _Server(source, folder / f"{source.name}.part", progress)
    path = folder / source.name
    try:
        known = source.checksum or None
        pooch.retrieve(source.url, known, source.name, folder, downloader=server)
    except ValueError as error:
        if not server.is_whole:
            raise
        found = pooch.file_hash(str(server.part), alg=source.checksum.partition(":")[0])
        server.forget()
        raise _other_bytes(source, source.checksum, found) from error
    server.forget()
    return path, bool(source.checksum) or server.was_told


def bytes_here(source: Source, folder: Path) -> int:
    """How much of a file has come."""
    whole, part = folder / source.name, folder / f"{source.name}.part"
    return next((path.stat().st_size for path in (whole, part) if path.is_file()), 0)


class _Server:
    """A downloader for pooch: puts the bytes of an address into a file."""

    def __init__(self, source: Source, part: Path, progress: ProgressMaker) -> None:
        self.source, self.part, self.progress = source, part, progress
        self.is_whole = self.was_told = False
        self._notes = part.with_name(f"{part.name}.json")
        self._pause_seconds = 0.0

    def __call__(self, url: str, output_file: Any, pooch: Any, check_only: bool = False) -> None:
        """As pooch calls it."""
        failures, furthest = 0, self._have()
        while fault := self._attempt(url):
            have = self._have()
            failures = 0 if have > furthest else failures + 1
            furthest = max(have, furthest)
            if failures >= TRIES:
                raise OSError(
                    f"{url}: {fault}, {TRIES} times in a row; {have} bytes are kept, {_GO_ON}"
                )
            pause = max(self._pause_seconds, PAUSE_SECONDS * 2 ** max(failures - 1, 0))
            time.sleep(min(pause, _LONGEST_PAUSE_SECONDS))
        self._compare()
        self.is_whole = True
        _link(self.part, Path(output_file))

    def forget(self) -> None:
        """Remove what came in parts."""
        self.part.unlink(missing_ok=True)
        self._notes.unlink(missing_ok=True)

    def _attempt(self, url: str) -> str:
        """Ask for what lacks; returns what went wrong, or nothing."""
        start, notes = self._have(), self._read_notes()
        if start and start == notes.get("total"):
            return ""
        # Parts that lack bytes are compressed otherwise, and no range would fit.
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if notes.get("validator") and not self.source.checksum:
                headers["If-Range"] = notes["validator"]
        self._pause_seconds = 0.0
        try:
            limits = (CONNECT_SECONDS, READ_SECONDS)
            with requests.get(url, headers=headers, stream=True, timeout=limits) as response:
                return self._receive(response, start, notes)
        except requests.RequestException as error:
            return _cause(error)

    def _receive(self, response: requests.Response, start: int, notes: dict[str, Any]) -> str:
        status, headers = response.status_code, response.headers
        first, total = _content_range(headers.get("Content-Range", ""))
        if status == _NOT_SATISFIABLE and total == start:
            self._write_notes({**notes, "total": total})
            return ""
        if status == _PART and total is None:  # "bytes 10-19/*": whoever serves it may not know
            total = notes.get("total")
        changed = notes.get("total") not in (None, total)
        if status == _NOT_SATISFIABLE or (status == _PART and (first != start or changed)):
            self.part.unlink()
            return "the file changed on the server and is begun anew"
        if status == _TOO_MANY or status >= _SERVER_ERROR:
            wait = headers.get("Retry-After", "")
            self._pause_seconds = float(wait) if wait.isdigit() else 0.0
            return f"the server is busy or faulty (HTTP {status})"
        if status not in (_OK, _PART):
            raise ValueError(
                f"{response.url} is not given out (HTTP {status}): see whether the publisher moved "
                f"it, and fetch it by hand"
            )
        if status == _OK:
            start, length = 0, headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
        self._check_room(total, start)
        told = _told_md5(headers.get("x-goog-hash", ""))
        validator = _validator(headers)
        self._write_notes({"total": total, "validator": validator, "md5": told})
        self._append(response, start, total)
        have = self._have()
        if total is None:
            self._write_notes({"total": have, "validator": validator, "md5": told})
        return "" if total in (None, have) else f"the server broke off at {have} of {total} bytes"

    def _append(self, response: requests.Response, start: int, total: int | None) -> None:
        left = (total or self.source.size_bytes) - start
        title = f"{'going on with' if start else 'downloading'} {self.source.name}"
        with (
            self.part.open("ab" if start else "wb", buffering=0) as file,
            in_megabytes(self.progress, title, left) as advance,
        ):
            for block in response.iter_content(_BLOCK):
                file.write(block)
                advance(len(block))

    def _check_room(self, total: int | None, start: int) -> None:
        free = shutil.disk_usage(self.part.parent).free
        left = (total or 0) - start
        if left > free:
            raise ValueError(
                f"{self.source.name}: {left} bytes are still to come and {self.part.parent} has "
                f"{free} free; free some, or fetch into another --root"
            )

    def _compare(self) -> None:
        """With the MD5 that the server told, where nobody published one."""
        told = self._read_notes().get("md5")
        if not told or self.source.checksum:
            return
        found = pooch.file_hash(str(self.part), alg="md5")
        if found != told:
            self.forget()
            raise _other_bytes(self.source, f"md5:{told}", found)
        self.was_told = True

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _read_notes(self) -> dict[str, Any]:
        if not self._notes.is_file() or not self.part.is_file():
            return {}
        try:
            return dict(json.loads(self._notes.read_bytes()))
        except ValueError:  # cut short by the end of the process that wrote it
            return {}

    def _write_notes(self, notes: dict[str, Any]) -> None:
        self._notes.write_text(json.dumps(notes))


def _link(part: Path, output: Path) -> None:
    """The same bytes under another name, so that a kill while they are compared loses none."""
    output.unlink(missing_ok=True)
    try:
        os.link(part, output)
    except OSError:  # a file system without hard links
        shutil.copyfile(part, output)


def _other_bytes(source: Source, expected: str, found: str) -> ValueError:
    method, _, digest = expected.rpartition(":")
    return ValueError(
        f"{source.name} is not what was published: its {method} is {found}, expected {digest}; it "
        f"was removed. Run the command again; if that gives the same, {source.url} has changed, so "
        f"see what its publisher says"
    )


def _content_range(text: str) -> tuple[int | None, int | None]:
    """First byte and total of ``bytes 10-19/20`` or ``bytes */20``."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", text.strip())
    if not match:
        return None, None
    first, total = match.groups()
    return int(first) if first else None, int(total) if total != "*" else None


def _told_md5(header: str) -> str | None:
    """Of ``crc32c=…,md5=…``, as Google's storage tells it with every file."""
    match = re.search(r"md5=([A-Za-z0-9+/]{22}==)", header)
    return base64.b64decode(match[1]).hex() if match else None


def _validator(headers: Any) -> str | None:
    """What tells versions of a file apart; weak tags may not be used with ranges."""
    tag = headers.get("ETag", "")
    return tag if tag.startswith('"') else headers.get("Last-Modified")


def _cause(error: requests.RequestException) -> str:
    if isinstance(error, requests.ConnectTimeout | requests.ReadTimeout):
        return "the server does not answer"
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate is not good"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the server broke off"
    if isinstance(error, requests.ConnectionError):
        return "the server cannot be reached or broke off; is there a network?"
    return " ".join(str(error).split()) or type(error).__name__
