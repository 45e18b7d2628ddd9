"""The image: no engine runs here, so what the Dockerfile says is checked against the tree, and its lock is installed."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import numpy as np
import pytest
import requests
from synth import speech
from test_bundle import save_tiny, wav
from test_serve import wait_for

from ser_lib import ROOT

LINES = [
    line
    for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    if line
]
STEPS = [line.split(maxsplit=1) for line in LINES if not line.startswith("#")]


def steps(step: str) -> list[str]:
    return [rest for name, rest in STEPS if name == step]


def test_it_is_known_steps_as_a_user_without_rights():
    assert {name for name, _ in STEPS} <= {
        "FROM", "ENV", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "HEALTHCHECK", "CMD"
    }  # fmt: skip
    assert steps("FROM")[0].startswith("python:3.11-slim")
    assert int(steps("USER")[0]) > 0
    assert [name for name, _ in STEPS].index("USER") > max(
        i for i, (name, _) in enumerate(STEPS) if name == "COPY"
    )


def test_every_copy_is_there_and_let_through():
    let_in = [
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    ]
    for rest in steps("COPY"):
        *sources, _ = shlex.split(rest)
        for source in sources:
            assert (ROOT / source).exists()
            assert source in let_in
    assert (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()[0] == "*"


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The image's folder, made as the Dockerfile says, with a Python that has the lock and no more."""
    app = tmp_path_factory.mktemp("image") / "app"
    app.mkdir()
    for rest in steps("COPY"):
        *sources, target = shlex.split(rest)
        for source in sources:
            place = app / source if target == "." else app / target
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            copy(ROOT / source, place)
    made = subprocess.run([sys.executable, "-m", "venv", app.parent / "venv"], capture_output=True)
    if made.returncode:
        pytest.skip("python -m venv does not work here")
    python = app.parent / "venv" / "bin" / "python"
    install = next(rest for rest in steps("RUN") if rest.startswith("pip install"))
    done = subprocess.run(
        [python, "-I", "-m", *shlex.split(install)], cwd=app, capture_output=True, encoding="utf-8"
    )
    if done.returncode and not os.environ.get("CI"):
        pytest.skip(f"the lock cannot be installed here: {done.stderr.splitlines()[-1:]}")
    assert done.returncode == 0, done.stderr
    return app, python


@pytest.mark.slow
def test_what_is_installed_predicts_files_folders_and_standard_input(image):
    app, python = image
    save_tiny(app.parent / "tiny.json")
    clips = app.parent / "clips"
    clips.mkdir()
    (clips / "a.wav").write_bytes(wav(speech("happy", 1)))
    command = [python, "-m", "ser_lib", "predict", "--model", app.parent / "tiny.json", clips, "-"]
    done = subprocess.run(command, cwd=app, input=wav(speech("happy", 1)), capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert [json.loads(line)["emotion"] for line in done.stdout.splitlines()] == ["happy", "happy"]
    done = subprocess.run([python, "-m", "ser_lib", "runs"], cwd=app, capture_output=True, encoding="utf-8")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("Error: pandas is not installed; ")


@pytest.mark.slow
def test_what_is_installed_answers_a_request(image):
    app, python = image
    save_tiny(app.parent / "tiny.json")
    command = json.loads(steps("CMD")[-1])
    health = json.loads(re.search(r"CMD (\[.*\])", steps("HEALTHCHECK")[0])[1])
    environment = {"SER_PORT": "8000", "SER_MODEL": str(app.parent / "tiny.json"), "PATH": os.environ["PATH"]}
    process = subprocess.Popen(
        [python, *command[1:]], cwd=app, env=environment, stderr=subprocess.PIPE, encoding="utf-8"
    )
    try:
        line = next(line for line in process.stderr if "Serving on" in line)
        address = f"http://127.0.0.1:{line.rsplit(':')[-1].strip()}"
        wait_for(lambda: requests.get(f"{address}/ready", timeout=5).ok)
        assert subprocess.run([python, *health[1:]], timeout=30).returncode == 0
        answer = requests.post(
            f"{address}/predict", files={"file": ("a.wav", wav(speech("happy", 1)))}, timeout=30
        )
        assert answer.json()["emotion"] == "happy"
        assert np.isclose(sum(answer.json()["probabilities"].values()), 1, atol=1e-6)
    finally:
        process.terminate()
        process.wait(30)
        process.stderr.close()
