"""AST and MAST beside what one would pick instead, in one run, alternating.

    python benchmarks/backbones.py [--only NAME …] [--repeats N] [--json FILE]

AST-base on 10 s of sound against transformers' ``ASTModel`` with SDPA; MAST-small at 224 by 224
against timm's ``mvitv2_small``; MAST-small on 10 s against itself with the matrix of biases made
explicitly, and against AST-base; AST-base with three quarters of the tokens dropped against itself.
Forward and training step (forward, backward), fp32 and bf16 autocast, on two threads; weights are
random, as speed does not depend on them. ``ratio`` is the median of the peer's time over ours,
pair by pair, with its quartiles: above 1, ours is faster. Peak memory of a training step, each in a
process of its own, is what the process grew by after its imports; ``ratio`` is ours over the
peer's. On a CPU the parts that make the difference follow. On a GPU ``torch.compile`` of both
sides, model-FLOPs use and AST's inference at batches of 1 to 8 are added, and memory is what CUDA
allocated.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import ASTConfig, ASTModel

from sslaudio.augments.base import Draws
from sslaudio.backbones import ast, attention, mast, pooling_attention
from sslaudio.backbones.axis import Axis
from sslaudio.backbones.base import Backbone
from sslaudio.backbones.drop import keep
from sslaudio.backbones.linear import linear
from sslaudio.data.processes import reuse_freed_memory

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BATCH = {"cuda": 32, "cpu": 1}[DEVICE.type]
"""Clips of 10 s at once."""
FEW = {"cuda": 32, "cpu": 2}[DEVICE.type]
"""Clips of 10 s at once for the smallest model: of one, the casts of its weights weigh as much as
the work."""
SQUARES = {"cuda": 128, "cpu": 8}[DEVICE.type]
"""Pictures of 224 by 224 at once: of one, the weights alone would be seen in memory."""
PEAK_FLOPS = {torch.bfloat16: 989e12, torch.float32: 67e12}
"""Of an H200 without sparsity, TF32 off; from NVIDIA's data sheet."""

Asked = tuple[nn.Module, Callable[[nn.Module], Tensor]]
"""A model and what it is asked for."""


def picture(clips: int, frames: int = 1024, bins: int = 128) -> Tensor:
    """A batch of standardised pictures."""
    return torch.randn(clips, bins, frames, device=DEVICE)


def ast_base(dropped: float = 0.0, clips: int = BATCH) -> Asked:
    """Ours on 10 s, pooled as AST is."""
    model = ast.build(ast.Config(size="base", stride=(10, 10), pooling=("cls",)), 128, 1024)
    pictures, kept = picture(clips), None
    if dropped:
        frames = torch.full((clips,), 1024)
        kept = keep(
            cast(Backbone, model), frames, 1024, dropped, Draws(torch.Generator(), 0, clips, clips)
        )
        kept.index, kept.sound = kept.index.to(DEVICE), kept.sound.to(DEVICE)
    return model, lambda model: model(pictures, kept=kept).prefix.mean(1)


def transformers_ast(attention: str = "sdpa", clips: int = BATCH) -> Asked:
    """transformers' AST-base on 10 s."""
    pictures = picture(clips).transpose(1, 2).contiguous()
    config = ASTConfig()
    config._attn_implementation = attention
    model = ASTModel(config)
    return model, lambda model: model(pictures).pooler_output


def mast_small(bins: int = 128, frames: int = 1024, stem: str = "7/4", clips: int = BATCH) -> Asked:
    """Ours, pooled by the mean."""
    patch, stride = (int(number) for number in stem.split("/"))
    config = mast.Config(size="small", stem_patch=(patch, patch), stem_stride=(stride, stride))
    pictures = picture(clips, frames, bins)
    model = mast.build(config, bins, frames)
    return model, lambda model: model(pictures).patches.mean(1)


def timm_mvit() -> Asked:
    """timm's MViTv2-small at 224 by 224."""
    pictures = picture(SQUARES, 224, 224)[:, None].expand(-1, 3, -1, -1).contiguous()
    model = timm.create_model("mvitv2_small", pretrained=False, num_classes=0)
    return model, lambda model: model(pictures)


