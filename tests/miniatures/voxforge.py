"""Two languages, each with a user who trains, one who validates, one who tests, and no one."""

from pathlib import Path

from miniatures import sounds

USERS = {
    "de": ("ada", "cleo", "paul", "anonymous"),
    "English": ("José", "leo", "tina", "anonymous"),
}


def make(root: Path) -> None:
    for language, users in USERS.items():
        for user in users:
            submission = f"{language}/{user}-20080425-acs"
            sounds(root, f"{submission}/wav/a0001.wav", f"{submission}/wav/a0002.wav")
    sounds(root, "English/ada-20140214-afn/flac/b,1.flac")
