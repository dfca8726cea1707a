"""A tar that nobody vouches for, as tarfile may read it.

tarfile takes what stands before a member (long names, tables of a sparse file) into memory, however
much the tar claims it to be: a gigabyte of it packs to a few megabytes.
"""

import io
from typing import IO

LONGEST_HEADERS = 1 << 20
"""Bytes that may stand between the contents of two members."""


class HeadersError(ValueError):
    """A tar whose headers are too long."""


class Metered(io.RawIOBase):
    """A tar's bytes, with no more between two members than :data:`LONGEST_HEADERS`."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file, self._name = file, name
        self.passed(0)

    def passed(self, size: int) -> None:
        """A member was told, of whose content so many bytes may be read."""
        self._left = size + LONGEST_HEADERS

    def read(self, size: int = -1, /) -> bytes:
        """So many bytes, or fewer at the end.

        Raises:
            HeadersError: they would be too many since the last member.
        """
        if not 0 <= size <= self._left:
            raise HeadersError(
                f"{self._name} has more than {LONGEST_HEADERS} bytes of headers before a file"
            )
        data = self._file.read(size)
        self._left -= len(data)
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """As of any file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of any file."""
        return self._file.tell()
