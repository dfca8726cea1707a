"""bfloat16 autocast beside float32, on real sound."""

import pytest
import soundfile
import torch

from sslaudio import plugins
from sslaudio.backbones.encoder import Encoder
from sslaudio.features.front_end import Config as Features
from sslaudio.features.front_end import FrontEnd


@pytest.mark.parametrize("name", plugins.names("backbones"))
@torch.no_grad()
def test_embeddings_in_bfloat16_are_those_of_float32(real_sound, name):
    paths = sorted((real_sound / "esc10" / "audio").glob("*.ogg"))[::60][:3]
    clips = [torch.from_numpy(soundfile.read(path, dtype="float32")[0]) for path in paths]
    rate = soundfile.info(paths[0]).samplerate
    clips = [clip[: rate * seconds] for clip, seconds in zip(clips, (1, 2, 3), strict=False)]
    lengths = torch.tensor([len(clip) for clip in clips])
    waveforms = torch.nn.utils.rnn.pad_sequence(clips, batch_first=True)
    module = plugins.load("backbones", name)
    torch.manual_seed(0)
    backbone = module.build(module.Config(size="tiny"), 128, 298).eval()
    for part, weight in backbone.named_parameters():
        norm = "norm" in part and part.endswith("weight")
        torch.nn.init.normal_(weight, mean=float(norm), std=0.1)
    encoder = Encoder(FrontEnd(Features(), -5.0, 4.0), backbone, ("mean", "slices2"), None, 298)

    exact = encoder(waveforms, rate, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder(waveforms, rate, lengths)

    assert rough.dtype == torch.float32
    assert len(clips) == 3 and torch.isfinite(rough).all()
    assert ((rough - exact).norm(dim=1) < 2e-2 * exact.norm(dim=1)).all()
    assert not torch.equal(rough, exact)
