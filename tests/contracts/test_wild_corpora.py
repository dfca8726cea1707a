"""Every importer copes with what corpora look like on real disks, on a miniature of each."""

import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from miniatures import make, sounds

from sslaudio import plugins
from sslaudio.data import listing
from sslaudio.data.corpora.base import Clip, is_sound_file
from sslaudio.data.progress import silent
from sslaudio.data.report import read_report
from sslaudio.data.shards import build

MARK = b"\xef\xbb\xbf"
EXACT = ("csv", "folder")
"""Corpora whose files are what is told, suffix and all."""


@pytest.fixture(params=plugins.names("corpora"))
def name(request) -> str:
    return request.param


@pytest.fixture
def root(name, tmp_path) -> Path:
    return make(name, tmp_path / "corpus")


def sound_files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if is_sound_file(path))


def listed(name: str, root: Path) -> list[Clip]:
    module = plugins.load("corpora", name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return module.build(module.Config(), root)


def told(clips: list[Clip]) -> list[dict]:
    """What is told of each clip, but for its suffix."""
    return [
        {k: v for k, v in vars(clip).items() if k not in ("path", "source")}
        | {"stem": clip.source.rpartition(".")[0]}
        for clip in clips
    ]


def test_tables_with_marks_and_line_ends_of_windows_tell_the_same(name, root):
    before = listed(name, root)

    for path in root.rglob("*"):
        if path.suffix.lower() in (".csv", ".txt", ".json"):
            path.write_bytes(MARK + path.read_bytes().replace(b"\n", b"\r\n"))

    assert listed(name, root) == before


def test_hidden_twins_of_every_file_are_passed_over(name, root):
    before = listed(name, root)

    for path in [*root.rglob("*")]:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7Mac OS X")

    assert listed(name, root) == before


def test_suffixes_in_capitals_are_found(name, root):
    if name == "csv":
        pytest.skip("a table of one's own tells its files' suffixes")
    before = listed(name, root)

    for path in sound_files(root):
        path.rename(path.with_suffix(path.suffix.upper()))

    after = listed(name, root)
    assert told(after) == told(before)
    assert all(clip.path.is_file() for clip in after)


def test_a_second_file_of_a_name_is_left_out_and_counted(name, root):
    if name in EXACT:
        pytest.skip("each file is told of")
    before, files = listed(name, root), sound_files(root)

    for path in files:
        path.with_suffix({".wav": ".flac"}.get(path.suffix, ".wav")).write_bytes(path.read_bytes())
    module = plugins.load("corpora", name)
    after, others = listing.read(module, module.Config(), root)

    assert told(after) == told(before)
    assert others.left_out == len(files)


def test_names_in_either_normal_form_are_one(name, root):
    if not any(not path.name.isascii() for path in root.rglob("*")):
        pytest.skip("all names are ASCII")
    before = [unicodedata.normalize("NFC", clip.source) for clip in listed(name, root)]

    for path in sorted(root.rglob("*"), reverse=True):
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))

    after = listed(name, root)
    assert [unicodedata.normalize("NFC", clip.source) for clip in after] == before
    assert all(clip.path.is_file() for clip in after)


def test_any_rate_and_channels_build_and_one_empty_or_missing_file_is_told(name, root, tmp_path):
    files = sound_files(root)
    for place, path in enumerate(files):
        rate = (8_000, 22_050, 44_100, 48_000)[place % 4]
        soundfile.write(path, np.full((rate // 10, 1 + place % 2), 0.1), rate)
    files[0].write_bytes(b"")
    clips = listed(name, root)
    files[-1].unlink()

    index, _ = build(clips, tmp_path / "out", corpus=name, jobs=1, progress=silent)

    assert {example.samples for example in index.examples()} == {1_600}
    assert index.totals.clips == len(files) - 2
    assert read_report(tmp_path / "out").rejected == {"empty": 1, "missing": 1}


def test_long_files_of_every_corpus_are_cut(name, root, tmp_path):
    sounds(root, sound_files(root)[0].relative_to(root).as_posix(), seconds=0.5)

    index, _ = build(
        listed(name, root),
        tmp_path / "out",
        corpus=name,
        segment_seconds=0.1,
        jobs=1,
        progress=silent,
    )

    cut = [example for example in index.examples() if "start" in example.fields]
    assert sorted(example.fields["start"] for example in cut) == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert len({example.fields["recording"] for example in cut}) == 1
    assert len({example.key for example in cut}) == 5
