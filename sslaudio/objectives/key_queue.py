"""Keys of past batches, as further negatives: a ring that the oldest fall out of.

Source: He et al. 2020 (MoCo, arXiv:1911.05722), section 3.2. Its queue begins with random keys and
may hold other views of the batch's own clips; ours begins empty, and knows the recordings.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

EMPTY = -1
"""Stands for the recording of a place that holds no key yet."""


class KeyQueue(nn.Module):
    """A ring of ``size`` keys of length 1, with the recordings that they are of."""

    keys: Tensor
    recordings: Tensor
    place: Tensor

    def __init__(self, size: int, dim: int, filled: bool = False) -> None:
        """Args:
        size: keys at most.
        dim: length of a key.
        filled: whether it begins with random keys, as MoCo's.
        """
        super().__init__()
        keys = nn.functional.normalize(torch.randn(size, dim)) if filled else torch.zeros(size, dim)
        self.register_buffer("keys", keys)
        self.register_buffer("recordings", torch.full((size,), 0 if filled else EMPTY))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(self, keys: Float[Tensor, "new dim"], recordings: Int[Tensor, " new"]) -> None:
        """Put keys in, over the oldest; of more than it can hold, the last ones."""
        size = len(self.keys)
        keys, recordings = keys[-size:], recordings[-size:]
        where = (self.place + torch.arange(len(keys), device=keys.device)) % size
        # New tensors: a loss that is still to go backward holds the old ones.
        self.keys = self.keys.index_copy(0, where, keys.to(self.keys.dtype))
        self.recordings = self.recordings.index_copy(0, where, recordings)
        self.place = (self.place + len(keys)) % size
