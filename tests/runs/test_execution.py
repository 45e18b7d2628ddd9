"""The plan of a rerun: names and values are checked before anything runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter

import nbformat
import pytest
from click.testing import CliRunner

from ser_lib import ROOT
from ser_lib.cli import main
from ser_lib.errors import ReportError
from ser_lib.features import tables
from ser_lib.runs import execution, index, ledger
from ser_lib.runs.parameters import defaults


def test_the_whole_plan_is_the_main_job():
    assert [run.name for run in execution.plan()] == [
        "01_eda",
        "02_features",
        "03_four",
        "03_eight",
        "04_choose_and_export",
        "05_leakage_audit",
        "06_stress_and_transfer",
    ]


def test_a_long_notebook_runs_where_it_is_named():
    assert [run.name for run in execution.plan(["07"])] == ["07_sequence_models"]


def test_a_parameter_that_tells_two_runs_apart_makes_one_run():
    (run,) = execution.plan(["03"], {"emotions": "calm,happy", "protocol": "loso"})
    assert dict(run.parameters) == {"emotions": "calm,happy", "protocol": "loso"}
    assert run.name == "03_emotions-calm-happy_protocol-loso"


def test_another_parameter_keeps_both_runs_apart_from_the_standard_ones():
    runs = execution.plan(["03"], {"seeds": "5"})
    assert [(run.name, run.parameters["emotions"], run.parameters["seeds"]) for run in runs] == [
        ("03_four_seeds-5", "four", "5"),
        ("03_eight_seeds-5", "eight", "5"),
    ]


def test_values_take_the_type_of_the_default():
    (run,) = execution.plan(["03_four"], {"search": "true"})
    assert run.parameters["search"] is True


def test_unknown_names_are_refused_with_the_valid_ones():
    with pytest.raises(
        ReportError, match=r"03_mlp_vs_boosting has no parameter emotion; it has corpus='', emotions="
    ):
        execution.plan(["03"], {"emotion": "four"})
    with pytest.raises(ReportError, match=r"no notebook '09'; there are 01_eda, 02_features, 03_four"):
        execution.plan(["09"])
    with pytest.raises(ReportError, match=r"--name x is for one run; 2 are asked for"):
        execution.plan(["03"], name="x")


def test_the_command_line_refuses_on_one_line_and_exits_non_zero():
    for arguments, message in (
        (["reports", "--notebook", "03", "-p", "protocoll=loso"], "has no parameter protocoll"),
        (["reports", "-p", "seed"], "'seed' is not NAME=VALUE"),
        (["predict", "no-such.wav"], "no-such.wav: no such file"),
        (["features", "no-such-folder", "t.parquet"], "no-such-folder: no such folder"),
    ):
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code != 0
        assert message in done.output
        assert "Traceback" not in done.output


def test_predict_goes_on_after_a_bad_file(tmp_path, tiny_corpus):
    good = next(tiny_corpus.rglob("*.wav"))
    (tmp_path / "bad.wav").write_text("not audio", encoding="utf-8")
    done = CliRunner().invoke(main, ["predict", str(tmp_path / "bad.wav"), str(good)])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["file"] == str(good)
    assert "bad.wav: not audio" in done.stderr


def test_features_writes_a_table_that_loads(tmp_path, tiny_corpus):
    from ser_lib.features import FeatureConfig

    done = CliRunner().invoke(
        main, ["features", str(tiny_corpus), str(tmp_path / "t.parquet"), "--set", "classic"]
    )
    assert done.exit_code == 0, done.output
    assert len(tables.read_table(tmp_path / "t.parquet", FeatureConfig("classic"))) == 108


def test_features_of_one_family_and_their_copies(tmp_path, tiny_corpus):
    from ser_lib import augmentation

    command = ["features", str(tiny_corpus), str(tmp_path / "t.parquet"), "--family", "timing"]
    for extra, n_clips in (([], 108), (["--copies"], 108 * len(augmentation.TRAINING))):
        done = CliRunner().invoke(main, [*command, *extra])
        assert done.exit_code == 0, done.output
        table = tables.read_table(tmp_path / "t.parquet")
        assert len(table) == n_clips
        assert all(name.startswith("time_") for name in tables.feature_columns(table))
    done = CliRunner().invoke(main, [*command[:-1], "melody"])
    assert done.exit_code == 2
    assert "no melody in full; it has chroma, correlation, energy" in done.output


def test_the_main_table_marks_the_random_split(tmp_path):
    def row(protocol, value):
        about = {"emotions": "four", "model": "mlp", "metric": "uar", "protocol": protocol}
        return about | {"value": value, "low": value - 0.1, "high": value + 0.1}

    (tmp_path / "03_four").mkdir()
    content = {"run": {}, "results": [row("actors5", 0.5), row("random", 0.8)]}
    (tmp_path / "03_four" / "metrics.json").write_text(json.dumps(content), encoding="utf-8")
    table = index.main_table(index.read_results(tmp_path)).splitlines()
    assert (
        table[0]
        == "| emotions | model | unseen speakers (`actors5`) | same speakers in training and test ✗ (`random`) |"
    )
    assert table[2] == "| four | mlp | 50.0 % (40.0 to 60.0) | 80.0 % (70.0 to 90.0) |"


def test_the_readme_keeps_its_text_around_the_table(tmp_path):
    (tmp_path / "03_other").mkdir()
    content = {"run": {}, "results": [{"metric": "uar", "emotions": "x", "model": "m", "protocol": "loso"}]}
    (tmp_path / "03_other" / "metrics.json").write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "README.md").write_text(
        "before\n<!-- results -->\nold\n<!-- /results -->\nafter\n", encoding="utf-8"
    )
    index.write_readme(["03_four"], tmp_path / "README.md", tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert text.startswith("before\n<!-- results -->\n| emotions |")
    assert "loso" not in text  # a rerun with other parameters is no headline
    assert text.endswith("<!-- /results -->\nafter\n")
    assert "old" not in text


def test_the_honest_table_has_people_and_no_rung_that_leaks(tmp_path):
    shares = {"value": 0.6, "low": 0.5, "high": 0.7}
    both, rung = ("uar", "accuracy"), {"model": "m", "chance": 0.125} | shares
    chosen = [
        {"metric": "accuracy_listeners_options", "group": "all clips", "model": "n", "listeners": 0.4}
        | shares,
        {"metric": "accuracy_listeners_options", "group": "sad", "model": "n", "listeners": 0.2} | shares,
        *({"metric": name, "model": "n", "protocol": "actors5"} | shares for name in both),
        *({"metric": name, "model": "n", "protocol": "loso"} | shares for name in both),
    ]
    ladder = [
        *({"rung": "2 leaks", "metric": name, "same_speaker": 0.9} | rung for name in both),
        *({"rung": "3 unseen", "metric": name, "same_speaker": 0.0} | rung for name in both),
    ]
    for run, content in (("04_choose_and_export", chosen), ("05_leakage_audit", ladder)):
        assert index.headline_table(tmp_path) == ""
        (tmp_path / run).mkdir()
        (tmp_path / run / "metrics.json").write_text(json.dumps({"results": content}), encoding="utf-8")
    networks = [
        {"metric": n, "model": m, "protocol": "actors5"} | shares for n in both for m in ("stack", "o")
    ]
    (tmp_path / "07_sequence_models").mkdir()
    (tmp_path / "07_sequence_models" / "metrics.json").write_text(
        json.dumps({"results": networks}), encoding="utf-8"
    )
    cells = "60.0 % (50.0 to 70.0)"
    assert index.headline_table(tmp_path).splitlines()[2:] == [
        "| human listeners | all clips; neutral and calm count as one |  | 40.0 % |",
        f"| `n`, served | unseen speakers; neutral and calm count as one |  | {cells} |",
        f"| `n`, served | unseen speakers | {cells} | {cells} |",
        f"| `n`, served | unseen speakers, each left out in turn | {cells} | {cells} |",
        f"| `stack` of a network and functionals | unseen speakers | {cells} | {cells} |",
        f"| `m` | unseen; chance 12.5 % | {cells} | {cells} |",
        "",
    ]


def test_parameters_are_flat_literals():
    assert defaults("03_mlp_vs_boosting")["protocol"] == "actors5"
    with pytest.raises(ReportError, match="no such notebook"):
        defaults("05_none")


def test_a_name_makes_a_folder():
    with pytest.raises(ReportError, match="--name a/b: use letters, digits"):
        execution.plan(["03_four"], name="a/b")


# --- grids -----------------------------------------------------------------------------------------

GRID = "emotions: [four, 'happy,sad,angry']\nseeds: [0, 1, 2]\nprotocol: [actors5, loso]\n"

CELLS = (
    """corpus = ""  # CORPUS: of clips
