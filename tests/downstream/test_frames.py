"""Embeddings a frame: those of the tokens, at their times, of long files as of short ones."""

import numpy as np
import pytest
import soundfile
import torch

from sslaudio.backbones import ast, mast
from sslaudio.backbones.encoder import Encoder
from sslaudio.data.decode import decode
from sslaudio.downstream import windows
from sslaudio.downstream.frames import embed_frames, write_npz
from sslaudio.features.front_end import Config as Features
from sslaudio.features.front_end import FrontEnd

RATE = 16_000
MODELS = {
    "ast": (ast, {}, None),
    "ast that overlaps": (ast, {"stride": (10, 10)}, 2),
    "mast": (mast, {}, None),
    "mast pooled early": (mast, {"stem_patch": (16, 16), "stem_stride": (10, 10)}, 1),
}


def encoder_of(name: str, **features) -> Encoder:
    torch.manual_seed(0)
    module, settings, pooled_block = MODELS[name]
    front_end = FrontEnd(Features(**features), -5.0, 4.0)
    backbone = module.build(module.Config(**settings), front_end.config.bins, 96)
    for part, weight in backbone.named_parameters():
        norm = "norm" in part and part.endswith("weight")
        torch.nn.init.normal_(weight, mean=float(norm), std=0.1)
    return Encoder(front_end, backbone, ("mean",), pooled_block, 96).eval()


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    files = []
    for number, (seconds, rate) in enumerate([(0.001, RATE), (9.3, 44_100), (0.9, RATE)]):
        noise = 0.3 * np.random.default_rng(number).standard_normal(max(1, int(seconds * rate)))
        files.append(folder / f"{number}.wav")
        soundfile.write(files[-1], noise, rate, "FLOAT")
    return files


@pytest.mark.parametrize("kind", ["kaldi", "librosa"])
@pytest.mark.parametrize("name", MODELS)
@torch.inference_mode()
def test_a_long_file_in_pieces_gives_what_it_gives_whole(name, kind, sounds, monkeypatch):
    monkeypatch.setattr(windows, "BATCH_SECONDS", 2.5)
    encoder = encoder_of(name, kind=kind)

    framed = embed_frames(encoder, sounds)

    assert framed.offsets[0] == 0 and framed.offsets[-1] == len(framed.embeddings)
    for place, file in enumerate(sounds):
        first, last = framed.offsets[place : place + 2]
        pictures, frames = encoder.pictures(torch.from_numpy(decode(file, RATE))[None], None, None)
        whole = encoder.frames(pictures, frames)[0].numpy()
        np.testing.assert_allclose(framed.embeddings[first:last], whole, atol=1e-4)


@pytest.mark.parametrize("name", ["ast", "mast"])
def test_a_frame_is_the_mean_of_its_columns_tokens(name, sounds):
    encoder = encoder_of(name)
    waveform = torch.from_numpy(decode(sounds[2], RATE))[None]

    framed = embed_frames(encoder, sounds[2:])

    tokens = encoder.inspect(waveform).tokens
    by_hand = tokens.patches.reshape(1, *tokens.grid, -1)[0].mean(0).numpy()
    np.testing.assert_allclose(framed.embeddings, by_hand, atol=1e-4)
    with torch.inference_mode():
        pooled = encoder(waveform)[0].numpy()
    np.testing.assert_allclose(framed.embeddings.mean(0), pooled, atol=1e-4)


def test_times_are_those_of_what_a_column_sees(sounds):
    by_ast, by_mast = (embed_frames(encoder_of(name), sounds[1:2]) for name in ("ast", "mast"))

    # AST: 16 frames of 25 ms every 10 ms, one column every 16 frames.
    assert by_ast.times[:2] == pytest.approx(np.array([[0.0, 0.175], [0.16, 0.335]]))
    # MAST: its stem's 7 frames around every 32nd; the first column's begin before the file.
    assert by_mast.times[:2] == pytest.approx(np.array([[0.0, 0.055], [0.29, 0.375]]))
    places = encoder_of("mast").inspect(torch.zeros(1, RATE)).blocks[-1].queries.seconds
    assert by_mast.times[1:4].mean(1) == pytest.approx(places[1:4].numpy())
    assert by_ast.times.max() <= 9.3 and by_mast.times.max() <= 9.3
    assert by_ast.times.dtype == by_ast.embeddings.dtype == np.float32


def test_a_model_of_fixed_length_gives_the_frames_that_sound(sounds):
    encoder = encoder_of("ast", pad="legacy", legacy_frames=96)

    framed = embed_frames(encoder, sounds)

    # Of 6 columns, one sees the sixteen samples; 0.9 s are 88 frames, which reach into the last.
    assert np.diff(framed.offsets).tolist() == [1, 6, 6]
    assert framed.cut == [str(sounds[1])]
    for place, first in ((1, 1), (2, 7)):
        whole = torch.from_numpy(decode(sounds[place], RATE))[None]
        pictures, frames = encoder.pictures(whole, None, None)
        with torch.inference_mode():
            by_hand = encoder.frames(pictures, frames)[0].numpy()
        np.testing.assert_allclose(framed.embeddings[first : first + 6], by_hand, atol=1e-4)


def test_unreadable_files_are_listed_and_the_file_loads_without_pickle(sounds, tmp_path):
    encoder = encoder_of("ast").train()
    absent = tmp_path / "absent.wav"

    framed = embed_frames(encoder, [sounds[2], absent, sounds[0]])
    write_npz(tmp_path / "frames.npz", framed)

    assert framed.failures == [(str(absent), "missing")] and encoder.training
    with np.load(tmp_path / "frames.npz", allow_pickle=False) as stored:
        assert stored["keys"].tolist() == [str(sounds[2]), str(sounds[0])]
        assert stored["offsets"].tolist() == [0, 6, 7] and stored["offsets"].dtype == np.int64
        assert stored["times"].shape == (7, 2) and stored["embeddings"].shape == (7, 128)


def test_nothing_readable_is_an_empty_result(tmp_path):
    framed = embed_frames(encoder_of("ast"), [tmp_path / "absent.wav"])

    assert (framed.keys, len(framed.embeddings), len(framed.times)) == ([], 0, 0)
    assert framed.offsets.tolist() == [0]
