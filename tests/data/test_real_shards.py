"""The real corpora, where they are at hand, built, verified and streamed whole."""

import io
import os
from pathlib import Path

import pytest
import soundfile
import webdataset

from sslaudio import plugins
from sslaudio.data.indexed import ShardStream
from sslaudio.data.progress import silent
from sslaudio.data.shards import build
from sslaudio.data.stream import Config
from sslaudio.data.verify import verify

REAL = Path(os.environ.get("SSLAUDIO_DATA", Path(__file__).parents[3] / "shared" / "data"))

CORPORA = {"speech_commands": ("speech_commands", 3_776), "fsdd": ("fsdd", 2_000)}
CORPORA["esc50"] = ("esc10", 310)


@pytest.mark.slow
@pytest.mark.parametrize("corpus", CORPORA)
def test_a_real_corpus_from_files_to_batches(tmp_path, corpus):
    folder, clips = CORPORA[corpus]
    if not (REAL / folder).is_dir():
        pytest.skip(f"{folder} is not in {REAL}; set SSLAUDIO_DATA")
    importer = plugins.load("corpora", corpus)

    index, _ = build(
        importer.build(importer.Config(), REAL / folder), tmp_path, corpus=corpus, progress=silent
    )

    assert (index.totals.clips, index.totals.rejected) == (clips, 0)
    assert verify(tmp_path, progress=silent) == []
    tars = [str(path) for path in sorted(tmp_path.glob("*.tar"))]
    seconds = 0.0
    for sample in webdataset.WebDataset(tars, shardshuffle=False):
        sound = soundfile.info(io.BytesIO(sample["flac"]))
        assert (sound.samplerate, sound.channels, sound.subtype) == (16_000, 1, "PCM_16")
        seconds += sound.duration
    assert seconds == pytest.approx(index.totals.seconds)
    stream = ShardStream(
        Config((str(tmp_path),), batch=100, split="all"), sample_rate=16_000, seed=0
    )
    heard: list[str] = []
    for batch in stream.batches():
        heard += batch.keys
        if len(heard) >= clips:
            break
    assert len(set(heard[:clips])) == clips