emotions = "four"  # four | eight | EMOTION,…: whose clips are used
seeds = "0"  # NUMBER,…: of the model
protocol = "actors5"  # PROTOCOL: of the folds
fails = ""  # loso: the protocol with which it fails""",
    """import os, time
import numpy as np
from ser_lib import corpora
from ser_lib.evaluation import cross_validation
from ser_lib.features import tables
from ser_lib.runs import parameters
from ser_lib.runs.report import Report
report = Report("03_mlp_vs_boosting", globals())
with open(os.environ["BEGUN"], "a", encoding="utf-8") as begun:
    print(report.folder.stem, file=begun)""",
    """names = corpora.emotion_list(emotions)
clips = parameters.corpus_clips(corpus).drop(columns="path")
table = tables.select(clips.assign(x=np.arange(float(len(clips)))), names)
if fails == protocol and not os.environ.get("MENDED"):
    raise ValueError("no such luck\\nat all")
predictions = cross_validation.out_of_fold(table, ["majority"], protocol=protocol, n_jobs=1)
report.add_scores(predictions, names)
report.save(table, predictions)""",
)


class Clone:
    """A tree with the library and one small notebook, which the command line runs as it runs those of a clone."""

    def __init__(self, folder, recordings, code=CELLS):
        shutil.copytree(ROOT / "ser_lib", folder / "ser_lib", ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "data").symlink_to(ROOT / "data")
        cells = [nbformat.v4.new_code_cell(source) for source in code]
        cells[0].metadata["tags"] = ["parameters"]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        (folder / "notebooks").mkdir()
        book = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
        nbformat.write(book, folder / "notebooks" / "03_mlp_vs_boosting.ipynb")
        (folder / "grid.yaml").write_text(GRID, encoding="utf-8")
        self.folder, self.out = folder, folder / "out"
        named = {
            "PYTHONPATH": str(folder),
            "SER_RAVDESS_DIR": str(recordings),
            "BEGUN": str(folder / "begun"),
        }
        self.environment = os.environ | named

    def start(self, *options, **environment):
        command = [
            sys.executable,
            "-m",
            "ser_lib",
            "reports",
            "--notebook",
            "03_four",
            "--out",
            str(self.out),
        ]
        how = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.STDOUT,
            "encoding": "utf-8",
            "cwd": self.folder,
        }
        return subprocess.Popen([*command, *options], env=self.environment | environment, **how)

    def run(self, *options, **environment):
        with self.start(*options, **environment) as process:
            output = process.communicate(timeout=1800)[0]
        return process.returncode, output

    def begun(self):
        """How often each run was begun."""
        return Counter((self.folder / "begun").read_text(encoding="utf-8").split())

    def status(self):
        return {row["name"]: row["status"] for row in ledger.runs(self.out)}


