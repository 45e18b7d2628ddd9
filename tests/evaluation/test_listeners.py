"""ladder: a model is scored with the options that the listeners had."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ser_lib.corpora import EIGHT
from ser_lib.evaluation import metrics, studies


def predictions(rows: list[tuple[str, dict[str, float]]]) -> pd.DataFrame:
    """One clip a row, each of another speaker: what was meant, and the probabilities that are not 0."""
    table = pd.DataFrame([{f"p_{name}": p.get(name, 0.0) for name in EIGHT} for _, p in rows])
    table["predicted"] = table.idxmax(axis=1).str.removeprefix("p_")
    names = [f"{i:02d}" for i in range(len(rows))]
    return table.assign(emotion=[meant for meant, _ in rows], clip_id=names, speaker=names, seed=0)


def test_neutral_and_calm_are_one_option():
    """Their probabilities add up: neither need be the most probable of the eight."""
    said = studies.with_listeners_options(
        predictions(
            [
                ("neutral", {"calm": 1.0}),
                ("calm", {"neutral": 0.3, "calm": 0.3, "sad": 0.4}),
                ("sad", {"neutral": 0.2, "calm": 0.3, "sad": 0.5}),
                ("happy", {"calm": 0.4, "happy": 0.6}),
            ]
        )
    )
    assert said["emotion"].to_list() == ["neutral/calm", "neutral/calm", "sad", "happy"]
    assert said["predicted"].to_list() == ["neutral/calm", "neutral/calm", said["predicted"][2], "happy"]
    assert said[[f"p_{name}" for name in studies.BY_EMOTION]].sum(axis=1).to_numpy() == pytest.approx(1)


def test_a_comparison_row_is_the_accuracy_of_its_group():
    rng = np.random.default_rng(0)
    rows = [
        (EIGHT[i % 8], dict(zip(EIGHT, rng.dirichlet(np.full(8, 0.3)) + np.eye(8)[i % 8] * 0.4, strict=True)))
        for i in range(160)
    ]
    table = predictions(rows)
    intensity = pd.Series(np.where(np.arange(160) % 3 == 0, "strong", "normal"), index=table["clip_id"])
    found = studies.beside_listeners(table, intensity).set_index("group")
    assert list(found.index) == ["all clips", "normal", "strong", *sorted(studies.BY_EMOTION)]
    said = studies.with_listeners_options(table)
    right = said["predicted"] == said["emotion"]
    assert found.loc["all clips", "value"] == pytest.approx(right.mean())
    assert found.loc["strong", "value"] == pytest.approx(right[::3].mean())
    for emotion, share in studies.BY_EMOTION.items():
        part = right[said["emotion"] == emotion]
        assert found.loc[emotion, "value"] == pytest.approx(part.mean())
        assert (found.loc[emotion, "clips"], found.loc[emotion, "listeners"]) == (len(part), share)
    assert found["listeners"].notna().all()
    assert found.loc["all clips", ["low", "high"]].to_list() == pytest.approx(
        metrics.score(said, list(studies.BY_EMOTION), "accuracy")[1:]
    )
