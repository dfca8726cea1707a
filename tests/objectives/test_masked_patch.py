"""Masked patch modelling against plain loops; masks by their shares."""

import numpy as np
import pytest
import torch

from sslaudio.augments.base import Draws
from sslaudio.backbones import ast, mast
from sslaudio.backbones.base import Grid
from sslaudio.objectives import masked_patch
from sslaudio.objectives.base import View, spread
from sslaudio.objectives.losses import centre, contrast
from sslaudio.objectives.masks import Area, hide


def draws(clips: int, seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed), 0, clips, clips)


def objective(**settings) -> masked_patch.MaskedPatch:
    torch.manual_seed(0)
    backbone = ast.build(ast.Config(), 128, 96)
    return masked_patch.build(masked_patch.Config(**settings), backbone).eval()


def view(*lengths: int) -> View:
    mel = torch.randn(len(lengths), 128, max(lengths), generator=torch.Generator().manual_seed(1))
    for row, length in enumerate(lengths):
        mel[row, :, length:] = 0
    return View(mel, torch.tensor(lengths))


def by_hand(told, rebuilt, targets, asked, temperature):
    """SSAST's equations 1 and 2 in loops: softmax over candidates, mean over patches, clips."""
    info_nce, error = [], []
    for clip in range(len(told)):
        places = [i for i in range(told.shape[1]) if asked[clip, i]]
        surprises, squares = [], []
        for i in places:
            cosines = []
            for j in places:
                length = np.linalg.norm(told[clip, i]) * np.linalg.norm(targets[clip, j])
                cosines.append(told[clip, i] @ targets[clip, j] / length / temperature)
            surprises.append(np.log(np.exp(cosines).sum()) - cosines[places.index(i)])
            squares.append(((rebuilt[clip, i] - targets[clip, i]) ** 2).mean())
        info_nce.append(np.mean(surprises) if places else 0.0)
        error.append(np.mean(squares) if places else 0.0)
    return np.mean(info_nce), np.mean(error)


def test_the_loss_is_the_papers_in_loops():
    model, seen = objective(temperature=0.2), view(96, 96, 40)
    seen.pictures[1, 64:] = 0.5  # half of the second clip is flat
    with torch.no_grad():
        parts = model([seen], draws(3))
        question = model.ask(seen, draws(3))
        tokens = model.backbone(seen.pictures, seen.frames, hidden=question.hidden)
        told, rebuilt = model.tell(tokens.patches), model.rebuild(tokens.patches)

    # Again from the definition: hidden, wholly sound, not flat.
    patches = model.backbone.patchify(seen.pictures).numpy()
    asked = question.hidden.numpy().copy()
    whole = np.array([6, 6, 2])  # 40 frames hold two whole patches of 16
    for clip in range(3):
        for patch in range(48):
            flat = patches[clip, patch].std() < 0.1
            asked[clip, patch] &= not flat and patch % 6 < whole[clip]
    targets = (patches - patches.mean(2, keepdims=True)) / patches.std(2, keepdims=True).clip(0.1)
    info_nce, error = by_hand(told.numpy(), rebuilt.numpy(), targets, asked, 0.2)

    assert parts["info_nce"].item() == pytest.approx(info_nce, rel=1e-4)
    assert parts["squared_error"].item() == pytest.approx(error, rel=1e-4)
    assert parts["loss"].item() == pytest.approx(info_nce + error, rel=1e-4)
    assert parts["candidates"].item() == pytest.approx(asked.sum(1).mean())


def test_an_oracle_finds_every_patch_and_a_wrong_axis_would_not():
    targets = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(2))
    asked = torch.ones(2, 5, dtype=torch.bool)

    loss, found = contrast(targets, targets, asked, 0.05)
    # All predictions alike: over candidates they tell nothing apart, so the surprise is log 5 on
    # average or more; over predictions (the published code's axis) each would be exactly log 5.
    same = targets[:, :1].expand(-1, 5, -1)
    blind, _ = contrast(same, targets, asked, 0.05)

    assert found.tolist() == [5, 5] and loss.max() < 0.01
    assert (blind > np.log(5)).all()


