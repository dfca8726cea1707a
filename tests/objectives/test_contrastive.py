"""Contrastive learning against the papers' formulas in plain loops."""

import numpy as np
import pytest
import torch
from torch import nn

from sslaudio.augments.base import Draws
from sslaudio.backbones import ast, mast
from sslaudio.objectives import contrastive
from sslaudio.objectives.base import View
from sslaudio.objectives.info_nce import info_nce, strangers
from sslaudio.objectives.key_queue import KeyQueue
from sslaudio.objectives.projection import BatchNorm
from sslaudio.objectives.teacher import Teacher, momentum_at
from sslaudio.training.cache import Cached

CLIPS, BINS, WIDTH = 6, 32, 64


def draws(clips: int = CLIPS, start: int = 0, recordings=None) -> Draws:
    generator = torch.Generator().manual_seed(0)
    return Draws(generator, start, clips, CLIPS, recordings=recordings)


def objective(name="ast", **settings) -> contrastive.Contrastive:
    torch.manual_seed(0)
    module = {"ast": ast, "mast": mast}[name]
    backbone = module.build(module.Config(), BINS, WIDTH)
    settings = {"drop_share": 0.0, "norm": "batch", "hidden_dim": 64, **settings}
    if settings.get("head") == "projector":
        settings["norm"] = "none"
    return contrastive.build(contrastive.Config(**settings), backbone)


def views(clips: int = CLIPS, seed: int = 1, noise: float = 0.5) -> list[View]:
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(clips, BINS, WIDTH, generator=generator)
    frames = torch.full((clips,), WIDTH)
    return [
        View(shared + noise * torch.randn(shared.shape, generator=generator), frames)
        for _ in range(2)
    ]


