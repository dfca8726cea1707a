"""Every committed recipe of pretraining: what it says, and that it takes steps."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file, save_file

from sslaudio import recipe as recipes
from sslaudio.cli import main
from sslaudio.recipe import Pretrain
from sslaudio.training.checkpoint import checkpoints
from sslaudio.training.runs import read_config

ROOT = Path(__file__).parents[2]
FILES = {
    file.stem: file
    for room in ("pretrain", "ablations")
    for file in sorted((ROOT / "configs" / room).glob("*.yaml"))
}
PAPERS = [name for name in FILES if name.startswith(("ss_mast", "ssast", "table1"))]
CONTRASTIVE = [
    name for name in PAPERS if "ss_mast" in name or name.endswith(("ssmast", "ssmast_drop"))
]
MASKED = [name for name in PAPERS if "ssast" in name]
FROM_IMAGENET = [name for name in PAPERS if "imagenet" in name]
UNTRAINED = [name for name in PAPERS if name.endswith(("_random", "_imagenet"))]
SMALLER = (
    "--data.batch 4 --data.clip_seconds 1 --data.workers 0 --backbone.size micro "
    "--training.log_every 1 --training.warmup_steps 1 --knn.every 0"
).split()


@pytest.fixture(autouse=True)
def any_precision():
    """accelerate holds a process to the precision of its first run."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def read(name: str) -> Pretrain:
    """The recipe as it stands in its file."""
    return recipes.read(recipes.find(name, "pretrain"), [])


def corpus(root: Path, rate: int, folders: int, rng: np.random.Generator) -> None:
    """Clips of 2 to 4 s in folders: tones that rise, over noise."""
    for number in range(12):
        seconds = np.arange(int(rate * rng.uniform(2, 4))) / rate
        tone = np.sin(2 * np.pi * (200 + 150 * number + 80 * seconds) * seconds)
        sound = 0.3 * tone + 0.05 * rng.standard_normal(len(seconds))
        folder = root / f"part{number % folders}"
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / f"{number:06d}.wav", sound, rate)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> list[str]:
    """Miniatures of AudioSet and FSD50K."""
    folder, rng = tmp_path_factory.mktemp("corpora"), np.random.default_rng(0)
    made = []
    for name, rate, folders in (("audioset", 16_000, 1), ("fsd50k", 44_100, 2)):
        corpus(folder / "wav" / name, rate, folders, rng)
        made.append(str(folder / "shards" / name))
        given = ["--corpus", "folder", "--root", str(folder / "wav" / name), "--out", made[-1]]
        assert main(["shards", "build", *given]) == 0
    return made


@pytest.fixture(scope="module")
def imagenet(shards, tmp_path_factory) -> dict[str, Path]:
    """Runs that stand for imported weights, by backbone: a small DeiT; MAST micro, of our own,
    for the smallest MViTv2 is large (the slow test imports both at their real size)."""
    import timm

    folder = tmp_path_factory.mktemp("imagenet")
    deit = timm.create_model("deit_tiny_distilled_patch16_224", pretrained=False, depth=1)
    save_file(deit.state_dict(), folder / "deit.safetensors")
    given = ["--from", "timm", str(folder / "deit.safetensors"), "--frames", "96"]
    runs = {name: folder / name for name in ("ast", "ast16", "mast")}
    for name, words in (("ast", []), ("ast16", ["--backbone.stride", "none"])):
        assert main(["weights", "import", *given, *words, "--out", str(runs[name])]) == 0
    assert pretrain("table1_mast_random", shards, runs["mast"]) == 0
    AcceleratorState._reset_state(reset_partial_state=True)
    return runs


def is_mast(name: str) -> bool:
    """SS-MAST is an objective; what comes after it is the backbone."""
    return "mast" in name.replace("ss_mast", "").split("_")


def start(name: str, imagenet: dict[str, Path]) -> list[str]:
    """``--init`` for rows from ImageNet; the size is that of the small weights then."""
    if name not in FROM_IMAGENET:
        return []
    if is_mast(name):
        return ["--init", str(imagenet["mast"])]
    run = imagenet["ast16" if name in MASKED else "ast"]
    return ["--init", str(run), "--backbone.size", "tiny"]


def pretrain(name: str, shards: list[str], out: Path, *words: str) -> int:
    given = ["--config", name, "--data.shards", *shards, "--out", str(out)]
    smaller = dict(zip(SMALLER[::2], SMALLER[1::2], strict=True))
    smaller |= dict(zip(words[::2], words[1::2], strict=True))
    return main(["pretrain", *given, *(word for pair in smaller.items() for word in pair)])


