"""Every command against files it may not read, places it may not write to, and disks that are full.

Each time: one line on standard error with the path, exit code 1, what was there before as it was, nothing besides.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import click
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from synth import speech
from test_bundle import save_tiny, wav

import ser_lib
from ser_lib import ROOT, replacing, write_file
from ser_lib.cli import main
from ser_lib.errors import SerError, explain
from ser_lib.features import FeatureConfig, tables
from ser_lib.runs import index, ledger
from ser_lib.serving import answers, training
from ser_lib.serving.command import one_line_errors

resource = pytest.importorskip("resource", reason="limits of a process are set with `resource`, on Unix")

NOBODY = 65_534
as_another_user = pytest.mark.skipif(os.getuid() != 0, reason="only root can start a process as another user")

# `python -c CHILD LIMITS COMMAND …`: the command line with a cache, a limit of bytes a file, and the id of a user.
CHILD = """
import json, os, resource, sys
from pathlib import Path
limits = json.loads(sys.argv[1])
from ser_lib import cli
if sys.argv[2] in ("features", "corpus"):
    from ser_lib.features import extraction, tables
    for each in (extraction.build, tables.extract_to_file):
        each.__kwdefaults__["cache_dir"] = Path(limits["cache"])
if sys.argv[2] == "data":
    from ser_lib.corpora import ravdess
    ravdess.fetch_ravdess.__defaults__ = (Path(limits.get("data", "new")) / "ravdess",)
if "bytes" in limits:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits["bytes"], limits["bytes"]))
if "uid" in limits:
    import encodings.utf_8_sig
    from ser_lib.serving import bundle, server, training  # whose libraries root alone may read
    from ser_lib.runs import execution, index
    bundle.load("model/tiny.json")
    os.setgroups([]); os.setgid(limits["uid"]); os.setuid(limits["uid"])
cli.main(sys.argv[2:], prog_name="ser_lib")
"""


def call(*command, limits, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process with `limits`, in the folder `cwd`."""
    arguments = [sys.executable, "-c", CHILD, json.dumps({"cache": str(cwd / "cache")} | limits)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "TQDM_DISABLE": "1"}
    environment |= {"HOME": str(cwd / "cache"), "MPLCONFIGDIR": str(cwd / "cache")}
    return subprocess.run(
        [*arguments, *map(str, command)],
        capture_output=True,
        encoding="utf-8",
        cwd=cwd,
        env=environment,
        timeout=300,
    )


def content(folder: Path) -> dict[str, str]:
    """Hash of every file below a folder but its cache, by path."""
    files = [path for path in folder.rglob("*") if path.is_file() and "cache" not in path.parts]
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}


def is_refused(done: subprocess.CompletedProcess[str], *expected: str) -> None:
    """One line of error that has the texts, and exit code 1."""
    lines = [line for line in done.stderr.splitlines() if line]
    assert (done.returncode, len(lines)) == (1, 1), done.stderr
    for text in expected:
        assert text in lines[0]


@pytest.fixture
def place(tmp_path_factory):
    """A folder below /tmp that others may enter, with a model, two clips, a manifest and a run."""
    folder = tmp_path_factory.mktemp("disk")
    for each in (folder, *folder.parents):
        if each != Path("/") and each.stat().st_uid == os.getuid():
            each.chmod(each.stat().st_mode | 0o055)
    save_tiny(folder / "model" / "tiny.json")
    (folder / "clips").mkdir()
    for name, emotion in (("a", "happy"), ("b", "sad")):
        (folder / "clips" / f"{name}.wav").write_bytes(wav(speech(emotion, 1)))
    lines = ["path,speaker,emotion", *(f"clips/{n}.wav,{n},{e}" for n, e in (("a", "happy"), ("b", "sad")))]
    (folder / "mine.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    run = folder / "reports" / "mine"
    run.mkdir(parents=True)
    row = {"notebook": "01_eda", "parameters": {}, "status": "done", "started": "2020-01-01", "seconds": 1.0}
    ledger.write_metrics(run, row, [{"metric": "uar", "value": 0.5, "low": None, "high": None}])
    index.write_index(folder / "reports")
    (folder / "cache").mkdir()
    (folder / "cache").chmod(0o777)
    return folder


# --- full disk and limits ----------------------------------------------------------------------------

FULL = [
    (["export", "model/tiny.json", "out/copy.pkl"], 4096, "out/copy.pkl: File too large; raise the limit"),
    (["export", "model/tiny.json", "reports/copy.pkl"], 4096, "reports/copy.pkl: File too large"),
    (["features", "mine.csv", "t.parquet", "--set", "compact", "--jobs", "1"], 4096, "the cache of features"),
    (["corpus", "check", "mine.csv"], 4096, "cache of features cannot be read or written"),
    (["runs", "--out", "reports", "rm", "mine"], 100, "README.md: File too large"),
]


@pytest.mark.parametrize(("command", "limit", "message"), FULL, ids=lambda value: str(value)[:40])
def test_a_limit_of_bytes_is_one_line_and_no_partial_file(place, command, limit, message):
    before = content(place)
    done = call(*command, limits={"bytes": limit}, cwd=place)
    is_refused(done, message)
    after = content(place)
    if command[0] == "runs":  # the run is gone, the index is the old one
        del before["reports/mine/metrics.json"]
    assert after == before


@pytest.fixture
def small_disk(tmp_path):
    """A disk of a megabyte in memory, mounted for the test."""
    mounted = tmp_path / "disk"
    mounted.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mounted)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a disk in memory cannot be mounted here")
    yield mounted
    subprocess.run(["umount", str(mounted)], check=True)


