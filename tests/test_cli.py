"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import pty
import shutil
import sqlite3
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner
from synth import speech
from test_bundle import edit, save_tiny, wav

from ser_lib.cli import main
from ser_lib.corpora import FOUR
from ser_lib.errors import BundleError
from ser_lib.serving import bundle
from ser_lib.serving.answers import as_csv
from ser_lib.serving.command import Command

# The command line prints every warning, also one of the garbage collector about another test's file.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")
NAMES = ("=A1", "+1", "-1", "@x", "\tx", "-", "a=1", "")


def call(*arguments, **more):
    return CliRunner().invoke(main, [str(each) for each in arguments], **more)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Path of the metadata of a small saved model; to be read, not changed."""
    path = tmp_path_factory.mktemp("cli") / "tiny.json"
    save_tiny(path)
    return path


@pytest.fixture
def clips(tmp_path):
    """A folder of two clips, one with a name that a spreadsheet would compute, and a note."""
    folder = tmp_path / "clips"
    (folder / "more").mkdir(parents=True)
    (folder / "=1+1.wav").write_bytes(wav(speech("happy", 2)))
    (folder / "more" / "calm.wav").write_bytes(wav(speech("calm", 2)))
    (folder / "notes.txt").write_text("no recording", encoding="utf-8")
    return folder


# --- what commands tell ----------------------------------------------------------------------------


@pytest.mark.filterwarnings("default::ser_lib.serving.bundle.VersionWarning")
def test_other_versions_are_told_in_one_line(tiny, clips, tmp_path):
    other = tmp_path / "tiny.json"
    shutil.copy(tiny.with_suffix(".pkl"), tmp_path)
    shutil.copy(tiny, other)
    libraries = json.loads(tiny.read_text(encoding="utf-8"))["libraries"]
    edit(other, libraries=libraries | {"numpy": "0.1"})
    done = call("predict", "--model", other, clips)
    assert (done.exit_code, len(done.stdout.splitlines())) == (0, 2)
    line, others = done.stderr.splitlines()
    assert others == f"{clips}: 1 other file(s) left out: .txt (1)"
    assert line.startswith(f"warning: {other}: made with numpy 0.1 (here {np.__version__}); its self-test")
    assert call("predict", "-q", "--model", other, clips).stderr == ""


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            ModuleNotFoundError("", name="papermill"),
            "papermill is not installed; `python -m pip install -e '.[n",
        ),
        (OSError(errno.EACCES, "Permission denied", "reports"), "reports: Permission denied; allow it"),
        (OSError(errno.EROFS, "Read-only file system", "reports"), "reports: Read-only file system; choose"),
        (OSError(errno.ENOSPC, "full"), "No space left on device; make room"),
        (OSError(errno.EMFILE, "Too many open files", "a"), "a: Too many open files; raise the limit"),
        (OSError("Could not\n open"), "Could not open"),
        (sqlite3.OperationalError("database or disk is full"), "database or disk is full; make room"),
        (pa.ArrowInvalid("not\nParquet"), "not Parquet"),
        (BundleError("ser.pkl: altered"), "ser.pkl: altered"),
    ],
)
def test_what_a_user_can_mend_is_one_line(error, message):
    done = CliRunner().invoke(failing(error))
    assert (done.exit_code, len(done.output.splitlines())) == (1, 1)
    assert done.output.startswith(f"Error: {message}")


@pytest.mark.parametrize("error", [ModuleNotFoundError("", name="ser_lib.x"), ValueError("ours")])
def test_what_a_user_cannot_mend_is_not_hidden(error):
    assert CliRunner().invoke(failing(error)).exception is error


def failing(error: Exception) -> Command:
    """A command that fails."""

    def fail():
        raise error

    return Command("trial", callback=fail)


# --- predict ---------------------------------------------------------------------------------------


def test_folders_files_and_standard_input_as_json_lines(tiny, clips):
    one = clips / "more" / "calm.wav"
    done = call("predict", "--model", tiny, clips, "-", one, input=wav(speech("sad", 1)))
    assert done.exit_code == 0, done.output
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["file"] for answer in answers] == [str(clips / "=1+1.wav"), str(one), "-", str(one)]
    assert answers[1] == answers[3] == {"file": str(one)} | bundle.load(tiny).predict(one)
    assert [answer["emotion"] for answer in answers[:2]] == ["happy", "calm"]


def test_csv_is_safe_in_a_spreadsheet(tiny, clips, monkeypatch):
    monkeypatch.chdir(clips)
    done = call("predict", "--model", tiny, "--format", "csv", "=1+1.wav", "more/calm.wav")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(rows[0]) == ["file", "emotion", "confidence", "abstained", *(f"p_{e}" for e in sorted(FOUR))]
    assert [row["file"] for row in rows] == ["'=1+1.wav", "more/calm.wav"]
    answer = bundle.load(tiny).predict("more/calm.wav")
    assert float(rows[1]["p_calm"]) == answer["probabilities"]["calm"]
    assert float(rows[1]["confidence"]) == answer["confidence"]
    cells = [next(csv.reader([line]))[0] for line in as_csv([{"file": name} for name in NAMES], [], ["file"])]
    assert cells[1:] == ["'=A1", "'+1", "'-1", "'@x", "'\tx", "-", "a=1", ""]


def test_a_table_has_one_line_a_file_and_warns_beside_it(tiny, tmp_path):
    quiet = tmp_path / "quiet.wav"
    quiet.write_bytes(wav(speech("happy", 2) / 2000))
    (tmp_path / "clip.wav").write_bytes(wav(speech("happy", 2)))
    done = call("predict", "--model", tiny, "--format", "table", tmp_path / "clip.wav", quiet)
    head, first, second = done.stdout.splitlines()
    assert head.split() == ["emotion", "sure", "file"]
    assert first.startswith("happy ")
    assert first.endswith(f"  {tmp_path / 'clip.wav'}")
    assert head.index("file") == first.index(str(tmp_path)) == second.index(str(tmp_path))
    assert f"{quiet}: very quiet" in done.stderr
    assert call("predict", "--model", tiny, "--format", "table", "-q", quiet).stderr == ""
    assert call("predict", "--model", tiny, quiet).stderr == ""  # JSON has the warnings in it


@pytest.mark.parametrize("form", ["table", "jsonl", "csv"])
def test_a_file_without_an_answer_is_named_and_the_rest_goes_on(tiny, clips, tmp_path, form):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.wav").write_text("not audio", encoding="utf-8")
    asked = (tmp_path / "gone.wav", tmp_path / "empty", tmp_path / "bad.wav", clips / "more")
    done = call("predict", "-q", "--model", tiny, "--format", form, *asked)
    assert done.exit_code == 1
    gone, empty, bad = done.stderr.splitlines()
    assert gone == f"{asked[0]}: no such file"
    assert empty.startswith(f"{asked[1]}: no recordings (.wav,")
    assert bad.startswith(f"{asked[2]}: not audio, or damaged")
    assert done.stdout.count("calm.wav") == 1
    done = call("predict", "--model", tiny, "-", input=b"hello")
    assert (done.exit_code, done.stderr.startswith("standard input: not audio")) == (1, True)


def test_pipes_and_other_names(tiny, clips, tmp_path):
    """/dev/stdin is a pipe here; `12:30.wav` looks like an address, and `-x.wav` like an option."""
    content = (clips / "more" / "calm.wav").read_bytes()
    files = [os.fsdecode(name) for name in (b"12:30.wav", b"-x.wav", b"caf\xe9.wav")]
    for name in files:
        (tmp_path / name).write_bytes(content)
    command = [sys.executable, "-m", "ser_lib", "predict", "--model", str(tiny), "--", "/dev/stdin", *files]
    done = subprocess.run(command, input=content, capture_output=True, cwd=tmp_path, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["file"] for answer in answers] == ["/dev/stdin", *files]
    assert {answer["emotion"] for answer in answers} == {"calm"}


def test_a_file_that_looks_like_an_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-x.wav").touch()
    done = call("predict", "-x.wav")
    assert done.exit_code == 2
    assert "-x.wav is a file: write ./-x.wav, or -- before the names" in done.stderr
    assert "No such option" in call("predict", "-y.wav").stderr


def test_an_empty_name_is_refused(tiny):
    """An unset variable in a script; the working folder is not meant."""
    done = call("predict", "--model", tiny, "")
    assert done.exit_code == 1
    assert "an empty name where a file belongs; give a file" in done.stderr


def test_other_files_are_counted_in_one_line(tiny, clips, tmp_path):
    (clips / "more" / "notes.pdf").touch()
    done = call("predict", "--model", tiny, clips)
    assert done.stderr == f"{clips}: 2 other file(s) left out: .txt (1), .pdf (1)\n"
    assert done.exit_code == 0
    assert call("predict", "-q", "--model", tiny, clips).stderr == ""


def test_a_timeline_of_each_file(tiny, tmp_path):
    sound = np.concatenate([np.tile(speech("happy", 1), 5), np.zeros(8 * 16_000, np.float32)])
    path = tmp_path / "long.wav"
    path.write_bytes(wav(sound))
    windows = list(bundle.load(tiny).timeline(path))
    done = call("predict", "--model", tiny, "--timeline", path)
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"file": str(path)} | w for w in windows
    ]
    rows = list(
        csv.DictReader(
            io.StringIO(call("predict", "--model", tiny, "--timeline", "--format", "csv", path).stdout)
        )
    )
    assert [row["emotion"] for row in rows] == [window["emotion"] or "" for window in windows]
    assert [float(row["start_s"]) for row in rows] == [window["start_s"] for window in windows]
    table = call("predict", "--model", tiny, "--timeline", "--format", "table", path).stdout.splitlines()
    assert table[0].split() == ["start_s", "end_s", "emotion", "sure", "file"]
    assert table[-1].split()[2:] == ["no", "speech", str(path)]


def test_references_are_used(tiny, tmp_path):
    own = [wav(speech("neutral", 1, seed)) for seed in (0, 1)]
    paths = [tmp_path / f"neutral{i}.wav" for i in (0, 1)]
    for path, content in zip(paths, own, strict=True):
        path.write_bytes(content)
    clip = wav(speech("sad", 1))
    given = [each for path in paths for each in ("--reference", path)]
    answer = json.loads(call("predict", "--model", tiny, *given, "-", input=clip).stdout)
    assert answer["probabilities"] == bundle.load(tiny).predict(clip, references=own)["probabilities"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--format", "xml", "a.wav"],
        ["--reference", "gone.wav", "a.wav"],
        ["--timeline", "--reference", __file__, "a.wav"],
        ["--no-such", "a.wav"],
    ],
)
def test_a_wrong_command_is_2(arguments):
    done = call("predict", *arguments)
    assert done.exit_code == 2
    assert "Error" in done.stderr


def test_a_terminal_gets_a_table_and_a_pipe_json(tiny, clips):
    command = [sys.executable, "-m", "ser_lib", "predict", "--model", str(tiny), str(clips / "more")]
    piped = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    assert json.loads(piped.stdout)["emotion"] == "calm"
    ours, theirs = pty.openpty()
    subprocess.run(command, stdout=theirs, stderr=subprocess.DEVNULL, check=True)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode().splitlines()
    os.close(ours)
    assert shown[0].split() == ["emotion", "sure", "file"]
    assert shown[1].startswith("calm")


# --- corpus check ----------------------------------------------------------------------------------


@pytest.fixture
def manifest(tiny_corpus, tmp_path):
    """Writes a CSV of clips of the synthesised corpus that fulfil a condition, and returns its path."""

    def write(keep=lambda speaker, emotion: True):
        lines = ["path,speaker,emotion"]
        for path in sorted(tiny_corpus.rglob("*.wav")):
            emotion, speaker = path.stem[6:8], path.stem[-2:]
            if keep(speaker, emotion):
                lines.append(f"{path},{speaker},{emotion}")
        (tmp_path / "mine.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return tmp_path / "mine.csv"

    return write


def test_a_corpus_that_can_be_trusted(manifest, tmp_path):
    path = manifest(lambda speaker, emotion: emotion in ("03", "05", "08"))
    (tmp_path / "labels.yaml").write_text("labels: {03: happy, 05: angry, 08: null}", encoding="utf-8")
    done = call("corpus", "check", path)
    assert done.exit_code == 0, done.output
    assert "labels.yaml: 03 → happy, 18 clip(s)" in done.stdout
    assert "labels.yaml: 08 is left out, 12 clip(s)" in done.stdout
    assert "angry      18 clips of 6 speakers, 3 to 3 each" in done.stdout
    assert done.stdout.endswith(f"-p corpus={path} -p emotions=angry,happy -p protocol=actors5\n")
    result = json.loads(call("corpus", "check", path, "--json", "--protocol", "loso").stdout)
    assert result["doubts"] == result["problems"] == []
    assert result["speakers"]["06"]["clips"] == {"angry": 3, "happy": 3}
    assert result["protocol"] == "loso"


def test_nothing_is_decoded_twice(manifest, monkeypatch):
    from ser_lib.audio import decoding

    path = manifest(lambda speaker, emotion: speaker == "01" and emotion in ("03", "05"))
    call("corpus", "check", path)
    monkeypatch.setattr(decoding, "blocks", lambda *_, **__: pytest.fail("decoded again"))
    done = call("corpus", "check", path)
    assert "6 clips of 1 speakers, 2 emotions" in done.stdout


def test_a_corpus_that_cannot_be_trusted(manifest, tmp_path):
    """One speaker, a class of two clips, an unreadable, an empty, a silent and a missing file."""
    path = manifest(lambda speaker, emotion: speaker == "01" and emotion in ("01", "03"))
    (tmp_path / "note.wav").write_text("no recording", encoding="utf-8")
    (tmp_path / "empty.wav").touch()
    (tmp_path / "silent.wav").write_bytes(wav(np.zeros(16_000)))
    with path.open("a", encoding="utf-8") as file:
        file.writelines(f"{name}.wav,01,03\n" for name in ("note", "empty", "silent", "gone"))
    done = call("corpus", "check", path)
    assert done.exit_code == 1
    assert "- 1 speaker(s): actors5 tests on unseen speakers" in done.stdout
    assert "- 01: 2 clip(s), at least 10 are needed; add some, or leave the label out" in done.stdout
    assert "- 4 file(s) cannot be used, see above; repair or remove them" in done.stdout
    for name, why in {
        "note": "not audio",
        "empty": "empty file",
        "silent": "silent",
        "gone": "no such f",
    }.items():
        assert f"cannot be used: {tmp_path}/{name}.wav: {why}" in done.stdout
    result = json.loads(call("corpus", "check", path, "--json").stdout)
    assert len(result["problems"]) == 4
    assert len(result["doubts"]) == 4  # two classes of few clips


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["gone"], 1, "gone: no such folder"),
        (["gone,away"], 1, "gone: no such folder"),
        ([__file__], 1, "test_cli.py: a file, but no table (.csv, .tsv, .txt); give a folder of recordings"),
        ([""], 1, "an empty name where a corpus belongs"),
        (["~nosuchuser"], 1, "~nosuchuser: no such folder"),
        (["x" * 5000], 1, "x: no such folder"),
        (["a\0b"], 1, "b: no such folder"),
        (["."], 1, ".: no recordings (.wav"),
        (["MANIFEST", "--emotions", "01,bliss"], 1, "no clip of emotion bliss; the table has 01"),
        (["MANIFEST", "--protocol", "actor5"], 2, "actor5: choose one of actors5, loso, random"),
        ([], 2, "Missing argument 'SOURCE'"),
    ],
)
def test_sources_that_are_refused_on_one_line(manifest, monkeypatch, arguments, code, message):
    path = manifest(lambda speaker, emotion: speaker == "01" and emotion == "01")
    monkeypatch.chdir(path.parent)
    done = call("corpus", "check", *(path if each == "MANIFEST" else each for each in arguments))
    assert done.exit_code == code
    (line,) = [line for line in done.output.splitlines() if line.startswith("Error: ")]
    assert message in line


# --- card, completion ------------------------------------------------------------------------------


def test_the_card_of_a_model(tmp_path):
    score = {"value": 0.5, "uar": 0.5, "low": 0.4, "high": 0.6}
    save_tiny(
        tmp_path / "mine.json",
        estimator="logistic", ece=0.03, licence="CC0", training={"clips": 16, "speakers": 4, "data_hash": "ab"},
        metrics=dict.fromkeys(("uar", "accuracy", "macro_f1", "weighted_f1"), score),
        headline={"protocol": "loso", "emotions": "four", "seeds": "0"},
        chosen={"inner_uar": {"logistic": 0.5}, "folds": 1.0, "gain_of_copies": score, "loso": score},
    )  # fmt: skip
    done = call("card", tmp_path / "mine.json")
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("# Model card: mine ")
    assert "| UAR | 50.0 % (40.0 to 60.0) |" in done.stdout
    assert "| emotion | precision |" not in done.stdout
    assert "\n\n\n" not in done.stdout


def test_metadata_without_scores_has_no_card(tiny):
    done = call("card", tiny)
    assert done.exit_code == 1
    assert f"{tiny}: no metrics in the metadata, so no card; choose and train it anew" in done.output


def test_the_shell_completes():
    """Of click; the README says how it is switched on."""
    done = call("--help", prog_name="ser_lib", env={"_SER_LIB_COMPLETE": "bash_source"})
    assert "_ser_lib_completion" in done.output
    words = {"COMP_WORDS": "ser_lib pre", "COMP_CWORD": "1", "_SER_LIB_COMPLETE": "bash_complete"}
    assert call("--help", prog_name="ser_lib", env=words).output.split() == ["plain,predict"]