@dataclass
class Pair:
    """What is compared, and what is to be reached."""

    ours: Callable[[], Asked]
    peer: Callable[[], Asked]
    goals: dict[str, float]
    """Work and precision (``forward bf16``, ``training fp32``, ``memory``) to the ratio to reach.
    Those without a goal are measured all the same."""
    peer_attends: Callable[..., Tensor] | None = None
    """How the peer attends, if not as we do."""


def masked(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attended: Tensor | None = None,
    bias: attention.Bias | None = None,
) -> Tensor:
    """Attention with its matrix of biases as the mask of SDPA."""
    return nn.functional.scaled_dot_product_attention(query, key, value, matrix(bias))


def added(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attended: Tensor | None = None,
    bias: attention.Bias | None = None,
) -> Tensor:
    """Attention written out, its matrix of biases added to the products."""
    products = query * query.shape[3] ** -0.5 @ key.transpose(2, 3)
    return (products + matrix(bias)).softmax(3).to(value.dtype) @ value


def matrix(bias: attention.Bias | None) -> Tensor:
    """A number for every query and key."""
    assert bias is not None
    return (bias.rows[..., None] + bias.columns[..., None, :]).flatten(3)


PAIRS = {
    "AST-base 10 s | transformers": Pair(
        ast_base,
        transformers_ast,
        {"forward bf16": 1.1, "training bf16": 1.05, "forward fp32": 1.0, "training fp32": 1.0},
    ),
    "AST-base 10 s, 75 % dropped | none dropped": Pair(
        partial(ast_base, 0.75), ast_base, {"forward bf16": 3.0, "training bf16": 3.0}
    ),
    "MAST-small 224 | timm": Pair(
        partial(mast_small, 224, 224, clips=SQUARES),
        timm_mvit,
        {"training bf16": 1.1, "memory": 0.9},
    ),
    "MAST-small 10 s, stem 7/4 | matrix of biases, SDPA": Pair(
        mast_small, mast_small, {"training bf16": 1.1}, masked
    ),
    "MAST-small 10 s, stem 7/4 | matrix of biases, written out": Pair(
        mast_small, mast_small, {}, added
    ),
    "MAST-small 10 s, stem 16/10 | AST-base": Pair(
        partial(mast_small, stem="16/10", clips=FEW),
        partial(ast_base, clips=FEW),
        {"forward bf16": 15.0, "training bf16": 15.0},
    ),
    "MAST-small 10 s, stem 7/4 | AST-base": Pair(
        mast_small, ast_base, {"forward bf16": 2.5, "training bf16": 2.5}
    ),
}
WORKS = ("forward bf16", "training bf16", "forward fp32", "training fp32")


@contextmanager
def attending(how: Callable[..., Tensor] | None) -> Iterator[None]:
    """Let MAST attend otherwise, for a while."""
    own = pooling_attention.attend
    pooling_attention.attend = how or own
    try:
        yield
    finally:
        pooling_attention.attend = own


