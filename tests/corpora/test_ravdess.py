"""The RAVDESS download, from a local server that cuts connections, ignores ranges and refuses."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import socket
import stat
import threading
import zipfile
from collections import namedtuple
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from ser_lib.corpora import ravdess
from ser_lib.errors import CorpusError

NAMES = [f"Actor_{actor:02d}/03-01-0{code}-01-01-01-{actor:02d}.wav" for actor in (1, 2) for code in (1, 2)]


def zipped(names=NAMES, *, folders: bool = True) -> bytes:
    """An archive of incompressible clips, 150 kB each, with folder entries as in the published one."""
    rng = np.random.default_rng(0)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for folder in sorted({name.split("/")[0] for name in NAMES}) if folders else ():
            archive.mkdir(folder)
        for name in names:
            archive.writestr(name, rng.bytes(150_000))
    return out.getvalue()


ARCHIVE = zipped()


def published(archive: bytes = ARCHIVE) -> dict:
    return {"MD5": hashlib.md5(archive).hexdigest(), "SIZE": len(archive), "N_CLIPS": len(NAMES)}


def fetch(folder: Path, url: str, **archive) -> Path:
    """Run `fetch_ravdess` with the archive at `url` in place of the published one."""
    with patch.multiple(ravdess, URL=url, **(archive or published())):
        return ravdess.fetch_ravdess(folder)


class Server:
    """Serves `content` at /ravdess.zip.

    Attributes
    ----------
    cuts : list of int
        Bytes after which the first, second, … connection is cut.
    statuses : list of int
        Answers to the first, second, … request instead of the content.
    ranges : bool
        Whether a Range header is heeded.
    asked, sent : lists
        The Range header and the bytes sent of each request.
    """

    def __init__(self, content: bytes = ARCHIVE):
        self.content, self.cuts, self.statuses, self.ranges = content, [], [], True
        self.asked: list[str | None] = []
        self.sent: list[int] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.answer(self)

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/ravdess.zip"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.asked.append(asked)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.ranges else 0
        status = self.statuses.pop(0) if self.statuses else 206 if start else 200
        if start >= len(self.content):
            status = 416
        body = self.content[start:] if status < 300 else b""
        cut = self.cuts.pop(0) if self.cuts else len(body)
        self.sent.append(len(body[:cut]))
        request.send_response(status)
        request.send_header("Content-Length", str(len(body)))
        if status == 206:
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        request.end_headers()
        request.wfile.write(body[:cut])
        request.close_connection = True


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(ravdess, "WAIT_S", 0.001)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "data" / "ravdess"


def unpacked(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def contents(archive: bytes = ARCHIVE) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as source:
        return {name: source.read(name) for name in source.namelist() if not name.endswith("/")}


def beside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.iterdir())


# --- what works ------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [ARCHIVE, zipped(folders=False)], ids=["folder entries", "files only"])
def test_a_good_archive_is_unpacked_and_deleted(content, server, folder, capsys):
    server.content = content
    assert fetch(folder, server.url, **published(content)) == folder
    assert unpacked(folder) == contents(content)
    assert beside(folder) == ["ravdess"]
    assert server.asked == [None]
    output = capsys.readouterr()
    assert "ravdess.zip" in output.err  # the progress bar
    assert output.out == ""


def test_a_query_in_the_url_is_no_part_of_the_file_name(server, folder):
    fetch(folder, server.url + "?download=1")
    assert unpacked(folder) == contents()


def test_clips_that_are_there_are_not_downloaded_again(server, folder, capsys):
    fetch(folder, server.url)
    capsys.readouterr()
    assert fetch(folder, server.url) == folder
    assert len(server.asked) == 1
    assert "all 4 clips are there, nothing to download" in capsys.readouterr().err


def test_clips_kept_in_another_format_count(server, folder):
    for name in NAMES:
        path = (folder / name).with_suffix(".flac")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    fetch(folder, server.url)
    assert server.asked == []


def test_an_empty_folder_is_filled(server, folder):
    folder.mkdir(parents=True)
    fetch(folder, server.url)
    assert unpacked(folder) == contents()


def test_a_cut_download_continues_where_it_stopped(server, folder):
    server.cuts = [400_000]
    fetch(folder, server.url)
    assert unpacked(folder) == contents()
    first, second = server.asked
    assert first is None
    got = int(re.fullmatch(r"bytes=(\d+)-", second)[1])
    assert 300_000 < got <= 400_000
    assert server.sent == [400_000, len(ARCHIVE) - got]


def test_a_part_of_an_earlier_call_is_continued(server, folder):
    folder.parent.mkdir(parents=True)
    (folder.parent / "ravdess.zip.part").write_bytes(ARCHIVE[:450_000])
    fetch(folder, server.url)
    assert unpacked(folder) == contents()
    assert server.asked == ["bytes=450000-"]
    assert server.sent == [len(ARCHIVE) - 450_000]


def test_a_complete_part_needs_no_server(server, folder):
    folder.parent.mkdir(parents=True)
    (folder.parent / "ravdess.zip.part").write_bytes(ARCHIVE)
    fetch(folder, server.url)
    assert unpacked(folder) == contents()
    assert server.asked == []


def test_a_part_that_is_too_long_is_started_again(server, folder):
    folder.parent.mkdir(parents=True)
    (folder.parent / "ravdess.zip.part").write_bytes(ARCHIVE + b"more")
    fetch(folder, server.url)
    assert unpacked(folder) == contents()
    assert server.asked == [f"bytes={len(ARCHIVE) + 4}-", None]


def test_a_server_without_ranges_starts_again(server, folder):
    server.ranges, server.cuts = False, [400_000]
    fetch(folder, server.url)
    assert unpacked(folder) == contents()
    assert server.sent == [400_000, len(ARCHIVE)]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(status, server, folder):
    server.statuses = [status, status]
    fetch(folder, server.url)
    assert unpacked(folder) == contents()
    assert len(server.asked) == 3


def test_a_zip_placed_by_hand_is_taken(server, folder):
    folder.parent.mkdir(parents=True)
    (folder.parent / "ravdess.zip").write_bytes(ARCHIVE)
    fetch(folder, server.url)
    assert unpacked(folder) == contents()
    assert server.asked == []
    assert beside(folder) == ["ravdess"]


# --- what does not ---------------------------------------------------------------------------------


def test_a_wrong_checksum_deletes_the_part(server, folder):
    wrong = published() | {"MD5": "0" * 32}
    message = rf"ravdess\.zip\.part: MD5 {published()['MD5']}, expected 0{{32}}; it was deleted, run `make data` again"
    with pytest.raises(CorpusError, match=message):
        fetch(folder, server.url, **wrong)
    assert beside(folder) == []


def test_a_zip_placed_by_hand_is_checked_and_left_to_its_owner(server, folder):
    folder.parent.mkdir(parents=True)
    (folder.parent / "ravdess.zip").write_bytes(ARCHIVE[:-1])
    with pytest.raises(CorpusError, match=r"ravdess\.zip: MD5 \w{32}, expected \w{32}; delete it and run"):
        fetch(folder, server.url)
    assert beside(folder) == ["ravdess.zip"]


def test_a_connection_cut_again_and_again_keeps_what_came(server, folder):
    server.cuts = [100_000] * ravdess.TRIES
    message = (
        rf"no connection \(\w+\), \d+ of {len(ARCHIVE)} bytes are here; run `make data` again to continue"
    )
    with pytest.raises(CorpusError, match=message):
        fetch(folder, server.url)
    assert len(server.asked) == ravdess.TRIES
    part = (folder.parent / "ravdess.zip.part").read_bytes()
    assert len(part) > 300_000
    assert ARCHIVE.startswith(part)
    fetch(folder, server.url)
    assert unpacked(folder) == contents()
    assert server.asked[-1] == f"bytes={len(part)}-"


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_is_not_tried_again(status, server, folder):
    server.statuses = [status] * 9
    message = rf"/ravdess\.zip: the server answers {status}, .*or download http\S+ by hand to \S+/ravdess\.zip and run"
    with pytest.raises(CorpusError, match=message):
        fetch(folder, server.url)
    assert len(server.asked) == 1


def test_no_network_says_what_to_do_by_hand(folder):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening: a connection is refused
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/ravdess.zip"
        message = rf"no connection \(ConnectionError\), 0 of \d+ bytes.*download {url} by hand to \S+ravdess\.zip and"
        with pytest.raises(CorpusError, match=message):
            fetch(folder, url)


def test_a_login_page_is_not_taken_for_the_archive(server, folder):
    server.content = b"<html>Please log in to this network</html>"
    with pytest.raises(CorpusError, match=rf"42 bytes offered, not {len(ARCHIVE)}; log in to this network"):
        fetch(folder, server.url)
    assert beside(folder) == []


def link() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(NAMES[0])
    entry.create_system = 3
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    return entry


@pytest.mark.parametrize(
    "entry",
    [
        "../03-01-01-01-01-01-01.wav",
        "Actor_01/../../03-01-01-01-01-01-01.wav",
        "/tmp/03-01-01-01-01-01-01.wav",
        "C:/03-01-01-01-01-01-01.wav",
        "Actor_01\\..\\03-01-01-01-01-01-01.wav",
        "Actor_01/03-01-01-01-01-01-02.wav",
        "Actor_01/03-01-01-01-01-01-01.wav.exe",
        "Actor_01/.bashrc",
        "03-01-01-01-01-01-01.wav",
        link(),
    ],
    ids=lambda entry: entry if isinstance(entry, str) else "symlink",
)
def test_an_entry_of_another_name_refuses_the_whole_archive(entry, server, folder, tmp_path):
    name = entry if isinstance(entry, str) else entry.filename
    server.content = zipped([*NAMES[1:], entry])
    message = (
        rf"ravdess\.zip: {re.escape(repr(name))} is not a RAVDESS clip; nothing unpacked, delete the zip"
    )
    with pytest.raises(CorpusError, match=message):
        fetch(folder, server.url, **published(server.content))
    assert [path.name for path in tmp_path.rglob("*")] == ["data", "ravdess.zip"]


def test_an_archive_with_too_few_clips_is_refused(server, folder):
    server.content = zipped(NAMES[:3])
    with pytest.raises(CorpusError, match=r"ravdess\.zip: 3 clips in it, not 4; delete it and run"):
        fetch(folder, server.url, **published(server.content))
    assert beside(folder) == ["ravdess.zip"]


def test_a_file_that_is_no_zip_is_refused(server, folder):
    server.content = bytes(10_000)
    with pytest.raises(CorpusError, match=r"ravdess\.zip: a damaged zip \(.+\); delete it and run"):
        fetch(folder, server.url, **published(server.content))
    assert beside(folder) == ["ravdess.zip"]


def test_a_folder_with_something_else_in_it_is_left_alone(server, folder):
    (folder / "Actor_01").mkdir(parents=True)
    (folder / NAMES[0]).write_bytes(b"mine")
    with pytest.raises(
        CorpusError, match=r"ravdess: 1 of 4 clips; move the folder away and run `make data` again"
    ):
        fetch(folder, server.url)
    assert unpacked(folder) == {NAMES[0]: b"mine"}
    assert server.asked == []


def test_too_little_disk_is_an_error_before_the_download(server, folder, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(0, 0, int(3.4 * len(ARCHIVE))))
    with pytest.raises(
        CorpusError, match=r"data: 0\.00 GB free, the zip and its clips need 0\.00 GB; make room"
    ):
        fetch(folder, server.url)
    assert server.asked == []
    (folder.parent / "ravdess.zip.part").write_bytes(ARCHIVE[:450_000])  # less is left to load
    fetch(folder, server.url)
    assert unpacked(folder) == contents()


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_an_interrupted_unpacking_leaves_nothing_behind(fault, server, folder, monkeypatch):
    extract = zipfile.ZipFile.extractall

    def broken(self, path):
        extract(self, path, members=self.namelist()[:4])
        raise fault

    monkeypatch.setattr(zipfile.ZipFile, "extractall", broken)
    expected = CorpusError if isinstance(fault, OSError) else KeyboardInterrupt
    with pytest.raises(expected, match=r"No space left on device.*correct that and run|^$"):
        fetch(folder, server.url)
    assert beside(folder) == ["ravdess.zip"]  # checked, so that it is not loaded a second time
    monkeypatch.undo()
    fetch(folder, server.url)
    assert unpacked(folder) == contents()
    assert len(server.asked) == 1


def test_a_place_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "data").write_text("a file, not a folder", encoding="utf-8")
    with pytest.raises(CorpusError, match=r"data/ravdess: .*correct that and run `make data` again"):
        fetch(tmp_path / "data" / "ravdess", server.url)


def test_the_published_archive_is_what_is_asked_for():
    assert (ravdess.SIZE, ravdess.MD5) == (208_468_073, "bc696df654c87fed845eb13823edef8a")
    assert ravdess.URL.endswith("/records/1188976/files/Audio_Speech_Actors_01-24.zip")
    assert ravdess.N_CLIPS == 1_440
