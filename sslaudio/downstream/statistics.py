"""The no-network baseline: what a clip's log-mel statistics alone tell a linear probe.

In:  log-mel energies of one clip, or of several of one length.
Out: one vector a clip, to embed in place of a network and to put beside an embedding.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

SLICES = 4
"""Equal parts of the clip whose means are kept, so that order in time is heard a little."""


def logmel_statistics(mel: Float[Tensor, "*batch bins frames"]) -> Float[Tensor, "*batch values"]:
    """Mean, deviation and four time-slice means of every mel bin.

    Args:
        mel: natural-log mel energies of whole clips, without padding, one frame at least.

    Returns:
        ``6 * bins`` values: all means, all deviations (of the population), then the slice
        means, earliest slice first. Slices whose edge falls inside a frame share it.
    """
    if mel.shape[-1] == 0:
        raise ValueError(
            "cannot take statistics of a log-mel without frames: the clip is shorter than one "
            "window; pad it to features.window_samples"
        )
    slices = functional.adaptive_avg_pool1d(mel.reshape(-1, *mel.shape[-2:]), SLICES)
    slices = slices.transpose(-1, -2).reshape(*mel.shape[:-2], -1)
    return torch.cat([mel.mean(dim=-1), mel.std(dim=-1, correction=0), slices], dim=-1)
