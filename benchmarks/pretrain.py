"""What pretraining costs beside the bare work: the loop, the loader, processes, the start, a GPU.

    python benchmarks/pretrain.py [PART …] [--config real_micro …] [--shards DIR …] [--json FILE]
    python benchmarks/pretrain.py model --size base --objective masked contrastive \\
        --batches 32 64 128 --compile both

Parts (all but the last, if none is named); ``--leaf VALUE`` sets leaves of the recipes:

stages      time of each stage of a bare step, the plain loop that one would write with the same
            parts, and of a teacher's forward pass beside that of its student without gradients
loop        the real loop on clips that lie in memory, beside bare steps
loader      the real loop on the real loader, beside bare steps, and its share of waiting
processes   the real entry with two processes of one thread, and two runs side by side, beside
            one process of one thread
start       seconds from `accelerate launch` to the first line of metrics, and where they go
model       clips a second, memory and model-FLOPs use of a large step by its batch, beside SSAST's
            step in plain PyTorch

All pairs alternate within one run, and a ratio is the median of the pairs' ratios; above 1 (or a
goal) is good. On CPUs one thread is timed by its processor seconds, which others on the machine
disturb least. Model FLOPs are those of the matrix products and convolutions of the student's
forward pass, three times, and of the teacher's, once, over the rate of a large bfloat16 product.
Without ``--shards``: the synthetic ones, made if absent.
"""

import argparse
import contextlib
import dataclasses
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, cast

import psutil
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sslaudio import recipe as recipes
from sslaudio.augments.base import Draws
from sslaudio.data import synth
from sslaudio.data.indexed import ShardStream
from sslaudio.data.processes import reuse_freed_memory
from sslaudio.data.stream import Batch
from sslaudio.features.front_end import FrontEnd
from sslaudio.objectives.base import View
from sslaudio.pretrain import SYNTHETIC
from sslaudio.training.compiling import compile_blocks
from sslaudio.training.launch import accelerator_for
from sslaudio.training.loop import Loop
from sslaudio.training.optim import adamw
from sslaudio.training.passes import recordings_of
from sslaudio.training.report import Report, history

ROOT = Path(__file__).parents[1]
PARTS = ("stages", "loop", "loader", "processes", "start", "model")
STANDARD = {"mean": -7.0, "std": 5.0}
"""Of the pictures: speed does not depend on them."""
Row = dict[str, Any]


def row(name: str, ours: float, peer: float, ratio: float, goal: float | None) -> Row:
    """One line of the table, as every benchmark of the project writes it."""
    return {"name": name, "ours": ours, "peer": peer, "ratio": ratio, "goal": goal}


class Clock:
    """Seconds since the last lap: of the processor for one thread, else of the wall."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.laps: dict[str, list[float]] = {}
        self.now = time.process_time if self._alone else time.perf_counter
        self.last = 0.0

    @property
    def _alone(self) -> bool:
        return self.device.type == "cpu" and torch.get_num_threads() == 1

    def read(self) -> float:
        """Seconds, after all that a GPU was asked for is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return self.now()

    def lap(self, name: str) -> None:
        """Count what went by since the last lap to ``name``."""
        now = self.read()
        self.laps.setdefault(name, []).append(now - self.last)
        self.last = now


