"""`sslaudio shards fetch` from a web server on the loopback, as a user meets it."""

import hashlib
import io
import re
import shutil
import subprocess
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import loopback
import miniatures
import pytest

from sslaudio import cli, plugins
from sslaudio.data import download, fetch, staging
from sslaudio.data.corpora import esc50, fsd50k, speech_commands
from sslaudio.data.corpora.base import Download, Source

WORDS, TEST = "speech_commands_v0.02.tar.gz", "speech_commands_test_set_v0.02.tar.gz"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSE_SECONDS", 0.001)
    with loopback.serving() as server:
        yield server


def run(*words) -> int:
    return cli.main(["shards", "fetch", *map(str, words)])


def packed(folder: Path, top: str = ".") -> bytes:
    """A .tar.gz of a folder."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        tar.add(folder, top)
    return file.getvalue()


def served(server, one: Download, *contents: bytes) -> Download:
    """An archive as described, but with these bytes, and from the loopback."""
    sources = []
    for source, content in zip(one.sources, contents, strict=True):
        server.files[source.name] = content
        checksum = source.checksum and f"sha256:{hashlib.sha256(content).hexdigest()}"
        sources.append(Source(server.url(source.name), len(content), checksum))
    return replace(one, sources=tuple(sources), unpacked_bytes=1_000_000)


@pytest.fixture
def words(server, tmp_path, monkeypatch) -> Path:
    """Speech Commands and its test archive on the server; the folder that they were made of."""
    made = tmp_path / "made"
    miniatures.make("speech_commands", made)
    (made / "noise.bin").write_bytes(hashlib.shake_256(b"").digest(150_000))
    silence = tmp_path / "test" / "_silence_"
    silence.mkdir(parents=True)
    shutil.copy(next(made.glob("*/*_nohash_*")), silence)
    first, second, *others = speech_commands.DOWNLOADS
    mine = (
        served(server, first, packed(made)),
        served(server, second, packed(silence.parent)),
        *others,
    )
    monkeypatch.setattr(speech_commands, "DOWNLOADS", mine)
    return made


def files(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and staging.WORK_FOLDER not in path.parts
    }


def test_a_corpus_comes_whole_from_a_server_that_breaks_off_half_way(
    server, words, tmp_path, capsys
):
    root = tmp_path / "in" / "root"
    server.break_offs = [2 * 65_536]

    assert run("speech_commands", "--root", root) == 0

    folder = "speech_commands_test_set_v0.02"
    fetched = files(root)
    assert {path: data for path, data in fetched.items() if folder not in path} == files(words)
    assert [path for path in fetched if folder in path and "/_silence_/" in path]
    assert [wanted for _, wanted in server.asked] == [None, "bytes=131072-", None]
    assert server.sent == sum(map(len, server.files.values()))
    told = capsys.readouterr()
    assert told.out.splitlines()[0] == "speech_commands: CC BY 4.0"
    assert "left out, --part takes them: v0.01 (1.5 GB), v0.01-test (71 MB)" in told.out
    assert re.search(r"1 MB to download, room for about 2 MB needed, [\d.]+ GB free", told.out)
    assert f"sslaudio shards build --corpus speech_commands --root {root} " in told.out
    assert "going on with speech_commands_v0.02.tar.gz, MB: 1 of 1" in told.err
    assert "unpacking speech_commands_v0.02.tar.gz, MB: 1 of 1" in told.err
    assert sorted(path.name for path in (root / ".fetch").iterdir()) == sorted(
        [".lock", f"{WORDS}.json", f"{TEST}.json"]
    )
    assert speech_commands.build(speech_commands.Config(), root)


def test_a_finished_fetch_run_again_does_nothing_and_says_so(server, words, tmp_path, capsys):
    run("speech_commands", "--root", tmp_path / "root")
    server.asked.clear()
    capsys.readouterr()

    assert run("speech_commands", "--root", tmp_path / "root") == 0

    assert server.asked == []
    assert f"v0.02: {WORDS} is fetched already, nothing to do" in capsys.readouterr().out


def test_a_file_that_went_since_is_fetched_again_and_no_other_archive(server, words, tmp_path):
    root = tmp_path / "root"
    run("speech_commands", "--root", root)
    server.asked.clear()
    before = files(root)
    next(root.glob("*/*_nohash_*")).unlink()

    assert run("speech_commands", "--root", root) == 0

    assert files(root) == before
    assert [path for path, _ in server.asked] == [f"/{WORDS}"]


def test_archives_are_kept_where_asked_and_serve_again(server, words, tmp_path):
    root = tmp_path / "root"
    run("speech_commands", "--root", root, "--keep-archives")
    assert (root / ".fetch" / WORDS).read_bytes() == server.files[WORDS]
    next(root.glob("*/*_nohash_*")).unlink()
    server.asked.clear()

    assert run("speech_commands", "--root", root) == 0
    assert server.asked == []


def test_parts_come_alone(server, words, tmp_path, capsys):
    assert run("speech_commands", "--root", tmp_path / "root", "--part", "v0.02") == 0

    assert [path for path, _ in server.asked] == [f"/{WORDS}"]
    assert "v0.02-test (1 MB)" in capsys.readouterr().out


def test_an_unpacking_that_was_interrupted_is_not_taken_for_a_finished_one(
    server, words, tmp_path, monkeypatch
):
    root = tmp_path / "root"

    def killed(*_):
        (root / ".fetch" / "unpacking" / "stop").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(fetch, "_check_sounds", killed)
        assert run("speech_commands", "--root", root) == 130
    assert files(root) == {}
    (root / ".fetch" / "unpacking" / "yes").mkdir(parents=True)  # as SIGKILL leaves it
    (root / ".fetch" / "unpacking" / "yes" / "half.wav").write_bytes(b"half")
    server.asked.clear()

    assert run("speech_commands", "--root", root, "--part", "v0.02") == 0

    assert files(root) == files(words)
    assert server.asked == []  # the archive was whole


def test_a_move_that_was_interrupted_goes_on(server, words, tmp_path, monkeypatch):
    root, moved = tmp_path / "root", []
    rename = Path.rename

    def killed(path, target):
        if path.suffix == ".wav" and len(moved) == 3:
            raise KeyboardInterrupt
        moved.append(path)
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        assert run("speech_commands", "--root", root, "--part", "v0.02") == 130
    assert 0 < len(files(root)) < len(files(words))
    server.asked.clear()

    assert run("speech_commands", "--root", root, "--part", "v0.02") == 0

    assert files(root) == files(words)
    assert server.asked == []


def test_wrong_bytes_are_told_and_nothing_of_them_stays(server, words, tmp_path, capsys):
    root = tmp_path / "root"
    right = server.files[WORDS]
    server.files[WORDS] = right[::-1]

    assert run("speech_commands", "--root", root) == 2

    line = capsys.readouterr().err.splitlines()[-1]
    expected, found = (hashlib.sha256(data).hexdigest() for data in (right, right[::-1]))
    assert f"{WORDS} is not what was published: its sha256 is {found}, expected {expected}" in line
    assert "Run the command again" in line
    assert files(root) == {}
    assert [path.name for path in (root / ".fetch").iterdir()] == [".lock"]


def test_an_archive_that_would_write_outside_leaves_nothing(
    server, words, tmp_path, capsys, monkeypatch
):
    evil = tmp_path / "evil.tar.gz"
    with tarfile.open(evil, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("yes/a_nohash_0.wav"))
        tar.addfile(tarfile.TarInfo("../../../../evil.wav"))
    mine = served(server, speech_commands.DOWNLOADS[0], evil.read_bytes())
    monkeypatch.setattr(speech_commands, "DOWNLOADS", (mine,))
    before = {path for path in tmp_path.rglob("*") if "root" not in path.parts}

    assert run("speech_commands", "--root", tmp_path / "root") == 2

    assert "outside" in capsys.readouterr().err
    assert files(tmp_path / "root") == {}
    assert not (tmp_path / "root" / ".fetch" / "unpacking").exists()
    assert {path for path in tmp_path.rglob("*") if "root" not in path.parts} == before


def test_a_link_in_the_root_that_leads_out_of_it_is_refused(server, words, tmp_path, capsys):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    elsewhere.mkdir()
    root.mkdir()
    folder = next(words.glob("*/*_nohash_*")).parent.name
    (root / folder).symlink_to(elsewhere)

    assert run("speech_commands", "--root", root, "--part", "v0.02") == 2

    assert f"{root / folder} is a link" in capsys.readouterr().err
    assert list(elsewhere.iterdir()) == []
    assert files(root) == {}


def test_another_file_in_the_place_of_one_is_refused_before_any_is_moved(
    server, words, tmp_path, capsys
):
    root = tmp_path / "root"
    root.mkdir()
    (root / "validation_list.txt").write_text("mine\n")

    assert run("speech_commands", "--root", root, "--part", "v0.02") == 2

    assert "validation_list.txt is there already and is not what" in capsys.readouterr().err
    assert files(root) == {"validation_list.txt": b"mine\n"}

    (root / "validation_list.txt").unlink()
    assert run("speech_commands", "--root", root, "--part", "v0.02") == 0
    assert files(root) == files(words)


def test_a_corpus_that_somebody_else_put_there_is_left_alone(server, words, capsys):
    assert run("speech_commands", "--root", words) == 2

    assert "already holds speech_commands, which this command did not" in capsys.readouterr().err
    assert server.asked == []


def test_two_versions_never_share_a_root(server, words, tmp_path, capsys):
    assert run("speech_commands", "--root", tmp_path / "a", "--part", "v0.01", "v0.02") == 2
    assert "want a folder each" in capsys.readouterr().err

    run("speech_commands", "--root", tmp_path / "root")
    assert run("speech_commands", "--root", tmp_path / "root", "--part", "v0.01") == 2
    assert "holds version 0.02 of speech_commands; give another" in capsys.readouterr().err


def test_a_disk_without_the_room_is_refused_in_a_line(server, words, tmp_path, capsys, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1_500_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)

    assert run("speech_commands", "--root", tmp_path / "root") == 2

    told = capsys.readouterr().err
    assert re.search(r"has 2 MB free and fetching speech_commands takes 2 MB: free some", told)
    assert "--part (v0.02, v0.02-test, v0.01, v0.01-test)" in told
    assert server.asked == []
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["speach_commands", "--root", "x"], "did you mean 'speech_commands'?"),
        (["folder", "--root", "x"], "folder tells no address to fetch it from"),
        (["nsynth", "--root", "x", "--part", "trian"], "did you mean 'train'? there is train, va"),
        (["esc50", "--root", "x", "--part", "fold1"], "there is only the whole"),
        (["voxceleb1", "--part", "dev"], "mean nothing for voxceleb1, which is fetched by hand"),
        (["nsynth"], "where to fetch nsynth? give --root DIR, or set $SSLAUDIO_DATA"),
    ],
)
def test_what_cannot_be_done_is_a_line(command, told, capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("SSLAUDIO_DATA", raising=False)
    monkeypatch.chdir(tmp_path)

    assert run(*command) == 2

    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_only_one_fetch_writes_to_a_root(server, words, tmp_path, capsys):
    with fetch._locked(tmp_path / "root"):
        assert run("speech_commands", "--root", tmp_path / "root") == 2
    assert "another fetch is writing to" in capsys.readouterr().err


def made_esc50(tmp_path: Path, count: int) -> bytes:
    made = tmp_path / "made"
    miniatures.make("esc50", made)
    for path in sorted(made.glob("audio/*"))[count:]:
        path.unlink()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in made.rglob("*"):
            name = f"{esc50.DOWNLOADS[0].inside}/{path.relative_to(made).as_posix()}"
            archive.writestr(name, path.read_bytes()) if path.is_file() else archive.mkdir(name)
    return file.getvalue()


def test_an_archive_without_a_checksum_is_counted_and_that_is_said(
    server, tmp_path, capsys, monkeypatch
):
    server.tells_length = False  # as GitHub packs it
    one = replace(served(server, esc50.DOWNLOADS[0], made_esc50(tmp_path, 6)), sounds=6)
    monkeypatch.setattr(esc50, "DOWNLOADS", (one,))

    assert run("esc50", "--root", tmp_path / "root") == 0

    assert "no checksum is published or told" in (told := capsys.readouterr().out)
    assert "by its own CRC and its 6 sound files counted" in told
    assert len(esc50.build(esc50.Config(), tmp_path / "root")) == 6


def test_an_archive_with_too_few_sounds_is_refused_and_removed(
    server, tmp_path, capsys, monkeypatch
):
    one = replace(served(server, esc50.DOWNLOADS[0], made_esc50(tmp_path, 5)), sounds=6)
    monkeypatch.setattr(esc50, "DOWNLOADS", (one,))

    assert run("esc50", "--root", tmp_path / "root") == 2

    assert "holds 5 sound files and 6 were published" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "root").rglob("*")] == [".fetch", ".lock"]


@pytest.mark.skipif(not shutil.which("zip"), reason="needs Info-ZIP's zip")
def test_volumes_of_a_split_zip_are_fetched_and_unpacked(server, tmp_path, monkeypatch):
    made = tmp_path / "made"
    miniatures.make("fsd50k", made)
    noise = made / "FSD50K.dev_audio" / "noise.bin"
    noise.write_bytes(hashlib.shake_256(b"").digest(300_000))
    mine = []
    for one in fsd50k.DOWNLOADS:
        folder = one.name.removesuffix(".zip")
        (made / folder).mkdir(exist_ok=True)
        (made / folder / "README").write_text(folder)
        split = ["-s", "64k"] if len(one.sources) > 1 else []
        subprocess.run(["zip", "-qr", *split, one.name, folder], cwd=made, check=True)
        paths = [*sorted(made.glob(f"{folder}.z[0-9]*")), made / one.name]
        url = one.sources[0].url
        sources = tuple(Source(url.replace(one.sources[0].name, path.name), 1) for path in paths)
        published = tuple(replace(source, checksum="sha256:x") for source in sources)
        volumes = replace(one, sources=published)
        mine.append(served(server, volumes, *(path.read_bytes() for path in paths)))
    monkeypatch.setattr(fsd50k, "DOWNLOADS", tuple(mine))
    assert [len(one.sources) > 1 for one in mine] == [False, False, True, False]

    assert run("fsd50k", "--root", tmp_path / "root", "--part", "dev") == 0

    assert files(tmp_path / "root") == {
        path: data
        for path, data in files(made).items()
        if "/" in path and "FSD50K.eval_audio/" not in path
    }


def test_archives_may_share_what_is_said_to_be_shared(server, tmp_path, monkeypatch):
    corpus = fetch.published("librispeech")
    mine = []
    for one in corpus.downloads[:2]:
        part = tmp_path / one.part / "LibriSpeech"
        (part / one.part / "1" / "2").mkdir(parents=True)
        (part / one.part / "1" / "2" / "1-2-0000.flac").write_bytes(one.part.encode())
        (part / "SPEAKERS.TXT").write_text(f"of {one.part}")
        mine.append(served(server, one, packed(part, "LibriSpeech")))
    corpus = replace(corpus, downloads=tuple(mine))
    monkeypatch.setattr(fetch, "_recognises", lambda *_: True)
    root = tmp_path / "root"

    fetch.fetch(fetch.plan(corpus, root, ["train-clean-100", "dev-clean"]), say=lambda _: None)

    assert files(root) == {
        "train-clean-100/1/2/1-2-0000.flac": b"train-clean-100",
        "dev-clean/1/2/1-2-0000.flac": b"dev-clean",
        "SPEAKERS.TXT": b"of train-clean-100",
    }
    again = fetch.plan(corpus, root, ["train-clean-100", "dev-clean"])
    assert [one.part for one in again.finished] == ["train-clean-100", "dev-clean"]


@pytest.mark.parametrize("name", plugins.names("corpora"))
def test_every_corpus_tells_how_it_is_got(name, tmp_path, capsys):
    if name in ("folder", "csv"):  # one's own
        return
    corpus = fetch.published(name)

    assert bool(corpus.downloads) != bool(corpus.steps)
    assert corpus.licence
    names = [source.name for one in corpus.downloads for source in one.sources]
    assert len(set(names)) == len(names)
    for one in corpus.downloads:
        assert one.unpacked_bytes >= one.size_bytes
        for source in one.sources:
            assert source.url.startswith(("https://", "http://"))
            assert re.fullmatch(r"|md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", source.checksum)
    if corpus.steps:
        assert run(name, "--root", tmp_path / "my root") == 0
        told = capsys.readouterr().out
        assert f"mkdir -p '{tmp_path / 'my root'}'" in told
        assert f"sslaudio shards build --corpus {name} --root '{tmp_path / 'my root'}'" in told
