"""Recordings that two corpora share, by hand."""

import pytest
import soundfile

from sslaudio.cli import main
from sslaudio.data.corpora.base import Clip
from sslaudio.data.index import Index
from sslaudio.data.overlap import heard, heard_among, kind_of, shared
from sslaudio.data.progress import silent
from sslaudio.data.selection import open_selections
from sslaudio.data.shards import build


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Shards of three corpora: clips by recording and split."""
    work = tmp_path_factory.mktemp("corpora")
    soundfile.write(work / "tone.wav", [0.1] * 800, 16_000)

    def made(corpus, *clips):
        told = [
            Clip(work / "tone.wav", f"{corpus}/{number}.wav", recording=recording, split=split)
            for number, (recording, split) in enumerate(clips)
        ]
        build(told, work / corpus, corpus=corpus, clips_per_shard=2, jobs=1, progress=silent)
        return work / corpus

    return {
        "fsd50k": made("fsd50k", ("100", "train"), ("200", "train"), ("300", "validation"),
                       ("400", "test"), ("500", "train")),
        "esc50": made("esc50", ("200", None), ("200", None), ("300", None), ("999", None)),
        "audioset": made("audioset", ("abcdefghijk", "train"), ("200", "test")),
        "voxceleb1": made("voxceleb1", ("abcdefghijk", "test"), ("abcdefghijk", "train")),
    }  # fmt: skip


def test_freesound_and_youtube_corpora_are_of_their_kind():
    kinds = {name: kind_of(name) for name in ("fsd50k", "esc50", "urbansound8k", "fsdd", "mine")}

    assert kinds == {
        "fsd50k": "freesound", "esc50": "freesound", "urbansound8k": "freesound", "fsdd": "fsdd",
        "mine": "mine",
    }  # fmt: skip
    assert kind_of("audioset") == kind_of("voxceleb1") == "youtube"


def test_shared_recordings_are_those_of_both(corpora):
    found = shared(Index.open(corpora["fsd50k"]), Index.open(corpora["esc50"]))

    assert (found.kind, found.recordings, found.clips) == ("freesound", ["200", "300"], 2)
    assert found.others == {"": 3}


def test_only_the_split_that_is_asked_for_counts(corpora):
    audioset, voxceleb = (Index.open(corpora[name]) for name in ("audioset", "voxceleb1"))

    assert shared(audioset, voxceleb, ("test",)).others == {"test": 1}
    assert shared(audioset, voxceleb, ("validation",)).recordings == []


def test_ids_of_different_kinds_are_not_compared(corpora):
    # 200 is a Freesound id there, and would be a YouTube id here.
    with pytest.raises(ValueError, match=r"fsd50k, whose .* freesound.* youtube.*of one kind"):
        shared(Index.open(corpora["fsd50k"]), Index.open(corpora["audioset"]))


def test_the_rules_leave_out_what_is_shared(corpora, tmp_path, capsys):
    rules = tmp_path / "rules.txt"

    status = main(
        ["shards", "overlap", str(corpora["fsd50k"]), str(corpora["esc50"]), "--out", str(rules)]
    )

    assert status == 0
    assert "2 recordings of fsd50k are in esc50 too (by freesound id): 2 of its 5 clips, and 3" in (
        capsys.readouterr().out
    )
    lines = [line for line in rules.read_text().splitlines() if not line.startswith("#")]
    assert lines == ["fsd50k: recording:200", "fsd50k: recording:300"]
    options = {"split": "all", "sample_rate": 16_000}
    [left], _ = open_selections((str(corpora["fsd50k"]),), exclude=(str(rules),), **options)
    assert left.counts().sum() == 3
    among = heard([left])
    assert heard_among(among, "esc50", ["200", "300", "999", "100"]) == 1
    assert heard_among(among, "audioset", ["100"]) == 0


def test_a_run_has_heard_the_clips_of_its_split_alone(corpora):
    [training], _ = open_selections(
        (str(corpora["fsd50k"]),), split="train", exclude=(), sample_rate=16_000
    )

    assert heard_among(heard([training]), "fsd50k", ["100", "200", "300", "400", "500"]) == 3
