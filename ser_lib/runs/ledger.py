"""The run ledger: one row for each run, kept in the run's own folder, so that parallel runs share no file.

The row is the part `run` of the folder's metrics.json. It is written when a run starts (folder `<run>.running`),
filled by the notebook (`report.Report.save`) and completed at the end (folder `<run>`, or `<run>.failed`).
A run with the same results as the report in its place leaves that report unchanged and notes its own `KEY` in a
file beside it, which git ignores.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import shutil
import uuid
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from ser_lib import ROOT, corpora, provenance, write_file
from ser_lib.errors import ReportError, explain
from ser_lib.features import extraction, tables
from ser_lib.runs import parameters

COMPARISON = "03_mlp_vs_boosting"  # notebook 04 takes its settings from a run of this notebook
REPORTS = ROOT / "reports"
VALUES = ["value", "low", "high"]
RUNNING, FAILED = ".running", ".failed"  # endings of folders
FILE = "metrics.json"
FOLDER_VARIABLE = "SER_REPORT_DIR"  # the folder of the current run
LOCK = ".lock"  # locked while a run takes its folder
CONFIRMED = ".confirmed.json"  # the `KEY` of the latest run with the same results
KEY = ("notebook", "parameters", "data", "recordings", "code", "versions")  # the same key, the same results


# --- files of a run -------------------------------------------------------------------------------


def read_metrics(folder: Path) -> dict[str, Any]:
    """Return a folder's metrics.json: `run`, its row, and `results`."""
    return json.loads((folder / FILE).read_text(encoding="utf-8"))


def write_metrics(folder: Path, row: Mapping[str, Any], results: list[dict[str, Any]]) -> None:
    """Write a folder's metrics.json."""
    write_file(folder / FILE, json.dumps({"run": row, "results": results}, indent=1) + "\n")


def update_row(folder: Path, **columns: Any) -> None:
    """Set columns of a folder's row."""
    content = read_metrics(folder)
    write_metrics(folder, content["run"] | columns, content["results"])


def find_run(name: str, out: Path = REPORTS) -> Path:
    """Return the folder of a finished run, in `out` or else among the committed reports; ReportError without either."""
    for reports in (out, REPORTS):
        if (reports / name / FILE).is_file():
            return reports / name
    raise ReportError(
        f"{name}/{FILE}: no such report; make it with `python -m ser_lib reports --notebook {name[:2]}`"
    )


# --- from start to end ----------------------------------------------------------------------------


def start(name: str, row: Mapping[str, Any], out: Path = REPORTS) -> Path | None:
    """Create the folder `<name>.running` and return it; None while another live process has it."""
    import filelock
    import psutil

    running = out / f"{name}{RUNNING}"
    out.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(out / LOCK):
        if _is_alive(running_row(running)):
            return None
        shutil.rmtree(running, ignore_errors=True)
        running.mkdir()
        process = psutil.Process()
        owner = {"id": process.pid, "created": process.create_time(), "machine": platform.node()}
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        write_metrics(running, {**row, "status": "running", "started": started, "process": owner}, [])
    shutil.rmtree(out / f"{name}{FAILED}", ignore_errors=True)
    return running


def running_row(folder: Path) -> dict[str, Any] | None:
    """Return the row of a run that has started and not ended."""
    try:
        row = read_metrics(folder)["run"]
    except (OSError, ValueError):
        return None
    return row if row.get("status") == "running" else None


def _is_alive(row: Mapping[str, Any] | None) -> bool:
    """Whether the run's process exists; on another machine it is assumed to."""
    owner = (row or {}).get("process")
    if owner is None or owner["machine"] != platform.node():
        return owner is not None
    import psutil

    try:
        process = psutil.Process(owner["id"])
        return abs(process.create_time() - owner["created"]) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def finish(running: Path, status: str, **columns: Any) -> Path:
    """Complete the row, move the folder to `<run>` (status done) or `<run>.failed` and return its new path."""
    content = read_metrics(running)
    row = {name: value for name, value in content["run"].items() if name != "process"}
    write_metrics(running, row | {"status": status} | columns, content["results"])
    place = running.with_suffix("" if status == "done" else FAILED)
    before = _set_aside(place)
    running.rename(place)
    shutil.rmtree(before, ignore_errors=True)
    return place


