"""An objective of one's own, in a file outside the repository: trained by, resumed, and used."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sslaudio.cli import main
from sslaudio.training.checkpoint import checkpoints

ROOT = Path(__file__).parents[2]
IDEA = '''"""Tell a clip's mean spectrum from its mean token."""

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class Config:
    strength: float = 1.0


class Idea(nn.Module):
    views = 1

    def __init__(self, config, backbone):
        super().__init__()
        self.strength, self.backbone = config.strength, backbone
        self.head = nn.Linear(backbone.dim, 128)

    def forward(self, views, draws):
        (view,) = views
        tokens = self.backbone(view.pictures, view.frames)
        told = self.head(tokens.patches.mean(dim=1)).float()
        error = (told - view.pictures.mean(dim=2)).square().mean()
        return {"loss": self.strength * error, "error": error.detach()}

    def after_step(self, step, steps):
        pass

    def pictures(self, views, draws):
        return {"heard": views[0].pictures}


def build(config, backbone):
    return Idea(config, backbone)
'''
SMALL = (
    "--data.batch 8 --data.clip_seconds 0.5 --training.warmup_steps 1 --training.log_every 1 "
    "--training.pictures_every 2"
).split()


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lab")
    (folder / "my_lab").mkdir()
    (folder / "my_lab" / "idea.py").write_text(IDEA)
    return folder


@pytest.fixture
def at_hand(lab: Path, monkeypatch):
    """The module is found in this process, and no other of its name."""
    names = ("my_lab", "my_lab.idea")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(lab)
    yield
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def run(lab: Path, shards: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "idea"
    path = os.pathsep.join([str(lab), os.environ.get("PYTHONPATH", "")])
    words = [*given(shards, out, 2), "--objective", "my_lab.idea", "--objective.strength", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "sslaudio", *words],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


def given(shards: Path, out: Path, steps: int) -> list[str]:
    words = ["pretrain", "--config", "demo", "--data.shards", str(shards), "--out", str(out)]
    return [*words, *SMALL, "--training.steps", str(steps)]


def lines(run: Path) -> list[dict[str, float]]:
    return list(map(json.loads, (run / "metrics.jsonl").read_text().splitlines()))


def test_a_strangers_objective_trains_with_its_settings(run: Path):
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    written = lines(run)

    assert recipe["objective"] == {"name": "my_lab.idea", "strength": 2}
    assert [line["step"] for line in written] == [1, 2]
    for line in written:
        assert line["objective/loss"] == pytest.approx(2 * line["objective/error"], rel=1e-5)


def test_it_is_resumed_and_its_encoder_is_fine_tuned(run, at_hand, shards, tmp_path):
    resumed = ["pretrain", "--out", str(run), "--resume", "--training.steps", "3"]
    assert main(resumed) == 0
    tuned = ["--task", "shards", "--root", str(shards), "--protocol", "linear"]
    assert main(["finetune", *tuned, "--checkpoint", str(run), "--out", str(tmp_path / "it")]) == 0

    assert [line["step"] for line in lines(run)] == [1, 2, 3]
    assert checkpoints(run)[-1].name == "step-00000003"
    (result,) = json.loads((tmp_path / "it" / "results.json").read_text())
    assert 0 <= result["test"] <= 1 and result["checkpoint"] == str(run)


def test_it_trains_beside_one_of_ours(at_hand, shards, tmp_path):
    out = tmp_path / "joint"
    words = "--objective joint --objective.first masked_patch --objective.first.mask_share 0.3"
    words += " --objective.second my_lab.idea --objective.second.strength 3"
    words += " --objective.second_weight 0.5 --backbone.patch 128 16"

    assert main([*given(shards, out, 2), *words.split()]) == 0

    objective = yaml.safe_load((out / "recipe.yaml").read_text())["objective"]
    assert objective["first"]["mask_share"] == 0.3
    assert objective["second"] == {"name": "my_lab.idea", "strength": 3}
    for line in lines(out):
        parts = {key.removeprefix("objective/"): value for key, value in line.items()}
        assert parts["my_lab_idea_loss"] == pytest.approx(3 * parts["my_lab_idea_error"], rel=1e-5)
        whole = parts["masked_patch_loss"] + 0.5 * parts["my_lab_idea_loss"]
        assert parts["loss"] == pytest.approx(whole, rel=1e-5)
