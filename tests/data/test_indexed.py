import itertools
import shutil
import tarfile
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch
from data.tones import check_batch

from sslaudio.data.corpora.base import Clip
from sslaudio.data.decode import decode
from sslaudio.data.index import Index
from sslaudio.data.indexed import ShardStream
from sslaudio.data.kept import Sound, in_16_bits
from sslaudio.data.progress import silent
from sslaudio.data.shards import build
from sslaudio.data.stream import Config


def stream_of(*folders, rank=0, ranks=1, accumulation=1, seed=0, sample_rate=16_000, **settings):
    settings = {"batch": 6, "clip_seconds": 0.06, **settings}
    config = Config(shards=tuple(map(str, folders)), **settings)
    return ShardStream(
        config,
        sample_rate=sample_rate,
        seed=seed,
        rank=rank,
        ranks=ranks,
        accumulation=accumulation,
    )


def taken(stream, batches, position=0):
    return list(itertools.islice(stream.batches(position), batches))


def keys(batches):
    return [key for batch in batches for key in batch.keys]


@pytest.fixture(scope="module")
def ramps_folder(tmp_path_factory):
    """12 clips of half a second; each sample of clip n is its place / 20,000."""
    folder = tmp_path_factory.mktemp("ramps")
    clips = []
    for number in range(12):
        path = folder / f"{number}.wav"
        soundfile.write(path, np.arange(8_000) / 20_000, 16_000, "PCM_16")
        clips.append(Clip(path, path.name, split="train"))
    build(clips, folder / "out", corpus="ramps", clips_per_shard=4, jobs=1, progress=silent)
    return folder / "out"


def test_an_epoch_holds_every_training_clip_once_and_no_other(shards_folder):
    stream = stream_of(shards_folder)

    found = keys(taken(stream, 5))

    training = {f"clip_{number:03d}" for number in range(50) if number % 5 < 3}
    assert stream.clips == 30
    assert set(found) == training
    assert len(found) == 30


def test_a_batch_holds_the_sound_padded_with_zeros_and_its_length(shards_folder):
    batch = taken(stream_of(shards_folder), 1)[0]

    check_batch(batch)
    assert not batch.sources.any()


def test_seconds_count_the_selected_sound(shards_folder, tmp_path):
    (tmp_path / "rules.txt").write_text("speaker:anna\n")
    whole = stream_of(shards_folder)
    less = stream_of(shards_folder, exclude=(str(tmp_path / "rules.txt"),))

    training = [number for number in range(50) if number % 5 < 3]
    assert whole.seconds == pytest.approx(sum(800 + n for n in training) / 16_000)
    kept = [number for number in training if number % 3]
    assert less.seconds == pytest.approx(sum(800 + n for n in kept) / 16_000)
    assert less.clips == len(kept)
    assert sorted(keys(taken(less, len(kept)))) == sorted(
        f"clip_{n:03d}" for n in kept for _ in range(6)
    )


@pytest.mark.parametrize(("split", "clips"), [("validation", 10), ("test", 10), ("all", 50)])
def test_other_splits_are_read_when_asked_for(shards_folder, split, clips):
    assert stream_of(shards_folder, split=split).clips == clips


def test_clips_without_a_split_train_and_noise_does_not(tmp_path, make_clips):
    clips = make_clips(tmp_path / "in", 9)
    splits = (None, "train", "noise")
    clips = [
        Clip(clip.path, clip.source, split=splits[number % 3]) for number, clip in enumerate(clips)
    ]
    build(clips, tmp_path / "out", corpus="toy", jobs=1, progress=silent)

    assert stream_of(tmp_path / "out", batch=2).clips == 6
    assert stream_of(tmp_path / "out", batch=2, split="noise").clips == 3
    assert stream_of(tmp_path / "out", batch=2, split="all").clips == 9


def test_crops_are_true_pieces_at_places_spread_over_the_clip(ramps_folder):
    stream = stream_of(ramps_folder, clip_seconds=0.1)

    batches = taken(stream, 40)

    starts = []
    for batch in batches:
        assert (batch.lengths == 1_600).all()
        starts += [round(float(waveform[0]) * 20_000) for waveform in batch.waveforms]
        steps = batch.waveforms.diff(dim=1)
        assert torch.allclose(steps, torch.tensor(1 / 20_000), atol=1 / 16_384)
    # 240 draws of 0 to 6,400: both ends are near, the mean is 3,200 +- 120.
    assert 0 <= min(starts) < 300
    assert 6_100 < max(starts) <= 6_400
    assert abs(np.mean(starts) - 3_200) < 500


