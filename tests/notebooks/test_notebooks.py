"""Every notebook runs through papermill on a tiny corpus, and is committed without outputs."""

from __future__ import annotations

import ast
import builtins
import json
import os
import subprocess
import sys

import pandas as pd
import pytest

from ser_lib import ROOT
from ser_lib.corpora import EIGHT
from ser_lib.corpora.ravdess import check_ravdess_grid
from ser_lib.errors import ReportError
from ser_lib.evaluation import metrics
from ser_lib.runs import execution
from ser_lib.runs.ledger import REPORTS
from ser_lib.runs.parameters import NOTEBOOKS, defaults
from ser_lib.serving import bundle

SMALL = {"models": "mlp,xgboost", "seeds": "0"}


@pytest.fixture(scope="module")
def out(tiny_corpus, tmp_path_factory):
    """Reports of all notebooks on the tiny corpus."""
    folder = tmp_path_factory.mktemp("reports")
    runs = [
        execution.Run("03_eight", "03_mlp_vs_boosting", SMALL),
        execution.Run("01_eda", "01_eda"),
        execution.Run("02_features", "02_features", {"feature_set": "compact"}),
        execution.Run("05_leakage_audit", "05_leakage_audit", {"seeds": "0", "model": "logistic"}),
        execution.Run("08_what_helps", "08_what_helps", {"model": "logistic", "others": "wccn", "inner": 2}),
    ]
    after_03 = [
        execution.Run("04_choose_and_export", "04_choose_and_export", {"candidates": "majority,wccn"}),
        execution.Run("06_stress_and_transfer", "06_stress_and_transfer", {"models": "logistic"}),
    ]
    before = os.environ.get("SER_RAVDESS_DIR")
    os.environ["SER_RAVDESS_DIR"] = str(tiny_corpus)
    try:
        for some in (runs, after_03):
            execution.execute_all(some, folder, jobs=-1, say=lambda text: None)
    finally:
        os.environ.pop("SER_RAVDESS_DIR")
        if before is not None:
            os.environ["SER_RAVDESS_DIR"] = before
    return folder


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_is_stripped_and_asks_predicts_answers(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert all(len("".join(cell["source"]).splitlines()) <= 16 for cell in code)
    first = "".join(cells[0]["source"])
    assert first.startswith(f"# {path.stem[:2]} · ")
    assert "?" in first.splitlines()[0]
    assert any("".join(cell["source"]).startswith("## Answer") for cell in cells)
    described = [line for line in "".join(_tagged(cells)["source"]).splitlines() if "=" in line]
    assert all("  # " in line for line in described)  # papermill's help shows these comments


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_cells_need_what_came_before_them_only(path):
    """The order of execution is that of reading, also in what runs on request alone."""
    known = set(dir(builtins))
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] != "code":
            continue
        nodes = list(ast.walk(ast.parse("".join(cell["source"]))))
        names = [node for node in nodes if isinstance(node, ast.Name)]
        given = {node.id for node in names if isinstance(node.ctx, ast.Store)}
        given |= {node.arg for node in nodes if isinstance(node, ast.arg)}
        given |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
        given |= {
            (alias.asname or alias.name).partition(".")[0]
            for node in nodes
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        needed = {node.id for node in names if isinstance(node.ctx, ast.Load)}
        assert not needed - given - known, f"cell {number}"
        known |= given


def _tagged(cells):
    return next(cell for cell in cells if "parameters" in cell["metadata"].get("tags", ()))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("run", "figures"),
    [
        ("01_eda", {"counts", "durations", "level_and_pitch", "waveforms", "mel", "chroma"}),
        ("02_features", {"variance_shares", "distributions", "correlation", "projection"}),
        ("03_eight", {"scores", "speaker_gaps", "confusion", "learning_curve", "importance"}),
        ("04_choose_and_export", {"reliability", "risk_coverage", "by_group", "listeners"}),
        ("05_leakage_audit", {"ladder"}),
        ("06_stress_and_transfer", {"stress"}),
        ("08_what_helps", {"gains"}),
    ],
)
def test_a_run_leaves_a_page_figures_and_metrics(out, run, figures):
    page = (out / run / "index.html").read_text(encoding="utf-8")
    assert "<script src=" not in page  # the page loads nothing from elsewhere
    assert sys.prefix not in page  # nor does it show a warning with a path of this machine
    assert {path.stem for path in (out / run).glob("*.webp")} == figures
    kept = json.loads((out / run / "metrics.json").read_text(encoding="utf-8"))
    assert set(kept["run"]["parameters"]) == set(defaults(kept["run"]["notebook"]))
    assert kept["run"]["status"] == "done"
    assert kept["run"]["peak_memory_mb"] > 50
    assert kept["run"]["seconds"] > 0
    assert kept["results"]
    assert not (out / run / "notebook.ipynb").exists()


