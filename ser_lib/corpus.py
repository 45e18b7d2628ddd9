"""A folder of recordings to the clip table: one row a clip, the same columns for every corpus.

File names are read by the corpora's documented schemes; anyone's own recordings come with a CSV of
`path, speaker, emotion`. A `labels.yaml` in the folder, or beside the CSV, gives labels other names:
`labels: {joy: happy, boredom: null}`, null leaving clips out. Several corpora are `A,B`; their speakers
are then told apart by the corpus. What cannot be read is listed by name and left out, the rest goes on.
"""

from __future__ import annotations

import os
import re
import shlex
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
SAME_SPEAKERS = {"ravdess-song": "ravdess"}  # the actors that speak also sing
LABELS = "labels.yaml"
LEFT_OUT = f"left out by {LABELS}"
SHOWN = 30  # speakers, problems…, and no more; a report is to be read
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

    def describe(self) -> dict:
        """What a check tells of the corpus, as JSON holds it.

        Returns
        -------
        dict
            `summary`; `emotions` and `speakers`, by name, with their `clips`; `duration_s`, `sample_rates`,
            `channels`; `duplicates`, lists of sample-identical clips; `problems`.
        """
        clips = self.clips
        counts = pd.crosstab(clips["speaker"], clips["emotion"])
        about = clips.groupby("speaker")[["corpus", "gender"]].agg(lambda told: "+".join(sorted(set(told))))
        length = clips["duration_s"]
        emotions = {
            emotion: {
                "clips": int(n.sum()),
                "speakers": int((n > 0).sum()),
                "fewest": int(n.min()),
                "most": int(n.max()),
            }
            for emotion, n in counts.items()
        }
        speakers = {
            speaker: {**about.loc[speaker], "clips": {emotion: int(n) for emotion, n in row.items()}}
            for speaker, row in counts.iterrows()
        }
        return {
            "summary": self.summary(),
            "emotions": emotions,
            "speakers": speakers,
            "duration_s": {
                "min": length.min(),
                "median": length.median(),
                "max": length.max(),
                "sum": length.sum(),
            },
            "sample_rates": {str(rate): int(n) for rate, n in clips["sample_rate"].value_counts().items()},
            "channels": {str(count): int(n) for count, n in clips["channels"].value_counts().items()},
            "duplicates": [list(part) for _, part in self.duplicates.groupby("audio_sha256")["clip_id"]],
            "problems": [text for text in self.problems["problem"] if not text.endswith(LEFT_OUT)],
        }


def told(found: dict) -> str:
    """What a check found, to be read.

    Parameters
    ----------
    found : dict
        `Corpus.describe`, and `source`, `protocol`, the emotions `asked`, `labels` (as `label_changes`), `doubts`.
    """
    emotions, people, length = found["emotions"], list(found["speakers"].items()), found["duration_s"]
    width = max(len(name) for name in ("speaker", *found["speakers"]))
    lines = [f"{found['source']}: {found['summary']}", ""]
    for emotion, n in emotions.items():
        each = f"{n['fewest']} to {n['most']} each"
        lines.append(
            f"{emotion:<{max(map(len, emotions))}} {n['clips']:7} clips of {n['speakers']} speakers, {each}"
        )
    lines += ["", f"{'speaker':<{width}}  gender   {'  '.join(emotions)}"]
    counts = {
        name: "  ".join(f"{about['clips'][emotion]:{len(emotion)}}" for emotion in emotions)
        for name, about in people
    }
    lines += _shown([f"{name:<{width}}  {about['gender']:<7}  {counts[name]}" for name, about in people])
    rates = ", ".join(f"{rate} Hz ({n})" for rate, n in found["sample_rates"].items())
    lines += [
        "",
        f"durations: {length['min']:.1f} to {length['max']:.1f} s, median {length['median']:.1f} s, "
        f"{length['sum'] / 60:.1f} min in all; {rates}",
        *_shown([f"sample-identical: {', '.join(names)}" for names in found["duplicates"]]),
        *(
            f"labels.yaml: {row['label']} {'→ ' + row['emotion'] if row['emotion'] else 'is left out'}, {row['clips']} clip(s)"
            for row in found["labels"]
        ),
        *_shown([f"cannot be used: {problem}" for problem in found["problems"]]),
        "",
    ]
    if found["doubts"]:
        doubts = _shown([f"- {doubt}" for doubt in found["doubts"]])
        return "\n".join([*lines, f"A report under {found['protocol']} could not be trusted:", *doubts])
    command = ["python", "-m", "ser_lib", "reports", "--notebook", "03", "-p", f"corpus={found['source']}"]
    command += ["-p", f"emotions={','.join(found['asked'])}", "-p", f"protocol={found['protocol']}"]
    return "\n".join([*lines, "Nothing speaks against a report:", "  " + shlex.join(command)])


