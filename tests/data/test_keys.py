import re

from hypothesis import example, given
from hypothesis import strategies as st

from sslaudio.data.keys import keys_of, keys_of_parts

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


def test_a_key_is_the_path_without_its_suffix():
    assert keys_of(["bed/5e3d_nohash_0.wav", "audio/1-17.5-A.ogg"]) == [
        "bed_5e3d_nohash_0",
        "audio_1-17_5-A",
    ]


def test_accents_fold_and_other_scripts_get_a_digest():
    keys = keys_of(["café.wav", "日本.wav", "東京.wav"])

    assert keys[0] == "cafe"
    assert re.fullmatch(r"-[0-9a-f]{12}", keys[1])
    assert keys[1] != keys[2]


def test_paths_that_collide_get_digests_whatever_their_order():
    forward = keys_of(["a/b.wav", "a_b.wav", "a_B.flac", "c.wav"])
    backward = keys_of(["c.wav", "a_B.flac", "a_b.wav", "a/b.wav"])

    assert forward == backward[::-1]
    assert forward[3] == "c"
    assert len({key.lower() for key in forward}) == 4


@example(["/"])
@given(st.lists(names, unique=True, max_size=20))
def test_keys_are_ascii_short_and_unique(sources):
    keys = keys_of(sources)

    assert len(set(keys)) == len(sources)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,80}", key) for key in keys)


@example([("a.wav", ["0000"]), ("a-0000.wav", [""]), ("A.flac", ["0000", "0001"])])
@example([("a.wav", ["0000-0001"]), ("a-0000.wav", ["0001"])])
@given(
    st.lists(
        st.tuples(names, st.lists(st.sampled_from(["", "0000", "0001", "0001-0000"]), unique=True)),
        unique_by=lambda source: source[0],
        max_size=10,
    )
)
def test_keys_of_parts_begin_with_their_sources_and_are_unique(sources):
    pairs = [(source, part) for source, parts in sources for part in parts]

    keys = keys_of_parts([source for source, _ in pairs], [part for _, part in pairs])

    assert len({key.lower() for key in keys}) == len(pairs)
    assert all(key.endswith(part) for key, (_, part) in zip(keys, pairs, strict=True))
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,91}", key) for key in keys)
