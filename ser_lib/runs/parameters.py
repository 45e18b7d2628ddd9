"""The parameters of the notebooks. Each is described on its line in the notebook's cell tagged `parameters`.

    emotions = "eight"  # four | eight | EMOTION,…: whose clips are used

The line has the name, the default, the allowed values and the meaning. A lower-case word is a value, an
upper-case word a kind (`KINDS`); `,…` after a kind means a comma-separated list. The default is always allowed.
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

# The kinds that are lists of names. Each function takes the `corpus` of the run.
NAMES: dict[str, Callable[[str], Collection[str]]] = {
    "EMOTION": lambda source: _names_in_corpus(source, "emotion", corpora.EIGHT),
    "FEATURE_SET": lambda source: features.SETS,
    "MODEL": lambda source: models.MODELS,
    "NETWORK": lambda source: tuple(models.NETWORKS),
    "PROTOCOL": lambda source: splits.PROTOCOLS,
    "SPEAKER": lambda source: _names_in_corpus(source, "speaker", splits.PUBLISHED),
}
KINDS = {
    **dict.fromkeys(NAMES, ""),
    "CORPUS": "a folder of recordings or a CSV manifest",
    "FILE": "a path to write to",
    "NUMBER": "a whole number from 0",
    "RUN": "a run among the reports",
    "TEXT": "any words",
}
MAKE_RUN = (
    "; `python -m ser_lib reports --notebook 03 -p corpus=… -p emotions=… --name mine` makes run=mine, "
    "in the same --out"
)
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
        """The allowed values that are written out."""
        return [word for word in self.alternatives.split(" | ") if word.islower()]

    @property
    def kind(self) -> str:
        """One of `KINDS`, or empty."""
        kinds = [word.removesuffix(",…") for word in self.alternatives.split(" | ") if not word.islower()]
        return kinds[0] if kinds else ""

    def items(self, value: Any) -> list[str]:
        """The names in a value: several where the kind is a list."""
        if not self.alternatives.endswith(",…"):
            return [str(value)]
        if self.kind == "EMOTION":
            return corpora.emotion_list(str(value))
        return [item.strip() for item in str(value).split(",")]


# --- reading the notebooks ------------------------------------------------------------------------


def read_parameters(notebook: str) -> dict[str, Parameter]:
    """Return the parameters of a notebook by name.

    Raises
    ------
    ReportError
        No such notebook, no cell tagged `parameters`, or a line without a description.
    """
    source = _parameters_cell(notebook)
    lines = {line.split(" =")[0]: line for line in source.splitlines()}
    parameters = {}
    for name, default in literals(source).items():
        match = COMMENT.fullmatch(lines.get(name, "").rpartition("  # ")[2])
        parameter = match and Parameter(name, default, *match.groups())
        if not parameter or (parameter.kind and parameter.kind not in KINDS):
            raise ReportError(
                f"{notebook}: the line of {name} does not end in '  # ALTERNATIVES: meaning'; "
                f"the kinds are {', '.join(KINDS)}"
            )
        parameters[name] = parameter
    return parameters


def _parameters_cell(notebook: str) -> str:
    path = NOTEBOOKS / f"{notebook}.ipynb"
    if not path.is_file():
        raise ReportError(f"{path}: no such notebook")
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if "parameters" in cell["metadata"].get("tags", ()):
            return "".join(cell["source"])
    raise ReportError(f"{path}: no cell is tagged 'parameters'")


def literals(source: str) -> dict[str, Any]:
    """Return the literals that a cell assigns, by name.

    Examples
    --------
    >>> literals("seed = 0  # NUMBER: of the split")
    {'seed': 0}
    """
    assignments = [node for node in ast.parse(source).body if isinstance(node, ast.Assign)]
    return {node.targets[0].id: ast.literal_eval(node.value) for node in assignments}  # type: ignore[attr-defined]  # plain names


def defaults(notebook: str) -> dict[str, Any]:
    """Return the default value of each parameter of a notebook."""
    return {name: parameter.default for name, parameter in read_parameters(notebook).items()}


def help_rows(notebook: str) -> list[tuple[str, str]]:
    """Return a line for each parameter (default, allowed values, meaning), then one for each kind they use."""
    parameters = read_parameters(notebook).values()
    rows = [(f"{one.name}={one.default}", f"{one.alternatives}: {one.meaning}") for one in parameters]
    kinds = dict.fromkeys(one.kind for one in parameters if one.kind)
    return rows + [(kind, KINDS[kind] or ", ".join(NAMES[kind](""))) for kind in kinds]


# --- checking values ------------------------------------------------------------------------------


def convert(notebook: str, name: str, text: str) -> Any:
    """Return a value from the command line as the type of the default; `check_values` refuses another type."""
    if isinstance(defaults(notebook)[name], str):
        return text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def check_names(notebook: str, names: Sequence[str]) -> None:
    """Raise ReportError, with the valid names, for parameter names that the notebook does not have."""
    valid = defaults(notebook)
    unknown = [name for name in names if name not in valid]
    if unknown:
        listed = ", ".join(f"{name}={value!r}" for name, value in valid.items())
        raise ReportError(f"{notebook} has no parameter {', '.join(unknown)}; it has {listed}")


def check_values(notebook: str, values: Mapping[str, Any], runs: Collection[str] = ()) -> None:
    """Check parameter values before anything is computed.

    Parameters
    ----------
    values : mapping of str to values
        By parameter. Emotions and speakers must be in the `corpus` among them, or in the default corpus.
    runs : collection of str
        The valid values of a RUN.

    Raises
    ------
    ReportError
        An unknown name, a value of another type than the default, or a value that is not allowed; the message
        lists the allowed ones.
    CorpusError
        A corpus that does not exist, or file names of no known scheme.
    """
    check_names(notebook, list(values))
    for name, parameter in read_parameters(notebook).items():
        value = values.get(name, parameter.default)
        what = f"{notebook}: {name}={value!r}"
        if not _same_type(parameter.default, value):
            expected = f"{parameter.default!r} ({type(parameter.default).__name__})"
            raise ReportError(f"{what} is not of the type of its default, {expected}")
        text = str(value).lower() if isinstance(value, bool) else str(value)
        if value == parameter.default or text in parameter.words:
            continue
        if not parameter.kind:
            raise ReportError(f"{what}: give {parameter.alternatives}")
        for item in parameter.items(value):
            valid = _valid_instead(parameter.kind, item, values.get("corpus", ""), runs)
            if valid is not None:
                words = " | ".join([*parameter.words, f"{parameter.kind}: {valid}"])
                raise ReportError(f"{what}: {item!r} is not valid; give {words}")


def _same_type(default: Any, value: Any) -> bool:
    """Whether the types agree; a number may stand for text, as papermill turns `-p seeds 7` into a number."""
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, str):
        return isinstance(value, (str, int))
    return isinstance(value, (int, float) if isinstance(default, float) else type(default))


def _valid_instead(kind: str, item: str, source: str, runs: Collection[str]) -> str | None:
    """Return the values that are allowed instead of `item`; None where `item` is allowed."""
    if kind == "CORPUS":
        corpus_clips(item)
        return None
    if kind in ("FILE", "TEXT") or (kind == "NUMBER" and item.isdecimal()):
        return None
    if kind == "NUMBER":
        return KINDS[kind]
    names = sorted(runs) if kind == "RUN" else NAMES[kind](source)
    if item in names:
        return None
    return (", ".join(names) or KINDS[kind]) + (MAKE_RUN if kind == "RUN" else "")


def corpus_clips(source: str) -> pd.DataFrame | None:
    """Return the clip table of a corpus from file names alone; None for the shipped table."""
    folder = corpora.find_audio(source or None)
    return None if folder is None else corpora.listing(folder)[0]


def _names_in_corpus(source: str, column: str, shipped: Collection[str]) -> list[str]:
    table = corpus_clips(source)
    return sorted(shipped) if table is None else sorted(table[column].unique())
