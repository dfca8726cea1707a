import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
{before}
def fault_count():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    torch.ones(2_000_000)
before = fault_count()
for _ in range(20):
    torch.ones(2_000_000)
print(fault_count() - before)
"""


def faults(before: str) -> int:
    """Page faults of making and dropping 8 MB twenty times, 2,000 pages each."""
    program = FAULTS.format(before=before)
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_freed_memory_is_used_again():
    kept = faults("from sslaudio.training.memory import reuse_freed_memory; reuse_freed_memory()")

    assert kept < 100