def _set_aside(folder: Path) -> Path:
    """Rename a folder, if it exists, to a hidden name, and return that; deleting file by file could end half way."""
    aside = folder.with_name(f".{uuid.uuid4().hex}.old")
    if folder.exists():
        folder.rename(aside)
    return aside


def confirm(running: Path) -> Path:
    """Keep the report in the place of a run with the same results, and return it.

    Files of the run that the report lacks, such as a feature table that git ignores, are added.
    """
    place, row = running.with_suffix(""), read_metrics(running)["run"]
    note = {name: row[name] for name in KEY} | {"of": _hash((place / FILE).read_bytes())}
    write_file(place / CONFIRMED, json.dumps(note, indent=1) + "\n")
    for path in running.iterdir():
        if not (place / path.name).exists():
            path.rename(place / path.name)
    shutil.rmtree(running)
    return place


# --- the rows -------------------------------------------------------------------------------------


def runs(out: Path = REPORTS) -> list[dict[str, Any]]:
    """Return the row of every run below `out`, with `name`, `results` and the main result, `score`."""
    rows = []
    for path in sorted(out.glob(f"[!.]*/{FILE}")):
        try:
            content = {"run": {}, "results": []} | read_metrics(path.parent)
        except FileNotFoundError:  # moved meanwhile
            continue
        except ValueError:
            content = {"run": {"status": "failed", "error": f"{path}: damaged"}, "results": []}
        except OSError as error:
            content = {"run": {"status": "failed", "error": explain(error)}, "results": []}
        row = {"name": path.parent.stem, "status": "done", "parameters": {}} | content["run"]
        if row["status"] == "running" and not _is_alive(row):
            row |= {"status": "failed", "error": "its process was ended"}
        row["seed"] = row["parameters"].get("seeds", row["parameters"].get("seed"))
        rows.append(row | {"score": _main_result(content["results"]), "results": content["results"]})
    return rows


