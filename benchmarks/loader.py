"""Reading sound for training, beside the bare floor, webdataset's pipeline and a per-file Dataset.

    python benchmarks/loader.py [--data DIR] [--only WORD] [--rounds 5] [--json FILE]

All on the same clips of ten seconds: sound below DIR laid end to end and cut (without DIR:
synthetic), as 16 kHz FLAC, in shards of ours and in one file a clip. A batch is crops of
``--seconds``.

=============  ===================================================================================
floor          a bare loop: read the clip's bytes, seek, decode the crop with soundfile
ours           ``sslaudio.data.stream``: the order, the checksum, the same crop, a batch
webdataset     its own pipeline over the same tars: shuffle of 1,000, decode the crop, a batch
per file       a Dataset in the manner of SSAST's: load a file, torchaudio's Kaldi front end, pad
crop           decoding a crop of two seconds beside decoding the whole clip
front end      ours on batches of 32 clips of ten seconds beside torchaudio's clip by clip
build          ``sslaudio shards build`` beside decode, resample and FLAC-encode bare; all cores
memory         of a worker, after each of many epochs of a small set
=============  ===================================================================================

The loaders run in turns, once in this process and once with two workers. ``ratio`` above 1 means
that ours is better; goals stand beside.
"""

import argparse
import io
import itertools
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torchaudio
import webdataset
from torch.utils.data import DataLoader, Dataset

from sslaudio.data.corpora import folder
from sslaudio.data.corpora.base import Clip, sound_files
from sslaudio.data.decode import decode, read_bytes, resample
from sslaudio.data.encode import encode
from sslaudio.data.index import Index
from sslaudio.data.indexed import ShardStream
from sslaudio.data.processes import cores, run_parallel
from sslaudio.data.progress import silent
from sslaudio.data.shards import build
from sslaudio.data.stream import Config
from sslaudio.features.front_end import Config as Features
from sslaudio.features.front_end import FrontEnd

RATE, CLIP_SECONDS, BATCH = 16_000, 10.0, 32
_READ_AHEAD = 8
"""Batches that a worker may hold ready, and more."""
FRAMES = 1024
"""Columns that the per-file Dataset pads or cuts to."""


@dataclass(frozen=True)
class Sound:
    """The same clips in every form."""

    files: Path
    """A FLAC file a clip."""
    shards: Path

    @property
    def tars(self) -> list[str]:
        """Of the shards."""
        return [str(tar) for tar in sorted(self.shards.glob("*.tar"))]


def prepared(data: Path | None, clips: int, work: Path) -> Sound:
    """Clips of ten seconds from what lies below ``data``."""
    sound = Sound(work / "files", work / "shards")
    sound.files.mkdir()
    pieces = _pieces(data)
    for number in range(clips):
        waveform = next(pieces)
        (sound.files / f"{number:05d}.flac").write_bytes(encode(waveform, RATE, "flac"))
    build(
        folder.build(folder.Config(), sound.files), sound.shards,
        corpus="folder", clips_per_shard=64, progress=silent,
    )  # fmt: skip
    return sound


def _pieces(data: Path | None) -> Iterator[np.ndarray]:
    """Ten seconds after ten seconds, over and over."""
    size = round(CLIP_SECONDS * RATE)
    if data is None:
        random = np.random.default_rng(0)
        while True:
            noise = np.cumsum(random.normal(size=size)).astype(np.float32)
            yield 0.5 * noise / np.abs(noise).max()
    held = np.zeros(0, np.float32)
    for file in itertools.cycle(sound_files(data)):
        held = np.concatenate([held, decode(file, RATE)])
        while len(held) >= size:
            yield held[:size]
            held = held[size:]


def floor(sound: Sound, seconds: float, seed: int) -> Iterator[int]:
    """Crops by soundfile alone; gives one a crop."""
    index = Index.open(sound.shards)
    places = [
        (index.place.folder / shard.name, int(row["audio_offset"]), int(row["audio_bytes"]))  # type: ignore[attr-defined]
        for number, shard in enumerate(index.shards)
        for row in index.offsets(number)
    ]
    random = np.random.default_rng(seed)
    tars = {path: os.open(path, os.O_RDONLY) for path, _, _ in places}
    wanted = round(seconds * RATE)
    while True:
        for which in random.permutation(len(places)):
            path, offset, size = places[which]
            with soundfile.SoundFile(io.BytesIO(os.pread(tars[path], size, offset))) as clip:
                clip.seek(int(random.random() * (clip.frames - wanted + 1)))
                clip.read(wanted, dtype="float32")
            yield 1


def ours(sound: Sound, seconds: float, workers: int) -> Iterator[int]:
    """Batches of the stream; gives the clips of each."""
    config = Config(
        shards=(str(sound.shards),), batch=BATCH, clip_seconds=seconds, workers=workers,
        kept_megabytes=0,
    )  # fmt: skip
    for batch in ShardStream(config, sample_rate=RATE, seed=0).batches():
        yield len(batch.keys)


