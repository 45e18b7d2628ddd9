"""corpus check: the description of a corpus, and the doubts about a report on it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from functools import partial
from itertools import pairwise

import pandas as pd
import pytest
from synth import write_ravdess
from test_clips import manifest, numbered, put, read

from ser_lib import corpora
from ser_lib.evaluation.splits import PROTOCOLS
from ser_lib.features import extraction
from ser_lib.runs import parameters, preflight
from ser_lib.runs.preflight import doubts


def grid(speakers: int = 6, each: int = 4, emotions=("happy", "sad")) -> pd.DataFrame:
    """A clip table of as many clips of each emotion by each speaker."""
    rows = [(f"{s}{e}{n}", "mine", str(s), e) for s in range(speakers) for e in emotions for n in range(each)]
    clips = pd.DataFrame(rows, columns=["clip_id", "corpus", "speaker", "emotion"])
    return clips.assign(audio_sha256=clips["clip_id"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_speaks_against_a_whole_grid(protocol):
    assert doubts(grid(), protocol) == []


def test_one_speaker_is_doubted_where_speakers_are_kept_apart():
    clips = grid(speakers=1, each=12)
    for protocol in ("actors5", "loso"):
        (doubt,) = doubts(clips, protocol)
        assert doubt.startswith(f"1 speaker(s): {protocol} tests on unseen speakers")
        assert doubt.endswith("add recordings of others")
    assert doubts(clips, "random") == []


def test_a_class_of_two_clips_is_doubted():
    clips = grid(emotions=("happy", "sad", "angry"))
    few = clips.drop(clips.index[clips["emotion"] == "angry"][2:])
    for protocol in PROTOCOLS:
        (doubt,) = doubts(few, protocol)
        assert doubt.startswith("angry: 2 clip(s), at least 10 are needed; add some, or leave the label out")


def test_a_class_of_few_speakers_is_doubted():
    clips = grid(each=20, emotions=("happy", "sad", "angry"))
    of_two = clips[(clips["emotion"] != "angry") | clips["speaker"].isin(["2", "4"])]
    assert doubts(of_two)[0].startswith("angry: only of 2, 4, at least 3 speakers are needed")
    assert doubts(of_two, "random") == []


def test_a_class_that_no_other_fold_teaches_is_doubted():
    """Three actors whom the published folds test together; each alone, the others teach it."""
    clips = grid(speakers=6, each=20, emotions=("happy", "sad", "angry")).assign(corpus="ravdess")
    clips["speaker"] = clips["speaker"].replace(
        dict(zip("012345", ("02", "05", "14", "01", "03", "24"), strict=True))
    )
    alone = clips[(clips["emotion"] != "angry") | clips["speaker"].isin(["02", "05", "14"])]
    assert doubts(alone) == [
        "angry: a fold tests all its speakers; add recordings of others, or use protocol=loso"
    ]
    assert doubts(alone, "loso") == []
    assert doubts(alone.assign(corpus="mine")) == []


def test_clips_that_contradict_each_other_are_doubted():
    clips = grid()
    twins = clips.assign(audio_sha256=["same"] * 2 + list(clips["clip_id"][2:]))
    assert doubts(twins) == []
    twins.loc[1, "emotion"] = "sad"
    assert doubts(twins) == [
        "0happy0 and 0happy1: the same samples, but emotion happy and sad; correct one, or remove both"
    ]
    twins.loc[1, ["emotion", "speaker"]] = ["happy", "5"]
    assert "speaker 0 and 5" in doubts(twins)[0]


def test_labels_and_speakers_that_may_be_confused_are_doubted():
    clips = grid(each=20)
    clips.loc[clips.index[::2], "emotion"] = clips["emotion"][::2].str.title() + " "
    assert [doubt.split(" differ")[0] for doubt in doubts(clips)] == [
        "'Happy ' and 'happy'",
        "'Sad ' and 'sad'",
    ]
    clips = grid()
    clips.loc[clips.index[:5], "corpus"] = "other"
    assert doubts(clips)[0].startswith("speaker 0 is in other and mine and counts as one person")
    sung = grid().assign(corpus=["ravdess", "ravdess-song"] * 24)
    assert doubts(sung, "loso") == []


def test_what_is_described(tmp_path):
    path = manifest(
        tmp_path, "path,speaker,gender,emotion\nclips/0.wav,ann,female,happy\nclips/1.wav,bob,male,sad\nclips/2.wav,ann,female,sad\n"
    )  # fmt: skip
    put(tmp_path / "clips" / "2.wav", numbered(1))
    result = preflight.describe(read(path))
    assert result["speakers"]["ann"] == {
        "corpus": "mine",
        "gender": "female",
        "clips": {"happy": 1, "sad": 1},
    }
    assert result["emotions"]["happy"] == {"clips": 1, "speakers": 1, "fewest": 0, "most": 1}
    assert result["duplicates"] == [["clips/1", "clips/2"]]
    assert result["sample_rates"] == {"16000": 3}
    assert result["duration_s"]["max"] == 1.2
    json.dumps(result)
    asked = {
        "source": "a b.csv",
        "protocol": "loso",
        "asked": ["happy", "sad"],
        "labels": [],
        "doubts": [],
        "other_files": {},
    }
    text = preflight.as_text(result | asked)
    assert "sample-identical: clips/1, clips/2" in text
    assert "-p 'corpus=a b.csv' -p emotions=happy,sad -p protocol=loso" in text


@pytest.fixture
def own(tmp_path):
    """A folder with clips of six speakers, and their CSV as a spreadsheet writes it."""
    folder = write_ravdess(tmp_path / "my clips" / "ravdess")
    labels = {"03": "glücklich", "04": "None"}
    rows = [
        f"{path.relative_to(folder.parent)}; {path.stem[-2:]}; {labels[path.stem[6:8]]}"
        for path in sorted(folder.rglob("*.wav"))
        if path.stem[6:8] in labels
    ]
    (tmp_path / "my clips" / "mine.csv").write_bytes(
        "\n".join(["path; Speaker; Emotion", *rows]).encode("utf-16")
    )
    (folder / "notes.txt").touch()
    return tmp_path


@pytest.mark.slow
def test_the_command_that_is_printed_runs(own):
    """As printed, but for the time that it takes and the folder that it writes to."""
    check = [sys.executable, "-m", "ser_lib", "corpus", "check", "my clips/mine.csv"]
    done = subprocess.run(check, cwd=own, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout + done.stderr
    command = done.stdout.splitlines()[-1]
    assert "emotions=" in command
    quick = " --out made --name mine -p models=logistic,majority -p seeds=0 -p feature_set=compact"
    run = subprocess.run(command + quick, shell=True, cwd=own, capture_output=True, encoding="utf-8")
    assert run.returncode == 0, run.stdout + run.stderr
    scores = json.loads((own / "made" / "mine" / "metrics.json").read_text(encoding="utf-8"))["results"]
    assert {row["corpus"] for row in scores} == {"mine"}


ODD = [
    "four",
    "eight",
    "true",
    "1",
    "1e3",
    "a=b",
    "-x",
    "NA",
    "a|b",
    "it's",
    "$HOME",
    "very sad",
    "müde",
    "~",
    "a: b",
    "*",
    "#1",
]


def test_a_report_takes_each_name_that_the_check_prints(tmp_path):
    """Labels and a file name that a shell, YAML or the list of emotions could take for something else."""
    rows = "".join(f'clips/{n}.wav,"{name}","  {name}"\n' for n, name in enumerate([*ODD, "two\nlines"]))
    path = manifest(tmp_path, "path,speaker,emotion\n" + rows, name="it's $mine, #1.csv")
    clips = corpora.listing(path)[0]
    assert sorted(clips["emotion"]) == sorted([*ODD, "two lines"])
    clips = clips.assign(duration_s=1.0, sample_rate=8_000, channels=1, audio_sha256=clips["clip_id"])
    result = preflight.describe(corpora.Corpus(clips, pd.DataFrame(columns=["path", "problem"])))
    asked = {"source": str(path), "protocol": "loso", "asked": sorted(clips["emotion"]), "labels": []}
    text = preflight.as_text(result | asked | {"doubts": [], "other_files": {}})
    words = shlex.split(text.splitlines()[-1])
    given = dict(word.split("=", 1) for before, word in pairwise(words) if before == "-p")
    notebook = "03_mlp_vs_boosting"
    values = {name: parameters.convert(notebook, name, value) for name, value in given.items()}
    parameters.check_values(notebook, values)
    assert corpora.emotion_list(values["emotions"]) == asked["asked"]


def test_other_files_of_a_folder_are_counted(own, monkeypatch):
    monkeypatch.setattr(extraction, "build", partial(extraction.build, cache_dir=own / "cache", n_jobs=1))
    folder = own / "my clips" / "ravdess"
    result = preflight.examine(str(folder), "loso", ["happy", "sad"])
    assert result["other_files"] == {str(folder): {".txt": 1}}
    assert f"{folder}: 1 other file(s) left out: .txt (1)" in preflight.as_text(result).splitlines()


def test_a_long_list_of_speakers_is_cut(monkeypatch):
    clips = grid(speakers=9).assign(gender="unknown", duration_s=1.0, sample_rate=8_000, channels=1)
    monkeypatch.setattr(preflight, "SHOWN", 4)
    result = preflight.describe(corpora.Corpus(clips, pd.DataFrame(columns=["path", "problem"])))
    rest = {
        "source": "x",
        "protocol": "loso",
        "asked": [],
        "labels": [],
        "doubts": ["odd"],
        "other_files": {},
    }
    lines = preflight.as_text(result | rest).splitlines()
    assert "… and 5 more (--json has all)" in lines
    assert sum(line.endswith("  4    4") for line in lines) == 4
    assert lines[-2:] == ["A report under loso would not be reliable:", "- odd"]
