"""The parameters of the notebooks, described there alone: one line each in the cell tagged `parameters`.

    emotions = "eight"  # four | eight | EMOTION,…: whose clips are used

A name, its default, what it may be, its meaning. A lower-case word is a value, an upper-case one a kind
(`KINDS`), and `,…` after a kind a comma-separated list. The default may always be given.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import yaml

from ser_lib import ROOT, corpora, features, models
from ser_lib.errors import ReportError
from ser_lib.evaluation import splits

NOTEBOOKS = ROOT / "notebooks"

# The kinds that are lists of names: what a parameter may be, given the `corpus` of the run.
NAMES: dict[str, Callable[[str], Collection[str]]] = {
    "EMOTION": lambda source: _held(source, "emotion", corpora.EIGHT),
    "FEATURE_SET": lambda source: features.SETS,
    "MODEL": lambda source: models.MODELS,
    "NETWORK": lambda source: tuple(models.NETWORKS),
    "PROTOCOL": lambda source: splits.PROTOCOLS,
    "SPEAKER": lambda source: _held(source, "speaker", splits.PUBLISHED),
}
KINDS = {
    **{kind: "" for kind in NAMES},
    "CORPUS": "a folder of recordings or a CSV manifest",
    "FILE": "a path to write to",
    "NUMBER": "a whole number from 0",
    "RUN": "a run among the reports",
    "TEXT": "any words",
}
MAKE = "; `python -m ser_lib reports --notebook 03 -p corpus=… -p emotions=… --name mine` makes run=mine, in the same --out"
COMMENT = re.compile(r"(?P<alternatives>[a-z0-9A-Z_|,… ]+): (?P<meaning>.+)")


@dataclass(frozen=True)
class Parameter:
    """One line of a parameters cell."""

    name: str
    default: Any
    alternatives: str  # "four | eight | EMOTION,…"
    meaning: str

    @property
    def words(self) -> list[str]:
        """The values that may be given as they are."""
        return [word for word in self.alternatives.split(" | ") if word.islower()]

    @property
    def kind(self) -> str:
        """One of `KINDS`, or empty."""
        return next((k.removesuffix(",…") for k in self.alternatives.split(" | ") if not k.islower()), "")

    def items(self, value: Any) -> list[str]:
        """A value as the names that it holds."""
        if not self.alternatives.endswith(",…"):
            return [str(value)]
        if self.kind == "EMOTION":
            return corpora.emotion_list(str(value))
        return [item.strip() for item in str(value).split(",")]


def cell(notebook: str) -> str:
    """The source of the cell tagged `parameters`.

    Raises
    ------
    ReportError
        No such notebook, or no such cell.
    """
    path = NOTEBOOKS / f"{notebook}.ipynb"
    if not path.is_file():
        raise ReportError(f"{path}: no such notebook")
    for one in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in one["metadata"].get("tags", ()):
            return "".join(one["source"])
    raise ReportError(f"{path}: no cell is tagged 'parameters'")


def assigned(source: str) -> dict[str, Any]:
    """The literals that a cell assigns to names.

    Examples
    --------
    >>> assigned("seed = 0  # NUMBER: of the split")
    {'seed': 0}
    """
    assignments = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    return {node.targets[0].id: ast.literal_eval(node.value) for node in assignments}  # type: ignore[attr-defined]  # plain names


def read(notebook: str) -> dict[str, Parameter]:
    """The parameters of a notebook by name.

    Raises
    ------
    ReportError
        As `cell`, or a parameter is not described as the head of this module says.
    """
    found = {}
    source = cell(notebook)
    lines = {line.split(" =")[0]: line for line in source.splitlines()}
    for name, default in assigned(source).items():
        match = COMMENT.fullmatch(lines.get(name, "").rpartition("  # ")[2])
        one = match and Parameter(name, default, *match.groups())
        if not one or (one.kind and one.kind not in KINDS):
            raise ReportError(
                f"{notebook}: the line of {name} does not end in '  # ALTERNATIVES: meaning'; "
                f"the kinds are {', '.join(KINDS)}"
            )
        found[name] = one
    return found


def defaults(notebook: str) -> dict[str, Any]:
    """The names and default values of a notebook's parameters."""
    return {name: one.default for name, one in read(notebook).items()}


