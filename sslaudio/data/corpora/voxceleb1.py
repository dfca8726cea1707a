"""VoxCeleb1 (Nagrani et al. 2017, arXiv:1706.08612) with its identification split.

In:  ``iden_split.txt`` and ``SPEAKER/VIDEO/NNNNN.wav`` anywhere below the root: ``wav/``,
     ``dev/wav/`` and ``test/wav/`` as the archives unpack, or the root itself.
Out: one clip a line of the list with its speaker, split and YouTube id as recording.

A listed file that is missing becomes a clip whose path does not exist. The archives' ``dev`` and
``test`` are those of verification, and say nothing here.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from sslaudio.data.corpora import tables
from sslaudio.data.corpora.base import Clip, sound_files

LIST = "iden_split.txt"
LIST_URL = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/meta/iden_split.txt"
SPLITS = {"1": "train", "2": "validation", "3": "test"}
"""The list's codes."""
LICENCE = "CC BY 4.0"

LAYOUT = f"{LIST} and wav/SPEAKER/VIDEO/NNNNN.wav"
"""What a folder is known by."""
RECORDINGS = "youtube"
"""Recordings are ids of YouTube videos."""

# Addresses and SHA-256: torchaudio 2.11, torchaudio/datasets/voxceleb1.py.
STEPS = f"""\
VoxCeleb1 is given out on request: fill in the form at https://mm.kaist.ac.kr/datasets/voxceleb/,
and an e-mail brings the addresses of the archives, or a name and a password.
1. In an empty folder with 80 GB free, with the addresses of the e-mail:
     mkdir -p DIR && cd DIR
     curl -L -C - -O ADDRESS/vox1_dev_wav_partaa      (and partab, partac, partad)
     curl -L -C - -O ADDRESS/vox1_test_wav.zip
     curl -L -O {LIST_URL}
2. Compare, join, unpack:
     compare() {{ echo "$2  $1" | sha256sum -c; }}
     compare vox1_dev_wav_partaa 21ec6ca843659ebc2fdbe04b530baa4f191ad4b0971912672d92c158f32226a0
     compare vox1_dev_wav_partab 311d21e0c8cbf33573a4fce6c80e5a279d80736274b381c394319fc557159a04
     compare vox1_dev_wav_partac 92b64465f2b2a3dc0e4196ae8dd6828cbe9ddd1f089419a11e4cbfe2e1750df0
     compare vox1_dev_wav_partad 00e6190c770b27f27d2a3dd26ee15596b17066b715ac111906861a7d09a211a5
     compare vox1_test_wav.zip 8de57f347fe22b2c24526e9f444f689ecf5096fc2a92018cf420ff6b5b15eaea
     cat vox1_dev_wav_parta? > vox1_dev_wav.zip && rm vox1_dev_wav_parta?
     unzip -q -d dev vox1_dev_wav.zip && unzip -q -d test vox1_test_wav.zip && rm *.zip
3. sslaudio shards build --corpus voxceleb1 --root DIR --out shards/voxceleb1
"""

_HOLDERS = ("wav", "dev/wav", "test/wav", ".")
"""Where the archives put the speakers' folders."""
_SPEAKER = re.compile(r"id1[01][0-9]{3}")
_LINE = re.compile(r"(?P<code>[123])\s+(?P<source>(?P<speaker>id[0-9]+)/(?P<video>[^/]+)/[^/]+)")


@dataclass(frozen=True)
class Config:
    """Nothing to choose: the corpus tells all."""


def recognises(root: Path) -> bool:
    """Whether a folder is this corpus as published."""
    return (root / LIST).is_file() or any(_holds_speakers(root / name) for name in _HOLDERS)


def build(config: Config, root: Path) -> list[Clip]:
    """Every clip of the list, sorted by path."""
    if not recognises(root):
        raise ValueError(
            f"{root} is not VoxCeleb1: looked for {LAYOUT}; set --root to the folder that holds "
            f"{LIST}"
        )
    if not (root / LIST).is_file():
        raise ValueError(
            f"{root} lacks {LIST}, which tells the parts of the identification task; get it from "
            f"{LIST_URL} and put it there"
        )
    listed = _read_list(root / LIST)
    files = _files(root, listed)
    clips = [
        _clip(root, files.get(entry, f"wav/{line['source']}"), line)
        for entry, line in listed.items()
    ]
    return sorted(clips, key=lambda clip: clip.source)


def _holds_speakers(folder: Path) -> bool:
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(_SPEAKER.fullmatch(entry.name) for entry in entries)


def _read_list(table: Path) -> dict[str, re.Match[str]]:
    """Lines by ``SPEAKER/VIDEO/NNNNN``, without suffix."""
    listed: dict[str, re.Match[str]] = {}
    text = table.read_text(encoding="utf-8-sig", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        told = _LINE.fullmatch(line.strip())
        if told is None:
            raise ValueError(
                f"{table}, line {number}: {line.strip()[:80]!r} is not like "
                f"'1 id10001/1zcIwhmdeo4/00001.wav'; mend it or get the list anew from {LIST_URL}"
            )
        before = listed.setdefault(_without_suffix(told["source"]), told)
        if before["code"] != told["code"]:
            raise ValueError(
                f"{table}, line {number}: {told['source']} is in part {told['code']}, and in part "
                f"{before['code']} further up; mend it or get the list anew from {LIST_URL}"
            )
    if not listed:
        raise ValueError(f"{table} lists no clips; get the list anew from {LIST_URL}")
    return listed


def _files(root: Path, listed: dict[str, re.Match[str]]) -> dict[str, str]:
    """Sources by ``SPEAKER/VIDEO/NNNNN``; the first of several, with a warning of the rest."""
    files: dict[str, str] = {}
    left_out: list[Path] = []
    for path in sound_files(root):
        source = path.relative_to(root).as_posix()
        entry = _without_suffix("/".join(path.parts[-3:]))
        if entry not in listed or files.setdefault(entry, source) != source:
            left_out.append(path)
    tables.warn_of_unlisted(left_out, LIST)
    return files


def _clip(root: Path, source: str, line: re.Match[str]) -> Clip:
    return Clip(
        root / source,
        source,
        label=line["speaker"],
        split=SPLITS[line["code"]],
        recording=line["video"],
        speaker=line["speaker"],
        licence=LICENCE,
    )


def _without_suffix(source: str) -> str:
    head, dot, _ = source.rpartition(".")
    return head if dot else source
