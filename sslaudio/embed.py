"""``sslaudio embed``: one embedding a clip, from files or folders, into a .npz file.

    sslaudio embed --checkpoint RUN --out FILE.npz PATH…

The file holds ``keys`` (the paths) and ``embeddings``, float32 [clips, dim]. Files that cannot be
read are listed, the rest is written, and the exit status is 1.

    sslaudio embed --per-frame --checkpoint RUN --out FILE.npz PATH…

gives one embedding a column of the token grid instead: ``embeddings`` [frames, dim] of all files
one after the other, ``offsets`` (file i's rows are ``offsets[i]:offsets[i + 1]``) and ``times``
[frames, 2], the seconds at which what a frame sees begins and ends. Long files are read in pieces.
"""

import argparse
from pathlib import Path

import torch

from sslaudio.backbones.encoder import Encoder
from sslaudio.data import progress
from sslaudio.data.processes import cores
from sslaudio.downstream import frames
from sslaudio.downstream.embed import audio_files, embed_files, telling, write_npz
from sslaudio.features.front_end import Config
from sslaudio.models import load_encoder
from sslaudio.training.report import say, speak


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the verb."""
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="RUN")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.npz")
    parser.add_argument(
        "--per-frame",
        action="store_true",
        help="one embedding a column of the token grid, with offsets and times, not one a clip",
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="audio files or folders of them")


def main(arguments: argparse.Namespace) -> int:
    """Embed and write."""
    speak()
    if arguments.out.is_dir() or not arguments.out.parent.is_dir():
        raise ValueError(f"cannot write --out {arguments.out}; name a file in an existing folder")
    torch.set_num_threads(cores())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = load_encoder(arguments.checkpoint).to(device)
    files = audio_files(arguments.paths)
    embed = _per_frame if arguments.per_frame else _per_clip
    read, failures = embed(encoder, files, arguments.out)
    if failures:
        say(f"{failures} of {failures + read} not read")
    return 1 if failures else 0


def _per_clip(encoder: Encoder, files: list[Path], out: Path) -> tuple[int, int]:
    """Write one embedding a clip; gives how many files were read, and how many not."""
    samples: dict[str, int] = {}
    with progress.shown("embedding", len(files)) as advance:
        embedded = embed_files(encoder, files, progress=telling(advance), heard=samples.__setitem__)
    features = encoder.front_end.config
    cut = [key for key in embedded.keys if features.cuts(samples[key])]
    _tell(embedded.failures, cut, len(embedded.keys), features)
    if embedded.keys:
        write_npz(out, embedded)
        say(f"{len(embedded.keys)} clips, {encoder.dim} numbers each: {out}")
    return len(embedded.keys), len(embedded.failures)


def _per_frame(encoder: Encoder, files: list[Path], out: Path) -> tuple[int, int]:
    """Write one embedding a column; gives how many files were read, and how many not."""
    framed = frames.embed_frames(encoder, files, progress=progress.shown)
    _tell(framed.failures, framed.cut, len(framed.keys), encoder.front_end.config)
    if framed.keys:
        frames.write_npz(out, framed)
        count, dim = framed.embeddings.shape
        say(f"{len(framed.keys)} clips, {count} frames, {dim} numbers each: {out}")
    return len(framed.keys), len(framed.failures)


def _tell(failures: list[tuple[str, str]], cut: list[str], read: int, features: Config) -> None:
    """Name the files that cannot be read, and those heard only at their beginning.

    That is all that a model of fixed length hears.
    """
    for path, reason in failures:
        say(f"cannot read {path}: {reason}")
    for key in cut:
        say(f"only the beginning is embedded of {key}")
    if cut:
        say(
            f"{len(cut)} of {read} are longer than the {features.legacy_frames} frames that "
            f"these weights were trained on (features.legacy_frames)"
        )