def _shown(lines: list[str]) -> list[str]:
    """The first `SHOWN`, and how many more there are."""
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], f"… and {more} more (--json has all)"] if more > 0 else lines


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
        A folder (searched with its subfolders; the naming scheme is found by trying `NAMING`), a CSV with
        `path, speaker, emotion` and any other of `CLIP_COLUMNS` (relative paths start at the CSV's
        folder), or several of these with commas between.

    Raises
    ------
    CorpusError
        No such folder, no recordings in it, names of no known corpus, a manifest without the three
        columns, a `labels.yaml` that is none, or two manifests of one name.
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
    parts = [(part, *_relabelled(part, *_named(part))) for part in sources(source)]
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


def _named(source: Path) -> tuple[pd.DataFrame, list[dict]]:
    """The clips of one folder or manifest by the labels that they came with."""
    if source.is_dir():
        return _from_folder(source)
    if source.suffix.lower() == ".csv" and source.is_file():
        return _from_manifest(source), []
    raise CorpusError(f"{source}: no such folder or CSV manifest; set SER_RAVDESS_DIR or run `make data`")


def _together(parts: list[tuple[Path, pd.DataFrame, list[dict]]]) -> tuple[pd.DataFrame, list[dict]]:
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
        people = np.repeat(whose, [len(part) for _, part, _ in parts])
        clips["speaker"] = people + ":" + clips["speaker"]
        clips["clip_id"] = people + ":" + clips["clip_id"]
    clips, copies = _once(clips)
    return clips, problems + copies


def _once(clips: pd.DataFrame) -> tuple[pd.DataFrame, list[dict]]:
    """The first clip of each name, and the others as problems."""
    copies = clips["clip_id"].duplicated()
    problems = [
        {"path": path, "problem": f"{Path(path).name}: a second file of this name"}
        for path in clips["path"][copies]
    ]
    return clips[~copies].reset_index(drop=True), problems


# --- labels ----------------------------------------------------------------------------------------


def label_map(source: Path) -> dict[str, str | None]:
    """What `labels.yaml` of a folder or manifest makes of each label that it names; None: left out.

    Raises
    ------
    CorpusError
        The file holds anything but `labels: {label: emotion}`.
    """
    path = (source if source.is_dir() else source.parent) / LABELS
    if not path.is_file():
        return {}
    import yaml

    try:  # all as text: `01` and `no` are labels too
        labels = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)["labels"]
        flat = all(isinstance(emotion, str) for emotion in labels.values())
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        flat = False
    if not flat:
        raise CorpusError(f"{path}: not a map of labels; write it as `labels: {{joy: happy, boredom: null}}`")
    return {label: None if emotion in ("", "~", "null") else emotion for label, emotion in labels.items()}


def _relabelled(source: Path, clips: pd.DataFrame, problems: list[dict]) -> tuple[pd.DataFrame, list[dict]]:
    labels = label_map(source)
    if not labels:
        return clips, problems
    emotion = clips["emotion"].map(lambda label: labels.get(label, label))
    out = emotion.isna()
    left = zip(clips["path"][out], clips["emotion"][out], strict=True)
    told = [{"path": path, "problem": f"{path}: {label}, {LEFT_OUT}"} for path, label in left]
    return clips.assign(emotion=emotion)[~out].reset_index(drop=True), problems + told


def label_changes(source: str | Path) -> list[dict]:
    """What the label maps of a source do, by name alone: `label`, its `emotion` (None: left out), `clips`."""
    rows = []
    for part in sources(source):
        if labels := label_map(part):
            counts = _named(part)[0]["emotion"].value_counts()
            rows += [
                {"label": label, "emotion": emotion, "clips": int(counts.get(label, 0))}
                for label, emotion in labels.items()
            ]
    return rows


# --- files -----------------------------------------------------------------------------------------


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
    downloaded = ROOT / "data" / "ravdess"
    return downloaded if downloaded.is_dir() else None
