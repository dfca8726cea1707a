"""What a batch of :func:`data.conftest.write_tones`'s clips must hold, however it was read."""

import pytest
import torch

from sslaudio.data.stream import Batch


def check_batch(batch: Batch) -> None:
    """Six clips, each its own constant value, padded with zeros, with its length and recording."""
    assert batch.waveforms.shape == (6, 960)
    assert batch.waveforms.dtype == torch.float32
    assert batch.lengths.dtype == torch.int64
    for row, key in enumerate(batch.keys):
        number = int(key[-3:])
        assert batch.lengths[row] == 800 + number
        sound, padding = batch.waveforms[row].split([800 + number, 160 - number])
        assert sound.numpy() == pytest.approx(number / 1_000, abs=1 / 32_768)
        assert not padding.any()
        assert batch.recordings[row] == f"r{number // 2}"
