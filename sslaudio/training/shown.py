"""What of a model is shown as histograms: weights of a few layers, and how near clips lie."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

LAYERS = 8
"""Weight matrices, spread over the depth of the backbone."""
MOST_CLIPS = 512
"""Whose embeddings are compared."""
MOST_VALUES = 100_000
"""Of one histogram: more are passed over evenly."""


@torch.no_grad()
def histograms(
    backbone: nn.Module, embeddings: Float[Tensor, "views clips dim"] | None
) -> dict[str, Tensor]:
    """Values by name: ``weights/LAYER``, and ``embeddings/cosine`` of all pairs of clips.

    Args:
        backbone: whose matrices are looked at.
        embeddings: None where an objective offers none.
    """
    named = backbone.named_parameters()
    found = [(name, weight) for name, weight in named if weight.ndim >= 2 and weight.numel()]
    picked = [found[place * (len(found) - 1) // (LAYERS - 1)] for place in range(LAYERS)]
    told = {
        f"weights/{name}": weight.flatten()[:: 1 + weight.numel() // MOST_VALUES]
        for name, weight in dict(picked).items()
    }
    if embeddings is not None and embeddings.shape[1] > 1:
        unit = nn.functional.normalize(embeddings[0, :MOST_CLIPS].float(), dim=1)
        above = torch.triu_indices(len(unit), len(unit), offset=1)
        told["embeddings/cosine"] = (unit @ unit.T)[above[0], above[1]]
    return told
