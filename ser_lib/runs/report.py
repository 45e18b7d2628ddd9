"""One run of a notebook: its record, its execution, and the folder that it leaves.

Runs started by `python -m ser_lib reports` are told their folder; a notebook run by hand writes to
`reports/interactive/<notebook>`, so that exploring never changes the committed reports.
"""

from __future__ import annotations

import base64
import io
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ser_lib import ROOT, provenance, writable
from ser_lib.corpora import EIGHT, FOUR
from ser_lib.evaluation import metrics
from ser_lib.runs import ledger, parameters
from ser_lib.runs.ledger import REPORTS, about

LOOK_S = 0.5  # seconds between looks at the memory


class Report:
    """The record of one run of a notebook.

    Parameters
    ----------
    notebook : str
        Its file name without ending.
    namespace : dict
        The notebook's `globals()`, from which the parameters' values are read.

    Raises
    ------
    SerError
        As `parameters.check`, of what papermill passed or what was changed by hand.
    """

    def __init__(self, notebook: str, namespace: dict[str, Any]):
        for source in namespace.get("In", ()):
            if source.startswith("# Parameters\n"):  # the cell that papermill injects
                parameters.check_names(notebook, list(parameters.assigned(source)))
        self.notebook = notebook
        self.parameters = {name: namespace[name] for name in parameters.defaults(notebook)}
        self.folder = Path(
            os.environ.get(ledger.FOLDER_VARIABLE) or writable(REPORTS / "interactive") / notebook
        )
        parameters.check(notebook, self.parameters, ledger.done(self.folder.parent))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.results: list[dict[str, Any]] = []
        self.kept: list[str] = []  # figures of an earlier run

    @property
    def model_path(self) -> Path:
        """Where a chosen model goes: `models/` from the standard run, else beside this report."""
        standard = self.folder.with_suffix("") == REPORTS / self.notebook
        return (ROOT / "models" if standard else self.folder) / "ser.json"

    def figure(self, drawn: Figure | Axes, name: str) -> None:
        """Save a figure as `<name>.webp`; the notebook shows it as well."""
        png = io.BytesIO()
        (drawn if isinstance(drawn, Figure) else drawn.figure).savefig(png)  # type: ignore[union-attr]  # no report has subfigures
        (self.folder / f"{name}.webp").write_bytes(webp(png.getvalue()))

    def add(self, value: float, low: float | None = None, high: float | None = None, **about: Any) -> None:
        """Add one row to the results; fractions from 0 to 1."""
        self.results.append(about | {"value": value, "low": low, "high": high})

    def add_scores(self, predictions: pd.DataFrame, emotions: Sequence[str], **about: Any) -> pd.DataFrame:
        """Add every metric of every model and protocol in a predictions table.

        Returns
        -------
        DataFrame
            The rows that were added.
        """
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
        """Take over figures of recordings that are not here from the last report of the same parameters, to be shown."""
        before = self.folder.with_suffix("")
        try:
            fits = ledger.read(before)["run"]["parameters"] == self.parameters
        except (OSError, ValueError, KeyError):  # there is none
            fits = False
        kept = [name for name in figures if fits and (before / f"{name}.webp").is_file()]
        parts = []
        for name in kept:
            content = (before / f"{name}.webp").read_bytes()
            (self.folder / f"{name}.webp").write_bytes(content)
            source = f"data:image/webp;base64,{base64.b64encode(content).decode()}"
            alt = f"Figure {name.replace('_', ' ')}: from an earlier run"
            parts.append(f'<figure><button type="button"><img src="{source}" alt="{alt}"></button></figure>')
        self.kept += kept
        told = f"Made from recordings in an earlier run: {', '.join(kept)}." if kept else ""
        if left := [name for name in figures if name not in kept]:
            told += f" Left out: {', '.join(left)}."
        more = "Run <code>make data</code>, then this notebook again."
        return HTML(f'<p class="kept"><strong>{told.strip()}</strong> {more}</p>{"".join(parts)}')

    def save(self, table: pd.DataFrame, predictions: pd.DataFrame | None = None) -> None:
        """Write metrics.json and, if given, predictions.parquet, its probabilities to three decimals."""
        row = ledger.begun(self.folder) or about(self.notebook, self.parameters, self.folder.parent)
        row |= {"data_hash": provenance.data_hash(table), "clips": len(table)}
        row |= {"from_an_earlier_run": ", ".join(self.kept)} if self.kept else {}
        ledger.write(self.folder, row, self.results)
        if predictions is not None:
            predictions.round(3).to_parquet(
                self.folder / "predictions.parquet", compression="zstd", index=False
            )


def webp(png: bytes) -> bytes:
    """The picture in 256 colours at most, which a figure hardly needs, and as WebP: a third of the bytes."""
    small = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        few = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).convert("RGB")
        few.save(small, "webp", lossless=True, quality=90)  # 100 takes fifty times as long for 2.5 %
    return small.getvalue()