@dataclass
class Bare:
    """The plain loop that one would write with the same parts, on clips that lie in memory."""

    recipe: recipes.Pretrain
    batch: Batch
    device: torch.device
    compiled: bool = False
    clock: Clock | None = None
    """Told at the end of each stage."""

    def __post_init__(self) -> None:
        recipe, device = self.recipe, self.device
        torch.manual_seed(0)
        frames = recipe.features.frames(self.batch.waveforms.shape[1])
        backbone = recipe.backbone.build(recipe.features.bins, frames)
        self.objective = cast(Any, recipe.objective.build(backbone)).to(device).train()
        self.front_end = FrontEnd(recipe.features, **STANDARD).to(device)
        self.augments = [augment.build() for augment in recipe.augments]
        self.memories = [one.to(device) for one in self.augments if isinstance(one, nn.Module)]
        training = recipe.training
        self.optimiser = adamw(self.objective, 1e-4, training.weight_decay, training.betas)
        self.learned = [weight for weight in self.objective.parameters() if weight.requires_grad]
        self.recordings = recordings_of(self.batch).to(device)
        if self.compiled:
            compile_blocks(self.objective)

    def autocast(self) -> AbstractContextManager[None]:
        """The recipe's precision."""
        half = self.recipe.training.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=half)

    def lap(self, name: str) -> None:
        """The end of a stage."""
        if self.clock is not None:
            self.clock.lap(name)

    def views(self) -> tuple[list[View], Draws]:
        """Augmented pictures."""
        batch, count = self.batch.to(self.device), len(self.batch.keys)
        with torch.no_grad():
            pictures, frames = self.front_end(batch.waveforms, batch.lengths)
            self.lap("front end")
            generator = torch.Generator().manual_seed(0)
            draws = Draws(generator, 0, count, count, self.device, self.recordings)
            views = []
            for _ in range(self.objective.views):
                view = pictures
                for augment in self.augments:
                    view = augment(view, frames, draws)
                views.append(View(view, frames))
        self.lap("augments")
        return views, draws

    def step(self) -> None:
        """From waveforms to moved weights."""
        if self.clock is not None:
            self.clock.last = self.clock.read()
        views, draws = self.views()
        with self.autocast():
            loss = self.objective(views, draws)["loss"]
        self.lap("masks, heads and loss")
        loss.backward()
        self.lap("backward")
        clip_norm = self.recipe.training.clip_norm
        if clip_norm:
            nn.utils.clip_grad_norm_(self.learned, clip_norm)
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.lap("clipping and optimiser")
        self.objective.after_step(1, 1000)
        self.lap("teacher's update")
        for memory in self.memories:
            cast(Any, memory).after_step()

    def watch_forward(self) -> None:
        """Have the clock told of the forward passes of student and teacher too."""
        nets = {"student's forward": self.objective.backbone}
        if hasattr(self.objective, "teacher"):
            nets["teacher's forward"] = self.objective.teacher.backbone
        for name, net in nets.items():
            net.register_forward_pre_hook(lambda *call: self.lap("masks, heads and loss"))
            net.register_forward_hook(lambda *call, name=name: self.lap(name))


class Resident(ShardStream):
    """One batch that lies in memory, again and again."""

    def batches(self, position: int = 0) -> Iterator[Batch]:
        """The first micro-batch, without end."""
        return itertools.repeat(next(super().batches(position)))


@dataclass
class Turns:
    """A watcher of a loop: after every so many of its steps, as many bare ones."""

    bare: Bare
    block: int
    clock: Clock
    pairs: list[tuple[float, float]] = field(default_factory=list)
    """Seconds of a block of the loop, and of a bare one."""

    def __call__(self, step: int, objective: nn.Module, report: Report) -> None:
        """Time both; the first block warms up."""
        if step % self.block:
            return
        mine = self.clock.read() - self.clock.last
        began = self.clock.read()
        for _ in range(self.block if step else 1):
            self.bare.step()
        if step > self.block:
            self.pairs.append((mine, self.clock.read() - began))
        self.clock.last = self.clock.read()


