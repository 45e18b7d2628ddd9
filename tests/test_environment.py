"""The lock, conda's file and pyproject.toml say the same; the shipped reports and README agree."""

from __future__ import annotations

import json
import os
import re
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

import pytest
import yaml
from packaging.markers import Marker
from packaging.requirements import Requirement

from ser_lib import ROOT
from ser_lib.runs import execution, index
from ser_lib.runs.ledger import REPORTS

PIN = re.compile(r"^([a-z0-9.-]+)(?:\[[^\]]+\])?==([^\s;]+)(?: ; (.+?))?(?: \\)?$", flags=re.M)
LOCKS = {
    name: (ROOT / f"requirements-{name}.lock").read_text(encoding="utf-8")
    for name in ("serve", "notebooks", "test")
}


def pinned(name: str) -> dict[str, str]:
    """Versions of a lock that are for this Python and this machine."""
    return {
        package: version
        for package, version, where in PIN.findall(LOCKS[name])
        if not where or Marker(where).evaluate()
    }


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_hashes_for_each_package_and_no_addresses(name):
    entries = re.split(r"\n(?=[a-z0-9-])", LOCKS[name])[1:]
    assert len(entries) == len(PIN.findall(LOCKS[name]))
    for entry in entries:
        assert "--hash=sha256:" in entry, entry.splitlines()[0]
    assert "://" not in LOCKS[name]


@pytest.mark.parametrize("name", LOCKS)
def test_one_version_serves_each_python_but_the_newest(name):
    """Whoever has 3.11, 3.12, 3.13 or 3.14 gets the same figures; for 3.15 some had no wheels yet."""
    several = {
        package
        for package, *_ in PIN.findall(LOCKS[name])
        if [p for p, *_ in PIN.findall(LOCKS[name])].count(package) > 1
    }
    assert several <= {"contourpy", "numpy", "scipy"}
    for package, _, where in PIN.findall(LOCKS[name]):
        if package in several:
            assert "python_full_version" in where
            assert "3.15" in where


def test_each_lock_is_a_part_of_the_next():
    serve, notebooks, test = ({pin[:2] for pin in PIN.findall(LOCKS[name])} for name in LOCKS)
    assert serve < notebooks < test
    assert not {"jupyterlab", "matplotlib", "librosa", "xgboost-cpu"} & {name for name, _ in serve}
    assert not {"pytest", "mypy", "dask"} & {name for name, _ in notebooks}


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_complete(name):
    """With what each package here asks for, as `pip check` does, so that `--no-deps` leaves nothing out."""
    here = pinned(name)
    for package in here:
        for item in map(Requirement, requires(package) or ()):
            wanted = item.marker is None or item.marker.evaluate({"extra": ""})
            if wanted:
                assert item.name.lower().replace("_", "-").replace(".", "-") in here, (
                    f"{package} needs {item}"
                )


def test_the_locks_cover_what_the_project_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = {
        "serve": project["dependencies"],
        "notebooks": extras["notebooks"],
        "test": extras["dev"] + extras["dask"],
    }
    for name, items in asked.items():
        names = {Requirement(item).name for item in items} - {"ser_lib"}
        assert names <= {package for package, *_ in PIN.findall(LOCKS[name])}


def test_conda_installs_the_same_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-r requirements-notebooks.lock"]}
    assert sorted(conda) == ["pip", "python=3.13"]


@pytest.mark.parametrize(
    "name", ["numpy", "scikit-learn", "xgboost-cpu", "pandas", "librosa", "papermill", "flask"]
)
def test_what_runs_is_what_is_locked(name):
    assert version(name) == pinned("test")[name]


def test_the_readme_shows_the_committed_results():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- results -->\n")[2].partition("<!-- /results -->")[0]
    assert shown.strip() == index.readme_tables(execution.STANDARD)
    assert shown.startswith("| who |")
    assert (REPORTS / "README.md").is_file()


def test_the_shipped_model_is_the_one_that_the_reports_chose():
    metadata = json.loads((ROOT / "models" / "ser.json").read_text(encoding="utf-8"))
    results = index.read_results()
    served = results[(results["run"] == "04_choose_and_export") & (results["metric"] == "uar")]
    by_protocol = served.set_index("protocol")[["model", "value"]].T.to_dict("list")
    name, chosen = metadata["estimator"], metadata["chosen"]
    assert name in chosen["inner_uar"]
    assert by_protocol == {
        metadata["headline"]["protocol"]: [name, metadata["headline"]["uar"]],
        "loso": [name, chosen["loso"]["uar"]],
    }


def values(path: Path) -> dict[tuple, float]:
    """Of `metrics.json`, by what they are about."""
    rows = json.loads(path.read_text(encoding="utf-8"))["results"]
    bounds = ("value", "low", "high")
    return {tuple((key, str(row[key])) for key in row if key not in bounds): row["value"] for row in rows}


@pytest.mark.skipif("SER_RERUN" not in os.environ, reason="SER_RERUN names no folder with reports made anew")
def test_reports_made_anew_have_the_committed_scores():
    """On the machine that made them to the last digit; on another CPU within half a point, or a point where tests leak."""
    seen = 0
    for path in Path(os.environ["SER_RERUN"]).glob("reports/*/metrics.json"):
        fresh, committed = values(path), values(REPORTS / path.parent.name / path.name)
        for about in fresh.keys() & committed.keys():
            if dict(about)["metric"].startswith(("uar", "accuracy")):
                leaks = dict(about)["protocol"].startswith(("random", "1 copies", "2 split"))
                assert fresh[about] == pytest.approx(committed[about], abs=0.01 if leaks else 0.005), about
                seen += 1
    assert seen
