"""Speech Commands: list files rule, twelve classes after the published logic."""

import math
import warnings

import pytest

from sslaudio.data import shards
from sslaudio.data.corpora import speech_commands
from sslaudio.data.corpora.base import Clip
from sslaudio.data.corpora.speech_commands import SILENCE, UNKNOWN
from sslaudio.tasks import sources
from sslaudio.tasks.speechcommands import ONLY_V2, Config, build
from sslaudio.tasks.twelve_words import EXTRA_SHARE, TEN

SPEAKERS = {"train": "aaaaaaaa", "validation": "bbbbbbbb", "test": "cccccccc"}


@pytest.fixture
def corpus(tmp_path, sound):
    """A folder a word with ``takes`` clips of each split's one speaker, listed."""

    def write(words, takes=2, noise_seconds=(20.0,)):
        root = tmp_path / "corpus"
        root.mkdir()
        lists = {"validation": [], "testing": []}
        for word in words:
            for part, speaker in SPEAKERS.items():
                for take in range(takes):
                    name = f"{word}/{speaker}_nohash_{take}.wav"
                    sound(root / name)
                    if part != "train":
                        lists["testing" if part == "test" else part].append(name)
        for part, names in lists.items():
            (root / f"{part}_list.txt").write_text("\n".join(names) + "\n")
        for place, seconds in enumerate(noise_seconds):
            sound(root / "_background_noise_" / f"hum_{place}.wav", seconds)
        return root

    return write


def names(task, part):
    return [task.classes[example.target] for example in getattr(task.folds[0], part)]


def words_of_unknown(task):
    return {
        example.path.parent.name
        for examples in task.folds[0].parts().values()
        for example in examples
        if task.classes[example.target] == UNKNOWN
    }


def test_the_lists_alone_divide_the_clips(corpus):
    task = build(Config(), corpus(["yes", "no", "wow", "visual"]))

    (fold,) = task.folds
    assert fold.name == "published"
    for part, speaker in SPEAKERS.items():
        assert {example.speaker for example in getattr(fold, part)} == {speaker}
    assert fold.clips() == {"train": 8, "validation": 8, "test": 8}
    assert "testing_list.txt" in task.split_rule


def test_without_lists_the_published_hash_divides_and_says_so(corpus, sound):
    root = corpus([])
    for name in ("validation_list.txt", "testing_list.txt"):
        (root / name).unlink()
    # By the publisher's which_set, run apart from our code.
    speakers = {"00000010": "train", "00000019": "validation", "00000018": "test"}
    for word in ("yes", "no", "visual"):
        for speaker in speakers:
            sound(root / word / f"{speaker}_nohash_0.wav")

    with pytest.warns(UserWarning, match="published hash"):
        task = build(Config(), root)

    assert "published hash" in task.split_rule
    for part, examples in task.folds[0].parts().items():
        assert {speakers[example.speaker] for example in examples} == {part}


def test_absent_words_are_said(corpus):
    task = build(Config(), corpus(["yes", "no", "wow", "visual"]))

    assert task.classes == ("no", "visual", "wow", "yes")
    assert "4 of 35 words" in task.notes


def test_ten_words_leave_the_others_and_the_noise_out(corpus):
    task = build(Config(version="v2-10"), corpus([*TEN, "wow", "visual"]))

    assert task.classes == TEN
    assert task.notes == ()
    assert task.folds[0].clips() == {"train": 20, "validation": 20, "test": 20}


def test_twelve_classes_add_a_tenth_unknown_and_a_tenth_silent(corpus):
    task = build(Config(version="v2-12"), corpus([*TEN, "wow", "visual"], takes=3))

    assert task.classes == (SILENCE, UNKNOWN, *TEN)
    for part in ("train", "validation", "test"):
        # 30 clips of command words: 3 of each, by hand.
        labels = names(task, part)
        assert len(labels) == 36
        assert labels.count(UNKNOWN) == labels.count(SILENCE) == 3


def test_the_published_test_archives_size_follows():
    # 4,074 and 2,567 test clips of command words; the archives hold 4,890 and 3,081 clips.
    assert 4074 + 2 * math.ceil(EXTRA_SHARE * 4074) == 4890
    assert 2567 + 2 * math.ceil(EXTRA_SHARE * 2567) == 3081


