"""`sslaudio evaluate`: one table of tasks, protocols and checkpoints that survives a kill."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from miniatures import make
from safetensors.torch import load_file, save_file

from sslaudio.cli import main
from sslaudio.data import synth

SMALL = ["--training.epochs", "2", "--training.batch", "4", "--probe.strengths", "1", "0.1"]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory) -> Path:
    """Two corpora under names of their own."""
    root = tmp_path_factory.mktemp("corpora")
    make("esc50", root / "sounds")
    make("fsdd", root / "digits")
    return root


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pretrained")
    synth.build(folder / "synth", clips=100, seed=0)
    words = [
        "pretrain", "--config", "demo", "--data.shards", folder / "synth", "--training.steps", "1",
        "--data.batch", "4", "--backbone.dim", "16", "--backbone.heads", "2",
        "--backbone.depth", "2", "--out", folder / "tiny",
    ]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    return folder / "tiny"


def evaluate(*words: object) -> int:
    return main(["evaluate", *map(str, words)])


def test_every_cell_is_a_record_and_the_table_has_a_row_a_protocol(
    corpora, pretrained, tmp_path, capsys
):
    out = tmp_path / "out"

    status = evaluate(
        "--checkpoint", pretrained, "--random", "--suite", "esc50,fsdd", "--protocols",
        "knn,linear,bitfit", "--root", corpora, "--seeds", 2, "--bootstrap", "recording",
        "--confusion", "--out", out, *SMALL,
    )  # fmt: skip

    assert status == 0
    records = json.loads((out / "results.json").read_text())
    esc = [record for record in records if record["task"] == "esc50"]
    own = [record for record in esc if record["checkpoint"] == str(pretrained)]
    # Three folds; a closed form on fixed weights has no seeds, gradients and random weights do.
    counts = {name: sum(r["protocol"] == name for r in own) for name in ("knn", "linear", "bitfit")}
    assert counts == {"knn": 3, "linear": 3, "bitfit": 6}
    assert sum(record["checkpoint"] is None for record in esc) == 3 * 3 * 2
    rows = json.loads((out / "table.json").read_text())
    mine = next(r for r in rows if r["protocol"] == "linear" and r["checkpoint"] == str(pretrained))
    scores = [record["test"] for record in own if record["protocol"] == "linear"]
    assert mine["test"] == pytest.approx(np.mean(scores)) and mine["over"] == "3 folds"
    assert mine["bootstrap"][0] <= mine["test"] <= mine["bootstrap"][1]
    assert (out / "table.png").is_file() and list((out / "classes").glob("*confusion.png"))
    assert "| fsdd" in capsys.readouterr().out


def test_it_goes_on_where_it_was_killed_and_gives_the_same_results(
    corpora, pretrained, tmp_path, capsys
):
    words = ["--checkpoint", pretrained, "--suite", "fsdd", "--protocols", "linear,full"]
    words += ["--root", corpora, *SMALL]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert evaluate(*words, "--out", whole) == 0
    shutil.copytree(whole, cut)
    (cut / "results.json").unlink()
    next(path for path in (cut / "cells").glob("*full*.json")).unlink()
    capsys.readouterr()

    assert evaluate(*words, "--out", cut) == 0

    told = capsys.readouterr().err
    assert "-full-" in told and "-linear-" not in told  # what was there is not done again
    assert _scores(cut) == _scores(whole)


def test_a_recipes_adapter_counts_for_the_protocol_of_its_name(corpora, pretrained, tmp_path):
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "out"
    recipe.write_text("adapter: {name: full, layer_decay: 0.5}\n")
    words = ["--checkpoint", pretrained, "--suite", "fsdd", "--root", corpora, "--out", out, *SMALL]

    assert evaluate(*words, "--protocols", "full,bitfit", "--config", recipe) == 0
    cells = {path.name for path in (out / "cells").glob("*.json")}
    assert evaluate(*words, "--protocols", "full", "--adapter.layer_decay", 0.5) == 0

    assert {path.name for path in (out / "cells").glob("*.json")} == cells and len(cells) == 2


def test_a_leaf_for_all_tasks_is_read_as_its_type_tells(corpora, pretrained, tmp_path, capsys):
    words = ["--checkpoint", pretrained, "--root", corpora, "--protocols", "knn"]
    words += ["--out", tmp_path]

    assert evaluate(*words, "--suite", "esc50:subset=esc10", "--task.folds", 1, 3) == 0
    records = json.loads((tmp_path / "results.json").read_text())
    assert [record["fold"] for record in records] == ["1", "3"]

    assert evaluate(*words, "--suite", "fsdd", "--task", "esc50") == 2
    assert "write --suite esc50" in capsys.readouterr().err


def test_flags_that_no_protocol_heeds_are_named(corpora, pretrained, tmp_path, capsys):
    words = ["--checkpoint", pretrained, "--suite", "fsdd", "--root", corpora]
    words += ["--protocols", "knn,linear", "--out", tmp_path, "--knn.temperature", 0.1]

    assert evaluate(*words, "--training.epochs", 2) == 0

    told = capsys.readouterr().err
    assert "--training.epochs means nothing to knn, linear" in told and "--knn" not in told


def test_changed_weights_are_evaluated_anew(corpora, pretrained, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "out"
    shutil.copytree(pretrained, run)
    words = ["--checkpoint", run, "--suite", "fsdd", "--protocols", "linear", "--root", corpora]
    assert evaluate(*words, "--out", out, *SMALL) == 0
    weights = load_file(run / "model.safetensors")
    save_file({name: value * 1.5 for name, value in weights.items()}, run / "model.safetensors")
    capsys.readouterr()

    assert evaluate(*words, "--out", out, *SMALL) == 0

    assert "-linear-" in capsys.readouterr().err
    assert len(list((out / "cells").glob("*.json"))) == 2
    assert len(list((out / "embeddings").iterdir())) == 2


def test_changed_sound_of_the_same_length_is_evaluated_anew(pretrained, tmp_path):
    root, out = tmp_path / "digits", tmp_path / "out"
    make("fsdd", root)
    words = ["--checkpoint", pretrained, "--suite", "fsdd", "--protocols", "knn", "--root", root]
    assert evaluate(*words, "--out", out) == 0
    for path in (root / "recordings").iterdir():
        samples, rate = soundfile.read(path)
        soundfile.write(path, samples[::-1] * 0.5, rate)

    assert evaluate(*words, "--out", out) == 0

    assert len(list((out / "cells").glob("*.json"))) == 2
    names = [
        name
        for file in (out / "embeddings").rglob("*.npz")
        for name in np.load(file, allow_pickle=False)["clips"].tolist()
    ]
    assert len(names) == len(set(names)) == 2 * 36


def test_a_damaged_cell_or_embedding_is_made_again(corpora, pretrained, tmp_path):
    words = ["--checkpoint", pretrained, "--suite", "fsdd", "--protocols", "linear"]
    words += ["--root", corpora, "--out", tmp_path / "out", *SMALL]
    assert evaluate(*words) == 0
    before = _scores(tmp_path / "out")
    for path in (tmp_path / "out").rglob("*.npz"):
        path.write_bytes(path.read_bytes()[:100])

    assert evaluate(*words) == 0

    assert _scores(tmp_path / "out") == before


def test_a_protocol_that_fails_leaves_the_others(corpora, pretrained, tmp_path, capsys):
    words = ["--checkpoint", pretrained, "--suite", "fsdd", "--protocols", "linear,full"]
    words += ["--root", corpora, *SMALL, "--training.learning_rate", "1e30"]

    assert evaluate(*words, "--out", tmp_path / "out") == 1

    (record,) = json.loads((tmp_path / "out" / "results.json").read_text())
    assert record["protocol"] == "linear"
    assert "failed: fsdd from" in capsys.readouterr().err


def test_random_weights_of_two_architectures_and_two_variants_have_rows_of_their_own(
    corpora, pretrained, tmp_path
):
    other = tmp_path / "other"
    shutil.copytree(pretrained, other)
    out = tmp_path / "out"

    words = ["--checkpoint", pretrained, other, pretrained, "--random", "--protocols", "knn"]
    suite = "fsdd:target=digit,fsdd:target=speaker"
    assert evaluate(*words, "--suite", suite, "--root", corpora, "--out", out) == 0

    rows = json.loads((out / "table.json").read_text())
    assert len(rows) == 2 * 4  # two variants; twice pretrained, twice random
    assert all(row["over"] == "" for row in rows)
    assert sum(row["checkpoint"] == f"random, as {other}" for row in rows) == 2


def test_a_folder_that_holds_a_run_is_no_place_for_an_evaluation(corpora, pretrained, capsys):
    words = ["--checkpoint", pretrained, "--suite", "fsdd", "--root", corpora]

    assert evaluate(*words, "--out", pretrained) == 2

    assert "holds a run" in capsys.readouterr().err


def test_a_bootstrap_over_what_a_corpus_does_not_tell_is_left_out(
    corpora, pretrained, tmp_path, capsys
):
    words = [
        "--checkpoint",
        pretrained,
        "--suite",
        "esc50",
        "--protocols",
        "knn",
        "--root",
        corpora,
    ]

    assert evaluate(*words, "--bootstrap", "speaker", "--out", tmp_path / "out") == 0

    assert "esc50 does not tell the speaker" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "table.json").read_text())[0]["bootstrap"] is None


def test_what_a_checkpoint_was_tuned_on_is_noted(corpora, pretrained, tmp_path):
    words = ["--task", "esc50", "--root", corpora / "sounds", "--checkpoint", pretrained]
    words += ["--training.epochs", 1, "--training.batch", 2]
    run = tmp_path / "tuned"
    assert main(list(map(str, ["finetune", *words, "--protocol", "full", "--out", run]))) == 0

    out = tmp_path / "out"
    words = ["--checkpoint", run, "--suite", "esc50", "--protocols", "knn", "--root", corpora]
    assert evaluate(*words, "--out", out) == 0

    notes = [record["notes"] for record in json.loads((out / "results.json").read_text())]
    assert sum(any("was fine-tuned on fold" in note for note in one) for one in notes) == 2


def test_embeddings_are_worked_out_once(corpora, pretrained, tmp_path, monkeypatch):
    from sslaudio import adaptation

    asked = []
    own = adaptation.embedded

    def counting(encoder, examples, told):
        asked.extend(example.key for example in examples)
        return own(encoder, examples, told)

    monkeypatch.setattr(adaptation, "embedded", counting)
    words = ["--checkpoint", pretrained, "--suite", "esc50", "--root", corpora, *SMALL]

    assert evaluate(*words, "--protocols", "knn,linear", "--out", tmp_path / "out") == 0

    assert len(asked) == len(set(asked)) == 6  # in three folds and two protocols


def test_random_weights_alone_leave_the_checkpoint_out(corpora, pretrained, tmp_path):
    words = ["--checkpoint", pretrained, "--random", "alone", "--suite", "fsdd", "--seeds", 2]
    words += ["--protocols", "linear", "--root", corpora, "--out", tmp_path / "out", *SMALL]

    assert evaluate(*words) == 0

    records = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [(one["checkpoint"], one["seed"]) for one in records] == [(None, 0), (None, 1)]


def test_an_absent_corpus_is_skipped_with_a_line_that_says_where_it_looked(
    corpora, pretrained, tmp_path, capsys
):
    words = ["--checkpoint", pretrained, "--suite", "nsynth,fsdd", "--protocols", "knn"]

    assert evaluate(*words, "--root", corpora, "--out", tmp_path / "out") == 0

    (line,) = [line for line in capsys.readouterr().err.splitlines() if "skipped" in line]
    assert "nsynth" in line and str(corpora) in line


def test_few_labels_draw_a_curve(corpora, pretrained, tmp_path):
    out = tmp_path / "out"

    words = ["--checkpoint", pretrained, "--suite", "fsdd", "--labels", "1,2,all", "--seeds", 2]
    assert evaluate(*words, "--protocols", "linear", "--root", corpora, "--out", out, *SMALL) == 0

    records = json.loads((out / "results.json").read_text())
    clips = {record["labels"]: record["clips"] for record in records}
    assert clips[1] == {"train": 2, "validation": 2, "test": 20}
    assert clips[2]["train"] == 4 and clips[None]["train"] > 4
    # Which clips are known hangs on the seed; all of them do not.
    assert [sum(r["labels"] == few for r in records) for few in (1, 2, None)] == [2, 2, 1]
    assert (out / "labels.png").is_file()


def test_jobs_side_by_side_give_the_same_results(corpora, pretrained, tmp_path):
    words = ["--checkpoint", pretrained, "--suite", "esc50,fsdd", "--protocols", "linear"]
    words += ["--root", corpora, *SMALL]

    assert evaluate(*words, "--out", tmp_path / "one") == 0
    assert evaluate(*words, "--out", tmp_path / "two", "--jobs", 2) == 0

    assert _scores(tmp_path / "two") == _scores(tmp_path / "one")


def test_lapes_departures_are_labelled_in_results_and_table(corpora, pretrained, tmp_path):
    make("urbansound8k", tmp_path / "us8k")
    out = tmp_path / "out"

    words = ["--checkpoint", pretrained, "--suite", "urbansound8k", "--protocols", "linear"]
    words += ["--task.split", "lape_legacy", "--root", tmp_path, "--out", out, *SMALL]
    assert evaluate(*words) == 0

    (record,) = json.loads((out / "results.json").read_text())
    assert record["split_rule"].startswith("lape_legacy")
    assert record["validation"] == record["test"]
    text = (out / "table.md").read_text()
    assert "the epoch is chosen on test" in text and "(theirs)" not in text


def test_published_scores_stand_beside_ours_where_the_protocol_is_the_same(
    corpora, pretrained, tmp_path
):
    words = ["--checkpoint", pretrained, "--suite", "esc50", "--root", corpora, *SMALL]

    assert evaluate(*words, "--protocols", "linear", "--out", tmp_path / "out") == 0

    rows = json.loads((tmp_path / "out" / "table.json").read_text())
    theirs = [row for row in rows if row["theirs"]]
    assert theirs and all(row["protocol"] == "linear" and row["source"] for row in theirs)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--suite", "esc51"], "esc51.*neither suite nor task.*esc50"),
        (["--protocols", "linaer"], "linaer.*linear"),
        (["--checkpoint", "nowhere"], "nowhere does not exist"),
        (["--labels", "0"], "--labels is '0'"),
        (["--jobs", "0"], "--jobs is 0"),
        (["--suite", "esc50:subset"], "esc50:leaf=value"),
        (["--suite", "esc50", "--task.version", "v2-35"], "--task.version is set.*esc50"),
        (["--suite", "esc50:subset=esc11"], "subset.*esc11"),
        (["--training.epochs", "-1"], "training.epochs is -1"),
    ],
)
def test_bad_input_is_one_line(corpora, pretrained, tmp_path, capsys, words, told):
    import re

    given = ["--root", corpora, "--out", tmp_path / "out", *words]
    if "--checkpoint" not in words:
        given = ["--checkpoint", pretrained, *given]

    assert evaluate(*given) == 2

    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(told, line)
    assert not (tmp_path / "out").exists()


def test_no_corpus_at_all_is_an_error(pretrained, tmp_path, capsys):
    (tmp_path / "empty").mkdir()

    words = ["--checkpoint", pretrained, "--root", tmp_path / "empty", "--out", tmp_path / "out"]
    assert evaluate(*words) == 2

    assert "no corpus of" in capsys.readouterr().err.splitlines()[-1]


def test_two_processes_score_every_clip_once_and_as_one_does(corpora, pretrained, tmp_path):
    words = ["--checkpoint", pretrained, "--suite", "fsdd", "--protocols", "linear,full"]
    words += ["--root", corpora, *SMALL]
    assert evaluate(*words, "--out", tmp_path / "one") == 0
    launch = [
        Path(sys.executable).parent / "accelerate", "launch", "--multi_gpu", "--num_processes", "2",
        Path(__file__).parents[2] / "sslaudio" / "evaluate.py",
    ]  # fmt: skip

    command = list(map(str, [*launch, *words, "--out", tmp_path / "two"]))
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)

    assert done.returncode == 0, done.stderr[-2000:]
    one, two = (json.loads((tmp_path / n / "results.json").read_text()) for n in ("one", "two"))
    assert [record["clips"] for record in two] == [record["clips"] for record in one]
    assert two[0]["test"] == one[0]["test"]  # linear; batches of full are cut otherwise
    (said,) = (tmp_path / "two" / "cells").glob("*full*.npz")
    with np.load(said, allow_pickle=False) as held:
        assert len(held["keys"]) == len(set(held["keys"])) == two[1]["clips"]["test"]


def _scores(out: Path) -> list:
    records = json.loads((out / "results.json").read_text())
    return [{key: value for key, value in one.items() if key != "seconds"} for one in records]
