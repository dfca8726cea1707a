"""``sslaudio embed``: one embedding a clip, from files or folders, into a .npz file.

    sslaudio embed --checkpoint RUN --out FILE.npz PATH…

The file holds ``keys`` (the paths) and ``embeddings``, float32 [clips, dim]. Files that cannot be
read are listed, the rest is written, and the exit status is 1.
"""

import argparse
from pathlib import Path

import torch

from sslaudio.data import progress
from sslaudio.data.processes import cores
from sslaudio.downstream.embed import audio_files, embed_files, telling, write_npz
from sslaudio.features.front_end import Config
from sslaudio.models import load_encoder
from sslaudio.training.report import say, speak


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of the verb."""
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="RUN")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.npz")
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
    samples: dict[str, int] = {}
    with progress.shown("embedding", len(files)) as advance:
        embedded = embed_files(encoder, files, progress=telling(advance), heard=samples.__setitem__)
    for path, reason in embedded.failures:
        say(f"cannot read {path}: {reason}")
    _tell_cut(embedded.keys, samples, encoder.front_end.config)
    if embedded.keys:
        write_npz(arguments.out, embedded)
        say(f"{len(embedded.keys)} clips, {encoder.dim} numbers each: {arguments.out}")
    if embedded.failures:
        say(f"{len(embedded.failures)} of {len(embedded.failures) + len(embedded.keys)} not read")
    return 1 if embedded.failures else 0


def _tell_cut(keys: list[str], samples: dict[str, int], features: Config) -> None:
    """Name the files of which a model of fixed length heard the beginning alone."""
    cut = [key for key in keys if features.cuts(samples[key])]
    for key in cut:
        say(f"only the beginning is embedded of {key}")
    if cut:
        say(
            f"{len(cut)} of {len(keys)} are longer than the {features.legacy_frames} frames that "
            f"these weights were trained on (features.legacy_frames)"
        )