@pytest.fixture
def clone(tmp_path, tiny_corpus):
    return Clone(tmp_path, tiny_corpus)


@pytest.mark.slow
def test_a_grid_that_is_killed_goes_on_and_runs_nothing_twice(clone):
    with clone.start("--grid", "grid.yaml") as process:
        deadline = time.monotonic() + 900
        while sum(clone.out.joinpath(name).is_dir() for name in clone.status()) < 3:
            assert process.poll() is None, process.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.kill()
    killed = clone.status()
    done = [name for name, status in killed.items() if status == "done"]
    assert 3 <= len(done) < 12
    before = {name: (clone.out / name / "metrics.json").read_bytes() for name in done}
    code, output = clone.run("--grid", "grid.yaml")
    assert code == 0, output
    assert output.startswith("12 runs:\n  03_emotions-four_seeds-0_protocol-actors5\n")
    rows = ledger.runs(clone.out)
    assert [row["status"] for row in rows] == ["done"] * 12
    assert len({tuple(row["parameters"].values()) for row in rows}) == 12
    for row in rows:
        assert row["score"]["metric"] == "uar"
        assert row["peak_memory_mb"] > 10
        assert row["seconds"] > 0
    for name in done:
        assert f"{name}: unchanged, skipped" in output
        assert (clone.out / name / "metrics.json").read_bytes() == before[name]
        assert clone.begun()[name] == 1
    cut = {name for name, status in killed.items() if status == "failed"}  # its process was ended
    assert {name for name, times in clone.begun().items() if times > 1} <= cut
    code, output = clone.run("--grid", "grid.yaml")
    assert (code, output.count("unchanged, skipped")) == (0, 12)
    assert sum(clone.begun().values()) <= 12 + len(cut)


