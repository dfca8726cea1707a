from pathlib import Path

import pytest

from sslaudio.data.corpora.base import Clip, corpus_root, sound_files


def test_a_split_of_another_name_is_refused():
    with pytest.raises(ValueError, match=r"a\.wav: its split is 'dev'.*train, validation, test"):
        Clip(Path("a.wav"), "a.wav", split="dev")


def test_one_label_or_several_and_not_both():
    with pytest.raises(ValueError, match=r"a\.wav has both a label and labels"):
        Clip(Path("a.wav"), "a.wav", label="dog", labels=("dog", "cat"))


def test_the_root_given_comes_before_the_environment(tmp_path, monkeypatch):
    (tmp_path / "fsdd").mkdir()
    monkeypatch.setenv("SSLAUDIO_DATA", str(tmp_path))

    assert corpus_root(None, "fsdd") == tmp_path / "fsdd"
    assert corpus_root(tmp_path, "fsdd") == tmp_path


def test_no_root_names_both_ways_whatever_is_wrong(tmp_path, monkeypatch):
    both = r"give --root DIR, or set \$SSLAUDIO_DATA to the folder that holds folder/"
    monkeypatch.setenv("SSLAUDIO_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=f"--root {tmp_path / 'no'} is no folder; {both}"):
        corpus_root(tmp_path / "no", "folder")
    with pytest.raises(ValueError, match=f"which has no folder folder; {both}"):
        corpus_root(None, "folder")
    monkeypatch.delenv("SSLAUDIO_DATA")
    with pytest.raises(ValueError, match=rf"where is the corpus folder\? {both}"):
        corpus_root(None, "folder")


def test_sound_files_are_sorted_by_path(write_sounds):
    root = write_sounds("b/a.wav", "b.wav", "a/z.wav", "b/.x.wav")

    found = [path.relative_to(root).as_posix() for path in sound_files(root)]

    assert found == ["a/z.wav", "b.wav", "b/a.wav"]
