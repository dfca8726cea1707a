"""The report of a build: what was listed, there, built, rejected and why, left out."""

import argparse
import json

import pytest
from miniatures import make, sounds

from sslaudio import shards
from sslaudio.data.report import Report, read_report


def run(*words) -> int:
    parser = argparse.ArgumentParser()
    shards.add_arguments(parser)
    return shards.main(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def esc50(tmp_path):
    """Six listed: one missing, one empty, one no sound; one long; two that no row names."""
    root = make("esc50", tmp_path / "esc50")
    paths = sorted((root / "audio").iterdir())
    paths[0].unlink()
    paths[1].write_bytes(b"")
    paths[2].write_text("no sound " * 99)
    sounds(root, f"audio/{paths[3].name}", seconds=1.0)
    sounds(root, "audio/9-9-A-9.wav", f"audio/{paths[4].stem}.wav", "audio/x.flac")
    return root


def test_a_report_counts_what_became_of_the_files(esc50, tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["--jobs", 1, "--segment-seconds", 0.25]
    run("build", "--corpus", "esc50", "--root", esc50, "--out", out, *flags)

    built = capsys.readouterr()
    report = read_report(out)
    assert report == Report(
        listed=6,
        there=5,
        clips=4 + 2,
        seconds=pytest.approx(1.1),
        long_clips=1,
        segments=4,
        rejected={"missing": 1, "empty": 1, "cannot be decoded": 1},
        left_out=2,
        warnings=(built.err.splitlines()[0].removeprefix("warning: "),),
    )
    lines = [" ".join(line.split()) for line in built.out.splitlines()]
    assert lines[1:] == [
        "listed 6",
        "there 5",
        "built 6 0.00 h",
        "rejected 3 cannot be decoded: 1, empty: 1, missing: 1",
        "left out 2 files not in the index, not read, or for which another serves",
        "segments 4 of 1 longer clips",
    ]
    run("info", out)
    told = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert told[3:9] == lines[1:]
    assert told[9].startswith("warning: 2 files are left out, since meta/esc50.csv")


def test_shards_without_a_report_are_told_of_as_before(esc50, tmp_path, capsys):
    out = tmp_path / "out"
    run("build", "--corpus", "esc50", "--root", esc50, "--out", out, "--jobs", 1)
    (out / "report.json").unlink()
    capsys.readouterr()

    assert run("info", out) == 0
    assert "listed" not in capsys.readouterr().out


def test_a_report_that_is_none_says_so(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps({"listed": 1}))

    with pytest.raises(ValueError, match=r"report\.json is no report of a build .* remove it"):
        read_report(tmp_path)


def test_what_a_fraction_chose_is_kept_beside_the_shards(tmp_path, capsys):
    root, out = make("audioset", tmp_path / "audioset"), tmp_path / "out"
    (root / "audio/balanced_train/-train00001.wav").unlink()
    build = ["build", "--corpus", "audioset", "--root", root, "--out", out, "--jobs", 1]

    run(*build, "--fraction", "0.5", "--seed", "1")

    assert (out / "chosen.txt").read_text() == "-train00001\nYtrain00003\n"
    assert (read_report(out).listed, read_report(out).there) == (4, 3)
    with pytest.raises(ValueError, match="options was .*'seed': 1.* and is now .*'fraction': 0.5"):
        run(*build, "--fraction", "0.5")


@pytest.mark.parametrize(
    ("corpus", "flag", "text", "words"),
    [
        ("audioset", "--fraction", "tenth", "--fraction is 'tenth'; set it to a number"),
        ("audioset", "--seed", "1.5", "--seed is '1.5'; set it to a whole number"),
        ("audioset", "--fraction", "2", "--fraction is 2; it is a share"),
        ("fsdd", "--fraction", "0.1", "--fraction is no option of corpus fsdd"),
        ("fsdd", "--path-column", "x", "--path-column is no option of corpus fsdd"),
        ("csv", "--target", "number", "--target is 'number'; set it to auto or single or multi"),
    ],
)
def test_flags_take_numbers_and_say_what_would_be_right(tmp_path, corpus, flag, text, words):
    root = make(corpus, tmp_path / corpus)

    with pytest.raises(ValueError, match=words):
        run("build", "--corpus", corpus, "--root", root, "--out", tmp_path / "out", flag, text)


def test_a_table_serves_as_root_and_a_file_of_another_corpus_does_not(tmp_path, capsys):
    root = make("csv", tmp_path / "csv")
    build = ["build", "--out", tmp_path / "out", "--jobs", 1]

    assert run(*build, "--corpus", "csv", "--root", root / "labels.csv") == 0
    assert "8 clips" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"labels\.csv is no folder; give --root DIR"):
        run(*build, "--corpus", "esc50", "--root", root / "labels.csv")