def test_a_clip_is_cropped_elsewhere_the_next_time(ramps_folder):
    stream = stream_of(ramps_folder, clip_seconds=0.1)

    places = Counter()
    for batch in taken(stream, 10):
        places.update(zip(batch.keys, batch.waveforms[:, 0].tolist(), strict=True))

    assert len(places) > 55  # 60 draws


def test_a_start_at_any_position_gives_the_tail_with_the_same_crops(ramps_folder):
    whole = taken(stream_of(ramps_folder, clip_seconds=0.1), 8)

    tail = taken(stream_of(ramps_folder, clip_seconds=0.1), 5, position=18)

    for batch, expected in zip(tail, whole[3:], strict=True):
        assert batch.keys == expected.keys
        assert torch.equal(batch.waveforms, expected.waveforms)


def test_another_seed_gives_another_order(shards_folder):
    first, second = (keys(taken(stream_of(shards_folder, seed=seed), 5)) for seed in (0, 1))

    assert first != second
    assert sorted(first) == sorted(second)


@pytest.mark.parametrize(("ranks", "accumulation"), [(2, 1), (1, 3), (2, 3), (3, 2)])
def test_ranks_and_accumulation_share_the_batch_of_one_process(
    shards_folder, second_folder, ranks, accumulation
):
    whole = taken(stream_of(shards_folder, second_folder, batch=12), 10)
    shared = [
        taken(
            stream_of(
                shards_folder,
                second_folder,
                batch=12,
                rank=rank,
                ranks=ranks,
                accumulation=accumulation,
            ),
            10 * accumulation,
        )
        for rank in range(ranks)
    ]

    for step, batch in enumerate(whole):
        parts = [
            shared[rank][step * accumulation + turn]
            for turn in range(accumulation)
            for rank in range(ranks)
        ]
        assert keys(parts) == batch.keys
        assert torch.equal(torch.cat([part.waveforms for part in parts]), batch.waveforms)


def test_batches_run_across_the_end_of_an_epoch(shards_folder):
    stream = stream_of(shards_folder, batch=8)

    found = keys(taken(stream, 15))  # 120 clips: four epochs of 30

    assert set(Counter(found).values()) == {4}
    assert [stream.epoch(position) for position in (0, 29, 30, 119, 120)] == [0, 0, 1, 3, 4]
    orders = {tuple(found[start : start + 30]) for start in range(0, 120, 30)}
    assert len(orders) == 4


def test_weights_and_sources(shards_folder, second_folder):
    stream = stream_of(shards_folder, f"{second_folder}=2.5", batch=10)

    batches = taken(stream, 8)  # 80 draws: an epoch of 30 + 50

    sources = torch.cat([batch.sources for batch in batches])
    assert (sources == 0).sum() == 30
    assert (sources == 1).sum() == 50
    assert stream.plan.epoch_clips == 80
    second = [key for key in keys(batches) if key.startswith("second_")]
    assert set(Counter(second).values()) == {2, 3}


def test_whole_clips_are_every_selected_file_once_in_the_order_of_the_shards(
    shards_folder, second_folder
):
    stream = stream_of(shards_folder, f"{second_folder}=2.5", batch=4)

    clips = list(stream.whole_clips())

    expected = [
        decode(example.shard, 16_000, byte_range=example.byte_range)
        for folder in (shards_folder, second_folder)
        for example in Index.open(folder).examples()
        if example.fields.get("split", "train") == "train"
    ]
    assert stream.sample_rate == 16_000
    assert len(clips) == stream.clips == 50
    assert {clip.dtype for clip in clips} == {torch.float32}
    for clip, sound in zip(clips, expected, strict=True):
        np.testing.assert_array_equal(clip.numpy(), sound)


