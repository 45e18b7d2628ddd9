"""ladder: the leaking rungs leak what they say, the others nothing; changed recordings are of speakers never heard."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal
from test_cross_validation import SPEAKERS, synthetic

from ser_lib import corpora
from ser_lib.augmentation import Gain, Noise, copies
from ser_lib.augmentation.stress import Half
from ser_lib.corpora import FOUR, identity
from ser_lib.errors import ContaminationError
from ser_lib.evaluation import cross_validation, metrics, studies
from ser_lib.features import FeatureConfig, extraction, tables


def test_oversampling_repeats_the_scarce_and_calls_it_a_copy():
    table = synthetic()
    scarce = table[~((table["emotion"] == "calm") & (table["clip_id"].str[-1] > "0"))].reset_index(drop=True)
    found = studies.oversample(scarce)
    assert found["emotion"].value_counts().to_dict() == dict.fromkeys(FOUR, 4 * len(SPEAKERS))
    assert found["clip_id"].is_unique
    repeated = found[~identity.originals(found)]
    assert set(repeated["emotion"]) == {"calm"}
    features = tables.feature_columns(scarce)
    source = scarce.set_index("clip_id").loc[repeated["source_clip"], features]
    np.testing.assert_array_equal(repeated[features], source)


def test_a_repeated_copy_is_a_copy_of_the_first():
    """Copies of copies are all of one recording, or a guarded split could part them."""
    table = synthetic()
    copies = table[table["emotion"] == "happy"]
    copies = copies.assign(source_clip=copies["clip_id"], clip_id=copies["clip_id"] + " louder")
    both = pd.concat([table.assign(source_clip=table["clip_id"]), copies], ignore_index=True)
    found = studies.oversample(both)
    assert set(found["source_clip"]) == set(table["clip_id"])


def test_what_leaks_on_each_rung():
    """Without the guard copies of test clips are trained on; with it none; by speaker nothing is met."""
    table = synthetic().assign(statement="kids")
    copies = table.assign(source_clip=table["clip_id"], clip_id=table["clip_id"] + " louder")
    both = pd.concat([table.assign(source_clip=table["clip_id"]), copies], ignore_index=True)
    loose = studies.siblings(both, "random", guarded=False)
    assert 0.5 < loose["altered_copy"] <= 1
    held = studies.siblings(both, "random")
    assert held["altered_copy"] == held["identical_twin"] == 0
    assert held["same_speaker"] == 1
    assert held["same_sentence"] > 0.5
    assert studies.siblings(both, "actors5") == dict.fromkeys(held, 0.0)


def test_transfer_is_scored_on_the_other_corpus_in_the_shared_emotions():
    here = synthetic()
    there = synthetic(speakers=["03", "11"], corpus="emodb", seed=1)  # another 03
    there = there[there["emotion"] != "calm"].assign(clip_id=lambda t: "g" + t["clip_id"])
    said = studies.transfer(here, there, "logistic", seeds=(0, 1))
    assert set(said["clip_id"]) == set(there["clip_id"])
    assert len(said) == 2 * len(there)
    assert sorted(name for name in said if name.startswith("p_")) == sorted(
        f"p_{e}" for e in FOUR if e != "calm"
    )
    assert metrics.score(said, [e for e in FOUR if e != "calm"])[0] > 0.8
    planted = there.assign(audio_sha256=there["clip_id"])
    twin = here.assign(audio_sha256=here["clip_id"])
    twin.loc[twin["emotion"] == "happy", "audio_sha256"] = planted.loc[
        planted["emotion"] == "happy", "audio_sha256"
    ].iloc[0]
    with pytest.raises(ContaminationError, match="identical twin"):
        studies.transfer(twin, planted, "logistic", seeds=(0,))


# --- changed recordings ---


def shuffled(table: pd.DataFrame) -> pd.DataFrame:
    """The table in another order, with its columns that tell the emotion made noise."""
    told = [name for name in table if name.startswith("mfcc")]
    return table.sample(frac=1, random_state=0).assign(**{name: np.float32(0) for name in told})


def test_the_clean_condition_is_plain_evaluation():
    table = synthetic()
    said = studies.hear(table, {"clean": table, "ruined": shuffled(table)}, "logistic")
    plain = cross_validation.out_of_fold(table, ["logistic"])
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
    said = studies.hear(train, {"clean": table, "half": table.iloc[:50]}, "logistic", seeds=(0, 1))
    assert said.groupby(["condition", "seed"]).size().to_dict() == {
        ("clean", 0): len(table), ("clean", 1): len(table), ("half", 0): 50, ("half", 1): 50,
    }  # fmt: skip
    alone = studies.hear(table, {"clean": table}, "logistic")
    columns = [name for name in said if name.startswith("p_")]
    here = said[(said["condition"] == "clean") & (said["seed"] == 0)]
    assert np.abs(here[columns].to_numpy() - alone[columns].to_numpy()).max() > 0.01  # twice the clips


def test_a_twin_under_another_speaker_is_caught():
    table = synthetic().assign(audio_sha256=lambda t: t["clip_id"])
    twin = table[table["speaker"] == "01"].assign(
        audio_sha256=table.loc[table["speaker"] == "02", "audio_sha256"].to_numpy()
    )
    with pytest.raises(ContaminationError, match="sample-identical twin"):
        studies.hear(table, {"planted": twin}, "logistic")


def test_recordings_are_changed_and_keep_their_clips(tiny_corpus):
    clips = corpora.listing(tiny_corpus)[0]
    config = FeatureConfig()
    table = tables.select(extraction.build(clips, config)[0], ["happy", "sad"])
    changes = (Gain(-20), Noise(5), Half())
    held = studies.recordings(table, clips, changes, config)
    assert list(held) == [studies.CLEAN, *(change.name for change in changes)]
    assert held[studies.CLEAN] is table
    for changed in list(held.values())[1:]:
        assert list(changed["clip_id"]) == list(table["clip_id"])
    softer = held["gain -20 dB"]["level_p95"] - table["level_p95"]
    assert softer.to_numpy() == pytest.approx(-20, abs=0.05)
    assert (held["first half"]["time_duration"] < table["time_duration"]).all()
    said = studies.hear(copies.with_copies(table, clips, (Gain(3),), config), held, "logistic")
    assert len(said) == 4 * len(table)
