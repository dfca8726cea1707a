"""Every committed recipe of fine-tuning: it is built, its header tells, its numbers are others'."""

import re

import pytest

from sslaudio import config as configs
from sslaudio import plugins
from sslaudio import recipe as recipes
from sslaudio.recipe import Finetune

FILES = {file.stem: file for file in recipes.shipped("finetune")}
OURS = ("demo", "real_micro")
"""Recipes that were run; the others were not, at their size."""
AUDIOSET, ESC, SPEECH = (0.375, 0.1875), (0.1875, 0.1875), (0.375, 0.375)
GONG = {
    # Rate, batch, epochs, (cut from, every, to), warm-up, stripes (48/192 of 128/1024, 24/96 of
    # 128/512, 48/48 of 128/128), mixup, loss, balanced, averaged from, noise, task.
    "ast_audioset_2m":
        (1e-5, 12, 5, (2, 1, 0.5), 1000, AUDIOSET, 0.5, "bce", True, 1, False, "2m"),
    "ast_audioset_20k":
        (5e-5, 12, 25, (10, 5, 0.5), 1000, AUDIOSET, 0.5, "bce", False, 6, False, "20k"),
    "ast_esc50":
        (1e-5, 48, 25, (5, 1, 0.85), 0, ESC, 0.0, "ce", False, None, False, "esc50"),
    "ast_speechcommands":
        (2.5e-4, 128, 30, (5, 1, 0.85), 0, SPEECH, 0.6, "bce", False, None, True, "v2-35"),
    "ssast_audioset_20k":
        (5e-5, 12, 25, (10, 5, 0.5), 0, AUDIOSET, 0.5, "bce", False, 6, False, "20k"),
    "ssast_esc50":
        (1e-4, 48, 50, (6, 1, 0.85), 0, ESC, 0.0, "ce", False, None, True, "esc50"),
    "ssast_speechcommands":
        (2.5e-4, 128, 30, (5, 1, 0.85), 1000, SPEECH, 0.6, "bce", False, None, True, "v2-35"),
}  # fmt: skip
"""Gong et al. 2021 and 2022, their scripts."""
FRONT_ENDS = {  # columns, mean, twice the deviation
    "audioset": (1024, -4.2677393, 2 * 4.5689974),
    "esc50": (512, -6.6268077, 2 * 5.358466),
    "speechcommands": (128, -6.845978, 2 * 5.5654526),
}
GENERAL = [name for name in FILES if name not in (*OURS, *GONG, "ssmast")]


def read(name: str) -> Finetune:
    """The recipe in its file."""
    return recipes.read(recipes.find(name, "finetune"), [], Finetune)


def head_of(name: str) -> str:
    """The comment that a file begins with, in a line."""
    lines = FILES[name].read_text().splitlines()
    return " ".join(line[1:].strip() for line in lines if line.startswith("#"))


@pytest.mark.parametrize("name", FILES)
def test_a_recipe_builds_all_that_it_names(name):
    recipe = read(name)

    assert all(callable(augment.build()) for augment in recipe.augments)
    assert recipe.adapter.build().trains == "encoder"
    assert recipe.task.name in plugins.names("tasks")
    assert recipe.backbone.name in plugins.names("backbones")


@pytest.mark.parametrize("name", [name for name in FILES if name not in OURS])
def test_a_header_says_command_hardware_score_and_what_is_whose(name):
    head = head_of(name)

    assert f"sslaudio finetune --config {name} " in head
    assert "--root" in head and "--checkpoint" in head and "--out runs/" in head
    assert re.search(r"Hardware: .*not run by us at this size", head)
    assert "Expected score: not measured by us." in head
    assert "our choice" in head or "cannot say" in head


@pytest.mark.parametrize("name", GENERAL)
def test_a_recipe_of_ours_takes_the_backbone_and_picture_of_any_run(name):
    run = {"features": {"kind": "librosa"}, "backbone": {"name": "mast", "size": "tiny"}}

    recipe = recipes.over(run, configs.read_yaml(FILES[name]), [], Finetune)

    assert recipe.features.kind == "librosa"
    assert (recipe.backbone.name, recipe.backbone.config.size) == ("mast", "tiny")


