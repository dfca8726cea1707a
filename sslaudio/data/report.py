"""What became of a corpus: the report that a build keeps beside its shards.

In:  what the importer told, and what the build made of it.
Out: ``report.json``, and lines of text. Described in shards/README.md.
"""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

REPORT_NAME = "report.json"
MISSING = "missing"
"""The kind of a listed file that is not there."""


@dataclass(frozen=True)
class Report:
    """What the index lists, what was there, what was made of it."""

    listed: int
    """Clips that the corpus's index (or, without one, its folders) lists."""
    there: int
    """Of these, those whose file is there."""
    clips: int
    """In the shards."""
    seconds: float
    """Of sound in the shards."""
    long_clips: int
    """Listed clips that were cut to segments."""
    segments: int
    """Their segments, the rejected ones too."""
    rejected: dict[str, int]
    """Clips that could not be used, by kind of reason; ``rejected.jsonl`` names them."""
    left_out: int
    """Sound files that are no clip: not in the index, of a kind that is not read, or another file
    serves."""
    warnings: tuple[str, ...]
    """What the importer warned of."""

    def to_json(self) -> bytes:
        """As it stands in the file."""
        return f"{json.dumps(asdict(self), indent=1)}\n".encode()

    def lines(self) -> list[str]:
        """A row a count."""
        kinds = sorted(self.rejected.items(), key=lambda kind: (-kind[1], kind[0]))
        rows = [
            ("listed", self.listed, ""),
            ("there", self.there, ""),
            ("built", self.clips, f"{self.seconds / 3600:.2f} h"),
            ("rejected", sum(self.rejected.values()), ", ".join(f"{k}: {n}" for k, n in kinds)),
            (
                "left out",
                self.left_out,
                "files not in the index, not read, or for which another serves",
            ),
            ("segments", self.segments, f"of {self.long_clips} longer clips"),
        ]
        wide = max(len(str(count)) for _, count, _ in rows)
        return [
            f"{name:8}  {count:{wide}}  {words if count else ''}".rstrip()
            for name, count, words in rows
            if count or name in ("listed", "there", "built", "rejected")
        ]


def kinds_of(reasons: Iterable[str]) -> dict[str, int]:
    """How many of each kind: what a reason says before its colon."""
    return dict(Counter(reason.partition(":")[0] for reason in reasons))


def read_report(folder: Path) -> Report | None:
    """The report of a folder of shards; None where it has none, as those built before there was.

    Raises:
        ValueError: it is damaged.
    """
    path = folder / REPORT_NAME
    if not path.is_file():
        return None
    try:
        return TypeAdapter(Report).validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(
            f"{path} is no report of a build ({error.errors()[0]['msg']}); remove it"
        ) from error
