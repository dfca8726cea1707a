"""Archives of ill will, and of good."""

import gzip
import io
import os
import stat
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from sslaudio.data import unpack as room
from sslaudio.data.progress import silent
from sslaudio.data.unpack import DamagedError, unpack


def tar_of(path: Path, *members: tuple[str, bytes | dict]) -> Path:
    """Members are (name, content), or (name, fields of a TarInfo) for what is no file."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, dict):
                for key, value in content.items():
                    setattr(info, key, value)
                tar.addfile(info)
            else:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


def zip_of(path: Path, *members: tuple[str, bytes, int]) -> Path:
    """Members are (name, content, Unix mode)."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content, mode in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, content)
    return path


@pytest.fixture
def into(tmp_path) -> Path:
    folder = tmp_path / "below" / "into"
    folder.mkdir(parents=True)
    return folder


def everything(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_files_come_out_as_they_went_in(into, tmp_path):
    members = [("./yes/a.wav", b"aaaa"), ("./yes/b.wav", b""), ("./LICENSE", b"free")]
    for folder in ("t", "z"):
        (into / folder).mkdir()
    expected = {"yes/a.wav": 4, "yes/b.wav": 0, "LICENSE": 4}

    tar = unpack([tar_of(tmp_path / "a.tar.gz", *members)], into / "t", progress=silent)
    packed = zip_of(tmp_path / "a.zip", *((name[2:], data, 0o644) for name, data in members))
    unzipped = unpack([packed], into / "z", progress=silent)

    assert tar.files == unzipped.files == expected
    assert tar.left_out == []
    for folder in ("t", "z"):
        assert (into / folder / "yes/a.wav").read_bytes() == b"aaaa"
        assert everything(into / folder) == {*expected, "yes"}


def test_of_a_folder_of_the_archive_the_content_alone_comes_out(into, tmp_path):
    archive = tar_of(
        tmp_path / "a.tar.gz",
        ("US8K", {"type": tarfile.DIRTYPE}),
        ("US8K/audio/a.wav", b"aaaa"),
        ("._US8K", b"Mac"),
    )

    unpacked = unpack([archive], into, inside="US8K", progress=silent)

    assert unpacked.files == {"audio/a.wav": 4}
    assert unpacked.left_out == ["._US8K"]
    assert everything(into) == {"audio", "audio/a.wav"}


@pytest.mark.parametrize(
    "name", ["../evil", "a/../../evil", "/tmp/evil", "..\\evil", "C:\\evil", "a/b/../../../evil"]
)
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_nothing_is_written_outside_the_folder(into, tmp_path, name, kind):
    if kind == "tar":
        archive = tar_of(tmp_path / "a.tar.gz", (name, b"evil"))
    else:
        archive = zip_of(tmp_path / "a.zip", (name, b"evil", 0o644))
    before = everything(tmp_path)

    with pytest.raises(ValueError, match=r"^a\.(tar\.gz|zip).* outside|outside .*destination"):
        unpack([archive], into, progress=silent)

    assert everything(tmp_path) == before
    assert not Path("/tmp/evil").exists()


@pytest.mark.parametrize(
    "member",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.SYMTYPE, "linkname": "../../evil"},
        {"type": tarfile.LNKTYPE, "linkname": "../evil"},
        {"type": tarfile.FIFOTYPE},
        {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3},
    ],
)
def test_links_that_lead_outside_and_devices_are_refused(into, tmp_path, member):
    archive = tar_of(tmp_path / "a.tar.gz", ("sub/link", member), ("sub/link/evil", b"evil"))

    with pytest.raises(ValueError, match="^a.tar.gz"):
        unpack([archive], into, progress=silent)

    assert not any(path.is_symlink() or path.is_file() for path in into.rglob("*"))


def test_a_link_of_a_zip_that_leads_outside_is_refused(into, tmp_path):
    link = ("link", b"/etc", stat.S_IFLNK | 0o777)
    archive = zip_of(tmp_path / "a.zip", link, ("link/evil", b"evil", 0o644))

    with pytest.raises(ValueError, match=r"would write outside its folder, to '/etc'"):
        unpack([archive], into, progress=silent)

    assert everything(into) == set()


def test_a_link_inside_is_left_out_and_nothing_goes_through_it(into, tmp_path):
    archive = tar_of(
        tmp_path / "a.tar.gz",
        ("real/a.wav", b"aaaa"),
        ("sub/link", {"type": tarfile.SYMTYPE, "linkname": "../real"}),
        ("sub/link/b.wav", b"bbbb"),
    )

    unpacked = unpack([archive], into, progress=silent)

    assert unpacked.left_out == ["sub/link"]
    assert unpacked.files == {"real/a.wav": 4, "sub/link/b.wav": 4}
    assert not (into / "sub/link").is_symlink()
    assert not (into / "real/b.wav").exists()


