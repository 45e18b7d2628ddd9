"""The naming schemes of known corpora, and the label maps of `labels.yaml`.

A scheme is a function from a path to the clip columns in its name (`CLIP_COLUMNS`), or None if the name does not
fit. To add a corpus, write its function, an entry in `NAMING` and a line in `CORPORA`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ser_lib.errors import CorpusError

LABELS = "labels.yaml"

RAVDESS_EMOTIONS = {
    "01": "neutral", "02": "calm", "03": "happy", "04": "sad", "05": "angry", "06": "fearful", "07": "disgust",
    "08": "surprised",
}  # fmt: skip


def _ravdess(path: Path) -> dict[str, Any] | None:
    """03-01-EE-II-SS-RR-AA: modality, channel, emotion, intensity, statement, repetition, actor."""
    match = re.fullmatch(r"03-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(0[1-9]|1\d|2[0-4])", path.stem)
    if not match:
        return None
    channel, emotion, intensity, statement, repetition, actor = match.groups()
    return {
        "corpus": "ravdess" if channel == "01" else "ravdess-song",
        "speaker": actor,
        "gender": "male" if int(actor) % 2 else "female",
        "emotion": RAVDESS_EMOTIONS[emotion],
        "intensity": ("normal", "strong")[int(intensity) - 1],
        "statement": ("kids", "dogs")[int(statement) - 1],
        "repetition": int(repetition),
    }


EMODB_EMOTIONS = {
    "W": "angry", "L": "bored", "E": "disgust", "A": "fearful", "F": "happy", "T": "sad", "N": "neutral",
}  # fmt: skip
EMODB_MEN = {"03", "10", "11", "12", "15"}


def _emodb(path: Path) -> dict[str, Any] | None:
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


def _cremad(path: Path) -> dict[str, Any] | None:
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


def _tess(path: Path) -> dict[str, Any] | None:
    """OAF_back_angry: speaker (older or younger woman), target word, emotion (ps: pleasant surprise)."""
    match = re.fullmatch(r"(OAF?|YAF)_(\w+)_(angry|disgust|fear|happy|neutral|ps|sad)", path.stem)
    if not match:
        return None
    speaker, word, emotion = match.groups()
    return {
        "corpus": "tess",
        "speaker": "OAF" if speaker == "OA" else speaker,  # OA_bite_neutral is the published name
        "gender": "female",
        "emotion": TESS_EMOTIONS[emotion],
        "statement": word,
    }


SAVEE_EMOTIONS = {
    "a": "angry", "d": "disgust", "f": "fearful", "h": "happy", "n": "neutral", "sa": "sad", "su": "surprised",
}  # fmt: skip


def _savee(path: Path) -> dict[str, Any] | None:
    """DC_a01, or a01 in a folder DC: speaker, emotion, sentence."""
    match = re.fullmatch(r"(?:(DC|JE|JK|KL)_)?(sa|su|[adfhn])(\d\d)", path.stem)
    speaker = match and (match[1] or path.parent.name)
    if not match or speaker not in ("DC", "JE", "JK", "KL"):
        return None
    return {
        "corpus": "savee",
        "speaker": speaker,
        "gender": "male",
        "emotion": SAVEE_EMOTIONS[match[2]],
        "statement": match[2] + match[3],
        "clip_id": f"{speaker}_{match[2]}{match[3]}",
    }


NEMO_EMOTIONS = {
    "anger": "angry", "fear": "fearful", "happiness": "happy", "neutral": "neutral", "sadness": "sad",
    "surprised": "surprised",
}  # fmt: skip


def _nemo(path: Path) -> dict[str, Any] | None:
    """EB0_anger_13: speaker, emotion, sentence."""
    match = re.fullmatch(r"([A-Z]{2}\d)_(anger|fear|happiness|neutral|sadness|surprised)_(\d+)", path.stem)
    if not match:
        return None
    speaker, emotion, sentence = match.groups()
    return {
        "corpus": "nemo",
        "speaker": speaker,
        "emotion": NEMO_EMOTIONS[emotion],
        "statement": sentence,
    }


KOREAN_EMOTIONS = {"000": "neutral", "001": "happy", "002": "angry", "003": "sad"}


def _korean(path: Path) -> dict[str, Any] | None:
    """ema00105: speaker, emotion (000 to 003), sentence."""
    match = re.fullmatch(r"((?:em|ne)[a-o])(00[0-3])(\d\d)", path.stem)
    if not match:
        return None
    speaker, emotion, sentence = match.groups()
    return {
        "corpus": "korean",
        "speaker": speaker,
        "emotion": KOREAN_EMOTIONS[emotion],
        "statement": sentence,
    }


NAMING: dict[str, Callable[[Path], dict[str, Any] | None]] = {
    "ravdess": _ravdess, "emodb": _emodb, "cremad": _cremad, "tess": _tess, "savee": _savee,
    "nemo": _nemo, "korean": _korean,
}  # fmt: skip

# For the model card.
CORPORA = {
    "ravdess": "RAVDESS (Livingstone & Russo 2018): acted, North American English, two sentences, studio recordings",
    "ravdess-song": "RAVDESS, sung (Livingstone & Russo 2018): acted, North American English, studio recordings",
    "emodb": "EMO-DB (Burkhardt et al. 2005): acted, German, ten sentences, studio recordings",
    "cremad": "CREMA-D (Cao et al. 2014): acted, North American English, twelve sentences",
    "tess": "TESS (Pichora-Fuller & Dupuis 2020): acted by two women, English, single words in one sentence",
    "nemo": "nEMO (Christop 2024): acted, Polish, 90 sentences",
    "korean": "the emotional part of the emotiontts open database: acted, Korean",
    "savee": "SAVEE (Haq & Jackson 2009): acted by four men, British English, studio recordings",
}


def label_map(source: Path) -> dict[str, str | None]:
    """The emotion for each label in the `labels.yaml` of a folder or manifest; None leaves its clips out.

    Raises
    ------
    CorpusError
        The file contains anything but `labels: {label: emotion}`.
    """
    path = (source if os.path.isdir(source) else source.parent) / LABELS
    if not os.path.isfile(path):
        return {}
    import yaml

    try:  # all as text: `01` and `no` are labels too
        labels = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)["labels"]
        valid = all(isinstance(emotion, str) for emotion in labels.values())
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        valid = False
    if not valid:
        raise CorpusError(f"{path}: not a map of labels; write it as `labels: {{joy: happy, boredom: null}}`")
    return {label: None if emotion in ("", "~", "null") else emotion for label, emotion in labels.items()}
