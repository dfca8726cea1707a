"""What every adapter says: which weights of an encoder learn from labels, and how fast.

An adapter plug-in offers a frozen ``Config`` and ``build(config)``, which gives an
:class:`Adapter`. The head is no adapter's: every protocol has one.
"""

from typing import Protocol, runtime_checkable

from sslaudio.backbones.encoder import Encoder


@runtime_checkable
class Adapter(Protocol):
    """A way to adapt."""

    learns: bool
    """Whether anything in the encoder learns. If not, embeddings are computed once and the head is
    fitted on them in closed form."""

    def adapt(self, encoder: Encoder) -> None:
        """Let those weights learn that are to, and no others."""
        ...

    def rate_share(self, name: str, encoder: Encoder) -> float:
        """Share of the learning rate for the encoder's weight ``name``."""
        ...
