"""Masked patch modelling against plain loops; masks by their shares."""

import numpy as np
import pytest
import torch

from sslaudio.augments.base import Draws
from sslaudio.backbones import ast, mast
from sslaudio.objectives import masked_patch
from sslaudio.objectives.base import View, spread
from sslaudio.objectives.losses import centre, contrast
from sslaudio.objectives.masks import SHAPES


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


def by_hand(told, rebuilt, targets, asked, temperature, over_predictions=False):
    """SSAST's equations 1 and 2 in loops: softmax over candidates, mean over patches, clips."""
    info_nce, error = [], []
    for clip in range(len(told)):
        places = [i for i in range(told.shape[1]) if asked[clip, i]]
        surprises, squares = [], []
        for i in places:
            alike = []
            for j in places:
                one, other = (j, i) if over_predictions else (i, j)
                product = told[clip, one] @ targets[clip, other]
                if temperature is not None:
                    length = np.linalg.norm(told[clip, one]) * np.linalg.norm(targets[clip, other])
                    product = product / length / temperature
                alike.append(product)
            alike = np.array(alike)
            above = np.log(np.exp(alike - alike.max()).sum()) + alike.max()
            surprises.append(above - alike[places.index(i)])
            squares.append(((rebuilt[clip, i] - targets[clip, i]) ** 2).mean())
        info_nce.append(np.mean(surprises) if places else 0.0)
        error.append(np.mean(squares) if places else 0.0)
    return np.mean(info_nce), np.mean(error)


def asked_by_hand(question, patches, flat_std=0.1):
    """Hidden, wholly sound, not flat; the clips have 96, 96 and 40 frames."""
    asked = question.hidden.numpy().copy()
    whole = np.array([6, 6, 2])  # 40 frames hold two whole patches of 16
    for clip in range(3):
        for patch in range(48):
            flat = patches[clip, patch].std() < flat_std
            asked[clip, patch] &= not flat and patch % 6 < whole[clip]
    return asked


def some_view() -> View:
    seen = view(96, 96, 40)
    seen.pictures[1, 64:] = 0.5  # half of the second clip is flat
    return seen


SETTINGS = [
    ({"temperature": 0.2}, 0.2, 1.0),
    ({"similarity": "raw"}, None, 1.0),
    ({"targets": "dataset"}, 0.1, 10.0),
    ({"targets": "dataset", "similarity": "raw", "error_weight": 3.0}, None, 3.0),
]


@pytest.mark.parametrize(("settings", "temperature", "error_weight"), SETTINGS)
def test_the_loss_is_the_papers_in_loops(settings, temperature, error_weight):
    model, seen = objective(**settings), some_view()
    with torch.no_grad():
        parts = model([seen], draws(3))
        question = model.ask(seen, draws(3))
        tokens = model.backbone(seen.pictures, seen.frames, hidden=question.hidden)
        told, rebuilt = model.tell(tokens.patches), model.rebuild(tokens.patches)

    # Again from the definition.
    targets = patches = model.backbone.patchify(seen.pictures).numpy()
    asked = asked_by_hand(question, patches)
    if settings.get("targets") != "dataset":
        targets = (patches - patches.mean(2, keepdims=True)) / patches.std(2, keepdims=True).clip(
            0.1
        )
    info_nce, error = by_hand(told.numpy(), rebuilt.numpy(), targets, asked, temperature)

    assert parts["info_nce"].item() == pytest.approx(info_nce, rel=1e-4)
    assert parts["squared_error"].item() == pytest.approx(error, rel=1e-4)
    assert parts["loss"].item() == pytest.approx(info_nce + error_weight * error, rel=1e-4)
    assert parts["candidates"].item() == pytest.approx(asked.sum(1).mean())


