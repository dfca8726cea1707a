"""Embedding: in the order given, padding and batches without effect, bad files listed."""

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from sslaudio.backbones import ast
from sslaudio.backbones.encoder import Encoder
from sslaudio.data.decode import DecodeError
from sslaudio.downstream.embed import audio_files, embed_examples, embed_files, write_npz
from sslaudio.features.front_end import Config as Features
from sslaudio.features.front_end import FrontEnd
from sslaudio.tasks.base import Example

RATE = 8_000


class Sums(nn.Module):
    """Sum and length of the clip: known by hand, and blind to what lies behind the clip."""

    sample_rate = RATE

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.batches = []

    def forward(self, waveforms, sample_rate=None, lengths=None):
        assert waveforms.dtype == torch.float32 and lengths.dtype == torch.int64
        assert torch.is_inference_mode_enabled()
        self.batches.append(tuple(lengths.tolist()))
        seen = torch.arange(waveforms.shape[1]) < lengths[:, None]
        values = torch.stack([(waveforms * seen).sum(dim=1), lengths.float()], dim=1)
        return self.dropout(values)


def write_constant(path, samples, value, **settings):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(samples, value, np.float32), RATE, **settings)
    return path


def test_rows_come_in_the_order_given_whatever_the_lengths(tmp_path):
    lengths = [800, 100, 400, 1600, 200, 100]
    paths = [
        write_constant(tmp_path / f"{place}.wav", samples, (place + 1) / 8)
        for place, samples in enumerate(lengths)
    ]
    examples = [Example(path.name, 0, path) for path in paths]

    embeddings = embed_examples(Sums(), examples, batch_seconds=0.1)

    assert embeddings.dtype == np.float32
    assert embeddings[:, 1].tolist() == lengths
    by_hand = [samples * (place + 1) / 8 for place, samples in enumerate(lengths)]
    assert embeddings[:, 0] == pytest.approx(by_hand)


def test_a_batch_holds_like_lengths_and_no_more_than_its_seconds(tmp_path):
    lengths = [100, 1600, 100, 400, 100, 400]
    paths = [
        write_constant(tmp_path / f"{place}.wav", samples, 0.5)
        for place, samples in enumerate(lengths)
    ]
    encoder = Sums()

    embed_files(encoder, paths, batch_seconds=0.1)  # 800 samples

    # The one of 1,600 is longer than a batch and goes alone; two of 400 are padded to 448, which
    # is over the budget, so they part.
    assert encoder.batches == [(1600,), (400,), (400,), (100, 100, 100)]


def test_a_piece_of_a_file_is_what_is_embedded(tmp_path):
    path = write_constant(tmp_path / "a.wav", RATE, 0.5)
    examples = [Example("piece", 0, path, start_seconds=0.5, seconds=0.25)]

    assert embed_examples(Sums(), examples).tolist() == [[0.5 * 2000, 2000]]


def test_the_encoder_is_left_in_the_mode_it_came_in(tmp_path):
    path = write_constant(tmp_path / "a.wav", 100, 0.5)
    encoder = Sums().train()

    rows = [embed_files(encoder, [path]).embeddings.tolist() for _ in range(5)]

    assert rows == [[[50.0, 100.0]]] * 5  # dropout, were it on, would zero or double some
    assert encoder.training and encoder.dropout.training


def test_an_unreadable_clip_of_a_task_is_an_error(tmp_path):
    good = write_constant(tmp_path / "a.wav", 100, 0.5)
    (tmp_path / "b.wav").write_bytes(b"no sound")

    with pytest.raises(DecodeError, match=r"b\.wav"):
        embed_examples(Sums(), [Example("a", 0, good), Example("b", 0, tmp_path / "b.wav")])


def test_unreadable_files_are_listed_and_the_rest_embedded(tmp_path):
    first = write_constant(tmp_path / "z.wav", 100, 0.5)
    (tmp_path / "bad.flac").write_bytes(b"no sound")
    last = write_constant(tmp_path / "a.wav", 200, 0.5)
    paths = [first, tmp_path / "bad.flac", tmp_path / "absent.wav", last]

    keys, embeddings, failures = embed_files(Sums(), paths)

    assert keys == [str(first), str(last)]
    assert embeddings.tolist() == [[50, 100], [100, 200]]
    assert [path for path, _ in failures] == [str(path) for path in paths[1:3]]
    assert failures[1] == (str(tmp_path / "absent.wav"), "missing")
    assert all(str(tmp_path) not in reason for _, reason in failures)


