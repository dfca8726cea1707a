"""Patches finer than a token of MAST: hidden on the picture, predicted by the token."""

import numpy as np
import pytest
import torch

from sslaudio.augments.base import Draws
from sslaudio.backbones import ast, mast
from sslaudio.objectives import masked_patch
from sslaudio.objectives.base import View
from sslaudio.objectives.masks import SHAPES

COARSE = mast.Config()  # stem 7 by 7 at stride 4: a token stands for 32 by 32
FINE = mast.Config(last_stride=1)  # for 16 by 16
RELEASED = mast.Config(stem_patch=(16, 16), stem_stride=(10, 10), last_stride=1)  # for 40 by 40


def draws(clips: int, seed: int = 0) -> Draws:
    return Draws(torch.Generator().manual_seed(seed), 0, clips, clips)


def view(*lengths: int, bins: int = 128) -> View:
    mel = torch.randn(len(lengths), bins, max(lengths), generator=torch.Generator().manual_seed(1))
    for row, length in enumerate(lengths):
        mel[row, :, length:] = 0
    return View(mel, torch.tensor(lengths))


def objective(config: mast.Config, bins: int = 128, **settings) -> masked_patch.MaskedPatch:
    torch.manual_seed(0)
    backbone = mast.build(config, bins, 200)
    for name, weight in backbone.named_parameters():  # a fresh start is too tame to show mistakes
        norm = "norm" in name and name.endswith("weight")
        torch.nn.init.normal_(weight, mean=float(norm), std=0.1)
    return masked_patch.build(masked_patch.Config(**settings), backbone).eval()


CASES = [
    (COARSE, (16, 16)),
    (COARSE, (8, 32)),
    (COARSE, (16, 4)),
    (COARSE, None),
    (FINE, (16, 16)),
    (FINE, (4, 8)),
    (RELEASED, (20, 20)),
    (RELEASED, (8, 8)),
]


@pytest.mark.parametrize(("config", "patch"), CASES)
def test_what_is_hidden_reaches_no_token_and_what_is_seen_does(config, patch):
    # 120 bins are three times 40: nothing of the picture lies beyond the released stem's grid.
    bins = 120 if config is RELEASED else 128
    model, seen = objective(config, bins, patch=patch), view(200, 130, bins=bins)
    question = model.ask(seen, draws(2))
    hidden = question.hidden.unflatten(1, tuple(question.grid))
    high, wide = model.cells.patch
    covered = hidden.repeat_interleave(high, 1).repeat_interleave(wide, 2)[:, :bins, :200]
    covered = torch.nn.functional.pad(covered, (0, 200 - covered.shape[2]))
    covered = covered & (torch.arange(200) < seen.frames[:, None, None])  # padding stays 0
    given = model.cells.given(question.hidden, question.grid)

    def encoded(where: torch.Tensor) -> torch.Tensor:
        changed = torch.where(where, seen.pictures + 3, seen.pictures)
        return model.backbone(changed, seen.frames, hidden=given).patches

    plain = encoded(torch.zeros_like(covered))
    assert torch.equal(encoded(covered), plain)
    # One seen patch in a token of which others are hidden is seen nevertheless.
    by_token = model.cells.by_token(question.hidden, question.grid)
    partly = by_token.any(2) & ~by_token.all(2)
    assert partly.any() == (model.cells.per_token > 1)
    row, column = (~hidden[0]).nonzero()[0].tolist()
    one = torch.zeros_like(covered)
    one[0, row * high : (row + 1) * high, column * wide : (column + 1) * wide] = True
    assert not torch.allclose(encoded(one)[0], plain[0], atol=1e-3)