def test_silence_of_two_parts_never_overlaps(corpus):
    root = corpus([*TEN, "wow", "visual"], takes=3, noise_seconds=(20.0, 30.0))
    task = build(Config(version="v2-12"), root)

    spans = {}
    for part in ("train", "validation", "test"):
        cuts = [example for example in getattr(task.folds[0], part) if example.target == 0]
        assert {len(cut.waveform(8_000)) for cut in cuts} == {8_000}
        for cut in cuts:
            spans.setdefault(cut.path.name, {}).setdefault(part, []).append(cut.start_seconds)
    assert sorted(spans) == ["hum_0.wav", "hum_1.wav"]
    for starts in spans.values():
        assert max(starts["train"]) + 1 <= min(starts["validation"])
        assert max(starts["validation"]) + 1 <= min(starts["test"])


def test_noise_shorter_than_a_clip_is_cut_shorter(corpus):
    task = build(Config(version="v2-12"), corpus([*TEN, "visual"], noise_seconds=(2.0,)))

    (cut, *_) = [example for example in task.folds[0].test if example.target == 0]
    assert len(cut.waveform(8_000)) == 1_600  # a tenth of two seconds


def test_without_noise_there_is_no_silence(corpus):
    task = build(Config(version="v2-12"), corpus([*TEN, "visual"], noise_seconds=()))

    assert SILENCE not in task.classes
    assert "11 of 12 classes" in task.notes


def test_folders_of_the_test_archive_are_its_classes(corpus, sound):
    root = corpus([*TEN, "wow", "visual"])
    for label in (SILENCE, UNKNOWN):
        for take in range(5):
            sound(root / label / f"{take}.wav")

    task = build(Config(version="v2-12"), root)

    tests = [example for example in task.folds[0].test if example.target in (0, 1)]
    assert sorted(example.path.parent.name for example in tests) == [SILENCE] * 5 + [UNKNOWN] * 5
    assert names(task, "train").count(UNKNOWN) == 2
    assert SILENCE not in build(Config(), root).classes


@pytest.fixture
def archive(sound):
    """Write a test archive: the test speaker's first take of each word, and the two extras."""

    def write(folder, words=TEN, extras=3):
        names = [f"{word}/cccccccc_nohash_0.wav" for word in words]
        names += [f"{label}/{take}.wav" for label in (SILENCE, UNKNOWN) for take in range(extras)]
        for name in names:
            sound(folder / name)
        return sorted(names)

    return write


def heard(task, part="test"):
    """Folder and name of every clip of a part."""
    clips = getattr(task.folds[0], part)
    return sorted(f"{one.path.parent.name}/{one.path.name}" for one in clips)


@pytest.mark.parametrize("place", [".", ".."])
@pytest.mark.parametrize("training", ["tensorflow", "superb"])
def test_the_published_archive_is_the_test_part(corpus, archive, place, training):
    root = corpus([*TEN, "wow", "visual"])
    listed = archive(root / place / "speech_commands_test_set_v0.02")

    task = build(Config(version="v2-12", training=training), root)

    assert heard(task) == listed
    assert task.notes == ()
    labels = names(task, "test")
    assert labels.count(SILENCE) == labels.count(UNKNOWN) == 3
    # The corpus's own file serves where it has the archive's clip.
    assert all(one.path.parents[1] == root for one in task.folds[0].test if one.target > 1)


def test_the_archive_is_nothing_to_the_other_versions(corpus, archive):
    root = corpus([*TEN[1:], "wow", "visual"])
    whole, ten = build(Config(), root), build(Config(version="v2-10"), root)

    archive(root / "speech_commands_test_set_v0.02")  # holds a word that the corpus lacks
    archive(root, words=())

    assert build(Config(), root) == whole
    assert build(Config(version="v2-10"), root) == ten
    trains = [clip for clip in speech_commands.build(speech_commands.Config(), root)
              if clip.split == "train"]  # fmt: skip
    assert len(trains) == len(whole.folds[0].train)


def test_the_other_versions_archive_is_passed_over(corpus, archive):
    root = corpus([*TEN, "wow", "visual"])
    archive(root / "speech_commands_test_set_v0.01")

    task = build(Config(version="v2-12"), root)

    assert len(task.folds[0].test) == 20 + 2 + 2
    assert task.notes == ("the test's unknown and silence are drawn at 10 %, not the published "
                          "archive's",)  # fmt: skip


def test_an_archived_clip_never_trains(corpus, archive):
    root = corpus([*TEN, "wow", "visual"])
    (root / "testing_list.txt").write_text("wow/cccccccc_nohash_0.wav\n")
    archive(root / "speech_commands_test_set_v0.02")

    with pytest.warns(UserWarning, match="10 clips that train or validate .* they test"):
        task = build(Config(version="v2-12"), root)

    assert not set(heard(task)) & set(heard(task, "train"))


