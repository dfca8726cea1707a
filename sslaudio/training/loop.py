"""The one loop: an objective and a stream in, checkpoints and metrics out.

A step takes ``data.batch`` clips over all ranks and accumulated parts. Everything random in it
follows from the seed and the step, and the stream's place is one integer, so that a resumed run
goes on to the same bits.
"""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sslaudio import ranks
from sslaudio.augments.base import Augment, Draws
from sslaudio.data.stream import Batch, Stream
from sslaudio.features.front_end import FrontEnd
from sslaudio.objectives.base import Objective, View
from sslaudio.training import memory, stopping
from sslaudio.training.cache import Cached, Part, is_cached
from sslaudio.training.checkpoint import load_step, save_step
from sslaudio.training.compiling import compile_blocks, plainly
from sslaudio.training.coverage import Coverage
from sslaudio.training.launch import from_all
from sslaudio.training.monitor import Monitor
from sslaudio.training.optim import adamw, rate_share
from sslaudio.training.passes import Passes, Taken, seed_of
from sslaudio.training.rehearsal import Rehearsal
from sslaudio.training.report import SKIPPED, Report, say
from sslaudio.training.shown import histograms
from sslaudio.training.trackers import Trackers, check_names


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
    skips_in_a_row: int = 10
    """A step whose loss or gradient is not finite is skipped; at so many one after the other the
    run stops. (With fp16, gradients that overflow count once the scale of the loss is down to
    1.)"""
    accumulation: int = 1
    """Parts that each rank's share of a batch is worked through in."""
    compile: bool = False
    """Whether transformer blocks are compiled at the first step (torch.compile), to be faster from
    then on; needs a C++ compiler. Changes the last bits of results."""
    checkpoint_every: int = 500
    """Steps between checkpoints; the last step always has one."""
    checkpoints_kept: int = 2
    """Newest whole checkpoints that stay."""
    checkpoint_forever_every: int = 0
    """Steps whose multiples' checkpoints stay for good, beside the newest; 0 for none."""
    log_every: int = 20
    """Steps that one line of metrics is the mean of."""
    pictures_every: int = 500
    """Steps between pictures of input, mask and reconstruction, histograms and embeddings, besides
    those of the first step and the last; 0 for none."""
    trackers: tuple[str, ...] = ()
    """Trackers beside TensorBoard that accelerate knows, such as wandb or mlflow."""

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ValueError(f"training.steps is {self.steps}; it is at least 0")
        intervals = ("checkpoint_every", "checkpoints_kept", "log_every")
        for key in ("accumulation", "skips_in_a_row", *intervals):
            if getattr(self, key) < 1:
                raise ValueError(f"training.{key} is {getattr(self, key)}; it is at least 1")
        if self.checkpoint_forever_every < 0 or (
            self.checkpoint_forever_every % self.checkpoint_every
        ):
            raise ValueError(
                f"training.checkpoint_forever_every is {self.checkpoint_forever_every}; it is 0 "
                f"or a multiple of training.checkpoint_every, {self.checkpoint_every}"
            )
        if self.learning_rate <= 0 or self.weight_decay < 0:
            raise ValueError(
                f"training.learning_rate is {self.learning_rate:g} and training.weight_decay "
                f"{self.weight_decay:g}; the rate is above 0, the decay at least 0"
            )
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"training.betas is {self.betas}; both are at least 0 and under 1")
        if self.warmup_steps < 0 or self.pictures_every < 0 or self.clip_norm < 0:
            raise ValueError("training.warmup_steps, pictures_every and clip_norm are at least 0")
        check_names(self.trackers)


Watcher = Callable[[int, nn.Module, Report], None]
"""Called with the step, the objective and the report; for probes and the like.

On every process, after each step, and at step 0 before the first of a run that starts anew. It
leaves the objective, its mode and torch's generators as they were.
"""


