"""Recipes: YAML and flags to dataclasses, and back."""

from pathlib import Path

import pytest

from sslaudio import config as configs
from sslaudio import recipe as recipes


def read(*flags: str) -> recipes.Pretrain:
    return recipes.read(None, flags)


def test_flags_win_over_yaml_and_yaml_over_defaults(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text("training: {steps: 7, learning_rate: 1e-3}\ndata: {batch: 16}\n")

    recipe = recipes.read(path, ["--training.steps", "9"])

    assert recipe.training.steps == 9
    assert recipe.training.learning_rate == 1e-3
    assert recipe.data.batch == 16
    assert recipe.training.seed == 0


def test_a_recipe_written_and_read_again_is_equal(tmp_path: Path):
    recipe = read(
        "--augments", "mixup", "spec_mask", "--augments.mixup.share", "0.2",
        "--backbone.patch", "32", "8", "--data.shards", "a=0.5", "b",
    )  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(configs.to_yaml(recipe))

    assert recipes.read(path, []) == recipe


def test_a_plugin_takes_its_name_first_then_its_fields():
    recipe = read("--objective", "masked_patch", "--objective.mask_share", "0.75")

    assert recipe.objective.name == "masked_patch"
    assert recipe.objective.config.mask_share == 0.75


def test_augments_keep_the_order_given():
    recipe = read("--augments", "spec_mask", "mixup")

    assert [augment.name for augment in recipe.augments] == ["spec_mask", "mixup"]
    assert read("--augments", "none").augments == ()


def test_a_pair_that_may_be_unset_takes_two_words_or_none():
    assert read("--backbone.stride", "10", "12").backbone.config.stride == (10, 12)
    assert read("--backbone.stride", "none").backbone.config.stride is None


def test_a_plugin_from_outside_trains_by_its_dotted_name(tmp_path: Path, monkeypatch):
    package = tmp_path / "my_lab"
    package.mkdir()
    (package / "idea.py").write_text(
        "from dataclasses import dataclass\n"
        "@dataclass(frozen=True)\n"
        "class Config:\n"
        "    strength: float = 1.0\n"
        "def build(config, backbone):\n"
        "    return (config.strength, backbone)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    recipe = read("--objective", "my_lab.idea", "--objective.strength", "2.5")

    assert recipe.objective.build("backbone") == (2.5, "backbone")


def test_a_plugin_inside_a_section_takes_its_name_and_fields_too(tmp_path: Path):
    path = tmp_path / "recipe.yaml"
    path.write_text("knn: {task: {name: shards, seed: 3}, clips: 7}")

    kept = recipes.read(path, ["--knn.task.split", "seeded", "--knn.neighbours", "5"])
    other = recipes.read(path, ["--knn.task", "fsdd", "--knn.clips", "9"])

    assert (kept.knn.task.name, kept.knn.task.config.seed) == ("shards", 3)
    assert (kept.knn.task.config.split, kept.knn.clips, kept.knn.neighbours) == ("seeded", 7, 5)
    assert (other.knn.task.name, other.knn.clips) == ("fsdd", 9)
    path.write_text(configs.to_yaml(kept))
    assert recipes.read(path, []) == kept


def test_a_plugin_named_alone_inside_a_section_still_takes_fields(tmp_path: Path):
    path = tmp_path / "recipe.yaml"
    path.write_text("knn: {task: shards}\ntraining:\n")

    recipe = recipes.read(path, ["--knn.task.seed", "4", "--training.steps", "5"])

    assert recipe.knn.task.config.seed == 4
    assert recipe.training.steps == 5


@pytest.mark.parametrize(
    "order", [slice(None), slice(None, None, -1)], ids=["outer first", "inner first"]
)
def test_a_plugin_inside_a_plugin_takes_its_name_and_fields(order: slice, tmp_path: Path):
    flags = ["objective=joint", "objective.first=masked_patch", "objective.second=contrastive"]
    flags += ["objective.first.mask_share=0.3", "objective.second.temperature=0.2"]

    recipe = read(*(f"--{flag}" for flag in flags[order]))

    first, second = recipe.objective.config.first, recipe.objective.config.second
    assert (first.name, first.config.mask_share) == ("masked_patch", 0.3)
    assert (second.name, second.config.temperature) == ("contrastive", 0.2)
    path = tmp_path / "recipe.yaml"
    path.write_text(configs.to_yaml(recipe))
    assert recipes.read(path, []) == recipe
    other = recipes.read(path, ["--objective.first.mask_shape", "rows"])
    assert other.objective.config.first.config.mask_share == 0.3


def test_a_plugin_inside_a_plugin_keeps_what_the_recipe_gave_it(tmp_path: Path):
    path = tmp_path / "recipe.yaml"
    path.write_text("objective: {name: joint, second: {name: masked_patch, mask_share: 0.3}}")

    kept = recipes.read(path, ["--objective.second", "masked_patch"])
    plain = recipes.read(path, ["--objective", "masked_patch"])

    assert kept.objective.config.second.config.mask_share == 0.3
    assert plain.objective.config.mask_share != 0.3


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--knn.task", "shard"], r"did you mean 'shards'\?"),
        (["--knn.task", "shards", "fsdd"], r"--knn\.task takes one name"),
        (["--knn.task.sede", "1"], r"did you mean knn\.task\.seed\?"),
        (["--objective.second", "masked_patch"], r"there is no --objective\.second"),
        (["--objective", "joint", "--objective.secnd", "it"], r"did you mean objective\.second\?"),
        (["--objective", "joint", "--objective.second.mask_shar", "1"], r"second\.mask_share\?"),
        (["--training.step", "3"], r"there is no --training\.step; did you mean training\.steps\?"),
        (["--training.steps", "many"], r"training\.steps is 'many'.*valid integer"),
        (["--training.steps", "true"], r"training\.steps is True.*valid integer"),
        (["--training.steps"], r"--training\.steps has no value"),
        (["--training.steps", "1", "2"], r"takes one value, not 1 2"),
        (["stray"], r"'stray' belongs to no flag"),
        (["--objective", "masked_pach"], r"did you mean 'masked_patch'\?"),
        (["--objective.mask_share", "1.5"], r"objective\.mask_share is 1\.5.*between 0 and 1"),
        (["--training.precision", "fp8"], r"training\.precision is 'fp8'"),
        (["--backbone.pooling", "median"], r"no part 'median'; there is cls, mean"),
        (["--data.batch", "8", "--data.batch", "9"], r"--data\.batch is given twice"),
    ],
)
def test_a_wrong_flag_is_told_with_its_cure(flags: list[str], said: str):
    with pytest.raises(ValueError, match=said):
        read(*flags)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trainin: {steps: 3}", r"there is no key trainin; did you mean training\?"),
        ("training: {stepss: 3}", r"there is no key training\.stepss; did you mean steps\?"),
        ("training: 3", r"training is 3; it must be a mapping"),
        ("knn: {task: 3}", r"task is 3; it must be a mapping with a name"),
        ("objective: {mask_share: 0.5}", r"must be a mapping with a name"),
        ("augments: [{name: mixup}, {name: mixup}]", r"names 'mixup' twice"),
        ("[1, 2]", r"holds a list; a recipe is a mapping"),
        ("a: {b: ", r"no valid YAML"),
    ],
)
def test_a_wrong_recipe_is_told_with_its_cure(tmp_path: Path, text: str, said: str):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)

    with pytest.raises(ValueError, match=said):
        recipes.read(path, [])


def test_words_stay_words_and_numbers_numbers(tmp_path: Path):
    path = tmp_path / "values.yaml"
    path.write_text("{a: no, b: 1e-3, c: on, d: 7, e: .5, f: true}")

    assert configs.read_yaml(path) == {
        "a": "no", "b": 0.001, "c": "on", "d": 7, "e": 0.5, "f": True,
    }  # fmt: skip
