"""The package as it is installed, without the repository: what a wheel holds, and that it works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import requests
from synth import speech
from test_bundle import wav

from ser_lib import ROOT

build = pytest.importorskip("hatchling.build", reason="hatchling is not installed: the extra `dev` brings it")


def built(source: Path, out: Path) -> Path:
    """The wheel of a source tree."""
    command = [
        sys.executable,
        "-c",
        "import sys; from hatchling import build; print(build.build_wheel(sys.argv[1]))",
    ]
    done = subprocess.run([*command, out], cwd=source, stdout=subprocess.PIPE, encoding="utf-8", check=True)
    return out / done.stdout.split()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return built(ROOT, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def site(wheel, tmp_path_factory):
    """A folder with what the wheel installs, which cannot be written to."""
    folder = tmp_path_factory.mktemp("installed") / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    yield folder
    for path in (folder, *folder.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)


@pytest.fixture
def user(site, tmp_path):
    """How a user's process starts: in another folder, with a home of its own."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("SER_", "XDG_", "COVERAGE"))
    }
    home = tmp_path / "home"
    home.mkdir()
    return {"cwd": tmp_path, "env": kept | {"PYTHONPATH": str(site), "HOME": str(home)}, "text": True}


def call(user, *arguments, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ser_lib", *arguments], **user, capture_output=True, **more)


def test_a_wheel_holds_the_model_and_what_is_shown(wheel):
    archive = zipfile.ZipFile(wheel)
    for name in ("ser.json", "ser.pkl"):
        assert archive.read(f"ser_lib/shipped/{name}") == (ROOT / "models" / name).read_bytes()
    for path in (ROOT / "ser_lib").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert path.relative_to(ROOT).as_posix() in archive.namelist()


def test_an_sdist_makes_the_same_wheel(wheel, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    name = build.build_sdist(str(tmp_path))
    with tarfile.open(tmp_path / name) as archive:
        archive.extractall(tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    other = built(tmp_path / name.removesuffix(".tar.gz"), tmp_path)
    ours, theirs = (
        {each.filename: each.CRC for each in zipfile.ZipFile(one).infolist()} for one in (wheel, other)
    )
    assert ours == theirs


def test_an_installed_package_predicts(user):
    Path(user["cwd"], "clip.wav").write_bytes(wav(speech("angry", 1)))
    done = call(user, "predict", "clip.wav")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["file"], answer["model"]["name"]) == ("clip.wav", "ser")
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-3)


def test_an_installed_package_serves(user):
    command = [sys.executable, "-m", "ser_lib", "serve", "--port", "0"]
    process = subprocess.Popen(command, **user, stderr=subprocess.PIPE)
    try:
        address = next(line.split()[-1] for line in process.stderr if "Serving on" in line)
        clip = {"file": ("clip.wav", wav(speech("angry", 1)))}
        assert requests.post(f"{address}/predict", files=clip, timeout=60).json()["model"]["name"] == "ser"
        for path in ("/", "/web/app.js", "/openapi.json"):
            assert requests.get(address + path, timeout=10).status_code == 200
    finally:
        process.terminate()
        process.wait(30)
        process.stderr.close()


@pytest.mark.parametrize(
    ("command", "code", "expected"),
    [
        (["runs"], 0, "no runs"),
        (["--help"], 0, "Usage:"),
        (["serve", "--help"], 0, "Usage:"),
        (["card"], 0, "# Model card: ser"),
        (["reports", "--notebook", "03"], 1, "Error: the notebooks are in the repository"),
        (["reports", "--notebook", "03", "--help"], 1, "Error: the notebooks are in the repository"),
        (["retrain"], 1, "Error: the tables are in the repository"),
    ],
)
def test_an_installed_package_names_what_is_missing(user, command, code, expected):
    done = call(user, *command)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert (done.stdout + done.stderr).startswith(expected)
    assert code == 0 or len(done.stderr.splitlines()) == 1