@dataclass
class Bench:
    """A recipe's parts, and how often to measure."""

    recipe: recipes.Pretrain
    name: str
    pairs: int
    block: int
    accelerator: Any

    def stream(self, kind: type[ShardStream]) -> ShardStream:
        """The recipe's clips."""
        return kind(self.recipe.data, sample_rate=self.recipe.features.sample_rate, seed=0)

    def bare(self, clock: Clock | None = None) -> Bare:
        """A bare step on the first batch."""
        batch = next(self.stream(ShardStream).batches())
        return Bare(self.recipe, batch, self.accelerator.device, clock=clock)

    def stages(self) -> list[Row]:
        """Print the share of each stage; a row for the teacher's forward pass."""
        clock = Clock(self.accelerator.device)
        bare = self.bare(clock)
        bare.watch_forward()
        sums: dict[str, list[float]] = {}
        for number in range(self.pairs * self.block + 1):
            clock.laps = {}
            bare.step()
            for name, laps in clock.laps.items() if number else ():
                sums.setdefault(name, []).append(sum(laps))
        medians = {name: statistics.median(times) for name, times in sums.items()}
        total = sum(medians.values())
        count = len(bare.batch.keys)
        print(f"\nstages of a bare step of {self.name}, {count} clips: {count / total:.0f} clips/s")
        for name, seconds in medians.items():
            print(f"  {name:26s}{1e3 * seconds:9.1f} ms{seconds / total:8.1%}")
        return self.teacher(bare) if hasattr(bare.objective, "teacher") else []

    def teacher(self, bare: Bare) -> list[Row]:
        """The teacher's forward pass beside its student's, without gradients and patch-drop."""
        clock = Clock(self.accelerator.device)
        bare.clock = None
        views, _ = bare.views()
        nets = (bare.objective.teacher.backbone, bare.objective.backbone)
        bare.objective.eval()
        times = []
        for _ in range(2 * self.pairs + 1):
            pair = []
            for net in nets:
                clock.last = clock.read()
                with torch.no_grad(), bare.autocast():
                    net(views[0].pictures, views[0].frames)
                pair.append(clock.read() - clock.last)
            times.append(pair)
        mine, its = (1e3 * statistics.median(pair[side] for pair in times[1:]) for side in (0, 1))
        ratio = statistics.median(theirs / ours for ours, theirs in times[1:])
        name = f"{self.name}: a teacher's forward, against one without gradients (ms)"
        return [row(name, mine, its, ratio, None)]

    def loop(self, kind: type[ShardStream], name: str, goal: float | None) -> Row:
        """The real loop beside bare steps."""
        recipe, stream = self.recipe, self.stream(kind)
        bare = self.bare()
        turns = Turns(bare, self.block, Clock(self.accelerator.device))
        torch.manual_seed(0)
        frames = recipe.features.frames(stream.clip_samples)
        objective = recipe.objective.build(recipe.backbone.build(recipe.features.bins, frames))
        training = dataclasses.replace(
            recipe.training,
            steps=self.block * (self.pairs + 1),
            log_every=self.block,
            checkpoint_every=10**9,
            pictures_every=0,
        )
        with tempfile.TemporaryDirectory() as folder:
            Loop(
                objective,
                FrontEnd(recipe.features, **STANDARD),
                [augment.build() for augment in recipe.augments],
                stream,
                training,
                Path(folder),
                self.accelerator,
                lambda: None,
                watchers=[turns],
            ).train()
            waiting = history(Path(folder) / "metrics.jsonl")["speed/waiting_share"]
        clips = self.block * recipe.data.batch
        mine, bares = (
            clips / statistics.median(pair[side] for pair in turns.pairs) for side in (0, 1)
        )
        ratio = statistics.median(theirs / ours for ours, theirs in turns.pairs)
        share = statistics.median(value for _, value in waiting)
        told = row(f"{self.name}: {name}, against bare steps (clips/s)", mine, bares, ratio, goal)
        return {**told, "waiting_share": share}


