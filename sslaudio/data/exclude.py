"""Which clips to leave out of pretraining: rules in text files.

One rule a line; ``#`` begins a comment. A rule is

``speaker:george``      a field of the clips' JSON and its value; the fields are
                        ``key source recording speaker fold label split subset``
``recordings/0_a_1.wav`` a bare value: any clip with this key, source or recording
``fsdd: speaker:george`` either of them for the shards of one corpus alone

A rule that matches no clip at all is an error: it is a slip of the pen, or of the shards.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sslaudio.data.index import Index
from sslaudio.data.layout import mark_of, recordings_marked

FIELDS = ("key", "source", "recording", "speaker", "fold", "label", "split", "subset")
"""What a rule may speak of."""

_BARE_FIELDS = ("key", "source", "recording")
_RULE = re.compile(rf"(?:(?P<corpus>\w+): +)?(?:(?P<field>{'|'.join(FIELDS)}):)?(?P<value>.+)")


@dataclass(frozen=True)
class Rule:
    """One line of an exclude file."""

    where: str
    """File and line number, for messages."""
    text: str
    corpus: str | None
    """Only the shards of this corpus; None is all."""
    fields: tuple[str, ...]
    """A clip matches if any of these has the value."""
    value: str


def read_rules(paths: Sequence[str]) -> list[Rule]:
    """The rules of several exclude files."""
    rules = []
    for path in map(Path, paths):
        if not path.is_file():
            raise ValueError(f"data.exclude names {path}, which is no file")
        lines = path.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines, start=1):
            text = re.sub(r"(^|\s)#.*", "", line).strip()
            if text:
                rules.append(_parse(text, f"{path}:{number}"))
    return rules


def excluded_members(
    rules: Sequence[Rule], indexes: Sequence[Index]
) -> list[dict[int, np.ndarray]]:
    """For each folder, the members of its shards that a rule matches; untouched shards are absent.

    Raises:
        ValueError: a rule names a corpus that is not there, or matches nothing.
    """
    _check_corpora(rules, indexes)
    hit: set[Rule] = set()
    excluded = [_excluded_from(index, rules, hit) for index in indexes]
    for rule in rules:
        if rule not in hit:
            raise ValueError(
                f"{rule.where}: the rule {rule.text!r} matches no clip of "
                f"{', '.join(str(index.place) for index in indexes)}; mend it or take it out of "
                f"the file that data.exclude names"
            )
    return excluded


def _parse(text: str, where: str) -> Rule:
    parts = _RULE.fullmatch(text)
    assert parts is not None, "the last group takes any text"
    fields = (parts["field"],) if parts["field"] else _BARE_FIELDS
    return Rule(where, text, parts["corpus"], fields, parts["value"].strip())


def _check_corpora(rules: Sequence[Rule], indexes: Sequence[Index]) -> None:
    corpora = sorted({index.corpus for index in indexes})
    for rule in rules:
        if rule.corpus is not None and rule.corpus not in corpora:
            raise ValueError(
                f"{rule.where}: the rule {rule.text!r} is for the corpus {rule.corpus!r}, but "
                f"data.shards gives {', '.join(corpora)}"
            )


def _excluded_from(index: Index, rules: Sequence[Rule], hit: set[Rule]) -> dict[int, np.ndarray]:
    wanted: dict[tuple[str, str], list[Rule]] = {}
    for rule in rules:
        if rule.corpus in (None, index.corpus):
            for name in rule.fields:
                wanted.setdefault((name, rule.value), []).append(rule)
    excluded: dict[int, list[int]] = {}
    for shard in range(len(index.shards) if wanted else 0):
        members = _candidates(index, shard, wanted)
        for member, (key, fields) in zip(members, index.descriptions(shard, members), strict=True):
            told = _told(key, fields or {})  # one whose JSON is broken is corrupt when it is heard
            matches = [rule for pair in told for rule in wanted.get(pair, ())]
            if matches:
                hit.update(matches)
                excluded.setdefault(shard, []).append(member)
    return {shard: np.array(members) for shard, members in excluded.items()}


def _candidates(
    index: Index, shard: int, wanted: Mapping[tuple[str, str], Sequence[Rule]]
) -> list[int]:
    """Members that a rule may match: where all speak of recordings, the offsets tell which."""
    if any(name != "recording" for name, _ in wanted):
        return list(range(index.shards[shard].samples))
    marks = np.array([mark_of(value) for _, value in wanted], np.uint64)
    return np.flatnonzero(np.isin(recordings_marked(index.offsets(shard)), marks)).tolist()


def _told(key: str, fields: dict[str, Any]) -> list[tuple[str, str]]:
    """All that a rule can match of one clip, as pairs of field and value."""
    told = [("key", key)]
    told += [(name, str(fields[name])) for name in FIELDS if name in fields]
    for name, field in (("label", "labels"), ("subset", "subsets")):
        several = fields.get(field)
        told += [(name, str(one)) for one in several] if isinstance(several, list) else []
    return told
