"""The run ledger. Every run's folder holds its own row, so runs at the same time share no file.

The row is the part `run` of the folder's metrics.json. It is written when a run starts (`<run>.running`), filled by
the notebook (`report.Report.save`) and finished at the end (`<run>`, or `<run>.failed`). A run that found the same as the
report in its place leaves that as it is and notes its own `KEY` in a file beside it, which git ignores.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from ser_lib import ROOT
from ser_lib.errors import ReportError

REPORTS = ROOT / "reports"
RUNNING, FAILED = ".running", ".failed"
FILE = "metrics.json"
FOLDER_VARIABLE = "SER_REPORT_DIR"  # names the folder of the run that is under way
LOCK = ".lock"  # held while a run takes its folder
CONFIRMED = ".confirmed.json"  # what the latest run was made of that found the same
KEY = (
    "notebook",
    "parameters",
    "data",
    "recordings",
    "code",
    "versions",
)  # a run with the same gives the same


def read(folder: Path) -> dict[str, Any]:
    """A folder's metrics.json: `run`, its row, and `results`."""
    return json.loads((folder / FILE).read_text(encoding="utf-8"))


def write(folder: Path, row: Mapping[str, Any], results: list[dict[str, Any]]) -> None:
    """Put a folder's metrics.json in its place at once, for whoever reads at the same time."""
    new = folder / f"{FILE}.new"
    new.write_text(json.dumps({"run": row, "results": results}, indent=1) + "\n", encoding="utf-8")
    new.replace(folder / FILE)


def update(folder: Path, **columns: Any) -> None:
    """Set columns of a folder's row."""
    content = read(folder)
    write(folder, content["run"] | columns, content["results"])


def begun(folder: Path) -> dict[str, Any] | None:
    """The row of a run that was started and has not ended."""
    try:
        row = read(folder)["run"]
    except (OSError, ValueError):
        return None
    return row if row.get("status") == "running" else None


def find(name: str, file: str, out: Path = REPORTS) -> Path:
    """A file that another run left: in `out`, else in the committed reports.

    Raises
    ------
    ReportError
        Neither has it.
    """
    for reports in (out, REPORTS):
        if (reports / name / file).is_file():
            return reports / name / file
    raise ReportError(
        f"{name}/{file}: no such report; make it with `python -m ser_lib reports --notebook {name[:2]}`"
    )


def read_run(name: str) -> dict[str, Any]:
    """The row of another run, beside this run's folder or in the committed reports: its notebook, parameters and data hash."""
    beside = os.environ.get(FOLDER_VARIABLE)
    found = find(name, FILE, Path(beside).parent if beside else REPORTS)
    return read(found.parent)["run"]


def changed(name: str, row: Mapping[str, Any], out: Path = REPORTS) -> list[str] | None:
    """The `KEY` columns in which the run that is done differs from `row`; None where there is none.

    Recordings that are not here are no difference.
    """
    done = _done(name, out)
    if done is None:
        return None
    found = [_differ(made, row) for made in (_confirmed(out / name), done) if made]
    return [] if [] in found else found[0]


