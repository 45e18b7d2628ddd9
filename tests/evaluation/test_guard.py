"""guard: any form of a test clip planted in training is caught and named; clean splits pass."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from ser_lib.corpora import identity
from ser_lib.errors import ContaminationError, CorpusError
from ser_lib.evaluation import guard, splits
from ser_lib.features import tables

TWINS = ["03-01-03-01-02-01-07", "03-01-03-01-02-02-07"]  # one recording under two names, in RAVDESS


def clips(*, speakers: int = 6, each: int = 8) -> pd.DataFrame:
    """Clips without audio, in an order and with an index of no meaning."""
    rows = [
        {
            "clip_id": f"{speaker}{n}",
            "speaker": speaker,
            "emotion": ("happy", "sad")[n % 2],
            "statement": ("kids", "dogs")[n // 2 % 2],
            "audio_sha256": f"sha-{speaker}{n}",
        }
        for speaker in "abcdefgh"[:speakers]
        for n in range(each)
    ]
    table = pd.DataFrame(rows).sample(frac=1, random_state=1)
    return table.set_index(pd.RangeIndex(500, 500 + len(table)))


def with_copies(table: pd.DataFrame, of: list[str]) -> pd.DataFrame:
    """The table and an altered copy of some clips."""
    copies = table[table["clip_id"].isin(of)].assign(source_clip=lambda t: t["clip_id"])
    copies = copies.assign(
        clip_id=copies["clip_id"] + "+noise", audio_sha256=copies["audio_sha256"] + "+noise"
    )
    return pd.concat([table, copies])


def halves(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Masks: speakers d and later are trained on, the others tested."""
    train = (table["speaker"] >= "d").to_numpy()
    return train, ~train


@pytest.fixture(scope="module")
def ravdess_table() -> pd.DataFrame:
    return tables.shipped()[["clip_id", "speaker", "emotion", "statement", "corpus", "audio_sha256"]]


# --- what passes -----------------------------------------------------------------------------------


def test_whole_speakers_pass_as_masks_and_as_row_numbers():
    table = clips()
    train, test = halves(table)
    guard.check_split(table, train, test)
    guard.check_split(table, np.flatnonzero(train), np.flatnonzero(test).tolist())
    guard.check_split(table.drop(columns="audio_sha256"), train, test)


@pytest.mark.parametrize("protocol", splits.PROTOCOLS)
def test_every_protocol_passes_on_ravdess(ravdess_table, protocol):
    result = splits.folds(ravdess_table, protocol)
    for train, test in result.values():
        guard.check_split(ravdess_table, train, test, speakers=protocol != "random")
        assert not set(train) & set(test)
    tested = np.concatenate([test for _, test in result.values()])
    assert len(set(tested)) == len(tested) == (len(ravdess_table) if protocol != "random" else 360)


def test_copies_and_twins_on_one_side_pass():
    table = with_copies(clips(), ["a0", "d0"])
    table.loc[table["clip_id"] == "a1", "audio_sha256"] = "sha-a2"
    guard.check_split(table, *halves(table))


def test_originals_may_name_themselves_or_nothing_as_their_source():
    table = clips()
    source = [name if i % 3 else (None, "")[i % 2] for i, name in enumerate(table["clip_id"])]
    table = table.assign(source_clip=source)
    assert identity.originals(table).all()
    assert (identity.sources(table) == table["clip_id"]).all()
    guard.check_split(table, *halves(table))


# --- what is caught --------------------------------------------------------------------------------


def test_a_sample_identical_twin_is_caught_and_named():
    table = clips()
    table.loc[table["clip_id"] == "a3", "audio_sha256"] = "sha-e5"
    with pytest.raises(
        ContaminationError,
        match=r"1 test clip\(s\) have a sample-identical twin in training: a3 \(e5\); keep a",
    ):
        guard.check_split(table, *halves(table), speakers=False)