def _main_result(results: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the first UAR on unseen speakers, preferably of `actors5`; else the first result."""
    unseen = [
        row
        for row in results
        if row["metric"] == "uar" and row.get("protocol") != "random" and not row.get("same_speaker")
    ]
    headline = [row for row in unseen if row.get("protocol") == "actors5"]
    return next(iter(headline or unseen or results), None)


def done_names(*folders: Path) -> list[str]:
    """Return the names of the finished runs in these folders and among the committed reports."""
    paths = [path for out in (*folders, REPORTS) for path in out.glob(f"*/{FILE}")]
    return sorted({path.parent.name for path in paths if not path.parent.suffix})


def done_row(name: str, out: Path = REPORTS) -> dict[str, Any] | None:
    """Return the row of a finished run."""
    return next((row for row in runs(out) if row["name"] == name and row["status"] == "done"), None)


def remove(name: str, out: Path = REPORTS) -> None:
    """Delete a run's folders; ReportError if there is no such run, or it is running."""
    states = [row["status"] for row in runs(out) if row["name"] == name]
    if "running" in states:
        raise ReportError(f"{name}: is running")
    if not states:
        listed = ", ".join(row["name"] for row in runs(out)) or "none"
        raise ReportError(f"{name}: no such run in {out}; there are {listed}")
    for suffix in ("", RUNNING, FAILED):
        shutil.rmtree(_set_aside(out / f"{name}{suffix}"), ignore_errors=True)


# --- what a run depends on ------------------------------------------------------------------------


def new_row(notebook: str, given: Mapping[str, Any], out: Path = REPORTS) -> dict[str, Any]:
    """Return the row of a run before it starts; CorpusError or ReportError if a corpus or run it reads is missing."""
    values = parameters.defaults(notebook) | dict(given)
    commit, dirty = provenance.git_state()
    return {
        "notebook": notebook,
        "parameters": values,
        "commit": commit,
        "uncommitted_changes": dirty,
        "versions": provenance.versions(),
        "data": _data_hash(notebook, values, out),
        "recordings": _recording_hashes(notebook, values),
        "code": _code_hash(notebook),
    }


def changed_columns(name: str, row: Mapping[str, Any], out: Path = REPORTS) -> list[str] | None:
    """Return the `KEY` columns in which `row` differs from the finished run of this name; None without one.

    Recordings that are missing here count as unchanged.
    """
    done = done_row(name, out)
    if done is None:
        return None
    differences = []
    for made in filter(None, (_confirmed_key(out / name), done)):
        missing = missing_recordings(made, row)
        recordings = {k: v for k, v in made.get("recordings", {}).items() if k not in missing}
        before = {**made, "recordings": recordings}
        differences.append([column for column in KEY if before.get(column) != row[column]])
    return [] if [] in differences else differences[0]


def missing_recordings(made: Mapping[str, Any], row: Mapping[str, Any]) -> list[str]:
    """Return the CORPUS parameters whose recordings the run `made` used and `row` does not have."""
    return [parameter for parameter in made.get("recordings", {}) if parameter not in row["recordings"]]


def _confirmed_key(folder: Path) -> dict[str, Any]:
    """Return what `confirm` noted of this report; nothing if the report has changed since, as after `git pull`."""
    try:
        note = json.loads((folder / CONFIRMED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if note["of"] == _hash((folder / FILE).read_bytes()) else {}


def _data_hash(notebook: str, values: Mapping[str, Any], out: Path) -> str:
    """Hash the shipped tables and the results of the runs that this one reads."""
    content = [path.read_bytes() for path in (*tables.SHIPPED, *tables.SHIPPED_COPIES)]
    for name, parameter in parameters.read_parameters(notebook).items():
        if parameter.kind == "RUN":
            other = read_metrics(find_run(values[name], out))
            made = [other["run"].get("parameters"), other["run"].get("data_hash"), other["results"]]
            content.append(json.dumps(made).encode())
    return _hash(b"".join(content))


def _recording_hashes(notebook: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Hash names, sizes and times of the recordings of each CORPUS parameter, where they exist."""
    hashes = {}
    for name, parameter in parameters.read_parameters(notebook).items():
        if parameter.kind != "CORPUS":
            continue
        source = values[name]
        if not source and name != "corpus":
            source = corpora.default_audio(name)
            if not source:
                continue
        table = parameters.corpus_clips(source)
        if table is not None:
            paths = [os.path.abspath(path) for path in table["path"]]
            common = os.path.commonpath(paths)
            stamps = [(os.path.relpath(path, common), *extraction.stamp(path)) for path in paths]
            hashes[name] = _hash(json.dumps([stamps, table.drop(columns="path").to_csv()]).encode())
    return hashes


def _code_hash(notebook: str) -> str:
    """Hash the notebook's cells and the modules of ser_lib that they import."""
    cells = json.loads((parameters.NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    content = [path.read_bytes() for path in provenance.modules(code).values()]
    return _hash(b"".join(content) + "\0".join("".join(cell["source"]) for cell in cells).encode())


def _hash(content: bytes) -> str:
    return sha256(content).hexdigest()[:16]


def settings(run: str, source: str) -> dict[str, Any]:
    """Return the parameters of a run of notebook 03 on the corpus `source`, for a notebook that follows it.

    Raises
    ------
    ReportError
        No such run, or it is of another notebook or another corpus.

    Examples
    --------
    >>> settings("03_eight", "")["protocol"]
    'actors5'
    """
    current = os.environ.get(FOLDER_VARIABLE)
    row = read_metrics(find_run(run, Path(current).parent if current else REPORTS))["run"]
    given = f"-p corpus={source} -p emotions=…" if source else "-p emotions=…"
    remedy = (
        f"make one with `python -m ser_lib reports --notebook 03 {given} --name mine` and give -p run=mine"
    )
    if row["notebook"] != COMPARISON:
        raise ReportError(f"run={run}: a run of {row['notebook']}, not of {COMPARISON}; {remedy}")
    compared = row["parameters"]["corpus"]
    if _folders(compared) != _folders(source):
        what = f"corpus={source}" if source else "RAVDESS"
        if compared:
            remedy = f"give -p corpus={compared} as well, or {remedy}"
        raise ReportError(f"run={run}: compares models on {compared or 'RAVDESS'}, not on {what}; {remedy}")
    return row["parameters"]


def _folders(source: str) -> list[Path]:
    named = source or corpora.find_audio()
    return [path.resolve() for path in corpora.sources(named)] if named else []


# --- MLflow ---------------------------------------------------------------------------------------

EXPERIMENT = "ser_lib"


def mlflow_logger(uri: str, out: Path = REPORTS) -> Callable[[str], None]:
    """Return a function that logs the finished runs of a name in an MLflow store, unless they are there already.

    Raises
    ------
    ReportError
        MLflow is not installed, or the store does not answer. The function raises it too.
    """
    for name in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"):
        os.environ.setdefault(name, "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # the default takes minutes to give up
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise ReportError(
            "MLflow is not installed; `python -m pip install mlflow-skinny` brings it"
        ) from error

    def log(name: str) -> None:
        try:
            client = MlflowClient(uri)
            known = client.get_experiment_by_name(EXPERIMENT)
            experiment = known.experiment_id if known else client.create_experiment(EXPERIMENT)
            for row in runs(out):
                if row["name"] == name and "seconds" in row:  # it has ended
                    same = f"attributes.run_name = '{name}' and tags.started = '{row['started']}'"
                    if not client.search_runs([experiment], same):
                        _log_run(client, experiment, row, out)
        except Exception as error:  # each kind of store raises its own
            message = str(error).strip().partition("\n")[0]
            raise ReportError(f"--mlflow {uri}: {message}; the same command logs what is missing") from error

    log("")  # logs nothing, but fails now rather than after hours
    return log


def _log_run(client: Any, experiment: str, row: Mapping[str, Any], out: Path) -> None:
    """Log one run: numbers as metrics, the rest of its row as tags, its folder as artifacts."""
    from mlflow.entities import Metric, Param

    failed = row["status"] == "failed"
    begin = datetime.datetime.fromisoformat(row["started"]).timestamp()
    start, end = int(1000 * begin), int(1000 * (begin + row["seconds"]))  # milliseconds
    tags = {name: str(value) for name, value in row.items() if isinstance(value, str | bool)}
    tags |= {f"version {name}": version for name, version in row["versions"].items()}
    tags |= {"mlflow.source.git.commit": row["commit"] or ""}
    params = [Param(name, str(value)) for name, value in row["parameters"].items()]
    numbers = [Metric(name, value, end, step) for name, value, step in _numbers(row)]
    run = client.create_run(experiment, start, tags, row["name"]).info.run_id
    try:
        for i in range(0, len(numbers), 500):  # a store takes at most a thousand at a time
            client.log_batch(run, numbers[i : i + 500], params)
        try:
            client.log_artifacts(run, str(out / (row["name"] + (FAILED if failed else ""))))
        except Exception as error:  # a store may refuse files
            client.set_tag(run, "artifacts", f"not kept: {error}"[:500])
        client.set_terminated(run, "FAILED" if failed else "FINISHED", end)
    except Exception:
        client.delete_run(run)
        raise


def _numbers(row: Mapping[str, Any]) -> list[tuple[str, float, int]]:
    """Return every number of a row and its results as (`uar/eight actors5 mlp low`, value, count of earlier ones)."""
    numbers = [(name, value) for name, value in row.items() if type(value) in (int, float)]
    score = {"metric": "score"} | {which: (row["score"] or {}).get(which) for which in VALUES}
    for result in [*row["results"], score]:
        about = [value for name, value in result.items() if name != "metric" and isinstance(value, str)]
        for which in VALUES:
            if result[which] is not None:
                name = re.sub(r"[^\w. -]", "-", " ".join([*about, which]))
                numbers.append((f"{result['metric']}/{name}", result[which]))
    names = [name for name, _ in numbers]
    return [(name, value, names[:i].count(name)) for i, (name, value) in enumerate(numbers)]
