import time
from collections import Counter
from types import MappingProxyType

import pytest
from miniatures import audioset as miniature

from sslaudio.data.corpora import audioset
from sslaudio.data.corpora.audioset import Config, build
from sslaudio.data.corpora.base import LeftOutWarning


@pytest.fixture
def root(tmp_path):
    miniature.make(tmp_path / "corpus")
    return tmp_path / "corpus"


def by_id(root, **config):
    return {clip.recording: clip for clip in build(Config(**config), root)}


def rewrite(root, part, *rows):
    (root / f"{part}_segments.csv").write_text("# a\n# b\n# c\n" + "".join(f"{r}\n" for r in rows))


def test_files_are_found_by_each_kind_of_name(root):
    clips = by_id(root)

    assert {clip.source for clip in clips.values()} == {
        file.replace("VALIDATES", miniature.VALIDATES) for file in miniature.FILES
    }
    # Cut off, the first letter would leave train00003, which is nobody.
    assert clips["Ytrain00003"].source == "audio/unbalanced_train/part00/Ytrain00003.wav"


def test_names_splits_and_parts_are_told(root):
    clips = by_id(root)

    assert clips["-train00001"].labels == ("Male speech, man speaking", "Speech")
    assert clips["-train00001"].subsets == ("balanced_train",)
    assert Counter(clip.split for clip in clips.values()) == {"train": 5, "test": 2}
    assert {clips[name].split for name in miniature.PARTS["eval"]} == {"test"}


def test_a_missing_clip_is_listed_all_the_same(root):
    (root / "eval" / "eval000000B.ogg").unlink()

    assert not by_id(root)["eval000000B"].path.exists()


def test_a_part_without_its_folder_is_not_there(root):
    (root / "eval").rename(root / "elsewhere")

    assert {clip.subsets for clip in build(Config(), root)} == {
        ("balanced_train",),
        ("unbalanced_train",),
    }
    with pytest.warns(UserWarning, match="holds no eval: it is left out"):
        assert {clip.split for clip in build(Config("20k"), root)} == {"train"}
    with pytest.raises(ValueError, match="is not AudioSet's eval: looked for .*set --root"):
        build(Config("eval"), root)


@pytest.mark.parametrize(
    ("subset", "clips"), [("balanced_train", 3), ("unbalanced_train", 2), ("eval", 2), ("20k", 5)]
)
def test_parts_can_be_asked_for(root, subset, clips):
    assert len(build(Config(subset), root)) == clips


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (['a, 0, 10, "/m/09x0r,/m/cat"'], r"eval_segments\.csv, line 4: its class '/m/cat' is not"),
        (["a, 0, 10"], "line 4: the row ends before its positive_labels"),
        (["a, 0, 10, /m/09x0r,/m/0bt9lr"], "line 4: the row has 5 cells for 4 columns; put"),
        (["a, 0, 10, /m/09x0r", "a, 9, 19, /m/09x0r"], "line 5: a is in line 4 too"),
        ([], "lists no clips"),
    ],
)
def test_a_broken_table_is_told(root, rows, words):
    rewrite(root, "eval", *rows)

    with pytest.raises(ValueError, match=words):
        build(Config(), root)


def test_a_head_that_is_no_comment_is_no_row(root):
    before = by_id(root)
    table = root / "eval_segments.csv"
    head = "YTID,start_seconds,end_seconds,positive_labels\n"
    table.write_text(head + table.read_text().replace(miniature.COMMENTS, ""))

    assert by_id(root) == before


def test_files_that_serve_nobody_are_left_out_with_a_warning(root):
    kept = root / "audio" / "balanced_train" / "-train00001.wav"
    for name in ("-train00001_1_2.wav", "nobody.wav"):
        (kept.parent / name).write_bytes(b"")

    with pytest.warns(UserWarning, match=r"2 files are left out.*balanced_train_segments\.csv"):
        clips = by_id(root)

    assert clips["-train00001"].path == kept


def test_files_that_nothing_decodes_are_counted_and_their_rows_missing(root):
    (root / "eval" / "eval000000B.ogg").rename(root / "eval" / "eval000000B.m4a")

    with pytest.warns(LeftOutWarning, match=r"1 files .* \.m4a is not read.*eval000000B\.m4a"):
        clips = by_id(root)

    assert not clips["eval000000B"].path.exists()


def test_opus_is_found(root):
    (root / "eval" / "eval000000B.ogg").rename(root / "eval" / "eval000000B.opus")

    assert by_id(root)["eval000000B"].source == "eval/eval000000B.opus"


def test_a_big_part_is_listed_by_one_scan(root, monkeypatch):
    names = [f"{number:011}" for number in range(20_000)]
    rewrite(root, "unbalanced_train", *(f'{name}, 0.0, 10.0, "/m/09x0r"' for name in names))
    folder = root / "audio" / "unbalanced_train"
    paths = [folder / f"Y{name}.wav" for name in names[1:]]
    scans = MappingProxyType({folder: paths})
    monkeypatch.setattr(audioset, "sound_files", scans.__getitem__)

    began = time.perf_counter()
    clips = build(Config("unbalanced_train"), root)

    assert time.perf_counter() - began < 5
    assert {clip.path for clip in clips} - set(paths) == {folder / "00000000000.wav"}
    assert len(clips) == 20_000


