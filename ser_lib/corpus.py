"""A folder of recordings to the clip table: one row a clip, the same columns for every corpus.

File names are read by the corpora's documented schemes; anyone's own recordings come with a CSV of
`path, speaker, emotion`. What cannot be read is listed by name and left out, the rest goes on.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from ser_lib import ROOT, audio
from ser_lib.cache import FACTS
from ser_lib.errors import AudioError, CorpusError
from ser_lib.progress import parallel

EIGHT = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
FOUR = ("calm", "happy", "fearful", "disgust")
CLIP_COLUMNS = (
    "clip_id", "path", "corpus", "speaker", "gender", "emotion", "intensity", "statement",
    "repetition", "duration_s", "sample_rate", "channels", "audio_sha256",
)  # fmt: skip
LISTED = 10_000  # names read at a time; a row of a table is smaller than a dictionary
SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".webm")


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


# --- names -----------------------------------------------------------------------------------------


def _ravdess(path: Path) -> dict | None:
    """03-01-EE-II-SS-RR-AA: modality, channel, emotion, intensity, statement, repetition, actor."""
    match = re.fullmatch(r"03-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1\d|2[0-4])", path.stem)
    if not match:
        return None
    channel, emotion, intensity, statement, repetition, actor = match.groups()
    return {
        "corpus": "ravdess" if channel == "01" else "ravdess-song",
        "speaker": actor,
        "gender": "male" if int(actor) % 2 else "female",
        "emotion": EIGHT[int(emotion) - 1],
        "intensity": ("normal", "strong")[int(intensity) - 1],
        "statement": ("kids", "dogs")[int(statement) - 1],
        "repetition": int(repetition),
    }


EMODB_EMOTIONS = {
    "W": "angry", "L": "bored", "E": "disgust", "A": "fearful", "F": "happy", "T": "sad", "N": "neutral",
}  # fmt: skip
EMODB_MEN = {"03", "10", "11", "12", "15"}


def _emodb(path: Path) -> dict | None:
    """03a01Fa: speaker, text, emotion (first letter of the German word), version."""
    match = re.fullmatch(r"(\d\d)([ab]\d\d)([WLEAFTN])([a-z])", path.stem)
    if not match:
        return None
    speaker, text, emotion, version = match.groups()
    return {
        "corpus": "emodb",
        "speaker": speaker,
        "gender": "male" if speaker in EMODB_MEN else "female",
        "emotion": EMODB_EMOTIONS[emotion],
        "statement": text,
        "repetition": ord(version) - ord("a") + 1,
    }


CREMAD_EMOTIONS = {
    "ANG": "angry", "DIS": "disgust", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad",
}  # fmt: skip
CREMAD_LEVELS = {"LO": "low", "MD": "medium", "HI": "high", "XX": "unspecified", "X": "unspecified"}


def _cremad(path: Path) -> dict | None:
    """1001_DFA_ANG_XX: actor, sentence, emotion, level."""
    match = re.fullmatch(r"(1\d{3})_([A-Z]{3})_(ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX?)", path.stem)
    if not match:
        return None
    speaker, sentence, emotion, level = match.groups()
    return {
        "corpus": "cremad",
        "speaker": speaker,
        "emotion": CREMAD_EMOTIONS[emotion],
        "intensity": CREMAD_LEVELS[level],
        "statement": sentence,
    }


TESS_EMOTIONS = {
    "angry": "angry", "disgust": "disgust", "fear": "fearful", "happy": "happy",
    "neutral": "neutral", "ps": "surprised", "sad": "sad",
}  # fmt: skip


def _tess(path: Path) -> dict | None:
    """OAF_back_angry: speaker (older or younger woman), target word, emotion (ps: pleasant surprise)."""
    match = re.fullmatch(r"(OAF?|YAF)_(\w+)_(angry|disgust|fear|happy|neutral|ps|sad)", path.stem)
    if not match:
        return None
    speaker, word, emotion = match.groups()
    return {
        "corpus": "tess",
        "speaker": "OAF" if speaker == "OA" else speaker,  # OA_bite_neutral is published so
        "gender": "female",
        "emotion": TESS_EMOTIONS[emotion],
        "statement": word,
    }


SAVEE_EMOTIONS = {
    "a": "angry", "d": "disgust", "f": "fearful", "h": "happy", "n": "neutral", "sa": "sad", "su": "surprised",
}  # fmt: skip


def _savee(path: Path) -> dict | None:
    """DC_a01, or a01 in a folder DC: speaker, emotion, sentence."""
    match = re.fullmatch(r"(?:(DC|JE|JK|KL)_)?(sa|su|[adfhn])(\d\d)", path.stem)
    speaker = match and (match[1] or path.parent.name)
    if speaker not in ("DC", "JE", "JK", "KL"):
        return None
    return {
        "corpus": "savee",
        "speaker": speaker,
        "gender": "male",
        "emotion": SAVEE_EMOTIONS[match[2]],
        "statement": match[2] + match[3],
    }


NAMING: dict[str, Callable[[Path], dict | None]] = {
    "ravdess": _ravdess, "emodb": _emodb, "cremad": _cremad, "tess": _tess, "savee": _savee,
}  # fmt: skip


# --- tables ----------------------------------------------------------------------------------------


def read(source: str | Path, *, n_jobs: int = -1) -> Corpus:
    """Read a folder of named recordings, or a manifest, with the facts of every file.

    Parameters
    ----------
    source : path
        A folder (searched with its subfolders; the naming scheme is found by trying `NAMING`), or a
        CSV with `path, speaker, emotion` and any other of `CLIP_COLUMNS`; relative paths start at
        the CSV's folder.

    Raises
    ------
    CorpusError
        No such folder, no recordings in it, names of no known corpus, or a manifest without the
        three columns.
    """
    clips, problems = listing(source)
    facts = parallel(_facts, clips["path"], n_jobs=n_jobs, what="reading clips")
    bad = np.array([isinstance(fact, str) for fact in facts], dtype=bool)
    unread = clips[["path"]][bad].assign(problem=[fact for fact in facts if isinstance(fact, str)])
    problems = pd.concat([problems, unread], ignore_index=True)
    clips = clips[~bad].reset_index(drop=True)
    if clips.empty:
        raise CorpusError(f"{source}: no readable clip ({problems['problem'].iloc[0]})")
    clips = clips.assign(**pd.DataFrame([fact for fact in facts if not isinstance(fact, str)]))
    return Corpus(clips, problems)


def listing(source: str | Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The clips of a folder or manifest without the facts that need decoding; a row is a few hundred bytes.

    Parameters
    ----------
    source : path
        As `read`.

    Returns
    -------
    clips : DataFrame
        One row a file, columns `CLIP_COLUMNS` but `cache.FACTS`.
    problems : DataFrame
        `path, problem` of files whose names say nothing.

    Raises
    ------
    CorpusError
        As `read`, but that no file is opened.
    """
    source = Path(source).expanduser()
    if source.is_dir():
        clips, problems = _from_folder(source)
    elif source.suffix.lower() == ".csv" and source.is_file():
        clips, problems = _from_manifest(source), []
    else:
        raise CorpusError(f"{source}: no such folder or CSV manifest; set SER_RAVDESS_DIR or run `make data`")
    if clips.empty:
        raise CorpusError(f"{source}: no readable clip (nothing in it)")
    columns = [name for name in CLIP_COLUMNS if name not in FACTS]
    return clips[columns], pd.DataFrame(problems, columns=["path", "problem"])


