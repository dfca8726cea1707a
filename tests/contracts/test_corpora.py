"""Every corpus plug-in keeps the room's promises, on a miniature of its published layout."""

import shutil
from dataclasses import is_dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sslaudio import plugins
from sslaudio.data.corpora.base import SPLITS, Clip, is_sound_file


def sounds(root: Path, *sources: str) -> None:
    for source in sources:
        (root / source).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(root / source, 0.1 * np.sin(np.arange(400)), 8_000)


def speech_commands(root: Path) -> None:
    words = [f"{word}/{speaker}_nohash_0.wav" for word in ("yes", "no") for speaker in "abc"]
    sounds(root, *words, "_background_noise_/hum.wav")
    (root / "validation_list.txt").write_text("yes/b_nohash_0.wav\nno/b_nohash_0.wav\n")
    (root / "testing_list.txt").write_text("yes/c_nohash_0.wav\nno/c_nohash_0.wav\n")


def fsdd(root: Path) -> None:
    takes = [f"recordings/{n}_{who}_{t}.wav" for n in (7, 0) for who in "ba" for t in (10, 9, 2)]
    sounds(root, *takes)


def esc50(root: Path) -> None:
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in (2, 1):
        sounds(root, f"audio/{fold}-7{fold}-A-0.wav")
        lines.append(f"{fold}-7{fold}-A-0.wav,{fold},0,dog,True,7{fold},A")
    (root / "meta").mkdir()
    (root / "meta" / "esc50.csv").write_text("\n".join(lines) + "\n")


def folder(root: Path) -> None:
    sounds(root, "b/2.wav", "b/1.flac", "a.ogg", "b.wav")


MINIATURES = {
    "speech_commands": speech_commands,
    "fsdd": fsdd,
    "esc50": esc50,
    "folder": folder,
}


@pytest.fixture(params=plugins.names("corpora"))
def name(request) -> str:
    assert request.param in MINIATURES, (
        f"write a miniature for corpus {request.param} in tests/contracts/test_corpora.py"
    )
    return request.param


@pytest.fixture
def root(name, tmp_path) -> Path:
    MINIATURES[name](tmp_path / "corpus")
    return tmp_path / "corpus"


def clips_of(name: str, root: Path) -> list[Clip]:
    module = plugins.load("corpora", name)
    assert is_dataclass(module.Config)
    return module.build(module.Config(), root)


def test_every_sound_is_a_clip_in_the_order_of_their_sources(name, root):
    clips = clips_of(name, root)

    sources = [clip.source for clip in clips]
    assert sources == sorted(set(sources))
    assert len(sources) == sum(is_sound_file(path) for path in root.rglob("*"))


def test_sources_are_relative_to_the_root(name, root):
    for clip in clips_of(name, root):
        assert clip.path.is_file()
        assert clip.source == clip.path.relative_to(root).as_posix()


def test_what_is_told_is_of_the_right_kind(name, root):
    for clip in clips_of(name, root):
        assert clip.split is None or clip.split in SPLITS
        assert clip.fold is None or isinstance(clip.fold, int)
        assert isinstance(clip.labels, tuple) and isinstance(clip.subsets, tuple)
        texts = (clip.label, clip.recording, clip.speaker, clip.licence)
        texts += (*clip.labels, *clip.subsets)
        assert all(isinstance(text, str) and text for text in texts if text is not None)
        assert clip.split != "noise" or clip.label is None


def test_a_copy_elsewhere_tells_the_same(name, root, tmp_path):
    clips = clips_of(name, root)

    copy = shutil.copytree(root, tmp_path / "elsewhere" / "copy")

    for here, there in zip(clips, clips_of(name, copy), strict=True):
        assert there.path == copy / here.source
        told = {field: value for field, value in vars(here).items() if field != "path"}
        assert told == {field: value for field, value in vars(there).items() if field != "path"}


def test_another_folder_is_told_what_was_looked_for(name, tmp_path):
    (tmp_path / "notes.txt").write_text("no sound here\n")

    with pytest.raises(ValueError, match=r"looked for .*set --root") as caught:
        clips_of(name, tmp_path)

    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_there_is_told_the_cure(name, tmp_path):
    with pytest.raises(ValueError, match="set --root"):
        clips_of(name, tmp_path / "nowhere")
