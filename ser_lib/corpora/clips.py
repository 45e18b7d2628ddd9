"""A folder or CSV of recordings to the clip table: one row per clip, the same columns for every corpus.

File names are parsed by the published naming schemes (`schemes`); your own recordings come with a CSV of
`path, speaker, emotion`. A `labels.yaml` in the folder, or beside the CSV, renames labels:
`labels: {joy: happy, boredom: null}`, where null leaves clips out. `A,B` reads several corpora as one table
and keeps their speakers apart. Files that cannot be read are listed as problems and left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ser_lib import ROOT, writable
from ser_lib.audio.decoding import SUFFIXES, recordings
from ser_lib.corpora.schemes import LABELS, NAMING, RAVDESS_EMOTIONS, label_map
from ser_lib.errors import CorpusError

EIGHT = tuple(RAVDESS_EMOTIONS.values())
FOUR = ("calm", "happy", "fearful", "disgust")
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
    names = [name.strip() for name in given if name.strip()]
    if len(names) < 2 or len(set(names)) < len(names):
        raise CorpusError(f"emotions={spec!r}: give 'four', 'eight' or at least two different names")
    return names


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
        folder), or several of these, comma-separated.

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
        columns, an invalid `labels.yaml`, or two manifests of one name.

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
    columns = [name for name in CLIP_COLUMNS if name not in AUDIO_COLUMNS]
    return clips[columns], pd.DataFrame(problems, columns=["path", "problem"])


def sources(source: str | Path) -> list[Path]:
    """Split `A,B` into its folders and manifests. A path that exists is one source, even with a comma in it."""
    whole = Path(source).expanduser()
    if whole.exists():
        return [whole]
    return [Path(part.strip()).expanduser() for part in str(source).split(",") if part.strip()]


def list_source(source: Path) -> Listing:
    """List the clips of one folder or manifest, with the labels as published."""
    if source.is_dir():
        return _list_folder(source)
    if source.suffix.lower() == ".csv" and source.is_file():
        return _read_manifest(source), []
    raise CorpusError(f"{source}: no such folder or CSV manifest; set SER_RAVDESS_DIR or run `make data`")


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
    labels = label_map(source)
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
    files = [str(path) for path in recordings(folder)]
    files.sort(key=lambda path: path.replace(os.sep, "\0"))  # folder by folder
    if not files:
        raise CorpusError(f"{folder}: no recordings ({', '.join(SUFFIXES)}) in it or its subfolders")
    for file in files:
        if re.search("[\ud800-\udfff]", file):
            raise CorpusError(
                f"{file}: the name is not in the system's encoding; rename it, or set PYTHONUTF8=1"
            )
    matches = {name: sum(parse(Path(path)) is not None for path in files) for name, parse in NAMING.items()}
    scheme = max(matches, key=matches.__getitem__)
    if not matches[scheme]:
        raise CorpusError(
            f"{folder}: {Path(files[0]).name} and the other names fit no known corpus ({', '.join(NAMING)}); "
            "give a CSV manifest with path, speaker, emotion"
        )
    parts, problems = [], []
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
    try:
        table = pd.read_csv(path, dtype={name: str for name in CLIP_COLUMNS if name != "repetition"})
    except ValueError as error:
        raise CorpusError(f"{path}: not a CSV table ({error})") from error
    needed = ["path", "speaker", "emotion"]
    if missing := [name for name in needed if name not in table]:
        raise CorpusError(f"{path}: no column {', '.join(missing)}; it needs path, speaker, emotion")
    incomplete = table.index[table[needed].isna().any(axis=1)]
    if len(incomplete):
        raise CorpusError(f"{path}: line {incomplete[0] + 2} lacks a path, speaker or emotion")
    table = table[[name for name in CLIP_COLUMNS if name in table]].copy()
    if "clip_id" not in table:
        table["clip_id"] = _map(table["path"], lambda name: Path(name).with_suffix("").as_posix())
    repeated = table["clip_id"][table["clip_id"].duplicated()]
    if len(repeated):
        raise CorpusError(f"{path}: {repeated.iloc[0]} is listed twice; delete one of the two lines")
    first = next(iter(table["path"]), "")
    if not (path.parent / first).exists() and Path(first).exists():
        raise CorpusError(
            f"{path}: {first} is not in the folder of the CSV, where paths start; "
            f"write it as {os.path.relpath(first, path.parent)}"
        )
    table["path"] = _map(table["path"], lambda name: str(path.parent / name))
    if "corpus" not in table:
        table["corpus"] = path.stem
    return _fill_columns(table)


def _map(names: pd.Series, function: Callable[[str], str]) -> pd.Series:
    """`names.map(function)` with only `CHUNK` Python strings in memory at a time."""
    starts = range(0, max(1, len(names)), CHUNK)
    return pd.concat([names[start : start + CHUNK].map(function) for start in starts])


def _fill_columns(clips: pd.DataFrame) -> pd.DataFrame:
    """Fill the clip columns that a corpus leaves open."""
    defaults = {"gender": "unknown", "intensity": "unspecified", "statement": "", "repetition": 1}
    for name, value in defaults.items():
        clips[name] = clips[name].fillna(value) if name in clips else value
    return clips


def find_audio(folder: str | Path | None = None) -> Path | None:
    """The corpus or corpora (`A,B`) to read: `folder`, else SER_RAVDESS_DIR, else data/ravdess, else None.

    Raises
    ------
    CorpusError
        A folder was given and does not exist.
    """
    named = folder or os.environ.get("SER_RAVDESS_DIR")
    if named:
        if gone := [part for part in sources(named) if not part.exists()]:
            raise CorpusError(f"{gone[0]}: no such folder; correct corpus=… or SER_RAVDESS_DIR, or unset it")
        return Path(named).expanduser()
    here = ROOT / "data" / "ravdess"
    return next((place for place in (here, writable(here)) if place.is_dir()), None)
