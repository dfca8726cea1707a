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
    torch.ones({values})
before = fault_count()
for _ in range(20):
    torch.ones({values})
print(fault_count() - before)
"""


def faults(before: str, values: int) -> int:
    """Page faults of making and dropping float32 ``values`` twenty times, a thousand a page."""
    program = FAULTS.format(before=before, values=values)
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
@pytest.mark.parametrize("values", [2_000_000, 20_000_000])
def test_freed_memory_is_used_again(values):
    before = "from sslaudio.data.processes import reuse_freed_memory; reuse_freed_memory()"

    kept = faults(before, values)

    assert kept < 100
