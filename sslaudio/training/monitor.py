"""Watches for a collapse: figures for every line of metrics, and one warning when it has come.

In:  an objective after a step. What it offers is looked at, what it lacks is left out:
     ``embeddings``, float32 ``[views, clips, dim]`` of the last micro-batch on this process (None
     before the first), and ``teacher_deviation()``, a scalar, where there is a teacher.
Out: scalars ``collapse/...``, functions of the weights and the batch alone, so that a resumed run
     writes the same.

The figures are those of the first process's own micro-batch, or of the first 512 clips of it. They
are comparable along a run; between runs only at the same clips a micro-batch.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sslaudio.objectives.base import spread
from sslaudio.objectives.monitor import alignment, centred, effective_rank, uniformity
from sslaudio.training.report import say

MOST_CLIPS = 512
"""Clips that figures are made of; more cost time (singular values)."""
FEWEST_CLIPS = 8
"""Clips that it takes to call a collapse: two or three are of low rank always."""
POINT_SPREAD = 0.02
"""Spread below which all clips lie at a point: a mean cosine of about 0.9996.

Measured on mean tokens of clips of a second: untrained AST (micro to base) and MAST (micro to
small) 0.25 to 0.83; along 100 steps of masked patches with AST micro 0.15 to 0.53, 40 with MAST
micro 0.27 and more; models that were trained so, 0.15 and more.
"""
LINE_RANK = 3.0
"""Effective rank, free of the shared mean, below which clips differ along a line or two.

Measured as above: 5.2 or more of 8 clips, 10 or more of 16, 10 or more of 64 (trained: 20).
"""
LINES = 2
"""Lines of metrics in a row that must look collapsed: a run may pass through a narrow place."""


class Monitor:
    """Called with the step and the objective for every line of metrics; warns once a run."""

    def __init__(self) -> None:
        self.lines = 0
        self.warned = False

    def __call__(self, step: int, objective: nn.Module) -> dict[str, float]:
        """Scalars for the log: nothing from an objective that offers nothing."""
        figures: dict[str, float] = {}
        embeddings = getattr(objective, "embeddings", None)
        if embeddings is not None and torch.isfinite(embeddings).all():  # not of a skipped step
            embeddings = embeddings[:, :MOST_CLIPS]
            figures = collapse_figures(embeddings)
            self._judge(step, figures, embeddings.shape[1])
        teacher_deviation: Callable[[], Tensor] | None
        teacher_deviation = getattr(objective, "teacher_deviation", None)
        if teacher_deviation is not None:
            figures["teacher_deviation"] = float(teacher_deviation())
        return {f"collapse/{name}": value for name, value in figures.items()}

    def _judge(self, step: int, figures: dict[str, float], clips: int) -> None:
        at_a_point = figures["spread"] < POINT_SPREAD
        along_a_line = figures["effective_rank"] < LINE_RANK
        collapsed = clips >= FEWEST_CLIPS and (at_a_point or along_a_line)
        self.lines = self.lines + 1 if collapsed else 0
        if self.lines < LINES or self.warned:
            return
        self.warned = True
        where = "at a point" if at_a_point else "along a line or two"
        say(
            f"warning: the embeddings have collapsed by step {step}, all clips lie {where}: spread "
            f"{figures['spread']:.4f} (below {POINT_SPREAD:g} is a point), effective rank "
            f"{figures['effective_rank']:.1f} of {clips} clips (below {LINE_RANK:g} is a line or "
            f"two); stop, and lower training.learning_rate, raise the objective's momentum or "
            f"temperature, or put a batch norm before its head"
        )


@torch.no_grad()
def collapse_figures(embeddings: Float[Tensor, "views clips dim"]) -> dict[str, float]:
    """Each the mean over views: rank with and without the shared mean, spread, uniformity.

    And ``alignment``, of each view with the one before it, where there are two or more.
    """
    told = {
        "effective_rank": [effective_rank(centred(view)) for view in embeddings],
        "rankme": [effective_rank(view) for view in embeddings],
        "spread": [spread(view) for view in embeddings],
        "uniformity": [uniformity(view) for view in embeddings],
        "alignment": [alignment(one, other) for one, other in pairwise(embeddings)],
    }
    return {name: float(torch.stack(each).mean()) for name, each in told.items() if each}
