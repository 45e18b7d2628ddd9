"""A folder of recordings to the clip table: one row a clip, the same columns for every corpus.

File names are read by the corpora's documented schemes; anyone's own recordings come with a CSV of
`path, speaker, emotion`. A `labels.yaml` in the folder, or beside the CSV, gives labels other names:
`labels: {joy: happy, boredom: null}`, null leaving clips out. Several corpora are `A,B`; their speakers
are then told apart by the corpus. What cannot be read is listed by name and left out, the rest goes on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
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
FACTS = {"duration_s": float, "sample_rate": int, "channels": int, "audio_sha256": str}  # they need decoding
SAME_SPEAKERS = {"ravdess-song": "ravdess"}  # the actors that speak also sing
RAVDESS = {*SAME_SPEAKERS, "ravdess"}
LEFT_OUT = f"left out by {LABELS}"
LISTED = 10_000  # names read at a time; a row of a table is smaller than a dictionary


def emotion_list(spec: str | Sequence[str]) -> list[str]:
    """`four`, `eight`, or any list (comma-separated text or a sequence) of at least two emotions.

    Raises
    ------
    CorpusError
        Fewer than two names, or one given twice.

    Examples
    --------
    >>> emotion_list("calm, happy,angry")
    ['calm', 'happy', 'angry']
    """
    named = {"four": FOUR, "eight": EIGHT}
    names = spec.split(",") if isinstance(spec, str) else spec
    names = list(named.get(spec, names) if isinstance(spec, str) else names)
    names = [name.strip() for name in names if name.strip()]
    if len(names) < 2 or len(set(names)) < len(names):
        raise CorpusError(f"emotions={spec!r}: give 'four', 'eight' or at least two different names")
    return names


@dataclass(frozen=True)
class Corpus:
    """What a folder holds.

    Attributes
    ----------
    clips : DataFrame
        One row a readable clip, columns `CLIP_COLUMNS`.
    problems : DataFrame
        `path, problem` of every file left out.
    """

    clips: pd.DataFrame
    problems: pd.DataFrame

    @property
    def stereo(self) -> pd.DataFrame:
        """The clips that were mixed down from several channels."""
        return self.clips[self.clips["channels"] > 1]

    @property
    def duplicates(self) -> pd.DataFrame:
        """The clips whose decoded samples equal those of another clip."""
        return self.clips[self.clips["audio_sha256"].duplicated(keep=False)].sort_values("audio_sha256")

    def summary(self) -> str:
        """What a report says of the corpus, in one line."""
        clips = self.clips
        return (
            f"{len(clips)} clips of {clips['speaker'].nunique()} speakers, "
            f"{clips['emotion'].nunique()} emotions; {len(self.problems)} file(s) left out, "
            f"{len(self.stereo)} mixed down from stereo, {len(self.duplicates)} sample-identical"
        )


# --- tables ----------------------------------------------------------------------------------------


def listing(source: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The clips of a folder or manifest without the facts that need decoding; a row is a few hundred bytes.

    Parameters
    ----------
    source : path
        A folder (searched with its subfolders; the naming scheme is found by trying `NAMING`), a CSV with
        `path, speaker, emotion` and any other of `CLIP_COLUMNS` (relative paths start at the CSV's
        folder), or several of these with commas between.

    Returns
    -------
    clips : DataFrame
        One row a file, columns `CLIP_COLUMNS` but `FACTS`.
    problems : DataFrame
        `path, problem` of files whose names say nothing.

    Raises
    ------
    CorpusError
        No such folder, no recordings in it, names of no known corpus, a manifest without the three
        columns, a `labels.yaml` that is none, or two manifests of one name. No recording is opened.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     pd.DataFrame({"path": ["a.wav"], "speaker": "ann", "emotion": "sad"}).to_csv(f"{folder}/own.csv")
    ...     clips, problems = listing(f"{folder}/own.csv")
    >>> clips[["clip_id", "corpus", "speaker", "emotion"]].to_dict("records")
    [{'clip_id': 'a', 'corpus': 'own', 'speaker': 'ann', 'emotion': 'sad'}]
    """
    parts = [(part, *_relabelled(part, *named(part))) for part in sources(source)]
    clips, problems = parts[0][1:] if len(parts) == 1 else _together(parts)
    if clips.empty:
        raise CorpusError(
            f"{source}: no readable clip ({problems[0]['problem'] if problems else 'nothing in it'})"
        )
    columns = [name for name in CLIP_COLUMNS if name not in FACTS]
    return clips[columns], pd.DataFrame(problems, columns=["path", "problem"])


def sources(source: str | Path) -> list[Path]:
    """The folders and manifests of `A,B`. What is there under the whole name is one, commas or not."""
    whole = Path(source).expanduser()
    if whole.exists():
        return [whole]
    return [Path(part.strip()).expanduser() for part in str(source).split(",") if part.strip()]


def named(source: Path) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """The clips of one folder or manifest by the labels that they came with."""
    if source.is_dir():
        return _from_folder(source)
    if source.suffix.lower() == ".csv" and source.is_file():
        return _from_manifest(source), []
    raise CorpusError(f"{source}: no such folder or CSV manifest; set SER_RAVDESS_DIR or run `make data`")