def check_names(notebook: str, names: Sequence[str]) -> None:
    """Refuse parameter names that the notebook does not have.

    Raises
    ------
    ReportError
        Lists the valid names with their defaults.
    """
    valid = defaults(notebook)
    unknown = [name for name in names if name not in valid]
    if unknown:
        listed = ", ".join(f"{name}={value!r}" for name, value in valid.items())
        raise ReportError(f"{notebook} has no parameter {', '.join(unknown)}; it has {listed}")


def convert(notebook: str, name: str, text: str) -> Any:
    """A typed parameter as the type of its default, where it can be one; `check` says where not."""
    if isinstance(defaults(notebook)[name], str):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def check(notebook: str, values: Mapping[str, Any], runs: Collection[str] = ()) -> None:
    """Refuse what the notebook does not allow, before anything is computed.

    Parameters
    ----------
    values : mapping of str to values
        By parameter. Emotions and speakers are those of the `corpus` among them, or of the default corpus.
    runs : collection of str
        What a RUN may be.

    Raises
    ------
    ReportError
        An unknown name, a value of another type than the default, or one that is not allowed; the valid ones
        are listed.
    CorpusError
        A corpus that is not there, or whose files have names of no known kind.
    """
    check_names(notebook, list(values))
    for name, one in read(notebook).items():
        value = values.get(name, one.default)
        what = f"{notebook}: {name}={value!r}"
        if not _of_type(one.default, value):
            expected = f"{one.default!r} ({type(one.default).__name__})"
            raise ReportError(f"{what} is not of the type of its default, {expected}")
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if value == one.default or text in one.words:
            continue
        if not one.kind:
            raise ReportError(f"{what}: give {one.alternatives}")
        for item in one.items(value):
            valid = _refused(one.kind, item, values.get("corpus", ""), runs)
            if valid is not None:
                words = " | ".join([*one.words, f"{one.kind}: {valid}"])
                raise ReportError(f"{what}: {item!r} is not valid; give {words}")


def _of_type(default: Any, value: Any) -> bool:
    """Text may be a number: that is what papermill makes of `-p seeds 7`."""
    if isinstance(default, str):
        return isinstance(value, (str, int)) and not isinstance(value, bool)
    allowed = (int, float) if isinstance(default, float) else type(default)
    return isinstance(value, allowed) and isinstance(value, bool) == isinstance(default, bool)


def _refused(kind: str, item: str, source: str, runs: Collection[str]) -> str | None:
    """What would be valid, if `item` is not of the kind."""
    if kind == "CORPUS":
        clips(item)
        return None
    names = runs if kind == "RUN" else NAMES[kind](source) if kind in NAMES else None
    if names is not None:
        valid = ", ".join(sorted(names) if kind == "RUN" else names) or KINDS[kind]
        return None if item in names else valid + MAKE * (kind == "RUN")
    return None if kind in ("FILE", "TEXT") or item.isdecimal() else KINDS[kind]


def clips(source: str) -> pd.DataFrame | None:
    """The clips of a corpus as their names tell them, no file being opened; None for the shipped table."""
    found = corpora.find_audio(source or None)
    return None if found is None else corpora.listing(found)[0]


def _held(source: str, column: str, shipped: Collection[str]) -> list[str]:
    """The emotions or speakers of a corpus: its own, whatever they are called."""
    table = clips(source)
    return sorted(shipped) if table is None else sorted(table[column].unique())


def help_rows(notebook: str) -> list[tuple[str, str]]:
    """Every parameter with its default, what it may be and its meaning; then the kinds among them."""
    found = read(notebook).values()
    rows = [(f"{one.name}={one.default}", f"{one.alternatives}: {one.meaning}") for one in found]
    kinds = dict.fromkeys(one.kind for one in found if one.kind)
    return rows + [(kind, KINDS[kind] or ", ".join(NAMES[kind](""))) for kind in kinds]
