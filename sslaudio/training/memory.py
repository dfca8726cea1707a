"""How this process's allocator treats the memory of tensors that are gone."""

import contextlib
import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def reuse_freed_memory() -> None:
    """Keep freed memory for the next tensor instead of handing it back to the system.

    A training step allocates and frees the same few megabytes again and again; by default glibc
    asks the kernel for each of them, which has to find and clear the pages every time: thousands of
    page faults a step of AST micro. What is larger than 32 MB it would ask for alone each time,
    whatever the threshold; so it asks for nothing alone. Other C libraries are left as they are.

    Source: mallopt(3).
    """
    with contextlib.suppress(OSError, TypeError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_TOP_PAD, 64 << 20)
