"""Runs in an MLflow store too, beside the ledger. Needs the extra `mlflow`."""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ser_lib import ledger
from ser_lib.errors import ReportError
from ser_lib.index import VALUES
from ser_lib.ledger import REPORTS

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
            for row in ledger.runs(out):
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
            client.log_artifacts(run, str(out / (row["name"] + failed * ledger.FAILED)))
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
