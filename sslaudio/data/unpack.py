"""An archive that nobody vouches for, put into a folder and nowhere else.

In:  a tar, a zip, or the volumes of a split zip, and an empty folder.
Out: the files below the folder, each checked before a byte of it is written.

What would lie outside the folder, stands twice in the archive, is neither file nor folder, has
endless headers, or is far more than such an archive holds, ends it with one line. Links are never
made: one that leads outside ends it too, others are left out.
"""

import gzip
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal, NamedTuple

from sslaudio.data.metered import HeadersError, Metered
from sslaudio.data.progress import ProgressMaker, in_megabytes
from sslaudio.data.split_zip import open_volumes

MOST_TIMES = 20
"""The most that an archive may unpack to, by its size: one of sound takes 1 to 2, of tables 10."""
ALWAYS_ALLOWED_BYTES = 64 << 20
"""So much a small archive may unpack to, however well it was packed."""
MOST_MEMBERS = 2_000_000
"""The largest corpus has 300,000 files."""

_BLOCK = 1 << 20
_LONGEST_LINK = 4096
_GZIP = b"\x1f\x8b"
_NO_CORPUS = "no archive of a corpus does; nothing of it was kept"
_Kind = Literal["file", "folder", "link", "other"]
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error)
_NOT_PLAIN = (FileExistsError, NotADirectoryError, IsADirectoryError)


class DamagedError(ValueError):
    """An archive whose bytes make no sense: to be fetched again."""


@dataclass
class Unpacked:
    """What came out of an archive."""

    files: dict[str, int] = field(default_factory=dict)
    """Path below the folder to size in bytes."""
    left_out: list[str] = field(default_factory=list)
    """Links, and members that lie outside the folder of the archive that was asked for."""


class _Member(NamedTuple):
    name: str
    kind: _Kind
    size: int
    content: Any
    """Opens its bytes."""
    target: Any
    """Tells where a link leads, from the archive's top."""
    read_bytes: int
    """Of the archive, up to here."""


def unpack(
    volumes: Sequence[Path], into: Path, *, inside: str = "", progress: ProgressMaker
) -> Unpacked:
    """Put an archive's files into a folder.

    Args:
        volumes: the archive; several are a split zip.
        into: an empty folder.
        inside: folder of the archive whose content is taken.
        progress: shows how far it is.

    Raises:
        ValueError: the archive holds what no archive of a corpus does; what is in the folder by
            then is of no use.
    """
    name = volumes[-1].name
    packed = sum(volume.stat().st_size for volume in volumes)
    budget = _Budget(name, max(MOST_TIMES * packed, ALWAYS_ALLOWED_BYTES), into)
    unpacked = Unpacked()
    try:
        with (
            _opened(volumes, into) as members,
            in_megabytes(progress, f"unpacking {name}", packed) as advance,
        ):
            told = 0
            for member in members:
                _put(member, into, PurePosixPath(inside), budget, unpacked)
                advance(member.read_bytes - told)
                told = member.read_bytes
            advance(packed - told)
    except HeadersError as error:
        raise ValueError(f"{error}: {_NO_CORPUS}") from error
    except _DAMAGE as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise DamagedError(
            f"{name} is damaged ({words}); run the command again, and it is fetched anew"
        ) from error
    return unpacked


@dataclass
class _Budget:
    """How much may come out of an archive."""

    name: str
    most_bytes: int
    into: Path
    total_bytes: int = 0
    members: int = 0

    def take(self, size: int) -> None:
        """Before a file of that many bytes is written."""
        self.members += 1
        self.total_bytes += size
        if self.members > MOST_MEMBERS:
            raise ValueError(f"{self.name} has more than {MOST_MEMBERS} members: {_NO_CORPUS}")
        if self.total_bytes > self.most_bytes:
            raise ValueError(
                f"{self.name} would unpack to more than {self.most_bytes} bytes, {MOST_TIMES} "
                f"times its size: {_NO_CORPUS}"
            )
        free = shutil.disk_usage(self.into).free
        if size > free:
            raise ValueError(
                f"{self.name} unpacks to more than there is room for: {free} bytes are free where "
                f"{self.into} lies; free some, or give another --root"
            )


