import io
import json
import re
import tarfile

import numpy as np
import pytest
import soundfile
import webdataset

from sslaudio.data.corpora.base import Clip
from sslaudio.data.index import Index, labelled_examples
from sslaudio.data.layout import OFFSETS, SplitTotals
from sslaudio.data.progress import silent
from sslaudio.data.shards import build


def make(clips, out, **settings):
    settings = {"corpus": "toy", "clips_per_shard": 10, "jobs": 1, **settings}
    return build(clips, out, progress=silent, **settings)


def tree(folder):
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.suffix in (".tar", ".idx", ".json", ".jsonl")
    }


def value_of(flac: bytes) -> int:
    """Which clip a sound is: its constant value in thousandths."""
    return round(1_000 * soundfile.read(io.BytesIO(flac))[0].mean())


def test_plain_webdataset_and_tarfile_read_the_same_clips(shards_folder):
    tars = sorted(shards_folder.glob("*.tar"))
    assert [path.name for path in tars] == [f"toy-{number:06d}.tar" for number in range(5)]

    by_webdataset = {
        sample["__key__"]: (sample["flac"], json.loads(sample["json"]))
        for sample in webdataset.WebDataset([str(t) for t in tars], shardshuffle=False)
    }
    by_tarfile = {}
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar.getmembers():
                key, _, kind = member.name.partition(".")
                by_tarfile.setdefault(key, {})[kind] = tar.extractfile(member).read()

    assert len(by_webdataset) == 50
    for key, (flac, fields) in by_webdataset.items():
        assert by_tarfile[key]["flac"] == flac
        assert json.loads(by_tarfile[key]["json"]) == fields
        number = value_of(flac)
        assert key == f"clip_{number:03d}"
        assert fields == {
            "label": ("even", "odd")[number % 2],
            "split": ("train", "train", "train", "validation", "test")[number % 5],
            "fold": number % 4 + 1,
            "recording": f"r{number // 2}",
            "speaker": ("anna", "bert", "cleo")[number % 3],
            "source": f"clip {number:03d}.wav",
            "seconds": (800 + number) / 16_000,
            "licence": "CC0 1.0",
        }


def test_members_bear_no_trace_of_when_and_by_whom(shards_folder):
    with tarfile.open(shards_folder / "toy-000000.tar") as tar:
        for member in tar.getmembers():
            assert (member.mtime, member.uid, member.gid) == (0, 0, 0)
            assert (member.uname, member.gname) == ("", "")
            assert re.fullmatch(r"[A-Za-z0-9_-]+\.(flac|json)", member.name)


def test_the_offsets_find_every_sound_and_json(shards_folder):
    index = Index.open(shards_folder)

    for number, shard in enumerate(index.shards):
        with tarfile.open(shards_folder / shard.name) as tar:
            members = tar.getmembers()
        rows = np.fromfile(shards_folder / shard.offsets_name, OFFSETS)
        assert rows.dtype.itemsize == 36
        assert rows["audio_offset"].tolist() == [m.offset_data for m in members[::2]]
        json_at = (rows["audio_offset"].astype(int) + rows["json_offset"]).tolist()
        assert json_at == [m.offset_data for m in members[1::2]]
        clip = index.clip(number, 3)
        assert clip.key == members[6].name.removesuffix(".flac")
        assert clip.samples == 800 + value_of(clip.audio)


def test_labelled_examples_give_what_fine_tuning_needs(shards_folder):
    examples = list(labelled_examples(shards_folder))

    assert len({example.key for example in examples}) == 50
    for example in examples:
        with example.shard.open("rb") as tar:
            tar.seek(example.byte_range[0])
            number = value_of(tar.read(example.byte_range[1]))
        assert example.key == f"clip_{number:03d}"
        assert example.fields["label"] == ("even", "odd")[number % 2]
        assert example.samples == 800 + number


def test_the_index_counts_what_there_is(shards_folder):
    content = json.loads((shards_folder / "index.json").read_text())

    samples = sum(800 + number for number in range(50))
    assert content["corpus"] == "toy"
    assert (content["sample_rate"], content["codec"]) == (16_000, "flac")
    assert content["totals"]["clips"] == 50
    assert content["totals"]["seconds"] == pytest.approx(samples / 16_000)
    assert content["totals"]["labels"] == {"even": 25, "odd": 25}
    splits = {name: split["clips"] for name, split in content["totals"]["splits"].items()}
    assert splits == {"train": 30, "validation": 10, "test": 10}
    sizes = [(shards_folder / shard["name"]).stat().st_size for shard in content["shards"]]
    assert [shard["bytes"] for shard in content["shards"]] == sizes
    assert content["totals"]["bytes"] == sum(sizes)


def test_no_shard_is_of_one_class(tmp_path, make_clips):
    clips = sorted(make_clips(tmp_path / "in", 60), key=lambda clip: clip.label)

    index, _ = make(clips, tmp_path / "out")

    for number in range(len(index.shards)):
        labels = [e.fields["label"] for e in index.examples()][number * 10 : number * 10 + 10]
        assert 1 <= labels.count("even") <= 9


def test_two_processes_write_the_same_bytes_as_one(tmp_path, make_clips):
    clips = make_clips(tmp_path / "in", 40)

    make(clips, tmp_path / "one", jobs=1)
    make(clips, tmp_path / "two", jobs=2)

    one = tree(tmp_path / "one")
    assert len(one) == 4 + 4 + 2  # the index and the report
    assert one == tree(tmp_path / "two")