@pytest.mark.parametrize("name", GENERAL)
def test_a_recipe_of_ours_names_its_task_and_learns_early_blocks_more_slowly(name):
    recipe = read(name)

    assert "task" in configs.read_yaml(FILES[name])
    assert recipe.adapter.config.layer_decay == 0.75
    assert recipe.training.schedule == "cosine" and recipe.training.warmup_share == 0.1
    one_class = recipe.task.name not in ("fsd50k", "audioset")
    assert one_class or recipe.training.loss == "bce"


@pytest.mark.parametrize("name", GONG)
def test_gongs_recipes_have_the_numbers_of_their_scripts(name):
    recipe, told = read(name), GONG[name]
    training, (mask, *more) = recipe.training, recipe.augments
    rate, batch, epochs, cuts, warmup, stripes, mixup, loss, balanced, average, noise, task = told

    assert (training.learning_rate, training.batch, training.epochs) == (rate, batch, epochs)
    assert training.schedule == "steps" and training.warmup_steps == warmup
    assert (training.cut_from, training.cut_every, training.cut_to) == cuts
    assert (mask.name, mask.config.bins_ratio, mask.config.frames_ratio) == ("spec_mask", *stripes)
    assert training.mixup == ("wave" if mixup else "none")
    assert not mixup or (training.mixup_chance, training.mixup_alpha) == (mixup, 10)
    assert (training.loss, training.balanced) == (loss, balanced)
    assert training.average_from == average
    assert [augment.name for augment in more] == (["noise", "time_shift"] if noise else [])
    assert task in vars(recipe.task.config).values()


@pytest.mark.parametrize("name", GONG)
def test_gongs_recipes_share_optimiser_picture_and_model(name):
    recipe = read(name)
    training, features, ast = recipe.training, recipe.features, recipe.backbone.config

    assert (training.betas, training.weight_decay) == ((0.95, 0.999), 5e-7)
    assert (training.clip_norm, training.label_smoothing, training.head_rate) == (0, 0, 1)
    assert (training.patience, training.dropout, training.patch_drop) == (None, 0, 0)
    assert recipe.adapter.config.layer_decay == 1
    columns, mean, std = FRONT_ENDS[recipe.task.name]
    assert (features.kind, features.pad, features.legacy_frames) == ("kaldi", "legacy", columns)
    assert features.mean == mean and features.std == pytest.approx(std, abs=1e-9)
    assert (recipe.backbone.name, ast.size, ast.prefix_tokens) == ("ast", "base", 2)
    assert ast.prefix_positions and ast.whole_patches and ast.positions == "legacy_cut"
    by_frames = name == "ssast_speechcommands"
    assert ast.patch == ((128, 2) if by_frames else (16, 16))
    assert ast.stride == ((128, 1) if by_frames else (10, 10))
    assert ast.pooling == (("mean",) if name.startswith("ssast") else ("cls",))
    assert (
        10 / columns
        in [shift.config.frames_ratio for shift in recipe.augments if shift.name == "time_shift"]
        or len(recipe.augments) == 1
    )


def test_ast_on_all_of_audioset_has_the_rates_of_its_log():
    training, steps_an_epoch = read("ast_audioset_2m").training, 162_757
    steps = 5 * steps_an_epoch

    first = [
        training.learning_rate * training.share((epoch - 1) * steps_an_epoch + 1000, steps, epoch)
        for epoch in range(1, 6)
    ]

    assert first == pytest.approx([1e-5, 1e-5, 5e-6, 2.5e-6, 1.25e-6])
    assert training.share(499, steps, 1) == pytest.approx(0.5)  # half of the warm-up


def test_ss_mast_has_one_rate_and_one_batch_and_serves_any_task():
    training = read("ssmast").training

    assert (training.learning_rate, training.batch) == (3e-4, 64)
    assert "task" not in configs.read_yaml(FILES["ssmast"])
    beside = {
        line.split(":")[0].strip(): "our choice" in line
        for line in FILES["ssmast"].read_text().splitlines()
        if ":" in line and not line.startswith("#")
    }
    assert [key for key, is_ours in beside.items() if not is_ours] == [
        "training", "batch", "learning_rate", "patch_drop",
    ]  # fmt: skip


def test_the_imports_that_headers_give_are_of_sources_there_are():
    from sslaudio.weights import SOURCES

    named = {name: re.findall(r"weights import --from (\w+)", head_of(name)) for name in GONG}

    assert all(len(found) == 1 and found[0] in SOURCES for found in named.values())