class Run:
    """A run by the real entry, on some cores, that can be halted."""

    def __init__(
        self, out: Path, words: Sequence[str], cores: set[int], processes: int = 1
    ) -> None:
        self.metrics, self.told = out / "metrics.jsonl", out.with_suffix(".txt")
        self.launched = time.perf_counter()
        several = ["--multi_gpu", "--main_process_port", "0"] if processes > 1 else []
        launch = [str(Path(sys.executable).with_name("accelerate")), "launch", *several]
        last = ["--out", str(out), "--training.checkpoint_every", "1000000"]
        entry = ["--num_processes", str(processes), "sslaudio/pretrain.py", *words, *last]
        with self.told.open("w") as told:
            self.process = subprocess.Popen(
                [*launch, *entry],
                cwd=ROOT,
                env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
                stderr=told,
            )
        psutil.Process(self.process.pid).cpu_affinity(sorted(cores))

    def family(self) -> list[psutil.Process]:
        """The launcher and all that it started."""
        first = psutil.Process(self.process.pid)
        return [first, *first.children(recursive=True)]

    def halt(self) -> None:
        """Stop for a while."""
        for one in self.family():
            one.suspend()

    def go_on(self) -> None:
        """Go on."""
        for one in reversed(self.family()):
            one.resume()

    def end(self) -> None:
        """Kill it."""
        if self.process.poll() is None:
            for one in self.family():
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
        self.process.wait()

    def lines(self) -> int:
        """Lines of metrics so far."""
        return self.metrics.read_bytes().count(b"\n") if self.metrics.is_file() else 0

    def wait_for(self, lines: int) -> float:
        """When there were so many lines of metrics."""
        while self.lines() < lines:
            if self.process.poll() is not None:
                raise RuntimeError(f"the run ended early: {self.told.read_text()[-2000:]}")
            time.sleep(0.002)
        return time.perf_counter()


LINE = 4
"""Steps that a line of metrics is for, where runs are timed by them."""


def clips_a_second(runs: Sequence[Run], batch: int, seconds: float) -> float:
    """Of runs that are let go on together for so long, each of ``batch`` clips a step."""
    for one in runs:
        one.go_on()
    marks = {}
    for one in runs:  # the line that it was halted in goes uncounted
        marks[one] = one.wait_for((first := one.lines()) + 1), first + 1
    end = time.perf_counter() + seconds
    time.sleep(seconds)
    last = {one: (one.wait_for(one.lines() + 1), one.lines()) for one in runs}
    assert all(when >= end for when, _ in last.values())
    for one in runs:
        one.halt()
    return sum(
        LINE * batch * (last[one][1] - marks[one][1]) / (last[one][0] - marks[one][0])
        for one in runs
    )


def processes(words: Sequence[str], batch: int, pairs: int, seconds: float) -> list[Row]:
    """One process of one thread, two of one run, and two runs: each goes on while others halt."""
    one_core, other_core = sorted(os.sched_getaffinity(0))[:2]
    common = [*words, "--training.log_every", str(LINE), "--training.steps", "1000000"]
    common += ["--training.pictures_every", "0"]
    common += [f"--features.{key}={value}" for key, value in STANDARD.items()]
    alone, together = (["--data.batch", str(count * batch)] for count in (1, 2))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as ended:

        def start(name: str, words: list[str], cores: set[int], processes: int = 1) -> Run:
            run = Run(Path(folder) / name, [*common, *words], cores, processes)
            ended.callback(run.end)
            run.wait_for(2)
            run.halt()
            return run

        single = start("one", alone, {one_core})
        beside = start("beside", alone, {other_core})
        two = start("two", together, {one_core, other_core}, 2)
        rates = [
            (
                clips_a_second([single], batch, seconds),
                clips_a_second([two], 2 * batch, seconds),
                clips_a_second([single, beside], batch, seconds),
            )
            for _ in range(pairs)
        ]
    ones, twos, besides = (statistics.median(rate[way] for rate in rates) for way in (0, 1, 2))
    name = "{}, against one process of one thread (clips/s)"
    return [
        row(
            name.format(what),
            ours,
            ones,
            statistics.median(rate[way] / rate[0] for rate in rates),
            goal,
        )
        for what, way, ours, goal in (
            ("two processes of one thread", 1, twos, 1.7),
            ("two runs side by side", 2, besides, None),
        )
    ]


