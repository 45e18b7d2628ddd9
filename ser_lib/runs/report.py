"""One run of a notebook: its record, its execution, and the folder that it leaves.

Runs started by `python -m ser_lib reports` are told their folder; a notebook run by hand writes to
`reports/interactive/<notebook>`, so that exploring never changes the committed reports.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from IPython.display import HTML
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ser_lib import ROOT, display, ledger, metrics, parameters, places
from ser_lib.corpus import EIGHT, FOUR
from ser_lib.ledger import REPORTS
from ser_lib.provenance import about

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
            os.environ.get(ledger.FOLDER_VARIABLE) or places.writable(REPORTS / "interactive") / notebook
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
        row |= {"data_hash": data_hash(table), "clips": len(table)}
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


def data_hash(table: pd.DataFrame) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a table's rows and column names."""
    content = pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes()
    return sha256(content + "".join(table.columns).encode()).hexdigest()[:16]


# --- its execution ---------------------------------------------------------------------------------


def execute(running: Path) -> None:
    """Execute the run of a folder in this process, which ends when its standard input does."""
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    row = ledger.read(running)["run"]
    usual, memory = parameters.defaults(row["notebook"]), [0]
    given = {name: value for name, value in row["parameters"].items() if value != usual[name]}
    path, since = parameters.NOTEBOOKS / f"{row['notebook']}.ipynb", time.time()
    cells = len(json.loads(path.read_text(encoding="utf-8"))["cells"]) + bool(
        given
    )  # which papermill puts into one of their own
    threading.Thread(target=_end_with_input, daemon=True).start()
    threading.Thread(target=_watch_memory, args=(memory,), daemon=True).start()
    executed = running / "notebook.ipynb"
    try:
        with tempfile.TemporaryDirectory() as sockets:  # else those of kernels in one folder are the same
            ipc = {"transport": "ipc", "ip": str(Path(sockets, "kernel"))}
            quiet = {
                "extra_arguments": ["--log-level=CRITICAL"]
            }  # its end is an interrupt, which it calls an error
            papermill.execute_notebook(
                str(path),
                str(executed),
                parameters=given,
                progress_bar=False,
                on_cell_start=lambda cell, cell_index: display.note(running, cell_index + 1, cells, since),
                config=Config(
                    KernelManager={"transport": "tcp"} if os.name == "nt" else ipc, NotebookClient=quiet
                ),
            )
        ledger.update(running, peak_memory_mb=memory[0])
        page(executed, running.stem)
    except PapermillExecutionError as error:
        told = f"cell {error.cell_index + 1}: {error.ename}: {error.evalue}".strip().partition("\n")[0]
        ledger.update(running, peak_memory_mb=memory[0], cell=error.cell_index + 1, error=told)
        raise SystemExit(1) from error
    except Exception as error:
        ledger.update(running, peak_memory_mb=memory[0], error=repr(error))
        raise
    executed.unlink()
    (running / display.FILE).unlink(missing_ok=True)


def _end_with_input() -> None:
    """End this process and its kernel, whose own processes then end, at the end of the standard input."""
    if not os.read(0, 1):
        for kernel in psutil.Process().children():
            with contextlib.suppress(psutil.Error):  # it has just ended
                kernel.kill()
        os._exit(1)


def _watch_memory(highest: list[int]) -> None:
    """Keep the most memory that the kernel and its processes have held at a time, in megabytes."""
    here = psutil.Process()
    while True:
        held = 0
        for process in here.children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has just ended
                held += process.memory_info().rss
        highest[0] = max(highest[0], held // 2**20)
        time.sleep(LOOK_S)


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
        template_name="report", extra_template_basedirs=[str(Path(__file__).parent / "web")]
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


if __name__ == "__main__":
    execute(Path(sys.argv[1]))
