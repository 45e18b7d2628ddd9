"""What a notebook leaves behind: figures, metrics.json and predictions, in one folder a run.

Runs started by `python -m ser_lib reports` are told their folder; a notebook run by hand writes to
`reports/interactive/<notebook>`, so that exploring never changes the committed reports.
"""

from __future__ import annotations

import ast
import io
import json
import os
import subprocess
import warnings
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ser_lib import ROOT, bundle, metrics
from ser_lib.corpus import EIGHT, FOUR
from ser_lib.errors import ReportError

NOTEBOOKS = ROOT / "notebooks"
REPORTS = ROOT / "reports"
FOLDER_VARIABLE = "SER_REPORT_DIR"


def parameter_cell(notebook: str) -> str:
    """The source of the cell tagged `parameters`.

    Raises
    ------
    ReportError
        No such notebook, or no such cell.
    """
    path = NOTEBOOKS / f"{notebook}.ipynb"
    if not path.is_file():
        raise ReportError(f"{path}: no such notebook")
    for cell in json.loads(path.read_text())["cells"]:
        if "parameters" in cell["metadata"].get("tags", ()):
            return "".join(cell["source"])
    raise ReportError(f"{path}: no cell is tagged 'parameters'")


def parameters(notebook: str) -> dict[str, Any]:
    """The names and default values of a notebook's parameters."""
    return _assigned(parameter_cell(notebook))


def _assigned(source: str) -> dict[str, Any]:
    """The literals that a cell assigns to names."""
    assignments = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    return {node.targets[0].id: ast.literal_eval(node.value) for node in assignments}


def check_names(notebook: str, names: Sequence[str]) -> None:
    """Refuse parameter names that the notebook does not have.

    Raises
    ------
    ReportError
        Lists the valid names with their defaults.
    """
    valid = parameters(notebook)
    unknown = [name for name in names if name not in valid]
    if unknown:
        listed = ", ".join(f"{name}={value!r}" for name, value in valid.items())
        raise ReportError(f"{notebook} has no parameter {', '.join(unknown)}; it has {listed}")


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
    ReportError
        Papermill passed a parameter that the notebook does not have.
    """

    def __init__(self, notebook: str, namespace: dict[str, Any]):
        warnings.filterwarnings("ignore", "IProgress not found")  # librosa's downloader asks for widgets
        for source in namespace.get("In", ()):
            if source.startswith("# Parameters\n"):  # the cell that papermill injects
                check_names(notebook, list(_assigned(source)))
        self.notebook = notebook
        self.parameters = {name: namespace[name] for name in parameters(notebook)}
        self.folder = Path(os.environ.get(FOLDER_VARIABLE) or REPORTS / "interactive" / notebook)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.results: list[dict] = []

    @property
    def model_path(self) -> Path:
        """Where a chosen model goes: `models/` from the standard run, else beside this report."""
        standard = self.folder.with_name(self.folder.name.removesuffix(".running")) == REPORTS / self.notebook
        return (ROOT / "models" if standard else self.folder) / "ser.json"

    def figure(self, drawn: Figure | Axes, name: str) -> None:
        """Save a figure as `<name>.png`; the notebook shows it as well."""
        path = self.folder / f"{name}.png"
        (drawn if isinstance(drawn, Figure) else drawn.figure).savefig(path)
        path.write_bytes(paletted(path.read_bytes()))

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
        commit, dirty = git_state()
        run = {
            "notebook": self.notebook,
            "parameters": self.parameters,
            "data_hash": data_hash(table),
            "clips": len(table),
            "commit": commit,
            "uncommitted_changes": dirty,
            "versions": bundle.versions(),
        }
        content = json.dumps({"run": run, "results": self.results}, indent=1)
        (self.folder / "metrics.json").write_text(content + "\n")
        if predictions is not None:
            predictions.round(3).to_parquet(
                self.folder / "predictions.parquet", compression="zstd", index=False
            )


def paletted(png: bytes) -> bytes:
    """The picture in 256 colours at most, which a figure hardly needs: two fifths of the bytes."""
    small = io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return small.getvalue()


def emotions_name(emotions: Sequence[str]) -> str:
    """`four`, `eight` or the comma-separated list."""
    return {FOUR: "four", EIGHT: "eight"}.get(tuple(emotions), ",".join(emotions))


def data_hash(table: pd.DataFrame) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a table's rows and column names."""
    rows = pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes()
    return sha256(rows + "".join(table.columns).encode()).hexdigest()[:16]


def git_state() -> tuple[str | None, bool | None]:
    """The commit that is checked out and whether files differ from it; None outside a checkout."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(
            git("status", "--porcelain", "--", "ser_lib", "notebooks", "data")
        )
    except (OSError, subprocess.CalledProcessError):
        return None, None


def find_run(name: str, file: str) -> Path:
    """A file that another run left: beside this run's folder, else in the committed reports.

    Raises
    ------
    ReportError
        Neither has it.
    """
    beside = os.environ.get(FOLDER_VARIABLE)
    for reports in [Path(beside).parent] * bool(beside) + [REPORTS]:
        if (reports / name / file).is_file():
            return reports / name / file
    raise ReportError(
        f"{name}/{file}: no such report; make it with `python -m ser_lib reports --notebook {name[:2]}`"
    )


def read_run(name: str) -> dict:
    """What another run's metrics.json says of the run: notebook, parameters, data hash, versions."""
    return json.loads(find_run(name, "metrics.json").read_text())["run"]