def fill(disk: Path, leave: int = 0) -> None:
    """Leave so many bytes of a disk free."""
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            file.truncate(max(0, file.tell() - leave))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["export", "model/tiny.json", "disk/copy.pkl"], "disk/copy.pkl: No space left on device; make room"),
        (
            ["features", "mine.csv", "disk/t.parquet", "--set", "compact", "--jobs", "1"],
            "disk/t.parquet: No space",
        ),
    ],
)
def test_a_full_disk(place, small_disk, command, message):
    fill(small_disk)
    before = content(small_disk)
    command = [each.replace("disk/", f"{small_disk}/") for each in command]
    done = call(*command, limits={}, cwd=place)
    is_refused(done, message)
    assert content(small_disk) == before


@pytest.mark.parametrize("command", [["data"], ["reports", "--notebook", "01", "--out", "disk/reports"]])
def test_a_disk_too_small_for_a_download_or_a_report(place, small_disk, command):
    fill(small_disk)
    command = [each.replace("disk/", f"{small_disk}/") for each in command]
    done = call(*command, limits={"data": str(small_disk)}, cwd=place)
    is_refused(done, str(small_disk))
    assert "make room" in done.stderr
    assert set(content(small_disk)) - {"reports/.lock"} == {"filler"}


def test_a_cache_on_a_full_disk_is_named(place, small_disk):
    fill(small_disk)
    command = ["features", "mine.csv", "t.parquet", "--set", "compact", "--jobs", "1"]
    done = call(*command, limits={"cache": str(small_disk)}, cwd=place)
    is_refused(done, str(small_disk))
    assert not (place / "t.parquet").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, as on Linux")
@pytest.mark.parametrize(
    "command", [["runs"], ["--help"], ["predict", "--model", "model/tiny.json", "clips"]]
)
def test_output_to_a_full_disk(place, command):
    with Path("/dev/full").open("w", encoding="utf-8") as full:
        code = [sys.executable, "-m", "ser_lib", *command]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            code,
            stdout=full,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            cwd=place,
            env=environment,
            timeout=120,
        )
    is_refused(done, "Error: No space left on device; make room")


def test_an_error_without_a_console_is_one_line(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(click.ClickException, match=r"ser\.pkl: Permission denied"), one_line_errors():
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "ser.pkl")


