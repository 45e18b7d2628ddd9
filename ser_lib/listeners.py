"""What human listeners heard in the same clips, to be set beside a model.

Livingstone & Russo (2018), The Ryerson audio-visual database of emotional speech and song, PLoS ONE
13(5): e0196391: speech, audio only. They chose of seven emotions, neutral and calm being one, or "none of
these", and had heard no labelled clip before; a model is trained on labelled clips of other speakers
and cannot say "none". So it is another task on the same clips.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from ser_lib import metrics

OVERALL = 0.624  # share of the answers that named the emotion that was meant
BY_INTENSITY = {"normal": 0.580, "strong": 0.674}
MERGED = "neutral/calm"
BY_EMOTION = {
    MERGED: 0.817, "angry": 0.746, "surprised": 0.679, "fearful": 0.662,
    "disgust": 0.519, "sad": 0.479, "happy": 0.366,
}  # fmt: skip


def merged(predictions: pd.DataFrame) -> pd.DataFrame:
    """A predictions table of the eight emotions with the listeners' options: neutral and calm are one.

    Their probabilities are added, and the most probable option is what was heard.
    """
    parts = ["p_neutral", "p_calm"]
    joint = predictions.assign(**{f"p_{MERGED}": predictions[parts].sum(axis=1)}).drop(columns=parts)
    said = joint[[f"p_{option}" for option in BY_EMOTION]].idxmax(axis=1).str.removeprefix("p_")
    meant = predictions["emotion"].replace({"neutral": MERGED, "calm": MERGED})
    return joint.assign(emotion=meant, predicted=said)


def compared(predictions: pd.DataFrame, intensity: pd.Series) -> pd.DataFrame:
    """Accuracy of a model with the listeners' options, and theirs.

    Parameters
    ----------
    predictions : DataFrame
        Of the eight emotions.
    intensity : Series indexed by `clip_id`

    Returns
    -------
    DataFrame
        `group` ("all clips", an intensity or an emotion), `value, low, high, clips, speakers` of the model,
        as `metrics.by_group`, and `listeners`, for which no interval was published.
    """
    said, options = merged(predictions), list(BY_EMOTION)
    whole = said.set_index("clip_id")["emotion"].groupby(level=0).first()
    kinds: Sequence[tuple[pd.Series, dict[str, float]]] = (
        (pd.Series("all clips", whole.index), {"all clips": OVERALL}),
        (intensity, BY_INTENSITY),
        (whole, BY_EMOTION),
    )
    rows = [
        metrics.by_group(said, groups, options, "accuracy").assign(
            listeners=lambda t, heard=heard: t["group"].map(heard)
        )
        for groups, heard in kinds
    ]
    return pd.concat(rows, ignore_index=True)
