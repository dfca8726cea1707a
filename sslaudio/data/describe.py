"""The table of what a folder of shards holds."""

from collections.abc import Sequence
from pathlib import Path

from sslaudio.data.index import Index
from sslaudio.data.report import read_report

_NO_NAME = "(none)"


def describe(folder: Path) -> str:
    """Clips, seconds, size, codec, rate, report, splits, licences, labels, as lines of text."""
    index = Index.open(folder)
    totals = index.totals
    lines = [
        f"{folder}: corpus {index.corpus}, {index.codec} at {index.sample_rate} Hz",
        f"{totals.clips} clips, {totals.seconds:.1f} s = {totals.seconds / 3600:.2f} h, "
        f"{totals.bytes} bytes = {totals.bytes / 1e6:.1f} MB in {len(index.shards)} shards, "
        f"{totals.rejected} files rejected",
    ]
    splits = [
        (name, str(of.clips), f"{of.seconds:.1f} s", f"{of.seconds / 3600:.2f} h")
        for name in index.split_names
        for of in [totals.splits[name]]
    ]
    if report := read_report(folder):
        lines += ["", *report.lines(), *(f"warning: {words}" for words in report.warnings)]
    lines += _table("split", ("clips", "sound", "hours"), splits)
    lines += _table("licence", ("clips",), _counts(totals.licences))
    lines += _table("label", ("clips",), _counts(totals.labels))
    return "\n".join(lines) + "\n"


def _counts(counts: dict[str, int]) -> list[tuple[str, ...]]:
    return [(name, str(count)) for name, count in sorted(counts.items())]


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows under a heading, the first column to the left, numbers to the right."""
    if not rows:
        return []
    cells = [(title, *columns), *((row[0] or _NO_NAME, *row[1:]) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(columns) + 1)]
    lines = []
    for name, *numbers in cells:
        padded = [n.rjust(width) for n, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *padded]))
    return ["", *lines]
