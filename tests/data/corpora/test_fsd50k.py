import pytest
from miniatures import fsd50k as miniature

from sslaudio.data.corpora.fsd50k import Config, build


@pytest.fixture
def fsd50k(tmp_path):
    miniature.make(tmp_path / "corpus")
    return tmp_path / "corpus"


def by_recording(root):
    return {clip.recording: clip for clip in build(Config(), root)}


def write(root, name, text):
    (root / "FSD50K.ground_truth" / name).write_text(text)


def test_labels_splits_and_licences_are_told(fsd50k):
    clips = by_recording(fsd50k)

    assert clips["64760"].labels == ("Bark", "Dog")
    assert clips["64760"].source == "FSD50K.dev_audio/64760.wav"
    splits = {name: clip.split for name, clip in clips.items()}
    assert [name for name in splits if splits[name] == "validation"] == ["16399", "16401"]
    assert [name for name in splits if splits[name] == "test"] == ["175151", "37199"]
    assert (clips["64760"].licence, clips["9"].licence) == ("CC0", None)


def test_names_are_those_of_the_vocabulary_commas_and_all(fsd50k):
    write(
        fsd50k,
        "vocabulary.csv",
        'index,label,mid\n0,"Bark, loud",/m/05tny_\n1,Hündin,/m/0bt9lr\n2,Rain,/m/06mb1\n',
    )

    assert by_recording(fsd50k)["64760"].labels == ("Bark, loud", "Hündin")


def test_a_class_that_the_vocabulary_lacks_is_told(fsd50k):
    write(fsd50k, "eval.csv", "fname,labels,mids\n37199,Rain,/m/06mb1\n175151,Cat,/m/cat\n")

    with pytest.raises(ValueError, match=r"eval\.csv, line 3: its class '/m/cat' of 'Cat'.*mend"):
        build(Config(), fsd50k)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("1,Rain,/m/06mb1,dev", "line 2: its split is 'dev', neither train nor val"),
        ("1,Rain,/m/06mb1", "line 2: the row ends before its split"),
        ("1,,,train", "line 2: its mids is empty"),
    ],
)
def test_a_broken_row_is_told(fsd50k, row, words):
    write(fsd50k, "dev.csv", f"fname,labels,mids,split\n{row}\n")

    with pytest.raises(ValueError, match=words):
        build(Config(), fsd50k)


def test_without_its_vocabulary_it_cannot_be_read(fsd50k):
    (fsd50k / "FSD50K.ground_truth" / "vocabulary.csv").unlink()

    with pytest.raises(ValueError, match=r"vocabulary\.csv is missing.*restore"):
        build(Config(), fsd50k)


def test_one_part_alone_is_taken_with_a_warning(fsd50k):
    (fsd50k / "FSD50K.ground_truth" / "eval.csv").unlink()

    with pytest.warns(UserWarning, match=r"has no eval\.csv: that part is left out"):
        clips = build(Config(), fsd50k)

    assert {clip.split for clip in clips} == {"train", "validation"}


def test_other_metadata_gives_no_licence(fsd50k):
    (fsd50k / "FSD50K.metadata" / "dev_clips_info_FSD50K.json").write_text("[1, 2")

    with pytest.warns(UserWarning, match="does not tell a license"):
        assert {clip.licence for clip in build(Config(), fsd50k)} == {None}