def test_the_heads_are_two_linear_maps_and_what_is_asked_for_between():
    tokens = torch.randn(3, 128, generator=torch.Generator().manual_seed(2))
    for name, between in (("gelu", torch.nn.functional.gelu), ("relu", torch.relu)):
        head = objective(activation=name).tell

        hidden = between(tokens @ head.fc1.weight.T + head.fc1.bias)
        expected = hidden @ head.fc2.weight.T + head.fc2.bias

        assert torch.allclose(head(tokens), expected, atol=1e-5)


def test_the_loss_of_a_batch_is_the_mean_of_its_parts():
    model, seen = objective(), view(96, 96, 40, 20)
    whole = model([seen], draws(4))["loss"]

    parts = []
    for start in (0, 2):
        half = View(seen.pictures[start : start + 2], seen.frames[start : start + 2])
        part = Draws(torch.Generator().manual_seed(0), start, 2, 4)
        parts.append(model([half], part)["loss"])

    assert whole.item() == pytest.approx(torch.stack(parts).mean().item(), rel=1e-5)


def test_what_was_hidden_reaches_the_loss_only_as_target():
    model, seen = objective(), view(96)
    question = model.ask(seen, draws(1))
    place = int(question.hidden[0].nonzero()[0])
    changed = seen.pictures.clone()
    row, column = divmod(place, 6)
    changed[0, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] *= -1

    before = model.backbone(seen.pictures, seen.frames, hidden=question.hidden)
    after = model.backbone(changed, seen.frames, hidden=question.hidden)

    assert torch.equal(before.patches, after.patches)


def test_a_silent_clip_asks_nothing_and_breaks_nothing():
    model = objective()
    silent = View(torch.full((2, 128, 96), -2.0), torch.tensor([96, 1]))

    parts = model([silent], draws(2))
    parts["loss"].backward()

    assert parts["loss"].item() == 0
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_it_learns_to_find_patches_that_follow_from_their_place():
    model = objective().train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    texture = torch.randn(1, 128, 96, generator=torch.Generator().manual_seed(3))
    for step in range(25):
        noise = 0.5 * torch.randn(8, 128, 96, generator=torch.Generator().manual_seed(step))
        parts = model([View(texture + noise, torch.full((8,), 96))], draws(8, step))
        optimiser.zero_grad()
        parts["loss"].backward()
        optimiser.step()

    assert parts["chance"] == pytest.approx(1 / 30)
    assert parts["accuracy"] > 0.3


def test_centred_candidates_are_free_of_what_the_clip_shares():
    targets = torch.tensor([[[1.0, 5.0], [3.0, 5.0], [100.0, 100.0]]])
    asked = torch.tensor([[True, True, False]])

    centred = centre(targets, asked)

    # By hand: the mean of the two that are asked is (2, 5).
    assert centred[0, :2].tolist() == [[-1, 0], [1, 0]]


def test_spread_is_one_for_noise_and_zero_for_a_collapse():
    noise = torch.randn(2_000, 64, generator=torch.Generator().manual_seed(0))

    assert spread(noise).item() == pytest.approx(1, abs=0.05)
    assert spread(torch.ones(10, 64)).item() == 0


@pytest.mark.parametrize("backbone", [ast, mast])
@pytest.mark.parametrize("share", [0.2, 0.5])
def test_what_was_dropped_is_neither_seen_nor_asked_for(backbone, share: float):
    torch.manual_seed(0)
    built = backbone.build(backbone.Config(), 128, 320)
    model = masked_patch.build(masked_patch.Config(drop_share=share, mask_share=0.4), built).eval()
    seen = view(320, 320, 200)
    question = model.ask(seen, draws(3))
    grid = built.grid(320)
    stays = torch.zeros(3, grid.rows * grid.columns, dtype=torch.bool)
    stays.scatter_(1, question.kept.index, question.kept.sound)
    high, wide = built.patch
    gone = (~stays).unflatten(1, tuple(grid)).repeat_interleave(high, 1).repeat_interleave(wide, 2)
    changed = View(torch.where(gone[:, :128, :320], 5.0, seen.pictures), seen.frames)

    parts, again = model([seen], draws(3)), model([changed], draws(3))

    assert parts["loss"].item() == pytest.approx(again["loss"].item(), rel=1e-5)
    assert parts["dropped_share"] == pytest.approx(share, abs=0.06)  # whole columns on MAST
    assert parts["hidden_share"] == pytest.approx(0.4, abs=0.06)
    assert not (question.hidden & ~stays).any()
    parts["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