def test_shards_carry_the_archive_and_give_the_same_cuts_of_noise(corpus, archive, tmp_path):
    # 20 clips of commands a part: two cuts, of two of the six files that lie shuffled in shards.
    root = corpus([*TEN, "wow", "visual"], noise_seconds=(20.0,) * 6)
    listed = archive(root / "speech_commands_test_set_v0.02")
    clips = speech_commands.build(speech_commands.Config(), root)

    shards.build(clips, tmp_path / "shards", corpus="speech_commands", jobs=1)

    for config in (Config(version="v2-12", training="superb"), Config(version="v2-12"), Config()):
        published, packed = build(config, root), build(config, tmp_path / "shards")
        for part, examples in published.folds[0].parts().items():
            told = sorted((one.key, one.target) for one in packed.folds[0].parts()[part])
            assert told == sorted((one.key, one.target) for one in examples)
        assert "by the splits of the shards" in packed.split_rule
    assert len(build(Config(version="v2-12"), tmp_path / "shards").folds[0].test) == len(listed)


def test_superb_takes_every_other_word_and_whole_noise(corpus, archive):
    root = corpus([*TEN, "wow", "visual"], takes=3, noise_seconds=(20.0, 30.0))
    archive(root / "speech_commands_test_set_v0.02")

    task = build(Config(version="v2-12", training="superb"), root)

    # 30 clips of commands and 6 of other words a part; two noise files train.
    assert task.folds[0].clips() == {"train": 38, "validation": 36, "test": 16}
    assert names(task, "train").count(UNKNOWN) == names(task, "validation").count(UNKNOWN) == 6
    assert SILENCE not in names(task, "validation")
    silent = [one for one in task.folds[0].train if one.target == 0]
    assert [len(one.waveform(8_000)) for one in silent] == [160_000, 240_000]


def test_superb_without_the_archive_trains_on_no_noise_that_tests(corpus):
    root = corpus([*TEN, "wow", "visual"], takes=3)

    (fold,) = build(Config(version="v2-12", training="superb"), root).folds

    (silent,) = [one for one in fold.train if one.target == 0]
    assert silent.seconds == 18.0
    assert min(one.start_seconds for one in fold.test if one.target == 0) >= 18.0


def test_superbs_published_counts(monkeypatch, tmp_path):
    others = [f"word{number}" for number in range(20)]
    words = [*TEN, *others]
    parts = {"train": 51_088, "validation": 6_798}
    clips = [
        Clip(tmp_path, f"{part}/{place}", label=words[place % 30], split=part)
        for part, count in parts.items()
        for place in range(count)
    ]
    labels = [TEN[place % 10] for place in range(2_567)] + [SILENCE] * 257 + [UNKNOWN] * 257
    clips += [
        Clip(tmp_path, f"{place}", label=label, split="test",
             subsets=("speech_commands_test_set_v0.01",))
        for place, label in enumerate(labels)
    ]  # fmt: skip
    clips += [Clip(tmp_path, f"noise/{place}", split="noise") for place in range(6)]
    monkeypatch.setattr(sources, "read", lambda *_: sources.Source(tuple(clips), 0))

    task = build(Config(version="v1-12", training="superb"), tmp_path)

    assert task.folds[0].clips() == {"train": 51_094, "validation": 6_798, "test": 3_081}
    assert task.classes == (SILENCE, UNKNOWN, *TEN)
    assert task.notes == ()
    assert {other.system: other.score for other in task.published}["SSLAM"] == 0.988


def test_superb_is_of_twelve_classes():
    with pytest.raises(ValueError, match=r"set task\.version to v1-12 or v2-12"):
        Config(version="v2-35", training="superb")


@pytest.mark.parametrize("version", ["v2-35", "v2-12", "v2-10"])
def test_lape_trains_on_validation_too_and_chooses_on_test(corpus, version):
    root = corpus([*TEN, "wow", "visual"])

    task, legacy = (build(Config(version=version, split=split), root)
                    for split in ("published", "lape_legacy"))  # fmt: skip

    (fold,), (ours,) = legacy.folds, task.folds
    assert (fold.name, ours.name) == ("lape_legacy", "published")
    assert fold.train == (*ours.train, *ours.validation)
    assert fold.validation == fold.test == ours.test
    assert legacy.legacy and not task.legacy
    assert legacy.split_rule.startswith(f"lape_legacy: {version}")
    assert "test chooses the epoch" in legacy.split_rule


