"""What a result depends on: library versions, code, data, commit."""

from __future__ import annotations

import ast
import functools
import subprocess
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from ser_lib import ROOT, __version__

if TYPE_CHECKING:
    import pandas as pd

BOOSTER = "xgboost-cpu"
PACKAGE = Path(__file__).parent
LIBRARIES = ("numpy", "scipy", "scikit-learn", "soxr", BOOSTER)


def versions() -> dict[str, str]:
    """Return the installed versions of the libraries that a pickle depends on."""
    installed = {"ser_lib": __version__}
    for name in LIBRARIES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = "absent"
    return installed


def modules(sources: Sequence[str], package: Path = PACKAGE) -> dict[str, Path]:
    """Return the modules of a package that code imports, directly or through other modules, with their files.

    Parameters
    ----------
    sources : sequence of str
        One notebook cell each. For a cell that is not plain Python (`%time …`), all modules count as imported.

    Examples
    --------
    >>> list(modules(["from ser_lib.errors import SerError"]))
    ['ser_lib', 'ser_lib.errors']
    """
    files: dict[str, Path] = {}
    waiting = [name for source in sources for name in _imported(source, "", package)]
    while waiting:
        parts = waiting.pop().split(".")
        for end in range(1, len(parts) + 1):  # importing a module runs its package first
            name, place = ".".join(parts[:end]), package.parent.joinpath(*parts[:end])
            path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
            if parts[0] == package.name and name not in files and path.is_file():
                files[name] = path
                inside = name if place.is_dir() else name.rpartition(".")[0]
                waiting += _imported(path.read_text(encoding="utf-8"), inside, package)
    return dict(sorted(files.items()))


def _imported(source: str, inside: str, package: Path) -> list[str]:
    """Return the full names that a source in the package `inside` imports: modules, and names in modules."""
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except SyntaxError:
        paths = (path.relative_to(package.parent).with_suffix("") for path in package.rglob("*.py"))
        return [".".join(path.parts).removesuffix(".__init__") for path in paths]
    names = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            up = inside.split(".")[: 1 - node.level or None] if node.level else []
            names += [".".join([*up, *filter(None, [node.module]), alias.name]) for alias in node.names]
    return names


@functools.cache
def code_hash(*imports: str) -> str:
    """Return 16 digits of the SHA-256 of all modules that lines like `from ser_lib import audio` import."""
    return sha256(b"".join(path.read_bytes() for path in modules(imports).values())).hexdigest()[:16]


def data_hash(table: pd.DataFrame) -> str:
    """Return 16 digits of the SHA-256 of a table's rows and column names."""
    import pandas as pd  # serving does not need it

    content = pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes()
    return sha256(content + "".join(table.columns).encode()).hexdigest()[:16]


def git_state() -> tuple[str | None, bool | None]:
    """Return the commit and whether files differ from it; None, None outside a checkout."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(
            git("status", "--porcelain", "--", "ser_lib", "notebooks", "data")
        )
    except (OSError, subprocess.CalledProcessError):
        return None, None