def theirs(sound: Sound, seconds: float, workers: int) -> Iterator[int]:
    """Batches of webdataset's pipeline."""
    pipeline = (
        webdataset.WebDataset(sound.tars, shardshuffle=100, empty_check=False)
        .shuffle(1000, initial=100)
        .map(_Cropping(seconds))
        .batched(BATCH, collation_fn=_stacked)
        .repeat()
    )
    loader = webdataset.WebLoader(pipeline, batch_size=None, num_workers=workers)
    for batch in loader:
        yield len(batch)


@dataclass
class _Cropping:
    """Decodes a crop of a sample."""

    seconds: float

    def __call__(self, sample: dict[str, Any]) -> np.ndarray:
        wanted = round(self.seconds * RATE)
        with soundfile.SoundFile(io.BytesIO(sample["flac"])) as clip:
            clip.seek(int(np.random.random() * (clip.frames - wanted + 1)))
            return clip.read(wanted, dtype="float32")


def _stacked(crops: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(crops))


class PerFile(Dataset[torch.Tensor]):
    """A file, whole, its log-mel picture, padded: what SSAST's and AST's data sets do."""

    def __init__(self, sound: Sound) -> None:
        self.files = sorted(sound.files.iterdir())

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> torch.Tensor:
        samples, rate = soundfile.read(self.files[number], dtype="float32")
        waveform = torch.from_numpy(samples)[None]
        picture = kaldi(waveform - waveform.mean(), rate)
        missing = FRAMES - len(picture)
        return torch.nn.functional.pad(picture, (0, 0, 0, max(0, missing)))[:FRAMES]


def kaldi(waveform: torch.Tensor, rate: int = RATE) -> torch.Tensor:
    """torchaudio's front end with AST's settings."""
    return torchaudio.compliance.kaldi.fbank(
        waveform, htk_compat=True, sample_frequency=rate, use_energy=False,
        window_type="hanning", num_mel_bins=128, dither=0.0, frame_shift=10,
    )  # fmt: skip


def per_file(sound: Sound, workers: int) -> Iterator[int]:
    """Batches of the per-file Dataset, in random order."""
    while True:
        loader = DataLoader(PerFile(sound), batch_size=BATCH, shuffle=True, num_workers=workers)
        for batch in loader:
            yield len(batch)


def _bare(arguments: tuple[Sound, float, int, int]) -> float:
    """Seconds that a process of the floor takes for so many crops."""
    sound, seconds, count, seed = arguments
    crops = floor(sound, seconds, seed)
    next(crops)
    began = time.perf_counter()
    for _ in range(count):
        next(crops)
    return time.perf_counter() - began


def _rate(batches: Iterator[int], count: int) -> float:
    """Clips a second over at least ``count`` clips."""
    done, began = 0, time.perf_counter()
    while done < count:
        done += next(batches)
    return done / (time.perf_counter() - began)


def _settle(workers: int) -> None:
    """Let the workers that were measured before fill their read-ahead, and rest."""
    if workers:
        time.sleep(3.0)


