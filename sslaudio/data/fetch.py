"""A corpus as published, from its publisher into a folder.

In:  a corpus's name, a folder, and the parts that are wanted.
Out: the folder as the corpus's importer reads it, or the steps to make one by hand.

``.fetch/`` in the folder holds what is under way (:mod:`sslaudio.data.download`), and a list of
every archive's files once they are in their place (:mod:`sslaudio.data.staging`): a fetch that was
killed goes on where it was, and a finished one is known by its lists.
"""

import difflib
import fcntl
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sslaudio import plugins
from sslaudio.data import staging
from sslaudio.data.corpora.base import Download, is_sound_file
from sslaudio.data.download import bytes_here, retrieve
from sslaudio.data.progress import ProgressMaker, shown
from sslaudio.data.unpack import DamagedError, unpack

Say = Callable[[str], None]
"""Called with a line for the user."""


@dataclass(frozen=True)
class Published:
    """What a corpus tells of its publisher."""

    name: str
    licence: str
    downloads: tuple[Download, ...] = ()
    steps: str = ""


def published(name: str) -> Published:
    """What may be fetched of a corpus, or how to get it by hand.

    Raises:
        ValueError: there is no such corpus; the message names the nearest. Or it does not tell.
    """
    module = plugins.load("corpora", name)
    downloads, steps = getattr(module, "DOWNLOADS", ()), getattr(module, "STEPS", "")
    if not downloads and not steps:
        raise ValueError(
            f"{name} tells no address to fetch it from: put it into a folder by hand, and go on "
            f"with sslaudio shards build --corpus {name} --root DIR"
        )
    return Published(name, getattr(module, "LICENCE", ""), downloads, steps)


@dataclass(frozen=True)
class Plan:
    """What a fetch will do."""

    published: Published
    root: Path
    finished: tuple[Download, ...]
    """Chosen, and in their place."""
    to_do: tuple[Download, ...]
    left_out: tuple[Download, ...]
    """Not chosen."""
    keep_archives: bool
    download_bytes: int
    """Still to come."""
    room_bytes: int
    """What the disk must have free at the fullest moment, about."""
    free_bytes: int

    def check_room(self) -> None:
        """Refuse where the disk is too small."""
        if self.room_bytes > self.free_bytes:
            raise ValueError(
                f"{self.root} has {gigabytes(self.free_bytes)} free and fetching "
                f"{self.published.name} takes {gigabytes(self.room_bytes)}: free some, give "
                f"another --root, or choose by --part ({', '.join(_parts(self.published))})"
            )


def plan(
    corpus: Published, root: Path, parts: Sequence[str] = (), *, keep_archives: bool = False
) -> Plan:
    """Choose archives, and see what of them is here.

    Args:
        corpus: one with downloads.
        root: need not be there yet.
        parts: what ``--part`` names; without, what the corpus's tasks need.
        keep_archives: do not remove them once they are unpacked.

    Raises:
        ValueError: no such part, two versions in one root, or a root that somebody else filled.
    """
    chosen = _chosen(corpus, parts)
    work = root / staging.WORK_FOLDER
    _check_root(corpus, root, chosen, asked=bool(parts))
    finished = tuple(one for one in chosen if staging.missing_files(one, root) == 0)
    to_do = tuple(one for one in chosen if one not in finished)
    download = room = unpacked = 0
    for one in to_do:
        left = _bytes_to_come(one, work)
        room = max(room, unpacked + left + one.unpacked_bytes)
        unpacked += one.unpacked_bytes + (left if keep_archives else 0)
        download += left
    left_out = tuple(one for one in corpus.downloads if one not in chosen)
    free = shutil.disk_usage(_existing(root)).free
    return Plan(corpus, root, finished, to_do, left_out, keep_archives, download, room, free)


def described(work_plan: Plan) -> Iterator[str]:
    """What will be fetched, lines for the user."""
    corpus = work_plan.published
    yield f"{corpus.name}: {corpus.licence}"
    for one in work_plan.finished:
        yield f"  {one.part or 'all'}: {one.name} is fetched already, nothing to do"
    for one in work_plan.to_do:
        yield f"  {one.part or 'all'}: {one.name}, {_size(one)}"
    if work_plan.left_out:
        parts = ", ".join(f"{one.part} ({gigabytes(one.size_bytes)})" for one in work_plan.left_out)
        yield f"left out, --part takes them: {parts}"
    if work_plan.to_do:
        yield (
            f"{gigabytes(work_plan.download_bytes)} to download, room for about "
            f"{gigabytes(work_plan.room_bytes)} needed, {gigabytes(work_plan.free_bytes)} free"
        )


def fetch(work_plan: Plan, say: Say, progress: ProgressMaker = shown) -> None:
    """Download, check and unpack what lacks.

    Raises:
        ValueError: the disk is too small, a file is not what was published, or an archive is not
            one of a corpus.
        OSError: a server cannot be reached, or breaks off time and again.
    """
    work_plan.check_room()
    root, work = work_plan.root, work_plan.root / staging.WORK_FOLDER
    with _locked(root):
        staging.tidy(work)
        for download in work_plan.to_do:
            if not staging.is_staged(download, work):
                _stage(download, work, say, progress)
            staging.move(download, root)
            for source in () if work_plan.keep_archives else download.sources:
                (work / source.name).unlink(missing_ok=True)
    if not _recognises(work_plan.published, root):
        raise ValueError(
            f"{root} was fetched and its importer does not take it for {work_plan.published.name}; "
            f"fetch the other parts too (--part)"
        )


