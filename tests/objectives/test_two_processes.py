"""Two processes that share a batch have the loss and the gradients of one that has it whole."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from sslaudio import plugins
from sslaudio.augments.base import Draws
from sslaudio.objectives.base import View
from sslaudio.training.cache import Cached

CLIPS, BINS, WIDTH, STEPS = 8, 32, 64, 2
RECORDINGS = torch.tensor([1, 2, 3, 1, 4, 5, 6, 6])  # 1 and 6 come twice, 1 on both processes
SETTINGS = {
    "masked_patch": ("masked_patch", {}, False),
    "linear": ("contrastive", {"norm": "batch"}, False),
    "plain": ("contrastive", {"norm": "none", "drop_in": "student"}, False),
    "projector": ("contrastive", {"head": "projector", "hidden_dim": 32}, False),
    "queue": ("contrastive", {"norm": "batch", "queue": 24}, False),
    "released": ("contrastive", {"variant": "released", "queue": 64}, False),
    "cached": ("contrastive", {"norm": "batch", "queue": 24, "gradient_cache": True}, True),
    "joint": ("joint", {}, False),
}


def objective(name: str) -> nn.Module:
    torch.manual_seed(0)
    room, settings, _ = SETTINGS[name]
    module, ast = plugins.load("objectives", room), plugins.load("backbones", "ast")
    return module.build(module.Config(**settings), ast.build(ast.Config(), BINS, WIDTH)).train()


def part(views: int, step: int, start: int, clips: int) -> tuple[list[View], Draws]:
    """A micro-batch's views, and its draws."""
    rows, frames = slice(start, start + clips), torch.tensor([64, 40, 64, 20, 50, 64, 33, 64])
    seen = []
    for view in range(views):
        generator = torch.Generator().manual_seed(10 * step + view)
        mel = torch.randn(CLIPS, BINS, WIDTH, generator=generator)
        mel = mel.masked_fill(torch.arange(WIDTH) >= frames[:, None, None], 0.0)
        seen.append(View(mel[rows], frames[rows]))
    generator = torch.Generator().manual_seed(100 + step)
    return seen, Draws(generator, start, clips, CLIPS, recordings=RECORDINGS[rows])


def trained(name: str, ranks: int, rank: int) -> dict[str, torch.Tensor]:
    """Losses, gradients and weights after a few steps; with several processes, of all."""
    model = objective(name)
    cached = SETTINGS[name][2]
    learner: nn.Module = Cached(model) if cached else model
    if ranks > 1:
        learner = DistributedDataParallel(learner, broadcast_buffers=False)
    optimiser = torch.optim.SGD([w for w in model.parameters() if w.requires_grad], lr=0.05)
    out = {}
    for step in range(STEPS):
        optimiser.zero_grad()
        clips = CLIPS // ranks
        if cached:  # two accumulated parts: part a of rank r is part a * ranks + r of the batch
            half = clips // 2
            starts = [(a * ranks + rank) * half for a in (0, 1)]
            views = model.views
            parts = learner([partial(part, views, step, start, half) for start in starts])
        else:
            parts = learner(*part(model.views, step, rank * clips, clips))
        parts["loss"].backward()
        optimiser.step()
        model.after_step(step + 1, STEPS)
        loss = parts["loss"].detach()
        if ranks > 1:
            distributed.all_reduce(loss)
        out[f"loss {step}"] = loss / ranks
    for key, weight in model.named_parameters():
        if weight.requires_grad:
            assert weight.grad is not None, f"{key} has no gradient: several processes would wait"
            out[f"gradient {key}"] = weight.grad
    return out | {f"state {key}": value for key, value in model.state_dict().items()}


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    for name in SETTINGS:
        torch.save(trained(name, 2, rank), f"{folder}/{name}-{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """What each of two processes came to, by setting and rank."""
    folder = tmp_path_factory.mktemp("two")
    torch.multiprocessing.spawn(work, (str(folder),), nprocs=2)
    return folder


@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_equal_one_at_the_same_batch(name: str, shared: Path):
    alone = trained(name, 1, 0)

    both = [torch.load(shared / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1)]
    for key, value in alone.items():
        for other in both:
            gap = (other[key].double() - value.double()).abs().max().item()
            scale = value.double().abs().max().item() if value.numel() else 0.0
            assert gap <= 1e-4 * max(scale, 1e-2), (key, gap, scale)