def test_ss_masts_scores_are_those_of_the_version_as_lape_tested(corpus):
    root = corpus([*TEN, "wow", "visual"])
    best = "MAST, ImageNet + SS-MAST + patch-drop"

    for version, score in (("v2-35", 0.966), ("v2-12", 0.968), ("v1-12", 0.974)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = build(Config(version=version, split="lape_legacy"), root).published
            ours = build(Config(version=version), root).published
        assert {other.system: other.score for other in theirs}[best] == score
        assert all("epoch chosen on test" in other.source for other in theirs)
        assert not any("SS-MAST" in other.source for other in ours)
    assert build(Config(version="v2-10"), root).published == ()


def test_scores_of_the_lists_say_what_they_cover(corpus):
    published = build(Config(), corpus([*TEN, "wow", "visual"])).published

    linear = {other.system: other for other in published if other.protocol == "linear"}
    full = {other.system: other for other in published if other.protocol == "full"}
    assert linear["Whisper large-v3"].score == 0.982
    for name in ("EAT base", "SSLAM base"):
        assert "averages over the padding" in linear[name].source
    assert "padding" not in linear["M2D/0.7"].source
    assert "iterations 1 to 3" in full["BEATs iter1-3"].source


def test_the_draw_is_the_same_each_time(corpus):
    root = corpus([*TEN, "wow", "visual", "bed"], takes=4)

    assert build(Config(version="v2-12"), root) == build(Config(version="v2-12"), root)


@pytest.mark.parametrize(
    ("version", "words", "said"),
    [
        ("v1-12", [*TEN, "wow", *ONLY_V2], "version 2's words backward, follow"),
        ("v2-12", [*TEN, "wow"], "is it version 1"),
        ("v2-35", [*TEN, "wow"], "is it version 1"),
    ],
)
def test_the_other_version_of_the_corpus_is_warned_about(corpus, version, words, said):
    root = corpus(words)

    with pytest.warns(UserWarning, match=said):
        task = build(Config(version=version), root)

    assert any(said in note for note in task.notes)


def test_words_that_version_1_lacks_are_never_its_unknown(corpus):
    root = corpus([*TEN, "wow", *ONLY_V2], takes=5)

    with pytest.warns(UserWarning, match=r"version 2's words backward.* left out"):
        older = build(Config(version="v1-12"), root)
    newer = build(Config(version="v2-12"), root)

    assert words_of_unknown(older) == {"wow"}
    assert words_of_unknown(newer) & set(ONLY_V2)


def test_version_1_is_taken_as_such(corpus):
    root = corpus([*TEN, "wow"])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(build(Config(version="v1-12"), root).classes) == 12


def test_one_word_is_nothing_to_tell_apart(corpus):
    with pytest.raises(ValueError, match=r"two classes or more.*only one, 'visual'"):
        build(Config(), corpus(["visual"]))


def test_no_command_word_says_so(corpus):
    with pytest.raises(ValueError, match="two classes or more"):
        build(Config(version="v2-10"), corpus(["bed", "wow"]))


def test_a_part_without_clips_says_so(corpus):
    root = corpus(["yes", "no", "visual"])
    (root / "validation_list.txt").write_text("")

    with pytest.raises(ValueError, match="the validation part holds no clip"):
        build(Config(), root)


def test_the_one_fold_can_be_named(corpus):
    root = corpus(["yes", "no", "visual"])

    assert len(build(Config(folds=("published",)), root).folds) == 1
    with pytest.raises(ValueError, match="asks for 2, but the folds here are published"):
        build(Config(folds=("2",)), root)


def test_counts_of_the_shared_part(shared):
    root = shared("speech_commands")

    ten, all_words = build(Config(version="v2-10"), root), build(Config(), root)
    twelve = build(Config(version="v2-12"), root)

    assert ten.folds[0].clips() == {"train": 2407, "validation": 368, "test": 656}
    assert all_words.folds[0].clips() == {"train": 2638, "validation": 395, "test": 739}
    assert len(all_words.classes) == 35
    # Of other words there are only 231 and 27 to train and validate on.
    assert twelve.folds[0].clips() == {
        "train": 2407 + 231 + 241,
        "validation": 368 + 27 + 37,
        "test": 656 + 66 + 66,
    }
