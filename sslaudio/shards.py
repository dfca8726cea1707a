"""The verb ``sslaudio shards``: fetch, build, index, verify, info and synth."""

import argparse
import dataclasses
import os
import shlex
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from sslaudio import plugins
from sslaudio.config import describe as meanings_of
from sslaudio.data import fetch, foreign, listing, overlap, shards, synth
from sslaudio.data.corpora.base import SPLITS, corpus_root
from sslaudio.data.describe import describe
from sslaudio.data.encode import CODECS
from sslaudio.data.index import Index
from sslaudio.data.layout import SPLIT_CODES
from sslaudio.data.report import read_report
from sslaudio.data.verify import verify

_OPTION = "option_"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's own verbs and their flags."""
    verbs = parser.add_subparsers(dest="shards_verb", required=True, metavar="VERB")
    fetched = verbs.add_parser("fetch", help="download a corpus, or tell how to get it by hand")
    fetched.add_argument("name", metavar="NAME", help=f"one of {', '.join(_corpora())}")
    fetched.add_argument(
        "--root", type=Path, help="folder to fetch into; by default $SSLAUDIO_DATA/NAME"
    )
    fetched.add_argument(
        "--part",
        nargs="+",
        action="extend",
        default=[],
        help="parts of the corpus; by default those that its tasks need",
    )
    fetched.add_argument(
        "--keep-archives", action="store_true", help="keep what was downloaded, in ROOT/.fetch"
    )
    build = verbs.add_parser("build", help="turn a corpus in its published layout into shards")
    build.add_argument("--corpus", required=True, help=f"one of {', '.join(_corpora())}")
    build.add_argument(
        "--root", type=Path, help="folder of the corpus; by default $SSLAUDIO_DATA/CORPUS"
    )
    build.add_argument("--out", type=Path, required=True, help="folder of the shards")
    build.add_argument("--codec", choices=CODECS, default="flac", help="of the clips in the shards")
    build.add_argument("--sample-rate", type=int, default=16_000, help="Hz of the clips")
    build.add_argument("--clips-per-shard", type=int, help="by default about 16 shards, 64 to 1024")
    build.add_argument(
        "--segment-seconds", type=float, help="cut longer files to segments; by default none is"
    )
    _add_max_rejected(build)
    _add_jobs(build)
    _add_options(build)
    index = verbs.add_parser("index", help="make tars that others made readable like our own")
    index.add_argument("folder", type=Path, metavar="DIR")
    index.add_argument("--sample-rate", type=int, default=16_000, help="Hz to hear the clips at")
    _add_max_rejected(index)
    _add_jobs(index)
    shared = verbs.add_parser(
        "overlap", help="recordings of A that B has too, as rules to leave them out of pretraining"
    )
    shared.add_argument("one", type=str, metavar="A", help="shards that are pretrained on")
    shared.add_argument("other", type=str, metavar="B", help="shards that are tested on")
    shared.add_argument("--split", choices=SPLITS, help="clips of B of this split alone")
    shared.add_argument("--out", type=Path, help="write the rules here, for --data.exclude")
    check = verbs.add_parser("verify", help="read everything again; exit 1 if anything is wrong")
    check.add_argument("folder", type=Path, metavar="DIR")
    _add_jobs(check)
    info = verbs.add_parser("info", help="print what is in a folder of shards")
    info.add_argument("folder", type=Path, metavar="DIR")
    made = verbs.add_parser("synth", help="make a seeded set of synthetic clips")
    made.add_argument("--out", type=Path, required=True, help="folder of the shards")
    made.add_argument("--clips", type=int, default=1_000, help="one second each")
    made.add_argument("--seed", type=int, default=0)


def main(args: argparse.Namespace) -> int:
    """Do what the verb says; returns the exit status."""
    verbs = {
        "fetch": _fetch,
        "build": _build,
        "index": _index,
        "overlap": _overlap,
        "verify": _verify,
        "info": _info,
        "synth": _synth,
    }
    return verbs[args.shards_verb](args)


def _fetch(args: argparse.Namespace) -> int:
    corpus = fetch.published(args.name)
    if not corpus.downloads:
        if args.part or args.keep_archives:
            raise ValueError(
                f"--part and --keep-archives mean nothing for {corpus.name}, which is fetched by "
                f"hand; leave them out to read how"
            )
        root = shlex.quote(str(args.root.absolute())) if args.root else "DIR"
        _say(f"{corpus.name}: {corpus.licence}")
        sys.stdout.write(corpus.steps.replace("DIR", root))
        return 0
    plan = fetch.plan(corpus, _root_to_fetch(args), args.part, keep_archives=args.keep_archives)
    for line in fetch.described(plan):
        _say(line)
    if plan.to_do:
        fetch.fetch(plan, _say)
    root = shlex.quote(str(plan.root))
    _say(f"{plan.root} holds {corpus.name}; go on with")
    _say(f"  sslaudio shards build --corpus {corpus.name} --root {root} --out shards/{corpus.name}")
    return 0