def test_the_clip_itself_on_both_sides_is_caught_even_without_hashes():
    table = clips().drop(columns="audio_sha256")
    train, test = (np.flatnonzero(side) for side in halves(table))
    with pytest.raises(ContaminationError, match="identical twin"):
        guard.check_split(table, np.append(train, test[0]), test, speakers=False)


def test_an_altered_copy_is_caught_and_named():
    table = with_copies(clips(), ["a3"])
    train, test = halves(table)
    copy = (table["clip_id"] == "a3+noise").to_numpy()
    with pytest.raises(ContaminationError, match=r"have an augmented copy in training: a3 \(a3\+noise\);"):
        guard.check_split(table, train | copy, test & ~copy, speakers=False)
    with pytest.raises(ContaminationError, match=r"augmented copy in training: a3\+noise \(a3\)"):
        guard.check_split(table, ~copy, copy, speakers=False)


def test_an_altered_copy_of_a_twin_is_caught():
    """a3 and a4 are one recording; a copy was made of a4, which is on neither side."""
    table = with_copies(clips(), ["a4"])
    table.loc[table["clip_id"] == "a4", "audio_sha256"] = "sha-a3"
    train, test = halves(table)
    copy, twin = ((table["clip_id"] == name).to_numpy() for name in ("a4+noise", "a4"))
    with pytest.raises(ContaminationError, match=r"augmented copy in training: a3 \(a4\+noise\)"):
        guard.check_split(table, train | copy, test & ~copy & ~twin, speakers=False)


def test_a_speaker_on_both_sides_is_caught_unless_that_is_stated():
    table = clips()
    train, test = halves(table)
    moved = table["clip_id"].isin(["a0", "b1"]).to_numpy()
    with pytest.raises(
        ContaminationError, match=r"speaker\(s\) a, b in both training|speaker\(s\) b, a in both"
    ):
        guard.check_split(table, train | moved, test & ~moved)
    guard.check_split(table, train | moved, test & ~moved, speakers=False)


def test_five_names_then_a_count():
    table = with_copies(clips(), [f"a{n}" for n in range(8)])
    copies = table["clip_id"].str.contains("noise").to_numpy()
    train, test = halves(table)
    with pytest.raises(CorpusError, match="8 test clip") as caught:
        guard.check_split(table, train | copies, test & ~copies, speakers=False)
    assert len(re.findall(r"a\d \(a\d\+noise\)", str(caught.value))) == 5
    assert " and 3 more; " in str(caught.value)


def test_the_two_names_of_one_ravdess_recording_are_caught_when_split_apart(ravdess_table):
    twins = ravdess_table["audio_sha256"].duplicated(keep=False)
    assert sorted(ravdess_table["clip_id"][twins]) == TWINS
    tested = (ravdess_table["clip_id"] == TWINS[0]).to_numpy()
    with pytest.raises(ContaminationError, match=rf"{TWINS[0]} \({TWINS[1]}\)"):
        guard.check_split(ravdess_table, ~tested, tested, speakers=False)
    others = tested | (ravdess_table["clip_id"] == TWINS[1]).to_numpy()
    guard.check_split(ravdess_table, ~others, others, speakers=False)


@pytest.mark.parametrize("seed", range(30))
def test_it_agrees_with_a_loop_over_all_pairs(seed):
    rng = np.random.default_rng(seed)
    table = with_copies(
        clips(speakers=4, each=4), list(rng.choice([f"{s}{n}" for s in "abcd" for n in range(4)], 3))
    )
    if seed % 2:
        table["audio_sha256"] = table["audio_sha256"].where(rng.random(len(table)) < 0.8, "sha-b0")
    rows = rng.permutation(len(table))
    train, test = rows[: rng.integers(2, 15)], rows[-rng.integers(2, 5) :]
    row = [tuple(r) for r in table[["clip_id", "source_clip", "audio_sha256"]].itertuples(index=False)]
    content = {name: sha for name, _, sha in row}
    twin = [any(row[i][2] == row[j][2] for j in train) for i in test]
    root = [content[source] if isinstance(source, str) else sha for _, source, sha in row]
    altered = [isinstance(source, str) for _, source, _ in row]
    copied = [any(root[i] == root[j] and (altered[i] or altered[j]) for j in train) for i in test]
    result = guard.leakage(table, train, test)
    assert result["identical_twin"] == pytest.approx(np.mean(twin))
    assert result["altered_copy"] == pytest.approx(np.mean(copied))
    if any(twin) or any(copied):
        with pytest.raises(ContaminationError):
            guard.check_split(table, train, test, speakers=False)
    else:
        guard.check_split(table, train, test, speakers=False)


