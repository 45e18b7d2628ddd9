"""The model card, written from the metadata, so that no number in it is typed by hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from ser_lib.corpora import RAVDESS, schemes

PROTOCOLS = {
    "actors5": "five folds by speaker (`actors5`): every test speaker is unseen in training",
    "loso": "leave one speaker out: every test speaker is unseen in training",
    "random": "a random split: speakers are in training and test, so this is no estimate for a new speaker",
}
COPIES = "at other speeds, and with other microphones, rooms and noise"
STUDIO = """These scores are for studio recordings. The report `06_stress_and_transfer` shows how much is lost with
noise, telephone lines, other levels and another language. Spontaneous speech and children were not tested; expect worse."""
ELSEWHERE = """These scores are for recordings like the training data, by other speakers. Other languages, kinds of
speech, rooms and microphones were not tested; expect worse."""
OWN = "a user's own corpus; its language, speech and recording are not in the metadata"
LICENCE = "CC BY-NC-SA 4.0, as RAVDESS, from which it was trained"


def licence(corpora: Iterable[str], given: str = "") -> str:
    """The licence of a model trained on these corpora: `given`, or by default that of RAVDESS, or "not stated".

    Examples
    --------
    >>> licence(["ravdess"])
    'CC BY-NC-SA 4.0, as RAVDESS, from which it was trained'
    >>> licence(["emodb"]), licence(["emodb"], given="CC0")
    ('not stated', 'CC0')
    """
    others = set(corpora) - RAVDESS
    if given or not others:
        return given or LICENCE
    return "not stated" + ("" if others == set(corpora) else f"; for RAVDESS, a part of it, {LICENCE[:15]}")


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def spread(score: dict[str, Any], form: str = ".1f") -> str:
    """The fractions `uar`, `low` and `high` as `58.1 % (52.0 to 63.9)`.

    Examples
    --------
    >>> spread({"uar": 0.581, "low": 0.52, "high": 0.6392})
    '58.1 % (52.0 to 63.9)'
    """
    value, low, high = (format(100 * score[name], form) for name in ("uar", "low", "high"))
    return f"{value} % ({low} to {high})"


def _voice(check: dict[str, Any] | None, corpora: set[str]) -> str:
    """The paragraph on `studies.voice_check`."""
    if not check:
        return ""
    details = "; the report `06_stress_and_transfer` shows which, and how many recordings of speech pass"
    return (
        "**Not speech.** A recording without speech gets no emotion (Silero VAD, "
        f"`audio.quality.voice`). Of {check['sounds']} synthesised sounds that are no speech, "
        f"{_percent(check['answered'])} get an answer{details if corpora <= RAVDESS else ''}.\n\n"
    )


def model_card(
    metadata: dict[str, Any], per_class: pd.DataFrame | None = None, by_group: pd.DataFrame | None = None
) -> str:
    """Write the card in Markdown, under the usual headings (Mitchell et al. 2019).

    Parameters
    ----------
    metadata : dict
        From `bundle.save`.
    per_class : DataFrame, optional
        From `metrics.per_class`, of out-of-fold predictions.
    by_group : DataFrame, optional
        From `comparison.by_group`, of the same predictions, with the `kind` of each group: gender, intensity…
    """
    scores = metadata["metrics"]
    training, headline = metadata["training"], metadata["headline"]

    def interval(metric: str) -> str:
        return spread(scores[metric] | {"uar": scores[metric]["value"]})

    chosen = metadata["chosen"]
    rivals = ", ".join(f"`{name}` {_percent(value)}" for name, value in chosen["inner_uar"].items())
    intensity = metadata.get("intensity")
    intensity_row = intensity and (
        f"| UAR of normal or strong intensity (`{intensity['estimator']}`, chance 50 %) | {spread(intensity)} |\n"
    )
    recalls = [
        f"| {emotion} | {_percent(row['precision'])} | {_percent(row['recall'])} |"
        for emotion, row in (per_class.iterrows() if per_class is not None else ())
    ]
    group_rows = [
        f"| {row['kind']} | {row['group']} | {spread(row | {'uar': row['value']})} |"
        for row in (by_group.to_dict("records") if by_group is not None else ())
        if row["kind"] != "emotion"
    ]
    recall = (
        "\n".join(["| emotion | precision | recall |", "|---|---|---|", *recalls, "", ""]) if recalls else ""
    )
    groups = "\n".join(["| | group | UAR |", "|---|---|---|", *group_rows, "", ""]) if group_rows else ""
    corpora = training.get("corpus", "").split("+")
    described = "; ".join(dict.fromkeys(schemes.CORPORA.get(name, OWN) for name in corpora))
    copies = training.get("copies", 0)
    added = f", and {copies} augmented copies of them {COPIES}" if copies else ""
    gain = chosen.get("gain_of_copies")
    benefit = f"\nThe copies changed UAR by {spread(gain, '+.1f')}." if gain else ""
    return f"""# Model card: {metadata["name"]} {metadata["version"]}

**What it is.** `{metadata["estimator"]}` on the {metadata["feature_config"]["name"]} feature set
({len(metadata["feature_names"])} columns), made {metadata["created"]}. It answers one of
{", ".join(metadata["classes"])}, with a probability for each.

**Intended use.** Research, teaching and demonstrations. **Not** for decisions about a
person, and not where the law forbids it: the EU AI Act prohibits inferring emotions at work and in
education, with few exceptions. What a voice sounds like is not what a person feels.

**Training data.** {training["clips"]} clips of {training["speakers"]} speakers of {described}{added}.
Data hash `{training["data_hash"]}`.

**Choice.** Mean UAR on inner folds of each fold's training speakers: {rivals}.
`{metadata["estimator"]}` was chosen in {_percent(chosen["folds"])} of the folds; each fold is scored with its own choice.{benefit}

**Evaluation.** {PROTOCOLS[headline["protocol"]][0].upper()}{PROTOCOLS[headline["protocol"]][1:]}. Mean over seeds
{headline["seeds"]}, 95 % interval from resampling speakers.

| metric | value |
|---|---|
| UAR | {interval("uar")} |
| UAR, each speaker left out in turn | {spread(chosen["loso"])} |
| accuracy | {interval("accuracy")} |
| macro F1 | {interval("macro_f1")} |
| weighted F1 | {interval("weighted_f1")} |
| ECE after calibration (15 bins, fitted on inner folds) | {_percent(metadata["ece"])} |
{intensity_row or ""}
{recall}{groups}{_voice(metadata.get("voice_check"), set(corpora))}**Limits.** {STUDIO if set(corpora) <= RAVDESS else ELSEWHERE}

**Licence.** {metadata["licence"]}. The code has its own licence (MIT).
"""