def gigabytes(count: int) -> str:
    """As people tell sizes."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB"


def _size(download: Download) -> str:
    is_known = all(source.checksum for source in download.sources)
    about = "" if is_known else "about "
    volumes = f" in {len(download.sources)} volumes" if len(download.sources) > 1 else ""
    return (
        f"{about}{gigabytes(download.size_bytes)}{volumes}, about "
        f"{gigabytes(download.unpacked_bytes)} unpacked"
    )


def _parts(corpus: Published) -> list[str]:
    return list(dict.fromkeys(one.part for one in corpus.downloads if one.part))


def _chosen(corpus: Published, parts: Sequence[str]) -> list[Download]:
    known = _parts(corpus)
    for part in parts:
        if part not in known:
            near = difflib.get_close_matches(part, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(
                f"--part {part}: {corpus.name} has no such part; {hint}there is "
                f"{', '.join(known) or 'only the whole'}"
            )
    chosen = [
        one
        for one in corpus.downloads
        if one.part == "" or (one.part in parts if parts else one.is_default)
    ]
    versions = list(dict.fromkeys(one.version for one in chosen if one.version))
    if len(versions) > 1:
        raise ValueError(
            f"--part {' '.join(parts)}: versions {' and '.join(versions)} of {corpus.name} want a "
            f"folder each; fetch them one by one, each with its --root"
        )
    return chosen


def _check_root(corpus: Published, root: Path, chosen: Sequence[Download], asked: bool) -> None:
    work = root / staging.WORK_FOLDER
    for place in (root, work):
        if place.exists() and not place.is_dir():
            raise ValueError(f"{place} is a file; give a folder as --root")
    if work.is_symlink():
        raise ValueError(f"{work} is a link, and might lead out of {root}; remove it")
    if not work.is_dir():
        if not asked and root.is_dir() and _recognises(corpus, root):
            raise ValueError(
                f"{root} already holds {corpus.name}, which this command did not fetch: use it as "
                f"it is, give another --root, or add to it by --part"
            )
        return
    versions = {one.version for one in chosen if one.version}
    for one in corpus.downloads:
        begun = staging.is_listed(one, work) or staging.is_staged(one, work)
        if begun and versions and one.version and one.version not in versions:
            raise ValueError(
                f"{root} holds version {one.version} of {corpus.name}; give another --root for "
                f"{versions.pop()}"
            )


def _recognises(corpus: Published, root: Path) -> bool:
    """Whether the importer takes the root for its corpus."""
    return bool(plugins.load("corpora", corpus.name).recognises(root))


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    return next(place for place in (folder, *folder.parents) if place.exists())


def _bytes_to_come(download: Download, work: Path) -> int:
    if staging.is_staged(download, work):
        return 0
    return sum(max(0, one.size_bytes - bytes_here(one, work)) for one in download.sources)


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    work = root / staging.WORK_FOLDER
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = (work / ".lock").open("w")
    except OSError as error:
        raise ValueError(
            f"--root {root} cannot be written to ({error.strerror}); give another folder"
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another fetch is writing to {root}; wait for it to end") from None
        yield


def _stage(download: Download, work: Path, say: Say, progress: ProgressMaker) -> None:
    """Download and unpack an archive, aside."""
    got = [retrieve(source, work, progress) for source in download.sources]
    volumes = [path for path, _ in got]
    with staging.unpacking(work) as aside:
        (aside / download.folder).mkdir(parents=True, exist_ok=True)
        try:
            unpacked = unpack(
                volumes, aside / download.folder, inside=download.inside, progress=progress
            )
            _check_sounds(download, unpacked.files)
        except DamagedError:
            for volume in volumes:
                volume.unlink()
            raise
        for source, (_, was_checked) in zip(download.sources, got, strict=True):
            if not source.checksum:
                say(f"{source.name}: {_how_checked(download, was_checked)}")
        if unpacked.left_out:
            say(
                f"{download.name}: {len(unpacked.left_out)} links or files that are no part of the "
                f"corpus are left out, the first is {unpacked.left_out[0]}"
            )
        above = PurePosixPath(download.folder)
        files = {str(above / path): size for path, size in unpacked.files.items()}
        staging.stage(aside, download, work, files)


def _check_sounds(download: Download, files: Iterable[str]) -> None:
    sounds = sum(is_sound_file(Path(path)) for path in files)
    if sounds < download.sounds:
        raise DamagedError(
            f"{download.name} holds {sounds} sound files and {download.sounds} were published; run "
            f"the command again, and it is fetched anew"
        )


def _how_checked(download: Download, was_checked: bool) -> str:
    if was_checked:
        return "no checksum is published; it has the MD5 that its server tells"
    counted = f" and its {download.sounds} sound files counted" if download.sounds else ""
    return f"no checksum is published or told; what it holds was checked by its own CRC{counted}"
