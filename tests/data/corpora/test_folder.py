import pytest

from sslaudio.data.corpora.base import LeftOutWarning
from sslaudio.data.corpora.folder import Config, build
from sslaudio.data.progress import silent
from sslaudio.data.shards import build as build_shards


def test_every_sound_at_any_depth_in_stable_order(write_sounds):
    root = write_sounds("b/2.WAV", "b/1.mp3", "a.flac", "z/deep/er/c.Ogg", ".hidden/x.wav")
    write_sounds("b/._2.wav")
    (root / "notes.txt").write_text("not a sound")

    clips = build(Config(), root)

    assert [clip.source for clip in clips] == ["a.flac", "b/1.mp3", "b/2.WAV", "z/deep/er/c.Ogg"]
    assert {(clip.split, clip.label) for clip in clips} == {("train", None)}


def test_sound_of_kinds_that_are_not_read_is_counted(write_sounds):
    root = write_sounds("a.wav")
    for name in ("b.M4A", "c/d.webm", "c/.e.m4a", "f.txt"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"sound")

    with pytest.warns(LeftOutWarning, match=r"2 .*since \.m4a, \.webm is not read: conv.*b\.M4A"):
        assert [clip.source for clip in build(Config(), root)] == ["a.wav"]


def test_the_parent_folder_is_the_label_if_asked(write_sounds):
    root = write_sounds("dog/1.wav", "animals/cat/2.wav")

    labels = [clip.label for clip in build(Config(label="parent"), root)]

    assert labels == ["cat", "dog"]


def test_a_file_without_a_parent_folder_cannot_take_its_label(write_sounds):
    with pytest.raises(ValueError, match=r"1\.wav lies in .* itself.*--label none"):
        build(Config(label="parent"), write_sounds("1.wav"))


def test_names_in_any_script_get_through(write_sounds, tmp_path):
    sources = ["vögel/käuzchen.wav", "鳥/フクロウ.wav", "鳥/ミミズク.wav", "a b/it's #1.wav"]
    root = write_sounds(*sources)

    index, _ = build_shards(
        build(Config(label="parent"), root),
        tmp_path / "out",
        corpus="folder",
        jobs=1,
        progress=silent,
    )

    told = {e.fields["source"]: (e.key, e.fields["label"]) for e in index.examples()}
    assert set(told) == set(sources)
    assert told["vögel/käuzchen.wav"] == ("vogel_kauzchen", "vögel")
    assert len({key for key, _ in told.values()}) == 4


def test_an_empty_or_missing_folder_is_told(tmp_path):
    (tmp_path / "empty").mkdir()

    with pytest.raises(ValueError, match=r"holds no sound files: looked for \.wav, \.flac"):
        build(Config(), tmp_path / "empty")
    with pytest.raises(ValueError, match="there is no folder"):
        build(Config(), tmp_path / "nowhere")


def test_linked_folders_are_read_once_and_never_round_in_circles(write_sounds, tmp_path):
    root = write_sounds("a/1.wav")
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (root / "a" / "1.wav").rename(outside / "2.wav")
    (root / "b").symlink_to(outside)
    (root / "a" / "back").symlink_to(root)

    assert [clip.source for clip in build(Config(), root)] == ["b/2.wav"]
