"""Whether a run finds what the report in its place holds already, or less: then that stays as it is, byte for byte.

A report tells when and where it was made, in which a second run always differs. The same are: results within
`TOLERANCE`, predictions, the figures' pixels, and what the page says in prose, code and tables.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from ser_lib import ledger

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
