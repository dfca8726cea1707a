from collections import Counter

import pytest

from sslaudio.data.corpora.iemocap import Config, build

TIMES = "[6.2901 - 8.2357]"
VAD = "[2.5000, 2.5000, 2.5000]"


def table(root, session, dialogue, *lines):
    path = root / f"Session{session}" / "dialog" / "EmoEvaluation" / f"{dialogue}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n" + "\n".join(lines))
    return path


def turn(utterance, code):
    return f"{TIMES}\t{utterance}\t{code}\t{VAD}\nC-E2:\tNeutral;\t()\nA-E3:\tval 3; act 2;\t()"


@pytest.fixture
def iemocap(write_sounds):
    wav = "Session2/sentences/wav/Ses02M_script01_1"
    root = write_sounds(
        f"{wav}/Ses02M_script01_1_F000.wav",
        f"{wav}/Ses02M_script01_1_M000.wav",
        f"{wav}/Ses02M_script01_1_M001.wav",
    )
    table(
        root,
        2,
        "Ses02M_script01_1",
        turn("Ses02M_script01_1_F000", "exc"),
        turn("Ses02M_script01_1_M000", "FRU"),
        turn("Ses02M_script01_1_M001", "xxx"),
    )
    return root


def test_the_tables_tell_emotion_session_dialogue_and_speaker(iemocap):
    clips = build(Config("all"), iemocap)

    told = [(c.path.stem[-4:], c.label, c.fold, c.recording, c.speaker) for c in clips]
    assert told == [
        ("F000", "excited", 2, "Ses02M_script01_1", "Ses02F"),
        ("M000", "frustrated", 2, "Ses02M_script01_1", "Ses02M"),
        ("M001", None, 2, "Ses02M_script01_1", "Ses02M"),
    ]


def test_of_four_classes_excited_is_happy_and_the_others_have_no_label(iemocap):
    codes = ["ang", "dis", "exc", "fea", "fru", "hap", "neu", "oth", "sad", "sur", "xxx"]
    turns = [turn(f"Ses02F_impro05_F{n:03}", code) for n, code in enumerate(codes)]
    table(iemocap, 2, "Ses02F_impro05", *turns)

    clips = [clip for clip in build(Config(), iemocap) if clip.recording == "Ses02F_impro05"]

    labels = {codes[int(clip.path.stem[-3:])]: clip.label for clip in clips}
    told = {"ang": "angry", "exc": "happy", "hap": "happy", "neu": "neutral", "sad": "sad"}
    assert labels == dict.fromkeys(codes) | told


def test_hidden_files_and_the_raters_own_folders_are_not_read(iemocap):
    tables = iemocap / "Session2" / "dialog" / "EmoEvaluation"
    (tables / "._Ses02M_script01_1.txt").write_bytes(b"[\x00\xb0 broken")
    for folder in ("Attribute", "Categorical", "Self-evaluation", "Evaluator"):
        (tables / folder).mkdir()
        (tables / folder / "Ses02M_script01_1_e2.txt").write_text("[ not a table ]\n")
    hidden = iemocap / "Session2/sentences/wav/Ses02M_script01_1/._Ses02M_script01_1_F000.wav"
    hidden.touch()

    assert len(build(Config(), iemocap)) == 3


def test_a_rated_file_that_is_missing_is_a_clip_that_is_not_there(iemocap):
    table(iemocap, 2, "Ses02F_impro01", turn("Ses02F_impro01_F000", "ang"))

    (missing,) = [clip for clip in build(Config(), iemocap) if not clip.path.is_file()]

    assert missing.source == "Session2/sentences/wav/Ses02F_impro01/Ses02F_impro01_F000.wav"


def test_unrated_files_are_left_out_with_a_warning(iemocap, write_sounds):
    write_sounds("Session2/sentences/wav/Ses02F_impro02/Ses02F_impro02_F000.wav")

    with pytest.warns(UserWarning, match="1 files .* no table rates them.*impro02_F000"):
        clips = build(Config(), iemocap)

    assert len(clips) == 3


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"{TIMES}\tSes02F_impro01_F000", r"Ses02F_impro01\.txt, line 3: .* does not name times"),
        (f"{TIMES}\tSes02F_impro01_F000\t\t{VAD}", r"line 3: .* does not name times"),
        ("[6.29", r"line 3: '\[6\.29' does not name times"),
        (f"{TIMES}\tSes02F_impro01_F000\tjoy\t{VAD}", "line 3: emotion 'joy' is none of ang, dis"),
    ],
)
def test_a_damaged_line_is_told_with_file_and_line(iemocap, line, words):
    table(iemocap, 2, "Ses02F_impro01", line)

    with pytest.raises(ValueError, match=words):
        build(Config(), iemocap)


def test_two_emotions_of_one_utterance_are_refused(iemocap):
    table(iemocap, 2, "Ses02M_script01_1 copy", turn("Ses02M_script01_1_F000", "ang"))

    with pytest.raises(ValueError, match="Ses02M_script01_1_F000 is .* further up; restore"):
        build(Config(), iemocap)


def test_tables_without_a_turn_are_told(tmp_path):
    table(tmp_path, 1, "Ses01F_impro01", "nothing")

    with pytest.raises(ValueError, match="no table of SessionN.* names an utterance"):
        build(Config(), tmp_path)


def test_every_code_of_the_tables_has_its_word(tmp_path):
    codes = "neu hap exc ang sad fru sur fea dis oth xxx".split()
    table(
        tmp_path,
        1,
        "Ses01F_impro01",
        *(turn(f"Ses01F_impro01_F{place:03d}", code) for place, code in enumerate(codes)),
    )

    labels = Counter(clip.label for clip in build(Config("all"), tmp_path))

    assert len(labels) == 11
    assert labels[None] == 1
