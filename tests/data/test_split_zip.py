"""Zips in volumes: one by Info-ZIP's own program, one cut by hand."""

import shutil
import struct
import subprocess
import zipfile
from pathlib import Path
from random import Random

import pytest

from sslaudio.data.split_zip import open_volumes


def contents(volumes: list[Path]) -> dict[str, bytes]:
    with open_volumes(volumes) as file, zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.skipif(not shutil.which("zip"), reason="needs Info-ZIP's zip")
@pytest.mark.parametrize("level", ["-0", "-9"])
def test_volumes_that_zip_made_read_as_the_files_that_went_in(tmp_path, level):
    random = Random(0)
    files = {f"sounds/{n}.wav": random.randbytes(random.randrange(90_000)) for n in range(12)}
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    command = ["zip", "-q", level, "-s", "64k", "-r", "a.zip", "sounds", "-D"]
    subprocess.run(command, cwd=tmp_path, check=True)
    volumes = [*sorted(tmp_path.glob("a.z[0-9]*")), tmp_path / "a.zip"]
    assert len(volumes) > 5

    assert contents(volumes) == files


def cut(archive: Path, size: int, *, wide: bool) -> list[Path]:
    """A plain zip cut by hand: the directory's offsets count from the volume they lie in."""
    plain = archive.read_bytes()
    end = plain.rindex(b"PK\5\6")
    entries, _, start = struct.unpack_from("<H2L", plain, end + 10)
    directory, at = b"", start
    for _ in range(entries):
        head, at = bytearray(plain[at : at + 46]), at + 46
        name_size, extra_size, comment_size = struct.unpack_from("<3H", head, 28)
        assert not extra_size and not comment_size
        volume, offset = divmod(struct.unpack_from("<L", head, 42)[0], size)
        extra = struct.pack("<2HQL", 1, 12, offset, volume) if wide else b""
        struct.pack_into("<H", head, 30, len(extra))
        struct.pack_into("<H", head, 34, 0xFFFF if wide else volume)
        struct.pack_into("<L", head, 42, 0xFFFFFFFF if wide else offset)
        directory += bytes(head) + plain[at : at + name_size] + extra
        at += name_size
    first, offset = divmod(start, size)
    body = plain[:start] + directory
    last = len(body) // size
    tail = b""
    if wide:
        at_disk, at_offset = divmod(len(body), size)
        tail = struct.pack(
            "<4sQ2H2L4Q",
            b"PK\6\6",
            44,
            45,
            45,
            last,
            first,
            entries,
            entries,
            len(directory),
            offset,
        ) + struct.pack("<4sLQL", b"PK\6\7", at_disk, at_offset, last + 1)
        tail += struct.pack("<4s4H2LH", b"PK\5\6", *[0xFFFF] * 4, *[0xFFFFFFFF] * 2, 0)
    else:
        tail = struct.pack(
            "<4s4H2LH", b"PK\5\6", last, first, entries, entries, len(directory), offset, 0
        )
    whole = body + tail
    paths = []
    for volume in range(last + 1):
        is_last = volume == last
        paths.append(archive.with_suffix(".zip" if is_last else f".z{volume + 1:02d}"))
        paths[-1].write_bytes(whole[volume * size : None if is_last else (volume + 1) * size])
    return paths


@pytest.mark.parametrize("wide", [False, True])
def test_volumes_cut_by_hand(tmp_path, wide):
    files = {f"{n}.txt": bytes([n]) * 700 for n in range(9)}
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)

    volumes = cut(tmp_path / "b.zip", 1_000, wide=wide)

    assert len(volumes) == 8
    assert contents(volumes) == files


def test_a_missing_volume_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for n in range(9):
            archive.writestr(f"{n}.txt", bytes(700))
    volumes = cut(tmp_path / "b.zip", 1_000, wide=False)

    with pytest.raises(zipfile.BadZipFile, match="the last of 8 volumes, and there are 7"):
        open_volumes(volumes[1:])
    with pytest.raises(zipfile.BadZipFile, match="its end is missing"):
        open_volumes(volumes[:2])
