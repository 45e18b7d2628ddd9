"""The versions of what a result and a pickled model depend on."""

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
LIBRARIES = ("numpy", "scipy", "scikit-learn", "soxr", BOOSTER)


def versions() -> dict[str, str]:
    """The installed versions of the libraries that a pickle depends on."""
    found = {"ser_lib": __version__}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


# --- code -----------------------------------------------------------------------------------------

PACKAGE = Path(__file__).parent


def modules(sources: Sequence[str], package: Path = PACKAGE) -> dict[str, Path]:
    """The modules of a package that pieces of code import, and those that these import, with their files.

    Parameters
    ----------
    sources : sequence of str
        A cell each. What is no plain Python (`%time …`) may import anything, so with it all modules count.

    Examples
    --------
    >>> list(modules(["from ser_lib.errors import SerError"]))
    ['ser_lib', 'ser_lib.errors']
    """
    found: dict[str, Path] = {}
    waiting = [name for source in sources for name in _imported(source, "", package)]
    while waiting:
        parts = waiting.pop().split(".")
        for end in range(1, len(parts) + 1):  # the code of a package runs before that of what is in it
            name, place = ".".join(parts[:end]), package.parent.joinpath(*parts[:end])
            path = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
            if parts[0] == package.name and name not in found and path.is_file():
                found[name] = path
                inside = name if place.is_dir() else name.rpartition(".")[0]
                waiting += _imported(path.read_text(encoding="utf-8"), inside, package)
    return dict(sorted(found.items()))


def _imported(source: str, inside: str, package: Path) -> list[str]:
    """The full names that a source in the package `inside` imports, of modules and of what is in them."""
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
    """The first 16 hexadecimal digits of the SHA-256 of the sources that lines like `from ser_lib import audio` reach."""
    return sha256(b"".join(path.read_bytes() for path in modules(imports).values())).hexdigest()[:16]


def data_hash(table: pd.DataFrame) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a table's rows and column names."""
    import pandas as pd  # which serving does without

    content = pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes()
    return sha256(content + "".join(table.columns).encode()).hexdigest()[:16]


def git_state() -> tuple[str | None, bool | None]:
    """The commit that is checked out and whether files differ from it; None outside a checkout."""
    questions = ("rev-parse", "HEAD"), ("status", "--porcelain", "--", "ser_lib", "notebooks", "data")
    commands = [["git", "-C", str(ROOT), *question] for question in questions]
    try:
        told = [subprocess.run(c, capture_output=True, encoding="utf-8", check=True).stdout for c in commands]
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return told[0].strip(), bool(told[1])
