"""VoxForge: nobody in two parts, the nameless only train, LAPE's random split."""

import pytest

from sslaudio.tasks.voxforge import PUBLISHED, Config, build

USERS = {"train": ("ada", "bob"), "validation": ("cleo", "leo"), "test": ("paul", "tina")}
"""Users by the part that the hash of their name gives."""


@pytest.fixture
def layout(tmp_path, sound):
    """Write submissions: LANGUAGE/USER of two clips each."""

    def write(*submissions):
        for submission in submissions:
            for clip in ("a0001", "a0002"):
                sound(tmp_path / f"{submission}-20080425-acs" / "wav" / f"{clip}.wav")
        return tmp_path

    return write


def everybody(language):
    return [f"{language}/{user}" for users in USERS.values() for user in users]


def test_users_are_where_the_hash_puts_them(layout):
    task = build(Config(), layout(*everybody("en"), *everybody("German")))

    (fold,) = task.folds
    for part, users in USERS.items():
        told = {example.speaker for example in fold.parts()[part]}
        assert told == {
            f"{language} {user}" for user in users for language in ("English", "German")
        }
    assert task.classes == ("German", "en")
    assert task.notes == ("2 of 6 languages",)
    assert fold.name == "speakers"
    assert "none is published" in task.split_rule


def test_the_nameless_only_train(layout):
    root = layout(*everybody("en"), *everybody("de"), "en/anonymous", "de/anonymous")

    (fold,) = build(Config(), root).folds

    assert fold.clips() == {"train": 12, "validation": 8, "test": 8}
    assert [example.speaker for example in fold.train].count(None) == 4
    assert all(example.speaker for example in (*fold.validation, *fold.test))


def test_a_submission_more_leaves_every_other_clip_in_its_part(layout):
    root = layout(*everybody("en"), *everybody("de"))
    (before,) = build(Config(), root).folds

    layout("en/newcomer", "fr/newcomer", "fr/ada")

    (after,) = build(Config(), root).folds
    for part, examples in before.parts().items():
        assert {example.key for example in examples} <= {one.key for one in after.parts()[part]}


def test_too_few_users_are_told_with_the_counts(layout):
    with pytest.raises(ValueError, match=r"validation part holds no clip \(4 train, 0 val.*--root"):
        build(Config(), layout("en/ada", "de/bob"))


def test_one_language_is_refused(layout):
    with pytest.raises(ValueError, match="needs two classes or more.*only one, 'en'"):
        build(Config(), layout(*everybody("en")))


def test_legacy_is_a_fifth_of_every_language_by_chance(layout):
    root = layout(*everybody("en"), *everybody("de"), "de/anonymous", "de/max", "de/uwe")

    task = build(Config(split="lape_legacy"), root)

    (fold,) = task.folds
    assert task.legacy and fold.validation == fold.test
    assert task.split_rule.startswith("lape_legacy: random 80/20")
    # 12 English and 18 German clips: a fifth of 30 is 6, shared out as 2.4 and 3.6.
    assert [example.target for example in fold.test].count(task.classes.index("en")) == 2
    assert fold.clips() == {"train": 24, "validation": 6, "test": 6}
    assert task == build(Config(split="lape_legacy"), root)


def test_legacy_needs_five_clips_of_a_language(layout):
    with pytest.raises(ValueError, match="there are 4 of en; give --root.*published"):
        build(Config(split="lape_legacy"), layout(*everybody("de"), "en/ada", "en/bob"))


def test_no_published_score_is_on_our_split():
    assert PUBLISHED["published"] == ()
    assert {one.score for one in PUBLISHED["lape_legacy"]} >= {0.723, 0.9}