@pytest.mark.parametrize("name", FILES)
def test_a_recipe_takes_steps_on_small_shards(name, shards, imagenet, tmp_path):
    steps = 0 if name in UNTRAINED else 2
    words = [*start(name, imagenet), "--training.steps", str(steps)]

    assert pretrain(name, shards, tmp_path / "run", *words) == 0

    run = tmp_path / "run"
    metrics = (run / "metrics.jsonl").read_text() if steps else ""
    lines = [json.loads(line) for line in metrics.splitlines()]
    losses = [line["objective/loss"] for line in lines if "objective/loss" in line]
    assert len(losses) == steps and all(map(math.isfinite, losses))
    assert [folder.name for folder in checkpoints(run)] == [f"step-{steps:08d}"]
    in_force, file = recipes.read(run / "recipe.yaml", []), read(name)
    # What was not made smaller is the file's.
    assert in_force.objective == file.objective and in_force.augments == file.augments
    assert in_force.training.learning_rate == file.training.learning_rate
    assert in_force.training.betas == file.training.betas
    if name not in FROM_IMAGENET:
        here, there = in_force.backbone.config, file.backbone.config
        assert replace(here, size=there.size) == there
    assert in_force.features.kind == read_config(run)["features"]["kind"] == file.features.kind


@pytest.mark.parametrize("name", sorted({*FROM_IMAGENET} & {*UNTRAINED}))
def test_a_row_without_pretraining_has_the_imported_weights(name, shards, imagenet, tmp_path):
    words = start(name, imagenet)

    assert pretrain(name, shards, tmp_path / "run", *words) == 0

    before, after = (
        load_file(run / "model.safetensors") for run in (Path(words[1]), tmp_path / "run")
    )
    same = [key for key in after if not key.endswith("table")]  # those of places are resized
    assert len(same) > 10 and all(torch.equal(before[key], after[key]) for key in same)


@pytest.mark.parametrize("name", FROM_IMAGENET)
def test_a_row_from_imagenet_is_refused_without_weights(name, shards, tmp_path, capsys):
    assert pretrain(name, shards, tmp_path / "run") == 2

    assert "add --init RUN" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", CONTRASTIVE)
def test_ss_mast_has_what_the_paper_says(name):
    recipe = read(name)

    objective, settings = recipe.objective.config, recipe.objective.config.settings
    assert (objective.head, objective.norm, objective.dim) == ("linear", "none", 256)
    assert (objective.variant, settings.queue) == ("paper", 0)
    dropped = name.startswith("ss_mast") or name.endswith("_drop")
    assert objective.drop_share == (0.2 if dropped else 0) and objective.drop_in == "both"
    assert (recipe.data.batch, recipe.training.learning_rate) == (512, 3e-4)
    assert [augment.name for augment in recipe.augments] == ["mixup", "resize_crop"]
    mixup, crop = (augment.config for augment in recipe.augments)
    assert (mixup.share, mixup.partner) == (0.4, "bank")
    assert crop.bins_range == crop.frames_range == (0.6, 1.5) and crop.canvas == (1, 1.5)


@pytest.mark.parametrize("name", MASKED)
def test_ssast_has_what_the_paper_says(name):
    recipe = read(name)

    settings = recipe.objective.config.settings
    assert settings.mask_share == 400 / 512 and not settings.legacy
    assert (settings.mask_shape, settings.mask_span) == ("clusters", None)  # 3, 4 or 5
    assert settings.temperature is None and settings.targets == "dataset"  # raw products
    assert (settings.contrastive_weight, settings.error_weight) == (1, 10)
    assert (settings.head_dim, settings.activation) == (768, "relu")
    assert (recipe.data.batch, recipe.training.learning_rate) == (24, 1e-4)
    assert (recipe.training.betas, recipe.training.weight_decay) == ((0.95, 0.999), 5e-7)
    frames = recipe.features.frames(round(recipe.data.clip_seconds * 16_000))
    smaller = replace(recipe.backbone, config=replace(recipe.backbone.config, size="micro"))
    assert smaller.build(128, frames).grid(frames) == (8, 64)


@pytest.mark.parametrize("name", PAPERS)
def test_a_recipe_has_the_papers_model_and_picture(name):
    recipe = read(name)

    backbone = recipe.backbone.config
    assert recipe.backbone.name == ("mast" if is_mast(name) else "ast")
    assert backbone.size == ("small" if recipe.backbone.name == "mast" else "base")
    assert recipe.features.settings.mel_bins == 128
    assert recipe.training.starts_from_weights == (name in FROM_IMAGENET)
    assert (recipe.training.steps == 0) == (name in UNTRAINED)
    if name in CONTRASTIVE or name in UNTRAINED:
        assert recipe.features.frames(round(recipe.data.clip_seconds * 16_000)) == 512