LIMIT_SECONDS = 12.0
"""From the launch to the first step of a micro recipe."""


def start(name: str, words: Sequence[str]) -> Row:
    """Seconds from the launch to the first line of metrics."""
    flags = ["--training.log_every", "1", "--training.steps", "1000000"]
    with tempfile.TemporaryDirectory() as folder:
        run = Run(Path(folder) / "run", [*words, *flags], os.sched_getaffinity(0))
        try:
            seconds = run.wait_for(1) - run.launched
            times = [one.cpu_times() for one in run.family()]
        finally:
            run.end()
    told = f"{name}: from launch to first step (s)"
    busy = sum(one.user + one.system for one in times)
    print(f"  {name}: first line after {seconds:.1f} s, {busy:.1f} s of them on processors")
    return row(told, seconds, LIMIT_SECONDS, LIMIT_SECONDS / seconds, 1.0)


def start_shares() -> None:
    """Print what the launcher and the imports take, and the slowest of these."""
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.py"
        empty.touch()
        accelerate = str(Path(sys.executable).with_name("accelerate"))
        words = {
            "accelerate launch": [accelerate, "launch", str(empty)],
            "imports of the entry": [sys.executable, "-c", "import sslaudio.pretrain"],
            "import torch alone": [sys.executable, "-c", "import torch"],
        }
        print("\nof the start:")
        for name, command in words.items():
            began = time.perf_counter()
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            print(f"  {name:26s}{time.perf_counter() - began:9.2f} s")
    told = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import sslaudio.pretrain"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stderr
    packages: dict[str, float] = {}
    for line in told.splitlines()[1:]:
        own, _, module = line.removeprefix("import time:").split("|")
        package = module.strip().split(".")[0]
        packages[package] = packages.get(package, 0.0) + float(own) / 1e6
    slowest = sorted(packages, key=packages.__getitem__, reverse=True)[:6]
    print("  by package: " + ", ".join(f"{name} {packages[name]:.2f} s" for name in slowest))