def test_the_published_codes_loss_is_its_own_in_loops():
    model, seen = objective(variant="legacy"), some_view()
    with torch.no_grad():
        parts = model([seen], draws(3))
        same = draws(3)
        first, second = model.ask(seen, same), model.ask(seen, same)
        terms = []
        for question in (first, second):
            tokens = model.backbone(seen.pictures, seen.frames, hidden=question.hidden).patches
            patches = model.backbone.patchify(seen.pictures).numpy()
            asked = asked_by_hand(question, patches, flat_std=0.0)  # flat ones count
            told, rebuilt = model.tell(tokens).numpy(), model.rebuild(tokens).numpy()
            terms.append(by_hand(told, rebuilt, patches, asked, None, over_predictions=True))

    assert not torch.equal(first.hidden, second.hidden)
    assert parts["info_nce"].item() == pytest.approx(terms[0][0], rel=1e-4)
    assert parts["squared_error"].item() == pytest.approx(terms[1][1], rel=1e-4)
    assert parts["loss"].item() == pytest.approx(terms[0][0] + 10 * terms[1][1], rel=1e-4)


@pytest.mark.parametrize("over_predictions", [False, True])
@pytest.mark.parametrize("temperature", [None, 0.2])
def test_the_gradient_is_that_of_the_loops(temperature, over_predictions):
    generator = torch.Generator().manual_seed(4)
    told = torch.randn(2, 5, 7, generator=generator)
    targets = torch.randn(2, 5, 7, generator=generator)
    asked = torch.tensor([[True, True, True, False, True], [False, True, True, False, False]])

    ours = told.clone().requires_grad_()
    contrast(ours, targets, asked, temperature, over_predictions)[0].mean().backward()

    # Finite differences of the formula in float64.
    there = told.double().numpy()
    slope, step = np.zeros_like(there), 1e-5
    for place in np.ndindex(there.shape):
        ends = []
        for sign in (1, -1):
            moved = there.copy()
            moved[place] += sign * step
            ends.append(
                by_hand(moved, there, targets.double().numpy(), asked, temperature,
                        over_predictions)[0]
            )  # fmt: skip
        slope[place] = (ends[0] - ends[1]) / (2 * step)
    assert ours.grad.numpy() == pytest.approx(slope, abs=1e-5)


@pytest.mark.parametrize(
    "settings", [{}, {"targets": "dataset", "similarity": "raw"}, {"variant": "legacy"}]
)
def test_the_backbones_gradient_is_that_of_the_loops(settings):
    model, seen = objective(**settings), some_view()
    model([seen], draws(3))["loss"].backward()
    names = ("backbone.mask_token", "backbone.blocks.0.mlp.fc1.weight", "tell.fc2.weight",
             "rebuild.fc1.bias")  # fmt: skip
    ours = {name: model.get_parameter(name).grad.clone() for name in names}
    model.zero_grad()

    legacy, same = settings.get("variant") == "legacy", draws(3)
    first = model.ask(seen, same)
    second = model.ask(seen, same) if legacy else first
    loss = torch.zeros(())
    for clip in range(3):
        for number, question in enumerate((first, second)):
            tokens = model.backbone(seen.pictures, seen.frames, hidden=question.hidden).patches
            patches = model.backbone.patchify(seen.pictures)
            asked = asked_by_hand(question, patches.numpy(), 0.0 if legacy else 0.1)[clip]
            targets = patches[clip, torch.from_numpy(asked)]
            if not settings:
                targets = torch.stack([(t - t.mean()) / t.std(correction=0) for t in targets])
            answers = tokens[clip, torch.from_numpy(asked)]
            for i in range(len(targets)):
                if number:
                    error = ((model.rebuild(answers[i]) - targets[i]) ** 2).mean()
                    loss = loss + (10 if settings else 1) * error / len(targets) / 3
                    continue
                if legacy:
                    scores = torch.stack([targets[i] @ model.tell(a) for a in answers])
                elif settings:
                    scores = torch.stack([model.tell(answers[i]) @ t for t in targets])
                else:
                    told = model.tell(answers[i])
                    scores = torch.stack(
                        [torch.cosine_similarity(told, t, dim=0) / 0.1 for t in targets]
                    )
                loss = loss - scores.log_softmax(0)[i] / len(targets) / 3
    loss.backward()

    for name, grad in ours.items():
        theirs = model.get_parameter(name).grad
        assert grad.abs().max() > 0
        assert torch.allclose(grad, theirs, atol=1e-4 * theirs.abs().max().item()), name