def _facts(path: str) -> dict | str:
    """Duration, rate, channels and content hash of one file, or what is wrong with it."""
    try:
        samples, rate = audio.decode(path)
    except AudioError as error:
        return str(error)
    return {
        "duration_s": round(len(samples) / rate, 4),
        "sample_rate": rate,
        "channels": samples.shape[1],
        "audio_sha256": audio.content_hash(audio.mix_down(samples), rate),
    }


def _from_folder(folder: Path) -> tuple[pd.DataFrame, list[dict]]:
    found = (str(p) for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    paths = sorted(found, key=lambda path: path.replace(os.sep, "\0"))  # folder by folder
    if not paths:
        raise CorpusError(f"{folder}: no recordings ({', '.join(SUFFIXES)}) in it or its subfolders")
    fits = {name: sum(parse(Path(path)) is not None for path in paths) for name, parse in NAMING.items()}
    scheme = max(fits, key=fits.get)
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
    if scheme == "savee":
        clips["clip_id"] = clips["speaker"] + "_" + clips["statement"]
    copies = clips["clip_id"].duplicated()
    problems += [
        {"path": path, "problem": f"{Path(path).name}: a second file of this name"}
        for path in clips["path"][copies]
    ]
    return clips[~copies].reset_index(drop=True), problems


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


def check_ravdess_grid(clips: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Compare with the published speech grid: 24 actors x 60 clips.

    Returns
    -------
    missing, extra : list of str
        Clip ids.
    """
    expected = {
        f"03-01-{emotion:02d}-{intensity:02d}-{statement:02d}-{repetition:02d}-{actor:02d}"
        for emotion, intensity, statement, repetition, actor in product(
            range(1, 9), (1, 2), (1, 2), (1, 2), range(1, 25)
        )
        if not (emotion == 1 and intensity == 2)  # neutral has no strong rendition
    }
    found = set(clips["clip_id"])
    return sorted(expected - found), sorted(found - expected)


def find_audio(folder: str | Path | None = None) -> Path | None:
    """The corpus to start from: `folder`, else SER_RAVDESS_DIR, else data/ravdess; None if there is none.

    Raises
    ------
    CorpusError
        A folder was named and does not exist.
    """
    named = folder or os.environ.get("SER_RAVDESS_DIR")
    if named:
        if not Path(named).expanduser().exists():
            raise CorpusError(f"{named}: no such folder; correct corpus=… or SER_RAVDESS_DIR, or unset it")
        return Path(named).expanduser()
    downloaded = ROOT / "data" / "ravdess"
    return downloaded if downloaded.is_dir() else None
