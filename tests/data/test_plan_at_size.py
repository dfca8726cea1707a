"""Twenty million clips in twenty thousand shards: opened at once, and any place reached at once."""

import json
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from sslaudio.data.layout import INDEX_NAME, OFFSETS, Content, Shard, SplitTotals, Totals

REPO = Path(__file__).parents[2]
SHARDS, CLIPS, BYTES = 20_000, 1_000, 200_000_000

OPENED = """
import json, resource, sys, time
sys.path.insert(0, {repo!r})
import numpy as np, torch
from sslaudio.data.indexed import ShardStream
from sslaudio.data.stream import Config

def megabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

before, began = megabytes(), time.perf_counter()
stream = ShardStream(Config(shards=({folder!r},), batch=512), sample_rate=16_000, seed=0)
opened = time.perf_counter() - began
reached = []
for position in np.random.default_rng(0).integers(0, 3 * stream.clips, 40) // 512 * 512:
    began = time.perf_counter()
    stream.plan.locate(np.arange(position, position + 512))
    reached.append(time.perf_counter() - began)
print(json.dumps([opened, float(max(reached)), megabytes() - before, stream.clips]))
"""


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """An index with its offsets; the tars are holes of the right size."""
    folder = tmp_path_factory.mktemp("simulated")
    rows = np.zeros(CLIPS, OFFSETS)
    rows["marks"] = 1 + (np.arange(CLIPS, dtype=np.uint64) + 1 << np.uint64(8))
    crc32 = zlib.crc32(rows.tobytes())
    digests = [f"{number:064x}" for number in range(SHARDS)]
    shards = [
        Shard(f"sim-{n:06d}.tar", CLIPS, 1e4, BYTES, digest, crc32, {"train": CLIPS}, digest)
        for n, digest in enumerate(digests)
    ]
    for shard in shards:
        with (folder / shard.name).open("wb") as tar:
            tar.truncate(BYTES)
        rows.tofile(folder / shard.offsets_name)
    clips, seconds = SHARDS * CLIPS, SHARDS * 1e4
    train = {"train": SplitTotals(clips, seconds)}
    totals = Totals(clips, seconds, SHARDS * BYTES, 0, train, {}, {"": clips})
    settings = {"corpus": "sim", "sample_rate": 16_000, "codec": "flac"}
    (folder / INDEX_NAME).write_bytes(Content.of(settings, totals, shards).to_json())
    return folder


@pytest.mark.slow
def test_twenty_million_clips_open_in_seconds_and_any_place_in_milliseconds(simulated):
    script = OPENED.format(repo=str(REPO), folder=str(simulated))
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=REPO
    )

    opened, reached, megabytes, clips = json.loads(done.stdout)
    assert clips == 20_000_000
    assert opened < 5
    assert reached < 0.05
    assert megabytes < 500  # beside torch, whose libraries alone may be more than that
