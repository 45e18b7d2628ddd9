"""A folder or CSV of recordings to the clip table: one row per clip, the same columns for every corpus.

File names are parsed by the published naming schemes (`schemes`); your own recordings come with a CSV of
`path, speaker, emotion`. A `labels.yaml` in the folder, or beside the CSV, renames labels:
`labels: {joy: happy, boredom: null}`, where null leaves clips out. `A,B` reads several corpora as one table
and keeps their speakers apart. Files that cannot be read are listed as problems and left out.
"""

from __future__ import annotations

import codecs
import itertools
import json
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ser_lib import ROOT, writable
from ser_lib.audio.decoding import SUFFIXES, recordings
from ser_lib.corpora.schemes import LABELS, NAMING, RAVDESS_EMOTIONS, label_map
from ser_lib.errors import CorpusError

EIGHT = tuple(RAVDESS_EMOTIONS.values())
FOUR = ("calm", "happy", "fearful", "disgust")
# Environment variables that name the corpora of a notebook's parameter
VARIABLES = {"other": ("SER_EMODB_DIR",), "voices": ("SER_NEMO_DIR", "SER_KOREAN_DIR")}
CLIP_COLUMNS = (
    "clip_id", "path", "corpus", "speaker", "gender", "emotion", "intensity", "statement",
    "repetition", "duration_s", "sample_rate", "channels", "audio_sha256",
)  # fmt: skip
AUDIO_COLUMNS = {
    "duration_s": float,
    "sample_rate": int,
    "channels": int,
    "audio_sha256": str,
}  # need decoding
SAME_SPEAKERS = {"ravdess-song": "ravdess"}  # the same actors speak and sing
RAVDESS = {*SAME_SPEAKERS, "ravdess"}
TABLES = (".csv", ".tsv", ".txt")
SEPARATORS = (",", ";", "\t", "|")
NEEDED = ("path", "speaker", "emotion")
LEFT_OUT = f"left out by {LABELS}"
CHUNK = 10_000  # files handled at a time; a table row takes less memory than a dictionary

Listing = tuple[pd.DataFrame, list[dict[str, str]]]  # clips, and a `path, problem` of each file left out


def emotion_list(spec: str | Sequence[str]) -> list[str]:
    """`four`, `eight`, or any list (comma-separated text or a sequence) of at least two emotions.

    Raises
    ------
    CorpusError
        Fewer than two names, or a repeated one.

    Examples
    --------
    >>> emotion_list("calm, happy,angry")
    ['calm', 'happy', 'angry']
    """
    if spec == "four":
        return list(FOUR)
    if spec == "eight":
        return list(EIGHT)
    given = spec.split(",") if isinstance(spec, str) else spec
    names = [plain_name(name) for name in given if name.strip()]
    if len(names) < 2 or len(set(names)) < len(names):
        raise CorpusError(f"emotions={spec!r}: give 'four', 'eight' or at least two different names")
    return names


def plain_name(text: str) -> str:
    """A name from a table or the command line in one spelling: accents composed, single blanks, none at the ends.

    Examples
    --------
    >>> plain_name(" very  sad ")
    'very sad'
    """
    return unicodedata.normalize("NFC", " ".join(text.split()))


@dataclass(frozen=True)
class Corpus:
    """The clips of a corpus, and the files left out."""

    clips: pd.DataFrame  # one row per readable clip, columns `CLIP_COLUMNS`
    problems: pd.DataFrame  # `path, problem` of every file left out

    @property
    def stereo(self) -> pd.DataFrame:
        """The clips that were mixed down from several channels."""
        return self.clips[self.clips["channels"] > 1]

    @property
    def duplicates(self) -> pd.DataFrame:
        """The clips whose decoded samples equal those of another clip."""
        return self.clips[self.clips["audio_sha256"].duplicated(keep=False)].sort_values("audio_sha256")

    def summary(self) -> str:
        """The corpus in one line, for a report."""
        clips = self.clips
        return (
            f"{len(clips)} clips of {clips['speaker'].nunique()} speakers, "
            f"{clips['emotion'].nunique()} emotions; {len(self.problems)} file(s) left out, "
            f"{len(self.stereo)} mixed down from stereo, {len(self.duplicates)} sample-identical"
        )


# --- tables ----------------------------------------------------------------------------------------