@pytest.mark.slow
def test_two_grids_at_a_time_share_the_runs(clone):
    (clone.folder / "grid.yaml").write_text("seeds: [0, 1]\n", encoding="utf-8")
    with clone.start("--grid", "grid.yaml") as one, clone.start("--grid", "grid.yaml") as other:
        output = [process.communicate(timeout=1800)[0] for process in (one, other)]
    assert (one.returncode, other.returncode) == (0, 0), output
    assert clone.begun() == {"03_four_seeds-0": 1, "03_four_seeds-1": 1}
    assert set(clone.status().values()) == {"done"}
    assert sum(text.count("unchanged, skipped") for text in output) == 2


@pytest.mark.slow
def test_one_failed_run_leaves_the_others_and_is_taken_up_alone(clone):
    (clone.folder / "grid.yaml").write_text("fails: [loso]\nprotocol: [loso, actors5]\n", encoding="utf-8")
    code, output = clone.run("--grid", "grid.yaml")
    assert code == 1
    assert "cell 4: ValueError: no such luck; see " in output  # papermill adds a cell
    assert "Error: 1 of 2 runs failed; repeat them with `python -m ser_lib reports --failed`" in output
    assert clone.status() == {
        "03_four_fails-loso_protocol-actors5": "done",
        "03_four_fails-loso_protocol-loso": "failed",
    }
    row = next(row for row in ledger.runs(clone.out) if row["status"] == "failed")
    assert row["cell"] == 4
    assert (clone.out / "03_four_fails-loso_protocol-loso.failed" / "notebook.ipynb").is_file()
    code, output = clone.run("--failed", MENDED="yes")
    assert code == 0, output
    assert set(clone.status().values()) == {"done"}
    assert clone.begun()["03_four_fails-loso_protocol-actors5"] == 1
    code, output = clone.run("-p", "fails=loso", "--force")
    assert code == 0, output
    page = (clone.out / "index.html").read_text(encoding="utf-8")
    assert page.count('<td class="run"') == 3


