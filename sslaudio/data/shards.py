"""Writes shards: a corpus's clips in, standard WebDataset tars and their index out.

In:  the clips of a corpus (sslaudio/data/corpora), a folder to write to.
Out: ``NAME-000000.tar`` …, each with offsets ``NAME-000000.idx``; ``index.json``; a report; and
     ``rejected.jsonl`` where files could not be used. Described in shards/README.md.

Which clip goes to which shard depends on the clips alone, so any number of processes writes the
same bytes, and a build that was killed goes on with the shards it lacks.
"""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sslaudio.data import progress as progress_display
from sslaudio.data import segments
from sslaudio.data.corpora.base import Clip
from sslaudio.data.decode import RESAMPLER
from sslaudio.data.encode import CODECS, Codec
from sslaudio.data.index import Index
from sslaudio.data.keys import keys_of_parts
from sslaudio.data.layout import (
    INDEX_NAME,
    RATES,
    VERSION,
    Content,
    SplitTotals,
    Totals,
    read_index,
)
from sslaudio.data.listing import Listing
from sslaudio.data.pack import (
    WORK_FOLDER,
    Packing,
    Record,
    fields_of,
    pack,
    write_atomically,
)
from sslaudio.data.plan import key_of, permute
from sslaudio.data.processes import check_jobs, run_parallel
from sslaudio.data.progress import ProgressMaker
from sslaudio.data.report import MISSING, REPORT_NAME, Report, kinds_of
from sslaudio.data.resume import check_same_build, check_same_inputs, finished, locked

REJECTED_NAME = "rejected.jsonl"
"""Lists each clip left out, with the reason."""
REJECTED_FROM_FILES = 100
"""``max_rejected`` is a share of at least this many files; fewer say too little."""

_SHARDS_WANTED, _FEWEST_CLIPS, _MOST_CLIPS = 16, 64, 1024


def build(
    clips: Sequence[Clip],
    out: Path,
    *,
    corpus: str,
    sample_rate: int = 16_000,
    codec: Codec = "flac",
    clips_per_shard: int | None = None,
    segment_seconds: float | None = None,
    max_rejected: float = 0.01,
    jobs: int | None = None,
    progress: ProgressMaker = progress_display.shown,
    listing: Listing = Listing(),  # noqa: B008  # frozen
) -> tuple[Index, bool]:
    """Write the shards of a corpus, or the ones that a build before this left to do.

    Args:
        clips: what the corpus's importer returned.
        out: folder of the shards; made if absent.
        corpus: name of the importer; the shards bear it.
        sample_rate: Hz of the clips in the shards.
        codec: ``flac`` or ``ogg``.
        clips_per_shard: None gives about 16 shards of 64 to 1,024 clips.
        segment_seconds: longer clips are cut to segments of this length; None keeps them whole.
        max_rejected: share of files, 0 to 1, that may be unusable; from 100 files on.
        jobs: processes; None takes every core.
        progress: shows how far the build is.
        listing: what the importer told besides the clips.

    Returns:
        The index, and whether anything was left to do.

    Raises:
        ValueError: a setting is impossible, too many files were rejected, or ``out`` holds
            something else or cannot be written to.
    """
    check_jobs(jobs)
    segments.check_seconds(segment_seconds)
    _check(clips, corpus, sample_rate, codec, clips_per_shard, max_rejected)
    listed = clips
    if segment_seconds is not None:
        clips = segments.cut(listed, segment_seconds, sample_rate, jobs, progress)
    settings = {
        "format": VERSION,
        "corpus": corpus,
        "sample_rate": sample_rate,
        "codec": codec,
        "resampler": RESAMPLER,
        "segment_seconds": segment_seconds,
        "options": listing.options or None,
        "clips_per_shard": clips_per_shard or _clips_per_shard(clips),
        "files": len({clip.source for clip in clips}),
        "listing": _listing_digest(clips),
    }
    packings = _packings(clips, out, settings)
    with locked(out):
        if (out / INDEX_NAME).is_file():
            check_same_build(read_index(out).settings, settings, out)
            index = Index.open(out)
            told = zip(packings, index.shards, strict=True)
            inputs = {packing.name: shard.inputs for packing, shard in told}
            check_same_inputs(packings, inputs, out / INDEX_NAME)
            shutil.rmtree(out / WORK_FOLDER, ignore_errors=True)
            return index, False
        work = out / WORK_FOLDER
        records = finished(packings, settings, out)
        todo = [packing for packing in packings if packing.name not in records]
        with progress(f"{corpus} -> {out}", len(clips)) as advance:
            advance(sum(len(p.clips) for p in packings) - sum(len(p.clips) for p in todo))
            for record in run_parallel(pack, todo, jobs):
                records[record.shard.name] = record
                advance(record.shard.samples + len(record.rejected))
        made = [records[packing.name] for packing in packings]
        for name, text in listing.beside.items():
            write_atomically(out / name, text.encode(), work)
        write_atomically(out / REPORT_NAME, _report(made, listed, clips, listing).to_json(), work)
        write_index(made, settings, out, max_rejected)
        shutil.rmtree(work)
    return Index.open(out), True


