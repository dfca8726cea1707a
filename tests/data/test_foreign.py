"""Tars that others made, once they have an index: the same sound, wherever it lies in them."""

import io
import itertools
import json
import tarfile

import numpy as np
import pytest
import soundfile
import webdataset

from sslaudio.data.decode import decode_bytes
from sslaudio.data.foreign import index
from sslaudio.data.index import Index
from sslaudio.data.indexed import ShardStream
from sslaudio.data.progress import silent
from sslaudio.data.stream import Config
from sslaudio.data.verify import verify

FORMATS = {"wav": ("WAV", "PCM_16"), "flac": ("FLAC", "PCM_16"), "ogg": ("OGG", "VORBIS"),
           "mp3": ("MP3", "MPEG_LAYER_III"), "opus": ("OGG", "OPUS")}  # fmt: skip


def encoded(suffix: str, number: int, rate: int, channels: int) -> bytes:
    """A quarter of a second of a tone of its own."""
    seconds = np.arange(rate // 4) / rate
    tone = 0.5 * np.sin(2 * np.pi * (300 + 50 * number) * seconds)
    kind, subtype = FORMATS[suffix]
    file = io.BytesIO()
    soundfile.write(file, np.stack([tone] * channels, 1), rate, subtype, format=kind)
    return file.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


@pytest.fixture
def made(tmp_path):
    """Two tars of strangers, of all formats and orders of members; and their sounds by key."""
    sounds = {}
    cases = [("wav", 44_100, 2), ("flac", 16_000, 1), ("ogg", 48_000, 1), ("mp3", 22_050, 1)]
    cases += [("wav", 44_100, 2), ("flac", 16_000, 1), ("opus", 48_000, 1), ("mp3", 22_050, 1)]
    for shard in range(2):
        with tarfile.open(tmp_path / f"part-{shard}.tar", "w", format=tarfile.PAX_FORMAT) as tar:
            add(tar, "README.txt", b"of no one's making")
            for number, (suffix, rate, channels) in enumerate(cases):
                key = f"voices/{shard}-{number}" if number else f"{'ü' * 60}/long-{shard}"
                audio = encoded(suffix, number, rate, channels)
                text = json.dumps({"recording": number // 2, "split": "train"}).encode()
                if number % 3 == 0:
                    add(tar, f"{key}.json", text)
                add(tar, f"{key}.{suffix}", audio)
                if number % 3 == 1:
                    add(tar, f"{key}.txt", b"a caption")
                    add(tar, f"{key}.json", text)
                sounds[shard, number] = audio
    return tmp_path, sounds


def test_every_sound_of_every_format_is_found_and_heard(made):
    folder, sounds = made

    found = index(folder, jobs=1, progress=silent)

    assert [shard.samples for shard in found.shards] == [8, 8]
    for (shard, number), audio in sounds.items():
        clip = found.clip(shard, number)
        assert clip.audio == audio
        assert clip.samples == len(decode_bytes(audio, 16_000))
        expected = {} if number % 3 == 2 else {"recording": number // 2, "split": "train"}
        assert clip.fields == expected
    assert found.clip(1, 3).key == "voices/1-3"
    assert verify(folder, jobs=1, progress=silent) == []


def test_a_stream_hears_the_right_piece_at_the_stream_s_rate(made):
    folder, _ = made
    index(folder, jobs=1, progress=silent)
    config = Config(shards=(str(folder),), batch=4, clip_seconds=0.1)

    batches = list(itertools.islice(ShardStream(config, sample_rate=16_000, seed=0).batches(), 8))

    assert sum(len(batch.keys) for batch in batches) == 32
    for batch in batches:
        assert batch.corrupt == [None] * 4
        assert batch.lengths.tolist() == [1_600] * 4
        for key, waveform in zip(batch.keys, batch.waveforms.numpy(), strict=True):
            number = int(key.rpartition("-")[2]) if key.startswith("voices") else 0
            peak = np.abs(np.fft.rfft(waveform)).argmax() * 10  # bins of 10 Hz
            assert abs(peak - (300 + 50 * number)) <= 10


def test_plain_webdataset_and_we_give_the_same_samples(made):
    folder, _ = made
    ours = index(folder, jobs=1, progress=silent)

    theirs = webdataset.WebDataset(str(folder / "part-0.tar"), shardshuffle=False)

    sounds = [sample[suffix] for sample in theirs for suffix in FORMATS if suffix in sample]
    assert sounds == [ours.clip(0, number).audio for number in range(8)]


def test_what_cannot_be_decoded_is_left_out_and_listed(made):
    folder, _ = made
    with tarfile.open(folder / "part-2.tar", "w") as tar:
        add(tar, "good.wav", encoded("wav", 1, 16_000, 1))
        add(tar, "noise.flac", b"fLaC" + bytes(100))
        add(tar, "empty.wav", b"")
        add(tar, "broken.wav", encoded("wav", 1, 16_000, 1))
        add(tar, "broken.json", b"{")

    found = index(folder, jobs=1, progress=silent)

    assert found.shards[2].samples == 1
    listed = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    reasons = {one["source"].rpartition("/")[2]: one["reason"] for one in listed}
    assert reasons.pop("noise.flac").startswith("cannot be decoded")
    assert reasons == {"empty.wav": "empty: 0 bytes", "broken.wav": "its JSON is broken"}


def test_a_truncated_tar_gives_what_is_whole_and_says_so(made):
    folder, _ = made
    tar = folder / "part-1.tar"
    tar.write_bytes(tar.read_bytes()[: tar.stat().st_size // 2])

    found = index(folder, jobs=1, progress=silent)

    assert 0 < found.shards[1].samples < 8
    assert "part-1.tar" in (folder / "rejected.jsonl").read_text()


def test_a_label_that_is_no_text_is_left_out_and_the_index_can_be_read(made):
    folder, _ = made
    with tarfile.open(folder / "part-2.tar", "w") as tar:
        add(tar, "half.wav", encoded("wav", 1, 16_000, 1))
        add(tar, "half.json", b'{"label": "\\ud800"}')
        add(tar, "whole.wav", encoded("wav", 1, 16_000, 1))
        add(tar, "whole.json", b'{"label": "\\ud83d\\udc15"}')

    found = index(folder, jobs=1, progress=silent)

    assert found.totals.labels == {"🐕": 1}
    assert '"part-2.tar/half.wav", "reason": "its JSON is broken"' in (
        folder / "rejected.jsonl"
    ).read_text(encoding="utf-8")


def test_headers_of_a_gigabyte_are_listed_and_not_read(made):
    folder, _ = made
    header = tarfile.TarInfo("headers")
    header.type, header.size = tarfile.XHDTYPE, 1 << 30
    with (folder / "part-2.tar").open("wb") as file:
        file.write(header.tobuf(tarfile.USTAR_FORMAT))
        file.truncate(header.size + 10_240)  # of holes: it takes no disk

    assert index(folder, jobs=1, progress=silent).totals.clips == 16
    told = (folder / "rejected.jsonl").read_text(encoding="utf-8")
    assert "part-2.tar" in told
    assert "more than 1048576 bytes of headers before a file" in told


def test_a_tar_that_changed_after_it_was_indexed_is_refused(made):
    folder, _ = made
    index(folder, jobs=1, progress=silent)
    with (folder / "part-0.tar").open("ab") as tar:
        tar.write(bytes(512))

    with pytest.raises(ValueError, match=r"part-0\.tar is altered.*shards verify"):
        Index.open(folder)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((), r"holds no \.tar"),
        (("below/a.tar",), r"holds no \.tar; there are some in .*below"),
        (("a.tar.gz",), r"a\.tar\.gz is compressed.*gunzip"),
    ],
)
def test_a_folder_without_plain_tars_says_what_to_do(tmp_path, files, words):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")

    with pytest.raises(ValueError, match=words):
        index(tmp_path, jobs=1, progress=silent)


def test_tars_without_sound_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        add(tar, "a.jpg", b"no sound")

    with pytest.raises(ValueError, match=r"no tar of .* holds a sound: looked for members \.wav"):
        index(tmp_path, jobs=1, progress=silent)


def test_our_own_shards_need_no_index(shards_folder):
    with pytest.raises(ValueError, match="shards of our own"):
        index(shards_folder, jobs=1, progress=silent)
