from pathlib import Path

import pytest

from sslaudio.data.corpora.base import Clip


def test_a_split_of_another_name_is_refused():
    with pytest.raises(ValueError, match=r"a\.wav: its split is 'dev'.*train, validation, test"):
        Clip(Path("a.wav"), "a.wav", split="dev")


def test_one_label_or_several_and_not_both():
    with pytest.raises(ValueError, match=r"a\.wav has both a label and labels"):
        Clip(Path("a.wav"), "a.wav", label="dog", labels=("dog", "cat"))