@pytest.mark.parametrize("part", audioset.PARTS)
def test_folders_may_bear_other_names_in_use(root, part):
    before = by_id(root)
    for name in audioset.FOLDERS[part]:
        for holder in (root / "audio", root):
            (folder,) = [
                at / known
                for at in (root / "audio", root)
                for known in audioset.FOLDERS[part]
                if (at / known).is_dir()
            ]
            folder.rename(holder / name)

            after = by_id(root)

            assert {key: clip.path.name for key, clip in after.items()} == {
                key: clip.path.name for key, clip in before.items()
            }
            assert all(clip.path.is_file() for clip in after.values())


def test_one_folder_may_serve_all_parts(root):
    before = by_id(root)
    for place, folder in enumerate([*(root / "audio").iterdir(), root / "eval"]):
        folder.rename(root / "audio" / f"{place}")
    (root / "audio" / "nobody12345.wav").write_bytes(b"")

    with pytest.warns(UserWarning, match="1 files are left out") as heard:
        after = by_id(root)

    assert len(heard) == 1
    assert after.keys() == before.keys()
    assert {name: clip.subsets for name, clip in after.items()} == {
        name: clip.subsets for name, clip in before.items()
    }
    assert all(clip.path.is_file() for clip in after.values())


@pytest.fixture
def many(root):
    """A thousand rows in each training part; of the files, two are there."""
    for letter, part in (("b", "balanced_train"), ("u", "unbalanced_train")):
        rewrite(root, part, *(f'{letter}{n:010}, 0, 10, "/m/09x0r"' for n in range(1_000)))
    miniature.sounds(root, *(f"audio/balanced_train/b{n:010}.wav" for n in range(2)))
    return root


def chosen(root, **config):
    return audioset.beside(Config(**config), root)["chosen.txt"].split()


def test_a_fraction_is_chosen_by_a_hash_of_the_youtube_id_alone():
    # `printf "0 --PJHxphWEs" | sha256sum` begins with these eight bytes.
    share = 0x80F70636A5770814 / 2**64

    assert not audioset.is_chosen("--PJHxphWEs", share, seed=0)
    assert audioset.is_chosen("--PJHxphWEs", 0.50378, seed=0)
    # Their hashes begin with cf, 84, ed, f3, 3b, 8f, 3b, 6b.
    assert [name for name in "abcdefgh" if audioset.is_chosen(name, 0.5, 0)] == ["e", "g", "h"]


def test_a_tenth_of_both_training_parts_and_all_of_eval(many):
    clips = build(Config(fraction=0.1), many)
    names = {clip.recording for clip in clips if clip.split == "train"}

    assert {clip.recording for clip in clips if clip.split == "test"} == set(
        miniature.PARTS["eval"]
    )
    assert {name[0] for name in names} == {"b", "u"}
    assert 150 < len(names) < 250
    assert chosen(many, fraction=0.1) == sorted(names)


def test_what_is_missing_does_not_change_what_is_chosen(many):
    before = chosen(many, fraction=0.1)
    for path in (many / "audio" / "balanced_train").iterdir():
        path.unlink()
    assert chosen(many, fraction=0.1) == before

    rewrite(many, "unbalanced_train", *(f"u{n:010}, 0, 10, /m/09x0r" for n in range(0, 1_000, 2)))
    half = chosen(many, fraction=0.1)
    assert half == [name for name in before if name[0] == "b" or int(name[1:]) % 2 == 0]


def test_a_larger_fraction_holds_the_smaller_and_another_seed_chooses_others(many):
    tenth = set(chosen(many, fraction=0.1))

    assert tenth < set(chosen(many, fraction=0.2))
    assert tenth != set(chosen(many, fraction=0.1, seed=1))
    assert audioset.beside(Config(), many) == {}
    assert {name[0] for name in chosen(many, fraction=0.1, subset="20k")} == {"b"}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"fraction": 0.0}, "--fraction is 0; it is a share .* above 0 up to 1"),
        ({"fraction": 10.0}, "--fraction is 10; it is a share"),
        ({"fraction": float("nan")}, "--fraction is nan; it is a share"),
        ({"fraction": 0.1, "subset": "eval"}, "eval, the --subset, is never thinned"),
        ({"seed": 3}, "--seed is 3, but chooses nothing .* set --fraction below 1"),
    ],
)
def test_a_fraction_that_means_nothing_is_refused(config, words):
    with pytest.raises(ValueError, match=words):
        Config(**config)


def test_a_fraction_that_chooses_nobody_says_so(root):
    with pytest.raises(ValueError, match=r"--fraction 1e-09 chooses none of the 3 clips"):
        build(Config("balanced_train", fraction=1e-9), root)