@dataclass
class Window:
    """Sums over the steps between two lines of metrics."""

    steps: int = 0
    counted: int = 0
    """Steps that were not skipped."""
    seconds: float = 0.0
    waiting_seconds: float = 0.0
    sums: dict[str, Tensor] = field(default_factory=dict)

    def add(self, parts: Mapping[str, Tensor]) -> None:
        """Add the scalars of a step; they stay where they are, so that no device is waited for."""
        self.counted += 1
        for name, value in parts.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value


@dataclass
class Skips:
    """Steps that were skipped for a loss or gradient that was not finite."""

    total: int = 0
    in_a_row: int = 0
    """Up to the last step."""


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
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Leaves of the recipe, for trackers."""

    def train(self, resumed: Path | None = None) -> int:
        """Train to ``config.steps``, from ``resumed`` (a checkpoint) or from the start.

        Returns:
            0, or where a signal asked to stop before the end, the exit status that says so
            (:mod:`sslaudio.training.stopping`); what was trained is saved.

        Raises:
            ValueError: bad input, too many skipped steps, or not enough memory.
        """
        start, position = self._prepare(resumed)
        if resumed is not None and self.accelerator.is_main_process:
            self.save_model()  # of this step: a kill may have come between it and its checkpoint
        aloud = self.accelerator.is_main_process
        trackers = Trackers(self.config.trackers, self.run, self.recipe) if aloud else None
        self.report = Report(self.run, self.config.steps, start, aloud, trackers=trackers)
        try:
            with stopping.heard() as self.requests:
                for name, text in self.texts.items():
                    self.report.text(name, text)
                status = self._steps(start, position)
                self.report.draw()
            return status
        finally:
            self.report.close()

    def rehearse(self, resumed: Path | None = None) -> Rehearsal:
        """Take a step, and two more to time, and write nothing."""
        start, position = self._prepare(resumed)
        self.report = Report(self.run, self.config.steps, start, aloud=False)
        batches, window, seconds = self.stream.batches(position), Window(), []
        self.requests = stopping.Requests()
        for step in range(start + 1, start + 4):
            began = time.perf_counter()
            self._step(step, batches, window)
            seconds.append(time.perf_counter() - began)
        batch = next(batches)
        views, _ = self.passes.views(batch, start + 4, 0)
        return Rehearsal(
            self.config.steps - start,
            seconds,
            tuple(batch.waveforms.shape),
            tuple(views[0].pictures.shape),
            self._means(window),
            self.stream,
            self.objective,
            self.accelerator.device,
            self.config.checkpoints_kept,
        )

    def _prepare(self, resumed: Path | None) -> tuple[int, int]:
        """Optimiser and model on the device; gives step and position to go on from."""
        config, accelerator = self.config, self.accelerator
        optimiser = adamw(self.objective, config.learning_rate, config.weight_decay, config.betas)
        self.memories = nn.ModuleDict(
            {str(n): one for n, one in enumerate(self.augments) if isinstance(one, nn.Module)}
        )
        start, position, self.skips = 0, 0, Skips()
        if resumed is not None:
            start, position = self._resume(resumed, optimiser)
        self.front_end.to(accelerator.device)
        self.memories.to(accelerator.device)
        cached = is_cached(self.objective) and config.accumulation > 1
        accumulated = getattr(self.objective, "accumulated", lambda parts: None)
        if config.accumulation > 1 and (told := accumulated(config.accumulation)):
            say(f"warning: {told}")
        if config.compile:
            compile_blocks(self.objective)
        learner = Cached(self.objective) if cached else self.objective
        with self._memory_told(start):
            self.model, self.optimiser = accelerator.prepare(learner, optimiser)
        self.passes = Passes(
            cast(Objective, self.objective),
            self.model,
            self.front_end,
            self.augments,
            accelerator,
            self.stream.config.batch,
            config.accumulation,
            config.seed,
            cached,
        )
        return start, position

    def _steps(self, start: int, position: int) -> int:
        """All steps after ``start``; gives 0, or the status of a request to stop."""
        config = self.config
        if start == 0:
            self._watch(0)
        epoch, device = self.stream.epoch(position), self.accelerator.device
        self.coverage = Coverage(self.stream, self.report, epoch, device)
        batches = self.stream.batches(position)
        window, self.started, self.taken = Window(), time.perf_counter(), 0
        for step in range(start + 1, config.steps + 1):
            began = time.perf_counter()
            status = self._step(step, batches, window)
            window.steps += 1
            window.seconds += time.perf_counter() - began
            self.taken += 1
            reached = position + (step - start) * self.stream.config.batch
            keeps = bool(status) or step % config.checkpoint_every == 0 or step == config.steps
            self.coverage.follow(step, reached)
            # A line never reaches over a checkpoint, so that a resumed run writes the same.
            if keeps or step % config.log_every == 0:
                self._tell(step, window)
                window = Window()
            self._watch(step)
            if keeps:
                self.save(step, reached)
            if status and step < config.steps:
                say(f"asked to stop: saved at step {step} of {config.steps}")
                return status
        if start >= config.steps:  # nothing to do but to leave a whole run
            self.save(start, position)
        return 0

    def _watch(self, step: int) -> None:
        self.report.advance(step)
        with self._plainly(), self._memory_told(step):
            for watcher in self.watchers:
                watcher(step, self.objective, self.report)

    def _plainly(self) -> AbstractContextManager[None]:
        """For what is made once in a while, in other shapes: nothing is compiled for it."""
        return plainly() if self.config.compile else nullcontext()

    def _resume(self, resumed: Path, optimiser: torch.optim.Optimizer) -> tuple[int, int]:
        """Take up a checkpoint; gives its step and position."""
        state = load_step(resumed, self.objective, optimiser, self.memories)
        scaler = self.accelerator.scaler
        if scaler is not None and state.get("scaler"):
            scaler.load_state_dict(state["scaler"])
        self.skips = Skips(**state.get("skips", {}))
        if self.accelerator.is_main_process and "heard" in state:
            self.stream.tally.restore(state["heard"])
        return int(state["step"]), int(state["position"])

    def save(self, step: int, position: int) -> None:
        """Write the model and a checkpoint of this step."""
        self.accelerator.wait_for_everyone()
        heard = self.coverage.state()
        if self.accelerator.is_main_process:
            optimiser = getattr(self.optimiser, "optimizer", self.optimiser)
            scaler = self.accelerator.scaler
            state = {
                "position": position,
                "processes": self.accelerator.num_processes,
                "threads": torch.get_num_threads(),
                "skips": dataclasses.asdict(self.skips),
                "heard": heard,
                "scaler": scaler.state_dict() if scaler is not None else None,
            }
            self.report.flush()
            save_step(
                self.run, step, self.objective, optimiser, state, self.config.checkpoints_kept,
                self.memories, self.config.checkpoint_forever_every,
            )  # fmt: skip
            self.save_model()

    def _step(self, step: int, batches: Iterator[Batch], window: Window) -> int:
        """One step on all processes; gives the status of a request to stop, or 0."""
        config, accelerator = self.config, self.accelerator
        rate = config.learning_rate * rate_share(
            step - 1, config.steps, config.warmup_steps, config.final_share
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.model.train()
        before = self._movable()
        with self._memory_told(step):
            taken = self.passes(step, batches)
            window.waiting_seconds += taken.waiting_seconds
            norm = cast(
                Tensor,
                accelerator.clip_grad_norm_(self.model.parameters(), config.clip_norm or math.inf),
            )
            loss_fails, norm_fails, status = self._verdict(taken.parts["loss"], norm)
            if loss_fails or norm_fails:
                self._skip(step, taken, norm, before, finite=not loss_fails)
            else:
                self.skips.in_a_row = 0
                self._learn(step, taken)
                window.add({**taken.parts, "gradient_norm": norm.detach()})
            self.optimiser.zero_grad()
        return status

    def _movable(self) -> dict[str, Tensor]:
        """What a forward pass may move: buffers, and where an objective says so its teacher."""
        movable = dict(self.objective.named_buffers())
        if getattr(self.objective, "moves_in_passes", False):
            weights = self.objective.named_parameters()
            movable |= {name: weight for name, weight in weights if not weight.requires_grad}
        return {name: value.detach().clone() for name, value in movable.items()}

    def _verdict(self, loss: Tensor, norm: Tensor) -> list[int]:
        """Whether loss and gradient are not finite and a stop is asked for, on any process.

        The one place of a step where a device is waited for.
        """
        asked = torch.full((), self.requests.status, device=loss.device)
        fails = ~torch.isfinite(torch.stack([loss, norm.to(loss.device)]))
        told: list[int] = ranks.most(torch.stack([*fails.long(), asked])).tolist()
        return told

    def _learn(self, step: int, taken: Taken) -> None:
        """Move the weights, and tell whoever follows them."""
        config = self.config
        self.optimiser.step()
        cast(Objective, self.objective).after_step(step, config.steps)
        often = config.pictures_every
        if often and (step in (1, config.steps) or step % often == 0):
            # Before the augments remember: a cached part is augmented again to be shown.
            self._show(step, *cast(Part, taken.latest)(), taken.batches[-1])
        for one in self.memories.values():
            cast(Any, one).after_step()

    def _skip(
        self, step: int, taken: Taken, norm: Tensor, before: Mapping[str, Tensor], finite: bool
    ) -> None:
        """Leave weights, teacher and all that is remembered as they were, and tell of it.

        Args:
            step: that is skipped.
            taken: its forward and backward.
            norm: length of the gradient.
            before: buffers, and weights that move in a forward pass, as they were.
            finite: whether the loss is, on all processes.
        """
        for name, value in before.items():
            holder, _, own = name.rpartition(".")
            there = getattr(self.objective.get_submodule(holder), own)
            if isinstance(there, nn.Parameter):
                there.data.copy_(value)
            else:  # a buffer may be another tensor by now
                setattr(self.objective.get_submodule(holder), own, value)
        for one in (self.objective, *self.memories.values()):
            getattr(one, "skip_step", lambda: None)()
        loss = float(taken.parts["loss"])
        self.skips.total += 1
        if not self._rescaled(finite):
            self.skips.in_a_row += 1
        keys = from_all(self.accelerator, [key for batch in taken.batches for key in batch.keys])
        told = {"loss": str(loss), "gradient_norm": str(float(norm)), "keys": keys}
        self.report.note(SKIPPED, step, told)
        where = f"; its clips are in {self.run / SKIPPED}" if self.report.aloud else ""
        say(
            f"warning: step {step} is skipped, its loss is {loss:g} and the length of its gradient "
            f"{float(norm):g}{where}"
        )
        if self.skips.in_a_row == self.config.skips_in_a_row:
            raise ValueError(
                f"{self.skips.in_a_row} steps in a row, to step {step}, had a loss or gradient "
                f"that is not finite (training.skips_in_a_row {self.config.skips_in_a_row}); their "
                f"clips are in {self.run / SKIPPED}. Start a new run, from these weights with "
                f"--init {self.run}, with a lower training.learning_rate or training.clip_norm, or "
                f"training.precision fp32"
            )

    @contextmanager
    def _memory_told(self, step: int) -> Iterator[None]:
        """Turn a want of memory into a line that says which setting to change.

        Raises:
            ValueError: that line.
        """
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if not memory.is_exhausted(error):
                raise
            config, data = self.config, self.stream.config
            cures = memory.levers(
                data.batch,
                self.accelerator.num_processes,
                config.accumulation,
                config.precision,
                data.clip_seconds,
                self.objective,
            )
            found = memory.told(error, self.accelerator.device)
            raise ValueError(f"out of memory at step {step}: {found}; {cures}") from error

    def _rescaled(self, finite: bool) -> bool:
        """With fp16, scale the loss lower; whether that may cure a step whose loss is finite."""
        scaler = self.accelerator.scaler
        if scaler is None:
            return False
        scaler.update()
        return finite and scaler.get_scale() > 1

    @torch.no_grad()
    def _show(self, step: int, views: list[View], draws: Draws, batch: Batch) -> None:
        if not self.accelerator.is_main_process or not self.config.pictures_every:
            return
        embeddings = getattr(self.objective, "embeddings", None)  # what the clips of the step gave
        self.objective.eval()
        few = [View(view.pictures[:4], view.frames[:4]) for view in views]
        generator = torch.Generator().manual_seed(seed_of(self.config.seed, step, -1))
        count = len(few[0].frames)
        fresh = Draws(generator, 0, count, count, draws.device)
        objective = cast(Objective, self.objective)
        with self._plainly():
            self.report.pictures(step, objective.pictures(few, fresh))
        self.objective.train()
        self.report.histograms(step, histograms(cast(nn.Module, objective.backbone), embeddings))
        if embeddings is not None:  # of the whole batch where it is cached; its last part is shown
            own, pictures = embeddings[0, -len(views[0].frames) :], views[0].pictures
            named = (*self.stream.config.shards, "procedural")
            folders = [named[source] for source in batch.sources.tolist()]
            columns = {"clip": batch.keys, "shards": folders}
            self.report.embeddings(step, "clips", own.float().cpu().numpy(), columns, pictures)

    def _means(self, window: Window) -> dict[str, float]:
        """Of the steps that were not skipped, over all processes; empty where all were."""
        if not window.counted:
            return {}
        names = sorted(window.sums)
        means = torch.stack([window.sums[name].float() / window.counted for name in names])
        if self.accelerator.num_processes > 1:
            means = self.accelerator.reduce(means.to(self.accelerator.device), "mean")
        return dict(zip(names, means.tolist(), strict=True))

    def _tell(self, step: int, window: Window) -> None:
        scalars = {f"objective/{name}": value for name, value in self._means(window).items()}
        if "objective/gradient_norm" in scalars:
            scalars["training/gradient_norm"] = scalars.pop("objective/gradient_norm")
        speed = window.steps * self.stream.config.batch / window.seconds
        waiting = window.waiting_seconds / window.seconds
        scalars |= {
            "training/skipped_steps": self.skips.total,
            "training/learning_rate": self.optimiser.param_groups[0]["lr"],
            "training/epoch": self.stream.epoch(step * self.stream.config.batch),
            "speed/clips_a_second": speed,
            "speed/waiting_share": waiting,
            **self.coverage.scalars(step),
        }
        if self.accelerator.is_main_process:
            scalars |= self.monitor(step, self.objective)
        self.report.log(step, scalars)
        each = (time.perf_counter() - self.started) / max(1, self.taken)
        self.report.show(
            step,
            f"loss {scalars.get('objective/loss', math.nan):.3f}  {speed:.0f} clips/s  "
            f"waiting {waiting:.0%}",
            each * (self.config.steps - step),
            _found(scalars, self.first),
        )


def _found(scalars: Mapping[str, float], first: str) -> str:
    """Shares of right answers beside those of the net at first and of guessing, where told."""
    told = []
    for name, value in scalars.items():
        if not name.endswith("accuracy") or name.endswith("untrained_accuracy"):
            continue
        prefix = name.removesuffix("accuracy")
        there = {first: f"{prefix}untrained_accuracy", "chance": f"{prefix}chance"}
        beside = ", ".join(
            f"{word} {scalars[key]:.0%}" for word, key in there.items() if key in scalars
        )
        who = prefix.removeprefix("objective/").removesuffix("_").replace("_", " ")
        found = f"{who + ' ' if who else ''}finds {value:.0%}"
        told.append(f"{found} ({beside})" if beside else found)
    return "  ".join(told)
