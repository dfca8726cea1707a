"""Reads shards again, whole, and tells what is wrong with them or what is in them."""

import hashlib
import io
import json
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sslaudio.data import progress as progress_display
from sslaudio.data.crops import At, Crops
from sslaudio.data.decode import DecodeError, decode_bytes
from sslaudio.data.index import CorruptError, Index
from sslaudio.data.kept import Kept
from sslaudio.data.layout import (
    FOREIGN,
    INDEX_NAME,
    OFFSETS,
    SPLIT_CODES,
    TAR_BLOCK,
    Shard,
    Totals,
    marks,
    read_index,
    size_problem,
)
from sslaudio.data.places import Local
from sslaudio.data.processes import check_jobs, run_parallel
from sslaudio.data.progress import ProgressMaker
from sslaudio.data.selection import Selection

_PROBLEMS_OF_A_SHARD = 5


@dataclass(frozen=True)
class _Check:
    """One shard to be read again."""

    folder: Path
    shard: Shard
    sample_rate: int
    codec: str


def verify(
    folder: Path,
    *,
    jobs: int | None = None,
    progress: ProgressMaker = progress_display.shown,
) -> list[str]:
    """Name every missing, truncated, altered or extra shard, and every clip that won't decode.

    Args:
        folder: of shards.
        jobs: processes; None takes every core.
        progress: shows how far it is.

    Returns:
        One line a problem; none where all is as it was built.

    Raises:
        ValueError: there is no index to compare with, or ``jobs`` is below 1.
    """
    check_jobs(jobs)
    content = read_index(folder)
    shards = content.shards
    problems = _extra_files(folder, shards) + _wrong_totals(content.totals, shards)
    checks = [_Check(folder, shard, content.sample_rate, content.codec) for shard in shards]
    with progress(f"verify {folder}", sum(shard.samples for shard in shards)) as advance:
        for clips, found in run_parallel(_check, checks, jobs):
            problems += found
            advance(clips)
    return sorted(problems)


def _extra_files(folder: Path, shards: list[Shard]) -> list[str]:
    known = {name for shard in shards for name in (shard.name, shard.offsets_name)}
    found = {path.name for path in folder.iterdir() if path.suffix in (".tar", ".idx")}
    return [f"{name}: extra, {INDEX_NAME} does not know it" for name in sorted(found - known)]


def _wrong_totals(totals: Totals, shards: list[Shard]) -> list[str]:
    counted = {
        "clips": (totals.clips, sum(shard.samples for shard in shards)),
        "bytes": (totals.bytes, sum(shard.bytes for shard in shards)),
    }
    return [
        f"{INDEX_NAME}: altered, its total of {name} is {total}, its shards have {summed}"
        for name, (total, summed) in counted.items()
        if total != summed
    ]


def _check(check: _Check) -> tuple[int, list[str]]:
    """Clips that the shard should have, and what is wrong with it."""
    shard = check.shard
    problem = size_problem(Local(check.folder), shard)
    if problem and not (check.folder / shard.name).is_file():
        return shard.samples, [f"{shard.name}: missing"]
    data = (check.folder / shard.name).read_bytes()
    problems = [problem] if problem else []
    if not problem and hashlib.sha256(data).hexdigest() != shard.sha256:
        problems.append(f"{shard.name} is altered: its SHA-256 is not the index's")
    offsets_path = check.folder / shard.offsets_name
    offsets = offsets_path.read_bytes() if offsets_path.is_file() else b""
    if len(offsets) == shard.samples * OFFSETS.itemsize:
        clips = _clip_problems(data, np.frombuffer(offsets, OFFSETS), check)
        problems += [f"{shard.name}: {clip}" for clip in clips[:_PROBLEMS_OF_A_SHARD]]
        if len(clips) > _PROBLEMS_OF_A_SHARD:
            problems.append(f"{shard.name}: {len(clips) - _PROBLEMS_OF_A_SHARD} more such clips")
    return shard.samples, problems


def _clip_problems(data: bytes, offsets: np.ndarray, check: _Check) -> list[str]:
    """Compare the tar with its offsets, clip by clip, and decode every clip."""
    try:
        members = _members(data)
    except (tarfile.TarError, EOFError) as error:
        return [f"is no whole tar: {error}"]
    problems = []
    if check.codec == FOREIGN:
        return _foreign_problems(check)
    if len(members) != 2 * len(offsets):
        problems.append(f"has {len(members)} members, its offsets {2 * len(offsets)}")
    for row, audio, text in zip(offsets, members[::2], members[1::2], strict=False):
        key = audio.name.removesuffix(f".{check.codec}")
        problem = _clip_problem(data, row, audio, text, check)
        if problem:
            problems.append(f"clip {key}: {problem}")
    return problems


def _foreign_problems(check: _Check) -> list[str]:
    """Read every clip as it is read in training; its tar may hold anything else besides."""
    index = Index.open(check.folder)
    shard = index.shards.index(check.shard)
    selection = Selection(index, SPLIT_CODES, {})
    crops = Crops([selection], 0, Kept(0))
    found = crops.whole(At(0, shard, member) for member in range(check.shard.samples))
    return [f"{one.key}: {one.reason}" for one in found if isinstance(one, CorruptError)]


def _members(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        return archive.getmembers()


def _clip_problem(
    data: bytes,
    row: Any,
    audio: tarfile.TarInfo,
    text: tarfile.TarInfo,
    check: _Check,
) -> str | None:
    end = text.offset_data + text.size
    json_offset = text.offset_data - audio.offset_data
    found = (audio.offset_data, json_offset, audio.size, text.size)
    names = ("audio_offset", "json_offset", "audio_bytes", "json_bytes")
    if found != tuple(int(row[name]) for name in names):
        return "the offsets file does not fit the tar"
    if zlib.crc32(data[audio.offset_data - TAR_BLOCK : end]) != row["crc32"]:
        return "altered: its checksum is not its index's"
    sound = data[audio.offset_data : audio.offset_data + audio.size]
    try:
        fields = json.loads(data[text.offset_data : text.offset_data + text.size])
        waveform = decode_bytes(sound, check.sample_rate, name=audio.name)
    except DecodeError as error:
        return error.reason
    except ValueError:
        return "its JSON is broken"
    if not isinstance(fields, dict) or fields.get("split", "") not in SPLIT_CODES:
        return "its JSON is broken"
    told = marks(fields.get("split"), fields.get("recording") or fields.get("source", ""))
    if len(waveform) != row["samples"] or told != row["marks"]:
        return "its length, split or recording is not what the offsets file says"
    return None
