"""studies: leaking splits leak as intended and others do not; changed recordings are of unseen speakers."""

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


def test_oversampling_repeats_rare_emotions_as_copies():
    table = synthetic()
    scarce = table[~((table["emotion"] == "calm") & (table["clip_id"].str[-1] > "0"))].reset_index(drop=True)
    oversampled = studies.oversample(scarce)
    assert oversampled["emotion"].value_counts().to_dict() == dict.fromkeys(FOUR, 4 * len(SPEAKERS))
    assert oversampled["clip_id"].is_unique
    repeated = oversampled[~identity.originals(oversampled)]
    assert set(repeated["emotion"]) == {"calm"}
    features = tables.feature_columns(scarce)
    source = scarce.set_index("clip_id").loc[repeated["source_clip"], features]
    np.testing.assert_array_equal(repeated[features], source)


def test_a_repeated_copy_is_a_copy_of_the_first():
    """Copies of copies belong to one recording; otherwise a guarded split could separate them."""
    table = synthetic()
    copies = table[table["emotion"] == "happy"]
    copies = copies.assign(source_clip=copies["clip_id"], clip_id=copies["clip_id"] + " louder")
    both = pd.concat([table.assign(source_clip=table["clip_id"]), copies], ignore_index=True)
    oversampled = studies.oversample(both)
    assert set(oversampled["source_clip"]) == set(table["clip_id"])


def test_what_leaks_under_each_protocol():
    """Unguarded, copies of test clips are trained on; guarded, none; by speaker, nothing leaks."""
    table = synthetic().assign(statement="kids")
    copies = table.assign(source_clip=table["clip_id"], clip_id=table["clip_id"] + " louder")
    both = pd.concat([table.assign(source_clip=table["clip_id"]), copies], ignore_index=True)
    loose = studies.mean_leakage(both, "random", guarded=False)
    assert 0.5 < loose["altered_copy"] <= 1
    guarded = studies.mean_leakage(both, "random")
    assert guarded["altered_copy"] == guarded["identical_twin"] == 0
    assert guarded["same_speaker"] == 1
    assert guarded["same_sentence"] > 0.5
    assert studies.mean_leakage(both, "actors5") == dict.fromkeys(guarded, 0.0)


def test_transfer_is_scored_on_the_other_corpus_in_the_shared_emotions():
    here = synthetic()
    there = synthetic(speakers=["03", "11"], corpus="emodb", seed=1)  # another 03
    there = there[there["emotion"] != "calm"].assign(clip_id=lambda t: "g" + t["clip_id"])
    predictions = studies.transfer(here, there, "logistic", seeds=(0, 1))
    assert set(predictions["clip_id"]) == set(there["clip_id"])
    assert len(predictions) == 2 * len(there)
    assert sorted(name for name in predictions if name.startswith("p_")) == sorted(
        f"p_{e}" for e in FOUR if e != "calm"
    )
    assert metrics.score(predictions, [e for e in FOUR if e != "calm"])[0] > 0.8
    planted = there.assign(audio_sha256=there["clip_id"])
    twin = here.assign(audio_sha256=here["clip_id"])
    twin.loc[twin["emotion"] == "happy", "audio_sha256"] = planted.loc[
        planted["emotion"] == "happy", "audio_sha256"
    ].iloc[0]
    with pytest.raises(ContaminationError, match="identical twin"):
        studies.transfer(twin, planted, "logistic", seeds=(0,))


# --- robustness to distortions ----------------------------------------------------------------------


def shuffled(table: pd.DataFrame) -> pd.DataFrame:
    """The table in another order, without what its columns tell of the emotion."""
    informative = [name for name in table if name.startswith("mfcc")]
    return table.sample(frac=1, random_state=0).assign(**{name: np.float32(0) for name in informative})


def test_the_clean_condition_is_plain_evaluation():
    table = synthetic()
    predictions = studies.predict_conditions(table, {"clean": table, "ruined": shuffled(table)}, "logistic")
    plain = cross_validation.out_of_fold(table, ["logistic"])
    assert set(predictions["condition"]) == {"clean", "ruined"}
    for condition, part in predictions.groupby("condition"):
        assert sorted(part["clip_id"]) == sorted(table["clip_id"])
        assert (part["emotion"] == part["clip_id"].str.split("-").str[1]).all(), condition
    clean = (
        predictions[predictions["condition"] == "clean"]
        .set_index("clip_id")
        .loc[plain["clip_id"]]
        .reset_index()
    )
    assert_frame_equal(clean[plain.columns], plain)
    right = predictions["predicted"].eq(predictions["emotion"]).groupby(predictions["condition"]).mean()
    assert right["clean"] > 0.8
    assert right["ruined"] < 0.4  # chance is a quarter


def test_copies_are_trained_on_and_a_condition_may_lack_clips():
    table = synthetic()
    copies = table.assign(source_clip=table["clip_id"], clip_id=table["clip_id"] + " louder")
    train = pd.concat([table.assign(source_clip=table["clip_id"]), copies], ignore_index=True)
    predictions = studies.predict_conditions(
        train, {"clean": table, "half": table.iloc[:50]}, "logistic", seeds=(0, 1)
    )
    assert predictions.groupby(["condition", "seed"]).size().to_dict() == {
        ("clean", 0): len(table), ("clean", 1): len(table), ("half", 0): 50, ("half", 1): 50,
    }  # fmt: skip
    alone = studies.predict_conditions(table, {"clean": table}, "logistic")
    columns = [name for name in predictions if name.startswith("p_")]
    here = predictions[(predictions["condition"] == "clean") & (predictions["seed"] == 0)]
    assert np.abs(here[columns].to_numpy() - alone[columns].to_numpy()).max() > 0.01  # twice the clips


def test_a_twin_under_another_speaker_is_caught():
    table = synthetic().assign(audio_sha256=lambda t: t["clip_id"])
    twin = table[table["speaker"] == "01"].assign(
        audio_sha256=table.loc[table["speaker"] == "02", "audio_sha256"].to_numpy()
    )
    with pytest.raises(ContaminationError, match="sample-identical twin"):
        studies.predict_conditions(table, {"planted": twin}, "logistic")


def test_recordings_are_changed_and_keep_their_clips(tiny_corpus):
    clips = corpora.listing(tiny_corpus)[0]
    config = FeatureConfig()
    table = tables.select(extraction.build(clips, config)[0], ["happy", "sad"])
    changes = (Gain(-20), Noise(5), Half())
    conditions = studies.tables_by_condition(table, clips, changes, config)
    assert list(conditions) == [studies.CLEAN, *(change.name for change in changes)]
    assert conditions[studies.CLEAN] is table
    for changed in list(conditions.values())[1:]:
        assert list(changed["clip_id"]) == list(table["clip_id"])
    softer = conditions["gain -20 dB"]["level_p95"] - table["level_p95"]
    assert softer.to_numpy() == pytest.approx(-20, abs=0.05)
    assert (conditions["first half"]["time_duration"] < table["time_duration"]).all()
    predictions = studies.predict_conditions(
        copies.with_copies(table, clips, (Gain(3),), config), conditions, "logistic"
    )
    assert len(predictions) == 4 * len(table)