def emotions_name(emotions: Sequence[str]) -> str:
    """`four`, `eight` or the comma-separated list."""
    return {FOUR: "four", EIGHT: "eight"}.get(tuple(emotions), ",".join(emotions))


# --- its page --------------------------------------------------------------------------------------


def page(executed: Path, title: str) -> None:
    """Write an executed notebook as `index.html` beside it, which loads nothing; the template is in web/report."""
    import nbformat
    from nbconvert import HTMLExporter

    notebook = nbformat.read(executed, as_version=4)
    _take_figures(notebook.cells, executed.parent)
    row = ledger.begun(executed.parent) or {}
    left = ("status", "process")
    run = {name: value for name, value in row.items() if name not in left and value != {}}
    exporter = HTMLExporter(
        template_name="report", extra_template_basedirs=[str(Path(__file__).with_name("templates"))]
    )
    exporter.register_filter("sections", _sections)
    html, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title}, "run": run})
    (executed.parent / "index.html").write_text(html, encoding="utf-8")


def _take_figures(cells: Sequence[Any], folder: Path) -> None:
    """Put WebP for the figures in a notebook, as it lies in the folder, with the name and the section for a text."""
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
    """Level, id and text of the headings that nbconvert made of Markdown."""
    found = re.findall(r'<h([1-6]) id="([^"]*)">(.*?)<a class="anchor-link"', html)
    return [{"level": int(level), "id": anchor, "text": text} for level, anchor, text in found]


# --- whether two reports are the same -------------------------------------------------------------

LESS_WITHOUT = ("05_leakage_audit", "06_stress_and_transfer")  # notebooks with results that need recordings
TOLERANCE = 1e-9  # another CPU moves more than that, and then the report has changed
APART = {ledger.FILE, ledger.CONFIRMED, "features.parquet"}  # not compared as the other files are

# What may differ in a page: when it was made, of which recordings or of the table made from them, ids by chance, and the
# figures, which are compared as files.
VARYING = (
    r'<section [^>]*class="facts".*?</section>',
    r'<figure><button [^>]*><img [^>]*alt="Figure [^>]*></button></figure>',
    r'<div [^>]*class="html"[^>]*>\s*<p class="kept">.*?</p>\s*</div>',
    r"(?<=T_)[0-9a-f]{5,}",
    r"\b(Audio|The shipped table, [\w.]+): ",
    r"\s+",
)


def fuller(name: str, row: Mapping[str, Any], out: Path) -> bool:
    """Whether the report of this name was made from recordings that are not here, and a run would find less without."""
    return row["notebook"] in LESS_WITHOUT and bool(ledger.lacking(name, row, out))


def settle(running: Path, seconds: float) -> tuple[Path, str]:
    """Put a run that is done in its place, unless the same is there; the place, and what is to be said of it."""
    place, row = running.with_suffix(""), ledger.read(running)["run"]
    kept = row.get("from_an_earlier_run")
    told = f"; made from recordings in an earlier run: {kept}" if kept else ""
    if same(running, place):
        return ledger.confirm(running), f"{told}; the same results as before"
    return ledger.finish(running, "done", seconds=seconds), told


def same(new: Path, old: Path) -> bool:
    """Whether two folders of runs hold the same."""
    try:
        names, others = ({path.name for path in folder.iterdir()} - APART for folder in (new, old))
        return (
            names == others
            and _same_rows(ledger.read(new), ledger.read(old))
            and all(_same_file(new / name, old / name) for name in names)
        )
    except (OSError, ValueError, KeyError):  # the old one is damaged or not there
        return False


def _same_rows(new: dict[str, Any], old: dict[str, Any]) -> bool:
    """Whether the notebook, its parameters and the results are the same."""
    about = ("notebook", "parameters")
    return (
        all(new["run"][name] == old["run"].get(name) for name in about)
        and len(new["results"]) == len(old["results"])
        and all(
            row.keys() == other.keys() and all(_close(row[name], other[name]) for name in row)
            for row, other in zip(new["results"], old["results"], strict=True)
        )
    )


def _close(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=0, abs_tol=TOLERANCE) or (math.isnan(a) and math.isnan(b))
    return bool(a == b)


def _same_file(new: Path, old: Path) -> bool:
    if new.suffix == ".html":
        return _told(new) == _told(old)
    if new.suffix == ".parquet":
        return pd.read_parquet(new).equals(pd.read_parquet(old))
    if new.suffix == ".webp":
        with Image.open(new) as picture, Image.open(old) as other:
            return np.array_equal(np.asarray(picture), np.asarray(other))
    return new.read_bytes() == old.read_bytes()


def _told(page: Path) -> str:
    """A page without what may differ."""
    text = page.read_text(encoding="utf-8")
    for pattern in VARYING:
        text = re.sub(pattern, " ", text, flags=re.DOTALL)
    return text
