"""Features relative to their speaker, compared with a plain loop."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pandas.testing import assert_frame_equal
from test_cross_validation import synthetic

from ser_lib import corpora, features
from ser_lib.augmentation import Gain
from ser_lib.errors import CorpusError
from ser_lib.evaluation import cross_validation, metrics
from ser_lib.features import extraction, relative, tables
from ser_lib.features.relative import PRIOR_DEVIATION, PRIOR_MEAN

EMOTIONS = ("neutral", "happy", "sad", "angry")
SPEAKERS = ("01", "02", "03", "05", "10", "17")  # of several published folds


def voices(*, each: int = 4, offset: float = 5.0, seed: int = 0) -> pd.DataFrame:
    """A table whose emotions are plain within a speaker and hidden by the speakers' own means and scales."""
    rng = np.random.default_rng(seed)
    grid = pd.MultiIndex.from_product([SPEAKERS, EMOTIONS, range(each)], names=["speaker", "emotion", "n"])
    table = grid.to_frame(index=False).assign(corpus="ravdess")
    table["clip_id"] = table["speaker"] + table["emotion"] + table.pop("n").astype(str)
    table["audio_sha256"] = "sha-" + table["clip_id"]
    code = table["emotion"].map(EMOTIONS.index).to_numpy()
    speaker = table["speaker"].map(SPEAKERS.index).to_numpy()
    for i in range(4):
        mean, scale = rng.normal(0, offset, 6), rng.uniform(0.7, 1.4, 6)
        signal = 2.0 * (code == i) + rng.normal(0, 0.5, len(table))
        table[f"mfcc_{i:02d}_mean"] = (mean[speaker] + scale[speaker] * signal - 30).astype(np.float32)
    table["mel_00_mean"] = np.float32(7)
    return table.sample(frac=1, random_state=seed).reset_index(drop=True)