class PlainAttention(nn.Module):
    """Softmax of the product, written out, as timm's ViT had it."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Every token sees all."""
        clips, count, dim = tokens.shape
        qkv = self.qkv(tokens).reshape(clips, count, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        found = (query @ key.transpose(2, 3) * query.shape[3] ** -0.5).softmax(dim=-1)
        return cast(Tensor, self.proj((found @ value).transpose(1, 2).reshape(clips, count, dim)))


class PlainBlock(nn.Module):
    """Pre-norm block."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = PlainAttention(dim, heads)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """Attention, then MLP."""
        tokens = tokens + self.attn(self.norm1(tokens))
        return cast(Tensor, tokens + self.mlp(self.norm2(tokens)))


class PlainSSAST(nn.Module):
    """SSAST's step in plain PyTorch: hidden tokens replaced, both losses clip by clip.

    Source: Gong et al. 2022 (arXiv:2110.09784), section 2; the two loops over clips are those of
    its code (src/models/ast_models.py, mpc and mpg).
    """

    def __init__(
        self, dim: int, heads: int, depth: int, patch: tuple[int, int], places: int, hidden: int
    ) -> None:
        super().__init__()
        self.patch, self.hidden = patch, hidden
        self.embed = nn.Conv2d(1, dim, patch, patch)
        self.positions = nn.Parameter(torch.randn(1, places + 2, dim) * 0.02)
        self.prefix = nn.Parameter(torch.zeros(1, 2, dim))
        self.mask_token = nn.Parameter(torch.zeros(dim))
        self.blocks = nn.Sequential(*(PlainBlock(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.tell, self.rebuild = (
            nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, prod(patch)))
            for _ in range(2)
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """The sum of both losses."""
        patches = nn.functional.unfold(pictures[:, None], self.patch, stride=self.patch).transpose(
            1, 2
        )
        tokens = self.embed(pictures[:, None]).flatten(2).transpose(1, 2)
        clips, places, _ = tokens.shape
        index = torch.stack([torch.randperm(places)[: self.hidden] for _ in range(clips)])
        index = index.to(pictures.device)
        masked = torch.zeros(clips, places, 1, dtype=torch.bool, device=pictures.device)
        masked.scatter_(1, index[..., None], True)
        tokens = torch.where(masked, self.mask_token.to(tokens.dtype), tokens)
        tokens = torch.cat([self.prefix.expand(clips, -1, -1), tokens], dim=1) + self.positions
        encoded = self.norm(self.blocks(tokens))[:, 2:]
        told = torch.zeros((), device=pictures.device)
        right = torch.arange(self.hidden, device=pictures.device)
        for clip in range(clips):
            own, asked = encoded[clip, index[clip]], patches[clip, index[clip]]
            found = self.tell(own) @ asked.T.to(own.dtype)
            error = nn.functional.mse_loss(self.rebuild(own).float(), asked)
            told = told + nn.functional.cross_entropy(found.float(), right) + 10 * error
        return told / clips


MODEL = {
    "masked": "--objective masked_patch --objective.mask_share 0.78125 "
    "--objective.mask_shape clusters",
    "contrastive": "--objective contrastive --augments mixup resize_crop",
}


@dataclass
class Model:
    """Large steps on noise: speed does not depend on the sound."""

    size: str
    backbone: str
    objective: str
    precision: str
    leaves: Sequence[str]
    seconds: float
    """Of sound, a clip."""
    steps: int
    device: torch.device
    rate: float
    """FLOPs a second of a large bfloat16 product."""

    def recipe(self, batch: int) -> recipes.Pretrain:
        """Defaults but for what is asked."""
        words = [*MODEL[self.objective].split(), "--data.batch", str(batch)]
        words += ["--data.clip_seconds", str(self.seconds), "--backbone", self.backbone]
        words += ["--backbone.size", self.size, "--training.precision", self.precision]
        return cast(recipes.Pretrain, recipes.read(None, [*words, *self.leaves]))

    def bare(self, batch: int, compiled: bool = False) -> Bare:
        """A step on so many clips of noise."""
        recipe = self.recipe(batch)
        samples = round(self.seconds * recipe.features.sample_rate)
        noise = torch.randn(batch, samples, generator=torch.Generator().manual_seed(0)) * 0.1
        keys = [str(number) for number in range(batch)]
        sources = torch.zeros(batch, dtype=torch.long)
        clips = Batch(
            noise, torch.full((batch,), samples), keys, sources, [None] * batch, [None] * batch
        )
        return Bare(recipe, clips.to(self.device), self.device, compiled)

    def flops(self) -> float:
        """Of a clip's step: three times those of its student's forward pass, and its teacher's."""
        bare = dataclasses.replace(self.bare(2), device=torch.device("cpu"))
        bare.batch = bare.batch.to("cpu")
        bare.objective.requires_grad_(False)
        whole, teacher = FlopCounterMode(display=False), FlopCounterMode(display=False)
        views, draws = bare.views()
        with sdpa_kernel(SDPBackend.MATH), whole:
            bare.objective(views, draws)
        if not hasattr(bare.objective, "teacher"):
            return 3 * whole.get_total_flops() / 2
        # The same pictures through the teacher alone: what is not its own is its student's.
        bare.objective.gradient_cache = False
        with sdpa_kernel(SDPBackend.MATH), teacher:
            for number in (0, 1):
                bare.objective._features("teacher", views[number], draws, "teacher")
        student = whole.get_total_flops() - teacher.get_total_flops()
        return (3 * student + teacher.get_total_flops()) / 2

    def timed(self, step: Callable[[], Any]) -> tuple[float, float, float]:
        """Seconds of the first call, of one later (median), and gigabytes at most."""
        clock = Clock(self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        times = []
        for _ in range(self.steps + 3):
            clock.last = clock.read()
            step()
            times.append(clock.read() - clock.last)
        peak = 0.0
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device) / 2**30
        return times[0], statistics.median(times[3:]), peak

    def peer(self, batch: int) -> Callable[[], None]:
        """SSAST's step on pictures that lie ready."""
        recipe = self.recipe(batch)
        bins, frames = recipe.features.bins, recipe.features.frames(round(self.seconds * 16_000))
        ours = recipe.backbone.build(bins, frames)
        grid, (high, wide) = ours.grid(frames), ours.patch
        places = grid.rows * grid.columns
        net = PlainSSAST(
            ours.dim,
            ours.blocks[0].attn.heads,
            len(ours.blocks),
            ours.patch,
            places,
            round(0.78125 * places),
        ).to(self.device)
        optimiser = torch.optim.Adam(net.parameters(), 1e-4, (0.95, 0.999), weight_decay=5e-7)
        pictures = torch.randn(batch, high * grid.rows, wide * grid.columns, device=self.device)

        def step() -> None:
            half = self.precision == "bf16"
            with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
                loss = net(pictures)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()

        return step

    def rows(self, batches: Sequence[int], ways: Sequence[bool]) -> list[Row]:
        """One a batch, compiled and not; of masked patches beside SSAST's step."""
        flops, rows = self.flops(), []
        what = f"{self.objective} {self.backbone} {self.size}"
        print(f"\n{what}: {flops / 1e9:.1f} GFLOPs a clip; bf16 {self.rate / 1e12:.2f} TFLOP/s")
        plain: dict[int, float] = {}
        for batch, compiled in itertools.product(batches, ways):
            try:
                first, seconds, peak = self.timed(self.bare(batch, compiled).step)
            except torch.OutOfMemoryError:
                print(f"  {batch} clips: out of memory")
                torch.cuda.empty_cache()
                continue
            use = flops * batch / seconds / self.rate
            print(
                f"  {batch:5d} clips{', compiled' if compiled else '':10s} {batch / seconds:9.1f} "
                f"clips/s  {peak:6.1f} GB  use {use:6.1%}  first step {first:.1f} s"
            )
            if not compiled:
                plain[batch] = seconds
            elif batch in plain:
                name = f"{what}, {batch} clips, compiled against not (clips/s)"
                ratio = plain[batch] / seconds
                rows.append(row(name, batch / seconds, batch / plain[batch], ratio, None))
            name = f"{what}, {batch} clips{', compiled' if compiled else ''}: model FLOPs"
            rows.append(
                row(f"{name} (TFLOP/s)", use * self.rate / 1e12, self.rate / 1e12, use, None)
            )
            rows[-1]["peak_gigabytes"] = peak
        if self.objective == "masked" and self.backbone == "ast":
            rows += [told for batch in plain if (told := self.beside(batch))]
        return rows

    def beside(self, batch: int) -> Row | None:
        """Our step beside SSAST's in plain PyTorch, in turns; none where memory is short."""
        try:
            steps, clock = (self.bare(batch).step, self.peer(batch)), Clock(self.device)
            pairs = []
            for _ in range(self.steps + 2):
                pair = []
                for step in steps:
                    clock.last = clock.read()
                    step()
                    pair.append(clock.read() - clock.last)
                pairs.append(pair)
        except torch.OutOfMemoryError:
            return None
        mine, its = (batch / statistics.median(pair[side] for pair in pairs[2:]) for side in (0, 1))
        ratio = statistics.median(theirs / ours for ours, theirs in pairs[2:])
        name = (
            f"masked ast {self.size}, {batch} clips of {self.seconds:g} s, {self.precision}, "
            f"against SSAST's step in plain PyTorch (clips/s)"
        )
        return row(name, mine, its, ratio, None)


def product_rate(device: torch.device) -> float:
    """FLOPs a second of a large bfloat16 product, the best of several."""
    size = 8192 if device.type == "cuda" else 1024
    one, other = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    clock, times = Clock(device), []
    for _ in range(10):
        clock.last = clock.read()
        for _ in range(4):
            one @ other
        times.append((clock.read() - clock.last) / 4)
    return 2 * size**3 / min(times)


def model_rows(arguments: argparse.Namespace, leaves: Sequence[str]) -> list[Row]:
    """All sizes, objectives and batches that are asked for."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rate = product_rate(device)
    ways = {"off": (False,), "on": (True,), "both": (False, True)}[arguments.compile]
    return [
        told
        for size, objective in itertools.product(arguments.size, arguments.objective)
        for told in Model(
            size,
            arguments.backbone,
            objective,
            arguments.precision,
            leaves,
            arguments.seconds,
            arguments.steps,
            device,
            rate,
        ).rows(arguments.batches, ways)
    ]


def parsed() -> tuple[argparse.Namespace, list[str]]:
    """The flags, and leaves of the recipes."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--config", nargs="+", default=["real_micro", "contrastive_micro"])
    parser.add_argument("--shards", nargs="+")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--block", type=int, default=6, help="steps of a pair's either side")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turn", type=float, default=8.0, help="seconds of a turn of processes")
    parser.add_argument("--size", nargs="+", default=["micro"])
    parser.add_argument("--backbone", default="ast")
    parser.add_argument("--objective", nargs="+", default=["masked"], choices=list(MODEL))
    parser.add_argument("--batches", nargs="+", type=int, default=[8])
    parser.add_argument("--compile", choices=("off", "on", "both"), default="off")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--seconds", type=float, default=10.0, help="of sound, a clip")
    parser.add_argument("--steps", type=int, default=10, help="of part model, timed")
    parser.add_argument("--json", type=Path)
    arguments, leaves = parser.parse_known_args()
    arguments.parts = arguments.parts or list(PARTS[:-1])
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no part {unknown.pop()}; there is {', '.join(PARTS)}")
    return arguments, leaves


