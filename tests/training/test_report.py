"""What a run has told is read back and drawn."""

import json
import os
import pty
import re
import sys
import warnings
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from sslaudio.training.report import Report, clock, coloured, draw, history, say, speak
from sslaudio.training.summary import progress, summary

LOSS = [(2, 3.0), (4, 2.5)]


def test_history_is_every_scalar_with_its_steps(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        '{"step": 0, "probe/knn": 0.25}\n'
        '{"step": 2, "objective/loss": 3.0}\n'
        '{"step": 4, "objective/loss": 2.5, "probe/knn": 0.5}\n'
    )

    assert history(path) == {"probe/knn": [(0, 0.25), (4, 0.5)], "objective/loss": LOSS}


def test_the_probe_is_drawn_beside_the_loss(tmp_path):
    probe = {"probe/knn": [(0, 0.25), (4, 0.5)], "probe/chance": [(0, 0.1), (4, 0.1)]}
    draw({"objective/loss": LOSS}, tmp_path / "alone.png")
    draw({"objective/loss": LOSS, **probe}, tmp_path / "both.png")
    draw({}, tmp_path / "nothing.png")

    alone, both = (imread(tmp_path / f"{name}.png")[..., :3] for name in ("alone", "both"))

    assert alone.shape == both.shape
    assert not (tmp_path / "nothing.png").exists()
    # Matplotlib's blue is in both, its orange in one.
    assert has(alone, 31, 119, 180) and has(both, 31, 119, 180)
    assert has(both, 255, 127, 14) and not has(alone, 255, 127, 14)


def has(picture, *colour: int) -> bool:
    """Whether a pixel is of this colour, in 255ths."""
    return bool((abs(255 * picture - colour).max(axis=2) < 2).any())


def test_history_passes_over_a_line_that_was_torn(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2, "objective/loss": 3.0}\n{"step": 4, "objective/lo')

    assert history(path) == {"objective/loss": [(2, 3.0)]}


def test_times_are_read_as_a_clock():
    assert [clock(seconds) for seconds in (0, 65, 3725.4)] == ["0:00", "1:05", "1:02:05"]


def test_what_is_hidden_and_the_edge_between_clips_are_grey():
    picture = torch.zeros(1, 2, 3)
    picture[0, 0, 0] = torch.nan  # the lowest bin of the first frame

    painted = coloured(picture)

    assert painted.shape == (1, 3, 2, 5)
    grey = (abs(painted - 0.6) < 1e-6).all(axis=1)[0].tolist()
    # The lowest bin is the last row.
    assert grey == [[False, False, False, True, True], [True, False, False, True, True]]


def test_a_warning_is_said_once_a_librarys_too(capsys):
    speak()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        speak()  # what pytest recorded is ours again
        for _ in range(2):
            say("warning: mind the gap")
            say("a line")
            warnings.warn("old\nname", stacklevel=1)
    told = capsys.readouterr().err.splitlines()

    assert [line for line in told if "gap" in line] == ["warning: mind the gap"]
    assert told.count("a line") == 2
    (of_library,) = [line for line in told if "old" in line]
    assert re.fullmatch(r"warning: old name \(test_report\.py:\d+\)", of_library)


def test_other_processes_than_the_first_say_nothing(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    speak()
    say("warning: mind the gap")
    warnings.showwarning("old name", UserWarning, "there.py", 3)
    monkeypatch.setenv("RANK", "0")
    speak()

    assert capsys.readouterr().err == ""


BAR = """
import sys
from pathlib import Path
from sslaudio.training.report import Report, say, speak

speak()
report = Report(Path(sys.argv[1]), 200_000, 0, aloud=True)
beside = "finds 6% (untrained 5%, chance 7%)  second finds 12% (untrained 3%, chance 1%)"
report.show(123_456, "loss 3.756  1234 clips/s  waiting 12%", 43_210, beside)
say("a line")
report.advance(123_457)
report.close()
"""


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_shows_one_bar_with_all_that_counts_and_lines_above_it(columns, tmp_path):
    shown = in_terminal(columns, "-c", BAR, str(tmp_path / "run"))

    *above, bar = [line for line in shown if line]
    assert above[-1] == "a line" or "a line" in above
    assert sum("step 123" in line for line in above) == 0
    assert re.match(r"step 123457/200000 \S+ loss 3\.756  1234 clips/s  waiting 12% 12:00:10", bar)
    assert len(bar) <= columns
    assert ("finds 6%" in bar) == (columns == 120)


def in_terminal(columns: int, *words: str) -> list[str]:
    """What a terminal of so many columns shows in the end of what Python writes to it."""
    child, ours = pty.fork()
    if not child:
        os.environ.update(COLUMNS=str(columns), TERM="xterm-256color")
        os.execv(sys.executable, [sys.executable, *words])
    told = b""
    while True:
        try:
            told += os.read(ours, 65536)
        except OSError:  # its end
            break
    assert os.waitpid(child, 0)[1] == 0, told
    os.close(ours)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-JL-Za-jl-z]", "", told.decode())
    # A line that is cleared, or begun again, shows what came last.
    return [re.split(r"\r|\x1b\[2K", line.rstrip("\r"))[-1].rstrip() for line in plain.split("\n")]


def test_without_a_terminal_it_is_plain_lines(tmp_path, capsys):
    speak()
    report = Report(tmp_path / "run", 40, 0, aloud=True)
    report.show(20, "loss 3.756  12 clips/s  waiting 1%", 65, "finds 6%")
    report.show(40, "loss 3.5  12 clips/s  waiting 1%", 0)
    report.close()

    assert capsys.readouterr().err.splitlines() == [
        "step 20/40  loss 3.756  12 clips/s  waiting 1%  1:05 left  finds 6%",
        "step 40/40  loss 3.5  12 clips/s  waiting 1%  0:00 left",
    ]


def write_run(run: Path, kept: int) -> Path:
    """A run of 40 steps of 10 clips by hand, with a checkpoint."""
    (run / "checkpoints" / f"step-{kept:08d}").mkdir(parents=True)
    (run / "recipe.yaml").write_text("data: {batch: 10}\ntraining: {steps: 40}\n")
    told = {"speed/clips_a_second": 5.0, "training/skipped_steps": 1}
    lines = [
        {"step": 20, "objective/loss": 1.0, **told},
        {"step": 20, "probe/knn": 0.5, "probe/seconds": 20.0},
        {"step": 30, "objective/loss": 2.0, **told},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return run


def test_the_summary_tells_best_last_where_and_how_to_go_on(tmp_path):
    done = summary(write_run(tmp_path / "done", kept=40)).splitlines()
    stopped = summary(write_run(tmp_path / "cut", kept=30)).splitlines()

    # By hand: 30 steps of 10 clips at 5 clips a second, and a probe of 20 s.
    assert progress(tmp_path / "done").seconds == 80
    assert done[0] == f"done: {tmp_path / 'done'}"
    assert done[1].endswith("kNN 50.0% at step 20, lowest loss 1.000 at step 20")
    assert "step 30 of 40, checkpoint of step 40, loss 2.000, kNN 50.0%, 1 step" in done[2]
    assert done[2].endswith("1:20 at 5 clips/s")
    assert f"tensorboard --logdir {tmp_path / 'done'}" in done[3]
    assert f"--checkpoint {tmp_path / 'done'}" in done[4]
    assert done[5].endswith("--resume --training.steps 80")
    assert stopped[0] == f"stopped: {tmp_path / 'cut'}"
    assert stopped[-1].endswith(f"sslaudio pretrain --out {tmp_path / 'cut'} --resume auto")
