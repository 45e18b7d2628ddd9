"""What a notebook reaches by its imports, in packages made for it and in this one."""

from __future__ import annotations

import json
import shutil

import pytest

from ser_lib import ROOT, provenance
from ser_lib.runs import execution, ledger, parameters

NOTEBOOKS = sorted({run.notebook for run in execution.RUNS})
TREE = {
    "__init__": "",
    "a": "from lib import b",
    "b": "def later():\n    import lib.deep.c as c",
    "deep/__init__": "from . import of_init",
    "deep/of_init": "",
    "deep/c": "from .d import name\nfrom ..e import name as other",
    "deep/d": "import lib.deep.c  # and back",
    "deep/deeper/f": "from ... import g",  # a folder without __init__
    "e": "import os, elsewhere.b",
    "g": "",
    "h": "",
}


@pytest.fixture
def package(tmp_path):
    for name, source in TREE.items():
        path = tmp_path / "lib" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return tmp_path / "lib"


@pytest.mark.parametrize(
    ("source", "reached"),
    [
        ("import json", ""),
        ("import lib", "lib"),
        ("import lib.e, json", "lib lib.e"),
        ("from lib import e as it, h", "lib lib.e lib.h"),
        ("from lib.h import name", "lib lib.h"),
        ("from lib.h import *", "lib lib.h"),
        ("from lib.a import x", "lib lib.a lib.b lib.deep lib.deep.c lib.deep.d lib.deep.of_init lib.e"),
        ("from lib.deep import d", "lib lib.deep lib.deep.c lib.deep.d lib.deep.of_init lib.e"),
        ("from lib.deep.deeper import f", "lib lib.deep lib.deep.deeper.f lib.deep.of_init lib.g"),
        ("if 1:\n    try:\n        import lib.h\n    except ImportError:\n        pass", "lib lib.h"),
    ],
)
def test_imports_are_followed(package, source, reached):
    files = provenance.modules(["x = 1", source], package)
    assert " ".join(files) == reached
    assert all(path.is_file() for path in files.values())


def test_what_is_no_plain_python_may_import_anything(package):
    every = {f"lib.{name}".replace("/", ".").removesuffix(".__init__") for name in TREE}
    assert set(provenance.modules(["%time import lib.h"], package)) == every
    (package / "h.py").write_text("import (", encoding="utf-8")
    assert set(provenance.modules(["import lib.h"], package)) == every


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """The codes of all notebooks after an edit of some modules, in a copy of the package."""
    shutil.copytree(ROOT / "ser_lib", tmp_path / "ser_lib")
    modules = provenance.modules
    monkeypatch.setattr(provenance, "modules", lambda sources: modules(sources, tmp_path / "ser_lib"))

    def codes(*names):
        for name in names:
            (path,) = (tmp_path / "ser_lib").rglob(f"{name}.py")
            path.write_text(path.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")
        return {notebook: ledger._code_hash(notebook) for notebook in NOTEBOOKS}

    return codes


def test_an_edit_changes_the_code_of_the_notebooks_that_reach_it(edited):
    before = edited()
    assert edited("answers", "server", "execution", "index", "cli") == before
    after = edited("stress")
    changed = {notebook for notebook in NOTEBOOKS if after[notebook] != before[notebook]}
    assert changed == set(NOTEBOOKS) - {"01_eda", "02_features"}  # which call no study
    again = edited("metrics")
    assert all(again[notebook] != after[notebook] for notebook in NOTEBOOKS)


def test_an_edit_of_a_cell_changes_the_code(tmp_path, monkeypatch):
    before = ledger._code_hash("01_eda")
    notebook = json.loads((parameters.NOTEBOOKS / "01_eda.ipynb").read_text(encoding="utf-8"))
    notebook["cells"][0]["source"] += ["More."]
    (tmp_path / "01_eda.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    monkeypatch.setattr(parameters, "NOTEBOOKS", tmp_path)
    assert ledger._code_hash("01_eda") != before


def test_no_notebook_reaches_what_serves_or_measures():
    for notebook in NOTEBOOKS:
        cells = json.loads((parameters.NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
        files = provenance.modules(["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"])
        names = {name.rpartition(".")[2] for name in files}
        assert {"report", "metrics", "tables", "features"} <= names
        assert not names & {"listen", "server", "bench", "cli", "index", "reruns", "export", "download"}
        assert ("bundle" in names) == (notebook == "04_choose_and_export")
