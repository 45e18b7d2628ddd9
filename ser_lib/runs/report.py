"""A notebook's report: the record that the notebook fills, its page, and whether two reports are the same.

`python -m ser_lib reports` names the folder of each run. A notebook run by hand writes to
`reports/interactive/<notebook>`, so that it never changes the committed reports.
"""

from __future__ import annotations

import base64
import io
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ser_lib import ROOT, provenance, replacing, writable, write_file
from ser_lib.corpora import EIGHT, FOUR
from ser_lib.evaluation import metrics
from ser_lib.runs import ledger, parameters
from ser_lib.runs.ledger import REPORTS

# --- the record -----------------------------------------------------------------------------------


class Report:
    """The record of one run of a notebook.

    Parameters
    ----------
    notebook : str
        File name without ending.
    namespace : dict
        The notebook's `globals()`, which have the parameters' values.

    Raises
    ------
    SerError
        As `parameters.check_values`.
    """

    def __init__(self, notebook: str, namespace: dict[str, Any]):
        for source in namespace.get("In", ()):
            if source.startswith("# Parameters\n"):  # the cell that papermill adds
                parameters.check_names(notebook, list(parameters.literals(source)))
        self.notebook = notebook
        self.parameters = {name: namespace[name] for name in parameters.defaults(notebook)}
        folder = os.environ.get(ledger.FOLDER_VARIABLE)
        self.folder = Path(folder) if folder else writable(REPORTS / "interactive") / notebook
        parameters.check_values(notebook, self.parameters, ledger.done_names(self.folder.parent))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.results: list[dict[str, Any]] = []
        self.kept: list[str] = []  # figures of an earlier run

    @property
    def model_path(self) -> Path:
        """Where a chosen model goes: `models/` from the standard run, else the folder of this report."""
        standard = self.folder.with_suffix("") == REPORTS / self.notebook
        return (ROOT / "models" if standard else self.folder) / "ser.json"

    def figure(self, drawn: Figure | Axes, name: str) -> None:
        """Save a figure as `<name>.webp`; the notebook shows it as well."""
        png = io.BytesIO()
        (drawn if isinstance(drawn, Figure) else drawn.figure).savefig(png)  # type: ignore[union-attr]  # no report has subfigures
        write_file(self.folder / f"{name}.webp", webp(png.getvalue()))

    def add(self, value: float, low: float | None = None, high: float | None = None, **about: Any) -> None:
        """Add one row to the results; fractions from 0 to 1."""
        self.results.append(about | {"value": value, "low": low, "high": high})

    def add_scores(self, predictions: pd.DataFrame, emotions: Sequence[str], **about: Any) -> pd.DataFrame:
        """Add every metric of each model and protocol in a predictions table, and return the added rows."""
        start = len(self.results)
        for (protocol, model), part in predictions.groupby(["protocol", "model"], sort=False):
            seeds = sorted(int(seed) for seed in part["seed"].unique())
            for metric in metrics.METRICS:
                value, low, high = metrics.score(part, emotions, metric)
                self.add(
                    value, low, high, emotions=emotions_name(emotions), protocol=protocol, model=model,
                    seeds=seeds, metric=metric, **about,
                )  # fmt: skip
        return pd.DataFrame(self.results[start:])

    def keep(self, *figures: str) -> HTML:
        """Copy figures that need missing recordings from the last report with the same parameters, and show them."""
        before = self.folder.with_suffix("")
        try:
            same_parameters = ledger.read_metrics(before)["run"]["parameters"] == self.parameters
        except (OSError, ValueError, KeyError):  # no earlier report
            same_parameters = False
        kept = [name for name in figures if same_parameters and (before / f"{name}.webp").is_file()]
        self.kept += kept
        parts = []
        for name in kept:
            content = (before / f"{name}.webp").read_bytes()
            write_file(self.folder / f"{name}.webp", content)
            source = f"data:image/webp;base64,{base64.b64encode(content).decode()}"
            alt = f"Figure {name.replace('_', ' ')}: from an earlier run"
            parts.append(f'<figure><button type="button"><img src="{source}" alt="{alt}"></button></figure>')
        notes = [f"Made from recordings in an earlier run: {', '.join(kept)}."] if kept else []
        left_out = [name for name in figures if name not in kept]
        notes += [f"Left out: {', '.join(left_out)}."] if left_out else []
        more = "Run <code>make data</code>, then this notebook again."
        return HTML(f'<p class="kept"><strong>{" ".join(notes)}</strong> {more}</p>{"".join(parts)}')

    def save(self, table: pd.DataFrame, predictions: pd.DataFrame | None = None) -> None:
        """Write metrics.json and, if given, predictions.parquet with probabilities to three decimals."""
        row = ledger.running_row(self.folder)
        row = row or ledger.new_row(self.notebook, self.parameters, self.folder.parent)
        row |= {"data_hash": provenance.data_hash(table), "clips": len(table)}
        if self.kept:
            row["from_an_earlier_run"] = ", ".join(self.kept)
        ledger.write_metrics(self.folder, row, self.results)
        if predictions is not None:
            with replacing(self.folder / "predictions.parquet") as new:
                predictions.round(3).to_parquet(new, compression="zstd", index=False)