@pytest.mark.parametrize(("variant", "passes"), [("paper", 1), ("legacy", 2)])
def test_the_paper_has_one_pass_and_one_mask_the_code_two(monkeypatch, variant, passes):
    model, masks = objective(variant=variant), []
    forward = model.backbone.forward
    monkeypatch.setattr(
        model.backbone, "forward", lambda *a, **k: (masks.append(k["hidden"]), forward(*a, **k))[1]
    )

    model([view(96, 96)], draws(2))

    assert len(masks) == passes
    assert passes == 1 or not torch.equal(*masks)


@pytest.mark.parametrize(
    ("settings", "cure"),
    [
        ({"mask_span": 3}, "set it to none, or set objective.mask_shape"),
        (
            {"similarity": "raw", "temperature": 0.1},
            "set it to none, or objective.similarity to cosine",
        ),
        ({"decoder_dim": 64}, "set it to none, or objective.hide to drop"),
        ({"decoder_depth": 2}, "set it to none, or objective.hide to drop"),
        ({"hide": "drop", "decoder_dim": 100}, "a multiple of 32"),
        ({"centred": True, "contrastive_weight": 0.0}, "raise the weight"),
        ({"contrastive_weight": 0.0, "error_weight": 0.0}, "one must be above 0"),
        ({"mask_shape": "columns", "mask_span": 0}, "at least 1"),
    ],
)
def test_what_another_setting_makes_meaningless_is_refused(settings, cure):
    with pytest.raises(ValueError, match=cure):
        masked_patch.Config(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"mask_shape": "columns", "mask_span": 3, "centred": True},
        {"similarity": "cosine", "temperature": 0.2},
        {"flat_std": 0.1, "drop_share": 0.2, "hide": "drop"},
    ],
)
def test_what_the_published_code_does_not_know_is_told_and_has_no_effect(settings):
    with pytest.warns(UserWarning, match=f"objective.{min(settings)} .* has no effect"):
        config = masked_patch.Config(variant="legacy", **settings)

    assert config.settings == masked_patch.Config(variant="legacy").settings


def test_the_codes_variant_takes_what_it_has_anyway():
    settings = masked_patch.Config(variant="legacy", similarity="raw", targets="dataset").settings

    assert settings == masked_patch.Config(variant="legacy").settings
    assert (settings.temperature, settings.error_weight, settings.flat_std) == (None, 10.0, None)


def test_rows_of_a_picture_of_one_row_are_refused():
    frames = ast.build(ast.Config(patch=(128, 2)), 128, 96)

    with pytest.raises(ValueError, match="set it to columns"):
        masked_patch.build(masked_patch.Config(mask_shape="rows"), frames)


def test_pictures_narrower_than_a_patch_are_refused():
    with pytest.raises(ValueError, match=r"12 frames hold no whole patch of 16.*clip_seconds"):
        objective()([view(12, 12)], draws(2))


@pytest.mark.parametrize("shape", [*SHAPES, "legacy"])
@pytest.mark.parametrize("patch", [(16, 16), (128, 2)])
@pytest.mark.parametrize("seconds", [0.5, 1, 5])
def test_clips_of_any_length_and_patches_or_frames_are_asked_for(shape, patch, seconds):
    if (shape, patch[0]) == ("rows", 128):
        pytest.skip("refused: one row")
    frames = int(100 * seconds) - 2
    backbone = ast.build(ast.Config(patch=patch, depth=1), 128, frames)
    own = {"variant": "legacy"} if shape == "legacy" else {"mask_shape": shape}
    model = masked_patch.build(masked_patch.Config(mask_share=0.78, **own), backbone)

    parts = model([view(frames, frames // 2)], draws(2))

    assert torch.isfinite(parts["loss"]) and parts["loss"] > 0
    # Whole columns round the share: two of three and one of two at half a second.
    assert parts["hidden_share"] == pytest.approx(0.78, abs=0.2)


def test_mean_tokens_of_the_last_call_are_kept_without_gradient():
    model = objective()
    assert model.embeddings is None

    model([some_view()], draws(3))["loss"].backward()

    assert model.embeddings.shape == (1, 3, 128)
    assert model.embeddings.dtype == torch.float32 and not model.embeddings.requires_grad
    assert "embeddings" not in model.state_dict()


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
