"""What a run leaves as it was: the same report, figures of recordings that are not here, a report made from them."""

from __future__ import annotations

import base64
import io

import nbformat
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from ser_lib.errors import ReportError
from ser_lib.runs import execution, index, ledger, parameters, report

ROW = {name: {} for name in ledger.KEY} | {"notebook": "n", "code": "old"}
PAGE = """<section aria-label="This run" class="facts"><dl>{when}</dl></section>
<p>{source}1440 clips.</p> <div class="html" tabindex="0"><table id="T_{chance}"><td>{cell}</td></table></div>
<figure><button type="button"><img alt="Figure one: A" src="data:image/webp;base64,{picture}"></button></figure>
<figure><button type="button"><img alt="Figure" src="data:image/webp;base64,{unsaved}"></button></figure>"""
SHOWN = {
    "when": "noon",
    "source": "Audio: ",
    "chance": "0a1b2",
    "cell": "1.0",
    "picture": "AA",
    "unsaved": "BB",
}


def picture(path, colour="red", quality=90):
    Image.new("RGB", (60, 40), colour).save(path, "webp", lossless=True, quality=quality)


def left(folder, value=0.5, colour="red", p=0.333, quality=90, **shown):
    """What a run leaves in its folder."""
    ledger.write_metrics(
        folder,
        ledger.read_metrics(folder)["run"],
        [{"metric": "uar", "value": value, "low": None, "seeds": [0]}],
    )
    picture(folder / "one.webp", colour, quality)
    pd.DataFrame({"clip_id": ["a"], "p_sad": [p]}).to_parquet(folder / "predictions.parquet")
    (folder / "index.html").write_text(PAGE.format(**SHOWN | shown), encoding="utf-8")


def run(out, row=ROW, **content):
    running = ledger.start("03_a", row, out)
    left(running, **content)
    return report.settle(running, 2.0)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ledger.CONFIRMED}


NEW = ROW | {"code": "new"}


def test_a_run_that_finds_the_same_leaves_the_report_and_counts_as_done(tmp_path):
    assert run(tmp_path) == (tmp_path / "03_a", "")
    before = files(tmp_path / "03_a")
    again = {
        "value": 0.5 + 1e-12,
        "quality": 0,
        "when": "night",
        "source": "The shipped table, x.parquet: ",
        "chance": "fffff",
        "picture": "CC",
    }
    assert ledger.changed_columns("03_a", NEW, tmp_path) == ["code"]
    assert run(tmp_path, NEW, **again) == (tmp_path / "03_a", "; the same results as before")
    assert files(tmp_path / "03_a") == before
    assert not (tmp_path / "03_a.running").exists()
    assert (
        ledger.changed_columns("03_a", NEW, tmp_path) == ledger.changed_columns("03_a", ROW, tmp_path) == []
    )
    assert ledger.changed_columns("03_a", ROW | {"code": "newer"}, tmp_path) == ["code"]


