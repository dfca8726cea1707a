"""The encoder's windows over long clips, with a backbone whose tokens come in several sizes."""

import pytest
import torch

from sslaudio.backbones import mast
from sslaudio.backbones.encoder import Encoder, cut
from sslaudio.features.front_end import Config as Features
from sslaudio.features.front_end import FrontEnd


@pytest.mark.parametrize("pooled_block", [None, 1, 2])
@pytest.mark.parametrize(
    ("patch", "stride", "beyond"),
    [(7, 4, 0), (16, 10, 6), (5, 5, 0)],  # frames that the stem sees beyond its whole strides
)
@torch.no_grad()
def test_a_long_clip_is_embedded_as_its_windows_in_any_batch(patch, stride, beyond, pooled_block):
    torch.manual_seed(0)
    config = mast.Config(stem_patch=(patch, patch), stem_stride=(stride, stride))
    backbone = mast.build(config, 64, 24 * stride).eval()
    encoder = Encoder(FrontEnd(Features()), backbone, ("mean",), pooled_block, 24 * stride)
    # The second ends in a window of four units that are not all its own; all others have three.
    frames = torch.tensor([48 * stride, 25 * stride + patch, 7 * stride])
    pictures = torch.randn(3, 64, int(frames[0]))
    pictures = pictures.masked_fill(torch.arange(frames[0]) >= frames[:, None, None], 0.0)

    together = encoder.embed(pictures, frames)

    for clip, length in enumerate(frames.tolist()):
        tokens = []
        for window in cut(backbone.columns(frames[clip : clip + 1]), encoder.window_columns):
            start, end = window.first * 8 * stride, window.last * 8 * stride + beyond
            part = pictures[clip : clip + 1, :, start : min(end, length)]
            tokens.append(backbone(part, depth=pooled_block).laid()[0][0])
        by_hand = torch.cat(tokens, dim=1)
        columns = backbone.columns(frames[clip : clip + 1], pooled_block)
        assert by_hand.shape[1] == int(columns)
        assert torch.allclose(together[clip], by_hand.mean((0, 1)), atol=1e-4)
