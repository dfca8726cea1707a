"""Every corpus plug-in keeps the room's promises, on a miniature of its published layout."""

import shutil
from dataclasses import is_dataclass
from pathlib import Path

import pytest
from miniatures import make

from sslaudio import plugins
from sslaudio.data.corpora.base import SPLITS, Clip, is_sound_file


@pytest.fixture(params=plugins.names("corpora"))
def name(request) -> str:
    return request.param


@pytest.fixture
def root(name, tmp_path) -> Path:
    return make(name, tmp_path / "corpus")


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


def test_a_folder_is_known_by_what_is_in_it(name, root, tmp_path):
    (tmp_path / "empty").mkdir()
    known = [
        one for one in plugins.names("corpora") if plugins.load("corpora", one).recognises(root)
    ]

    assert set(known) == {name, "folder"}
    assert plugins.load("corpora", name).LAYOUT
    assert not plugins.load("corpora", name).recognises(tmp_path / "empty")