def _root_to_fetch(args: argparse.Namespace) -> Path:
    data = os.environ.get("SSLAUDIO_DATA")
    if args.root is None and not data:
        raise ValueError(
            f"where to fetch {args.name}? give --root DIR, or set $SSLAUDIO_DATA to the folder "
            f"that is to hold {args.name}/"
        )
    return args.root or Path(str(data), args.name)


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _build(args: argparse.Namespace) -> int:
    module = plugins.load("corpora", args.corpus)
    config = _config(module.Config, args)
    root = corpus_root(args.root, args.corpus, getattr(module, "ROOT_MAY_BE_A_FILE", False))
    clips, told = listing.read(module, config, root)
    for words in told.warnings:
        sys.stderr.write(f"warning: {words}\n")
    index, was_made = shards.build(
        clips,
        args.out,
        corpus=args.corpus.rpartition(".")[2],
        sample_rate=args.sample_rate,
        codec=args.codec,
        clips_per_shard=args.clips_per_shard,
        segment_seconds=args.segment_seconds,
        max_rejected=args.max_rejected,
        jobs=args.jobs,
        listing=told,
    )
    _say_what_was_made(index, was_made)
    return 0


def _index(args: argparse.Namespace) -> int:
    index = foreign.index(
        args.folder,
        sample_rate=args.sample_rate,
        max_rejected=args.max_rejected,
        jobs=args.jobs,
    )
    _say_what_was_made(index, True)
    return 0


def _overlap(args: argparse.Namespace) -> int:
    one, other = Index.open(args.one), Index.open(args.other)
    splits = SPLIT_CODES if args.split is None else (args.split,)
    found = overlap.shared(one, other, splits)
    if args.out:
        title = f"# recordings of {one.corpus} that {other.corpus} has too, by {found.kind} id\n"
        rules = (f"{one.corpus}: recording:{name}\n" for name in found.recordings)
        try:
            args.out.write_text(title + "".join(rules), encoding="utf-8")
        except OSError as error:
            raise ValueError(
                f"--out {args.out} cannot be written ({error.strerror}); give another file"
            ) from error
    by_split = ", ".join(f"{n} {split or 'of no split'}" for split, n in found.others.items())
    _say(
        f"{len(found.recordings)} recordings of {one.corpus} are in {other.corpus} too (by "
        f"{found.kind} id): {found.clips} of its {one.totals.clips} clips, and "
        f"{sum(found.others.values())} of {other.corpus}'s" + (f" ({by_split})" if by_split else "")
    )
    if args.out:
        _say(f"rules in {args.out}: pretrain with --data.exclude {args.out}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    problems = verify(args.folder, jobs=args.jobs)
    for problem in problems:
        sys.stdout.write(f"{problem}\n")
    clips = len(problems) or "no"
    sys.stdout.write(f"{args.folder}: {clips} problem{'' if len(problems) == 1 else 's'}\n")
    return 1 if problems else 0


def _info(args: argparse.Namespace) -> int:
    sys.stdout.write(describe(args.folder))
    return 0


def _synth(args: argparse.Namespace) -> int:
    _say_what_was_made(*synth.build(args.out, clips=args.clips, seed=args.seed))
    return 0


def _say_what_was_made(index: Index, was_made: bool) -> None:
    totals = index.totals
    done = "built" if was_made else "is already built, nothing to do"
    rejected = f"; {totals.rejected} files rejected, listed in {index.place}/{shards.REJECTED_NAME}"
    sys.stdout.write(
        f"{index.place} {done}: {totals.clips} clips, {totals.seconds / 3600:.2f} h in "
        f"{len(index.shards)} shards{rejected if totals.rejected else ''}\n"
    )
    report = read_report(Path(str(index.place)))
    sys.stdout.write("".join(f"  {line}\n" for line in report.lines()) if report else "")


def _corpora() -> list[str]:
    return plugins.names("corpora")


def _add_jobs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--jobs", type=int, help="processes; by default one a core")


def _add_max_rejected(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--max-rejected",
        type=float,
        default=0.01,
        help="share of files, 0 to 1, that may be unusable; from 100 files on",
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    """One flag for each field of the corpora's Configs."""
    meanings: dict[str, list[str]] = {}
    for corpus in _corpora():
        for name, _, text in meanings_of(plugins.load("corpora", corpus).Config):
            meanings.setdefault(name, []).append(f"of {corpus}: {text}")
    for name, texts in meanings.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"{_OPTION}{name}",
            metavar=name.upper(),
            help=" ".join(texts).replace("``", "").replace("%", "%%"),
        )


def _config(config_class: type[Any], args: argparse.Namespace) -> Any:
    """The corpus's Config from the flags; a flag of another corpus is refused."""
    given = {
        name.removeprefix(_OPTION): value
        for name, value in vars(args).items()
        if name.startswith(_OPTION) and value is not None
    }
    options = {option.name: option for option in dataclasses.fields(config_class)}
    for name in given:
        if name not in options:
            raise ValueError(
                f"--{name.replace('_', '-')} is no option of corpus {args.corpus}; leave it out"
            )
    return config_class(
        **{
            name: _value(name.replace("_", "-"), text, options[name].type)
            for name, text in given.items()
        }
    )


def _value(name: str, text: str, kind: Any) -> Any:
    """What is written behind a flag, as a field of a corpus's Config takes it."""
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise ValueError(f"--{name} is {text!r}; set it to {' or '.join(get_args(kind))}")
        return text
    words = {int: "a whole number", float: "a number"}
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"--{name} is {text!r}; set it to {words[kind]}") from None