def test_a_reader_that_leaves_is_no_error(place):
    reader, writer = os.pipe()
    os.close(reader)
    code = [sys.executable, "-m", "ser_lib", "runs", "--out", "reports", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        code, stdout=writer, stderr=subprocess.PIPE, cwd=place, env=environment, timeout=120
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


# --- permissions -------------------------------------------------------------------------------------

READ_ONLY = [
    (["export", "model/tiny.json", "reports/copy.pkl"], ": Permission denied; allow it (chmod)"),
    (["export", "model/tiny.json", "new/copy.pkl"], "new: Permission denied"),
    (
        ["features", "mine.csv", "reports/t.parquet", "--set", "compact", "--jobs", "1"],
        "reports/t.parquet: Permi",
    ),
    (["runs", "--out", "reports", "rm", "mine"], "mine: Permission denied"),
    (["reports", "--notebook", "01", "--out", "new"], "new: Permission denied"),
    (["data"], "new: Permission denied"),
]


@as_another_user
@pytest.mark.parametrize(("command", "message"), READ_ONLY, ids=lambda value: str(value)[:40])
def test_a_place_that_may_not_be_written_to(place, command, message):
    before = content(place)
    done = call(*command, limits={"uid": NOBODY}, cwd=place)
    is_refused(done, message)
    assert content(place) == before


UNREADABLE = [
    (["features", "secret.csv", "out/t.parquet"], "secret.csv"),
    (["corpus", "check", "secret.csv"], "secret.csv"),
    (["predict", "--model", "secret.json", "clips"], "secret.json"),
    (["card", "secret.json"], "secret.json"),
    (["export", "secret.json", "out/copy.pkl"], "secret.json"),
    (["retrain", "secret.json"], "secret.json"),
    (["serve", "--model", "secret.json"], "secret.json"),
    (["listen", "--model", "secret.json"], "secret.json"),
    (["reports", "--grid", "secret.csv"], "secret.csv"),
    (["runs", "--out", "reports", "diff", "mine", "mine"], "metrics.json"),
    (["runs", "--out", "locked"], "locked"),
]


@as_another_user
@pytest.mark.parametrize(("command", "name"), UNREADABLE, ids=lambda value: str(value)[:40])
def test_a_file_that_may_not_be_read(place, command, name):
    for secret in (place / "secret.csv", place / "secret.json", place / "reports" / "mine" / "metrics.json"):
        secret.touch()
        secret.chmod(0)
    (place / "locked").mkdir(mode=0)
    before = content(place)
    done = call(*command, limits={"uid": NOBODY}, cwd=place)
    is_refused(done, name)
    assert content(place) == before


@as_another_user
def test_a_run_that_may_not_be_read_is_listed_as_failed(place):
    (place / "reports" / "mine" / "metrics.json").chmod(0)
    done = call("runs", "--out", "reports", "--json", limits={"uid": NOBODY}, cwd=place)
    (row,) = json.loads(done.stdout)
    assert (row["name"], row["status"]) == ("mine", "failed")
    assert "metrics.json: Permission denied; allow it" in row["error"]


@as_another_user
def test_a_clip_that_may_not_be_read_costs_itself_alone(place):
    (place / "clips" / "a.wav").chmod(0)
    (place / "locked").mkdir(mode=0)
    names = ("clips/a.wav", "locked", "x" * 300, "clips", "clips/b.wav")
    done = call("predict", "-q", "--model", "model/tiny.json", *names, limits={"uid": NOBODY}, cwd=place)
    assert done.returncode == 1
    assert [json.loads(line)["file"] for line in done.stdout.splitlines()] == ["clips/b.wav"] * 2
    lines = done.stderr.splitlines()
    expected = ["clips/a.wav", "locked", "x" * 300, "clips/a.wav"]
    assert len(lines) == len(expected)
    assert all(name in line for name, line in zip(expected, lines, strict=True)), lines
    assert "ermission denied" in lines[0]
    assert "locked: the folder cannot be read; change its permissions" in lines[1]
    assert "no such file" in lines[2]


@as_another_user
def test_a_clip_that_may_not_be_read_is_left_out_of_a_table(place):
    (place / "clips" / "a.wav").chmod(0)
    (place / "out").mkdir()
    (place / "out").chmod(0o777)
    command = ["features", "mine.csv", "out/t.parquet", "--set", "compact", "--jobs", "1"]
    done = call(*command, limits={"uid": NOBODY}, cwd=place)
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.splitlines()
    assert "a.wav" in line
    assert "ermission denied" in line
    assert len(pd.read_parquet(place / "out" / "t.parquet")) == 1


# --- folders and devices where a file is meant --------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["export", "model/tiny.json", "folder.pkl"], "folder.pkl: Is a directory; give the name of a file"),
        (["export", "model/tiny.json", "mine.csv/copy.pkl"], "mine.csv: "),
        (["export", "clips", "copy.pkl"], "clips: cannot be read (Is a directory)"),
        (["features", "mine.csv", "folder.pkl", "--set", "compact"], "folder.pkl: Is a directory"),
        (["card", "clips"], "clips: cannot be read (Is a directory)"),
        (["retrain", "clips"], "clips: cannot be read (Is a directory)"),
        (["reports", "--grid", "clips"], "clips: Is a directory"),
        (["reports", "--notebook", "01", "--out", "mine.csv"], "mine.csv: "),
    ],
    ids=str,
)
def test_a_folder_or_file_where_the_other_is_meant(place, command, message):
    (place / "folder.pkl").mkdir()
    before = content(place)
    done = call(*command, limits={}, cwd=place)
    is_refused(done, message)
    assert content(place) == before


