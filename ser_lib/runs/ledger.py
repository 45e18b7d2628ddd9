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
import re
import shutil
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from ser_lib import ROOT, corpora, provenance
from ser_lib.errors import ReportError
from ser_lib.features import extraction, tables
from ser_lib.provenance import versions
from ser_lib.runs import parameters

COMPARISON = "03_mlp_vs_boosting"  # the notebook whose runs notebook 04 goes by
REPORTS = ROOT / "reports"
VALUES = ["value", "low", "high"]
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
    """The first UAR on unseen speakers, of the headline protocol if there is one; else the first result."""
    unseen = [r for r in results if r["metric"] == "uar" and r.get("protocol") != "random"]
    unseen = [r for r in unseen if not r.get("same_speaker")]
    return next(iter(sorted(unseen, key=lambda r: r.get("protocol") != "actors5") or results), None)


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


# --- what a run is made of ------------------------------------------------------------------------


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
    commit, dirty = provenance.git_state()
    return {
        "notebook": notebook,
        "parameters": values,
        "commit": commit,
        "uncommitted_changes": dirty,
        "versions": versions(),
        "data": _data(notebook, values, out),
        "recordings": _recordings(notebook, values),
        "code": _code(notebook),
    }


def _data(notebook: str, values: Mapping[str, Any], out: Path) -> str:
    """Hash of what a run reads wherever it is made: the shipped tables and the results of another run."""
    found = sha256(b"".join(path.read_bytes() for path in (*tables.SHIPPED, *tables.SHIPPED_COPIES)))
    for name, one in parameters.read(notebook).items():
        if one.kind == "RUN":
            other = read(find(values[name], FILE, out).parent)
            about_it = [other["run"].get("parameters"), other["run"].get("data_hash"), other["results"]]
            found.update(json.dumps(about_it).encode())
    return found.hexdigest()[:16]