def _check(
    clips: Sequence[Clip],
    corpus: str,
    sample_rate: int,
    codec: str,
    clips_per_shard: int | None,
    max_rejected: float,
) -> None:
    """Refuse settings that are impossible."""
    if not clips:
        raise ValueError(f"there are no clips to build shards of {corpus!r} from; check --root")
    if codec not in CODECS:
        raise ValueError(f"there is no codec {codec!r}; set --codec to {' or '.join(CODECS)}")
    check_rate(sample_rate)
    if clips_per_shard is not None and clips_per_shard < 1:
        raise ValueError(f"--clips-per-shard is {clips_per_shard}; set it to 1 or more")
    if not 0 <= max_rejected <= 1:
        raise ValueError(f"--max-rejected is {max_rejected:g}; it is a share, 0 to 1")


def _clips_per_shard(clips: Sequence[Clip]) -> int:
    return min(max(-(-len(clips) // _SHARDS_WANTED), _FEWEST_CLIPS), _MOST_CLIPS)


def check_rate(sample_rate: int) -> None:
    """Refuse a rate in Hz that nobody means.

    Raises:
        ValueError: it is below 1,000 or above 384,000.
    """
    if sample_rate not in RATES:
        raise ValueError(
            f"--sample-rate is {sample_rate} Hz; set it between {RATES[0]} and {RATES[-1]}"
        )


def _listing_digest(clips: Sequence[Clip]) -> str:
    """SHA-256 of what the importer tells of every clip, and of each file's size."""
    digest = hashlib.sha256()
    for clip in clips:
        size = clip.path.stat().st_size if clip.path.is_file() else -1
        digest.update(json.dumps(fields_of(clip, size), sort_keys=True).encode())
    return digest.hexdigest()


def _packings(clips: Sequence[Clip], out: Path, settings: dict[str, Any]) -> list[Packing]:
    """Deal the clips to shards of nearly equal size, shuffled so that none is of one class."""
    keys = keys_of_parts([clip.source for clip in clips], [clip.part for clip in clips])
    corpus = settings["corpus"]
    name_key = int.from_bytes(hashlib.sha256(corpus.encode()).digest()[:8], "little")
    order = permute(np.arange(len(clips)), len(clips), key_of(name_key))
    shards = -(-len(clips) // settings["clips_per_shard"])
    return [
        Packing(
            f"{corpus}-{number:06d}.tar",
            tuple(clips[which] for which in chosen),
            tuple(keys[which] for which in chosen),
            out,
            settings["sample_rate"],
            settings["codec"],
        )
        for number, chosen in enumerate(np.array_split(order, shards))
    ]


def write_index(
    records: Sequence[Record], settings: dict[str, Any], out: Path, max_rejected: float
) -> None:
    """List what was rejected; then, if that is not too much, write the index: the build is done."""
    rejected = _rejected(records)
    work = out / WORK_FOLDER
    if rejected:
        lines = (
            json.dumps({"source": source, **({"start": start} if start else {}), "reason": reason})
            for source, start, reason in rejected
        )
        write_atomically(out / REJECTED_NAME, "".join(f"{one}\n" for one in lines).encode(), work)
    totals = _totals(records)
    _check_rejected(rejected, totals.clips, settings["files"], max_rejected, out)
    content = Content.of(settings, totals, [record.shard for record in records])
    write_atomically(out / INDEX_NAME, content.to_json(), work)


def _rejected(records: Sequence[Record]) -> list[tuple[str, float, str]]:
    return sorted(line for record in records for line in record.rejected)


def _check_rejected(
    rejected: Sequence[tuple[str, float, str]],
    clips: int,
    files: int,
    max_rejected: float,
    out: Path,
) -> None:
    """Refuse a build of which too much is missing; a file counts once, however it was cut."""
    count = len({source for source, *_ in rejected})
    too_many = files >= REJECTED_FROM_FILES and count > max_rejected * files
    if too_many or not clips:
        source, _, reason = rejected[0]
        raise ValueError(
            f"{count} of {files} files were rejected, more than --max-rejected "
            f"{max_rejected:g} allows; the first is {source} ({reason}), all are listed in "
            f"{out / REJECTED_NAME}. Raise --max-rejected and run again (what is finished is "
            f"kept), or mend the files and build into another --out"
            if clips
            else f"none of the {files} files could be used; the first is {source} ({reason}), "
            f"all are listed in {out / REJECTED_NAME}"
        )


def _report(
    records: Sequence[Record], listed: Sequence[Clip], clips: Sequence[Clip], listing: Listing
) -> Report:
    whole = {id(clip) for clip in listed}
    segments_made = sum(id(clip) not in whole for clip in clips)
    rejected = kinds_of(reason for *_, reason in _rejected(records))
    return Report(
        listed=len(listed),
        there=len(listed) - rejected.get(MISSING, 0),
        clips=sum(record.shard.samples for record in records),
        seconds=sum(record.shard.seconds for record in records),
        long_clips=len(listed) - (len(clips) - segments_made),
        segments=segments_made,
        rejected=rejected,
        left_out=listing.left_out,
        warnings=listing.warnings,
    )


def _totals(records: Sequence[Record]) -> Totals:
    clips: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    licences: Counter[str] = Counter()
    seconds: dict[str, float] = {}
    for record in records:
        clips.update(record.shard.splits)
        labels.update(record.labels)
        licences.update(record.licences)
        for split, more in record.split_seconds.items():
            seconds[split] = seconds.get(split, 0.0) + more
    return Totals(
        clips=clips.total(),
        seconds=sum(seconds.values()),
        bytes=sum(record.shard.bytes for record in records),
        rejected=sum(len(record.rejected) for record in records),
        splits={split: SplitTotals(clips[split], seconds[split]) for split in sorted(clips)},
        labels=dict(labels),
        licences=dict(licences),
    )
