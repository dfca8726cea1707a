"""How this process's allocator treats the memory of tensors that are gone."""

import contextlib
import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_LARGEST_MMAP_THRESHOLD = 32 << 20
"""The most that glibc takes."""


def reuse_freed_memory() -> None:
    """Keep freed memory for the next tensor instead of handing it back to the system.

    A training step allocates and frees the same few megabytes again and again; by default glibc
    asks the kernel for each of them, which has to find and clear the pages every time: thousands of
    page faults a step of AST micro. Other C libraries are left as they are.

    Source: mallopt(3).
    """
    with contextlib.suppress(OSError, TypeError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_TOP_PAD, 64 << 20)