def unit(*shape: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def papers_loss(q1, q2, k1, k2, temperature, recordings=None, queue=(), past=()):
    """SS-MAST, section 2: L(f, h) + L(h, f), clip by clip."""
    total = 0.0
    for queries, keys in ((q1, k2), (q2, k1)):
        each = []
        for i in range(len(queries)):
            right = np.exp(queries[i] @ keys[i] / temperature)
            wrong = 0.0
            for j in range(len(keys)):
                same = j == i or (recordings is not None and recordings[j] == recordings[i])
                wrong += 0.0 if same else np.exp(queries[i] @ keys[j] / temperature)
            for key, recording in zip(queue, past, strict=True):
                own = recordings is not None and recording == recordings[i]
                wrong += 0.0 if own else np.exp(queries[i] @ key / temperature)
            each.append(-np.log(right / (right + wrong)))
        total += np.mean(each)
    return total


def embedded(model, seen, told) -> list[np.ndarray]:
    """Queries and keys of both views, as the model makes them, in float64."""
    with torch.no_grad():
        encoded = model.encode(seen, told)
        rows = [model.queries(encoded[f"student_{v}"]) for v in (0, 1)]
        rows += [model.keys_of(encoded, view) for view in (0, 1)]
    return [row.double().numpy() for row in rows]


@pytest.mark.parametrize("head", ["linear", "projector"])
def test_the_loss_is_the_papers_in_loops(head):
    recordings = torch.tensor([5, 6, 5, 7, 8, 9])  # the first and the third are of one recording
    model, told = objective(head=head, temperature=0.2), draws(recordings=recordings)
    q1, q2, k1, k2 = embedded(model, views(), told)

    parts = model(views(), told)

    expected = papers_loss(q1, q2, k1, k2, 0.2, recordings.tolist())
    assert parts["loss"].item() == pytest.approx(expected, rel=1e-5)
    assert expected != pytest.approx(papers_loss(q1, q2, k1, k2, 0.2), rel=1e-3)
    # By hand: 4 clips have 5 negatives, 2 have 4, and each has its own key.
    assert parts["candidates"].item() == pytest.approx((4 * 6 + 2 * 5) / 6)


def test_the_gradient_is_that_of_the_papers_formula():
    q1, q2, k1, k2 = (unit(4, 5, seed=seed) for seed in range(4))
    recordings = [1, 2, 1, 3]

    rows = [torch.tensor(row, dtype=torch.float32, requires_grad=True) for row in (q1, q2)]
    whose = torch.tensor(recordings)
    counted = strangers(whose, whose)
    for query, key in zip(rows, (k2, k1), strict=True):
        keys = torch.tensor(key, dtype=torch.float32)
        info_nce(query, keys, keys, counted, 0.3).loss.backward()

    for row, start in zip(rows, (q1, q2), strict=True):
        slopes = np.zeros_like(start)
        for place in np.ndindex(start.shape):
            ends = []
            for step in (1e-6, -1e-6):
                moved = start.copy()
                moved[place] += step
                pair = (moved, q2) if row is rows[0] else (q1, moved)
                ends.append(papers_loss(*pair, k1, k2, 0.3, recordings))
            slopes[place] = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(row.grad.numpy(), slopes, atol=1e-5)


def test_with_all_embeddings_alike_the_loss_is_twice_the_log_of_the_candidates():
    model = objective()
    nn.init.zeros_(model.head[-1].weight)
    model.teacher = Teacher(**model.student())

    assert model(views(), draws())["loss"].item() == pytest.approx(2 * np.log(CLIPS), rel=1e-5)


def test_the_queue_holds_past_keys_and_never_counts_a_recording_of_the_batch():
    first, second = torch.arange(1, 7), torch.tensor([7, 8, 9, 1, 10, 11])  # 1 comes again
    model = objective(queue=64, temperature=0.2)
    told = draws(recordings=first)
    _, _, k1, k2 = embedded(model, views(), told)
    model(views(), told)
    model.after_step(1, 10)
    queue = np.stack([k1, k2], axis=1).reshape(12, -1)
    past = first.repeat_interleave(2).tolist()
    q1, q2, k1, k2 = embedded(model, views(seed=2), draws(recordings=second))

    parts = model(views(seed=2), draws(recordings=second))

    expected = papers_loss(q1, q2, k1, k2, 0.2, second.tolist(), queue, past)
    assert parts["loss"].item() == pytest.approx(expected, rel=1e-4)
    # Each of the six has five others and twelve past keys; one knows two of these.
    assert parts["candidates"].item() == pytest.approx((5 * 18 + 16) / 6)


def test_a_queue_drops_its_oldest_first():
    queue = KeyQueue(5, 2)
    rows = torch.arange(8.0)[:, None].expand(-1, 2)

    for part in rows.split(2):
        queue.push(part, part[:, 0].long())

    assert sorted(queue.recordings.tolist()) == [3, 4, 5, 6, 7]
    assert torch.equal(queue.keys[:, 0].long(), queue.recordings)


def published(q1, q2, k1, k2, queue, temperature):
    """The released code: two passes, negatives from the queue alone, keys put in after each."""
    total, queue = 0.0, list(queue)
    for queries, keys in ((q1, k2), (q2, k1)):
        each = []
        for query, key in zip(queries, keys, strict=True):
            logits = np.array([query @ key, *(query @ old for old in queue)]) / temperature
            each.append(np.log(np.exp(logits).sum()) - logits[0])
        total += np.mean(each)
        queue = [*queue[len(keys) :], *keys]
    return total


def test_the_released_variant_is_the_published_formula():
    model = objective(variant="released", queue=24, norm="none")
    assert model.settings == (0.07, 0.999, 0.999, "constant", 24)
    queue = model.queue.keys.double().numpy()
    q1, q2, k1, k2 = embedded(model, views(), draws())

    parts = model(views(), draws())

    assert parts["loss"].item() == pytest.approx(published(q1, q2, k1, k2, queue, 0.07), rel=1e-4)
    own = torch.tensor(np.concatenate([k2, k1]), dtype=torch.float32)
    assert torch.allclose(model.queue.keys[:12], own, atol=1e-5)


def test_the_released_variant_moves_its_teacher_before_each_pass():
    model = objective(variant="released", queue=24, momentum=0.5, momentum_end=0.5)
    before = model.teacher.head[-1].weight.clone()
    with torch.no_grad():
        model.head[-1].weight.add_(1.0)

    model(views(), draws())

    moved = (model.teacher.head[-1].weight - before).mean().item()
    assert moved == pytest.approx(0.75, abs=1e-5)  # half of the way, twice
    model.after_step(1, 10)
    assert (model.teacher.head[-1].weight - before).mean().item() == pytest.approx(moved)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_slow_teacher_moves(precision):
    # In bf16 weights 0.06 % would have moved, in float32 all but a few.
    model = objective()
    before = [weight.clone() for weight in model.teacher.parameters()]
    optimiser = torch.optim.SGD([w for w in model.parameters() if w.requires_grad], lr=0.1)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        model(views(), draws())["loss"].backward()
    optimiser.step()
    with torch.no_grad():
        for weight in (*model.backbone.parameters(), *model.head.parameters()):
            weight.add_(1e-3 * torch.randn(weight.shape))

    for _ in range(100):
        model.teacher.update(model.student(), 0.9998)

    after = list(model.teacher.parameters())
    moved = sum(int((a != b).sum()) for a, b in zip(after, before, strict=True))
    assert moved / sum(weight.numel() for weight in after) > 0.95
    assert {weight.dtype for weight in after} == {torch.float32}


def test_a_teacher_in_half_precision_is_refused():
    model = objective().to(torch.bfloat16)

    with pytest.raises(ValueError, match=r"teacher's weights are torch.bfloat16.*float32"):
        model.after_step(1, 10)


def test_the_teacher_moves_by_its_momentum_after_the_step_and_has_no_gradient():
    model = objective(momentum=0.9, momentum_end=0.9, schedule="linear")
    before = model.teacher.head[-1].weight.clone()
    model(views(), draws())["loss"].backward()
    with torch.no_grad():
        model.head[-1].weight.add_(1.0)

    assert torch.equal(model.teacher.head[-1].weight, before)
    model.after_step(1, 10)

    assert torch.allclose(model.teacher.head[-1].weight, before + 0.1, atol=1e-6)
    assert all(weight.grad is None for weight in model.teacher.parameters())
    assert all(
        weight.grad is not None for weight in model.parameters() if weight.requires_grad
    )  # several processes wait for every one


def test_momentum_follows_its_schedule():
    assert momentum_at(7, 10, 0.99, 1.0, "constant") == 0.99
    assert momentum_at(5, 10, 0.9, 1.0, "linear") == pytest.approx(0.95)
    # By hand: 1 - 0.1 (1 + cos(pi / 4)) / 2.
    assert momentum_at(5, 20, 0.9, 1.0, "cosine") == pytest.approx(0.914645, abs=1e-6)
    assert momentum_at(20, 20, 0.9, 1.0, "cosine") == 1.0


@pytest.mark.parametrize(
    ("where", "dropped"), [("both", "ssTT"), ("student", "ss"), ("teacher", "TT")]
)
@pytest.mark.parametrize("name", ["ast", "mast"])
def test_patches_leave_where_they_are_meant_to(name, where, dropped):
    model, seen = objective(name, drop_share=0.5, drop_in=where), []
    for sign, backbone in (("s", model.backbone), ("T", model.teacher.backbone)):
        backbone.register_forward_hook(
            lambda module, given, kwargs, out, sign=sign: seen.append(
                sign if kwargs["kept"] is not None else ""
            ),
            with_kwargs=True,
        )

    parts = model(views(), draws())

    assert "".join(sorted(seen)) == "".join(sorted(dropped))
    expected = 0.5 if where != "teacher" else 0.0
    assert parts["dropped_share"].item() == pytest.approx(expected, abs=0.01)
    assert torch.isfinite(parts["loss"])


def test_drop_path_acts_in_the_student_alone():
    torch.manual_seed(0)
    backbone = ast.build(ast.Config(drop_path=0.9), BINS, WIDTH)
    model = contrastive.build(contrastive.Config(drop_share=0.0), backbone).train()

    one, two = (model.encode(views(), draws()) for _ in range(2))

    assert torch.equal(one["teacher_0"], two["teacher_0"])
    assert not torch.equal(one["student_0"], two["student_0"])


@pytest.mark.parametrize("head", ["linear", "projector"])
@pytest.mark.parametrize("queue", [0, 32])
def test_a_cached_batch_has_the_loss_and_gradients_of_a_whole_one(head, queue):
    settings = {"head": head, "queue": queue, "drop_share": 0.3, "drop_in": "student"}
    whole, cached = objective("ast", **settings), objective("ast", **settings)
    seen = views()

    def part(start: int):
        rows = slice(start, start + 2)
        return [View(v.pictures[rows], v.frames[rows]) for v in seen], draws(2, start)

    parts = whole(seen, draws())
    parts["loss"].backward()
    told = Cached(cached)([lambda start=start: part(start) for start in (0, 2, 4)])
    told["loss"].backward()

    assert told["loss"].item() == pytest.approx(parts["loss"].item(), rel=1e-6)
    for mine, theirs in zip(whole.parameters(), cached.parameters(), strict=True):
        if mine.grad is not None:
            # Batch norms over six clips enlarge the rounding of sums in another order.
            gap = (mine.grad - theirs.grad).abs().max().item()
            assert gap <= 1e-4 * max(mine.grad.abs().max().item(), 1e-2)
    whole.after_step(1, 10)
    cached.after_step(1, 10)
    if queue:
        assert torch.allclose(whole.queue.keys, cached.queue.keys, atol=1e-5)


def test_a_cached_batch_keeps_the_activations_of_one_part():
    seen, kept = views(), []

    def part(start: int):
        rows = slice(start, start + 2)
        return [View(v.pictures[rows], v.frames[rows]) for v in seen], draws(2, start)

    def size(work) -> int:
        total = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: total.append(tensor.numel()) or tensor, lambda tensor: tensor
        ):
            kept.append(work())
        return sum(total)

    whole, cached = objective(), objective()
    at_once = size(lambda: whole(seen, draws()))
    by_parts = size(lambda: Cached(cached)([lambda s=s: part(s) for s in (0, 2, 4)]))

    assert by_parts < 0.05 * at_once


