"""Unpacked files on their way into a corpus's folder, and the lists of those that are there.

In:  an archive unpacked aside, in the folder's ``.fetch/``.
Out: its files in the folder, and ``.fetch/ARCHIVE.json``, their sizes by path.

An archive is unpacked in ``unpacking/``, which is worth nothing until it is whole and renamed to
``ARCHIVE.unpacked/``. From there files are moved one by one; a move that was killed goes on.
"""

import filecmp
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from sslaudio.data.corpora.base import Download

WORK_FOLDER = ".fetch"


@contextmanager
def unpacking(work: Path) -> Iterator[Path]:
    """An empty folder; gone when an error ends its block."""
    aside = work / "unpacking"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def tidy(work: Path) -> None:
    """Remove what a fetch that was killed cannot go on with."""
    shutil.rmtree(work / "unpacking", ignore_errors=True)
    for leftover in work.glob("tmp*"):  # pooch's
        leftover.unlink()


def stage(aside: Path, download: Download, work: Path, files: Mapping[str, int]) -> None:
    """Declare an archive to be wholly unpacked."""
    _waiting(download, work).write_text(json.dumps(files))
    aside.rename(_staged(download, work))


def is_staged(download: Download, work: Path) -> bool:
    """Whether an archive is wholly unpacked, and not yet all moved."""
    return _staged(download, work).is_dir()


def is_listed(download: Download, work: Path) -> bool:
    """Whether an archive's files were in their place once."""
    return _listed(download, work).is_file()


def move(download: Download, root: Path) -> None:
    """Put an archive's files into the root, and list them.

    Raises:
        ValueError: another file lies where one should go, or a link leads out of the root. Then
            nothing was moved.
    """
    work = root / WORK_FOLDER
    staged = _staged(download, work)
    files = json.loads(_waiting(download, work).read_bytes())
    waiting = [path for path in files if (staged / path).is_file()]
    _check_folders(waiting, root)
    there = {path for path in waiting if _is_there(path, staged, root, download)}
    for path in waiting:
        if path not in there:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (staged / path).rename(root / path)
    _waiting(download, work).replace(_listed(download, work))
    shutil.rmtree(staged)


def missing_files(download: Download, root: Path) -> int | None:
    """How many of an archive's files are not as they were put there; None: they never were."""
    work = root / WORK_FOLDER
    if not is_listed(download, work):
        return None
    files: dict[str, int] = json.loads(_listed(download, work).read_bytes())
    shared = _shared(download)
    return sum(
        not (root / path).is_file() or (path not in shared and (root / path).stat().st_size != size)
        for path, size in files.items()
    )


def _staged(download: Download, work: Path) -> Path:
    return work / f"{download.name}.unpacked"


def _waiting(download: Download, work: Path) -> Path:
    return work / f"{download.name}.waiting.json"


def _listed(download: Download, work: Path) -> Path:
    return work / f"{download.name}.json"


def _shared(download: Download) -> set[str]:
    """Paths that other archives bring too."""
    return {str(PurePosixPath(download.folder) / name) for name in download.shared}


def _check_folders(paths: Iterable[str], root: Path) -> None:
    """No folder below the root may be a link: files would be written elsewhere."""
    folders = {folder for path in paths for folder in PurePosixPath(path).parents}
    for folder in sorted(folders - {PurePosixPath()}):
        place = root / folder
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise ValueError(
                f"{place} is {'a link' if place.is_symlink() else 'a file'}, and files would go "
                f"into a folder of that name; remove it, or give another --root"
            )


def _is_there(path: str, staged: Path, root: Path, download: Download) -> bool:
    """Whether the same file is in its place already."""
    goal = root / path
    if not goal.exists() and not goal.is_symlink():
        return False
    if path not in _shared(download) and not (
        goal.is_file() and filecmp.cmp(staged / path, goal, shallow=False)
    ):
        raise ValueError(
            f"{goal} is there already and is not what {download.name} brings; move it away, or "
            f"give another --root"
        )
    return True
