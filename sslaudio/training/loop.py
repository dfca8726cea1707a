"""The one loop: an objective and a stream in, checkpoints and metrics out.

A step takes ``data.batch`` clips over all ranks and accumulated parts. Everything random in it
follows from the seed and the step, and the stream's place is one integer, so that a resumed run
goes on to the same bits.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import torch
from accelerate import Accelerator
from jaxtyping import Int
from torch import Tensor, nn

from sslaudio.augments.base import Augment, Draws, numbered
from sslaudio.data.stream import Batch, Stream
from sslaudio.features.front_end import FrontEnd
from sslaudio.objectives.base import Objective, View
from sslaudio.training.cache import Cached, Part, is_cached
from sslaudio.training.checkpoint import load_step, save_step
from sslaudio.training.monitor import Monitor
from sslaudio.training.optim import adamw, rate_share
from sslaudio.training.report import Report, say


@dataclass(frozen=True)
class Config:
    """How long and how fast to learn, and what to keep."""

    steps: int = 1000
    """Optimiser steps of the whole run; 0 writes a run of random weights."""
    starts_from_weights: bool = False
    """Whether the run is one of weights from elsewhere: without --init RUN it is refused, lest
    random ones pass for them."""
    seed: int = 0
    """Of the weights, the order of the clips, the crops, the augments and the masks."""
    precision: Literal["bf16", "fp32", "fp16"] = "bf16"
    """Of matrix products in the model; weights and front end stay float32. fp16 needs a GPU."""
    learning_rate: float = 1e-3
    """Full rate, reached after the warm-up; used as it stands, whatever the batch."""
    warmup_steps: int = 100
    """Steps of linear rise to the full rate."""
    final_share: float = 0.01
    """Share of the full rate that the cosine ends at."""
    weight_decay: float = 0.05
    """AdamW's, on weight matrices only."""
    betas: tuple[float, float] = (0.9, 0.98)
    """AdamW's running means."""
    clip_norm: float = 1.0
    """Gradients longer than this are scaled down to it; 0 leaves them."""
    accumulation: int = 1
    """Parts that each rank's share of a batch is worked through in."""
    checkpoint_every: int = 500
    """Steps between checkpoints; the last step always has one."""
    checkpoints_kept: int = 2
    """Newest checkpoints that stay."""
    log_every: int = 20
    """Steps that one line of metrics is the mean of."""
    pictures_every: int = 500
    """Steps between pictures of input, mask and reconstruction; 0 for none."""

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"training.steps is {self.steps}; it is at least 0")
        for key in ("accumulation", "checkpoint_every", "checkpoints_kept", "log_every"):
            if getattr(self, key) < 1:
                raise ValueError(f"training.{key} is {getattr(self, key)}; it is at least 1")
        if self.learning_rate <= 0 or self.weight_decay < 0:
            raise ValueError(
                f"training.learning_rate is {self.learning_rate:g} and training.weight_decay "
                f"{self.weight_decay:g}; the rate is above 0, the decay at least 0"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"training.betas is {self.betas}; both are at least 0 and under 1")
        if self.warmup_steps < 0 or self.pictures_every < 0 or self.clip_norm < 0:
            raise ValueError("training.warmup_steps, pictures_every and clip_norm are at least 0")


Watcher = Callable[[int, nn.Module, Report], None]
"""Called with the step, the objective and the report; for probes and the like.

On every process, after each step, and at step 0 before the first of a run that starts anew. It
leaves the objective, its mode and torch's generators as they were.
"""


@dataclass
class Window:
    """Sums over the steps between two lines of metrics."""

    steps: int = 0
    seconds: float = 0.0
    waiting_seconds: float = 0.0
    sums: dict[str, Tensor] = field(default_factory=dict)

    def add(self, parts: Mapping[str, Tensor], share: float) -> None:
        """Add a micro-batch's scalars, ``share`` of a step."""
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, torch.zeros(())) + value.detach().cpu() * share


