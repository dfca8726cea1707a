"""The collapse monitor: it fires where embeddings collapse, and is quiet where they do not."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sslaudio.cli import main
from sslaudio.data import synth
from sslaudio.training import monitor as monitoring
from sslaudio.training.monitor import Monitor


class Showing(nn.Module):
    """An objective of which only the embeddings matter."""

    def __init__(self, embeddings: Tensor | None) -> None:
        super().__init__()
        self.embeddings = embeddings


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """The lines that reach the person at the terminal."""
    lines: list[str] = []
    monkeypatch.setattr(monitoring, "say", lines.append)
    return lines


def watch(*embeddings: Tensor | None) -> None:
    """Show the monitor one line of metrics after another."""
    monitor = Monitor()
    for line, shown in enumerate(embeddings):
        monitor(20 * (line + 1), Showing(shown))


class Collapsing(nn.Module):
    """Two views of clips and no negatives: nothing keeps the embeddings apart."""

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encode = nn.Linear(16, 8)
        self.loss = loss
        self.embeddings: Tensor | None = None

    def forward(self, clips: Tensor, step: int) -> Tensor:
        one, other = (
            self.encode(clips + noise(*clips.shape, seed=2 * step + view)) for view in (0, 1)
        )
        self.embeddings = torch.stack([one, other]).detach()
        return self.loss(one, other)


def to_a_point(one: Tensor, other: Tensor) -> Tensor:
    """Views are to be equal at unit length: they are where all clips are."""
    return 1 - nn.functional.cosine_similarity(one, other).mean()


def to_a_plane(one: Tensor, other: Tensor) -> Tensor:
    """All but two dimensions are to vanish."""
    return (one[:, 2:].square() + other[:, 2:].square()).mean()


@pytest.mark.parametrize(
    ("loss", "where", "figure", "below"),
    [
        (to_a_point, "all clips lie at a point", "collapse/spread", 0.02),
        (to_a_plane, "all clips lie along a line or two", "collapse/effective_rank", 3),
    ],
)
def test_a_run_that_collapses_is_told_once_in_one_line(said, loss, where, figure, below):
    objective, monitor = Collapsing(loss), Monitor()
    optimiser = torch.optim.Adam(objective.parameters(), lr=0.05)
    figures = []
    for step in range(1, 301):
        optimiser.zero_grad()
        objective(noise(32, 16), step).backward()
        optimiser.step()
        if step % 20 == 0:
            figures.append(monitor(step, objective)[figure])

    (told,) = said
    assert "have collapsed" in told and where in told and "\n" not in told
    assert "training.learning_rate" in told and "momentum" in told and "batch norm" in told
    assert figures[0] > below > figures[-1]


def test_it_is_quiet_on_noise_on_a_shared_mean_and_on_a_passing_narrow_place(said):
    shared = 0.25 * noise(1, 32, 64) + 1.0  # mean cosine above 0.9, as of an untrained net
    point = torch.ones(1, 32, 64)

    watch(*[noise(2, 32, 64)] * 3)
    watch(*[shared] * 3)
    watch(shared, point, shared, point, shared)
    assert said == []
    watch(shared, point, point)
    assert len(said) == 1


def test_it_does_not_judge_a_handful_of_clips_or_none(said):
    watch(*[torch.ones(1, 4, 8)] * 3)
    watch(None, None)

    assert said == []


def test_figures_are_those_by_hand():
    one, other = torch.eye(4), torch.roll(torch.eye(4), 1, dims=0)

    figures = Monitor()(1, Showing(torch.stack([one, other])))

    # By hand: four orthogonal clips; freed of the mean they fill 3 directions evenly; the views
    # of a clip are orthogonal, and so are all pairs of clips: squared distances of 2.
    assert figures == pytest.approx(
        {
            "collapse/rankme": 4,
            "collapse/effective_rank": 3,
            "collapse/spread": 4**0.5 * (3 / 16) ** 0.5,
            "collapse/alignment": 2,
            "collapse/uniformity": -4,
        },
        rel=1e-5,
    )


def test_one_view_has_no_alignment_and_a_teacher_its_deviation():
    objective = Showing(noise(1, 8, 4))
    objective.teacher_deviation = lambda: torch.tensor(0.25)

    figures = Monitor()(1, objective)

    assert "collapse/alignment" not in figures
    assert figures["collapse/teacher_deviation"] == 0.25


def test_an_objective_that_offers_nothing_costs_nothing():
    assert Monitor()(1, nn.Linear(2, 2)) == {}


OUTSIDE = """
from sslaudio.objectives import masked_patch
from sslaudio.objectives.masked_patch import Config
from sslaudio.objectives.monitor import deviation


class Shown(masked_patch.MaskedPatch):
    embeddings = None

    def forward(self, views, draws):
        parts = super().forward(views, draws)
        tokens = self.backbone(views[0].pictures, views[0].frames).patches
        self.embeddings = tokens.mean(dim=1).detach().float()[None]
        return parts

    def teacher_deviation(self):
        weights = list(self.backbone.parameters())
        return deviation((weight, 2 * weight) for weight in weights)


def build(config, backbone):
    return Shown(config.settings, backbone)
"""


def test_a_resumed_run_writes_the_same_figures_beside_the_loss(tmp_path, monkeypatch):
    (tmp_path / "shown_lab").mkdir()
    (tmp_path / "shown_lab" / "shown.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    synth.build(tmp_path / "synth", clips=100)
    words = (
        f"pretrain --config demo --data.shards {tmp_path / 'synth'} --objective shown_lab.shown "
        "--data.batch 16 --data.clip_seconds 0.5 --backbone.patch 128 16 --training.steps 5 "
        "--training.warmup_steps 1 --training.log_every 2 --training.checkpoint_every 3 "
        "--training.pictures_every 0"
    ).split()
    assert main([*words, "--out", str(tmp_path / "whole")]) == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-00000005")

    assert main([*words, "--out", str(tmp_path / "cut"), "--resume"]) == 0

    whole, cut = figures_of(tmp_path / "whole"), figures_of(tmp_path / "cut")
    assert whole == cut
    assert [line["step"] for line in whole] == [2, 3, 4, 5]
    assert all(1 <= line["collapse/effective_rank"] <= 16 for line in whole)
    assert all(line["collapse/teacher_deviation"] == pytest.approx(1) for line in whole)
    assert all("objective/loss" in line and "collapse/spread" in line for line in whole)


def figures_of(run: Path) -> list[dict[str, float]]:
    """Lines of metrics, without what the clock says."""
    read = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{name: line[name] for name in line if not name.startswith("speed/")} for line in read]
