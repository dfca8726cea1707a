"""`sslaudio shards` as a user meets it: flags, what is printed, exit status."""

import argparse
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from sslaudio import shards


def run(*words) -> int:
    parser = argparse.ArgumentParser()
    shards.add_arguments(parser)
    return shards.main(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def fsdd(tmp_path) -> Path:
    folder = tmp_path / "data" / "fsdd" / "recordings"
    folder.mkdir(parents=True)
    for digit in range(3):
        for take in (3, 4, 5, 6):
            sound = np.full(800, digit / 10)
            soundfile.write(folder / f"{digit}_anna_{take}.wav", sound, 8_000)
    return folder.parent


def test_build_info_and_verify(fsdd, tmp_path, capsys):
    out = tmp_path / "out"

    assert run("build", "--corpus", "fsdd", "--root", fsdd, "--out", out, "--jobs", 1) == 0
    built = capsys.readouterr()
    head, *report = built.out.splitlines()
    assert head == f"{out} built: 12 clips, 0.00 h in 1 shards"
    assert [line.split()[:2] for line in report] == [
        ["listed", "12"],
        ["there", "12"],
        ["built", "12"],
        ["rejected", "0"],
    ]
    assert "12 of 12" in built.err
    assert run("info", out) == 0
    table = capsys.readouterr().out
    assert "corpus fsdd, flac at 16000 Hz" in table
    assert "12 clips, 1.2 s" in table
    assert run("verify", out, "--jobs", 1) == 0
    assert capsys.readouterr().out == f"{out}: no problems\n"


def test_names_that_are_no_utf_8_are_written_with_their_bytes(fsdd, tmp_path, capsys):
    folder = tmp_path / "mine" / os.fsdecode(b"caf\xe9")  # Latin-1, from an old zip
    folder.mkdir(parents=True)
    shutil.copy(fsdd / "recordings" / "1_anna_3.wav", folder / os.fsdecode(b"\xff.wav"))
    mine, rules = tmp_path / "out", tmp_path / "rules.txt"

    run("build", "--corpus", "folder", "--root", folder.parent, "--out", mine, "--label", "parent")
    run("overlap", mine, mine, "--out", rules)
    run("info", mine)

    assert r"caf\udce9      1" in capsys.readouterr().out
    assert rules.read_text().splitlines()[1:] == [r"folder: recording:caf\udce9/\udcff.wav"]
    assert run("verify", mine) == 0


def test_build_again_says_that_nothing_is_left(fsdd, tmp_path, capsys):
    command = ("build", "--corpus", "fsdd", "--root", fsdd, "--out", tmp_path / "out", "--jobs", 1)
    run(*command)
    capsys.readouterr()

    assert run(*command) == 0
    assert "is already built, nothing to do: 12 clips" in capsys.readouterr().out


def test_verify_exits_1_and_names_the_shard(fsdd, tmp_path, capsys):
    out = tmp_path / "out"
    run("build", "--corpus", "fsdd", "--root", fsdd, "--out", out, "--jobs", 1)
    (out / "fsdd-000000.tar").unlink()
    capsys.readouterr()

    assert run("verify", out, "--jobs", 1) == 1
    assert capsys.readouterr().out == f"fsdd-000000.tar: missing\n{out}: 1 problem\n"


def test_the_root_falls_back_to_the_environment(fsdd, tmp_path, monkeypatch):
    monkeypatch.setenv("SSLAUDIO_DATA", str(fsdd.parent))

    assert run("build", "--corpus", "fsdd", "--out", tmp_path / "out", "--jobs", 1) == 0


def test_without_a_root_both_ways_are_named(tmp_path, monkeypatch):
    command = ("build", "--corpus", "esc50", "--out", tmp_path / "out")
    monkeypatch.delenv("SSLAUDIO_DATA", raising=False)
    with pytest.raises(ValueError, match=r"--root DIR, or set \$SSLAUDIO_DATA.*esc50/"):
        run(*command)
    monkeypatch.setenv("SSLAUDIO_DATA", str(tmp_path))
    with pytest.raises(ValueError, match=r"no folder esc50; give --root DIR, or set"):
        run(*command)
    with pytest.raises(ValueError, match=r"--root nowhere is no folder"):
        run(*command, "--root", "nowhere")


def test_a_wrong_corpus_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'esc50'"):
        run("build", "--corpus", "esc5", "--root", tmp_path, "--out", tmp_path / "out")


def test_a_folder_of_ones_own_with_its_labels(fsdd, tmp_path, capsys):
    out = tmp_path / "out"
    command = ("build", "--corpus", "folder", "--root", fsdd, "--out", out, "--jobs", 1)

    assert run(*command, "--label", "parent") == 0
    capsys.readouterr()
    run("info", out)
    assert "recordings     12" in capsys.readouterr().out


def test_an_option_of_another_corpus_or_with_another_value_is_refused(fsdd, tmp_path):
    build = ("build", "--root", fsdd, "--out", tmp_path / "out")

    with pytest.raises(ValueError, match="--label is no option of corpus fsdd"):
        run(*build, "--corpus", "fsdd", "--label", "parent")
    with pytest.raises(ValueError, match="--label is 'mother'; set it to none or parent"):
        run(*build, "--corpus", "folder", "--label", "mother")


@pytest.mark.parametrize("jobs", [0, -1, -8])
def test_jobs_below_one_are_refused(fsdd, tmp_path, jobs):
    words = f"--jobs is {jobs}; set it to 1 or more"

    with pytest.raises(ValueError, match=words):
        run(
            "build", "--corpus", "fsdd", "--root", fsdd,
            "--out", tmp_path / "out", "--jobs", jobs,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=words):
        run("verify", tmp_path, "--jobs", jobs)


def test_a_seed_below_zero_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--seed is -1; set it to 0 or more"):
        run("synth", "--out", tmp_path / "out", "--seed", -1)


@pytest.mark.parametrize("out", ["/proc/x", "/proc/x/y", "file", "file/below"])
def test_an_out_that_is_no_folder_or_cannot_be_written_is_named(fsdd, tmp_path, out):
    (tmp_path / "file").touch()
    place = tmp_path / out  # an absolute path stays as it is

    with pytest.raises(ValueError, match=rf"^--out {place} .*give (another|a) folder$") as caught:
        run("build", "--corpus", "fsdd", "--root", fsdd, "--out", place, "--jobs", 1)

    assert "\n" not in str(caught.value)


def test_a_folder_or_file_that_cannot_be_written_to_is_told_as_it_was_given(fsdd, tmp_path):
    run("build", "--corpus", "fsdd", "--root", fsdd, "--out", tmp_path / "a", "--jobs", 1)
    foreign = tmp_path / "foreign"
    (foreign / ".lock").mkdir(parents=True)
    shutil.copy(tmp_path / "a" / "fsdd-000000.tar", foreign)

    with pytest.raises(ValueError, match=r"^DIR .*foreign cannot be written to \("):
        run("index", foreign)
    with pytest.raises(ValueError, match=r"^--out .*no/rules cannot be written \(No such file"):
        run("overlap", tmp_path / "a", tmp_path / "a", "--out", tmp_path / "no" / "rules")


def test_the_help_tells_what_the_options_of_corpora_mean(capsys):
    with pytest.raises(SystemExit):
        run("build", "--help")

    told = " ".join(capsys.readouterr().out.split())
    assert "--fraction FRACTION of audioset: Share of the training parts' clips, above 0" in told
    assert "of librispeech: all: the parts that are there. 100, 460, 960: the first" in told


def test_an_out_without_permission_is_named(fsdd, tmp_path, monkeypatch):
    def refuse(path, *args, **settings):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)

    with pytest.raises(ValueError, match=r"--out .* cannot be written to \(Permission denied\)"):
        run("build", "--corpus", "fsdd", "--root", fsdd, "--out", tmp_path / "out", "--jobs", 1)


def test_warnings_of_an_importer_are_lines(tmp_path, capsys):
    folder = tmp_path / "sc" / "yes"
    folder.mkdir(parents=True)
    soundfile.write(folder / "bed06fac_nohash_0.wav", np.zeros(1_600), 16_000)

    run(
        "build", "--corpus", "speech_commands", "--root", tmp_path / "sc",
        "--out", tmp_path / "out", "--jobs", 1,
    )  # fmt: skip

    warning = capsys.readouterr().err.splitlines()[0]
    assert warning.startswith("warning: ")
    assert "clips are split by the published hash" in warning


def test_rejected_files_are_told(fsdd, tmp_path, capsys):
    (fsdd / "recordings" / "1_anna_7.wav").write_bytes(b"")
    out = tmp_path / "out"

    run("build", "--corpus", "fsdd", "--root", fsdd, "--out", out, "--jobs", 1)

    said = capsys.readouterr().out
    assert f"1 files rejected, listed in {out / 'rejected.jsonl'}" in said


def test_synth_makes_the_seeded_set(tmp_path, capsys):
    assert run("synth", "--out", tmp_path / "out", "--clips", 100, "--seed", 3) == 0
    assert "built: 100 clips" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "out")