def once(model: nn.Module, ask: Callable[[nn.Module], Tensor], work: str) -> None:
    """One forward pass, or one forward and backward pass."""
    training = work.startswith("training")
    with (
        torch.set_grad_enabled(training),
        torch.autocast(DEVICE.type, torch.bfloat16, enabled=work.endswith("bf16")),
    ):
        pooled = ask(model)
    if training:
        model.zero_grad(set_to_none=True)
        pooled.float().square().mean().backward()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], None]) -> float:
    """Time of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def compare(ours: Callable[[], None], peer: Callable[[], None], repeats: int) -> dict[str, float]:
    """Alternate, after one of each that is not counted."""
    ours()
    peer()
    pairs = [(seconds(ours), seconds(peer)) for _ in range(repeats)]
    ratios = [theirs / own for own, theirs in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    own, theirs = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
    return {"ours": own, "peer": theirs, "ratio": middle, "low": low, "high": high}


def measured(name: str, repeats: int, works: tuple[str, ...]) -> list[dict[str, Any]]:
    """All rows of one pair."""
    pair = PAIRS[name]
    (model, ask), (other, ask_other) = pair.ours(), pair.peer()
    model, other = model.to(DEVICE), other.to(DEVICE)
    rows = []
    variants: list[tuple[str, Any, Any]] = [("", model, other)]
    if DEVICE.type == "cuda":
        variants.append((", compiled", torch.compile(model), torch.compile(other)))
    for suffix, own, theirs in variants:
        for work in works:
            own.train(work.startswith("training"))
            theirs.train(work.startswith("training"))

            def peer(work: str = work, theirs: nn.Module = theirs) -> None:
                with attending(pair.peer_attends):
                    once(theirs, ask_other, work)

            row = compare(partial(once, own, ask, work), peer, repeats)
            row |= used(model, ask, work, row["ours"])
            rows.append(record(name, work + suffix, row, pair.goals.get(work)))
    return rows


def used(model: nn.Module, ask: Callable[[nn.Module], Tensor], work: str, ms: float) -> Any:
    """Model-FLOPs use of ours on a GPU."""
    if DEVICE.type != "cuda":
        return {}
    with FlopCounterMode(display=False) as counter:
        once(model, ask, work)
    dtype = torch.bfloat16 if work.endswith("bf16") else torch.float32
    return {"flops_use": counter.get_total_flops() / (ms / 1e3) / PEAK_FLOPS[dtype]}


def record(name: str, work: str, row: dict[str, float], goal: float | None) -> dict[str, Any]:
    """One line of the table."""
    return {"name": name, "work": work, **row, "goal": goal}


def peak_megabytes(name: str, side: str, work: str) -> float:
    """Peak memory of a few steps of one side in a process of its own."""
    command = [sys.executable, __file__, "--only", name, "--peak", side, work]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(found.stdout.split()[-1])


def grown(name: str, side: str, work: str) -> float:
    """Megabytes that this process grows by in three steps of one side."""
    pair = PAIRS[name]
    before = high_water()
    model, ask = getattr(pair, side)()
    model.to(DEVICE).train()
    with attending(pair.peer_attends if side == "peer" else None):
        for _ in range(3):
            once(model, ask, work)
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return high_water() - before


def high_water() -> float:
    """Most memory that this process has held, in megabytes; rusage would count its parent's."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def memory(name: str) -> dict[str, Any]:
    """Peak memory of a training step in bf16."""
    ours, peer = (peak_megabytes(name, side, "training bf16") for side in ("ours", "peer"))
    row = {"ours": ours, "peer": peer, "ratio": ours / peer}
    return record(name, "peak memory, training bf16 (MB)", row, PAIRS[name].goals.get("memory"))


