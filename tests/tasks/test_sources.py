"""Which copy of a corpus a task takes where several lie below one root."""

import pytest

from sslaudio.data import shards
from sslaudio.data.corpora import speech_commands
from sslaudio.plugins import Plugin
from sslaudio.tasks import sources
from sslaudio.tasks.speechcommands import Config

V1, V2 = "speech_commands_v0.01", "speech_commands_v0.02"
ARCHIVES = [f"speech_commands_test_set_v0.0{version}" for version in (1, 2)]


@pytest.fixture
def published(tmp_path, sound):
    """The four folders that the publisher's archives unpack to, below one root."""
    for folder in (V1, V2, *ARCHIVES):
        sound(tmp_path / folder / "yes" / "cccccccc_nohash_0.wav")
    for folder in ARCHIVES:
        sound(tmp_path / folder / "_silence_" / "0.wav")
    sound(tmp_path / V2 / "visual" / "aaaaaaaa_nohash_0.wav")
    return tmp_path


def root_of(version, root):
    return sources.root_of(Plugin("tasks", "speechcommands", Config(version=version)), root)


def test_each_version_of_a_task_takes_its_own_copy(published):
    assert root_of("v1-12", published) == published / V1
    for version in ("v2-35", "v2-12", "v2-10"):
        assert root_of(version, published) == published / V2


def test_a_version_that_is_not_there_takes_the_first(published):
    (published / V2 / "visual" / "aaaaaaaa_nohash_0.wav").unlink()
    (published / V2 / "visual").rmdir()

    assert root_of("v2-35", published) == published / V1
    assert root_of("v2-35", published / V2) == published / V2


def test_the_labels_of_shards_tell_their_version(published, tmp_path):
    top = tmp_path / "packed"
    for folder, name in ((V1, "a"), (V2, "b")):
        clips = [
            clip
            for clip in speech_commands.build(speech_commands.Config(), published / folder)
            if not speech_commands.is_archived_alone(clip)
        ]
        shards.build(clips, top / name, corpus="speech_commands", jobs=1)

    assert root_of("v1-12", top) == top / "a"
    assert root_of("v2-12", top) == top / "b"


def test_a_test_archive_is_nobodys_corpus(published):
    renamed = published / "evaluation"
    (published / ARCHIVES[1]).rename(renamed)

    for folder in (published / ARCHIVES[0], renamed):
        with pytest.raises(sources.AbsentError, match="neither in"):
            sources.locate("speech_commands", folder)


def test_what_is_anyones_own_must_be_said():
    with pytest.raises(sources.AbsentError, match="task csv reads sound of your own"):
        sources.root_of(Plugin("tasks", "csv", None), None)
