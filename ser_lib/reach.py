"""What code a notebook reaches by its imports, told from the sources alone: nothing is imported.

An import inside a function counts like any other. A module that is named in a text only, as for
`importlib.import_module`, is not seen, nor are those that no notebook imports: `reruns`, which starts the runs, or
`index`. They decide on how a notebook is run and shown, not on what it finds.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from pathlib import Path

PACKAGE = Path(__file__).parent


def modules(sources: Sequence[str], package: Path = PACKAGE) -> dict[str, Path]:
    """The modules of a package that pieces of code import, and those that these import, with their files.

    Parameters
    ----------
    sources : sequence of str
        A cell each. What is no plain Python (`%time …`) may import anything, so with it all modules count.

    Examples
    --------
    >>> list(modules(["from ser_lib.lld import magnitudes"]))
    ['ser_lib', 'ser_lib.lld']
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
