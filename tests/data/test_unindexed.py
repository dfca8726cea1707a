"""Tars without an index: every sample once a pass, shared out, in another order each pass."""

import gzip
import itertools
import tarfile
from collections import Counter

import numpy as np
import pytest
from data.tones import check_batch

from sslaudio.data.index import Index
from sslaudio.data.stream import Config
from sslaudio.data.streams import stream_for
from sslaudio.data.unindexed import TarStream


@pytest.fixture
def tars(shards_folder, tmp_path):
    """The five tars of 50 clips (30 train), without their index; as one entry with braces."""
    for tar in shards_folder.glob("*.tar"):
        (tmp_path / tar.name).write_bytes(tar.read_bytes())
    return f"{tmp_path}/toy-{{000000..000004}}.tar"


def stream_of(*entries, rank=0, ranks=1, seed=0, **settings) -> TarStream:
    settings = {"batch": 6, "clip_seconds": 0.06, **settings}
    config = Config(shards=entries, **settings)
    found = stream_for(config)(config, sample_rate=16_000, seed=seed, rank=rank, ranks=ranks)
    assert isinstance(found, TarStream)
    return found


def taken(stream, count, position=0):
    return list(itertools.islice(stream.batches(position), count))


def keys(batches) -> list[str]:
    return [key for batch in batches for key in batch.keys]


TRAINING = {f"clip_{number:03d}" for number in range(50) if number % 5 < 3}


def test_a_pass_holds_every_training_clip_once_and_the_next_has_another_order(tars):
    batches = taken(stream_of(tars), 15)

    passes = [keys(batches[5 * number : 5 * number + 5]) for number in range(3)]
    assert [Counter(one) for one in passes] == [Counter(TRAINING)] * 3
    assert len(set(map(tuple, passes))) == 3


def test_a_batch_holds_the_sound_and_what_is_told_of_it(tars):
    for batch in taken(stream_of(tars), 5):
        check_batch(batch)


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [1, 2])
def test_ranks_and_workers_share_a_pass(tars, workers):
    # 5 tars for 2 or 4 takers; every one of these hears tars of its own.
    heard = [
        keys(taken(stream_of(tars, rank=rank, ranks=2, workers=workers, batch=2), 60))
        for rank in range(2)
    ]

    first = [Counter(one) for one in heard]
    assert set(first[0]) | set(first[1]) == TRAINING
    counts = first[0] + first[1]
    assert max(counts.values()) <= 3 * min(counts.values()) + 3


def test_fewer_tars_than_takers_share_the_samples(tars):
    one = tars.replace("{000000..000004}", "000000")
    with tarfile.open(one) as tar:
        names = {member.name.partition(".")[0] for member in tar.getmembers()}
    training = names & TRAINING

    found = [keys(taken(stream_of(one, rank=r, ranks=2, batch=2), 5)) for r in range(2)]

    assert set(found[0]) | set(found[1]) == training
    assert not set(found[0]) & set(found[1])


def test_the_same_seed_gives_the_same_and_a_resumed_run_an_order_of_its_own(tars):
    assert keys(taken(stream_of(tars), 4)) == keys(taken(stream_of(tars), 4))
    assert keys(taken(stream_of(tars), 4)) != keys(taken(stream_of(tars, seed=1), 4))
    assert keys(taken(stream_of(tars), 4)) != keys(taken(stream_of(tars), 4, position=60))


def test_a_pipe_is_read(tars):
    files = tars.replace("toy-{000000..000004}.tar", "")

    found = taken(stream_of(f"pipe:cat {files}toy-000001.tar", batch=2), 3)

    assert set(keys(found)) <= TRAINING


def test_damaged_sounds_and_tars_are_counted_and_the_others_heard(tars, tmp_path):
    (tmp_path / "toy-000003.tar").write_bytes(b"no tar" * 1_000)
    data = bytearray((tmp_path / "toy-000000.tar").read_bytes())
    at = data.find(b"fLaC")
    data[at : at + 400] = bytes(400)
    (tmp_path / "toy-000000.tar").write_bytes(data)
    stream = stream_of(tars, corrupt_share=1.0)

    taken(stream, 10)

    assert stream.tally.kinds["tar"] >= 1
    assert {one["kind"] for one in stream.tally.take()} <= {"decode", "tar"}


def test_tars_that_are_not_there_are_one_clear_error(tmp_path):
    with pytest.raises(ValueError, match=r"no clip of split 'train' could be heard in .*none\.tar"):
        taken(stream_of(str(tmp_path / "none.tar")), 1)


def test_folders_and_tars_do_not_mix_and_rules_need_an_index(tars, shards_folder, tmp_path):
    (tmp_path / "rules.txt").write_text("speaker:anna\n")

    with pytest.raises(ValueError, match=r"the tar .* and the folder .*shards index"):
        stream_for(Config(shards=(tars, str(shards_folder))))
    with pytest.raises(ValueError, match=r"data\.exclude needs an index.*shards index"):
        stream_of(tars, exclude=(str(tmp_path / "rules.txt"),))


def test_whole_clips_are_the_first_of_a_pass(tars, shards_folder):
    found = list(stream_of(tars).whole_clips(4))

    lengths = sorted(
        example.samples
        for example in Index.open(shards_folder).examples()
        if example.fields["split"] == "train"
    )
    assert len(found) == 4 and all(len(one) in lengths for one in found)
    assert all(np.ptp(one.numpy()) == 0 for one in found)


@pytest.mark.parametrize(("name", "size"), [("bomb.wav", 2**30 + 1), ("bomb.json", 2**20 + 1)])
def test_a_tar_bomb_is_refused_before_it_is_read(shards_folder, tmp_path, name, size):
    header = tarfile.TarInfo(name)
    header.size = size
    with gzip.open(tmp_path / "bomb.tar.gz", "wb") as file:
        tar = (shards_folder / "toy-000000.tar").read_bytes()
        file.write(tar[: tar.rindex(b"}") // 512 * 512 + 512])  # all but the tar's end
        file.write(header.tobuf())
    stream = stream_of(str(tmp_path / "bomb.tar.gz"))

    [batch, *_] = taken(stream, 3)

    [told] = {one for one in stream.tally.listed if one.kind == "tar"}
    assert told.reason == f"{name} has {size} bytes"
    assert set(batch.keys) <= TRAINING