def webp(png: bytes) -> bytes:
    """Convert a picture to WebP with at most 256 colours, which is a third of the bytes."""
    small = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        few = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).convert("RGB")
        few.save(small, "webp", lossless=True, quality=90)  # 100 takes fifty times as long for 2.5 %
    return small.getvalue()


def emotions_name(emotions: Sequence[str]) -> str:
    """Return `four`, `eight` or the comma-separated list."""
    return {FOUR: "four", EIGHT: "eight"}.get(tuple(emotions), ",".join(emotions))


# --- its page -------------------------------------------------------------------------------------


def write_page(executed: Path, title: str) -> None:
    """Write an executed notebook as `index.html` beside it, one file that loads no other."""
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(executed, as_version=4)
    _use_saved_figures(notebook.cells, executed.parent)
    row = ledger.running_row(executed.parent) or {}
    run = {name: value for name, value in row.items() if name not in ("status", "process") and value != {}}
    templates = str(Path(__file__).with_name("templates"))
    exporter = HTMLExporter(template_name="report", extra_template_basedirs=[templates])
    exporter.register_filter("sections", _sections)
    html, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title}, "run": run})
    write_file(executed.parent / "index.html", html)


def _use_saved_figures(cells: Sequence[Any], folder: Path) -> None:
    """Replace each PNG in the notebook by the saved WebP, with the figure's name and section as text."""
    section = ""
    for cell in cells:
        if cell.cell_type == "markdown":
            section = [section, *re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)][-1]
            continue
        name = re.search(r"report\.figure\(\w+, \"(\w+)\"\)", cell.source)
        if name:
            cell.metadata.alt = f"Figure {name[1].replace('_', ' ')}: {section}"
        drawn = [output.data for output in cell.outputs if "image/png" in output.get("data", ())]
        saved = folder / f"{name[1]}.webp" if name else None
        for data in drawn:
            if saved and saved.is_file() and len(drawn) == 1:
                picture = saved.read_bytes()
            else:
                picture = webp(base64.b64decode(data["image/png"]))
            data["image/png"] = base64.b64encode(picture).decode()


def _sections(html: str) -> list[dict[str, Any]]:
    """Return level, id and text of the headings in nbconvert's HTML."""
    headings = re.findall(r'<h([1-6]) id="([^"]*)">(.*?)<a class="anchor-link"', html)
    return [{"level": int(level), "id": anchor, "text": text} for level, anchor, text in headings]


# --- whether two reports are the same -------------------------------------------------------------

TOLERANCE = 1e-9  # another CPU differs by more, and then the report has changed
NOT_COMPARED = {ledger.FILE, ledger.CONFIRMED, "features.parquet"}

# Parts of a page that may differ: when it was made and from which recordings, random ids, and the figures,
# which are compared as files.
VARYING = (
    r'<section [^>]*class="facts".*?</section>',
    r'<figure><button [^>]*><img [^>]*alt="Figure [^>]*></button></figure>',
    r'<div [^>]*class="html"[^>]*>\s*<p class="kept">.*?</p>\s*</div>',
    r"(?<=T_)[0-9a-f]{5,}",
    r"\b(Audio|The shipped table, [\w.]+): ",
    r"\s+",
)


def settle(running: Path, seconds: float) -> tuple[Path, str]:
    """Move a finished run to its place, unless a report with the same results is there; return the place and a note."""
    row = ledger.read_metrics(running)["run"]
    kept = row.get("from_an_earlier_run")
    note = f"; made from recordings in an earlier run: {kept}" if kept else ""
    if same_report(running, running.with_suffix("")):
        return ledger.confirm(running), f"{note}; the same results as before"
    return ledger.finish(running, "done", seconds=seconds), note


def same_report(new: Path, old: Path) -> bool:
    """Whether two folders have the same results, files and page."""
    try:
        names, others = ({path.name for path in folder.iterdir()} - NOT_COMPARED for folder in (new, old))
        return (
            names == others
            and _same_results(ledger.read_metrics(new), ledger.read_metrics(old))
            and all(_same_file(new / name, old / name) for name in names)
        )
    except (OSError, ValueError, KeyError):  # the old one is damaged or missing
        return False


def _same_results(new: dict[str, Any], old: dict[str, Any]) -> bool:
    """Whether the notebook, its parameters and the results are the same."""
    if any(new["run"][name] != old["run"].get(name) for name in ("notebook", "parameters")):
        return False
    if len(new["results"]) != len(old["results"]):
        return False
    return all(
        row.keys() == other.keys() and all(_close(row[name], other[name]) for name in row)
        for row, other in zip(new["results"], old["results"], strict=True)
    )


def _close(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=0, abs_tol=TOLERANCE) or (math.isnan(a) and math.isnan(b))
    return bool(a == b)


def _same_file(new: Path, old: Path) -> bool:
    if new.suffix == ".html":
        return _fixed_text(new) == _fixed_text(old)
    if new.suffix == ".parquet":
        return pd.read_parquet(new).equals(pd.read_parquet(old))
    if new.suffix == ".webp":
        with Image.open(new) as picture, Image.open(old) as other:
            return np.array_equal(np.asarray(picture), np.asarray(other))
    return new.read_bytes() == old.read_bytes()


def _fixed_text(page: Path) -> str:
    """Return a page without the `VARYING` parts."""
    text = page.read_text(encoding="utf-8")
    for pattern in VARYING:
        text = re.sub(pattern, " ", text, flags=re.DOTALL)
    return text