def listing(source: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """List the clips of a folder or manifest without opening a recording.

    Parameters
    ----------
    source : path
        A folder (with its subfolders; the naming scheme is the one of `NAMING` that fits most files), a CSV
        with `path, speaker, emotion` and any other of `CLIP_COLUMNS` (relative paths start at the CSV's
        folder; see `_read_cells` for what a CSV may be), or several of these, comma-separated.

    Returns
    -------
    clips : DataFrame
        One row per file, columns `CLIP_COLUMNS` without `AUDIO_COLUMNS`.
    problems : DataFrame
        `path, problem` of the files left out.

    Raises
    ------
    CorpusError
        No such folder, no recordings in it, names of no known corpus, a manifest without the three
        columns or with an empty cell, a label with a comma, an invalid `labels.yaml`, or two manifests of one name.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     pd.DataFrame({"path": ["a.wav"], "speaker": "ann", "emotion": "sad"}).to_csv(f"{folder}/own.csv")
    ...     clips, problems = listing(f"{folder}/own.csv")
    >>> clips[["clip_id", "corpus", "speaker", "emotion"]].to_dict("records")
    [{'clip_id': 'a', 'corpus': 'own', 'speaker': 'ann', 'emotion': 'sad'}]
    """
    parts, problems = [], []
    for part in sources(source):
        clips, unreadable = list_source(part)
        clips, dropped = _relabel(part, clips)
        parts.append((part, clips))
        problems += unreadable + dropped
    if len(parts) > 1:
        clips, repeated = _join(parts)
        problems += repeated
    if clips.empty:
        reason = problems[0]["problem"] if problems else "nothing in it"
        raise CorpusError(f"{source}: no readable clip ({reason})")
    with_comma = clips[clips["emotion"].str.contains(",", regex=False)]
    for path, label in zip(with_comma["path"], with_comma["emotion"], strict=True):
        raise CorpusError(
            f"{path}: the comma in its emotion {label!r} separates names in emotions=…; rename the label in {LABELS}, "
            f"for example `labels: {{{json.dumps(label)}: {label.split(',')[0].strip()}}}`"
        )
    columns = [name for name in CLIP_COLUMNS if name not in AUDIO_COLUMNS]
    return clips[columns], pd.DataFrame(problems, columns=["path", "problem"])


def sources(source: str | Path) -> list[Path]:
    """Split `A,B` into its folders and manifests. A path that exists is one source, even with a comma in it.

    Raises
    ------
    CorpusError
        Nothing is named.
    """
    whole = _expand(source)
    if os.path.exists(whole):
        return [whole]
    parts = [_expand(part.strip()) for part in str(source).split(",") if part.strip()]
    if not parts:
        raise CorpusError(f"corpus={str(source)!r} names nothing; give a folder or a CSV manifest")
    return parts


def _expand(path: str | Path) -> Path:
    """`~` to the home folder; `~nobody` stays (pathlib raises RuntimeError)."""
    return Path(os.path.expanduser(path))


def list_source(source: Path) -> Listing:
    """List the clips of one folder or manifest, with the labels as published."""
    if os.path.isdir(source):
        return _list_folder(source)
    if not os.path.exists(source):
        raise CorpusError(f"{source}: no such folder or CSV manifest; set SER_RAVDESS_DIR or run `make data`")
    if source.suffix.lower() not in TABLES:
        raise CorpusError(
            f"{source}: a file, but no table ({', '.join(TABLES)}); give a folder of recordings, or a CSV with "
            "path, speaker, emotion"
        )
    return _read_manifest(source), []


def _join(parts: list[tuple[Path, pd.DataFrame]]) -> Listing:
    """Join several corpora. Different corpora get prefixes: speaker 03 of one is not speaker 03 of another."""
    first: dict[str, Path] = {}
    prefixed = []
    for source, clips in parts:
        corpus = "+".join(sorted(set(clips["corpus"].replace(SAME_SPEAKERS))))
        other = first.setdefault(corpus, source)
        if source.is_file() and other.is_file() and other != source:
            raise CorpusError(
                f"{other} and {source}: both are corpus {corpus!r}, so their speakers would be mixed up; "
                "rename one of the files, or give it a column corpus"
            )
        prefix = f"{corpus}:"
        prefixed.append(clips.assign(speaker=prefix + clips["speaker"], clip_id=prefix + clips["clip_id"]))
    tables = prefixed if len(first) > 1 else [clips for _, clips in parts]
    return _drop_repeated(pd.concat(tables, ignore_index=True))


def _drop_repeated(clips: pd.DataFrame) -> Listing:
    """Keep the first clip of each name; the others become problems."""
    repeated = clips["clip_id"].duplicated()
    problems = [
        {"path": path, "problem": f"{Path(path).name}: a second file of this name"}
        for path in clips["path"][repeated]
    ]
    return clips[~repeated].reset_index(drop=True), problems


def _relabel(source: Path, clips: pd.DataFrame) -> Listing:
    """Apply the `labels.yaml` of a source, if there is one."""
    labels = {
        plain_name(label): emotion and plain_name(emotion) for label, emotion in label_map(source).items()
    }
    if not labels:
        return clips, []
    emotion = clips["emotion"].map(lambda label: labels.get(label, label))
    dropped = clips[emotion.isna()]
    problems = [
        {"path": path, "problem": f"{path}: {label}, {LEFT_OUT}"}
        for path, label in zip(dropped["path"], dropped["emotion"], strict=True)
    ]
    return clips.assign(emotion=emotion)[emotion.notna()].reset_index(drop=True), problems


# --- files -----------------------------------------------------------------------------------------


def _list_folder(folder: Path) -> Listing:
    files, problems = [], []
    for file in map(str, recordings(folder)):
        if re.search("[\ud800-\udfff]", file):  # a table holds text
            name = file.encode("utf-8", "backslashreplace").decode()
            text = f"{name}: the name is not in the system's encoding; rename it, or set PYTHONUTF8=1"
            problems.append({"path": name, "problem": text})
        elif os.path.isdir(file):
            text = f"{file}: the folder cannot be read; change its permissions"
            problems.append({"path": file, "problem": text})
        else:
            files.append(file)
    files.sort(key=lambda path: path.replace(os.sep, "\0"))  # folder by folder
    if not files and problems:
        raise CorpusError(problems[0]["problem"])
    if not files:
        raise CorpusError(f"{folder}: no recordings ({', '.join(SUFFIXES)}) in it or its subfolders")
    matches = {name: sum(parse(Path(path)) is not None for path in files) for name, parse in NAMING.items()}
    scheme = max(matches, key=matches.__getitem__)
    if not matches[scheme]:
        raise CorpusError(
            f"{folder}: {Path(files[0]).name} and the other names fit no known corpus ({', '.join(NAMING)}); "
            "give a CSV manifest with path, speaker, emotion"
        )
    parts = []
    for start in range(0, len(files), CHUNK):
        rows = []
        for path in map(Path, files[start : start + CHUNK]):
            row = NAMING[scheme](path)
            if row is None:
                problems.append({"path": str(path), "problem": f"{path.name}: not a {scheme} name"})
            else:
                rows.append({"clip_id": path.stem, "path": str(path), **row})
        parts.append(pd.DataFrame(rows))
    clips, repeated = _drop_repeated(_fill_columns(pd.concat(parts, ignore_index=True)))
    return clips, problems + repeated


def _read_manifest(path: Path) -> pd.DataFrame:
    table = _read_cells(path)
    if missing := [name for name in NEEDED if name not in table]:
        raise CorpusError(
            f"{path}: no column {', '.join(missing)} among {', '.join(filter(None, table.columns))}; it needs "
            f"{', '.join(NEEDED)}"
        )
    table = table[[name for name in CLIP_COLUMNS if name in table]].copy()
    for name in ("path", "speaker", "emotion", "corpus", "clip_id"):
        if name in table and (table[name] == "").any():
            remedy = "fill it in" if name in NEEDED else "fill it in, or delete the column"
            raise CorpusError(f"{path}: line {table.index[table[name] == ''][0]}: no {name}; {remedy}")
    for name in ("speaker", "emotion"):  # as `emotion_list` has them
        table[name] = _map(table[name], plain_name)
    if "repetition" in table:
        table["repetition"] = _whole_numbers(table["repetition"], path)
    table["path"] = _map(table["path"], lambda name: _as_written_here(path.parent, name))
    if "clip_id" not in table:
        table["clip_id"] = _clip_ids(table["path"])
    repeated = table["clip_id"].duplicated()
    if repeated.any():
        clip = table["clip_id"][repeated].iloc[0]
        first, second = table.index[table["clip_id"] == clip][:2]
        raise CorpusError(
            f"{path}: {clip} is listed twice, lines {first} and {second}; delete one of the two"
        )
    first = next(iter(table["path"]), "")
    if not os.path.exists(path.parent / first) and os.path.exists(first):
        raise CorpusError(
            f"{path}: {first} is not in the folder of the CSV, where paths start; "
            f"write it as {os.path.relpath(first, path.parent)}"
        )
    table["path"] = _map(table["path"], lambda name: str(path.parent / name))
    if "corpus" not in table:
        table["corpus"] = path.stem
    return _fill_columns(table.reset_index(drop=True))


def _read_cells(path: Path) -> pd.DataFrame:
    """All cells as text without blanks around them, the header in lower case, the line number as index.

    The text is UTF-8 or, with its byte order mark, UTF-16. The separator is the one that gives most of `NEEDED`.
    """
    with open(path, "rb") as binary:
        start = binary.read(2)
    encoding = "utf-16" if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
    separator = ","
    try:
        with open(path, encoding=encoding, newline="") as file:
            blank = (not line.strip() or line.lower().startswith("sep=") for line in file)
            skipped = sum(1 for _ in itertools.takewhile(bool, blank))
        with open(path, encoding=encoding, newline="") as file:
            header = next(itertools.islice(file, skipped, None), "")
            separator = max(SEPARATORS, key=lambda mark: len(set(NEEDED) & set(_names(header.split(mark)))))
            file.seek(0)
            cells = pd.read_csv(
                file, sep=separator, header=None, skiprows=skipped, dtype=str, skipinitialspace=True,
                keep_default_na=False, skip_blank_lines=False,
            )  # fmt: skip
    except UnicodeError as error:
        raise CorpusError(f"{path}: not a text in UTF-8 ({error}); save it as 'CSV UTF-8'") from error
    except ValueError as error:
        what = str(error).strip().rpartition("error: ")[2]
        raise CorpusError(
            f"{path}: not a CSV table ({what}); put cells with a {separator!r} in double quotes"
        ) from error
    cells = cells.apply(lambda column: column.str.strip())
    names = _names(cells.iloc[0])
    for name in CLIP_COLUMNS:
        if names.count(name) > 1:
            raise CorpusError(f"{path}: two columns {name}; rename one of them")
    cells = cells.set_axis(names, axis="columns").set_axis(cells.index + skipped + 1).iloc[1:]
    return cells[(cells != "").any(axis=1)]


def _names(header: Iterable[str]) -> list[str]:
    return [name.strip(' \t\r\n"').lower() for name in header]


def _as_written_here(folder: Path, name: str) -> str:
    """A path of the manifest as this system writes it: `~`, backslashes, composed or decomposed accents."""
    name = os.path.expanduser(name)
    if "\\" not in name and name.isascii():
        return name
    slashes = name.replace("\\", "/")
    spellings = [name, slashes, *(unicodedata.normalize(form, slashes) for form in ("NFC", "NFD"))]
    return next((each for each in spellings if os.path.exists(folder / each)), slashes)


def _clip_ids(paths: pd.Series) -> pd.Series:
    """The paths without suffix; with it where two would be equal, as those of `a.wav` and `a.mp3`."""
    paths = _map(paths, lambda name: Path(name).as_posix())
    stems = _map(paths, lambda name: os.path.splitext(name)[0])
    return stems.where(~stems.duplicated(keep=False), paths)


def _whole_numbers(cells: pd.Series, path: Path) -> pd.Series:
    numbers = pd.to_numeric(cells.where(cells != "", "1"), errors="coerce")
    for line, cell in cells[numbers.isna() | (numbers % 1 != 0)].items():
        raise CorpusError(f"{path}: line {line}: repetition {cell!r} is no whole number; correct it")
    return numbers.astype(int)


def _map(names: pd.Series, function: Callable[[str], str]) -> pd.Series:
    """`names.map(function)` with only `CHUNK` Python strings in memory at a time."""
    starts = range(0, max(1, len(names)), CHUNK)
    return pd.concat([names[start : start + CHUNK].map(function) for start in starts])


def _fill_columns(clips: pd.DataFrame) -> pd.DataFrame:
    """Fill the clip columns that a corpus leaves open."""
    defaults = {"gender": "unknown", "intensity": "unspecified", "statement": "", "repetition": 1}
    for name, value in defaults.items():
        clips[name] = clips[name].fillna(value).replace("", value) if name in clips else value
    return clips


def default_audio(parameter: str) -> str:
    """The corpora, `A,B`, that a notebook's parameter means when it is empty, from the environment; "" if none.

    Examples
    --------
    >>> default_audio("corpus")  # RAVDESS, which `find_audio` finds
    ''
    """
    folders = [os.environ.get(variable, "") for variable in VARIABLES.get(parameter, ())]
    return ",".join(folder for folder in folders if folder)


def find_audio(folder: str | Path | None = None) -> Path | None:
    """The corpus or corpora (`A,B`) to read: `folder`, else SER_RAVDESS_DIR, else data/ravdess, else None.

    Raises
    ------
    CorpusError
        A folder was given and does not exist.
    """
    named = folder or os.environ.get("SER_RAVDESS_DIR")
    if named:
        if gone := [part for part in sources(named) if not os.path.exists(part)]:
            raise CorpusError(f"{gone[0]}: no such folder; correct corpus=… or SER_RAVDESS_DIR, or unset it")
        return _expand(named)
    here = ROOT / "data" / "ravdess"
    return next((place for place in (here, writable(here)) if place.is_dir()), None)