def test_batch_norm_is_torchs():
    ours, theirs = BatchNorm(7), nn.BatchNorm1d(7, eps=1e-5)
    values = 3 * torch.randn(10, 7, generator=torch.Generator().manual_seed(0)) + 1

    assert torch.allclose(ours(values), theirs(values), atol=1e-5)
    ours.eval(), theirs.eval()
    # torch's running variance is that of a sample, 10 / 9 of ours.
    assert torch.allclose(ours.running_mean, theirs.running_mean, atol=1e-6)
    assert torch.allclose((ours.running_variance - 0.9) * 10 / 9 + 0.9, theirs.running_var)


def test_accumulation_is_warned_of_where_it_changes_the_loss():
    assert "gradient_cache true compares it with all" in objective().accumulated(4)
    assert objective(gradient_cache=True).accumulated(4) is None
    assert "at every part" in objective(variant="released", queue=8).accumulated(4)


def test_one_clip_alone_is_refused():
    alone = [View(view.pictures[:1], view.frames[:1]) for view in views()]

    with pytest.raises(ValueError, match=r"nothing to be compared with: raise data.batch"):
        objective(norm="none")(alone, draws(1))


def test_a_tie_is_not_found():
    same = torch.ones(3, 4) / 2

    told = info_nce(same, same, same, ~torch.eye(3, dtype=torch.bool), 0.1)

    assert told.found == 0 and told.loss.item() == pytest.approx(np.log(3))


