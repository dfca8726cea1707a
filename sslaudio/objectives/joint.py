"""Two objectives at once, on one student: the weighted sum of their losses.

Each has its own heads, and the contrastive one its teacher; both are trained through the same
backbone. An objective of one view gets the first.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn

from sslaudio import plugins
from sslaudio.augments.base import Draws
from sslaudio.backbones.base import Backbone
from sslaudio.objectives.base import View, compares
from sslaudio.plugins import Plugin


def _objective(name: str) -> Any:
    return field(
        metadata={"room": "objectives"},
        default_factory=lambda: Plugin(
            "objectives", name, plugins.load("objectives", name).Config()
        ),
    )


def _key(chosen: Plugin) -> str:
    """What its weights and its parts of the log are called by: no module's name has a dot."""
    return chosen.name.replace(".", "_")


@dataclass(frozen=True)
class Config:
    """Which two, and how much of each."""

    first: Plugin = _objective("contrastive")
    """An objective with its settings."""
    second: Plugin = _objective("masked_patch")
    """Another."""
    first_weight: float = 1.0
    """Weight of the first one's loss."""
    second_weight: float = 1.0
    """Weight of the second one's loss."""

    def __post_init__(self) -> None:
        names = [self.first.name, self.second.name]
        if _key(self.first) == _key(self.second) or "joint" in names:
            raise ValueError(
                f"objective.first is {names[0]} and objective.second {names[1]}; joint takes two "
                f"different objectives, neither of them joint"
            )
        if min(self.first_weight, self.second_weight) <= 0:
            raise ValueError(
                f"objective.first_weight is {self.first_weight:g} and objective.second_weight "
                f"{self.second_weight:g}; both are above 0, or train by one objective alone"
            )


class Joint(nn.Module):
    """Two objectives that share a backbone."""

    def __init__(self, config: Config, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.members = nn.ModuleDict(
            {_key(chosen): chosen.build(backbone) for chosen in (config.first, config.second)}
        )
        weights = (config.first_weight, config.second_weight)
        self.weights = dict(zip(self.members, weights, strict=True))
        members = [cast(Any, member) for member in self.members.values()]
        self.views = max(member.views for member in members)
        self.moves_in_passes = any(getattr(member, "moves_in_passes", False) for member in members)
        self.gradient_cache = any(getattr(member, "gradient_cache", False) for member in members)

    def forward(self, views: list[View], draws: Draws) -> dict[str, Tensor]:
        """The weighted sum of both losses, and the parts of each behind its name."""
        return self.compare(self.encode(views, draws))

    def encode(self, views: list[View], draws: Draws) -> dict[str, Tensor]:
        """Rows of both, a row a clip; what compares no clips tells each clip its batch's mean."""
        rows: dict[str, Tensor] = {}
        for name, member in self.members.items():
            member = cast(Any, member)
            given = views[: member.views]
            if compares(member):
                told = member.encode(given, draws)
            else:
                told = {
                    key: value.expand(draws.clips) for key, value in member(given, draws).items()
                }
            rows |= {f"{name}/{key}": value for key, value in told.items()}
        return rows

    def compare(self, encoded: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss and its parts from the rows of all clips."""
        parts: dict[str, Tensor] = {}
        losses = []
        for name, member in self.members.items():
            own = {
                key.removeprefix(f"{name}/"): value
                for key, value in encoded.items()
                if key.startswith(f"{name}/")
            }
            if compares(member):
                told = cast(Any, member).compare(own)
            else:
                told = {key: value.mean() for key, value in own.items()}
            losses.append(self.weights[name] * told["loss"])
            parts |= {f"{name}_{key}": value.detach() for key, value in told.items()}
        return {"loss": torch.stack(losses).sum(), **parts}

    @property
    def embeddings(self) -> Tensor | None:
        """Of the last micro-batch, by the first of the two that gives any."""
        found = (getattr(member, "embeddings", None) for member in self.members.values())
        return next((one for one in found if one is not None), None)

    @property
    def teacher_deviation(self) -> Callable[[], Tensor] | None:
        """Tells how far the teacher is from the student, where one of the two has a teacher."""
        found = (getattr(member, "teacher_deviation", None) for member in self.members.values())
        return next((cast(Any, one) for one in found if one is not None), None)

    def accumulated(self, parts: int) -> str | None:
        """What either has to say of a batch in ``parts``."""
        for place, member in zip(("first", "second"), self.members.values(), strict=True):
            told = getattr(member, "accumulated", lambda parts: None)(parts)
            if told:
                return cast(str, told).replace("objective.", f"objective.{place}.")
        return None

    def after_step(self, step: int, steps: int) -> None:
        """Tell both."""
        for member in self.members.values():
            cast(Any, member).after_step(step, steps)

    def skip_step(self) -> None:
        """Tell whichever has something to forget."""
        for member in self.members.values():
            getattr(member, "skip_step", lambda: None)()

    def pictures(self, views: list[View], draws: Draws) -> dict[str, Tensor]:
        """Those of both, behind their names."""
        return {
            f"{name}_{title}": shown
            for name, member in self.members.items()
            for title, shown in cast(Any, member)
            .pictures(views[: cast(Any, member).views], draws)
            .items()
        }


def build(config: Config, backbone: Backbone) -> Joint:
    """Both objectives on ``backbone``."""
    return Joint(config, backbone)
