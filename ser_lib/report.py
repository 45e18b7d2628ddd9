"""One run of a notebook: what it is made of, its execution, and the folder that it leaves.

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
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ser_lib import ROOT, bundle, ledger, metrics, parameters, rows, tables
from ser_lib.corpus import EIGHT, FOUR
from ser_lib.ledger import REPORTS

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
        self.folder = Path(os.environ.get(ledger.FOLDER_VARIABLE) or REPORTS / "interactive" / notebook)
        parameters.check(notebook, self.parameters, ledger.done(self.folder.parent))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.results: list[dict[str, Any]] = []

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

    def save(self, table: pd.DataFrame, predictions: pd.DataFrame | None = None) -> None:
        """Write metrics.json and, if given, predictions.parquet, its probabilities to three decimals."""
        row = ledger.begun(self.folder) or about(self.notebook, self.parameters, self.folder.parent)
        row |= {"data_hash": data_hash(table), "clips": len(table)}
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
        few.save(small, "webp", lossless=True, quality=100, method=6)
    return small.getvalue()


def emotions_name(emotions: Sequence[str]) -> str:
    """`four`, `eight` or the comma-separated list."""
    return {FOUR: "four", EIGHT: "eight"}.get(tuple(emotions), ",".join(emotions))


def data_hash(table: pd.DataFrame) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a table's rows and column names."""
    content = pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes()
    return sha256(content + "".join(table.columns).encode()).hexdigest()[:16]


# --- what a run is made of -------------------------------------------------------------------------


def about(notebook: str, given: Mapping[str, Any], out: Path = REPORTS) -> dict[str, Any]:
    """The row of a run before it starts; one with the same `ledger.KEY` columns would give the same.

    Raises
    ------
    CorpusError
        A corpus that is not there.
    ReportError
        The run that this one reads is not there.
    """
    values = parameters.defaults(notebook) | dict(given)
    commit, dirty = git_state()
    return {
        "notebook": notebook,
        "parameters": values,
        "commit": commit,
        "uncommitted_changes": dirty,
        "versions": bundle.versions(),
        "data": _data(notebook, values, out),
        "code": _code(notebook),
    }


def _data(notebook: str, values: Mapping[str, Any], out: Path) -> str:
    """Hash of what a run reads: shipped tables, names, sizes and times of recordings, results of another run."""
    found = sha256(b"".join(path.read_bytes() for path in (*tables.SHIPPED, *tables.SHIPPED_COPIES)))
    for name, one in parameters.read(notebook).items():
        if one.kind == "CORPUS":
            named = values[name] or ("" if name == "corpus" else os.environ.get("SER_EMODB_DIR", ""))
            table = parameters.clips(named) if named or name == "corpus" else None
            if table is not None:
                paths = [os.path.abspath(path) for path in table["path"]]
                common = os.path.commonpath(paths)
                stamps = [(os.path.relpath(path, common), *rows.stamp(path)) for path in paths]
                found.update(json.dumps([stamps, table.drop(columns="path").to_csv()]).encode())
        elif one.kind == "RUN":
            other = ledger.read(ledger.find(values[name], ledger.FILE, out).parent)
            about_it = [other["run"].get("parameters"), other["run"].get("data_hash"), other["results"]]
            found.update(json.dumps(about_it).encode())
    return found.hexdigest()[:16]


def _code(notebook: str) -> str:
    """Hash of the sources of ser_lib and of the notebook's cells."""
    own = rows.code_hash(*sorted(path.stem for path in Path(__file__).parent.glob("*.py")))
    cells = json.loads((parameters.NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    return sha256((own + "\0".join("".join(cell["source"]) for cell in cells)).encode()).hexdigest()[:16]


def git_state() -> tuple[str | None, bool | None]:
    """The commit that is checked out and whether files differ from it; None outside a checkout."""
    questions = ("rev-parse", "HEAD"), ("status", "--porcelain", "--", "ser_lib", "notebooks", "data")
    commands = [["git", "-C", str(ROOT), *question] for question in questions]
    try:
        told = [subprocess.run(c, capture_output=True, encoding="utf-8", check=True).stdout for c in commands]
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return told[0].strip(), bool(told[1])


# --- its execution ---------------------------------------------------------------------------------


def execute(running: Path) -> None:
    """Execute the run of a folder in this process, which ends when its standard input does."""
    import papermill
    from papermill.exceptions import PapermillExecutionError
    from traitlets.config import Config

    row = ledger.read(running)["run"]
    usual, memory = parameters.defaults(row["notebook"]), [0]
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
                str(parameters.NOTEBOOKS / f"{row['notebook']}.ipynb"),
                str(executed),
                parameters={name: value for name, value in row["parameters"].items() if value != usual[name]},
                progress_bar=sys.stderr.isatty(),
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
    _name_figures(notebook.cells)
    row = ledger.begun(executed.parent) or {}
    run = {name: value for name, value in row.items() if name not in ("status", "process")}
    exporter = HTMLExporter(
        template_name="report", extra_template_basedirs=[str(Path(__file__).parent / "web")]
    )
    exporter.register_filter("sections", _sections)
    html, _ = exporter.from_notebook_node(notebook, {"metadata": {"name": title}, "run": run})
    (executed.parent / "index.html").write_text(
        re.sub(r"data:image/png;base64,([^\"]+)", _smaller, html), encoding="utf-8"
    )


def _name_figures(cells: Sequence[Any]) -> None:
    """Give each cell with a figure its alternative text: the figure's name and the section."""
    section = ""
    for cell in cells:
        if cell.cell_type == "markdown":
            section = [section, *re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)][-1]
        elif name := re.search(r"report\.figure\(\w+, \"(\w+)\"\)", cell.source):
            cell.metadata.alt = f"Figure {name[1].replace('_', ' ')}: {section}"


def _sections(html: str) -> list[dict[str, Any]]:
    """Level, id and text of the headings that nbconvert made of Markdown."""
    found = re.findall(r'<h([1-6]) id="([^"]*)">(.*?)<a class="anchor-link"', html)
    return [{"level": int(level), "id": anchor, "text": text} for level, anchor, text in found]


def _smaller(match: re.Match[str]) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp(base64.b64decode(match[1]))).decode()}"


if __name__ == "__main__":
    execute(Path(sys.argv[1]))