@pytest.mark.parametrize("most", [1, 7, 29, 30, 99])
def test_some_of_the_whole_clips_are_spread_evenly_over_all(shards_folder, most):
    stream = stream_of(shards_folder)
    every = [clip.numpy() for clip in stream.whole_clips()]

    some = [clip.numpy() for clip in stream.whole_clips(most)]

    wanted = [number * 30 // most for number in range(most)] if most < 30 else range(30)
    assert [len(clip) for clip in some] == [len(every[number]) for number in wanted]
    assert all((clip == every[number]).all() for clip, number in zip(some, wanted, strict=True))


def test_no_whole_clips_at_all_are_refused(shards_folder):
    with pytest.raises(ValueError, match="no 0 clips to take; ask for 1 or more"):
        stream_of(shards_folder).whole_clips(0)


def test_a_corrupt_clip_is_left_out_with_a_warning_when_taken_whole(corrupt_folder):
    with pytest.warns(UserWarning, match=r"left out: .*toy-000001\.tar: clip clip_\d+ is corrupt"):
        whole = list(stream_of(corrupt_folder).whole_clips())

    assert len(whole) == 30 - len(corrupt_training(corrupt_folder))


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3")
@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_order_does_not_depend_on_the_workers(shards_folder, second_folder, workers):
    folders = (shards_folder, second_folder)
    alone = taken(stream_of(*folders), 7, position=12)

    helped = taken(stream_of(*folders, workers=workers), 7, position=12)

    for batch, expected in zip(helped, alone, strict=True):
        assert batch.keys == expected.keys
        assert batch.recordings == expected.recordings
        assert torch.equal(batch.waveforms, expected.waveforms)
        assert torch.equal(batch.lengths, expected.lengths)


@pytest.fixture
def corrupt_folder(shards_folder, tmp_path):
    copy = shutil.copytree(shards_folder, tmp_path / "copy")
    tar = copy / "toy-000001.tar"
    data = bytearray(tar.read_bytes())
    for start in range(0, len(data), 512):
        if data[start : start + 4] == b"fLaC":
            data[start : start + 400] = bytes(400)
    tar.write_bytes(data)
    return copy


def corrupt_training(folder) -> set[str]:
    """Keys of the training clips in the shard that was damaged, from the tar's own names."""
    with tarfile.open(folder / "toy-000001.tar") as tar:
        names = {member.name.partition(".")[0] for member in tar.getmembers()}
    return {name for name in names if int(name[-3:]) % 5 < 3}


@pytest.mark.parametrize("workers", [0, 1])
def test_another_clip_takes_the_place_of_a_corrupt_one(corrupt_folder, workers):
    damaged = corrupt_training(corrupt_folder)
    stream = stream_of(corrupt_folder, workers=workers)

    epoch = taken(stream, 5)

    left_out = [one for batch in epoch for one in batch.corrupt if one is not None]
    assert {one.key for one in left_out} == damaged
    assert {one.kind for one in left_out} == {"checksum"}
    heard = set(keys(epoch))
    assert len(keys(epoch)) == 30
    assert heard == {f"clip_{n:03d}" for n in range(50) if n % 5 < 3} - damaged
    assert stream.tally.epoch(0).tolist() == [[30 - len(damaged)], [len(damaged)]]
    assert len(stream.tally.take()) == len(damaged)
    assert stream.tally.take() == []


@pytest.mark.parametrize("seed", range(5))
def test_a_stand_in_is_of_no_recording_that_its_batch_hears(corrupt_folder, seed):
    epoch = taken(stream_of(corrupt_folder, seed=seed), 5)

    assert any(one for batch in epoch for one in batch.corrupt)
    for batch in epoch:
        of_itself = [
            recording
            for recording, corrupt in zip(batch.recordings, batch.corrupt, strict=True)
            if corrupt is None
        ]
        for recording, corrupt in zip(batch.recordings, batch.corrupt, strict=True):
            assert corrupt is None or recording not in of_itself


def test_weights_that_no_epoch_can_have_are_refused(shards_folder, second_folder):
    for weight in ("1e300", "3e8"):
        with pytest.raises(ValueError, match=r"weights of data\.shards make an epoch of .*lower"):
            stream_of(shards_folder, f"{second_folder}={weight}")


def test_a_corrupt_clip_has_the_same_stand_in_wherever_the_stream_starts(corrupt_folder):
    whole = taken(stream_of(corrupt_folder), 10)

    again = taken(stream_of(corrupt_folder), 4, position=36)

    assert keys(again) == keys(whole[6:])


@pytest.mark.parametrize("workers", [0, 1])
def test_too_much_that_is_corrupt_stops_the_run_with_one_clear_error(corrupt_folder, workers):
    stream = stream_of(corrupt_folder, workers=workers)

    with pytest.raises(ValueError, match=r"of 1\d\d\d clips are corrupt .*corrupt_share") as caught:
        taken(stream, 300)

    assert "\n" not in str(caught.value)
    assert "toy-000001.tar" in str(caught.value)
    assert "sslaudio shards verify" in str(caught.value)


def test_corrupt_clips_in_a_row_stop_the_run(corrupt_folder):
    for number in (0, 2, 3, 4):
        tar = corrupt_folder / f"toy-00000{number}.tar"
        tar.write_bytes(bytes(tar.stat().st_size))
    stream = stream_of(corrupt_folder, corrupt_in_a_row=5)

    with pytest.raises(ValueError, match=r"toy-00000\d\.tar: clip .* is corrupt"):
        taken(stream, 1)  # and nothing can stand in


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch": 31}, r"data\.batch is 31.*30 clips.*set data\.batch to 30"),
        ({"batch": 10, "ranks": 3}, r"data\.batch is 10.*3 processes x 1.*set data\.batch to 12"),
        ({"batch": 8, "ranks": 2, "accumulation": 3}, r"2 processes x 3.*multiple of 6"),
        ({"batch": 0}, r"data\.batch is 0"),
        ({"clip_seconds": 0.0}, r"data\.clip_seconds is 0"),
        ({"clip_seconds": float("nan")}, r"data\.clip_seconds is nan"),
        ({"workers": -1}, r"data\.workers is -1"),
        ({"sample_rate": 8_000}, "16000 Hz.*wants 8000 Hz.*--sample-rate 8000"),
        ({"split": "noise"}, "no clip of data.split 'noise'.*train, validation, test"),
        ({"rank": 2, "ranks": 2}, "no rank 2 of 2 processes"),
    ],
)
def test_a_wrong_setting_says_what_to_change(shards_folder, settings, words):
    with pytest.raises(ValueError, match=words):
        stream_of(shards_folder, **settings)


