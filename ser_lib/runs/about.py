"""What a run of a notebook is made of: its row in the ledger before it starts."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from ser_lib import ROOT, ledger, parameters, reach, rows, tables
from ser_lib.ledger import REPORTS
from ser_lib.versions import versions


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
        "versions": versions(),
        "data": _data(notebook, values, out),
        "recordings": _recordings(notebook, values),
        "code": code(notebook),
    }


def _data(notebook: str, values: Mapping[str, Any], out: Path) -> str:
    """Hash of what a run reads wherever it is made: the shipped tables and the results of another run."""
    found = sha256(b"".join(path.read_bytes() for path in (*tables.SHIPPED, *tables.SHIPPED_COPIES)))
    for name, one in parameters.read(notebook).items():
        if one.kind == "RUN":
            other = ledger.read(ledger.find(values[name], ledger.FILE, out).parent)
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
                stamps = [(os.path.relpath(path, common), *rows.stamp(path)) for path in paths]
                content = json.dumps([stamps, table.drop(columns="path").to_csv()]).encode()
                found[name] = sha256(content).hexdigest()[:16]
    return found


def code(notebook: str) -> str:
    """Hash of the notebook's cells and of the modules of ser_lib that they reach."""
    cells = json.loads((parameters.NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    found = sha256(b"".join(path.read_bytes() for path in reach.modules(code).values()))
    found.update("\0".join("".join(cell["source"]) for cell in cells).encode())
    return found.hexdigest()[:16]


def git_state() -> tuple[str | None, bool | None]:
    """The commit that is checked out and whether files differ from it; None outside a checkout."""
    questions = ("rev-parse", "HEAD"), ("status", "--porcelain", "--", "ser_lib", "notebooks", "data")
    commands = [["git", "-C", str(ROOT), *question] for question in questions]
    try:
        told = [subprocess.run(c, capture_output=True, encoding="utf-8", check=True).stdout for c in commands]
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return told[0].strip(), bool(told[1])