def with_copies(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an altered copy of every clip."""
    copies = table.assign(source_clip=table["clip_id"], clip_id=table["clip_id"] + "+", audio_sha256=None)
    copies[tables.feature_columns(table)] += np.float32(0.25)
    return pd.concat([table, copies], ignore_index=True)


def uar(table: pd.DataFrame) -> float:
    predictions = cross_validation.out_of_fold(table, ["logistic"], protocol="loso", n_jobs=1)
    return metrics.score(predictions, EMOTIONS)[0]


# --- without labels --------------------------------------------------------------------------------


def test_each_speaker_is_standardised():
    table = voices()
    adapted = relative.transductive(table)
    assert list(adapted.columns) == list(table.columns)
    assert (adapted.dtypes == table.dtypes).all()
    columns = tables.feature_columns(table)
    assert_frame_equal(adapted.drop(columns=columns), table.drop(columns=columns))
    for speaker, part in table.groupby("speaker"):
        x = part[columns[:4]].to_numpy(float)
        expected = (x - x.mean(axis=0)) / x.std(axis=0)
        assert_allclose(adapted.loc[part.index, columns[:4]], expected, atol=1e-5, err_msg=speaker)
    assert (adapted["mel_00_mean"] == 0).all()  # it never varies


def test_labels_and_other_speakers_change_nothing():
    table = voices()
    other = table.assign(emotion=table["emotion"].to_numpy()[::-1])
    other.loc[other["speaker"] == "05", "mfcc_00_mean"] *= 3
    mine = (table["speaker"] != "05").to_numpy()
    columns = tables.feature_columns(table)
    assert_frame_equal(
        relative.transductive(table)[columns][mine], relative.transductive(other)[columns][mine]
    )


def test_the_features_of_a_single_clip_become_zero():
    table = voices().iloc[:1]
    assert (relative.transductive(table)[tables.feature_columns(table)] == 0).all(axis=None)


def test_copies_are_standardised_by_their_originals():
    table = voices()
    adapted = relative.transductive(with_copies(table))
    columns = tables.feature_columns(table)
    assert_frame_equal(adapted[columns].iloc[: len(table)], relative.transductive(table)[columns])
    copies = adapted[columns].iloc[len(table) :].reset_index(drop=True)
    assert (copies[columns[:4]] > adapted[columns[:4]].iloc[: len(table)]).all(axis=None)


def test_transductive_frames_have_the_same_mean_and_deviation_for_each_speaker():
    rng = np.random.default_rng(0)
    frames = rng.normal(-40, 5, (12, 6, 3)) + np.repeat([0, 20], 6)[:, None, None] * [1, 0, 2]
    frames[::3, 4:] = np.nan
    columns = [f"melpitch_{t:03d}_{i:02d}" for t in range(6) for i in range(3)]
    table = pd.DataFrame(frames.reshape(12, -1), columns=columns)
    table = table.assign(clip_id=[f"c{i}" for i in range(12)], speaker=["a"] * 6 + ["b"] * 6)
    table["source_clip"] = [*table["clip_id"][:11], "c9"]  # the last is a copy
    adapted = relative.transductive_frames(table, (6, 3))[columns].to_numpy().reshape(frames.shape)
    assert_array_equal(np.isnan(adapted), np.isnan(frames))
    whole = frames[:11].reshape(-1, 3)
    for rows in (slice(0, 6), slice(6, 11)):
        own = adapted[rows].reshape(-1, 3)
        assert_allclose(np.nanmean(own, axis=0), np.nanmean(whole, axis=0), rtol=1e-4)
        assert_allclose(np.nanstd(own, axis=0), np.nanstd(whole, axis=0), rtol=1e-4)
    assert_array_equal(np.argsort(adapted[:6, :4, 1].ravel()), np.argsort(frames[:6, :4, 1].ravel()))


# --- enrolled --------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3])
def test_enrolled_clips_are_left_out_and_the_others_shifted(n):
    table = voices()
    adapted = relative.enrolled(table, n=n)
    assert list(adapted.columns) == list(table.columns)
    assert (adapted.dtypes == table.dtypes).all()
    gone = table[~table["clip_id"].isin(adapted["clip_id"])]
    assert (gone["emotion"] == "neutral").all()
    assert (gone["speaker"].value_counts() == n).all()
    columns = tables.feature_columns(table)[:4]
    means = {speaker: part[columns].to_numpy(float).mean(axis=0) for speaker, part in gone.groupby("speaker")}
    variances = {
        s: part[columns].to_numpy(float).var(axis=0, ddof=n > 1) for s, part in gone.groupby("speaker")
    }
    overall, pooled = np.mean(list(means.values()), axis=0), np.mean(list(variances.values()), axis=0)
    for row, clip in adapted.iterrows():
        x = table.loc[table["clip_id"] == clip["clip_id"], columns].to_numpy(float)[0]
        centre = overall + (means[clip["speaker"]] - overall) * n / (n + PRIOR_MEAN)
        scale = 1
        if n > 1:
            weight = PRIOR_DEVIATION
            scale = np.sqrt(((n - 1) * variances[clip["speaker"]] / pooled + weight) / (n - 1 + weight))
        assert_allclose(adapted.loc[row, columns].to_numpy(float), (x - centre) / scale, atol=1e-4)


def test_a_feature_that_never_varies_stays_finite():
    for n in (1, 4):
        assert (relative.enrolled(voices(), n=n)["mel_00_mean"] == 0).all()


def test_the_draw_depends_on_the_seed_and_not_on_the_order_of_rows():
    table = voices()
    ids = [
        set(relative.enrolled(part, n=2, seed=seed)["clip_id"])
        for part, seed in ((table, 0), (table.iloc[::-1], 0), (table, 1))
    ]
    assert ids[0] == ids[1] != ids[2]


def test_copies_and_twins_of_enrolled_clips_are_left_out_too():
    table = voices()
    twin = table.iloc[[int(np.flatnonzero(table["emotion"] == "neutral")[0])]]
    table = pd.concat([table, twin.assign(clip_id="twin", emotion="sad")], ignore_index=True)
    adapted = relative.enrolled(with_copies(table), n=4)
    assert "neutral" not in set(adapted["emotion"])
    assert not adapted["clip_id"].str.contains("neutral|twin").any()
    assert len(adapted) == 2 * 6 * 3 * 4


def test_the_fewest_neutral_clips_are_no_copies_or_twins():
    table = voices()
    one = table[table["emotion"] == "neutral"].groupby("speaker").head(1)
    assert (
        relative.fewest_neutral(
            with_copies(pd.concat([table, one.assign(clip_id="twin of " + one["clip_id"])]))
        )
        == 4
    )
    assert relative.fewest_neutral(table.drop(one.index[0])) == 3
    assert relative.fewest_neutral(table[table["emotion"] != "neutral"]) == 0


@pytest.mark.parametrize("n", [0, 5])
def test_too_few_neutral_clips_are_refused(n):
    with pytest.raises(
        CorpusError, match=rf"has 4 neutral clip\(s\), enrolment needs {n}; choose n from 1 to 4"
    ):
        relative.enrolled(voices(), n=n)
    with pytest.raises(CorpusError, match=r"speaker \d\d has 0 neutral clip"):
        relative.enrolled(tables.select(voices(), ["happy", "sad"]), n=1)


def test_both_help_where_speakers_hide_the_emotion():
    table = voices(each=6)
    plain, without_labels, with_few = (
        uar(table),
        uar(relative.transductive(table)),
        uar(relative.enrolled(table, n=4)),
    )
    assert plain < 0.6
    assert without_labels > plain + 0.2
    assert with_few > plain + 0.05


def test_relative_level_takes_out_a_gain_and_no_more(tiny_corpus):
    clips = corpora.listing(tiny_corpus)[0].iloc[::12]
    plain, softer = (extraction.build(clips, change=change)[0] for change in (None, Gain(-6)))
    columns = tables.feature_columns(plain)
    spread = plain[columns].std() + 1e-6
    loud, soft = (relative.relative_level(table) for table in (plain, softer))
    assert list(loud.columns) == list(plain.columns)
    before = ((plain[columns] - softer[columns]).abs().mean() / spread).sort_values()
    after = (loud[columns] - soft[columns]).abs().mean() / spread
    assert (before > 0.5).sum() > 100
    assert (after < 0.02).mean() > 0.9  # what is left: the floor of -100 dB, which does not move
    assert after.max() < 0.5
    shifted = [name for name in columns if not np.allclose(loud[name], plain[name])]
    assert {features.family(name) for name in shifted} == {"energy", "mel", "mfcc"}
    assert {name.rsplit("_", 1)[1] for name in shifted} == {"mean", "p05", "p50", "p95", "vmean"}


def test_a_corpus_is_standardised_as_a_speaker_is():
    table = synthetic()
    there = synthetic(speakers=["03", "11"], corpus="emodb", seed=1)
    adapted = relative.transductive(pd.concat([table, there], ignore_index=True), "corpus")
    for _, part in adapted.groupby("corpus"):
        values = part[tables.feature_columns(part)]
        np.testing.assert_allclose(values.mean(), 0, atol=1e-5)
        np.testing.assert_allclose(values.std(ddof=0), 1, atol=1e-4)
