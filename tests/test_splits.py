"""splits: a split proves itself; no speaker and no copy of a clip is on both sides."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ser_lib.corpus import EIGHT
from ser_lib.errors import CorpusError
from ser_lib.splits import PROTOCOLS, RAVDESS_FOLDS, assert_speakers_apart, assign_folds


def table(speakers, *, clips_each: int = 16, corpus: str = "ravdess") -> pd.DataFrame:
    """Clips without audio, shuffled, with an index that does not start at zero."""
    rows = [
        {"speaker": speaker, "emotion": EIGHT[n % 8], "corpus": corpus, "audio_sha256": f"{speaker}/{n}"}
        for speaker in speakers
        for n in range(clips_each)
    ]
    clips = pd.DataFrame(rows).sample(frac=1, random_state=3)
    return clips.set_index(pd.RangeIndex(100, 100 + len(clips)))


ACTORS = [f"{actor:02d}" for actor in range(1, 25)]
RAVDESS = table(ACTORS)
OTHER = table(["ann", "ben", "cem", "dan", "eva", "fay", "gil"], corpus="attic")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("clips", [RAVDESS, OTHER], ids=["ravdess", "attic"])
def test_every_protocol_gives_each_clip_one_number(protocol, clips):
    before = clips.copy()
    folds = assign_folds(clips, protocol)
    assert folds.name == "fold"
    assert folds.index.equals(clips.index)
    assert folds.dtype.kind == "i"
    pd.testing.assert_frame_equal(clips, before)
    if protocol == "random":
        assert set(folds) == {-1, 0}
    else:
        assert sorted(folds.unique()) == list(range(folds.nunique()))
        for fold in folds.unique():
            test, train = clips[folds == fold], clips[folds != fold]
            assert set(test["speaker"]).isdisjoint(train["speaker"])


def test_actors5_is_the_published_split():
    """Golden: Luna-Jiménez et al. (2021), the test actors of each fold."""
    folds = assign_folds(RAVDESS)
    said = RAVDESS["speaker"].astype(int).groupby(folds).unique().map(sorted)
    assert [tuple(actors) for actors in said] == [
        (2, 5, 14, 15, 16), (3, 6, 7, 13, 18), (10, 11, 12, 19, 20), (8, 17, 21, 23, 24), (1, 4, 9, 22),
    ]  # fmt: skip
    assert sorted(actor for fold in RAVDESS_FOLDS for actor in fold) == list(range(1, 25))


def test_actors5_of_some_actors_and_of_songs_keeps_the_published_numbers():
    some = assign_folds(RAVDESS[RAVDESS["speaker"].isin(["01", "02", "03", "04"])])
    np.testing.assert_array_equal(some, assign_folds(RAVDESS)[some.index])
    songs = RAVDESS.assign(corpus=np.where(np.arange(len(RAVDESS)) % 2, "ravdess", "ravdess-song"))
    pd.testing.assert_series_equal(assign_folds(songs), assign_folds(RAVDESS))


def test_actors5_of_another_corpus_groups_its_speakers():
    folds = assign_folds(OTHER)
    assert sorted(folds.unique()) == [0, 1, 2, 3, 4]
    assert folds.groupby(OTHER["speaker"]).nunique().max() == 1
    unnamed = OTHER.drop(columns="corpus")
    pd.testing.assert_series_equal(assign_folds(unnamed), folds)
    assert assign_folds(table(["ann", "ben", "cem"], corpus="attic")).nunique() == 3


def test_loso_leaves_one_speaker_out():
    folds = assign_folds(RAVDESS, "loso")
    expected = {actor: n for n, actor in enumerate(ACTORS)}
    np.testing.assert_array_equal(folds, RAVDESS["speaker"].map(expected))


def test_random_tests_a_stratified_quarter_and_straddles_speakers():
    folds = assign_folds(RAVDESS, "random")
    assert (folds == 0).sum() == len(RAVDESS) // 4
    assert set(RAVDESS["emotion"][folds == 0].value_counts()) == {len(RAVDESS) // 32}
    assert set(RAVDESS["speaker"][folds == 0]) & set(RAVDESS["speaker"][folds == -1])


def test_the_seed_decides_the_random_split_and_nothing_else():
    pd.testing.assert_series_equal(
        assign_folds(RAVDESS, "random", seed=4), assign_folds(RAVDESS, "random", seed=4)
    )
    assert (assign_folds(RAVDESS, "random", seed=4) != assign_folds(RAVDESS, "random", seed=5)).any()
    for protocol in ("actors5", "loso"):
        pd.testing.assert_series_equal(
            assign_folds(RAVDESS, protocol, seed=4), assign_folds(RAVDESS, protocol, seed=5)
        )


def test_copies_of_a_clip_share_a_fold_under_random():
    clips = RAVDESS.copy()
    pairs = clips.index[:40].to_numpy().reshape(-1, 2)
    clips.loc[pairs[:, 1], "audio_sha256"] = clips.loc[pairs[:, 0], "audio_sha256"].to_numpy()
    straddled = 0
    for seed in range(20):
        folds = assign_folds(clips, "random", seed=seed)
        assert (folds[pairs[:, 0]].to_numpy() == folds[pairs[:, 1]].to_numpy()).all()
        plain = assign_folds(clips.drop(columns="audio_sha256"), "random", seed=seed)
        straddled += (plain[pairs[:, 0]].to_numpy() != plain[pairs[:, 1]].to_numpy()).sum()
        unpaired = clips.index.difference(pairs.ravel())
        pd.testing.assert_series_equal(folds[unpaired], plain[unpaired])
    assert straddled > 20  # without the joining they would not


@pytest.mark.parametrize("protocol", ["actors5", "loso"])
def test_a_copy_under_another_speaker_is_refused(protocol):
    clips = OTHER.copy()
    ann, ben = clips.index[clips["speaker"] == "ann"][0], clips.index[clips["speaker"] == "ben"][0]
    clips.loc[ben, "audio_sha256"] = clips.loc[ann, "audio_sha256"]
    with pytest.raises(
        CorpusError, match=r"speaker\(s\) (ann|ben) in more than one fold; are clips of two speakers"
    ):
        assign_folds(clips, protocol)


def test_speakers_in_two_folds_are_named():
    clips = pd.DataFrame({"speaker": ["a", "b", "b", "c", "c"]})
    assert_speakers_apart(clips, pd.Series([0, 1, 1, 2, 2]))
    with pytest.raises(CorpusError, match=r"speaker\(s\) b, c in more than one fold"):
        assert_speakers_apart(clips, pd.Series([0, 1, 2, 2, 0]))


def test_refusals():
    with pytest.raises(
        CorpusError, match=r"protocol 'kfold' is unknown; choose one of actors5, loso, random"
    ):
        assign_folds(RAVDESS, "kfold")
    for protocol in ("actors5", "loso"):
        with pytest.raises(
            CorpusError, match=r"1 speaker\(s\): testing on unheard speakers needs at least 2"
        ):
            assign_folds(table(["ann"]), protocol)
    with pytest.raises(
        CorpusError, match=r"\w+: 3 clip\(s\); a stratified quarter needs at least 4 an emotion"
    ):
        assign_folds(table(["ann"], clips_each=24), "random")
    with pytest.raises(CorpusError, match=r"actors5: all 2 speakers fall in one fold; use protocol=loso"):
        assign_folds(table(["02", "05"]))


def test_a_manifest_called_ravdess_with_other_speaker_names_is_grouped_or_refused():
    """`ravdess.csv` makes the corpus "ravdess" whatever its speakers are called."""
    try:
        folds = assign_folds(table(["1", "2", "3"]))
    except CorpusError as error:
        assert "'1'" in str(error) or " 1" in str(error)  # noqa: PT017
    else:
        assert folds.nunique() == 3
