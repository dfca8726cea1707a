"""What every corpus importer returns: one :class:`Clip` a sound, with what is published of it."""

from dataclasses import dataclass
from pathlib import Path

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
"""File names taken for sound, in any case of letters."""
SPLITS = ("train", "validation", "test", "noise")
"""Names a clip's ``split`` may have; ``noise`` is background noise that is nobody's clip."""


@dataclass(frozen=True)
class Clip:
    """One sound of a corpus in its published layout.

    A field that the corpus does not tell is None (``labels``: empty) and is left out of
    the shard's JSON.
    """

    path: Path
    """The file itself."""
    source: str
    """Path relative to the corpus's root, with forward slashes."""
    label: str | None = None
    """Published display name of the one class; None where unlabelled or multi-label."""
    labels: tuple[str, ...] = ()
    """Published display names where a clip has several classes."""
    split: str | None = None
    """One of :data:`SPLITS`."""
    fold: int | None = None
    """Published cross-validation fold."""
    recording: str | None = None
    """Id that clips cut from one recording share (Freesound, YouTube or source id)."""
    speaker: str | None = None
    """Who speaks."""
    licence: str | None = None
    """Licence of this clip where the corpus tells it clip by clip or as a whole."""
    subsets: tuple[str, ...] = ()
    """Named parts of the corpus that the clip belongs to (``esc10`` within ESC-50)."""

    def __post_init__(self) -> None:
        if self.split not in (None, *SPLITS):
            raise ValueError(
                f"{self.source}: its split is {self.split!r}; an importer gives "
                f"{', '.join(SPLITS)}, or None"
            )
        if self.label is not None and self.labels:
            raise ValueError(
                f"{self.source} has both a label and labels; an importer gives label where every "
                f"clip has one class, labels where a clip may have several"
            )


def is_sound_file(path: Path) -> bool:
    """Whether a file's name says that it is sound; hidden files are not."""
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")