def test_nothing_readable_is_an_empty_result(tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no sound")

    keys, embeddings, failures = embed_files(Sums(), [tmp_path])

    assert (keys, len(embeddings), len(failures)) == ([], 0, 1)


def test_a_folder_stands_for_its_sound_sorted_in_any_case_of_letters(tmp_path):
    for name in ("b/2.WAV", "b/1.flac", "a.Ogg", "notes.txt", "c.mp3", ".x.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    alone = tmp_path / "notes.txt"

    files = audio_files([alone, tmp_path])

    names = [file.relative_to(tmp_path).as_posix() for file in files]
    assert names == ["notes.txt", "a.Ogg", "b/1.flac", "b/2.WAV", "c.mp3"]


def test_linked_folders_are_entered_once_and_never_round_in_circles(tmp_path):
    outside = write_constant(tmp_path / "elsewhere" / "1.wav", 100, 0.5).parent
    root = write_constant(tmp_path / "root" / "a" / "2.wav", 100, 0.5).parents[1]
    (root / "b").symlink_to(outside)
    (root / "a" / "back").symlink_to(root)

    assert audio_files([root]) == [root / "a" / "2.wav", root / "b" / "1.wav"]


def test_a_folder_without_sound_says_so(tmp_path):
    with pytest.raises(ValueError, match="holds no WAV, FLAC, OGG or MP3"):
        embed_files(Sums(), [tmp_path])


def test_the_npz_loads_without_pickle(tmp_path):
    paths = [write_constant(tmp_path / name, 100, 0.5) for name in ("grün.wav", "b.wav")]
    out = tmp_path / "new" / "embeddings.npz"

    write_npz(out, embed_files(Sums(), paths))

    loaded = np.load(out, allow_pickle=False)
    assert loaded["keys"].dtype.kind == "U"
    assert loaded["keys"].tolist() == [str(path) for path in paths]
    assert loaded["embeddings"].dtype == np.float32
    assert loaded["embeddings"].tolist() == [[50, 100], [50, 100]]
    assert [file.name for file in out.parent.iterdir()] == ["embeddings.npz"]


def test_progress_ends_at_all_clips(tmp_path):
    paths = [write_constant(tmp_path / f"{place}.wav", 800, 0.5) for place in range(3)]
    told = []

    embed_files(Sums(), paths, batch_seconds=0.1, progress=lambda *counts: told.append(counts))

    assert told == [(1, 3), (2, 3), (3, 3)]


def real_encoder() -> Encoder:
    torch.manual_seed(0)
    config = ast.Config()
    front_end = FrontEnd(Features(), -5.0, 4.0)
    return Encoder(front_end, ast.build(config, 128, 96), config.pooling, None, 96)


def test_odd_files_never_spoil_the_rest(tmp_path):
    rate = 16_000
    sounds = {
        "a_second": np.sin(np.arange(rate) / 20),
        "two_samples": np.array([0.1, -0.1]),
        "one_sample": np.array([0.1]),
        "no_samples": np.zeros(0),
        "not_a_number": np.full(800, np.nan),
        "infinite": np.full(800, np.inf),
        "silent": np.zeros(800),
    }
    for name, sound in sounds.items():
        soundfile.write(tmp_path / f"{name}.wav", sound, rate, "FLOAT")
    (tmp_path / "header_only.wav").write_bytes((tmp_path / "silent.wav").read_bytes()[:30])
    (tmp_path / "a_folder.wav").mkdir()
    paths = [*sorted(tmp_path.glob("*.wav"))]
    paths.remove(tmp_path / "a_folder.wav")

    keys, embeddings, failures = embed_files(real_encoder(), paths)
    alone = embed_files(real_encoder(), [tmp_path / "a_second.wav"]).embeddings[0]

    reasons = {name.rpartition("/")[2].removesuffix(".wav"): reason for name, reason in failures}
    assert len(keys) + len(failures) == len(paths)
    assert reasons["no_samples"] == "holds no samples"
    assert reasons["not_a_number"] == "holds samples that are not finite numbers"
    assert set(reasons) == {"no_samples", "not_a_number", "infinite", "header_only"}
    assert np.isfinite(embeddings).all()
    assert embeddings[keys.index(str(tmp_path / "a_second.wav"))] == pytest.approx(alone, abs=1e-4)
