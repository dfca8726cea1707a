"""A clip's key: its name inside a shard, made from its source path."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

_LONGEST = 80  # a tar's plain header holds names of 100 bytes, suffix included


def keys_of(sources: Sequence[str]) -> list[str]:
    """Keys of source paths: ASCII letters, digits, ``_`` and ``-``, each one unique.

    The path without its suffix, other characters replaced by ``_``. Where two paths would get
    one key, or nothing readable is left, a part of the path's SHA-256 is added, so that a key
    does not depend on the order of the paths.
    """
    plain = [_plain(source) for source in sources]
    # Without regard to case: some tools unpack a tar where a and A are one file.
    counts = Counter(key.lower() for key in plain)
    return [
        key if counts[key.lower()] == 1 and any(map(str.isalnum, key)) else _hashed(key, source)
        for key, source in zip(plain, sources, strict=True)
    ]


def keys_of_parts(sources: Sequence[str], parts: Sequence[str]) -> list[str]:
    """Keys of clips, several of which may be cut from one source.

    Args:
        sources: paths.
        parts: what tells a clip apart from the others of its source; empty for a whole one.

    Returns:
        The source's key, ``-`` and the part. Where another clip has that very key, a part of
        the path's SHA-256 stands before the part.
    """
    once = list(dict.fromkeys(sources))
    keys = dict(zip(once, keys_of(once), strict=True))
    pairs = list(zip(sources, parts, strict=True))
    plain = [f"{keys[source]}-{part}" if part else keys[source] for source, part in pairs]
    counts = Counter(key.lower() for key in plain)
    return [
        f"{_hashed(keys[source], source)}-{part}" if part and counts[key.lower()] > 1 else key
        for key, (source, part) in zip(plain, pairs, strict=True)
    ]


def _plain(source: str) -> str:
    path = PurePosixPath(source)
    stem = str(path.with_suffix("")) if path.name else source
    folded = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    key = re.sub(r"[^A-Za-z0-9_-]", "_", folded)
    return key if len(key) <= _LONGEST else _hashed(key, source)


def _hashed(key: str, source: str) -> str:
    digest = hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()[:12]
    return f"{key[: _LONGEST - 13]}-{digest}"