def _together(
    parts: list[tuple[Path, pd.DataFrame, list[dict[str, Any]]]],
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Several corpora as one. Speaker 03 of one is not speaker 03 of another, and clips of one name are two."""
    named: dict[str, Path] = {}
    whose = []
    for source, clips, _ in parts:
        people = "+".join(sorted(set(clips["corpus"].replace(SAME_SPEAKERS))))
        other = named.setdefault(people, source)
        if source.is_file() and other.is_file() and other != source:
            raise CorpusError(
                f"{other} and {source}: both of corpus {people!r}, so that their speakers could not be told apart; "
                "rename one of the files, or give it a column corpus"
            )
        whose.append(people)
    clips = pd.concat([part for _, part, _ in parts], ignore_index=True)
    problems = [problem for _, _, found in parts for problem in found]
    if len(named) > 1:
        names = np.repeat(whose, [len(part) for _, part, _ in parts])
        clips["speaker"] = names + ":" + clips["speaker"]
        clips["clip_id"] = names + ":" + clips["clip_id"]
    clips, copies = _once(clips)
    return clips, problems + copies


def _once(clips: pd.DataFrame) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """The first clip of each name, and the others as problems."""
    copies = clips["clip_id"].duplicated()
    problems = [
        {"path": path, "problem": f"{Path(path).name}: a second file of this name"}
        for path in clips["path"][copies]
    ]
    return clips[~copies].reset_index(drop=True), problems


def _relabelled(
    source: Path, clips: pd.DataFrame, problems: list[dict[str, Any]]
) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    labels = label_map(source)
    if not labels:
        return clips, problems
    emotion = clips["emotion"].map(lambda label: labels.get(label, label))
    out = emotion.isna()
    left = zip(clips["path"][out], clips["emotion"][out], strict=True)
    told = [{"path": path, "problem": f"{path}: {label}, {LEFT_OUT}"} for path, label in left]
    return clips.assign(emotion=emotion)[~out].reset_index(drop=True), problems + told


# --- files -----------------------------------------------------------------------------------------


def _from_folder(folder: Path) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    paths = sorted(
        map(str, recordings(folder)), key=lambda path: path.replace(os.sep, "\0")
    )  # folder by folder
    if not paths:
        raise CorpusError(f"{folder}: no recordings ({', '.join(SUFFIXES)}) in it or its subfolders")
    if odd := next((path for path in paths if re.search("[\ud800-\udfff]", path)), None):
        raise CorpusError(f"{odd}: the name is not in the system's encoding; rename it, or set PYTHONUTF8=1")
    fits = {name: sum(parse(Path(path)) is not None for path in paths) for name, parse in NAMING.items()}
    scheme = max(fits, key=fits.__getitem__)
    if not fits[scheme]:
        raise CorpusError(
            f"{folder}: {Path(paths[0]).name} and the other names are of no known corpus ({', '.join(NAMING)}); "
            "give a CSV manifest with path, speaker, emotion"
        )
    parts, problems = [], []
    for start in range(0, len(paths), LISTED):
        rows = []
        for path in map(Path, paths[start : start + LISTED]):
            row = NAMING[scheme](path)
            if row is None:
                problems.append({"path": str(path), "problem": f"{path.name}: not a {scheme} name"})
            else:
                rows.append({"clip_id": path.stem, "path": str(path), **row})
        parts.append(pd.DataFrame(rows))
    clips = _complete(pd.concat(parts, ignore_index=True))
    clips, copies = _once(clips)
    return clips, problems + copies


def _from_manifest(path: Path) -> pd.DataFrame:
    try:
        text = {name: str for name in CLIP_COLUMNS if name != "repetition"}
        table = pd.read_csv(path, dtype=text)
    except (ValueError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path}: not a CSV table ({error})") from error
    missing = [name for name in ("path", "speaker", "emotion") if name not in table]
    if missing:
        raise CorpusError(f"{path}: no column {', '.join(missing)}; it needs path, speaker, emotion")
    holes = table.index[table[["path", "speaker", "emotion"]].isna().any(axis=1)]
    if len(holes):
        raise CorpusError(f"{path}: line {holes[0] + 2} lacks a path, speaker or emotion")
    table = table[[name for name in CLIP_COLUMNS if name in table]].copy()
    if "clip_id" not in table:
        table["clip_id"] = _mapped(table["path"], lambda name: Path(name).with_suffix("").as_posix())
    if table["clip_id"].duplicated().any():
        raise CorpusError(
            f"{path}: {table['clip_id'][table['clip_id'].duplicated()].iloc[0]} is listed twice"
        )
    first = next(iter(table["path"]), "")
    if not (path.parent / first).exists() and Path(first).exists():
        raise CorpusError(
            f"{path}: {first} is not in the folder of the CSV, where paths start; write it as {os.path.relpath(first, path.parent)}"
        )
    table["path"] = _mapped(table["path"], lambda name: str(path.parent / name))
    return _complete(table.assign(corpus=table.get("corpus", pd.Series(path.stem, index=table.index))))


def _mapped(names: pd.Series, work: Callable[[str], str]) -> pd.Series:
    """`names.map(work)` with few Python strings in memory at a time."""
    return pd.concat([names[i : i + LISTED].map(work) for i in range(0, max(1, len(names)), LISTED)])


def _complete(clips: pd.DataFrame) -> pd.DataFrame:
    """Add the clip columns that a corpus does not tell."""
    unknown = {"gender": "unknown", "intensity": "unspecified", "statement": "", "repetition": 1}
    for name, value in unknown.items():
        clips[name] = clips[name].fillna(value) if name in clips else value
    return clips


def find_audio(folder: str | Path | None = None) -> Path | None:
    """The corpus or corpora (`A,B`) to start from: `folder`, else SER_RAVDESS_DIR, else data/ravdess, else None.

    Raises
    ------
    CorpusError
        A folder was named and does not exist.
    """
    named = folder or os.environ.get("SER_RAVDESS_DIR")
    if named:
        if gone := [part for part in sources(named) if not part.exists()]:
            raise CorpusError(f"{gone[0]}: no such folder; correct corpus=… or SER_RAVDESS_DIR, or unset it")
        return Path(named).expanduser()
    here = ROOT / "data" / "ravdess"
    return next((place for place in (here, writable(here)) if place.is_dir()), None)
