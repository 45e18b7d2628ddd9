"""The ledger: a row in every run's folder, whole whatever happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from ser_lib.cli import main
from ser_lib.errors import CorpusError, ReportError
from ser_lib.evaluation import comparison
from ser_lib.runs import execution, index, ledger

ROW = {name: {} for name in ledger.KEY} | {"notebook": "n"}


def done(out, name="03_a", results=(), **row):
    running = ledger.start(name, ROW | row, out)
    ledger.write_metrics(running, ledger.running_row(running), list(results))
    return ledger.finish(running, "done", seconds=1.0)


def uar(value, **about):
    return {"metric": "uar", "value": value, "low": value - 0.1, "high": value + 0.1} | about


def ended_process():
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        pass
    return child.pid


def test_a_run_has_a_row_from_its_start(tmp_path):
    running = ledger.start("03_a", ROW, tmp_path)
    (row,) = ledger.runs(tmp_path)
    assert (row["name"], row["status"], row["process"]["id"]) == ("03_a", "running", os.getpid())
    assert ledger.start("03_a", ROW, tmp_path) is None  # this process is alive
    assert ledger.finish(running, "done", seconds=2.5) == tmp_path / "03_a"
    (row,) = ledger.runs(tmp_path)
    assert (row["status"], row["seconds"]) == ("done", 2.5)
    assert "process" not in row  # a committed report tells nothing of the machine
    assert sorted(path.name for path in tmp_path.iterdir()) == [ledger.LOCK, "03_a"]


def test_only_one_of_many_gets_a_run(tmp_path):
    got, barrier = [], threading.Barrier(8)

    def take():
        barrier.wait()
        got.append(ledger.start("03_a", ROW, tmp_path))

    gone = {"id": ended_process(), "created": 0, "machine": ledger.platform.node()}
    for again in range(10):
        if again:  # a run was left by a process that is gone
            ledger.update_row(tmp_path / "03_a.running", process=gone)
        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(folder is not None for folder in got) == 1
        assert [row["status"] for row in ledger.runs(tmp_path)] == ["running"]
        got.clear()


def test_a_run_whose_process_is_gone_has_failed_and_is_taken_over(tmp_path):
    running = ledger.start("03_a", ROW, tmp_path)
    (running / "half.png").write_text("", encoding="utf-8")
    ledger.update_row(running, process=ledger.running_row(running)["process"] | {"id": ended_process()})
    (row,) = ledger.runs(tmp_path)
    assert (row["status"], row["error"]) == ("failed", "its process was ended")
    assert [run.name for run in execution.failed_runs(tmp_path)] == ["03_a"]
    running = ledger.start("03_a", ROW, tmp_path)
    assert not (running / "half.png").exists()
    assert [row["status"] for row in ledger.runs(tmp_path)] == ["running"]


def test_a_run_on_another_machine_is_left_to_it(tmp_path):
    running = ledger.start("03_a", ROW, tmp_path)
    ledger.update_row(running, process={"id": ended_process(), "created": 0, "machine": "elsewhere"})
    assert ledger.start("03_a", ROW, tmp_path) is None


def test_a_failure_stands_beside_the_last_good_run_until_the_next_start(tmp_path):
    done(tmp_path)
    ledger.finish(ledger.start("03_a", ROW, tmp_path), "failed", error="cell 3: no")
    assert [(row["name"], row["status"]) for row in ledger.runs(tmp_path)] == [
        ("03_a", "done"),
        ("03_a", "failed"),
    ]
    ledger.finish(ledger.start("03_a", ROW, tmp_path), "done")
    assert [row["status"] for row in ledger.runs(tmp_path)] == ["done"]


def test_what_changed_is_named(tmp_path):
    assert ledger.changed_columns("03_a", ROW, tmp_path) is None
    done(tmp_path)
    assert ledger.changed_columns("03_a", ROW, tmp_path) == []
    assert ledger.changed_columns("03_a", ROW | {"code": "x", "commit": "y"}, tmp_path) == ["code"]


def test_the_key_follows_parameters_recordings_and_code(tmp_path, tiny_corpus, monkeypatch):
    folder = tmp_path / "Actor_01"
    folder.mkdir()
    for path in sorted(tiny_corpus.glob("Actor_01/*.wav"))[:4]:
        (folder / path.name).write_bytes(path.read_bytes())
    given = {"corpus": str(tmp_path)}

    def key():
        row = ledger.new_row("01_eda", given, tmp_path)
        return [row[name] for name in ledger.KEY]

    first = key()
    assert key() == first
    last = folder / path.name
    os.utime(last, ns=(1, 1))
    assert [a == b for a, b in zip(key(), first, strict=True)] == [True, True, True, False, True, True]
    second = key()
    last.unlink()
    assert key()[3] != second[3]
    given["emotions"] = "four"
    assert key()[1] != first[1]
    monkeypatch.setattr(ledger.provenance, "modules", lambda sources: {})
    assert key()[4] != first[4]
    with pytest.raises(CorpusError, match="no such folder"):
        ledger.new_row("01_eda", {"corpus": str(tmp_path / "none")}, tmp_path)


def test_the_key_follows_the_run_that_is_read(tmp_path):
    keys = []
    for value in (0.5, 0.5, 0.6):
        done(tmp_path, "03_a", [uar(value)], parameters={"emotions": "four"})
        keys.append(ledger.new_row("04_choose_and_export", {"run": "03_a"}, tmp_path)["data"])
    assert keys[0] == keys[1] != keys[2]


def test_the_main_result_is_of_unseen_speakers(tmp_path):
    results = [
        uar(0.95, protocol="leaks", same_speaker=1.0),
        uar(0.8, protocol="random"),
        uar(0.6, protocol="loso"),
        uar(0.5, protocol="actors5"),
    ]
    done(tmp_path, results=results)
    assert ledger.runs(tmp_path)[0]["score"]["value"] == 0.5
    done(tmp_path, results=results[:3])
    assert ledger.runs(tmp_path)[0]["score"]["value"] == 0.6
    done(tmp_path, results=[{"metric": "clips", "value": 9, "low": None, "high": None}])
    assert ledger.runs(tmp_path)[0]["score"]["value"] == 9


def test_the_command_lists_and_removes(tmp_path):
    done(tmp_path, "03_a", [uar(0.5, model="mlp")], parameters={"seeds": "0,1"})
    running = ledger.start("03_b", ROW, tmp_path)
    command = ["runs", "--out", str(tmp_path)]
    text = CliRunner().invoke(main, command).output
    assert "03_a    done uar mlp 50.0 % (40.0 to 60.0)" in text
    assert "03_b running" in text
    rows = json.loads(CliRunner().invoke(main, [*command, "--json"]).output)
    assert [row["name"] for row in rows] == ["03_a", "03_b"]
    assert rows[0]["seed"] == "0,1"
    for name, message in (("03_b", "03_b: is running"), ("03_c", "03_c: no such run")):
        refused = CliRunner().invoke(main, [*command, "rm", name])
        assert refused.exit_code == 1
        assert message in refused.output
    assert running.is_dir()
    assert CliRunner().invoke(main, [*command, "rm", "03_a"]).exit_code == 0
    assert [row["name"] for row in ledger.runs(tmp_path)] == ["03_b"]


def test_a_damaged_row_does_not_hide_the_others(tmp_path):
    done(tmp_path, "03_a")
    (done(tmp_path, "03_b") / ledger.FILE).write_text("{", encoding="utf-8")
    rows = ledger.runs(tmp_path)
    assert [(row["name"], row["status"]) for row in rows] == [("03_a", "done"), ("03_b", "failed")]
    assert "metrics.json: damaged" in rows[1]["error"]


# --- two runs side by side -------------------------------------------------------------------------


def predicted(seed, emotions=("sad", "happy", "calm"), **about):
    rng = np.random.default_rng(seed)
    clips = [(f"{s}-{e}-{i}", s, e) for s in "abcde" for e in emotions for i in range(4)]
    table = pd.DataFrame(clips, columns=["clip_id", "speaker", "emotion"])
    right = rng.random(len(table)) < 0.6
    table["predicted"] = np.where(right, table["emotion"], rng.choice(emotions, len(table)))
    return table.assign(**{"seed": 0, "protocol": "loso", "model": "mlp"} | about)


def kept(out, name, table, **row):
    folder = done(out, name, [uar(0.5, protocol="loso", model="mlp")], **row)
    table.to_parquet(folder / "predictions.parquet")


def test_two_runs_are_compared_on_their_common_clips(tmp_path):
    emotions = ("sad", "happy", "calm")
    a, b = predicted(1), predicted(2, ("sad", "happy"))
    kept(tmp_path, "03_a", a, parameters={"emotions": "x", "seeds": "0"})
    kept(tmp_path, "03_b", b, parameters={"emotions": "y", "seeds": "0"})
    tables = index.compare("03_a", "03_b", tmp_path)
    assert list(tables["row"].index) == ["parameters.emotions"]
    (gap,) = tables["differences"].to_dict("records")
    common = a[a["clip_id"].isin(b["clip_id"])]
    assert gap["clips"] == len(common) == 40
    expected = comparison.difference(common, b, sorted(emotions))
    assert [gap[name] for name in index.VALUES] == pytest.approx(expected)
    assert gap["low"] <= gap["value"] <= gap["high"]
    assert list(tables["a"].index) == ["happy", "sad"]
    np.testing.assert_allclose(tables["a"].sum(axis=1), 1)
    shares = common[common["emotion"] == "sad"]["predicted"].value_counts(normalize=True)
    assert tables["a"].loc["sad", "calm"] == pytest.approx(shares.get("calm", 0))


def test_models_that_only_one_has_are_compared_first_with_first(tmp_path):
    kept(tmp_path, "03_a", predicted(1))
    kept(tmp_path, "03_b", predicted(2, model="xgboost"))
    (gap,) = index.compare("03_a", "03_b", tmp_path)["differences"].to_dict("records")
    assert (gap["model"], gap["minus"]) == ("mlp", "loso xgboost")


def test_the_same_run_twice_differs_by_nothing(tmp_path):
    kept(tmp_path, "03_a", predicted(1))
    tables = index.compare("03_a", "03_a", tmp_path)
    assert tables["differences"][index.VALUES].to_numpy().tolist() == [[0, 0, 0]]


def test_the_diff_command_shows_all_of_it(tmp_path):
    kept(tmp_path, "03_a", predicted(1), parameters={"seeds": "0"})
    kept(tmp_path, "03_b", predicted(2), parameters={"seeds": "1"})
    done(tmp_path, "03_c", [uar(0.4, protocol="loso", model="mlp")])
    command = ["runs", "--out", str(tmp_path), "diff", "03_a"]
    text = CliRunner().invoke(main, [*command, "03_b"]).output
    for part in ("parameters.seeds", "value a", "UAR of a minus b", "Confusion of a:", "Confusion of b:"):
        assert part in text
    assert "no predictions of the same clips" in CliRunner().invoke(main, [*command, "03_c"]).output
    refused = CliRunner().invoke(main, [*command, "03_x"])
    assert refused.exit_code == 1
    assert "03_x/metrics.json: no such report" in refused.output


def test_failed_runs_are_none(tmp_path):
    done(tmp_path)
    with pytest.raises(ReportError, match="no run has failed"):
        execution.failed_runs(tmp_path)


def test_a_run_without_results_is_compared_as_well(tmp_path):
    done(tmp_path, "03_a")
    done(tmp_path, "03_b", [uar(0.4, model="mlp")])
    tables = index.compare("03_a", "03_b", tmp_path)
    assert tables["results"]["value b"].tolist() == [0.4]


# --- in MLflow -------------------------------------------------------------------------------------


def test_runs_are_logged_in_mlflow_once(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="needs MLflow: python -m pip install mlflow-skinny")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a server's store needs more than the extra
    out, uri = tmp_path / "out", (tmp_path / "store").as_uri()
    about = {"parameters": {"emotions": "four", "seeds": "0,1"}, "versions": {"numpy": "2.4"}}
    about |= {"commit": "abc", "uncommitted_changes": True, "data": "d", "code": "c"}
    results = [
        uar(0.5, model="mlp + speeds", protocol="loso", seeds=[0, 1]),
        {"metric": "clips", "value": 9, "low": None, "high": None},
        *(
            {"metric": "coverage", "level": level, "value": level, "low": None, "high": None}
            for level in (0.8, 0.9)
        ),
    ]
    (done(out, "03_a", results, **about) / "notes.txt").write_text("kept", encoding="utf-8")
    ledger.finish(ledger.start("03_b", ROW | about, out), "failed", seconds=2.5, error="cell 3: no", cell=3)
    ledger.start("03_c", ROW | about, out)
    for _ in range(2):  # the second time there is nothing left to log
        log = ledger.mlflow_logger(uri, out)
        for name in ("03_a", "03_b", "03_c"):
            log(name)
    client = mlflow.MlflowClient(uri)
    logged = client.search_runs([client.get_experiment_by_name(ledger.EXPERIMENT).experiment_id])
    runs = {run.info.run_name: run for run in logged}
    assert len(logged) == 2
    assert {name: run.info.status for name, run in runs.items()} == {"03_a": "FINISHED", "03_b": "FAILED"}
    a, b = runs["03_a"], runs["03_b"]
    assert a.data.params == {"emotions": "four", "seeds": "0,1"}
    expected = {"score/value": 0.5, "score/low": 0.4, "score/high": 0.6, "clips/value": 9, "seconds": 1}
    expected |= {
        f"uar/mlp - speeds loso {name.removeprefix('score/')}": value
        for name, value in expected.items()
        if "score" in name
    }
    assert a.data.metrics == pytest.approx(expected | {"coverage/value": 0.9})
    levels = client.get_metric_history(a.info.run_id, "coverage/value")
    assert [(one.step, one.value) for one in levels] == [(0, 0.8), (1, 0.9)]
    tags = {"commit": "abc", "uncommitted_changes": "True", "data": "d", "code": "c", "version numpy": "2.4"}
    assert tags.items() <= a.data.tags.items()
    assert (b.data.tags["error"], b.info.end_time - b.info.start_time) == ("cell 3: no", 2500)
    assert {file.path for file in client.list_artifacts(a.info.run_id)} == {"metrics.json", "notes.txt"}


def test_a_store_that_does_not_answer_is_named_before_anything_runs(tmp_path):
    pytest.importorskip("mlflow", reason="needs MLflow: python -m pip install mlflow-skinny")
    command = [
        "reports",
        "--notebook",
        "01",
        "--out",
        str(tmp_path / "out"),
        "--mlflow",
        "http://127.0.0.1:9",
    ]
    refused = CliRunner().invoke(main, command)
    assert refused.exit_code == 1
    assert refused.output.startswith("Error: --mlflow http://127.0.0.1:9: ")
    assert len(refused.output.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_without_mlflow_the_remedy_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ReportError, match=r"not installed; `python -m pip install mlflow-skinny` brings it"):
        ledger.mlflow_logger("http://127.0.0.1:9", tmp_path)
