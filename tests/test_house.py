"""The house: modules import each other in one direction, rooms are few and small, CONTRIBUTING has their map.

`python tests/test_house.py` writes the map of the folders into CONTRIBUTING.md.
"""

from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from ser_lib import ROOT

PACKAGE = ROOT / "ser_lib"
MAX_MODULES = 48
BASE = {"errors", "provenance", "parallel", "plots"}
# A room may import the base and the rooms before it, as ARROWS says.
ORDER = ("audio", "corpora", "features", "augmentation", "models", "evaluation", "serving", "runs", "cli")
FOLDERS = ("corpora", "audio", *ORDER[2:-1])  # in the order of the data's way, for the map
ARROWS = {
    "errors": set(),
    "provenance": set(),
    "parallel": {"errors"},
    "plots": set(),
    "audio": {"errors"},
    "corpora": {"errors", "audio"},
    "features": {"errors", "provenance", "parallel", "corpora", "audio"},
    "augmentation": {"errors", "corpora", "audio", "features"},
    "models": {"errors", "corpora", "features"},
    "evaluation": {
        "errors",
        "provenance",
        "parallel",
        "corpora",
        "audio",
        "features",
        "augmentation",
        "models",
    },
    "serving": BASE - {"plots"} | {"corpora", "audio", "features", "augmentation", "models", "evaluation"},
    "runs": {"errors", "provenance", "audio", "corpora", "features", "models", "evaluation"},
    "cli": {"errors", "parallel", "corpora", "features", "augmentation", "evaluation", "serving", "runs"},
    "__main__": {"cli"},
}


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(path: Path) -> set[str]:
    """Full names of modules that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: imports are absolute"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in MODULES else str(node.module) for name in full}
    return names


def our_imports(name: str) -> set[str]:
    """Modules of ser_lib that a module imports; all may import `ser_lib`, which has the version and the folders."""
    return {other for other in imported(MODULES[name]) if other in MODULES} - {"ser_lib", name}


def room(name: str) -> str:
    return name.split(".")[1]


def test_no_module_imports_itself_by_way_of_others():
    graph = {name: our_imports(name) for name in MODULES if name != "ser_lib"}
    TopologicalSorter(graph).prepare()  # raises CycleError with the circle


def test_rooms_import_in_one_direction():
    arrows = {
        (room(name), room(other)) for name in MODULES if name != "ser_lib" for other in our_imports(name)
    }
    allowed = {(name, other) for name, others in ARROWS.items() for other in others}
    assert not {f"{a} -> {b}" for a, b in arrows if a != b} - {f"{a} -> {b}" for a, b in allowed}
    for name, others in ARROWS.items():
        if name in ORDER:
            assert others <= BASE | set(ORDER[: ORDER.index(name)]), name


def test_the_server_script_imports_serving_alone():
    ours = {name for name in imported(ROOT / "serve.py") if name.startswith("ser_lib")}
    assert {name.split(".")[1] for name in ours} == {"serving"}


def test_the_house_is_small():
    modules = [path for path in MODULES.values() if path.name != "__init__.py"]
    assert len(modules) <= MAX_MODULES


# --- declared imports -----------------------------------------------------------------------------

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
INSTALLED_BY = {  # import: extra's package, where the names differ or the tests may lack the extra
    "distributed": "dask", "mlflow": "mlflow-skinny",
    "opensmile": "opensmile", "sounddevice": "sounddevice", "torch": "torch",
}  # fmt: skip


def third_party(sources: list[str]) -> set[str]:
    """Top-level names of imports that are neither ours nor Python's."""
    names = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(str(node.module).split(".")[0])
    return names - set(sys.stdlib_module_names) - {"ser_lib", "benchmarks"}


def code_cells(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.parametrize("what", ["ser_lib", "benchmarks", "notebooks"])
def test_every_import_is_declared(what):
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / what).rglob("*.py")]
    sources += [cell for path in (ROOT / what).glob("*.ipynb") for cell in code_cells(path)]
    declared = {
        re.sub(r"[-_.]+", "-", Requirement(item).name).lower()
        for items in (PROJECT["dependencies"], *EXTRAS.values())
        for item in items
    }
    installed = packages_distributions()
    for name in third_party(sources):
        packages = {re.sub(r"[-_.]+", "-", package).lower() for package in installed.get(name, ())}
        assert packages & declared or INSTALLED_BY.get(name) in declared, (
            f"{name} is in no list of pyproject.toml"
        )


# --- the map in CONTRIBUTING.md -------------------------------------------------------------------

BEGIN, END = "<!-- folders -->\n", "<!-- /folders -->"


def module_map() -> str:
    """Markdown: the folders of ser_lib in the order of the data, with the first line of their docstrings."""
    lines = ["| folder | what is in it |", "|---|---|"]
    for name in FOLDERS:
        docstring = ast.get_docstring(ast.parse(MODULES[f"ser_lib.{name}"].read_text(encoding="utf-8")))
        lines.append(f"| `ser_lib/{name}/` | {docstring.splitlines()[0]} |")
    return "\n".join(lines) + "\n"


def test_contributing_has_the_map_of_the_folders():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert text.partition(BEGIN)[2].partition(END)[0] == module_map(), (
        "python tests/test_house.py writes it anew"
    )
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert folders == set(FOLDERS)


if __name__ == "__main__":
    path = ROOT / "CONTRIBUTING.md"
    before, mark, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    path.write_text(before + mark + module_map() + END + rest.partition(END)[2], encoding="utf-8")