# --- shares and folds ------------------------------------------------------------------------------


def test_shares_of_what_leaks():
    """Four clips are tested: one copied, one with a twin, and of the four sentences of `a` two are trained on."""
    table = with_copies(clips(speakers=3), ["a0"])
    table.loc[table["clip_id"] == "a1", "audio_sha256"] = "sha-b0"
    test = table["clip_id"].isin(["a0", "a1", "a2", "c3"]).to_numpy()
    train = table["clip_id"].isin(["a0+noise", "b0", "b1", "a6"]).to_numpy()
    assert guard.leakage(table, train, test) == {
        "altered_copy": 0.25,
        "identical_twin": 0.25,
        "same_sentence": 0.5,  # a0 in a0+noise, a2 in a6
        "same_speaker": 0.75,
    }
    unknown = table.assign(statement="")
    assert guard.leakage(unknown, train, test)["same_sentence"] == 0
    assert guard.leakage(table.drop(columns="statement"), train, test)["same_sentence"] == 0


def test_the_random_split_of_ravdess_leaks_speakers_and_sentences(ravdess_table):
    ((train, test),) = splits.folds(ravdess_table, "random").values()
    shares = guard.leakage(ravdess_table, train, test)
    assert shares["same_speaker"] == 1
    assert shares["same_sentence"] > 0.9
    assert shares["identical_twin"] == shares["altered_copy"] == 0
    for train, test in splits.folds(ravdess_table).values():
        assert set(guard.leakage(ravdess_table, train, test).values()) == {0}


@pytest.mark.parametrize("protocol", splits.PROTOCOLS)
def test_copies_have_the_fold_of_their_source_and_change_no_other(ravdess_table, protocol):
    named = ravdess_table["clip_id"].sample(200, random_state=0).to_list()
    table = with_copies(ravdess_table, named).sample(frac=1, random_state=0)
    folds = splits.assign_folds(table, protocol).set_axis(table["clip_id"])
    plain = splits.assign_folds(
        table[identity.originals(table)].drop(columns="source_clip"), protocol
    ).set_axis(table["clip_id"][identity.originals(table)])
    pd.testing.assert_series_equal(folds[plain.index], plain)
    assert (folds[[f"{name}+noise" for name in named]].to_numpy() == folds[named].to_numpy()).all()


def test_a_copy_without_its_source_is_refused(ravdess_table):
    table = with_copies(ravdess_table, TWINS)
    with pytest.raises(
        CorpusError, match=rf"{TWINS[0]}: the table has an augmented copy of this clip but not"
    ):
        splits.assign_folds(table[table["clip_id"] != TWINS[0]])


def test_unguarded_folds_leak_on_purpose(ravdess_table):
    """Copies made before a random split: the tutorials' other mistake."""
    table = with_copies(ravdess_table, ravdess_table["clip_id"].to_list())
    ((train, test),) = splits.folds(table, "random", guarded=False).values()
    assert guard.leakage(table, train, test)["altered_copy"] > 0.6
    ((train, test),) = splits.folds(table, "random").values()
    assert guard.leakage(table, train, test)["altered_copy"] == 0
    assert identity.originals(table)[test].all()
    assert not identity.originals(table)[train].all()