@pytest.mark.parametrize("patch", [(16, 16), (8, 32)])
def test_each_token_answers_for_the_patches_under_it_as_loops_have_it(patch):
    model, seen = objective(COARSE, patch=patch, mask_share=0.3), view(200, 130, 64)
    seen.pictures[1, 64:] = 0.5  # half of the second clip is flat
    with torch.no_grad():
        parts = model([seen], draws(3))
        question = model.ask(seen, draws(3))
        given = question.hidden.unflatten(1, tuple(question.grid))
        tokens = model.backbone(seen.pictures, seen.frames, hidden=given).patches
        told, rebuilt = model.tell(tokens).numpy(), model.rebuild(tokens).numpy()

    (high, wide), columns = patch, -(-200 // 32)
    across, values = 32 // wide, high * wide
    losses, errors, counts = [], [], []
    for clip, length in enumerate((200, 130, 64)):
        answers, targets = [], []
        for row in range(128 // high):
            for column in range(columns * across):
                cell = seen.pictures[clip, row * high : (row + 1) * high]
                cell = cell[:, column * wide : (column + 1) * wide].numpy()
                whole = (column + 1) * wide <= length
                if not (given[clip, row, column] and whole and cell.std() >= 0.1):
                    continue
                token = (row * high // 32) * columns + column * wide // 32
                part = (row % (32 // high)) * across + column % across
                place = slice(part * values, (part + 1) * values)
                answers.append((told[clip, token, place], rebuilt[clip, token, place]))
                targets.append((cell.ravel() - cell.mean()) / cell.std())
        surprises = []
        for i, (one, _) in enumerate(answers):
            cosines = np.array(
                [one @ t / np.linalg.norm(one) / np.linalg.norm(t) / 0.1 for t in targets]
            )
            surprises.append(np.log(np.exp(cosines).sum()) - cosines[i])
        losses.append(np.mean(surprises))
        errors.append(
            np.mean([((a[1] - t) ** 2).mean() for a, t in zip(answers, targets, strict=True)])
        )
        counts.append(len(answers))

    assert parts["info_nce"].item() == pytest.approx(np.mean(losses), rel=1e-4)
    assert parts["squared_error"].item() == pytest.approx(np.mean(errors), rel=1e-4)
    assert parts["candidates"].item() == pytest.approx(np.mean(counts))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_hides_its_share_of_the_fine_patches(shape):
    model, seen = objective(COARSE, patch=(16, 16), mask_shape=shape, mask_share=0.5), view(192, 90)

    question = model.ask(seen, draws(2))

    hidden = question.hidden.view(2, 8, 12)
    assert not hidden[1, :, 6:].any()  # 90 frames are 6 patches, the last in part padding
    assert hidden.sum((1, 2)).tolist() == [48, 24]
    assert (question.asked.sum(1) <= torch.tensor([48, 24])).all()
    asked = hidden.clone()
    asked[1, :, 5] = False
    assert question.asked.sum(1).tolist() == asked.sum((1, 2)).tolist()


def test_rows_of_padding_above_the_picture_are_neither_hidden_nor_asked_for():
    # 88 bins are 5 and a half patches of 16 in 3 tokens of 32.
    model, seen = objective(COARSE, bins=88, patch=(16, 16), mask_share=0.9), view(96, bins=88)

    question = model.ask(seen, draws(1))

    hidden = question.hidden.view(6, 6)
    assert question.grid == (6, 6) and hidden.sum() == round(0.9 * 36)
    assert question.asked.sum() == hidden[:5].sum()  # the sixth row is part padding


@pytest.mark.parametrize("config", [COARSE, FINE, RELEASED])
def test_a_clip_with_hidden_parts_is_the_same_alone_and_beside_a_longer_one(config):
    patch = (8, 8)
    model, seen = objective(config, patch=patch), view(138, 200)
    question = model.ask(seen, draws(2))
    given = question.hidden.unflatten(1, tuple(question.grid))
    own = model.backbone.grid(138).columns
    fine = own * model.backbone.patch[1] // 8

    together = model.backbone(seen.pictures, seen.frames, hidden=given)

    alone = model.backbone(
        seen.pictures[:1, :, :138], seen.frames[:1], hidden=given[:1, :, :fine].contiguous()
    )
    ours = together.patches[0].unflatten(0, tuple(together.grid))[:, :own]
    assert torch.allclose(ours.flatten(0, 1), alone.patches[0], atol=1e-4)


@pytest.mark.parametrize(
    ("backbone", "patch", "cure"),
    [
        (ast.build(ast.Config(), 128, 96), (8, 8), "leave objective.patch unset"),
        (mast.build(RELEASED, 128, 96), (16, 16), r"\(40, 40\).*set it to 10 10 or 20 20"),
        (mast.build(COARSE, 128, 96), (16, 24), "set it to 16 16 or 16 32"),
        (mast.build(COARSE, 24, 96), None, r"higher than the picture.*objective\.patch"),
    ],
)
def test_a_patch_that_does_not_fit_is_told_what_would(backbone, patch, cure):
    with pytest.raises(ValueError, match=cure):
        masked_patch.build(masked_patch.Config(patch=patch), backbone)


def test_a_mask_that_cuts_tokens_unevenly_is_refused():
    mel = torch.zeros(1, 128, 96)

    with pytest.raises(ValueError, match="does not cut 4 by 3 tokens"):
        mast.build(COARSE, 128, 96)(mel, hidden=torch.zeros(1, 8, 7, dtype=torch.bool))
    with pytest.raises(ValueError, match="AST hides whole patches"):
        ast.build(ast.Config(), 128, 96)(mel, hidden=torch.zeros(1, 16, 12, dtype=torch.bool))


@pytest.mark.parametrize(("config", "patch"), [(COARSE, (16, 16)), (FINE, None)])
def test_mast_learns_to_find_patches_that_follow_from_their_place(config, patch):
    torch.manual_seed(0)
    backbone = mast.build(config, 64, 96)
    model = masked_patch.build(masked_patch.Config(patch=patch), backbone).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3)
    texture = torch.randn(1, 64, 96, generator=torch.Generator().manual_seed(3))
    for step in range(40):
        noise = 0.5 * torch.randn(8, 64, 96, generator=torch.Generator().manual_seed(step))
        parts = model([View(texture + noise, torch.full((8,), 96))], draws(8, step))
        optimiser.zero_grad()
        parts["loss"].backward()
        optimiser.step()

    assert parts["chance"] == pytest.approx(1 / 15)
    assert parts["accuracy"] > 0.3