@pytest.mark.slow
def test_predictions_and_metrics_tell_the_same(out):
    from sklearn.metrics import recall_score

    predictions = pd.read_parquet(out / "03_eight" / "predictions.parquet")
    results = pd.DataFrame(
        json.loads((out / "03_eight" / "metrics.json").read_text(encoding="utf-8"))["results"]
    )
    for (protocol, model), part in predictions.groupby(["protocol", "model"]):
        uar = results[results["metric"] == "uar"]
        row = uar[(uar["protocol"] == protocol) & (uar["model"] == model)].iloc[0]
        expected = recall_score(part["emotion"], part["predicted"], labels=EIGHT, average="macro")
        assert row["value"] == pytest.approx(expected)
        assert row["low"] <= row["value"] <= row["high"]
    assert set(predictions["protocol"]) == {"actors5", "random"}
    assert set(predictions["model"]) == {"mlp", "xgboost"}


@pytest.mark.slow
def test_the_exported_model_is_the_best_inside_the_folds_and_serves(out, tiny_corpus):
    chosen = bundle.load(out / "04_choose_and_export" / "ser.json")
    assert chosen.metadata["estimator"] == "wccn"
    assert chosen.metadata["chosen"]["inner_uar"]["majority"] == pytest.approx(1 / len(EIGHT))
    assert chosen.metadata["chosen"]["folds"] == 1
    predictions = pd.read_parquet(out / "04_choose_and_export" / "predictions.parquet")
    headline = metrics.score(predictions, EIGHT)  # trained with copies, so not the score in 03
    assert list(chosen.metadata["headline"].values())[:3] == pytest.approx(headline)
    answer = chosen.predict(next(tiny_corpus.rglob("*.wav")))
    assert answer["emotion"] in EIGHT
    assert set(answer["intensity"]) == {"normal", "strong"}
    card = (out / "04_choose_and_export" / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"{100 * headline[0]:.1f} %" in card
    assert "normal or strong" in card


@pytest.mark.slow
def test_the_index_shows_table_and_figures(out):
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "| eight | mlp |" in text
    assert "random split" in text
    for path in out.glob("*/*.webp"):
        assert f"]({path.parent.name}/{path.name})" in text
        assert f'src="{path.parent.name}/{path.name}"' in (out / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_what_is_odd_is_reported(out):
    """The tiny corpus is no full grid, and 01 says so."""
    page = (out / "01_eda" / "index.html").read_text(encoding="utf-8")
    missing, _ = check_ravdess_grid(pd.DataFrame({"clip_id": []}))
    assert len(missing) == 1440
    assert "missing from the grid" in page


@pytest.mark.slow
def test_a_failing_notebook_keeps_its_copy_and_the_last_good_report(out, tmp_path, tiny_corpus, monkeypatch):
    monkeypatch.setenv("SER_RAVDESS_DIR", str(tiny_corpus))
    good = tmp_path / "01_eda"
    good.mkdir()
    (good / "metrics.json").write_text("{}", encoding="utf-8")
    with pytest.raises(
        ReportError,
        match=r"run 01_eda of 01_eda: cell \d+: ReportError: 01_eda: emotions='happy,bored': 'bored'",
    ):
        execution.execute(execution.Run("01_eda", "01_eda", {"emotions": "happy,bored"}), tmp_path)
    copy = json.loads((tmp_path / "01_eda.failed" / "notebook.ipynb").read_text(encoding="utf-8"))
    assert any(
        output["output_type"] == "error" for cell in copy["cells"] for output in cell.get("outputs", ())
    )
    assert (good / "metrics.json").read_text(encoding="utf-8") == "{}"


def _papermill(arguments, cwd, environment):
    command = [sys.executable, "-m", "papermill", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, encoding="utf-8"
    )


@pytest.mark.parametrize("folder", ["", "notebooks"])
def test_plain_papermill_works_from_the_root_and_from_the_notebooks(folder, tiny_corpus, tmp_path):
    notebook = NOTEBOOKS.relative_to(ROOT) / "01_eda.ipynb" if not folder else "01_eda.ipynb"
    environment = {"SER_RAVDESS_DIR": str(tiny_corpus), "SER_REPORT_DIR": str(tmp_path / "run")}
    done = _papermill(
        [str(notebook), str(tmp_path / "o.ipynb"), "-p", "emotions", "four"], ROOT / folder, environment
    )
    assert done.returncode == 0, done.stderr
    kept = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert kept["run"]["parameters"]["emotions"] == "four"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "emotion",
            "four",
            "01_eda has no parameter emotion; it has corpus='', emotions='eight', speaker=''",
        ),
        (
            "emotions",
            "hapy,sad",
            "01_eda: emotions='hapy,sad': 'hapy' is not valid; give four | eight | EMOTION",
        ),
    ],
)
def test_plain_papermill_refuses_an_unknown_name_or_value(name, value, message, tiny_corpus, tmp_path):
    environment = {"SER_RAVDESS_DIR": str(tiny_corpus), "SER_REPORT_DIR": str(tmp_path / "run")}
    arguments = ["notebooks/01_eda.ipynb", str(tmp_path / "o.ipynb"), "-p", name, value]
    done = _papermill(arguments, ROOT, environment)
    assert done.returncode != 0
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_by_hand_does_not_touch_the_committed_reports(monkeypatch):
    from ser_lib.runs.report import Report

    monkeypatch.delenv("SER_REPORT_DIR", raising=False)
    record = Report("01_eda", {"In": [], "corpus": "", "emotions": "eight", "speaker": ""})
    assert record.folder == REPORTS / "interactive" / "01_eda"
    assert record.model_path.parent != ROOT / "models"
