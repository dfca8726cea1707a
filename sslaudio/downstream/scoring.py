"""Scores of labelled clips by a classifier, with its encoder or from kept tokens.

In:  a classifier, examples, and the bank that hears them.
Out: one row of scores a clip, in the order given.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from sslaudio.backbones.base import Grid, Tokens
from sslaudio.backbones.encoder import Encoder
from sslaudio.data.buckets import by_length
from sslaudio.downstream.classify import Classifier
from sslaudio.downstream.clips import Bank, padded
from sslaudio.downstream.metrics import Scores
from sslaudio.tasks.base import Example

FRAMES_AT_ONCE = 1 << 14
"""Frames, with padding, that are scored together: 160 s at 10 ms."""
CLIPS_AT_ONCE = 1_024
"""Clips whose pictures are laid out together."""


class TokenBank:
    """What a frozen encoder makes of clips, kept in half precision while there is room.

    It is kept in the CPU's memory; a batch of it goes to the encoder's device.
    """

    def __init__(self, encoder: Encoder, bank: Bank, precision: str, megabytes: float) -> None:
        self.encoder, self.bank, self.precision = encoder, bank, precision
        self.room = megabytes * 1e6
        self.held: dict[str, Tensor] = {}

    def tokens(self, examples: Sequence[Example]) -> Tokens:
        """Sounding tokens of clips, in a row each."""
        absent = [example for example in examples if example.key not in self.held]
        fresh: dict[str, Tensor] = {}
        device = next(self.encoder.parameters()).device
        pictures = self.bank.pictures_of(absent)
        for places in by_length([picture.shape[1] for picture in pictures], FRAMES_AT_ONCE):
            batch = padded([pictures[place] for place in places], device)
            with torch.no_grad(), autocast(self.precision):
                made = self.encoder.tokens(*batch)
            for place, row, sound in zip(places, made.patches, made.sound, strict=True):
                fresh[absent[place].key] = row[sound].half().cpu()
        rows = [fresh[one.key] if one.key in fresh else self.held[one.key] for one in examples]
        size = sum(kept.numel() * kept.element_size() for kept in fresh.values())
        if size <= self.room:
            self.held |= fresh
            self.room -= size
        return together(rows, device)


def score(
    classifier: Classifier,
    examples: Sequence[Example],
    bank: Bank,
    precision: str,
    crops: int,
    tokens: TokenBank | None = None,
) -> Scores:
    """Scores of clips, one row each, in the order given.

    Args:
        classifier: is put in eval mode.
        examples: whole clips; of several crops at test the shares are averaged.
        bank: hears them.
        precision: bf16 or fp32.
        crops: pieces of each clip whose shares are averaged; 1: the whole clip.
        tokens: those of a frozen encoder, if they are kept.
    """
    classifier.eval()
    rows: list[np.ndarray] = [np.empty(0)] * len(examples)
    with torch.inference_mode():
        for places, said in _said(classifier, examples, bank, precision, crops, tokens):
            for place, row in zip(places, said.float().cpu().numpy(), strict=True):
                rows[place] = row
    return np.stack(rows) if rows else np.zeros((0, len(classifier.classes) or 1), np.float32)


def _said(
    classifier: Classifier,
    examples: Sequence[Example],
    bank: Bank,
    precision: str,
    crops: int,
    tokens: TokenBank | None,
) -> Iterator[tuple[list[int], Tensor]]:
    if tokens is not None:
        for start in range(0, len(examples), 64):
            part = examples[start : start + 64]
            yield list(range(start, start + len(part))), classifier.head(tokens.tokens(part))
        return
    device = next(classifier.parameters()).device
    for start in range(0, len(examples), CLIPS_AT_ONCE):
        part = examples[start : start + CLIPS_AT_ONCE]
        pieces = _crops(bank, part, crops)
        widths = [sum(picture.shape[1] for picture in few) for few in pieces]
        for rows in by_length(widths, FRAMES_AT_ONCE):
            flat = [picture for row in rows for picture in pieces[row]]
            with autocast(precision):
                said = classifier.scores(*padded(flat, device)).float()
            if crops > 1:
                said = _averaged(classifier, said, len(rows))
            yield [start + row for row in rows], said


def _crops(bank: Bank, examples: Sequence[Example], count: int) -> list[list[Tensor]]:
    """The picture of each whole clip, or of so many pieces of it."""
    if count == 1:
        return [[picture] for picture in bank.pictures_of(examples)]
    places = [place / (count - 1) for place in range(count)]
    pieces = [bank.pictures_of(examples, np.full(len(examples), place)) for place in places]
    return [list(few) for few in zip(*pieces, strict=True)]


def _averaged(classifier: Classifier, said: Tensor, clips: int) -> Tensor:
    """Scores whose shares are the means of the crops' shares."""
    shares = classifier.shares(said).unflatten(0, (clips, -1)).mean(dim=1)
    if classifier.kind == "number":
        return shares
    shares = shares.clamp(1e-7, 1 - 1e-7)
    return shares.log() if classifier.kind == "single" else shares.logit()


def together(kept: Sequence[Float[Tensor, "patches dim"]], device: torch.device) -> Tokens:
    """A batch of clips' tokens, in a row."""
    patches = nn.utils.rnn.pad_sequence(list(kept), batch_first=True).to(device).float()
    counts = torch.tensor([len(rows) for rows in kept], device=patches.device)
    sound = torch.arange(patches.shape[1], device=patches.device) < counts[:, None]
    return Tokens(patches, Grid(1, patches.shape[1]), sound, patches[:, :0])


def autocast(precision: str) -> torch.autocast:
    """bf16 where it is asked for."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.autocast(device, torch.bfloat16, enabled=precision == "bf16")
