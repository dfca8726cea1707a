"""InfoNCE among a clip's hidden patches, and what its candidates are freed of."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sslaudio.objectives.base import masked_mean


def contrast(
    told: Float[Tensor, "clips asked values"],
    targets: Float[Tensor, "clips asked values"],
    asked: Bool[Tensor, "clips asked"],
    temperature: float | None,
    over_predictions: bool = False,
) -> tuple[Float[Tensor, " clips"], Float[Tensor, " clips"]]:
    """InfoNCE of each prediction among its own clip's hidden patches.

    Args:
        told: predictions.
        targets: the patches; prediction i belongs to patch i.
        asked: which places hold a question; the others are no candidates either.
        temperature: of the cosine; unset: products as they are.
        over_predictions: whether each patch is to find its prediction among the predictions, as in
            SSAST's code, rather than each prediction its patch among the patches, as in its paper
            (arXiv:2110.09784, equation 1).

    Returns:
        Each clip's loss (mean over its questions; 0 where it has none) and how many of its
        patches were found by their predictions.
    """
    with torch.autocast(told.device.type, enabled=False):
        told, targets = told.float(), targets.float()
        if temperature is None:
            logits = told @ targets.transpose(1, 2)
        else:
            length = told.norm(dim=2, keepdim=True).clamp(min=1e-12)
            targets = nn.functional.normalize(targets, dim=2)
            # Dividing the products costs a fraction of dividing predictions, most of it backward.
            logits = told @ targets.transpose(1, 2) / (length * temperature)
    lowest = torch.finfo(logits.dtype).min
    among_patches = logits.masked_fill(~asked[:, None], lowest)
    right = torch.arange(logits.shape[1], device=logits.device)
    found = (among_patches.argmax(dim=2) == right) & asked
    if over_predictions:
        sure = logits.masked_fill(~asked[:, :, None], lowest).log_softmax(dim=1)
    else:
        sure = among_patches.log_softmax(dim=2)
    surprise = -sure.diagonal(dim1=1, dim2=2)
    return masked_mean(surprise, asked), found.sum(dim=1).float()


def centre(
    targets: Float[Tensor, "clips asked values"], asked: Bool[Tensor, "clips asked"]
) -> Float[Tensor, "clips asked values"]:
    """Take the mean of each clip's hidden patches off them."""
    count = asked.sum(dim=1).clamp(min=1)[:, None, None]
    return targets - torch.where(asked[..., None], targets, 0.0).sum(dim=1, keepdim=True) / count


def std_mean(
    patches: Float[Tensor, "*batch values"],
) -> tuple[Float[Tensor, "*batch 1"], Float[Tensor, "*batch 1"]]:
    """Deviation and mean of each patch; several times as fast on a CPU as ``torch.std_mean``."""
    mean = patches.mean(dim=-1, keepdim=True)
    return (patches - mean).square().mean(dim=-1, keepdim=True).sqrt(), mean
