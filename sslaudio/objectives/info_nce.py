"""InfoNCE: which of many keys is the query's own?

Source: Ghosh et al. 2022 (SS-MAST, arXiv:2211.01515), section 2, and Chen et al. 2021 (MoCo v3,
arXiv:2104.02057), algorithm 1, without its factor of twice the temperature.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class Told(NamedTuple):
    """What a comparison of queries and keys gives."""

    loss: Float[Tensor, ""]
    """Cross-entropy, mean over the queries."""
    found: Float[Tensor, ""]
    """Share of the queries whose own key is the nearest."""
    candidates: Float[Tensor, ""]
    """Keys that a query chooses from, its own among them, on average."""


def info_nce(
    queries: Float[Tensor, "clips dim"],
    own: Float[Tensor, "clips dim"],
    others: Float[Tensor, "keys dim"],
    counted: Bool[Tensor, "clips keys"],
    temperature: float,
) -> Told:
    """Cross-entropy of finding each query's own key among it and the others, in float32.

    Args:
        queries: of length 1.
        own: the key of each query's own clip, of length 1.
        others: keys that may be negatives, of length 1.
        counted: which of them are; a query without any loses nothing.
        temperature: of the cosine.
    """
    with torch.autocast(queries.device.type, enabled=False):
        queries = queries.float()
        right = (queries * own.float()).sum(dim=1, keepdim=True)
        wrong = queries @ others.float().T
        wrong = wrong.masked_fill(~counted, torch.finfo(wrong.dtype).min)
        logits = torch.cat([right, wrong], dim=1) / temperature
        target = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
        loss = nn.functional.cross_entropy(logits, target)
        nearer = right > wrong.amax(dim=1, keepdim=True)  # a tie is not found
    return Told(loss, nearer.float().mean(), counted.sum(dim=1).float().mean() + 1)


def strangers(
    recordings: Int[Tensor, " clips"], others: Int[Tensor, " keys"]
) -> Bool[Tensor, "clips keys"]:
    """Which keys are of another recording than each clip; 0 stands for one of its own."""
    return (recordings[:, None] != others) | (others == 0)