def test_a_terminal_is_told_how_far_a_run_is(clone):
    ours, theirs = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "ser_lib", "reports", "--notebook", "03_four", "--out", str(clone.out)],
        env=clone.environment, cwd=clone.folder, stdout=subprocess.PIPE, stderr=theirs, encoding="utf-8",
    ) as process:  # fmt: skip
        os.close(theirs)
        output = process.communicate(timeout=900)[0]
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert process.returncode == 0, shown
    assert [line.partition(":")[0] for line in output.splitlines()] == ["03_four", "03_four", "index"]
    assert re.search(r"\r\x1b\[K03_four: cell [1-3] of 3, \d+ s", shown)
    assert shown.endswith("\r\x1b[K")
    assert not (clone.out / "03_four" / "progress").exists()


def test_a_run_waits_for_the_one_that_it_reads_and_no_other(tmp_path, monkeypatch):
    order, begun = [], threading.Event()

    def execute(run, out, **_):
        if run.name == "03_eight":
            assert begun.wait(60)  # another goes on meanwhile
        order.append(run.name)
        if run.name == "02_features":
            begun.set()
        return out

    monkeypatch.setattr(execution, "execute", execute)
    monkeypatch.setattr(execution.index, "write_index", lambda out: None)
    names = ("03_eight", "02_features", "04_choose_and_export")
    runs = [run for name in names for run in execution.plan([name])]
    execution.execute_all(runs, tmp_path, jobs=2, say=lambda text: None)
    assert order == ["02_features", "03_eight", "04_choose_and_export"]
    order.clear()
    begun.clear()
    execution.execute_all(runs, tmp_path, jobs=3, say=lambda text: None)
    assert order == ["02_features", "03_eight", "04_choose_and_export"]


def test_a_refusal_leaves_the_ledger_as_it_was(tmp_path):
    (tmp_path / "x.yaml").write_text("protocol: [actors5, best]\n", encoding="utf-8")
    (tmp_path / "y.yaml").write_text("protocol: actors5\n", encoding="utf-8")
    (tmp_path / "z.yaml").write_text("emotions: ['happy,sad', 'happy sad']\n", encoding="utf-8")
    (tmp_path / "w.yaml").write_text("- protocol\n", encoding="utf-8")
    out = tmp_path / "out"
    ledger.finish(ledger.start("03_a", {key: {} for key in ledger.KEY}, out), "done")
    before = ledger.runs(out)
    for options, message in (
        (["-p", "protocoll=loso"], "has no parameter protocoll; it has corpus=''"),
        (["-p", "protocol=best"], "'best' is not valid; give PROTOCOL: actors5, loso, random"),
        (["-p", f"corpus={tmp_path / 'none'}"], "none: no such folder; correct corpus=…"),
        (["--grid", str(tmp_path / "x.yaml")], "'best' is not valid"),
        (["--grid", str(tmp_path / "y.yaml")], "y.yaml: protocol is no list of values"),
        (["--grid", str(tmp_path / "z.yaml")], "'happy sad'"),
        (["--grid", str(tmp_path / "w.yaml")], "w.yaml: not a YAML file of lines like"),
        (["--grid", str(tmp_path / "v.yaml")], "v.yaml: No such file or directory; check the path"),
        (["--failed"], "no run has failed"),
        (["--failed", "-p", "seeds=1"], "--failed goes with --notebook alone"),
    ):
        done = CliRunner().invoke(main, ["reports", "--notebook", "03", "--out", str(out), *options])
        assert done.exit_code != 0, options
        assert message in done.output
        assert len([line for line in done.output.splitlines() if line.startswith("Error")]) == 1
        assert "Traceback" not in done.output
    assert ledger.runs(out) == before
    assert sorted(path.name for path in out.iterdir()) == [ledger.LOCK, "03_a"]


def test_the_help_lists_the_parameters_of_a_notebook():
    output = CliRunner().invoke(main, ["reports", "--notebook", "07", "--help"]).output
    assert "Parameters of 07_sequence_models" in output
    assert "full | smoke: smoke takes a few steps" in output
    assert "Parameters of" not in CliRunner().invoke(main, ["reports", "--help"]).output
