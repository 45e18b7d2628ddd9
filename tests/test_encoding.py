"""Texts are UTF-8 wherever the machine stands: a locale of Windows' Western Europe instead of UTF-8."""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
from synth import speech
from test_bundle import save_tiny, wav

from ser_lib import ROOT
from ser_lib.runs import ledger
from ser_lib.runs.parameters import NOTEBOOKS
from ser_lib.serving import command, server

NAME = "CP1252"
CLIP = wav(speech("happy", 1))
CHECKED = [
    *ROOT.glob("ser_lib/**/*.py"),
    *ROOT.glob("benchmarks/*.py"),
    ROOT / "serve.py",
    *ROOT.glob("tests/**/*.py"),
    *NOTEBOOKS.glob("*.ipynb"),
]


@pytest.fixture(scope="session")
def narrow(tmp_path_factory):
    """An environment in which Python's texts are CP1252, as on Windows."""
    if not shutil.which("localedef") or not Path("/usr/share/i18n/locales/en_US").exists():
        pytest.skip(
            "no localedef or no /usr/share/i18n to make a locale of; the package `locales` brings them"
        )
    folder = tmp_path_factory.mktemp("locales")
    subprocess.run(["localedef", "-i", "en_US", "-f", NAME, folder / f"en_US.{NAME}"], check=True)
    unset = {"PYTHONUTF8", "PYTHONIOENCODING", "SER_RAVDESS_DIR", "SER_EMODB_DIR"}
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    environment = kept | {"LOCPATH": str(folder), "LC_ALL": f"en_US.{NAME}"}
    code = "import locale, sys; print(locale.getpreferredencoding(), sys.getfilesystemencoding(), sys.stdout.encoding)"
    assert run(["-c", code], environment).stdout.upper().split() == [NAME.encode()] * 3
    return environment


def run(arguments, environment, **options):
    command = [sys.executable, "-X", "utf8=0", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=False, **options)


@pytest.mark.slow
def test_a_notebook_runs_from_the_shipped_tables(narrow, tmp_path):
    done = run(["-m", "ser_lib", "reports", "--notebook", "01", "--out", tmp_path], narrow)
    assert done.returncode == 0, done.stderr.decode()
    (row,) = ledger.runs(tmp_path)
    assert row["status"] == "done"
    page = (tmp_path / "01_eda" / "index.html").read_text(encoding="utf-8")
    assert "·" in page
    assert "Â" not in page  # what UTF-8 read as CP1252 looks like
    for shown in (["runs"], ["runs", "--json"], ["runs", "diff", "01_eda", "01_eda"]):
        command = ["-m", "ser_lib", shown[0], "--out", tmp_path, *shown[1:]]
        done = run(command, narrow)
        assert done.returncode == 0, done.stderr.decode()


def test_a_corpus_is_checked(narrow, tiny_corpus):
    done = run(["-m", "ser_lib", "corpus", "check", tiny_corpus], narrow)
    assert "speakers" in done.stdout.decode("utf-8")
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("form", ["table", "jsonl", "csv"])
def test_answers_into_a_pipe_are_utf8(narrow, tmp_path, form):
    """A name of CP1252 and one beyond it, as the system of this locale writes and reads them."""
    model = tmp_path / "tiny.json"
    save_tiny(model)
    (tmp_path / "clips").mkdir()
    raw = os.fsencode(tmp_path / "clips")
    for name in ("\x80uro.wav".encode("latin-1"), b"\x81.wav"):  # the euro sign; a byte that CP1252 lacks
        Path(os.fsdecode(raw + b"/" + name)).write_bytes(CLIP)
    done = run(["-m", "ser_lib", "predict", "--model", model, "--format", form, tmp_path / "clips"], narrow)
    assert done.returncode == 0, done.stderr.decode()
    output = done.stdout.decode("utf-8")
    if form == "jsonl":
        names = [json.loads(line)["file"] for line in output.splitlines()]
    elif form == "csv":
        names = [row["file"] for row in csv.DictReader(io.StringIO(output))]
    else:
        names = [line.split()[-1] for line in output.splitlines()[1:]]
    broken = "\udc81.wav" if form == "jsonl" else "\\udc81.wav"
    assert {Path(name).name for name in names} == {"€uro.wav", broken}