def test_it_learns_to_find_its_own_clips():
    model = objective(drop_share=0.2, momentum=0.9)
    optimiser = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], lr=1e-3)
    found = []
    for step in range(30):
        parts = model(views(noise=5.0), draws())  # the clip is a twenty-sixth of the energy
        found.append(parts["accuracy"].item())
        optimiser.zero_grad()
        parts["loss"].backward()
        optimiser.step()
        model.after_step(step, 30)

    assert parts["chance"] == pytest.approx(1 / CLIPS)
    assert found[0] < 0.6 and found[-1] == 1.0
    assert parts["untrained_accuracy"].item() == pytest.approx(found[0])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": 0.0}, "temperature is 0"),
        ({"momentum": 1.5}, "momentum is 1.5"),
        ({"drop_share": 1.0}, "drop_share is 1"),
        ({"queue": -1}, "queue is -1"),
        ({"schedule": "constant", "momentum_end": 0.5}, "momentum_end is 0.5"),
        ({"head": "projector", "norm": "batch"}, "leave objective.norm out"),
        ({"variant": "released", "gradient_cache": True}, "leave objective.gradient_cache out"),
        ({"variant": "released", "schedule": "cosine"}, "leave objective.schedule out"),
        ({"pooling": ("mena",)}, "no part 'mena'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, said):
    with pytest.raises(ValueError, match=said):
        contrastive.Config(**settings)
