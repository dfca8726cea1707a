"""Tables: damage is told with file, line and cure."""

import pytest

from sslaudio.data.corpora import tables


@pytest.fixture
def table(tmp_path):
    def write(text, name="clips.csv"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_commas_quotes_and_letters_of_any_script_are_kept(table):
    (row,) = tables.read(table('\ufefffile, name\n"a,b.wav","Ärger, ""laut"" 犬"\n'), ("file",))

    assert (row["file"], row["name"], row.line) == ("a,b.wav", 'Ärger, "laut" 犬', 2)


def test_tabs_part_a_tsv(table):
    (row,) = tables.read(table("file\tname\na\tb, c\n", "clips.TSV"))

    assert row["name"] == "b, c"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,kind\na,b\n", r"clips\.csv lacks the column name; it has file, kind; mend"),
        ("file,name\na,b\n\nc\n", r"clips\.csv, line 4: the row ends before its name; mend"),
        ("file,name\na,b,c\n", r"line 2: the row has 3 cells for 2 columns; put .* in quotes"),
        ("file,name\n", "lists no clips; mend"),
        ("", "lists no clips"),
        (b"file,name\n\xff,a\n", "no table in UTF-8"),
        ("file,name,file\na,b,c\n", r"clips\.csv has two columns file; mend"),
        (
            'file,name\na,b\nc,"d\ne,f\n',
            r"clips\.csv, after line 2: .*\(a quote that is not closed",
        ),
    ],
)
def test_damage_is_told(table, text, words):
    with pytest.raises(ValueError, match=words) as caught:
        tables.read(table(text), ("file", "name"))

    assert "\n" not in str(caught.value)


def test_comments_are_passed_over_where_there_is_no_head(table):
    path = table("# of 2026\n-a, 1.5\n")

    (row,) = tables.read(path, ("file",), head=("file", "seconds"))

    assert (row["file"], row.number("seconds"), row.line) == ("-a", 1.5, 2)


@pytest.mark.parametrize("text", ["", "ten", "1.0", "-1", "11", "²"])
def test_a_fold_that_is_no_fold_is_told(table, text):
    (row,) = tables.read(table(f'file,fold\na,"{text}"\n'))

    with pytest.raises(ValueError, match="line 2: its fold is .*not a whole number of 1 to 10"):
        row.whole("fold", range(1, 11))


@pytest.mark.parametrize("text", ["", "nan", "inf", "1,5", "x"])
def test_a_number_that_is_none_is_told(table, text):
    (row,) = tables.read(table(f'file,start\na,"{text}"\n'))

    with pytest.raises(ValueError, match="line 2: its start is .*not a number"):
        row.number("start")


def test_a_row_that_is_there_twice_counts_once_and_must_not_differ(table):
    rows = tables.read(table("file,name\na,b\nc,d\na,b\n"))
    assert [name for name, _ in tables.unlike_before(rows, "file")] == ["a", "c"]

    rows = tables.read(table("file,name\na,b\na,d\n"))
    with pytest.raises(ValueError, match="line 3: a is in line 2 too, and tells otherwise"):
        list(tables.unlike_before(rows, "file"))
