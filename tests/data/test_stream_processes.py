"""The stream under real processes: two gloo ranks with workers, and a parent that is killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]

RANK = """
import itertools, json, sys
sys.path.insert(0, {repo!r})
import torch.distributed as dist
from sslaudio.data.indexed import ShardStream
from sslaudio.data.stream import Config

def main():
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    workers = {workers} if {workers} else 2 * rank
    config = Config(shards={shards!r}, batch={batch}, clip_seconds=0.06, workers=workers)
    stream = ShardStream(config, sample_rate=16_000, seed=3, rank=rank, ranks=ranks)
    mine = [b.keys for b in itertools.islice(stream.batches({position}), {steps})]
    everyone = [None] * ranks
    dist.all_gather_object(everyone, mine)
    if rank == 0:
        print(json.dumps(everyone))
    dist.destroy_process_group()

if __name__ == "__main__":
    main()
"""

READER = """
import os, sys
sys.path.insert(0, {repo!r})
from sslaudio.data.indexed import ShardStream
from sslaudio.data.stream import Config

def main():
    config = Config(shards=({folder!r},), batch=6, clip_seconds=0.06, workers=2)
    stream = ShardStream(config, sample_rate=16_000, seed=0)
    for batch in stream.batches(0):
        print("ready", flush=True)

if __name__ == "__main__":
    main()
"""


def run_ranks(tmp_path, folders, position, steps, batch=10, ranks=2, workers=0):
    """Keys by rank, micro-batch and clip; without ``workers`` the second rank alone has two."""
    script = tmp_path / "rank.py"
    told = {"position": position, "steps": steps, "batch": batch, "workers": workers}
    shards = tuple(str(folder) for folder in folders)
    script.write_text(RANK.format(repo=str(REPO), shards=shards, **told))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script)],
            env={**environment, "RANK": str(rank), "WORLD_SIZE": str(ranks)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]
    output = processes[0].communicate(timeout=280)[0]
    assert [process.wait(timeout=30) for process in processes] == [0] * ranks
    return json.loads(output)


def test_two_gloo_ranks_cover_the_corpus_disjointly_epoch_after_epoch(
    tmp_path, shards_folder, second_folder
):
    # 30 + 20 training clips, 10 a step: five steps are an epoch.
    ranks = run_ranks(tmp_path, (shards_folder, second_folder), position=0, steps=15)

    corpus = {f"clip_{n:03d}" for n in range(50) if n % 5 < 3}
    corpus |= {f"second_clip_{n:03d}" for n in range(20)}
    orders = set()
    for epoch in range(3):
        heard = [[k for batch in rank[5 * epoch : 5 * epoch + 5] for k in batch] for rank in ranks]
        assert not set(heard[0]) & set(heard[1])
        assert Counter(heard[0] + heard[1]) == Counter(corpus)
        orders.add(tuple(heard[0]))
    assert len(orders) == 3


@pytest.mark.slow
def test_four_ranks_of_three_workers_cover_each_epoch_once_also_after_a_resume(
    tmp_path, shards_folder, second_folder
):
    # 5 + 4 shards and 50 clips; neither divides by 4 ranks or 12 workers. An epoch is 2.5 steps.
    folders, settings = (shards_folder, second_folder), {"batch": 20, "ranks": 4, "workers": 3}
    before = run_ranks(tmp_path, folders, position=0, steps=4, **settings)
    after = run_ranks(tmp_path, folders, position=80, steps=6, **settings)

    corpus = {f"clip_{n:03d}" for n in range(50) if n % 5 < 3}
    corpus |= {f"second_clip_{n:03d}" for n in range(20)}
    order = [key for run in (before, after) for step in zip(*run, strict=True) for part in step
             for key in part]  # fmt: skip
    assert len(order) == 200
    for epoch in range(4):
        assert Counter(order[50 * epoch : 50 * epoch + 50]) == Counter(corpus)


def test_workers_die_when_their_parent_is_killed(tmp_path, shards_folder):
    script = tmp_path / "reader.py"
    script.write_text(READER.format(repo=str(REPO), folder=str(shards_folder)))
    reader = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert reader.stdout.readline() == "ready\n"
        assert len(living_in_session(reader.pid)) > 2
    finally:
        reader.send_signal(signal.SIGKILL)
        reader.wait()

    deadline = time.monotonic() + 20
    while living_in_session(reader.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert living_in_session(reader.pid) == []


def living_in_session(session: int) -> list[int]:
    """Processes of a session that run, from /proc; those that ended but wait for init don't."""
    living = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            state, _, _, its_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(its_session) == session and state != "Z":
            living.append(int(folder.name))
    return living