def test_a_corpus_whose_names_are_no_text_is_refused_by_name(narrow, tmp_path):
    folder = os.fsencode(tmp_path) + b"/03-01-03-01-01-01-01\x81.wav"
    Path(os.fsdecode(folder)).write_bytes(b"")
    done = run(["-m", "ser_lib", "corpus", "check", tmp_path], narrow)
    assert done.returncode == 1
    (line,) = done.stderr.decode("utf-8").splitlines()
    assert line.endswith(
        "\\udc81.wav: the name is not in the system's encoding; rename it, or set PYTHONUTF8=1"
    )


def test_a_manifest_may_name_what_the_system_cannot(narrow, tiny_corpus, tmp_path):
    lines = [f"{path},{path.stem[-2:]},{path.stem[6:8]}" for path in sorted(tiny_corpus.rglob("*.wav"))]
    (tmp_path / "mine.csv").write_text(
        "\n".join(["path,speaker,emotion", *lines, "Жар.wav,01,03\n"]), "utf-8"
    )
    done = run(["-m", "ser_lib", "corpus", "check", tmp_path / "mine.csv"], narrow)
    assert "Жар.wav" in done.stdout.decode("utf-8")
    assert b"Traceback" not in done.stderr


def test_the_server_answers(narrow, tmp_path):
    model = tmp_path / "tiny.json"
    save_tiny(model)
    command = [sys.executable, "-X", "utf8=0", ROOT / "serve.py", "--port", "0", "--model", model]
    with subprocess.Popen(command, env=narrow, stderr=subprocess.PIPE, encoding="utf-8") as process:
        try:
            address = next(line.split()[-1] for line in process.stderr if "Serving on" in line)
            answer = requests.post(f"{address}/predict", files={"file": ("≤ жар.wav", CLIP)}, timeout=60)
            assert answer.status_code == 200, answer.text
            assert answer.json()["file"] == "≤ жар.wav"
            page = requests.get(address, timeout=60)
            assert page.content == (ROOT / "ser_lib" / "serving" / "web" / "index.html").read_bytes()
        finally:
            process.terminate()


@pytest.mark.parametrize("arguments", [["reports", "--help"], ["corpus", "check", "✗"]])
def test_a_narrow_terminal_takes_every_character(arguments):
    """One of code page 437, which has neither of the two."""
    pty = pytest.importorskip("pty", reason="only POSIX has pseudo-terminals")
    output = bytearray()
    environment = os.environ | {"PYTHONIOENCODING": "cp437:strict"}
    command = [sys.executable, "-m", "ser_lib", *arguments]
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        with io.FileIO(ours) as screen:
            try:
                while part := screen.read(4096):
                    output += part
            except OSError:  # its end on Linux
                pass
    assert process.returncode == {"--help": 0}.get(arguments[-1], 1), output
    assert b"Traceback" not in output
    assert ("\\u2717" if "✗" in arguments[-1] else "[VALUE, \\u2026]") in output.decode("cp437")


def test_streams_that_are_none_are_left(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    command.make_streams_tolerant()


def test_a_system_without_a_c_library_to_ask_serves(monkeypatch):
    """On Windows ctypes.CDLL(None) is a TypeError."""

    def no_library(name):
        raise TypeError("bad argument type for built-in operation")

    def create_server(*_, **settings):
        raise OSError("far enough")

    monkeypatch.setattr(server, "ctypes", SimpleNamespace(CDLL=no_library))
    monkeypatch.setattr(server, "threadpool_limits", lambda n: None)  # of this process, which goes on
    monkeypatch.setattr(server.waitress, "create_server", create_server)
    with pytest.raises(OSError, match="far enough"):
        server.run(None, host="127.0.0.1", port=0, threads=1, timeout=1, max_bytes=1)


@pytest.mark.parametrize("path", CHECKED, ids=lambda path: path.name)
def test_no_text_is_read_or_written_in_the_encoding_of_the_machine(path):
    """Beyond ruff's PLW1514, which knows no `path.read_text()` of a path that it did not see made."""
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(source)["cells"]
        source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    for call in ast.walk(ast.parse(source)):
        if not isinstance(call, ast.Call):
            continue
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        named = {one.arg: one.value for one in call.keywords}
        as_text = {"text", "universal_newlines"} & set(named) and name in ("run", "Popen", "check_output")
        if name in ("read_text", "write_text") or as_text:
            assert "encoding" in named or len(call.args) > (name == "write_text"), ast.unparse(call)