def _differ(made: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    here = {name: told for name, told in made.get("recordings", {}).items() if name in row["recordings"]}
    return [column for column in KEY if (dict(made) | {"recordings": here}).get(column) != row[column]]


def lacking(name: str, row: Mapping[str, Any], out: Path = REPORTS) -> list[str]:
    """The CORPUS parameters of whose recordings the report of a run was made, where `row` has none of them."""
    done = _done(name, out)
    if done is None or done["parameters"] != row["parameters"]:
        return []
    return [parameter for parameter in done.get("recordings", {}) if parameter not in row["recordings"]]


def _done(name: str, out: Path) -> dict[str, Any] | None:
    return next((one for one in runs(out) if one["name"] == name and one["status"] == "done"), None)


def confirm(running: Path) -> Path:
    """Leave the report that is in the place of a run, since the run found the same, and return it.

    What git does not carry (a feature table) is added where it is not there.
    """
    place, row = running.with_suffix(""), read(running)["run"]
    note = {name: row[name] for name in KEY} | {"of": _hash(place)}
    (place / CONFIRMED).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    for path in running.iterdir():
        if not (place / path.name).exists():
            path.rename(place / path.name)
    shutil.rmtree(running)
    return place


def _confirmed(folder: Path) -> dict[str, Any]:
    """What was noted of the report that is there now; that of another, as of before a `git pull`, does not count."""
    try:
        note = json.loads((folder / CONFIRMED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if note["of"] == _hash(folder) else {}


def _hash(folder: Path) -> str:
    return sha256((folder / FILE).read_bytes()).hexdigest()[:16]


def start(name: str, row: Mapping[str, Any], out: Path = REPORTS) -> Path | None:
    """Take the folder `<name>.running`; None while another process that is alive has it."""
    import filelock
    import psutil

    running = out / f"{name}{RUNNING}"
    out.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(out / LOCK):
        if _alive(begun(running)):
            return None
        shutil.rmtree(running, ignore_errors=True)
        running.mkdir()
        process = psutil.Process()
        owner = {"id": process.pid, "created": process.create_time(), "machine": platform.node()}
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        write(running, {**row, "status": "running", "started": started, "process": owner}, [])
    shutil.rmtree(out / f"{name}{FAILED}", ignore_errors=True)
    return running


def finish(running: Path, status: str, **columns: Any) -> Path:
    """Move a run that has ended to its place and return it: `<run>` if it is done, else `<run>.failed`."""
    content = read(running)
    row = {name: value for name, value in content["run"].items() if name != "process"}
    write(running, row | {"status": status} | columns, content["results"])
    place = running.with_suffix("" if status == "done" else FAILED)
    shutil.rmtree(place, ignore_errors=True)
    return running.rename(place)


def _alive(row: Mapping[str, Any] | None) -> bool:
    """Whether the process that runs it is there; one of another machine is taken to be."""
    owner = (row or {}).get("process")
    if owner is None or owner["machine"] != platform.node():
        return owner is not None
    import psutil

    try:
        process = psutil.Process(owner["id"])
        return abs(process.create_time() - owner["created"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


# --- the rows --------------------------------------------------------------------------------------


def runs(out: Path = REPORTS) -> list[dict[str, Any]]:
    """The row of every run below `out`, with its `name`, its `results` and the main one, `score`."""
    found = []
    for path in sorted(out.glob(f"*/{FILE}")):
        folder = path.parent
        try:
            content = {"run": {}, "results": []} | read(folder)
        except FileNotFoundError:  # it was moved meanwhile
            continue
        except ValueError:
            content = {"run": {"status": "failed", "error": f"{path}: damaged"}, "results": []}
        row = {"name": folder.stem, "status": "done", "parameters": {}} | content["run"]
        if row["status"] == "running" and not _alive(row):
            row |= {"status": "failed", "error": "its process was ended"}
        row["seed"] = row["parameters"].get("seeds", row["parameters"].get("seed"))
        found.append(row | {"score": _main(content["results"]), "results": content["results"]})
    return found


def done(*folders: Path) -> list[str]:
    """The names of the runs that are done in these folders or among the committed reports."""
    found = {
        p.parent.name for out in (*folders, REPORTS) for p in out.glob(f"*/{FILE}") if not p.parent.suffix
    }
    return sorted(found)


def _main(results: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The first UAR on unheard speakers, of the headline protocol if there is one; else the first result."""
    unheard = [r for r in results if r["metric"] == "uar" and r.get("protocol") != "random"]
    unheard = [r for r in unheard if not r.get("same_speaker")]
    return next(iter(sorted(unheard, key=lambda r: r.get("protocol") != "actors5") or results), None)


def remove(name: str, out: Path = REPORTS) -> None:
    """Delete a run's folders.

    Raises
    ------
    ReportError
        No such run, or it is running.
    """
    states = [row["status"] for row in runs(out) if row["name"] == name]
    if not states or "running" in states:
        listed = ", ".join(row["name"] for row in runs(out)) or "none"
        raise ReportError(
            f"{name}: {'is running' if states else f'no such run in {out}; there are {listed}'}"
        )
    for suffix in ("", RUNNING, FAILED):
        shutil.rmtree(out / f"{name}{suffix}", ignore_errors=True)