# --- the helper ----------------------------------------------------------------------------------------


def test_a_failure_leaves_the_old_file_and_nothing_beside(tmp_path):
    path = tmp_path / "a.txt"
    write_file(path, "old")
    with contextlib.suppress(KeyboardInterrupt), replacing(path) as new:
        new.write_text("new", encoding="utf-8")
        raise KeyboardInterrupt
    assert [each.name for each in tmp_path.iterdir()] == ["a.txt"]
    assert path.read_text(encoding="utf-8") == "old"


def test_a_replaced_file_keeps_its_mode_and_a_link_stays_one(tmp_path):
    path, link = tmp_path / "a.txt", tmp_path / "link"
    write_file(path, "old")
    path.chmod(0o640)
    link.symlink_to(path)
    write_file(link, "new é")
    assert link.is_symlink()
    assert path.read_bytes() == "new é".encode()
    assert path.stat().st_mode & 0o777 == 0o640


def test_no_device_is_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SerError, match="pipe: a device or a pipe"):
        write_file(tmp_path / "pipe", "x")
    with pytest.raises(IsADirectoryError) as caught:
        write_file(tmp_path, "x")
    assert explain(caught.value) == f"{tmp_path}: Is a directory; give the name of a file"


def test_retraining_on_a_full_disk_leaves_the_model(tmp_path, monkeypatch):
    path = tmp_path / "ser.json"
    save_tiny(path)
    before = content(tmp_path)

    def full(self, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(training, "retrain", lambda path: save_tiny(path, licence="other"))
    monkeypatch.setattr(Path, "write_bytes", full)
    done = CliRunner().invoke(main, ["retrain", str(path)])
    assert (done.exit_code, done.output) == (
        1,
        f"Error: {path.with_suffix('.pkl')}: No space left on device; make room on the disk, or choose another one\n",
    )
    assert content(tmp_path) == before


def test_a_table_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    config = FeatureConfig("compact")
    names = ser_lib.features.feature_names(config)
    table = pd.DataFrame(np.zeros((3, len(names)), np.float32), columns=list(names)).assign(
        clip_id=list("abc")
    )
    path = tmp_path / "t.parquet"
    tables.write_table(table, path, config)
    before = content(tmp_path)
    to_arrow, calls = tables._to_arrow, []

    def broken(*arguments):
        calls.append(arguments)
        if len(calls) == 2:
            raise OSError(
                errno.EFBIG, "[Errno 27] Error writing bytes to file. Detail: [errno 27] File too large"
            )
        return to_arrow(*arguments)

    monkeypatch.setattr(tables, "_to_arrow", broken)
    with pytest.raises(OSError, match="File too large") as caught:
        tables.write_table(table, path, config)
    assert explain(caught.value).startswith(f"{path}: File too large; raise the limit")
    assert content(tmp_path) == before


def test_the_package_writes_files_in_one_way():
    """What writes to a path by another way than `replacing` is listed here, with its reason."""
    reasons = {
        "ser_lib/__init__.py": "the helper itself",
        "ser_lib/corpora/ravdess.py": "a download continues the part that is there",
        "ser_lib/runs/execution.py": "the errors of a run, while it runs",
    }
    words = (".write_text(", ".write_bytes(", '.open("w', '.open("ab"', "copyfile(", '.part"')
    for path in sorted((ROOT / "ser_lib").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = path.relative_to(ROOT).as_posix()
        if any(word in text for word in words) and name not in reasons:
            lines = [line for line in text.splitlines() if any(word in line for word in words)]
            assert all("new" in line for line in lines), f"{name}: {lines}"


def test_a_failing_read_names_standard_input():
    failed: list[str] = []

    def predict(file):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        yield

    assert list(answers.answer_files(["-"], predict, quiet=True, failed=failed)) == []
    assert failed == ["-"]