def _put(
    member: _Member, into: Path, inside: PurePosixPath, budget: _Budget, unpacked: Unpacked
) -> None:
    path = _safe(member.name, budget.name)
    if member.kind == "other":
        raise ValueError(
            f"{budget.name} holds {member.name!r}, which is neither file nor folder: {_NO_CORPUS}"
        )
    if member.kind == "link":
        _safe(member.target(), budget.name)
    budget.take(member.size if member.kind == "file" else 0)
    if path.parts[: len(inside.parts)] != inside.parts or member.kind == "link":
        unpacked.left_out += [] if member.kind == "folder" else [str(path)]
        return
    path = path.relative_to(inside)
    try:
        if member.kind == "folder":
            (into / path).mkdir(parents=True, exist_ok=True)
            return
        (into / path).parent.mkdir(parents=True, exist_ok=True)
        with member.content() as source, (into / path).open("xb") as file:
            _copy(source, file, member.size)
    except _NOT_PLAIN as error:
        raise ValueError(
            f"{budget.name} holds {member.name!r} twice, or as file and folder: {_NO_CORPUS}"
        ) from error
    unpacked.files[str(path)] = member.size


def _copy(source: IO[bytes], file: IO[bytes], size: int) -> None:
    """All of a member, and no more of it than was declared."""
    while size > 0:
        block = source.read(min(_BLOCK, size))
        if not block:
            raise EOFError("a file ends too early")
        file.write(block)
        size -= len(block)
    if source.read(1):
        raise EOFError("a file is longer than it says")


def _safe(name: str, archive: str) -> PurePosixPath:
    """A path below the archive's top."""
    path = PurePosixPath(name.replace("\\", "/"))
    is_drive = len(name) > 1 and name[1] == ":"
    if path.is_absolute() or ".." in path.parts or is_drive or "\0" in name:
        raise ValueError(f"{archive} would write outside its folder, to {name!r}: {_NO_CORPUS}")
    return path


@contextmanager
def _opened(volumes: Sequence[Path], into: Path) -> Iterator[Iterator[_Member]]:
    name = volumes[-1].name
    if len(volumes) > 1:
        with open_volumes(volumes) as file, zipfile.ZipFile(file) as archive:
            yield _zip_members(archive, name)
        return
    with volumes[0].open("rb") as raw:
        head = raw.read(2)
        raw.seek(0)
        if head != _GZIP and zipfile.is_zipfile(raw):
            with zipfile.ZipFile(raw) as archive:
                yield _zip_members(archive, name)
            return
        raw.seek(0)
        # A stream: gzip compares its checksum only where all is read once, in order.
        plain: Any = gzip.GzipFile(fileobj=raw) if head == _GZIP else raw
        metered = Metered(plain, name)
        with tarfile.open(fileobj=metered, mode="r|") as tar:
            yield _tar_members(tar, metered, name, raw, into)
        while plain.read(_BLOCK):
            pass


def _tar_members(
    tar: tarfile.TarFile, metered: Metered, name: str, raw: IO[bytes], into: Path
) -> Iterator[_Member]:
    for member in tar:
        metered.passed(member.size)
        kind: _Kind = "other"
        if member.isreg() or member.isdir():
            kind = "file" if member.isreg() else "folder"
        elif member.issym() or member.islnk():
            kind = "link"
        if kind != "other" and hasattr(tarfile, "data_filter"):  # from Python 3.11.4 on
            try:
                tarfile.data_filter(member, str(into))
            except tarfile.FilterError as error:
                raise ValueError(f"{name}: {error}: {_NO_CORPUS}") from error
        above = PurePosixPath(member.name).parent if member.issym() else PurePosixPath()
        yield _Member(
            member.name,
            kind,
            member.size if kind == "file" else 0,
            lambda member=member: tar.extractfile(member),
            lambda member=member, above=above: _joined(above, member.linkname),
            raw.tell(),
        )


def _zip_members(archive: zipfile.ZipFile, name: str) -> Iterator[_Member]:
    read_bytes = 0
    for info in archive.infolist():
        if info.flag_bits & 1:
            raise ValueError(f"{name}: {info.filename!r} is encrypted: {_NO_CORPUS}")
        mode = info.external_attr >> 16
        kind: _Kind = "folder" if info.is_dir() else "file"
        if stat.S_ISLNK(mode):
            kind = "link"
        elif stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            kind = "other"
        read_bytes += info.compress_size
        yield _Member(
            info.orig_filename,
            kind,
            info.file_size,
            lambda info=info: archive.open(info),
            lambda info=info: _zip_link(archive, info),
            read_bytes,
        )


def _zip_link(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> str:
    with archive.open(info) as file:
        target = file.read(_LONGEST_LINK).decode("utf-8", "replace")
    return _joined(PurePosixPath(info.filename).parent, target)


def _joined(above: PurePosixPath, target: str) -> str:
    """Where a link in a folder leads, with ``a/../`` taken out; ``..`` stays where it leads out."""
    parts: list[str] = []
    for part in (above / target).parts:
        if part == ".." and parts and parts[-1] not in ("..", "/"):
            parts.pop()
        else:
            parts.append(part)
    return str(PurePosixPath(*parts))