@pytest.mark.parametrize("name", PAPERS)
def test_what_the_papers_leave_out_is_named_beside_its_value(name):
    beside = {
        line.split(":")[0].strip(): "our choice" in line
        for line in FILES[name].read_text().splitlines()
        if ":" in line and not line.startswith("#")
    }
    ours = ["clip_seconds", "kind"] if name not in MASKED else ["pad", "flat_std", "final_share"]
    if name in CONTRASTIVE:
        ours += ["temperature", "schedule", "steps", "warmup_steps", "final_share"]
        ours += ["weight_decay", "betas", "clip_norm", "precision"]

    assert [key for key in ours if not beside[key]] == []


@pytest.mark.parametrize("name", PAPERS)
def test_a_header_says_command_hardware_score_and_source(name):
    head = " ".join(
        line[1:].strip() for line in FILES[name].read_text().splitlines() if line.startswith("#")
    )

    for said in ("sslaudio", f"--out runs/{name}", "Hardware", "Expected score", "arXiv:"):
        assert said in head
    assert "not measured by us" in head
    assert ("--init runs/" in head) == (name in FROM_IMAGENET)


@pytest.mark.parametrize("name", ["ssast_ast", "ssast_mast"])
def test_the_line_that_a_header_gives_for_the_codes_objective_holds(name, shards, tmp_path):
    line = FILES[name].read_text().partition("# --objective.variant")[2].splitlines()[0]
    words = f"--objective.variant{line}".split()

    assert pretrain(name, shards, tmp_path / "run", *words, "--training.steps", "1") == 0


def test_the_ten_rows_are_in_the_table_with_the_papers_means():
    table = (ROOT / "configs" / "ablations" / "README.md").read_text()
    rows = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if "| `table1_" in line
    ]

    # Ghosh et al. 2022, Table 1, last column.
    means = [67.9, 74.1, 79.1, 75.0, 80.5, 71.3, 77.7, 79.8, 83.1, 83.6]
    assert [float(row[-2]) for row in rows] == means
    assert {row[-1] for row in rows} == {name for name in FILES if name.startswith("table1")}
    for row in rows:
        assert f"eight tasks: {row[-2]} %" in FILES[row[-1]].read_text()


def test_a_wrong_name_is_answered_with_the_nearest_row():
    with pytest.raises(ValueError, match="did you mean table1_mast_random?"):
        recipes.find("table1_mast_rando", "pretrain")


@pytest.fixture
def large(tmp_path):
    """A folder that does not stay: one run at its real size takes two gigabytes."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["ss_mast_mast", "ss_mast_ast", "ssast_mast", "ssast_ast"])
def test_a_recipe_takes_a_step_at_its_real_size(name, shards, large):
    given = ["--config", name, "--data.shards", *shards, "--out", str(large / "run")]
    words = "--data.batch 2 --data.workers 0 --training.steps 1 --training.log_every 1".split()

    assert main(["pretrain", *given, *words]) == 0

    assert recipes.read(large / "run" / "recipe.yaml", []).backbone == read(name).backbone
    (line,) = (large / "run" / "metrics.jsonl").read_text().splitlines()
    assert math.isfinite(json.loads(line)["objective/loss"])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "name",
    ["table1_ast_imagenet", "table1_ast_imagenet_ssast", "table1_mast_imagenet_ssmast_drop"],
)
def test_the_import_in_a_header_fits_the_row(name, shards, large):
    run = imported(name, large)
    given = ["--config", name, "--data.shards", *shards, "--out", str(large / "run")]

    words = ["--init", str(run), "--data.batch", "2", "--data.workers", "0"]
    assert main(["pretrain", *given, *words, "--training.steps", "0"]) == 0

    backbones = [read_config(folder)["backbone"] for folder in (run, large / "run")]
    assert backbones[0]["size"] == backbones[1]["size"] == read(name).backbone.config.size
    before, after = (load_file(folder / "model.safetensors") for folder in (run, large / "run"))
    assert all(torch.equal(before[key], after[key]) for key in after)  # tables too: one grid


def imported(name: str, folder: Path) -> Path:
    """What the import in a recipe's header makes, of random weights of that model."""
    import timm

    head = FILES[name].read_text().partition("weights import ")[2]
    words = head.partition("#   accelerate")[0].partition("#   sslaudio")[0]
    words = words.replace("\\\n#", "").split()
    model = words[words.index("timm") + 1]
    save_file(timm.create_model(model, pretrained=False).state_dict(), folder / "it.safetensors")
    words[words.index(model)] = str(folder / "it.safetensors")
    words[words.index("--out") + 1] = str(folder / "imported")
    assert main(["weights", "import", *words]) == 0
    return folder / "imported"
