"""The model's card, written from its metadata and what its notebook counted, so that no figure in it is typed by hand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pandas as pd

from ser_lib.corpora import RAVDESS, schemes

PROTOCOLS = {
    "actors5": "five folds by speaker (`actors5`): no test speaker was heard in training",
    "loso": "leave one speaker out: no test speaker was heard in training",
    "random": "a random split: speakers are on both sides, so this is no estimate for a new speaker",
}
COPIES = "at other speeds and as another microphone, room and noise would have them"
STUDIO = """These figures are for studio recordings. Noise, telephone lines, level and another language cost what
the report `06_stress_and_transfer` shows. Spontaneous speech and children were not tested and will be worse."""
ELSEWHERE = """These figures are for recordings like those of the training data, by other speakers. Another language, kind
of speech, room or microphone was not tested and will be worse."""
OWN = "a corpus of one's own, whose language, speech and recording the metadata does not tell"
LICENCE = "CC BY-NC-SA 4.0, as RAVDESS, from which it was trained"


def licence(corpora: Iterable[str], given: str = "") -> str:
    """Of a model trained on these corpora: what is given, else that of RAVDESS, else that none was stated.

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


def percent(value: float) -> str:
    """A fraction as `58.1 %`."""
    return f"{100 * value:.1f} %"


def spread(found: dict[str, Any], form: str = ".1f") -> str:
    """`uar`, `low` and `high`, fractions, as `58.1 % (52.0 to 63.9)`.

    Examples
    --------
    >>> spread({"uar": 0.581, "low": 0.52, "high": 0.6392})
    '58.1 % (52.0 to 63.9)'
    """
    value, low, high = (format(100 * found[name], form) for name in ("uar", "low", "high"))
    return f"{value} % ({low} to {high})"


def model_card(
    metadata: dict[str, Any], per_class: pd.DataFrame | None = None, by_group: pd.DataFrame | None = None
) -> str:
    """Markdown in the usual headings (Mitchell et al. 2019).

    Parameters
    ----------
    metadata : dict
        As `bundle.save` returned it.
    per_class : DataFrame, optional
        From `metrics.per_class`, of the out-of-fold predictions of this model.
    by_group : DataFrame, optional
        From `comparison.by_group`, of the same predictions, with the `kind` of each group (gender, intensity…).
    """
    scores = metadata["metrics"]
    training, headline = metadata["training"], metadata["headline"]

    def interval(metric: str) -> str:
        return spread(scores[metric] | {"uar": scores[metric]["value"]})

    chosen = metadata["chosen"]
    rivals = ", ".join(f"`{name}` {percent(value)}" for name, value in chosen["inner_uar"].items())
    intensity = metadata.get("intensity")
    loudness = intensity and (
        f"| UAR of normal or strong intensity (`{intensity['estimator']}`, chance 50 %) | {spread(intensity)} |\n"
    )
    recalls = [
        f"| {emotion} | {percent(row['precision'])} | {percent(row['recall'])} |"
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
    added = f", and {copies} copies of them {COPIES}" if copies else ""
    gain = chosen.get("gain_of_copies")
    brought = f"\nThe copies brought {spread(gain, '+.1f')} UAR." if gain else ""
    return f"""# Model card: {metadata["name"]} {metadata["version"]}

**What it is.** `{metadata["estimator"]}` on the {metadata["feature_config"]["name"]} feature set
({len(metadata["feature_names"])} columns), made {metadata["created"]}. It answers one of
{", ".join(metadata["classes"])}, with a probability for each.

**Intended use.** Research, teaching and demonstrations. **Not** for decisions about a
person, and not where the law forbids it: the EU AI Act prohibits inferring emotions at work and in
education, with few exceptions. What a voice sounds like is not what a person feels.

**Training data.** {training["clips"]} clips of {training["speakers"]} speakers of {described}{added}.
Data hash `{training["data_hash"]}`.

**Choice.** On inner folds of each fold's training speakers, mean UAR: {rivals}.
`{metadata["estimator"]}` was the choice of {percent(chosen["folds"])} of the folds, and each fold is scored with its own.{brought}

**Evaluation.** {PROTOCOLS[headline["protocol"]][0].upper()}{PROTOCOLS[headline["protocol"]][1:]}. Mean over seeds
{headline["seeds"]}, 95 % interval from resampling speakers.

| metric | value |
|---|---|
| UAR | {interval("uar")} |
| UAR, each speaker left out in turn | {spread(chosen["loso"])} |
| accuracy | {interval("accuracy")} |
| macro F1 | {interval("macro_f1")} |
| weighted F1 | {interval("weighted_f1")} |
| ECE after calibration (15 bins, fitted on inner folds) | {percent(metadata["ece"])} |
{loudness or ""}
{recall}{groups}**Limits.** {STUDIO if set(corpora) <= RAVDESS else ELSEWHERE}

**Licence.** {metadata["licence"]}. The code has its own licence (MIT).
"""
