"""What every adapter says: which weights of an encoder learn from labels, and how fast.

An adapter plug-in offers a frozen ``Config`` and ``build(config)``, which gives an
:class:`Adapter`. What an adapted backbone learned is its parameters that ask for a gradient, by
their names: fill those into the base after ``adapt()`` and it is there again.
"""

from typing import Literal, Protocol, runtime_checkable

from torch import nn

from sslaudio.backbones.encoder import Encoder


@runtime_checkable
class Adapter(Protocol):
    """A way to adapt."""

    trains: Literal["nothing", "head", "encoder"]
    """What learns by gradients. ``nothing``: embeddings are computed once and the head is found in
    closed form. ``head``: the encoder is frozen and a head learns. ``encoder``: weights of the
    encoder learn too."""
    merges: bool
    """Whether what it learned can be folded into the plain weights."""

    def adapt(self, encoder: Encoder) -> None:
        """Put in what it adds; let exactly those weights learn that are to, and freeze all others.

        The embeddings stay what they were. What is put in is drawn from torch's global generator,
        and its names are the same each time.
        """
        ...

    def merge(self, encoder: Encoder) -> None:
        """Fold what was learned into the plain weights and take out what ``adapt()`` put in.

        Afterwards the backbone has its plain names and gives the same tokens.

        Raises:
            ValueError: it cannot be folded.
        """
        ...

    def rate_share(self, name: str, encoder: Encoder) -> float:
        """Share of the learning rate for the encoder's weight ``name``; where the head alone
        learns, for the head's."""
        ...


class Frozen:
    """An encoder of which nothing learns."""

    merges = True

    def __init__(self, trains: Literal["nothing", "head"]) -> None:
        self.trains: Literal["nothing", "head", "encoder"] = trains

    def adapt(self, encoder: Encoder) -> None:
        """Freeze all."""
        encoder.requires_grad_(False)

    def merge(self, encoder: Encoder) -> None:
        """Its weights are plain."""

    def rate_share(self, name: str, encoder: Encoder) -> float:
        """Nothing learns."""
        return 0.0


def learn(encoder: Encoder, weights: set[nn.Parameter]) -> None:
    """Let those of ``weights`` learn that an embedding depends on, and nothing else."""
    encoder.requires_grad_(False)
    for _, parameter in encoder.embedding_weights():
        parameter.requires_grad_(parameter in weights)


def norm_weights(encoder: Encoder) -> set[nn.Parameter]:
    """Gains and biases of the backbone's layer norms."""
    norms = (part for part in encoder.backbone.modules() if isinstance(part, nn.LayerNorm))
    return {parameter for norm in norms for parameter in norm.parameters()}


def check_rate(rate: float) -> None:
    """Refuse an ``adapter.rate`` that is none.

    Raises:
        ValueError: it is not above 0.
    """
    if not rate > 0:
        raise ValueError(f"adapter.rate is {rate:g}; it is above 0 (usual: 1 to 10)")
