"""Speech Commands: list files rule, twelve classes after the published logic."""

import math
import warnings

import pytest

from sslaudio.tasks.speechcommands import EXTRA_SHARE, ONLY_V2, SILENCE, TEN, UNKNOWN, Config, build

SPEAKERS = {"train": "aaaaaaaa", "validation": "bbbbbbbb", "test": "cccccccc"}


@pytest.fixture
def corpus(tmp_path, sound):
    """A folder a word with ``takes`` clips of each split's one speaker, listed."""

    def write(words, takes=2, noise_seconds=(20.0,)):
        lists = {"validation": [], "testing": []}
        for word in words:
            for part, speaker in SPEAKERS.items():
                for take in range(takes):
                    name = f"{word}/{speaker}_nohash_{take}.wav"
                    sound(tmp_path / name)
                    if part != "train":
                        lists["testing" if part == "test" else part].append(name)
        for part, names in lists.items():
            (tmp_path / f"{part}_list.txt").write_text("\n".join(names) + "\n")
        for place, seconds in enumerate(noise_seconds):
            sound(tmp_path / "_background_noise_" / f"hum_{place}.wav", seconds)
        return tmp_path

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
