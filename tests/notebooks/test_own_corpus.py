"""A corpus of one's own: the README's commands from a folder to a served prediction, and what is refused on the way."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

import pytest
from click.testing import CliRunner

from ser_lib import ROOT
from ser_lib.audio import quality
from ser_lib.cli import main
from ser_lib.errors import ReportError
from ser_lib.runs import execution, ledger
from ser_lib.serving import bundle

CODES = {"05": "angry", "03": "happy", "04": "sad"}
QUICK = ["-p", "feature_set=compact", "-p", "seeds=0"]


def commands() -> str:
    """What the README's section on one's own corpus has a reader type."""
    section = (
        (ROOT / "README.md")
        .read_text(encoding="utf-8")
        .partition("\n## Your own corpus\n")[2]
        .partition("\n## ")[0]
    )
    (block,) = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    return block


@pytest.fixture
def clone(tmp_path):
    """A copy of what a clone holds and the commands need."""
    for name in ("ser_lib", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "serve.py", tmp_path)
    (tmp_path / "models").mkdir()
    shutil.copy(quality.VOICE_WEIGHTS, tmp_path / "models")
    (tmp_path / "data").symlink_to(ROOT / "data")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="needs bash and curl")
def test_the_readme_leads_from_a_folder_to_a_served_prediction(clone, emodb):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    typed = commands()
    assert typed.count("localhost:8000/predict") == 1
    typed = typed.replace("localhost:8000", f"localhost:{port}")
    environment = os.environ | {
        "SER_EMODB_DIR": str(emodb.resolve()),
        "SER_PORT": str(port),
        "PYTHONPATH": str(clone),
    }
    shell = ["bash", "-e", "-c", typed]
    how = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "encoding": "utf-8",
        "start_new_session": True,
    }
    with subprocess.Popen(shell, cwd=clone, env=environment, **how) as process:
        try:
            output, errors = process.communicate(timeout=1800)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output + errors
    assert "No problem for a report:" in output
    runs = {row["name"]: row for row in ledger.runs(clone / "my" / "reports")}
    assert {name: row["status"] for name, row in runs.items()} == {"mine": "done", "served": "done"}
    predicted, served = (json.loads(line) for line in output.splitlines() if line.startswith('{"'))
    assert served["emotion"] == max(served["probabilities"], key=served["probabilities"].get)
    assert set(served["probabilities"]) == {"angry", "happy", "neutral", "sad"}
    assert served["probabilities"] == pytest.approx(predicted["probabilities"], abs=1e-6)
    metadata = bundle.load(clone / "my" / "model.json").metadata
    assert served["model"]["name"] == metadata["name"] == "model"
    assert metadata["headline"]["low"] > 0.5  # twice chance, on unseen speakers
    assert metadata["training"]["speakers"] == 10
    assert metadata["licence"] == "not stated"
    card = (clone / "my" / "reports" / "served" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"{metadata['training']['clips']} clips of 10 speakers of EMO-DB (Burkhardt et al. 2005)" in card
    assert "RAVDESS" not in card + json.dumps(metadata)


# --- without real recordings -----------------------------------------------------------------------


def call(*arguments):
    return CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.fixture
def manifest(tiny_corpus, tmp_path):
    """Writes a CSV of angry, happy and sad clips that fulfil a condition, and returns its path."""

    def write(keep=lambda speaker, emotion, n: True, name="mine.csv"):
        counts: dict[str, int] = {}
        lines = ["path,speaker,emotion"]
        for path in sorted(tiny_corpus.rglob("*.wav")):
            speaker, emotion = path.stem[-2:], CODES.get(path.stem[6:8])
            if emotion and keep(speaker, emotion, counts.get(emotion, 0)):
                counts[emotion] = counts.get(emotion, 0) + 1
                lines.append(f"{path},{speaker},{emotion}")
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path / name

    return write


@pytest.fixture
def out(tmp_path):
    """A ledger with one run that is done."""
    folder = tmp_path / "reports"
    ledger.finish(ledger.start("03_before", {key: {} for key in ledger.KEY}, folder), "done")
    return folder


def one_line(done) -> str:
    """The message of a command that was refused."""
    assert done.exit_code not in (0, None)
    assert isinstance(done.exception, SystemExit)
    (line,) = [line for line in done.output.splitlines() if line.startswith("Error: ")]
    return line


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (
            lambda speaker, emotion, n: speaker == "02",
            "1 speaker(s): testing on unseen speakers needs at least 2; add recordings of others",
        ),
        (
            lambda speaker, emotion, n: emotion != "sad" or n < 2,
            "sad: 2 clip(s); a stratified quarter needs at least 4 of each emotion; add some, or leave it out of emotions=…",
        ),
    ],
)
def test_a_report_on_too_little_fails_on_one_line_and_leaves_the_ledger(manifest, out, keep, message):
    path = manifest(keep)
    before = (out / "03_before" / "metrics.json").read_bytes()
    command = ["reports", "--out", out, "--name", "poor", "--notebook", "03", "-p", f"corpus={path}", *QUICK]
    line = one_line(call(*command, "-p", "models=majority", "-p", "emotions=angry,happy,sad"))
    assert line.startswith("Error: run poor of 03_mlp_vs_boosting: cell ")
    assert message in line
    assert (out / "03_before" / "metrics.json").read_bytes() == before
    assert {row["name"]: row["status"] for row in ledger.runs(out)} == {"03_before": "done", "poor": "failed"}


def test_an_unreadable_file_is_named_by_the_check_and_left_out_by_the_report(manifest, tmp_path):
    path = manifest()
    assert call("corpus", "check", path).exit_code == 0
    (tmp_path / "note.wav").write_text("no recording", encoding="utf-8")
    with path.open("a", encoding="utf-8") as file:
        file.write("note.wav,01,sad\n")
    done = call("corpus", "check", path)
    assert done.exit_code == 1
    (named,) = [line for line in done.output.splitlines() if "note.wav" in line]
    assert named.startswith(f"cannot be used: {tmp_path}/note.wav: not audio, or damaged")
    assert done.output.splitlines()[-1] == "- 1 file(s) cannot be used, see above; repair or remove them"


def test_a_run_that_is_not_there_or_not_of_this_corpus_is_refused_with_the_remedy(manifest, out, monkeypatch):
    path, made = manifest(), "`python -m ser_lib reports --notebook 03 -p corpus="
    line = one_line(
        call("reports", "--out", out, "--notebook", "04", "-p", f"corpus={path}", "-p", "run=mine")
    )
    assert "run='mine': 'mine' is not valid; give RUN: 01_eda" in line
    assert made in line
    assert ledger.done_names(out) == sorted({"03_before", *ledger.done_names()})
    monkeypatch.setenv("SER_REPORT_DIR", str(out / "04_x.running"))
    monkeypatch.delenv("SER_RAVDESS_DIR", raising=False)
    for of, given, message in (
        (
            "",
            path,
            f"run=03_before: compares models on RAVDESS, not on corpus={path}; make one with {made}{path} ",
        ),
        (
            path,
            "",
            f"run=03_before: compares models on {path}, not on RAVDESS; give -p corpus={path} as well, or",
        ),
    ):
        ledger.update_row(out / "03_before", notebook=ledger.COMPARISON, parameters={"corpus": str(of)})
        with pytest.raises(ReportError) as refusal:
            ledger.settings("03_before", str(given))
        assert message in str(refusal.value)
    monkeypatch.chdir(path.parent)
    ledger.update_row(out / "03_before", parameters={"corpus": "mine.csv", "seeds": "7"})
    assert ledger.settings("03_before", str(path))["seeds"] == "7"
    ledger.update_row(out / "03_before", notebook="01_eda")
    with pytest.raises(
        ReportError, match="run=03_before: a run of 01_eda, not of 03_mlp_vs_boosting; make one"
    ):
        ledger.settings("03_before", str(path))


@pytest.mark.slow
def test_two_classes_one_candidate_no_neutral_and_no_copies_make_a_model(manifest, out, tiny_corpus):
    path = manifest(lambda speaker, emotion, n: emotion != "sad")
    corpus = ["--out", out, "-p", f"corpus={path}"]
    done = call(
        "reports",
        *corpus,
        "--name",
        "mine",
        "--notebook",
        "03",
        "-p",
        "emotions=angry,happy",
        "-p",
        "models=logistic",
        *QUICK,
    )
    assert done.exit_code == 0, done.output
    chosen = ["-p", "run=mine", "-p", "candidates=logistic", "-p", "copies=False", "-p", "licence=CC0"]
    model = out / "two.json"
    done = call(
        "reports", *corpus, "--name", "served", "--notebook", "04", *chosen, "-p", f"model_path={model}"
    )
    assert done.exit_code == 0, done.output
    metadata = bundle.load(model).metadata
    assert metadata["classes"] == ["angry", "happy"]
    assert (metadata["enrolled"], metadata["intensity"], metadata["chosen"]["gain_of_copies"]) == (None,) * 3
    assert metadata["training"]["corpus"] == "mine"
    assert metadata["licence"] == "CC0"
    page = (out / "served" / "index.html").read_text(encoding="utf-8")
    for text in (
        "is the only candidate",
        "labelled <code>neutral</code>",
        "No emotion here has clips of both",
    ):
        assert text in page
    card = (out / "served" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "**Licence.** CC0." in card
    assert "RAVDESS" not in card
    assert call("card", model).output.split()[:40] == card.split()[:40]
    clip = next(tiny_corpus.rglob("03-01-05*.wav"))
    assert json.loads(call("predict", "--model", model, clip).output)["emotion"] in ("angry", "happy")
    before = model.read_bytes()
    line = one_line(call("retrain", model))
    assert "trained on mine, the shipped tables are of ravdess; train it anew from its clips: `python" in line
    assert f"-p model_path={model}" in line
    assert model.read_bytes() == before


def test_a_long_path_makes_a_short_folder_of_its_own(manifest, tmp_path):
    (tmp_path / "deep").mkdir()
    given = [manifest(name=name) for name in ("mine.csv", "deep/mine.csv")]
    names = [execution.plan(["03"], {"corpus": str(path), "emotions": "angry,sad"})[0].name for path in given]
    assert all(re.fullmatch(r"03_corpus-mine-csv-[0-9a-f]{6}_emotions-angry-sad", name) for name in names)
    assert names[0] != names[1]
    (eight,) = execution.plan(["03"], {"emotions": "neutral,calm,happy,sad,angry,fearful,disgust,surprised"})
    assert re.fullmatch(r"03_emotions-neutral-calm-happy-sad-a?-?[0-9a-f]{6}", eight.name), eight.name
