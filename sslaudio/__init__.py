"""Self-supervised pretraining of spectrogram transformers on unlabelled audio."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sslaudio.backbones.encoder import Encoder
    from sslaudio.downstream.classify import Classifier


def load(run: str | Path) -> "Encoder":
    """The encoder of a RUN or of one of its checkpoints, in eval mode.

    Its call takes waveforms [clips, samples] in [-1, 1], their rate in Hz (another than the model's
    is resampled) and their lengths in samples; it gives embeddings [clips, dim].
    """
    from sslaudio.models import load_encoder

    return load_encoder(Path(run))


def load_classifier(run: str | Path) -> "Classifier":
    """Encoder and head of a fine-tuned RUN, or of imported weights that have a head, in eval mode.

    Its call takes what :func:`load`'s takes and gives scores [clips, classes], before any softmax
    or sigmoid; ``classes`` names the columns.
    """
    from sslaudio.models import load_classifier

    return load_classifier(Path(run))