@pytest.mark.parametrize(
    ("tail", "words"),
    [("=0", "a weight is above 0"), ("=nan", "a weight is above 0"), ("=x", "'x' is no number")],
)
def test_a_wrong_weight_says_what_to_change(shards_folder, tail, words):
    with pytest.raises(ValueError, match=words):
        stream_of(f"{shards_folder}{tail}")


def test_no_folder_or_one_twice_is_refused(shards_folder):
    with pytest.raises(ValueError, match=r"data\.shards names no folder.*shards build"):
        stream_of()
    with pytest.raises(ValueError, match="twice; name it once, as DIR=2"):
        stream_of(shards_folder, f"{shards_folder}=2")


def test_a_missing_folder_is_one_clear_error(tmp_path):
    with pytest.raises(ValueError, match=r"no folder of shards.*sslaudio shards build"):
        stream_of(tmp_path / "nowhere")


def test_a_folder_may_have_an_equals_sign_in_its_name(shards_folder, tmp_path):
    copy = shutil.copytree(shards_folder, tmp_path / "rate=16")

    assert stream_of(copy).clips == 30


@pytest.mark.parametrize("workers", [0, 2])
def test_kept_clips_are_the_decoded_ones_to_the_bit(ramps_folder, workers):
    settings = {"batch": 4, "clip_seconds": 0.1}
    decoded = taken(stream_of(ramps_folder, kept_megabytes=0, **settings), 9)  # three epochs

    kept = taken(stream_of(ramps_folder, kept_megabytes=1, workers=workers, **settings), 9)

    for one, other in zip(decoded, kept, strict=True):
        assert torch.equal(one.waveforms, other.waveforms)
        assert torch.equal(one.lengths, other.lengths)
        assert (one.keys, one.recordings) == (other.keys, other.recordings)


def test_clips_stay_until_the_room_is_full_and_only_lossless_ones(
    ramps_folder, make_clips, tmp_path
):
    stream = stream_of(ramps_folder, batch=12, kept_megabytes=1)
    stream.crops.kept.room_bytes = 5 * 16_000 + 1  # five clips of 8,000 samples, 2 bytes each
    lossy = tmp_path / "ogg"
    build(
        make_clips(tmp_path / "sounds", 6), lossy, corpus="x", codec="ogg", jobs=1, progress=silent
    )
    heard = stream_of(lossy, split="all")

    taken(stream, 2)
    taken(heard, 2)

    assert len(stream.crops.kept.sounds) == 5
    assert heard.crops.kept.sounds == {}


def test_extreme_samples_come_back_from_16_bits():
    edges = np.array([-1, -0.5, 0, 1 / 32_768, 32_767 / 32_768], np.float32)

    assert (Sound("", None, in_16_bits(edges)).crop(0, 5) == edges).all()
