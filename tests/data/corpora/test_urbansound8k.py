import pytest

from sslaudio.data.corpora.urbansound8k import Config, build

HEADER = "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
ROWS = (
    "100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog_bark\n"
    "100263-2-0-117.wav,100263,58.5,62.5,1,10,2,children_playing\n"
)


@pytest.fixture
def urbansound8k(write_sounds):
    root = write_sounds("audio/fold5/100032-3-0-0.flac", "audio/fold10/100263-2-0-117.WAV")
    (root / "metadata").mkdir()
    write_table(root, HEADER + ROWS)
    return root


def write_table(root, text):
    (root / "metadata" / "UrbanSound8K.csv").write_text(text)


def test_the_table_tells_and_the_suffix_may_differ(urbansound8k):
    told = [(c.source, c.label, c.fold, c.recording) for c in build(Config(), urbansound8k)]

    assert told == [
        ("audio/fold10/100263-2-0-117.WAV", "children_playing", 10, "100263"),
        ("audio/fold5/100032-3-0-0.flac", "dog_bark", 5, "100032"),
    ]


def test_a_listed_file_that_is_missing_is_listed_all_the_same(urbansound8k):
    (urbansound8k / "audio" / "fold5" / "100032-3-0-0.flac").unlink()

    gone = build(Config(), urbansound8k)[1]

    assert gone.source == "audio/fold5/100032-3-0-0.wav"
    assert not gone.path.is_file()


def test_unlisted_files_and_second_copies_are_left_out_with_a_warning(urbansound8k, write_sounds):
    write_sounds("audio/fold5/100032-3-0-0.wav", "audio/fold1/100032-3-0-0.wav")

    with pytest.warns(UserWarning, match=r"2 files are left out.*UrbanSound8K\.csv"):
        clips = build(Config(), urbansound8k)

    assert clips[1].source == "audio/fold5/100032-3-0-0.flac"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("slice_file_name,fsID,fold\na.wav,1,1\n", "lacks the column class"),
        (HEADER, "lists no clips"),
        (HEADER + "a.wav,1,0,4,1,11,3,dog_bark\n", "line 2: its fold is '11', not .* 1 to 10"),
        (HEADER + "a.wav,1,0,4,1,1,3,\n", "line 2: its class is empty"),
        (HEADER + "a.wav,1,0,4,1,1\n", "line 2: the row ends before its class"),
        (HEADER + ROWS + "100032-3-0-0.wav,7,0,1,1,5,3,siren\n", "line 4: 100032-3-0-0.wav is in"),
    ],
)
def test_a_broken_table_is_told(urbansound8k, table, words):
    write_table(urbansound8k, table)

    with pytest.raises(ValueError, match=words):
        build(Config(), urbansound8k)
