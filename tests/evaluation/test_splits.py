"""splits: a split proves itself; no speaker and no copy of a clip is on both sides."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ser_lib.corpora import EIGHT
from ser_lib.errors import CorpusError
from ser_lib.evaluation import guard
from ser_lib.evaluation.splits import (
    PROTOCOLS,
    RAVDESS_FOLDS,
    assert_speakers_apart,
    assign_folds,
    assign_inner_folds,
    folds,
    inner_folds,
)
from ser_lib.runs.preflight import MIN_CLIPS, MIN_EACH, MIN_SPEAKERS, doubts


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
    numbers = assign_folds(clips, protocol)
    assert numbers.name == "fold"
    assert numbers.index.equals(clips.index)
    assert numbers.dtype.kind == "i"
    pd.testing.assert_frame_equal(clips, before)
    assert assign_folds(clips.drop(columns="audio_sha256"), protocol).name == "fold"
    if protocol == "random":
        assert set(numbers) == {-1, 0}
    else:
        assert sorted(numbers.unique()) == list(range(numbers.nunique()))
        for fold in numbers.unique():
            test, train = clips[numbers == fold], clips[numbers != fold]
            assert set(test["speaker"]).isdisjoint(train["speaker"])


def test_actors5_is_the_published_split():
    """Golden: Luna-Jiménez et al. (2021), the test actors of each fold."""
    numbers = assign_folds(RAVDESS)
    actors_of_fold = RAVDESS["speaker"].astype(int).groupby(numbers).unique().map(sorted)
    assert [tuple(actors) for actors in actors_of_fold] == [
        (2, 5, 14, 15, 16), (3, 6, 7, 13, 18), (10, 11, 12, 19, 20), (8, 17, 21, 23, 24), (1, 4, 9, 22),
    ]  # fmt: skip
    assert sorted(actor for fold in RAVDESS_FOLDS for actor in fold) == list(range(1, 25))


def test_actors5_of_some_actors_and_of_songs_keeps_the_published_numbers():
    some = assign_folds(RAVDESS[RAVDESS["speaker"].isin(["01", "02", "03", "04"])])
    np.testing.assert_array_equal(some, assign_folds(RAVDESS)[some.index])
    songs = RAVDESS.assign(corpus=np.where(np.arange(len(RAVDESS)) % 2, "ravdess", "ravdess-song"))
    pd.testing.assert_series_equal(assign_folds(songs), assign_folds(RAVDESS))


def test_actors5_of_another_corpus_groups_its_speakers():
    numbers = assign_folds(OTHER)
    assert sorted(numbers.unique()) == [0, 1, 2, 3, 4]
    assert numbers.groupby(OTHER["speaker"]).nunique().max() == 1
    unnamed = OTHER.drop(columns="corpus")
    pd.testing.assert_series_equal(assign_folds(unnamed), numbers)
    assert assign_folds(table(["ann", "ben", "cem"], corpus="attic")).nunique() == 3


def test_loso_leaves_one_speaker_out():
    numbers = assign_folds(RAVDESS, "loso")
    expected = {actor: n for n, actor in enumerate(ACTORS)}
    np.testing.assert_array_equal(numbers, RAVDESS["speaker"].map(expected))


def test_random_tests_a_stratified_quarter_and_straddles_speakers():
    numbers = assign_folds(RAVDESS, "random")
    assert (numbers == 0).sum() == len(RAVDESS) // 4
    assert set(RAVDESS["emotion"][numbers == 0].value_counts()) == {len(RAVDESS) // 32}
    assert set(RAVDESS["speaker"][numbers == 0]) & set(RAVDESS["speaker"][numbers == -1])


def test_the_seed_decides_the_random_split_and_nothing_else():
    pd.testing.assert_series_equal(
        assign_folds(RAVDESS, "random", seed=4), assign_folds(RAVDESS, "random", seed=4)
    )
    pd.testing.assert_series_equal(assign_folds(RAVDESS, "random"), assign_folds(RAVDESS, "random", seed=0))
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
        numbers = assign_folds(clips, "random", seed=seed)
        assert (numbers[pairs[:, 0]].to_numpy() == numbers[pairs[:, 1]].to_numpy()).all()
        plain = assign_folds(clips.drop(columns="audio_sha256"), "random", seed=seed)
        straddled += (plain[pairs[:, 0]].to_numpy() != plain[pairs[:, 1]].to_numpy()).sum()
        unpaired = clips.index.difference(pairs.ravel())
        pd.testing.assert_series_equal(numbers[unpaired], plain[unpaired])
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
        with pytest.raises(CorpusError, match=r"1 speaker\(s\): testing on unseen speakers needs at least 2"):
            assign_folds(table(["ann"]), protocol)
    with pytest.raises(
        CorpusError,
        match=r"^\w+: 3 clip\(s\); a stratified quarter needs at least 4 of each emotion; add some, or leave it out of "
        r"emotions=…$",
    ):
        assign_folds(table(["ann"], clips_each=24), "random")
    assert (assign_folds(table(["ann"], clips_each=32), "random") == 0).sum() == 8
    assert assign_folds(table(["ann", "ben"]), "loso").nunique() == 2
    with pytest.raises(CorpusError, match=r"actors5: all 2 speakers fall in one fold; use protocol=loso"):
        assign_folds(table(["02", "05"]))


def test_a_manifest_called_ravdess_with_other_speaker_names_is_grouped_or_refused():
    """`ravdess.csv` makes the corpus "ravdess" whatever its speakers are called."""
    try:
        numbers = assign_folds(table(["1", "2", "3"]))
    except CorpusError as error:
        assert "'1'" in str(error) or " 1" in str(error)  # noqa: PT017
    else:
        assert numbers.nunique() == 3


# --- altered copies --------------------------------------------------------------------------------


def copied(clips: pd.DataFrame) -> pd.DataFrame:
    """Each clip and an altered copy of it, mixed, and a feature of each."""
    own = clips.assign(clip_id=[f"c{i:03d}" for i in range(len(clips))])
    own = own.assign(source_clip=own["clip_id"], level_mean=0.5)
    copy = own.assign(clip_id=own["clip_id"] + "/fast", audio_sha256=own["audio_sha256"] + "/fast")
    return pd.concat([own, copy]).sample(frac=1, random_state=5).reset_index(drop=True)


BOTH = copied(OTHER)
OWN = BOTH["clip_id"] == BOTH["source_clip"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_copy_has_the_fold_of_its_source(protocol):
    numbers = assign_folds(BOTH, protocol)
    assert numbers.groupby(BOTH["source_clip"]).nunique().max() == 1
    assert (numbers.name, numbers.dtype.kind) == ("fold", "i")
    alone = assign_folds(BOTH[OWN], protocol)
    pd.testing.assert_series_equal(numbers[OWN], alone)


def test_a_copy_without_its_source_is_refused():
    gone = sorted(BOTH["clip_id"][OWN])[3:5]
    for out, more in ((gone[:1], 0), (gone, 1)):
        with pytest.raises(
            CorpusError,
            match=rf"^c00[34]: the table has an augmented copy of this clip but not the clip itself, and the same for "
            rf"{more} more; remove copies together with their clips$",
        ):
            assign_folds(BOTH[~BOTH["clip_id"].isin(out)])


# --- folds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_folds_test_originals_and_train_on_the_rest(protocol, monkeypatch):
    checked = []
    check = guard.check_split
    monkeypatch.setattr(
        guard,
        "check_split",
        lambda *a, speakers: checked.append((*a[1:], speakers)) or check(*a, speakers=speakers),
    )
    numbers = assign_folds(BOTH, protocol, seed=3).to_numpy()
    result = folds(BOTH, protocol, seed=3)
    assert list(result) == sorted(set(numbers[numbers >= 0]))
    for (fold, (train, test)), seen in zip(result.items(), checked, strict=True):
        np.testing.assert_array_equal(test, np.flatnonzero(OWN & (numbers == fold)))
        np.testing.assert_array_equal(train, np.flatnonzero(numbers != fold))
        assert (seen[0] is train, seen[1] is test, seen[2]) == (True, True, protocol != "random")


def test_folds_are_those_of_actors5_and_of_seed_0():
    for one, other in (
        (folds(BOTH), folds(BOTH, "actors5")),
        (folds(BOTH, "random"), folds(BOTH, "random", seed=0)),
    ):
        assert str(one) == str(other)
    assert str(folds(BOTH, "random")) != str(folds(BOTH, "random", seed=1))


def test_unguarded_folds_take_copies_and_twins_for_clips_of_their_own():
    twins = BOTH.assign(audio_sha256="the same")
    ((train, test),) = folds(twins, "random", guarded=False).values()
    assert len(test) == len(BOTH) // 4
    assert len(train) + len(test) == len(BOTH)
    assert not OWN[test].all()
    plain = BOTH[OWN].drop(columns=["source_clip", "audio_sha256"])
    assert len(folds(plain, guarded=False)) == 5


def test_inner_folds_are_whole_speakers_of_the_training_rows():
    train, test = folds(BOTH)[0]
    result = inner_folds(BOTH, train)
    assert list(result) == [0, 1, 2, 3]
    assert list(inner_folds(BOTH, train, 2)) == [0, 1]
    for inner_train, tested in result.values():
        assert set(inner_train) | set(tested) <= set(train)
        assert not set(BOTH["speaker"][inner_train]) & set(BOTH["speaker"][tested])
        assert OWN[tested].all()
        assert not OWN[inner_train].all()
    every = np.sort(np.concatenate([tested for _, tested in result.values()]))
    np.testing.assert_array_equal(every, np.sort(train[OWN[train]]))
    assert not set(every) & set(test)


def test_there_are_at_most_n_inner_folds():
    assert sorted(assign_inner_folds(OTHER, 3).unique()) == [0, 1, 2]
    few = assign_inner_folds(table(["ann", "ben"], corpus="attic"), 3)
    assert (sorted(few.unique()), few.name, few.dtype.kind) == ([0, 1], "fold", "i")
    with pytest.raises(
        CorpusError, match=r"^1 speaker in training: choosing on unseen speakers needs at least 2$"
    ):
        assign_inner_folds(table(["ann"]), 3)


# --- doubts; more of them in test_corpus -----------------------------------------------------------


def clips_of(speakers: int, each: int, emotions=("happy", "sad")) -> pd.DataFrame:
    """As many clips of each emotion by each speaker."""
    rows = [(f"{s}{e}{n}", f"s{s}", e) for s in range(speakers) for e in emotions for n in range(each)]
    clips = pd.DataFrame(rows, columns=["clip_id", "speaker", "emotion"])
    return clips.assign(corpus="mine", audio_sha256=clips["clip_id"])


def test_what_is_just_enough_is_not_doubted():
    assert doubts(clips_of(MIN_SPEAKERS, MIN_CLIPS // MIN_SPEAKERS)) == []
    clips = clips_of(MIN_SPEAKERS + 1, 10)
    of_few = (clips["emotion"] == "sad") & (clips["speaker"] >= f"s{MIN_EACH}")
    assert doubts(clips[~of_few]) == []


def test_what_is_too_little_is_said_with_its_remedy():
    remedy = "add some, or leave the label out (null in labels.yaml, or without it in emotions=…)"
    assert doubts(clips_of(MIN_SPEAKERS, 3, ["sad"])) == [
        "one emotion, sad: nothing to classify; add clips of another"
    ]
    assert doubts(clips_of(MIN_SPEAKERS - 1, 3), "loso") == [
        "4 speaker(s): loso tests on unseen speakers, and fewer than 5 tell little about the next one; add recordings of others"
    ]
    assert doubts(clips_of(9, 1)) == [
        f"{name}: 9 clip(s), at least 10 are needed; {remedy}" for name in ("happy", "sad")
    ]
    clips = clips_of(MIN_SPEAKERS, 10)
    assert doubts(clips[(clips["emotion"] == "happy") | (clips["speaker"] < "s2")]) == [
        f"sad: only of s0, s1, at least 3 speakers are needed; {remedy}"
    ]


def test_what_contradicts_itself_is_said_with_its_remedy():
    clips = clips_of(MIN_SPEAKERS, 10)
    twins = clips.copy()
    twins.loc[0, ["audio_sha256", "emotion"]] = [twins["audio_sha256"][1], "sad"]
    assert doubts(twins) == [
        "0happy0 and 0happy1: the same samples, but emotion sad and happy; correct one, or remove both"
    ]
    mixed = clips.copy()
    mixed.loc[mixed["emotion"] == "sad", "corpus"] = "other"
    assert doubts(mixed[mixed["speaker"] == "s0"], "random") == [
        "speaker s0 is in mine and other and counts as one person; give two people two names, and one person "
        "one corpus"
    ]
    written = clips.copy()
    written.loc[written.index[::2], "emotion"] = written["emotion"].str.upper()
    assert doubts(written, "random") == [
        f"{name.upper()!r} and {name!r} differ only in spelling; map one to the other in labels.yaml"
        for name in ("happy", "sad")
    ]


def test_why_a_split_is_refused_is_said_too():
    """Clips of one name by two speakers would be doubted before; published numbers that meet are not."""
    clips = clips_of(5, 4).replace(
        {"speaker": {f"s{n}": name for n, name in enumerate(["02", "05", "14", "15", "16"])}}
    )
    assert doubts(clips.assign(corpus="ravdess")) == [
        "actors5: all 5 speakers fall in one fold; use protocol=loso"
    ]