def there_and_back(work: Callable[..., Tensor], *tensors: Tensor) -> None:
    """Forward and backward."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    done = work(*leaves)
    done.backward(torch.ones_like(done))


def timm_pooling(tokens: Tensor, weight: Tensor, heads: int) -> Tensor:
    """Depth-wise pooling as timm lays it out: heads aside, then channels first."""
    clips, rows, columns, dim = tokens.shape
    laid = tokens.view(clips, -1, heads, dim // heads).transpose(1, 2)
    laid = laid.reshape(-1, rows, columns, dim // heads).permute(0, 3, 1, 2).contiguous()
    pooled = nn.functional.conv2d(laid, weight, None, 1, 1, groups=dim // heads)
    return pooled.flatten(2).transpose(1, 2).contiguous()


def parts(repeats: int) -> list[dict[str, Any]]:
    """What the differences are made of on a CPU, forward and backward, in milliseconds."""
    sdpa = nn.functional.scaled_dot_product_attention
    lattice = pooling_attention.Lattice(Axis(32), Axis(256))

    def pooling(stride: int) -> Callable[[Tensor, Tensor], Tensor]:
        def ours(tokens: Tensor, weight: Tensor) -> Tensor:
            kernels = weight[None].expand(2, *weight.shape).flatten(0, 1)
            return pooling_attention.convolved(tokens, kernels, lattice, stride)

        return ours

    def strided(tokens: Tensor, weight: Tensor) -> Tensor:
        kernels = weight[None].expand(2, *weight.shape).flatten(0, 1)
        laid = tokens.permute(0, 3, 1, 2)
        return nn.functional.conv2d(laid, kernels, None, 2, 1, groups=len(kernels))

    heads = [torch.randn(1, 1214, 12, 64).transpose(1, 2) for _ in range(3)]
    halves = [part.bfloat16() for part in heads]
    map_of = [torch.randn(1, 1214, 768), torch.randn(3072, 768), torch.randn(3072)]
    pooled = [torch.randn(2, 32, 256, 192).bfloat16(), torch.randn(96, 1, 3, 3).bfloat16()]
    rows: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], list[Tensor]]] = {
        "attention of AST-base, bf16 | SDPA": (attention.attend, sdpa, halves),
        "attention of AST-base, fp32 | SDPA": (attention.attend, sdpa, heads),
        "map of 768 to 3072, fp32 | torch's": (linear, nn.functional.linear, map_of),
        "pooling 32 by 256, bf16 | timm's layout": (
            pooling(1),
            partial(timm_pooling, heads=2),
            pooled,
        ),
        "pooling 32 by 256 at stride 2, bf16 | torch's": (pooling(2), strided, pooled),
    }
    return [
        record(
            name,
            "forward and backward",
            compare(
                partial(there_and_back, ours, *given),
                partial(there_and_back, peer, *given),
                repeats,
            ),
            None,
        )
        for name, (ours, peer, given) in rows.items()
    ]


def inference(repeats: int) -> list[dict[str, Any]]:
    """AST-base's inference against transformers' eager and SDPA, by batch, in fp32 and bf16."""
    rows = []
    for clips in (1, 2, 4, 8):
        for work in ("forward fp32", "forward bf16"):
            for kind in ("eager", "sdpa"):
                (model, ask), (other, ask_other) = (
                    ast_base(0.0, clips),
                    transformers_ast(kind, clips),
                )
                own = partial(once, model.to(DEVICE).eval(), ask, work)
                row = compare(own, partial(once, other.to(DEVICE).eval(), ask_other, work), repeats)
                name = f"AST-base 10 s, batch {clips} | transformers, {kind}"
                rows.append(record(name, work, row, None))
    return rows


def shown(value: float) -> str:
    """Three digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = ["| ours \\| peer | work | ours | peer | ratio | goal |", "|---|---|---|---|---|---|"]
    for row in rows:
        spread = f" ({row['low']:.2f}–{row['high']:.2f})" if "low" in row else ""
        goal = f"{row['goal']:g}" if row["goal"] else ""
        use = f", {row['flops_use']:.0%} of peak" if "flops_use" in row else ""
        name = row["name"].replace("|", "\\|")
        lines.append(
            f"| {name} | {row['work']} | {shown(row['ours'])}{use} "
            f"| {shown(row['peer'])} | {row['ratio']:.2f}{spread} | {goal} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure, print the table, write the records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    every = [*PAIRS, "parts"]
    parser.add_argument("--only", nargs="+", default=every, choices=every)
    parser.add_argument("--works", nargs="+", default=list(WORKS), choices=WORKS)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", nargs=2, metavar=("SIDE", "WORK"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    reuse_freed_memory()
    torch.manual_seed(0)
    if DEVICE.type == "cpu":
        torch.set_num_threads(arguments.threads)
    if arguments.peak:
        print(grown(arguments.only[0], *arguments.peak))
        return 0
    rows = []
    for name in (name for name in arguments.only if name in PAIRS):
        rows += measured(name, arguments.repeats, tuple(arguments.works))
        if not arguments.no_memory:
            rows.append(memory(name))
        print(table([row for row in rows if row["name"] == name]), flush=True)
    if DEVICE.type == "cuda":
        rows += inference(arguments.repeats)
    elif "parts" in arguments.only:
        rows += parts(5 * arguments.repeats)
    print("\n" + table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
