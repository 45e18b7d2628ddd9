"""What is heard in files, as a table, JSON lines or CSV."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ser_lib import corpus
from ser_lib.errors import AudioError, SerError

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would compute a cell that begins so


def recordings(places: Iterable[str]) -> list[str]:
    """The files named, and those of each folder with its subfolders; `-` and an empty folder stay as they are.

    Examples
    --------
    >>> recordings(["a.wav", "-"])
    ['a.wav', '-']
    """
    files = []
    for place in places:
        inside = corpus.recordings(Path(place)) if place != "-" else ()
        files += sorted(map(str, inside)) or [place]
    return files


def heard(
    files: Sequence[str], hear: Callable[[str], Iterator[dict[str, Any]]], *, quiet: bool, failed: list[str]
) -> Iterator[dict[str, Any]]:
    """The answers to each file, with its name, and a progress bar where standard error is a terminal.

    What cannot be heard is told on standard error and added to `failed`; the others go on.
    """
    from tqdm import tqdm

    for file in tqdm(files, "hearing", unit="file", delay=2, leave=False, disable=True if quiet else None):
        try:
            if Path(file).is_dir():
                raise AudioError(
                    f"{file}: no recordings ({', '.join(corpus.SUFFIXES)}) in it or its subfolders"
                )
            for row in hear(file):
                yield {"file": file} | row
        except SerError as error:
            failed.append(file)
            say(str(error), err=True)


def say(line: str, *, err: bool = False) -> None:
    """A line on standard output or error, around the progress bar."""
    from tqdm import tqdm

    with tqdm.external_write_mode(sys.stderr if err else sys.stdout):
        click.echo(line, err=err)


# --- answers as text -------------------------------------------------------------------------------


def written(
    rows: Iterable[Mapping[str, Any]], form: str, labels: Sequence[str], first: Sequence[str] = ("file",)
) -> Iterator[str]:
    """Answers as lines without their ends, each as soon as it is there.

    Parameters
    ----------
    rows : iterable of dict
        Answers of `Bundle.predict` or `Bundle.timeline`, with what `first` names.
    form : table, jsonl or csv

    Examples
    --------
    >>> answer = {"file": "a.wav", "emotion": "sad", "confidence": 0.9, "abstained": False}
    >>> for line in written([answer | {"probabilities": {"sad": 0.9, "calm": 0.1}}], "csv", ["calm", "sad"]):
    ...     print(line)
    file,emotion,confidence,abstained,p_calm,p_sad
    a.wav,sad,0.9,False,0.1,0.9
    """
    if form == "jsonl":
        return (json.dumps(row) for row in rows)
    return as_csv(rows, labels, first) if form == "csv" else _as_table(rows, labels, first)


def as_csv(rows: Iterable[Mapping[str, Any]], labels: Sequence[str], first: Sequence[str]) -> Iterator[str]:
    """CSV lines: the columns `first`, then emotion, confidence, whether it abstained, and `p_<label>`."""
    columns = (*first, "emotion", "confidence", "abstained")
    yield _csv_line([*columns, *(f"p_{label}" for label in labels)])
    for row in rows:
        p = row.get("probabilities", {})
        yield _csv_line([*(row.get(name) for name in columns), *(p.get(label) for label in labels)])


def _csv_line(cells: list[Any]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow([_harmless(cell) for cell in cells])
    return out.getvalue()


def _harmless(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell[1:] and cell.startswith(FORMULA) else cell


def _as_table(
    rows: Iterable[Mapping[str, Any]], labels: Sequence[str], first: Sequence[str]
) -> Iterator[str]:
    """Columns of one width; the file, whose name may be long, comes last."""
    times = [name for name in first if name != "file"]
    width = max(map(len, [*labels, "emotion"]))
    head = "".join(f"{name:>8}  " for name in times)
    yield f"{head}{'emotion':<{width}}  sure   file"
    for row in rows:
        said = f"{row['confidence']:4.0%}{'?' if row['abstained'] else ' '}" if row["emotion"] else "     "
        when = "".join(f"{row[name]:8.1f}  " for name in times)
        yield f"{when}{row['emotion'] or 'silent':<{width}}  {said}  {row['file']}"
