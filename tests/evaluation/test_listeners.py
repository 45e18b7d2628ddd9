"""studies: a model is compared with human listeners, who had one option for neutral and calm."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ser_lib.corpora import EIGHT
from ser_lib.evaluation import metrics, studies


def predictions(rows: list[tuple[str, dict[str, float]]]) -> pd.DataFrame:
    """One clip a row, each of another speaker: its emotion, and the probabilities that are not 0."""
    table = pd.DataFrame([{f"p_{name}": p.get(name, 0.0) for name in EIGHT} for _, p in rows])
    table["predicted"] = table.idxmax(axis=1).str.removeprefix("p_")
    names = [f"{i:02d}" for i in range(len(rows))]
    return table.assign(emotion=[emotion for emotion, _ in rows], clip_id=names, speaker=names, seed=0)


def test_neutral_and_calm_are_merged():
    """Their probabilities add up, so neither need be the most probable of the eight."""
    merged = studies.merge_neutral_calm(
        predictions(
            [
                ("neutral", {"calm": 1.0}),
                ("calm", {"neutral": 0.3, "calm": 0.3, "sad": 0.4}),
                ("sad", {"neutral": 0.2, "calm": 0.3, "sad": 0.5}),
                ("happy", {"calm": 0.4, "happy": 0.6}),
            ]
        )
    )
    assert merged["emotion"].to_list() == ["neutral/calm", "neutral/calm", "sad", "happy"]
    assert merged["predicted"].to_list() == ["neutral/calm", "neutral/calm", merged["predicted"][2], "happy"]
    assert merged[[f"p_{name}" for name in studies.LISTENERS_BY_EMOTION]].sum(
        axis=1
    ).to_numpy() == pytest.approx(1)


def test_a_comparison_row_is_the_accuracy_of_its_group():
    rng = np.random.default_rng(0)
    rows = [
        (EIGHT[i % 8], dict(zip(EIGHT, rng.dirichlet(np.full(8, 0.3)) + np.eye(8)[i % 8] * 0.4, strict=True)))
        for i in range(160)
    ]
    table = predictions(rows)
    intensity = pd.Series(np.where(np.arange(160) % 3 == 0, "strong", "normal"), index=table["clip_id"])
    groups = studies.compare_with_listeners(table, intensity).set_index("group")
    assert list(groups.index) == ["all clips", "normal", "strong", *sorted(studies.LISTENERS_BY_EMOTION)]
    merged = studies.merge_neutral_calm(table)
    right = merged["predicted"] == merged["emotion"]
    assert groups.loc["all clips", "value"] == pytest.approx(right.mean())
    assert groups.loc["strong", "value"] == pytest.approx(right[::3].mean())
    for emotion, share in studies.LISTENERS_BY_EMOTION.items():
        part = right[merged["emotion"] == emotion]
        assert groups.loc[emotion, "value"] == pytest.approx(part.mean())
        assert (groups.loc[emotion, "clips"], groups.loc[emotion, "listeners"]) == (len(part), share)
    assert groups["listeners"].notna().all()
    assert groups.loc["all clips", ["low", "high"]].to_list() == pytest.approx(
        metrics.score(merged, list(studies.LISTENERS_BY_EMOTION), "accuracy")[1:]
    )
