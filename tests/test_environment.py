"""The lock, conda's file and pyproject.toml say the same; the shipped reports and README agree."""

from __future__ import annotations

import json
import os
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from ser_lib import ROOT, index, reruns
from ser_lib.ledger import REPORTS

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
PINNED = {
    match[1]: match[2] for match in re.finditer(r"^([a-z0-9-]+)==([^\s;]+)", LOCK, flags=re.M)
}  # one version a package, whatever the Python


def test_the_lock_has_one_version_and_hashes_for_each_package():
    names = re.findall(r"^([a-z0-9-]+)==", LOCK, flags=re.M)
    assert len(names) == len(set(names))
    for entry in re.split(r"\n(?=[a-z0-9-]+==)", LOCK)[1:]:
        assert "--hash=sha256:" in entry, entry.splitlines()[0]
    assert "://" not in LOCK


def test_the_lock_covers_what_the_project_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = [item for part in ("notebooks", "dask", "dev") for item in extras[part]] + project["dependencies"]
    names = {re.match(r"[A-Za-z0-9_-]+", item)[0].replace("_", "-") for item in asked} - {"ser-lib"}
    assert names <= set(PINNED)


def test_conda_installs_the_same_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-r requirements.lock"]}
    assert sorted(conda) == ["pip", "python=3.11"]


@pytest.mark.parametrize(
    "name", ["numpy", "scikit-learn", "xgboost-cpu", "pandas", "librosa", "papermill", "flask"]
)
def test_what_runs_is_what_is_locked(name):
    assert version(name) == PINNED[name]


def test_the_readme_shows_the_committed_results():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = text.partition("<!-- results -->\n")[2].partition("<!-- /results -->")[0]
    assert shown.strip() == index.readme_tables(reruns.STANDARD)
    assert shown.startswith("| who listens |")
    assert (REPORTS / "README.md").is_file()


def test_the_shipped_model_is_the_one_that_the_reports_chose():
    passport = json.loads((ROOT / "models" / "ser.json").read_text(encoding="utf-8"))
    results = index.read_results()
    served = results[(results["run"] == "04_choose_and_export") & (results["metric"] == "uar")]
    by_protocol = served.set_index("protocol")[["model", "value"]].T.to_dict("list")
    name, chosen = passport["estimator"], passport["chosen"]
    assert name in chosen["inner_uar"]
    assert by_protocol == {
        passport["headline"]["protocol"]: [name, passport["headline"]["uar"]],
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
        found, told = values(path), values(REPORTS / path.parent.name / path.name)
        for about in found.keys() & told.keys():
            if dict(about)["metric"].startswith(("uar", "accuracy")):
                leaks = dict(about)["protocol"].startswith(("random", "1 copies", "2 split"))
                assert found[about] == pytest.approx(told[about], abs=0.01 if leaks else 0.005), about
                seen += 1
    assert seen
