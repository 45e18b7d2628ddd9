"""stress: changed recordings are heard by a model that never heard their speaker, changed or not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from test_evaluate import synthetic

from ser_lib import corpus, evaluate, stress, tables
from ser_lib.augment import Gain, Half, Noise
from ser_lib.errors import ContaminationError
from ser_lib.features import FeatureConfig


def shuffled(table: pd.DataFrame) -> pd.DataFrame:
    """The table in another order, with its columns that tell the emotion made noise."""
    told = [name for name in table if name.startswith("mfcc")]
    return table.sample(frac=1, random_state=0).assign(**{name: np.float32(0) for name in told})


def test_the_clean_condition_is_plain_evaluation():
    table = synthetic()
    said = stress.hear(table, {"clean": table, "ruined": shuffled(table)}, "logistic")
    plain = evaluate.out_of_fold(table, ["logistic"])
    assert set(said["condition"]) == {"clean", "ruined"}
    for condition, part in said.groupby("condition"):
        assert sorted(part["clip_id"]) == sorted(table["clip_id"])
        assert (part["emotion"] == part["clip_id"].str.split("-").str[1]).all(), condition
    clean = said[said["condition"] == "clean"].set_index("clip_id").loc[plain["clip_id"]].reset_index()
    assert_frame_equal(clean[plain.columns], plain)
    right = said["predicted"].eq(said["emotion"]).groupby(said["condition"]).mean()
    assert right["clean"] > 0.8
    assert right["ruined"] < 0.4  # chance is a quarter


def test_copies_are_trained_on_and_a_condition_may_lack_clips():
    table = synthetic()
    copies = table.assign(source_clip=table["clip_id"], clip_id=table["clip_id"] + " louder")
    train = pd.concat([table.assign(source_clip=table["clip_id"]), copies], ignore_index=True)
    said = stress.hear(train, {"clean": table, "half": table.iloc[:50]}, "logistic", seeds=(0, 1))
    assert said.groupby(["condition", "seed"]).size().to_dict() == {
        ("clean", 0): len(table), ("clean", 1): len(table), ("half", 0): 50, ("half", 1): 50,
    }  # fmt: skip
    alone = stress.hear(table, {"clean": table}, "logistic")
    columns = [name for name in said if name.startswith("p_")]
    here = said[(said["condition"] == "clean") & (said["seed"] == 0)]
    assert np.abs(here[columns].to_numpy() - alone[columns].to_numpy()).max() > 0.01  # twice the clips


def test_a_twin_under_another_speaker_is_caught():
    table = synthetic().assign(audio_sha256=lambda t: t["clip_id"])
    twin = table[table["speaker"] == "01"].assign(
        audio_sha256=table.loc[table["speaker"] == "02", "audio_sha256"].to_numpy()
    )
    with pytest.raises(ContaminationError, match="sample-identical twin"):
        stress.hear(table, {"planted": twin}, "logistic")


def test_recordings_are_changed_and_keep_their_clips(tiny_corpus):
    clips = corpus.read(tiny_corpus).clips
    config = FeatureConfig()
    table = evaluate.select(tables.build(clips, config)[0], ["happy", "sad"])
    changes = (Gain(-20), Noise(5), Half())
    held = stress.recordings(table, clips, changes, config)
    assert list(held) == [stress.CLEAN, *(change.name for change in changes)]
    assert held[stress.CLEAN] is table
    for changed in list(held.values())[1:]:
        assert list(changed["clip_id"]) == list(table["clip_id"])
    softer = held["gain -20 dB"]["level_p95"] - table["level_p95"]
    assert softer.to_numpy() == pytest.approx(-20, abs=0.05)
    assert (held["first half"]["time_duration"] < table["time_duration"]).all()
    said = stress.hear(tables.with_copies(table, clips, (Gain(3),), config), held, "logistic")
    assert len(said) == 4 * len(table)