def _recordings(notebook: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Of each CORPUS whose recordings are here, a hash of their names, sizes and times."""
    found = {}
    for name, one in parameters.read(notebook).items():
        if one.kind == "CORPUS":
            named = values[name] or ("" if name == "corpus" else os.environ.get("SER_EMODB_DIR", ""))
            table = parameters.clips(named) if named or name == "corpus" else None
            if table is not None:
                paths = [os.path.abspath(path) for path in table["path"]]
                common = os.path.commonpath(paths)
                stamps = [(os.path.relpath(path, common), *extraction.stamp(path)) for path in paths]
                content = json.dumps([stamps, table.drop(columns="path").to_csv()]).encode()
                found[name] = sha256(content).hexdigest()[:16]
    return found


def settings(run: str, source: str) -> dict[str, Any]:
    """The parameters of a run of notebook 03, to go by them on the same corpus.

    Parameters
    ----------
    run : str
        Its name.
    source : str
        The `corpus` of the notebook that goes by them.

    Raises
    ------
    ReportError
        No such run, or it is of another notebook or another corpus.

    Examples
    --------
    >>> settings("03_eight", "")["protocol"]
    'actors5'
    """
    row = read_run(run)
    given = f"-p corpus={source} -p emotions=…" if source else "-p emotions=…"
    remedy = (
        f"make one with `python -m ser_lib reports --notebook 03 {given} --name mine` and give -p run=mine"
    )
    if row["notebook"] != COMPARISON:
        raise ReportError(f"run={run}: a run of {row['notebook']}, not of {COMPARISON}; {remedy}")
    of = row["parameters"]["corpus"]
    if _places(of) != _places(source):
        what = f"corpus={source}" if source else "RAVDESS"
        if of:
            remedy = f"give -p corpus={of} as well, or {remedy}"
        raise ReportError(f"run={run}: compares models on {of or 'RAVDESS'}, not on {what}; {remedy}")
    return row["parameters"]


def _places(source: str) -> list[Path]:
    named = source or corpora.find_audio()
    return [path.resolve() for path in corpora.sources(named)] if named else []


def _code(notebook: str) -> str:
    """Hash of the notebook's cells and of the modules of ser_lib that they reach."""
    cells = json.loads((parameters.NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    found = sha256(b"".join(path.read_bytes() for path in provenance.modules(code).values()))
    found.update("\0".join("".join(cell["source"]) for cell in cells).encode())
    return found.hexdigest()[:16]


# --- MLflow ---------------------------------------------------------------------------------------

EXPERIMENT = "ser_lib"  # of MLflow


def connect(uri: str, out: Path = REPORTS) -> Callable[[str], None]:
    """What logs the runs of a name below `out` in an MLflow store (http://…, sqlite:///…), where they are not yet there.

    Raises
    ------
    ReportError
        MLflow is not installed, or the store does not answer, now or later.
    """
    for name in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"):
        os.environ.setdefault(name, "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # else it takes minutes to give up
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise ReportError(
            "MLflow is not installed; `python -m pip install mlflow-skinny` brings it"
        ) from error

    def log(name: str) -> None:
        try:
            client = MlflowClient(uri)
            held = client.get_experiment_by_name(EXPERIMENT)
            experiment = held.experiment_id if held else client.create_experiment(EXPERIMENT)
            for row in runs(out):
                if row["name"] == name and "seconds" in row:  # it has ended
                    same = f"attributes.run_name = '{name}' and tags.started = '{row['started']}'"
                    if not client.search_runs([experiment], same):
                        _log(client, experiment, row, out)
        except Exception as error:  # of as many kinds as there are stores
            told = str(error).strip().partition("\n")[0]
            raise ReportError(f"--mlflow {uri}: {told}; the same command logs what is missing") from error

    log("")
    return log


def _log(client: Any, experiment: str, row: Mapping[str, Any], out: Path) -> None:
    """Log one run: numbers as metrics, the rest of its row as tags, its folder as artifacts."""
    from mlflow.entities import Metric, Param

    failed = row["status"] == "failed"
    begun = datetime.datetime.fromisoformat(row["started"]).timestamp()
    start, end = (int(1000 * (begun + seconds)) for seconds in (0, row["seconds"]))
    tags = {name: str(value) for name, value in row.items() if isinstance(value, str | bool)}
    tags |= {f"version {name}": version for name, version in row["versions"].items()}
    tags |= {"mlflow.source.git.commit": row["commit"] or ""}
    params = [Param(name, str(value)) for name, value in row["parameters"].items()]
    numbers = [Metric(name, value, end, step) for name, value, step in _numbers(row)]
    run = client.create_run(experiment, start, tags, row["name"]).info.run_id
    try:
        for i in range(0, len(numbers), 500):  # a store takes a thousand at a time
            client.log_batch(run, numbers[i : i + 500], params)
        try:
            client.log_artifacts(run, str(out / (row["name"] + failed * FAILED)))
        except Exception as error:  # a store may keep no files
            client.set_tag(run, "artifacts", f"not kept: {error}"[:500])
        client.set_terminated(run, "FAILED" if failed else "FINISHED", end)
    except Exception:
        client.delete_run(run)
        raise


def _numbers(row: Mapping[str, Any]) -> list[tuple[str, float, int]]:
    """Every number of a row and its results: `uar/eight actors5 mlp low`, value, and which of that name it is."""
    found = [(name, value) for name, value in row.items() if type(value) in (int, float)]
    score = {"metric": "score"} | {which: (row["score"] or {}).get(which) for which in VALUES}
    for result in [*row["results"], score]:
        about = [value for name, value in result.items() if name != "metric" and isinstance(value, str)]
        for which in VALUES:
            if result[which] is not None:
                name = re.sub(r"[^\w. -]", "-", " ".join([*about, which]))
                found.append((f"{result['metric']}/{name}", result[which]))
    names = [name for name, _ in found]
    return [(name, value, names[:i].count(name)) for i, (name, value) in enumerate(found)]
