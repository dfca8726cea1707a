"""Clips to class scores: an encoder and the head that fine-tuning or an import left in a run.

In:  waveforms, their rate and lengths.
Out: one score a class, before any softmax or sigmoid.
"""

from jaxtyping import Float, Int
from torch import Tensor, nn

from sslaudio.backbones.encoder import Encoder


class Head(nn.Linear):
    """A linear map of the pooled embedding, after a layer norm where there is one."""

    def __init__(self, dim: int, classes: int, norm_eps: float | None = None) -> None:
        super().__init__(dim, classes)
        self.norm = nn.Identity() if norm_eps is None else nn.LayerNorm(dim, eps=norm_eps)

    def forward(self, embeddings: Float[Tensor, "clips dim"]) -> Float[Tensor, "clips classes"]:
        """Class scores."""
        return super().forward(self.norm(embeddings))


class Classifier(nn.Module):
    """What ``sslaudio.load_classifier`` gives."""

    def __init__(self, encoder: Encoder, head: Head, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.classes = classes

    @property
    def sample_rate(self) -> int:
        """Hz that the waveforms must have."""
        return self.encoder.sample_rate

    def forward(
        self,
        waveforms: Float[Tensor, "clips samples"],
        sample_rate: int | None = None,
        lengths: Int[Tensor, " clips"] | None = None,
    ) -> Float[Tensor, "clips classes"]:
        """Score clips; arguments as the encoder's, columns as ``classes``."""
        return self.head(self.encoder(waveforms, sample_rate, lengths))
