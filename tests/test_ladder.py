"""ladder: the leaking rungs leak what they say, the others nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from test_evaluate import SPEAKERS, synthetic

from ser_lib import evaluate, guard, ladder, metrics
from ser_lib.corpus import FOUR
from ser_lib.errors import ContaminationError


def test_oversampling_repeats_the_scarce_and_calls_it_a_copy():
    table = synthetic()
    scarce = table[~((table["emotion"] == "calm") & (table["clip_id"].str[-1] > "0"))].reset_index(drop=True)
    found = ladder.oversample(scarce)
    assert found["emotion"].value_counts().to_dict() == dict.fromkeys(FOUR, 4 * len(SPEAKERS))
    assert found["clip_id"].is_unique
    repeated = found[~guard.originals(found)]
    assert set(repeated["emotion"]) == {"calm"}
    features = evaluate.feature_columns(scarce)
    source = scarce.set_index("clip_id").loc[repeated["source_clip"], features]
    np.testing.assert_array_equal(repeated[features], source)


def test_a_repeated_copy_is_a_copy_of_the_first():
    """Copies of copies are all of one recording, or a guarded split could part them."""
    table = synthetic()
    copies = table[table["emotion"] == "happy"]
    copies = copies.assign(source_clip=copies["clip_id"], clip_id=copies["clip_id"] + " louder")
    both = pd.concat([table.assign(source_clip=table["clip_id"]), copies], ignore_index=True)
    found = ladder.oversample(both)
    assert set(found["source_clip"]) == set(table["clip_id"])


def test_what_leaks_on_each_rung():
    """Without the guard copies of test clips are trained on; with it none; by speaker nothing is met."""
    table = synthetic().assign(statement="kids")
    copies = table.assign(source_clip=table["clip_id"], clip_id=table["clip_id"] + " louder")
    both = pd.concat([table.assign(source_clip=table["clip_id"]), copies], ignore_index=True)
    loose = ladder.siblings(both, "random", guarded=False)
    assert 0.5 < loose["altered_copy"] <= 1
    held = ladder.siblings(both, "random")
    assert held["altered_copy"] == held["identical_twin"] == 0
    assert held["same_speaker"] == 1
    assert held["same_sentence"] > 0.5
    assert ladder.siblings(both, "actors5") == dict.fromkeys(held, 0.0)


def test_transfer_is_scored_on_the_other_corpus_in_the_shared_emotions():
    here = synthetic()
    there = synthetic(speakers=["03", "11"], corpus="emodb", seed=1)  # another 03
    there = there[there["emotion"] != "calm"].assign(clip_id=lambda t: "g" + t["clip_id"])
    said = ladder.transfer(here, there, "logistic", seeds=(0, 1))
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
        ladder.transfer(twin, planted, "logistic", seeds=(0,))