@dataclass
class Loop:
    """One run's training: the parts, wired, and the step."""

    objective: nn.Module
    front_end: FrontEnd
    augments: Sequence[Augment]
    stream: Stream
    config: Config
    run: Path
    accelerator: Accelerator
    save_model: Callable[[], None]
    """Writes the run's ``model.safetensors``."""
    watchers: Sequence[Watcher] = ()
    first: str = "untrained"
    """What the net is called that the run begins with."""
    monitor: Monitor = field(default_factory=Monitor)
    """Looks for a collapse at every line of metrics."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Shown beside the curves: the recipe, the environment."""

    def train(self, resumed: Path | None = None) -> None:
        """Train to ``config.steps``, from ``resumed`` (a checkpoint) or from the start."""
        config, accelerator = self.config, self.accelerator
        optimiser = adamw(self.objective, config.learning_rate, config.weight_decay, config.betas)
        self.memories = nn.ModuleDict(
            {str(n): one for n, one in enumerate(self.augments) if isinstance(one, nn.Module)}
        )
        start, position = 0, 0
        if resumed is not None:
            start, position = self._resume(resumed, optimiser)
        self.front_end.to(accelerator.device)
        self.memories.to(accelerator.device)
        self.cached = is_cached(self.objective) and config.accumulation > 1
        accumulated = getattr(self.objective, "accumulated", lambda parts: None)
        if config.accumulation > 1 and (told := accumulated(config.accumulation)):
            say(f"warning: {told}")
        learner = Cached(self.objective) if self.cached else self.objective
        model, self.optimiser = accelerator.prepare(learner, optimiser)
        self.report = Report(self.run, config.steps, start, accelerator.is_main_process)
        for name, text in self.texts.items():
            self.report.text(name, text)
        if start == 0:
            self._watch(0)
        batches = self.stream.batches(position)
        window, self.started, self.taken = Window(), time.perf_counter(), 0
        try:
            for step in range(start + 1, config.steps + 1):
                began = time.perf_counter()
                self._step(step, model, batches, window)
                window.steps += 1
                window.seconds += time.perf_counter() - began
                self.taken += 1
                keeps = step % config.checkpoint_every == 0 or step == config.steps
                # A line never reaches over a checkpoint, so that a resumed run writes the same.
                if keeps or step % config.log_every == 0:
                    self._tell(step, window)
                    window = Window()
                self._watch(step)
                if keeps:
                    self.save(step, position + (step - start) * self.stream.config.batch)
            if start >= config.steps:  # nothing to do but to leave a whole run
                self.save(start, position)
            self.report.draw()
        finally:
            self.report.close()

    def _watch(self, step: int) -> None:
        for watcher in self.watchers:
            watcher(step, self.objective, self.report)

    def _resume(self, resumed: Path, optimiser: torch.optim.Optimizer) -> tuple[int, int]:
        """Take up a checkpoint; gives its step and position."""
        state = load_step(resumed, self.objective, optimiser, self.memories)
        scaler = self.accelerator.scaler
        if scaler is not None and state.get("scaler"):
            scaler.load_state_dict(state["scaler"])
        return int(state["step"]), int(state["position"])

    def save(self, step: int, position: int) -> None:
        """Write the model and a checkpoint of this step."""
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            optimiser = getattr(self.optimiser, "optimizer", self.optimiser)
            scaler = self.accelerator.scaler
            state = {
                "position": position,
                "scaler": scaler.state_dict() if scaler is not None else None,
            }
            kept = self.config.checkpoints_kept
            save_step(self.run, step, self.objective, optimiser, state, kept, self.memories)
            self.save_model()

    def _step(self, step: int, model: nn.Module, batches: Iterator[Batch], window: Window) -> None:
        config, accelerator = self.config, self.accelerator
        rate = config.learning_rate * rate_share(
            step - 1, config.steps, config.warmup_steps, config.final_share
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        model.train()
        if self.cached:
            latest = self._whole(step, model, batches, window)
        else:
            latest = self._parts(step, model, batches, window)
        norm = accelerator.clip_grad_norm_(model.parameters(), config.clip_norm or math.inf)
        window.add({"gradient_norm": cast(Tensor, norm)}, 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        cast(Objective, self.objective).after_step(step, config.steps)
        if config.pictures_every and (step == 1 or step % config.pictures_every == 0):
            # Before the augments remember: a cached part is augmented again to be shown.
            self._show(step, *latest())
        for memory in self.memories.values():
            cast(Any, memory).after_step()

    def _parts(self, step: int, model: nn.Module, batches: Iterator[Batch], window: Window) -> Part:
        """Gradients of a batch, part after part; gives the last."""
        config, accelerator = self.config, self.accelerator
        for part in range(config.accumulation):
            batch = self._next(batches, window)
            # After the batch: opening a loader draws from the same generator as drop-path.
            torch.manual_seed(_mixed(config.seed, step, accelerator.process_index + 1, part))
            last = part == config.accumulation - 1
            with nullcontext() if last else accelerator.no_sync(model):
                views, draws = self._views(batch, step, part)
                parts = model(views, draws)
                self._check(parts["loss"], step, batch)
                accelerator.backward(parts["loss"] / config.accumulation)
            window.add(parts, 1 / config.accumulation)
        return lambda: (views, draws)

    def _whole(self, step: int, model: nn.Module, batches: Iterator[Batch], window: Window) -> Part:
        """Gradients of a batch whose clips are all compared; gives its last part."""
        config, accelerator = self.config, self.accelerator
        taken = [self._next(batches, window) for _ in range(config.accumulation)]
        torch.manual_seed(_mixed(config.seed, step, accelerator.process_index + 1, 0))
        parts = [partial(self._views, batch, step, part) for part, batch in enumerate(taken)]
        told = model(parts)
        self._check(told["loss"], step, taken[0])
        accelerator.backward(told["loss"])
        window.add(told, 1.0)
        return parts[-1]

    def _next(self, batches: Iterator[Batch], window: Window) -> Batch:
        asked = time.perf_counter()
        batch = next(batches)
        window.waiting_seconds += time.perf_counter() - asked
        return batch

    def _views(self, batch: Batch, step: int, part: int) -> tuple[list[View], Draws]:
        """Pictures of a micro-batch, augmented once a view."""
        device = self.accelerator.device
        waveforms = batch.waveforms.to(device, non_blocking=True)
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            pictures, frames = self.front_end(
                waveforms, batch.lengths.to(device, non_blocking=True)
            )
            draws = Draws(
                torch.Generator().manual_seed(_mixed(self.config.seed, step, 0)),
                start=(part * self.accelerator.num_processes + self.accelerator.process_index)
                * len(batch.keys),
                clips=len(batch.keys),
                batch=self.stream.config.batch,
                device=device,
                recordings=recordings_of(batch).to(device, non_blocking=True),
            )
            views = []
            for _ in range(cast(Objective, self.objective).views):
                view = pictures
                for augment in self.augments:
                    view = augment(view, frames, draws)
                views.append(View(view, frames))
        return views, draws

    def _check(self, loss: Tensor, step: int, batch: Batch) -> None:
        if not torch.isfinite(loss):
            raise ValueError(
                f"the loss of step {step} is {loss.item()}; lower training.learning_rate or "
                f"training.clip_norm, or set training.precision fp32. Its clips begin with "
                f"{', '.join(batch.keys[:3])}"
            )

    @torch.no_grad()
    def _show(self, step: int, views: list[View], draws: Draws) -> None:
        if not self.accelerator.is_main_process or not self.config.pictures_every:
            return
        self.objective.eval()
        few = [View(view.pictures[:4], view.frames[:4]) for view in views]
        generator = torch.Generator().manual_seed(_mixed(self.config.seed, step, -1))
        count = len(few[0].frames)
        fresh = Draws(generator, 0, count, count, draws.device)
        self.report.pictures(step, cast(Objective, self.objective).pictures(few, fresh))
        self.objective.train()

    def _tell(self, step: int, window: Window) -> None:
        means = {name: value / window.steps for name, value in window.sums.items()}
        if self.accelerator.num_processes > 1:
            names = sorted(means)
            stacked = torch.stack([means[name].float() for name in names])
            stacked = self.accelerator.reduce(stacked.to(self.accelerator.device), "mean")
            means = dict(zip(names, stacked.cpu(), strict=True))
        speed = window.steps * self.stream.config.batch / window.seconds
        waiting = window.waiting_seconds / window.seconds
        scalars = {f"objective/{name}": float(value) for name, value in means.items()}
        scalars["training/gradient_norm"] = scalars.pop("objective/gradient_norm")
        scalars |= {
            "training/learning_rate": self.optimiser.param_groups[0]["lr"],
            "training/epoch": self.stream.epoch(step * self.stream.config.batch),
            "speed/clips_a_second": speed,
            "speed/waiting_share": waiting,
        }
        if self.accelerator.is_main_process:
            scalars |= self.monitor(step, self.objective)
        self.report.log(step, scalars)
        each = (time.perf_counter() - self.started) / max(1, self.taken)
        self.report.show(
            step,
            f"loss {scalars['objective/loss']:.3f}{_found(scalars, self.first)}  "
            f"{speed:.0f} clips/s  waiting {waiting:.0%}",
            each * (self.config.steps - step),
        )


def _found(scalars: Mapping[str, float], first: str) -> str:
    """Shares of right answers beside those of the net at first and of guessing, where told."""
    told = ""
    for name, value in scalars.items():
        if not name.endswith("accuracy") or name.endswith("untrained_accuracy"):
            continue
        prefix = name.removesuffix("accuracy")
        there = {first: f"{prefix}untrained_accuracy", "chance": f"{prefix}chance"}
        beside = ", ".join(
            f"{word} {scalars[key]:.0%}" for word, key in there.items() if key in scalars
        )
        who = prefix.removeprefix("objective/").removesuffix("_").replace("_", " ")
        told += f"  {who + ' ' if who else ''}finds {value:.0%}" + (
            f" ({beside})" if beside else ""
        )
    return told


def recordings_of(batch: Batch) -> Int[Tensor, " clips"]:
    """A number above 0 for the recording of each clip; a clip that is of none has its own.

    A recording that two corpora have, as Freesound's, is one.
    """
    return numbered(
        [
            f"recording {recording}" if recording is not None else f"clip {source} {key}"
            for recording, source, key in zip(
                batch.recordings, batch.sources.tolist(), batch.keys, strict=True
            )
        ]
    )


def _mixed(*numbers: int) -> int:
    """One seed from several numbers (the 64-bit FNV-1a hash of them)."""
    mixed = 0xCBF29CE484222325
    for number in numbers:
        for byte in (number & (1 << 64) - 1).to_bytes(8, "little"):
            mixed = ((mixed ^ byte) * 0x100000001B3) & (1 << 64) - 1
    return mixed >> 1