def loaders(sound: Sound, seconds: float, workers: int, rounds: int, count: int) -> dict[str, Any]:
    """Clips a second of each loader, in turns."""
    running = {
        "ours": ours(sound, seconds, workers),
        "webdataset": theirs(sound, seconds, workers),
        "per file": per_file(sound, workers),
    }
    rates: dict[str, list[float]] = {name: [] for name in ("floor", *running)}
    processes = max(1, workers)
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for turn in range(rounds):
            work = [(sound, seconds, count // processes, turn + n) for n in range(processes)]
            _settle(workers)
            taken = pool.map(_bare, work) if workers else [_bare(work[0])]
            rates["floor"].append(count / max(taken))
            for name, batches in running.items():
                _settle(workers)
                for _ in range(1 + _READ_AHEAD * workers):  # before the clock ran
                    next(batches)
                rates[name].append(_rate(batches, count if name != "per file" else count // 4))
    found = {name: statistics.median(values) for name, values in rates.items()}
    ratios = {
        f"ratio to {name}": statistics.median(
            one / other for one, other in zip(rates["ours"], rates[name], strict=True)
        )
        for name in ("floor", "webdataset", "per file")
    }
    return {"clips a second": found, "sound a second": found["ours"] * seconds, **ratios}


def crop(sound: Sound, rounds: int) -> dict[str, Any]:
    """What a crop of two seconds costs beside the whole clip of ten."""
    clips = [Index.open(sound.shards).clip(0, member).audio for member in range(32)]
    times: dict[str, list[float]] = {"crop": [], "whole": []}
    for turn in range(10 * rounds):
        for name, (start, length) in {
            "crop": (turn * 97 % 128_000, 32_000),
            "whole": (0, -1),
        }.items():
            began = time.perf_counter()
            for data in clips:
                with soundfile.SoundFile(io.BytesIO(data)) as clip:
                    clip.seek(start)
                    clip.read(length, dtype="float32")
            times[name].append(time.perf_counter() - began)
    share = statistics.median(a / b for a, b in zip(times["crop"], times["whole"], strict=True))
    return {"share of a whole clip's time": share}


def front_end(rounds: int) -> dict[str, Any]:
    """Clips a second of the batched front end beside torchaudio's, on one thread."""
    torch.set_num_threads(1)
    ours_, waveforms = FrontEnd(Features(), -5.0, 4.0), torch.randn(32, round(10 * RATE)) * 0.1
    lengths = torch.full((32,), waveforms.shape[1])
    times: dict[str, list[float]] = {"ours": [], "torchaudio": []}
    for _ in range(rounds + 1):
        with torch.inference_mode():
            began = time.perf_counter()
            ours_(waveforms, lengths)
            middle = time.perf_counter()
            for waveform in waveforms:
                kaldi(waveform[None])
            times["ours"].append(middle - began)
            times["torchaudio"].append(time.perf_counter() - middle)
    ratio = statistics.median(
        theirs / own for own, theirs in zip(times["ours"][1:], times["torchaudio"][1:], strict=True)
    )
    return {
        "clips a second": {name: 32 / statistics.median(v[1:]) for name, v in times.items()},
        "ratio to torchaudio": ratio,
    }


def _recoded(path: Path) -> int:
    """Decode, resample, encode: the bare work of a build."""
    samples, rate = soundfile.read(io.BytesIO(read_bytes(path)), dtype="float32", always_2d=True)
    return len(encode(resample(samples.mean(axis=1), rate, RATE), RATE, "flac"))


def building(work: Path, rounds: int) -> dict[str, Any]:
    """Building shards of 44.1 kHz stereo beside the bare work on all cores."""
    files = work / "wild"
    files.mkdir()
    random = np.random.default_rng(0)
    for number in range(256):
        noise = np.cumsum(random.normal(size=(220_500, 2)), axis=0)
        soundfile.write(files / f"{number}.wav", 0.5 * noise / np.abs(noise).max(), 44_100)
    paths = sorted(files.iterdir())
    clips = [Clip(path, path.name) for path in paths]
    ratios = []
    for turn in range(rounds):
        began = time.perf_counter()
        for _ in run_parallel(_Recode(), [paths[n::8] for n in range(8)], None):
            pass
        middle = time.perf_counter()
        build(clips, work / f"built-{turn}", corpus="wild", clips_per_shard=32, progress=silent)
        ratios.append((middle - began) / (time.perf_counter() - middle))
    return {"ratio to the bare work": statistics.median(ratios), "cores": cores()}


class _Recode:
    """The bare work on several files."""

    def __call__(self, paths: list[Path]) -> int:
        return sum(map(_recoded, paths))


def memory(sound: Sound, epochs: int) -> dict[str, Any]:
    """Resident megabytes of a worker after each of many epochs."""
    config = Config(shards=(str(sound.shards),), batch=BATCH, clip_seconds=2.0, workers=1)
    stream = ShardStream(config, sample_rate=RATE, seed=0)
    batches, found = stream.batches(), []
    for _ in range(epochs):
        for _ in range(stream.clips // BATCH):
            next(batches)
        workers = multiprocessing.active_children()
        found.append(max(_resident(worker.pid) for worker in workers if worker.pid))
    return {
        "megabytes by epoch": [round(value) for value in found],
        "hours heard": epochs * stream.clips * 2 / 3600,
        "growth since the second epoch": found[-1] - found[1],
    }


def _resident(process: int) -> float:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


GOALS = {
    "ratio to floor": ">= 0.85",
    "ratio to webdataset": ">= 1",
    "ratio to per file": ">= 4",
    "share of a whole clip's time": "<= 0.4",
    "ratio to torchaudio": ">= 1.5",
    "ratio to the bare work": ">= 0.8",
}


def show(name: str, found: dict[str, Any]) -> None:
    """Print a measurement beside its goals."""
    for key, value in found.items():
        text = f"{value:.3g}" if isinstance(value, float) else str(value)
        if isinstance(value, dict):
            text = ", ".join(f"{one} {number:.4g}" for one, number in value.items())
        goal = f"  (goal {GOALS[key]})" if key in GOALS else ""
        print(f"{name:22s} {key}: {text}{goal}", flush=True)


def main() -> int:
    """Measure, print, and write what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of sound; synthetic without")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a crop")
    parser.add_argument("--clips", type=int, default=512, help="of ten seconds")
    parser.add_argument("--count", type=int, default=2048, help="crops a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20, help="of the memory's measurement")
    parser.add_argument("--only", default="", help="measurements whose name holds this")
    parser.add_argument("--json", type=Path, help="write what was found")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        sound = prepared(asked.data, asked.clips, work)
        measured: dict[str, Callable[[], dict[str, Any]]] = {
            "loader, one process": lambda: loaders(
                sound, asked.seconds, 0, asked.rounds, asked.count
            ),
            "loader, two workers": lambda: loaders(
                sound, asked.seconds, 2, asked.rounds, asked.count
            ),
            "crop": lambda: crop(sound, asked.rounds),
            "front end": lambda: front_end(asked.rounds),
            "build": lambda: building(work, asked.rounds),
            "memory": lambda: memory(sound, asked.epochs),
        }
        found = {}
        for name, measure in measured.items():
            if asked.only in name:
                found[name] = measure()
                show(name, found[name])
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