def test_ogg_shards_come_out_the_same_each_time(tmp_path, make_clips):
    clips = make_clips(tmp_path / "in", 10)

    make(clips, tmp_path / "one", codec="ogg")
    make(clips, tmp_path / "two", codec="ogg")

    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    with tarfile.open(tmp_path / "one" / "toy-000000.tar") as tar:
        assert tar.getnames()[0].endswith(".ogg")


@pytest.mark.parametrize(("clips", "shards"), [(64, 1), (65, 2), (1_000, 16), (3_000, 16)])
def test_small_corpora_get_several_shards(tmp_path, monkeypatch, clips, shards):
    missing = [Clip(tmp_path / f"{n}.wav", f"{n}.wav") for n in range(clips)]
    packed = []
    monkeypatch.setattr(
        "sslaudio.data.shards.run_parallel",
        lambda function, todo, jobs: packed.extend(todo) or map(function, todo),
    )

    with pytest.raises(ValueError, match=f"none of the {clips} files could be used"):
        make(missing, tmp_path / "out", clips_per_shard=None)

    sizes = [len(packing.clips) for packing in packed]
    assert len(sizes) == shards
    assert max(sizes) - min(sizes) <= 1


def test_rejected_files_are_listed_with_their_reasons(tmp_path, make_clips):
    clips = make_clips(tmp_path / "in", 12)
    clips[3].path.write_bytes(b"")
    clips[5].path.write_text("words, not sound " * 50)
    clips[7].path.unlink()

    index, _ = make(clips, tmp_path / "out")

    assert index.totals.clips == 9
    assert index.totals.rejected == 3
    lines = (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    rejected = {line["source"]: line["reason"] for line in map(json.loads, lines)}
    assert rejected["clip 003.wav"] == "empty: 0 bytes"
    assert "cannot be decoded" in rejected["clip 005.wav"]
    assert rejected["clip 007.wav"] == "missing"
    assert "clip_003" not in {example.key for example in index.examples()}


def test_too_many_rejected_files_fail_and_a_higher_limit_goes_on(tmp_path, make_clips, monkeypatch):
    clips = make_clips(tmp_path / "in", 100)
    for clip in clips[:2]:
        clip.path.write_bytes(b"")

    with pytest.raises(ValueError, match=r"2 of 100 files were rejected.*--max-rejected 0\.01"):
        make(clips, tmp_path / "out")
    assert not (tmp_path / "out" / "index.json").exists()
    monkeypatch.setattr("sslaudio.data.pack.decode_bytes", None)  # nothing is decoded again
    index, _ = make(clips, tmp_path / "out", max_rejected=0.02)

    assert index.totals.clips == 98


def test_below_a_hundred_files_the_share_says_too_little(tmp_path, make_clips):
    clips = make_clips(tmp_path / "in", 99)
    for clip in clips[:50]:
        clip.path.unlink()

    index, _ = make(clips, tmp_path / "out")

    assert index.totals.clips == 49


def test_nothing_usable_at_all_always_fails(tmp_path):
    (tmp_path / "a.wav").write_text("no sound")

    with pytest.raises(ValueError, match=r"none of the 1 files .* a\.wav \(cannot be decoded"):
        make([Clip(tmp_path / "a.wav", "a.wav")], tmp_path / "out", max_rejected=1.0)


def test_any_rate_comes_out_at_sixteen_kilohertz(tmp_path):
    clips = []
    for rate in (8_000, 22_050, 44_100, 48_000):
        path = tmp_path / f"{rate}.flac"
        soundfile.write(path, np.zeros((rate // 2, 2)), rate)
        clips.append(Clip(path, path.name))

    index, _ = make(clips, tmp_path / "out")

    assert [example.samples for example in index.examples()] == [8_000] * 4


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"codec": "mp3"}, "no codec 'mp3'.*flac or ogg"),
        ({"sample_rate": 16}, "--sample-rate is 16 Hz"),
        ({"clips_per_shard": 0}, "--clips-per-shard is 0"),
        ({"max_rejected": 5.0}, "--max-rejected is 5.*0 to 1"),
    ],
)
def test_a_wrong_setting_names_its_flag(tmp_path, make_clips, settings, words):
    with pytest.raises(ValueError, match=words):
        make(make_clips(tmp_path / "in", 1), tmp_path / "out", **settings)


def test_no_clips_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"no clips.*--root"):
        make([], tmp_path / "out")


def test_clips_of_several_classes_carry_a_list(tmp_path, make_clips):
    path = make_clips(tmp_path / "in", 1)[0].path
    clips = [
        Clip(path, "both.wav", labels=("Speech", "Music")),
        Clip(path, "one.wav", labels=("Music",), subsets=("dev",)),
        Clip(path, "none.wav"),
    ]

    index, _ = make(clips, tmp_path / "out")

    fields = {example.fields.pop("source"): example.fields for example in index.examples()}
    assert fields == {
        "both.wav": {"labels": ["Speech", "Music"], "seconds": 0.05},
        "one.wav": {"labels": ["Music"], "subsets": ["dev"], "seconds": 0.05},
        "none.wav": {"seconds": 0.05},
    }
    assert index.totals.labels == {"Music": 2, "Speech": 1}
    assert index.totals.splits == {"": SplitTotals(3, pytest.approx(0.15))}
