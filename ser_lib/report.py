"""What a notebook leaves behind: figures, metrics.json and predictions, in one folder a run.

Runs started by `python -m ser_lib reports` are told their folder; a notebook run by hand writes to
`reports/interactive/<notebook>`, so that exploring never changes the committed reports.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ser_lib import ROOT, ledger, metrics, parameters
from ser_lib.corpus import EIGHT, FOUR
from ser_lib.ledger import REPORTS

FOLDER_VARIABLE = "SER_REPORT_DIR"
VALUES = ["value", "low", "high"]


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
        warnings.filterwarnings("ignore", "IProgress not found")  # librosa's downloader asks for widgets
        for source in namespace.get("In", ()):
            if source.startswith("# Parameters\n"):  # the cell that papermill injects
                parameters.check_names(notebook, list(parameters.assigned(source)))
        self.notebook = notebook
        self.parameters = {name: namespace[name] for name in parameters.defaults(notebook)}
        self.folder = Path(os.environ.get(FOLDER_VARIABLE) or REPORTS / "interactive" / notebook)
        parameters.check(notebook, self.parameters, ledger.done(self.folder.parent))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.results: list[dict] = []

    @property
    def model_path(self) -> Path:
        """Where a chosen model goes: `models/` from the standard run, else beside this report."""
        standard = self.folder.with_suffix("") == REPORTS / self.notebook
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
        row = ledger.begun(self.folder) or ledger.about(self.notebook, self.parameters, self.folder.parent)
        row |= {"data_hash": data_hash(table), "clips": len(table)}
        ledger.write(self.folder, row, self.results)
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


def read_run(name: str) -> dict:
    """The row of another run, beside this run's folder or in the committed reports: its notebook, parameters and data hash."""
    beside = os.environ.get(FOLDER_VARIABLE)
    found = ledger.find(name, ledger.FILE, Path(beside).parent if beside else ledger.REPORTS)
    return ledger.read(found.parent)["run"]


def compare(a: str, b: str, out: Path = ledger.REPORTS) -> dict[str, pd.DataFrame]:
    """Two runs side by side.

    Returns
    -------
    dict of DataFrame
        `row`: the columns that differ. `results`: all, as `value, low, high` of both. Where both tested the same
        clips, `differences`: UAR of `a` minus that of `b` on these, with its interval, for each protocol and
        model that both have, else the first of each; and `a`, `b`: what is heard as what in the first of them.

    Raises
    ------
    ReportError
        No such run.
    """
    folders = [ledger.find(name, ledger.FILE, out).parent for name in (a, b)]
    contents = [ledger.read(folder) for folder in folders]
    rows = [pd.json_normalize(content["run"]).iloc[0].astype(str) for content in contents]
    row = pd.concat(rows, axis=1, keys=["a", "b"])
    found = {
        "row": row[row["a"] != row["b"]],
        "results": _side_by_side(*(content["results"] for content in contents)),
    }
    paths = [folder / "predictions.parquet" for folder in folders]
    if not all(path.is_file() for path in paths):
        return found
    x, y = (dict(list(pd.read_parquet(p).groupby(["protocol", "model"], sort=False))) for p in paths)
    same = [(key, key) for key in x if key in y] or [(next(iter(x)), next(iter(y)))]
    gaps = []
    for first, second in same:
        clip = ["clip_id", "speaker", "emotion"]
        common = x[first][clip].merge(y[second][clip]).drop_duplicates()
        heard = [part.merge(common) for part in (x[first], y[second])]
        if len(common):
            labels = sorted(set().union(*(part[name] for part in heard for name in ("emotion", "predicted"))))
            what = dict(zip(("protocol", "model"), first, strict=True)) | {"clips": len(common)}
            if first != second:
                what |= {"minus": " ".join(second)}
            gaps.append(what | dict(zip(VALUES, metrics.difference(*heard, labels), strict=True)))
            for name, part in zip("ab", heard, strict=True):
                shares = metrics.confusion(part, labels)
                found.setdefault(name, shares[shares.any(axis=1)])
    return found | ({"differences": pd.DataFrame(gaps)} if gaps else {})


def _side_by_side(a: list[dict], b: list[dict]) -> pd.DataFrame:
    """Results of both by what they are about, but for what is one thing in `a` and another in `b`."""
    x, y = (pd.DataFrame(part, columns=None if part else ["metric", *VALUES]) for part in (a, b))
    shared = [name for name in x if name in y and name not in (*VALUES, "seeds")]
    differ = {
        name for name in shared if x[name].nunique() == 1 == y[name].nunique() and x[name][0] != y[name][0]
    }
    on = [name for name in shared if name not in differ]
    left, right = (part[[*on, *VALUES]].drop_duplicates(on) for part in (x, y))
    return left.merge(right, on=on, how="outer", sort=False, suffixes=(" a", " b"))


def comparison(a: str, b: str, out: Path = ledger.REPORTS) -> str:
    """`compare` as text."""
    found = compare(a, b, out)
    share = "{:.1%}".format
    parts = [f"a: {a}\nb: {b}", found["row"].to_string() if len(found["row"]) else "nothing differs"]
    parts.append(found["results"].to_string(index=False, na_rep="", float_format="{:.4g}".format))
    if "differences" in found:
        signed = dict.fromkeys(VALUES, "{:+.1%}".format)
        parts += ["UAR of a minus b on common clips, 95 % interval from resampling speakers"]
        parts += [found["differences"].to_string(index=False, formatters=signed)]
        parts += [f"Heard by {name}:\n{found[name].to_string(float_format=share)}" for name in "ab"]
    else:
        parts += ["no predictions of the same clips"]
    return "\n\n".join(parts)