@pytest.mark.parametrize("second", [("a.wav", b"b"), ("a.wav/b.wav", b"b")])
def test_a_path_that_stands_twice_is_refused(into, tmp_path, second):
    archive = tar_of(tmp_path / "a.tar.gz", ("a.wav", b"aaaa"), second)

    with pytest.raises(ValueError, match="holds 'a.wav.*' twice, or as file and folder"):
        unpack([archive], into, progress=silent)
    assert (into / "a.wav").read_bytes() == b"aaaa"


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_bomb_is_refused_before_it_is_written(into, tmp_path, kind, monkeypatch):
    monkeypatch.setattr(room, "ALWAYS_ALLOWED_BYTES", 100_000)
    zeros = bytes(1_000_000)
    if kind == "tar":
        archive = tar_of(tmp_path / "a.tar.gz", ("small", b"s"), ("zeros", zeros))
    else:
        archive = zip_of(tmp_path / "a.zip", ("small", b"s", 0o644), ("zeros", zeros, 0o644))
    assert archive.stat().st_size * room.MOST_TIMES < 100_000

    with pytest.raises(ValueError, match="would unpack to more than 100000 bytes, 20 times its"):
        unpack([archive], into, progress=silent)
    assert everything(into) <= {"small"}


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_bomb_of_headers_is_refused_before_it_is_in_memory(into, tmp_path, kind):
    header = tarfile.TarInfo("headers")
    header.type, header.size = kind, 64 << 20
    archive = tmp_path / "a.tar.gz"
    with gzip.open(archive, "wb") as file:
        file.write(header.tobuf(tarfile.USTAR_FORMAT) + bytes(header.size))
        file.write(tarfile.TarInfo("a.wav").tobuf(tarfile.USTAR_FORMAT) + bytes(1024))

    tracemalloc.start()
    with pytest.raises(ValueError, match=r"a\.tar\.gz has more than 1048576 bytes of headers"):
        unpack([archive], into, progress=silent)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_a_bomb_of_many_members_is_refused(into, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "MOST_MEMBERS", 3)
    archive = tar_of(tmp_path / "a.tar.gz", *((f"{n}", b"") for n in range(4)))

    with pytest.raises(ValueError, match="more than 3 members"):
        unpack([archive], into, progress=silent)


def test_more_than_the_disk_holds_is_refused(into, tmp_path, monkeypatch):
    usage = room.shutil.disk_usage(into)._replace(free=3)
    monkeypatch.setattr(room.shutil, "disk_usage", lambda _: usage)
    archive = tar_of(tmp_path / "a.tar.gz", ("a.wav", b"aaaa"))

    with pytest.raises(ValueError, match="more than there is room for: 3 bytes are free"):
        unpack([archive], into, progress=silent)
    assert everything(into) == set()


def test_a_zip_that_lies_about_a_size_is_damaged(into, tmp_path):
    archive = zip_of(tmp_path / "a.zip", ("a.wav", bytes(1_000), 0o644))
    data = archive.read_bytes()
    directory = data.rindex(b"PK\1\2")
    archive.write_bytes(
        data[: directory + 24] + (10).to_bytes(4, "little") + data[directory + 28 :]
    )

    with pytest.raises(DamagedError, match=r"a\.zip is damaged"):
        unpack([archive], into, progress=silent)
    assert (into / "a.wav").stat().st_size <= 10


@pytest.mark.parametrize("damage", ["cut", "flipped", "crc", "page"])
def test_a_damaged_archive_is_told(into, tmp_path, damage):
    archive = tar_of(tmp_path / "a.tar.gz", ("a.wav", os.urandom(50_000)))
    data = bytearray(archive.read_bytes())
    if damage == "flipped":
        data[30_000] ^= 1
    if damage == "crc":
        data[-5] ^= 1  # of gzip's checksum or length
        data[-8] ^= 1
    cut = data[:30_000] if damage == "cut" else data
    archive.write_bytes(b"<!DOCTYPE html>" if damage == "page" else cut)

    with pytest.raises(DamagedError, match=r"a\.tar\.gz is damaged .*run the command again"):
        unpack([archive], into, progress=silent)


def test_a_plain_tar_is_read_too(into, tmp_path):
    packed = tar_of(tmp_path / "a.tar.gz", ("a.wav", b"aaaa"))
    (tmp_path / "a.tar").write_bytes(gzip.decompress(packed.read_bytes()))

    assert unpack([tmp_path / "a.tar"], into, progress=silent).files == {"a.wav": 4}