@pytest.mark.parametrize(
    "other",
    [
        {"value": 0.5 + 1e-6},
        {"colour": "blue"},
        {"p": 0.334},
        {"cell": "1.1"},
        {"unsaved": "CC"},
        {"source": "1 of "},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_run_that_finds_anything_else_replaces_the_report(tmp_path, other):
    run(tmp_path)
    assert run(tmp_path, NEW, **other) == (tmp_path / "03_a", "")
    assert ledger.read_metrics(tmp_path / "03_a")["run"]["code"] == "new"
    assert ledger.changed_columns("03_a", ROW, tmp_path) == ["code"]


def test_other_parameters_or_files_are_not_the_same(tmp_path):
    run(tmp_path)
    assert run(tmp_path, NEW | {"parameters": {"seeds": "1"}})[1] == ""
    running = ledger.start("03_a", ROW | {"parameters": {"seeds": "1"}}, tmp_path)
    left(running)
    picture(running / "two.webp")
    assert report.settle(running, 2.0)[1] == ""
    (tmp_path / "03_a" / ledger.FILE).write_text("{", encoding="utf-8")
    assert run(tmp_path)[1] == ""


def test_what_was_confirmed_of_another_report_does_not_count(tmp_path):
    run(tmp_path)
    run(tmp_path, NEW)
    ledger.update_row(tmp_path / "03_a", clips=9)  # as a `git pull` does
    assert ledger.changed_columns("03_a", NEW, tmp_path) == ["code"]


def test_a_table_that_git_does_not_carry_is_added(tmp_path):
    run(tmp_path)
    running = ledger.start("03_a", NEW, tmp_path)
    left(running)
    (running / "features.parquet").write_text("table", encoding="utf-8")
    assert report.settle(running, 2.0)[1] == "; the same results as before"
    assert (tmp_path / "03_a" / "features.parquet").read_text(encoding="utf-8") == "table"


# --- without recordings ----------------------------------------------------------------------------


def test_recordings_that_are_not_here_are_no_change(tmp_path):
    run(tmp_path, ROW | {"recordings": {"corpus": "x", "other": "y"}})
    assert ledger.changed_columns("03_a", ROW, tmp_path) == []
    assert ledger.changed_columns("03_a", ROW | {"recordings": {"corpus": "x"}}, tmp_path) == []
    assert ledger.changed_columns("03_a", ROW | {"recordings": {"corpus": "z"}}, tmp_path) == ["recordings"]
    done = ledger.done_row("03_a", tmp_path)
    assert ledger.missing_recordings(done, ROW | {"recordings": {"corpus": "z"}}) == ["other"]
    assert ledger.done_row("03_b", tmp_path) is None
    run(tmp_path, value=0.6)
    assert ledger.changed_columns("03_a", ROW | {"recordings": {"corpus": "x"}}, tmp_path) == ["recordings"]


def test_a_report_made_from_recordings_is_not_replaced_by_less(tmp_path, monkeypatch):
    lines, row = [], ROW | {"recordings": {"other": "y"}}
    ledger.finish(ledger.start("05_leakage_audit", row, tmp_path), "done")
    monkeypatch.setattr(ledger, "new_row", lambda notebook, *_: NEW | {"notebook": notebook})
    monkeypatch.setattr(execution, "_execute_in_process", lambda *_: 1)
    audit = execution.Run("05_leakage_audit", "05_leakage_audit")
    assert execution.execute(audit, tmp_path, say=lines.append) == tmp_path / "05_leakage_audit"
    assert lines == [
        "05_leakage_audit: kept, since its recordings are not here (--force runs it without them)"
    ]
    for start in (
        lambda: execution.execute(audit, tmp_path, force=True),
        lambda: execution.execute(execution.Run("05_leakage_audit", "03_mlp_vs_boosting"), tmp_path),
    ):
        with pytest.raises(ReportError, match="its process ended with 1"):
            start()


@pytest.fixture
def record(tmp_path, monkeypatch):
    """Gives the record of a run of 01."""
    monkeypatch.delenv("SER_RAVDESS_DIR", raising=False)

    def begin(**changed):
        given = parameters.defaults("01_eda") | changed
        running = ledger.start("01_eda", ROW | {"notebook": "01_eda", "parameters": given}, tmp_path)
        monkeypatch.setenv(ledger.FOLDER_VARIABLE, str(running))
        return report.Report("01_eda", given)

    return begin


def drawn(shade):
    figure = Figure()
    figure.add_subplot().plot([0, shade])
    return figure


def test_figures_of_recordings_that_are_not_here_are_kept(record, tmp_path):
    table, first = pd.DataFrame({"clip_id": ["a"]}), record()
    assert first.keep("mel").data.startswith(
        '<p class="kept"><strong>Left out: mel.</strong> Run <code>make data'
    )
    first.figure(drawn(1), "mel")
    first.save(table)
    report.settle(first.folder, 2.0)
    content = (tmp_path / "01_eda" / "mel.webp").read_bytes()
    second = record()
    shown = second.keep("mel", "chroma").data
    assert "Made from recordings in an earlier run: mel. Left out: chroma." in shown
    assert 'alt="Figure mel: from an earlier run"' in shown
    second.figure(drawn(2), "counts")
    second.save(table)
    place, note = report.settle(second.folder, 2.0)
    assert note == "; made from recordings in an earlier run: mel"
    assert ledger.read_metrics(place)["run"]["from_an_earlier_run"] == "mel"
    assert (place / "mel.webp").read_bytes() == content
    index.write_index(tmp_path)
    assert "![mel](01_eda/mel.webp)" in (tmp_path / "README.md").read_text(encoding="utf-8")
    other = record(emotions="four")
    assert "Left out: mel." in other.keep("mel").data
    assert not (other.folder / "mel.webp").exists()


def test_the_page_tells_what_is_kept_and_else_is_the_same(record, tmp_path):
    def page(made, *cells):
        cells = [nbformat.v4.new_markdown_cell("# One?"), *cells]
        nbformat.write(nbformat.v4.new_notebook(cells=cells), made.folder / "notebook.ipynb")
        report.write_page(made.folder / "notebook.ipynb", "01_eda")
        (made.folder / "notebook.ipynb").unlink()
        return report.settle(made.folder, 2.0)[0] / "index.html"

    def cell(source, *data):
        outputs = [nbformat.v4.new_output("display_data", data=one) for one in data]
        return nbformat.v4.new_code_cell(source, outputs=outputs)

    first = record()
    first.figure(drawn(1), "mel")
    first.save(pd.DataFrame({"clip_id": ["a"]}))
    png = io.BytesIO()
    drawn(1).savefig(png)
    shown = {"image/png": base64.b64encode(png.getvalue()).decode()}
    old = page(first, cell("else_kept()"), cell('report.figure(figure, "mel")', shown)).read_text(
        encoding="utf-8"
    )
    second = record()
    kept = second.keep("mel").data
    second.save(pd.DataFrame({"clip_id": ["a"]}))
    made = second.folder / "index.html"
    place = page(second, cell("else_kept()", {"text/html": kept}), cell('report.figure(figure, "mel")'))
    assert place.read_text(encoding="utf-8") == old  # it was the same
    assert not made.exists()
    third = record()
    third.save(pd.DataFrame({"clip_id": ["a", "b"]}))
    third.add(1.0, metric="clips")
    kept = third.keep("mel").data
    third.save(pd.DataFrame({"clip_id": ["a"]}))
    text = page(third, cell("else_kept()", {"text/html": kept})).read_text(encoding="utf-8")
    assert "Made from recordings in an earlier run: mel." in text
    assert "<dt>from an earlier run</dt><dd>mel</dd>" in text
    assert text.count('alt="Figure mel: from an earlier run"') == 1
