import io
import json
import tarfile

import pytest

from sslaudio.data import foreign, places
from sslaudio.data.corpora.base import Clip
from sslaudio.data.exclude import excluded_members, read_rules
from sslaudio.data.index import Index
from sslaudio.data.layout import TAR_BLOCK
from sslaudio.data.progress import silent
from sslaudio.data.shards import build


def excluded_numbers(tmp_path, text, *folders):
    """Numbers of the clips that the rules leave out, one set a folder."""
    (tmp_path / "rules.txt").write_text(text)
    indexes = [Index.open(folder) for folder in folders]
    found = excluded_members(read_rules([str(tmp_path / "rules.txt")]), indexes)
    return [
        {
            int(index.clip(shard, member).key[-3:])
            for shard, members in hits.items()
            for member in members
        }
        for index, hits in zip(indexes, found, strict=True)
    ]


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("speaker:bert", set(range(1, 50, 3))),
        ("fold:4", set(range(3, 50, 4))),
        ("label:odd", set(range(1, 50, 2))),
        ("split:test", set(range(4, 50, 5))),
        ("recording:r3", {6, 7}),
        ("r3", {6, 7}),
        ("clip_011", {11}),
        ("key:clip_011", {11}),
        ("clip 012.wav", {12}),
        ("source:clip 012.wav", {12}),
        ("toy: speaker:bert", set(range(1, 50, 3))),
        ("toy: r3", {6, 7}),
        ("clip_001\n\n# a comment\n  r2  # two clips\n", {1, 4, 5}),
        ("speaker:bert\nfold:4", set(range(1, 50, 3)) | set(range(3, 50, 4))),
    ],
)
def test_a_rule_leaves_out_what_it_says(tmp_path, shards_folder, rule, expected):
    assert excluded_numbers(tmp_path, rule, shards_folder) == [expected]


def test_a_rule_for_one_corpus_leaves_the_others_alone(tmp_path, shards_folder, second_folder):
    both = excluded_numbers(tmp_path, "clip_011\nkey:second_clip_003", shards_folder, second_folder)
    one = excluded_numbers(tmp_path, "second: speaker:dora", shards_folder, second_folder)

    assert both == [{11}, {3}]
    assert one == [set(), set(range(20))]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("speaker:george", r"rules\.txt:2: the rule 'speaker:george' matches no clip"),
        ("clip_99", "'clip_99' matches no clip"),
        ("fsdd: speaker:bert", "for the corpus 'fsdd', but data.shards gives toy"),
    ],
)
def test_a_rule_that_matches_nothing_is_a_slip(tmp_path, shards_folder, rule, words):
    with pytest.raises(ValueError, match=words):
        excluded_numbers(tmp_path, f"clip_001\n{rule}\n", shards_folder)


def test_a_missing_file_of_rules_names_the_key():
    with pytest.raises(ValueError, match=r"data\.exclude names .*nowhere\.txt"):
        read_rules(["nowhere.txt"])


def test_labels_and_subsets_match_any_of_a_clips_own(tmp_path, make_clips):
    paths = [clip.path for clip in make_clips(tmp_path / "in", 3)]
    clips = [
        Clip(paths[0], "clip 000.wav", labels=("Speech", "Music")),
        Clip(paths[1], "clip 001.wav", labels=("Music",), subsets=("dev",)),
        Clip(paths[2], "clip 002.wav", labels=("Speech",)),
    ]
    build(clips, tmp_path / "out", corpus="toy", jobs=1, progress=silent)

    assert excluded_numbers(tmp_path, "label:Music", tmp_path / "out") == [{0, 1}]
    assert excluded_numbers(tmp_path, "subset:dev", tmp_path / "out") == [{1}]


def test_rules_are_held_against_the_json_without_reading_the_sound(
    tmp_path, shards_folder, monkeypatch
):
    asked: list[int] = []
    read = places.Local.read_ranges

    def counted(place: places.Local, ranges: list[places.Range]) -> list[bytes]:
        asked.extend(one.size for one in ranges)
        return read(place, ranges)

    monkeypatch.setattr(places.Local, "read_ranges", counted)
    (tmp_path / "rules.txt").write_text("speaker:bert")
    index = Index.open(shards_folder)

    [found] = excluded_members(read_rules([str(tmp_path / "rules.txt")]), [index])

    text = sum(int(index.offsets(shard)["json_bytes"].sum()) for shard in range(5))
    assert sum(map(len, found.values())) == 17
    assert sum(asked) == 50 * TAR_BLOCK + text


def test_json_of_strangers_may_hold_anything(tmp_path, make_clips):
    [clip] = make_clips(tmp_path / "in", 1)
    told = [
        {"labels": 5}, {"labels": [{"deep": []}, ["x"], 7, "dog"]}, {"labels": "dog"},
        {"subsets": {"a": 1}, "speaker": ["bert"]}, "no table",
    ]  # fmt: skip
    (tmp_path / "tars").mkdir()
    with tarfile.open(tmp_path / "tars" / "a.tar", "w") as archive:
        for number, fields in enumerate(told):
            archive.add(clip.path, f"{number}.wav")
            text = json.dumps(fields).encode()
            member = tarfile.TarInfo(f"{number}.json")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text))
    foreign.index(tmp_path / "tars", max_rejected=1.0, jobs=1, progress=silent)
    (tmp_path / "rules.txt").write_text("label:dog\nlabel:7")

    rules = read_rules([str(tmp_path / "rules.txt")])
    [found] = excluded_members(rules, [Index.open(tmp_path / "tars")])

    assert {shard: members.tolist() for shard, members in found.items()} == {0: [1]}