def main() -> int:
    """Measure, print the tables, write the records."""
    arguments, leaves = parsed()
    reuse_freed_memory()
    if arguments.shards is None:
        synth.build(SYNTHETIC)
        arguments.shards = [str(SYNTHETIC)]
    flags = ["--data.shards", *arguments.shards, *leaves]
    rows: list[Row] = []
    if "start" in arguments.parts:
        start_shares()
        rows += [start(name, ["--config", name, *flags]) for name in arguments.config]
    if "processes" in arguments.parts:
        name = arguments.config[0]
        batch = recipes.read(recipes.find(name, "pretrain"), flags).data.batch
        rows += processes(["--config", name, *flags], batch, arguments.pairs, arguments.turn)
    accelerator = accelerator_for(arguments.precision)
    torch.set_num_threads(arguments.threads)
    in_process = {"stages", "loop", "loader"} & set(arguments.parts)
    for name in arguments.config if in_process else ():
        recipe = recipes.read(recipes.find(name, "pretrain"), flags)
        bench = Bench(recipe, name, arguments.pairs, arguments.block, accelerator)
        if "stages" in arguments.parts:
            rows += bench.stages()
        if "loop" in arguments.parts:
            rows.append(bench.loop(Resident, "the loop, clips in memory", 0.93))
        if "loader" in arguments.parts:
            rows.append(bench.loop(ShardStream, "the loop, the real loader", None))
    if "model" in arguments.parts:
        rows += model_rows(arguments, leaves)
    print()
    for told in rows:
        goal = f"goal {told['goal']:g}" if told["goal"] else "no goal"
        waiting = f", waiting {told['waiting_share']:.1%}" if "waiting_share" in told else ""
        print(
            f"{told['name']}: {told['ours']:.1f} / {told['peer']:.1f}, ratio {told['ratio']:.3f}, "
            f"{goal}{waiting}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
