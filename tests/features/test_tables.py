"""Feature tables: nothing is computed twice, nothing stale is used, and unusable clips are listed."""

from __future__ import annotations

import json
import os
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import soundfile
from numpy.testing import assert_allclose
from pandas.testing import assert_frame_equal
from synth import speech

from ser_lib import audio, augmentation, corpora, features, provenance
from ser_lib.audio import AudioConfig, decoding
from ser_lib.augmentation import copies
from ser_lib.corpora import AUDIO_COLUMNS, CLIP_COLUMNS, clips, identity, ravdess
from ser_lib.errors import CorpusError
from ser_lib.features import FeatureConfig, extraction, feature_names, tables
from ser_lib.features.extraction import Cache

CONFIG = FeatureConfig("compact")
NAMES = list(feature_names(CONFIG))
RATE = 16_000


def write(path: Path, samples: np.ndarray) -> None:
    soundfile.write(path, samples, RATE, subtype="FLOAT")


def read(folder: Path) -> pd.DataFrame:
    """The clip table of every WAV in `folder`, with its audio columns."""
    files = sorted(path.name for path in folder.glob("*.wav"))
    manifest = folder / "clips.csv"
    pd.DataFrame({"path": files, "speaker": "a", "emotion": "calm"}).to_csv(manifest, index=False)
    clips, _ = corpora.listing(manifest)
    values = [
        (round(len(raw) / rate, 4), rate, raw.shape[1], audio.content_hash(audio.mix_down(raw), rate))
        for raw, rate in map(decoding.decode, clips["path"])
    ]
    return clips.join(pd.DataFrame(values, columns=list(AUDIO_COLUMNS)))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Five clips."""
    (tmp_path / "clips").mkdir()
    for i, emotion in enumerate(("calm", "happy", "sad", "angry", "fearful")):
        write(tmp_path / "clips" / f"{i}.wav", speech(emotion, 1 + i, seconds=0.6))
    return tmp_path / "clips"


@pytest.fixture
def build(tmp_path):
    return partial(extraction.build, config=CONFIG, cache_dir=tmp_path / "cache", n_jobs=1)


@pytest.fixture
def extracted(monkeypatch) -> list[str]:
    """The names of the clips whose features are computed, as they are computed."""
    names = []

    def recording(clip, config):
        names.append(clip.name)
        return features.extract(clip, config)

    monkeypatch.setattr(extraction, "extract", recording)
    return names


# --- building --------------------------------------------------------------------------------------


def test_a_table_is_clip_columns_then_features(folder, build):
    clips = read(folder)
    table, problems = build(clips)
    assert list(table.columns) == [name for name in CLIP_COLUMNS if name != "path"] + NAMES
    assert (table[NAMES].dtypes == np.float32).all()
    assert_frame_equal(table[table.columns[:12]], clips.drop(columns="path"))
    assert problems.empty
    assert list(problems.columns) == ["path", "problem"]
    for path, (_, row) in zip(clips["path"], table.iterrows(), strict=True):
        expected = features.extract(audio.load(path, CONFIG.audio), CONFIG)
        assert row[NAMES].to_list() == list(expected.values())


def test_worker_processes_change_nothing(folder, build):
    clips = read(folder)
    alone, _ = build(clips)
    spread, _ = build(clips, cache_dir=folder / "other", n_jobs=2)
    # a worker has one thread; sums in another order differ in the last of 16 bits, more where they cancel
    assert_frame_equal(alone, spread, rtol=1e-3, atol=1e-5)


def test_the_second_build_computes_nothing(folder, build, extracted):
    first, _ = build(read(folder))
    assert extracted == [f"{i}.wav" for i in range(5)]
    extracted.clear()
    second, _ = build(read(folder))
    assert extracted == []
    assert_frame_equal(first, second)


def test_the_order_of_the_clips_is_kept(folder, build):
    clips = read(folder)
    first, _ = build(clips)
    backwards, _ = build(clips[::-1])
    assert_frame_equal(backwards, first[::-1].reset_index(drop=True))
    part, _ = build(clips[2:4])
    assert_frame_equal(part, first[2:4].reset_index(drop=True))


def test_a_changed_clip_alone_is_computed_again(folder, build, extracted):
    first, _ = build(read(folder))
    extracted.clear()
    write(folder / "3.wav", speech("surprised", 2, seconds=0.6))
    second, _ = build(read(folder))
    assert extracted == ["3.wav"]
    assert (first[NAMES] != second[NAMES]).any(axis=1).to_list() == [False, False, False, True, False]


def test_a_renamed_clip_is_not_computed_again(folder, build, extracted):
    build(read(folder))
    extracted.clear()
    (folder / "3.wav").rename(folder / "renamed.wav")
    table, _ = build(read(folder))
    assert extracted == []
    assert "renamed" in table["clip_id"].to_list()


def test_copies_are_computed_once_and_kept_twice(folder, build, extracted):
    (folder / "copy.wav").write_bytes((folder / "0.wav").read_bytes())
    table, _ = build(read(folder))
    assert sorted(extracted) == [f"{i}.wav" for i in range(5)]
    assert len(table) == 6
    values = table.set_index("clip_id")[NAMES]
    assert (values.loc["copy"] == values.loc["0"]).all()


@pytest.mark.parametrize("what", ["configuration", "code", "library"])
def test_nothing_stale_is_used(folder, build, extracted, monkeypatch, tmp_path, what):
    clips = read(folder)
    build(clips)
    extracted.clear()
    config = CONFIG
    if what == "configuration":
        config = FeatureConfig("compact", audio=AudioConfig(trim_db=None))
    elif what == "code":
        monkeypatch.setattr(extraction, "code_hash", lambda *modules: "0123456789abcdef")
    else:
        version = extraction.version
        monkeypatch.setattr(extraction, "version", lambda name: "0.0" if name == "soxr" else version(name))
    build(clips, config=config)
    assert len(extracted) == 5
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_the_code_hash_covers_what_computes():
    reached = provenance.modules([extraction.COMPUTE])
    assert {f"ser_lib.features.{name}" for name in ("sets", "lld", "pitch", "functionals")} < set(reached)
    assert {"ser_lib.audio.clip", "ser_lib.audio.decoding"} < set(reached)
    assert not {"ser_lib.features.extraction", "ser_lib.serving.model"} & set(reached)
    assert {f"ser_lib.augmentation.{name}" for name in ("changes", "stress")} < set(
        provenance.modules([extraction.CHANGE])
    )


# --- what goes wrong -------------------------------------------------------------------------------


def test_a_silent_clip_is_named_and_the_rest_goes_on(folder, build):
    write(folder / "2.wav", np.zeros(RATE))
    clips = read(folder)
    for _ in range(2):  # also when the others come from the cache
        table, problems = build(clips)
        assert table["clip_id"].to_list() == ["0", "1", "3", "4"]
        assert problems["path"].to_list() == [str(folder / "2.wav")]
        assert "silent" in problems["problem"].iloc[0]


def test_every_silent_clip_is_named_even_if_they_are_the_same(folder, build):
    for name in ("2.wav", "4.wav"):
        write(folder / name, np.zeros(RATE))
    table, problems = build(read(folder))
    assert len(table) == 3
    assert problems["path"].to_list() == [str(folder / "2.wav"), str(folder / "4.wav")]


def test_nothing_but_silence_is_an_empty_table(folder, build):
    for path in folder.glob("*.wav"):
        write(path, np.zeros(RATE + int(path.stem)))
    table, problems = build(read(folder))
    assert len(table) == 0
    assert len(problems) == 5
    assert list(table.columns[-len(NAMES) :]) == NAMES


def test_an_interrupted_build_continues(folder, build, extracted, monkeypatch):
    monkeypatch.setattr(extraction, "PART", 2)
    recording = extraction.extract

    def interrupted(clip, config):
        if len(extracted) == 3:
            raise KeyboardInterrupt
        return recording(clip, config)

    monkeypatch.setattr(extraction, "extract", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build(read(folder))
    assert extracted == ["0.wav", "1.wav", "2.wav"]
    monkeypatch.setattr(extraction, "extract", recording)
    extracted.clear()
    table, _ = build(read(folder))
    assert extracted == ["2.wav", "3.wav", "4.wav"]  # the part that was whole is kept
    fresh, _ = build(read(folder), cache_dir=folder / "fresh")
    assert_frame_equal(table, fresh)


def test_an_unfinished_part_is_not_stored(folder, build, extracted, tmp_path):
    """As if the process had ended between the first row and the last."""
    first, _ = build(read(folder))
    (cache_folder,) = (tmp_path / "cache").iterdir()
    row = ((1, 1), (1.0, 1, 1, "f" * 64), np.zeros(len(NAMES), np.float32))

    def cut_off():
        yield "a.wav", row
        yield "b.wav", row[:2]

    with closing(Cache(cache_folder)) as cache:
        with pytest.raises(ValueError, match="unpack"):
            cache.add(cut_off())
        assert not cache.contains(["f" * 64]).any()
    extracted.clear()
    second, _ = build(read(folder))
    assert extracted == []
    assert_frame_equal(first, second)


@pytest.mark.parametrize("keep", [0, 0.5, 0.99])
def test_a_damaged_part_is_computed_again(folder, build, extracted, tmp_path, keep):
    first, _ = build(read(folder))
    (part,) = (tmp_path / "cache").rglob("*.sqlite")
    whole = part.read_bytes()
    part.write_bytes(whole[: int(keep * len(whole))])
    extracted.clear()
    second, _ = build(read(folder))
    assert len(extracted) == 5
    assert_frame_equal(first, second)
    extracted.clear()
    build(read(folder))
    assert extracted == []


# --- one pass --------------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch) -> list[str]:
    """The names of the files that are decoded, as they are decoded."""
    names, decode = [], decoding.decode

    def recording(source, **name):
        names.append(Path(source).name)
        return decode(source, **name)

    monkeypatch.setattr(decoding, "decode", recording)
    return names


def listed(folder: Path) -> pd.DataFrame:
    read(folder)
    return corpora.listing(folder / "clips.csv")[0]


def test_a_file_is_decoded_once(folder, build, decoded):
    (folder / "copy.wav").write_bytes((folder / "0.wav").read_bytes())
    write(folder / "stereo.wav", np.stack([speech("sad", 1, seconds=0.6), speech("sad", 2, seconds=0.6)], 1))
    expected, _ = build(read(folder), cache_dir=folder / "other")
    clips = listed(folder)
    decoded.clear()
    table, problems = build(clips)
    assert sorted(decoded) == sorted(path.name for path in folder.glob("*.wav"))
    assert problems.empty
    assert_frame_equal(table, expected)
    decoded.clear()
    again, _ = build(clips)
    assert decoded == []
    assert_frame_equal(again, expected)


def test_audio_columns_do_not_depend_on_the_change(folder, build):
    expected, _ = build(read(folder), change=augmentation.Noise(10), cache_dir=folder / "other")
    table, _ = build(listed(folder), change=augmentation.Noise(10))
    assert_frame_equal(table, expected)


@pytest.mark.parametrize("what", ["size", "time"])
def test_a_file_that_changed_is_decoded_again(folder, build, decoded, what):
    clips = listed(folder)
    first, _ = build(clips)
    decoded.clear()
    before = (folder / "3.wav").stat()
    write(folder / "3.wav", speech("surprised", 2, seconds=0.7 if what == "size" else 0.6))
    if what == "size":
        os.utime(folder / "3.wav", ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        assert (folder / "3.wav").stat().st_size == before.st_size
    second, _ = build(clips)
    assert decoded == ["3.wav"]
    changed = (first != second).any(axis=1)
    assert changed.to_list() == [False, False, False, True, False]
    assert second["audio_sha256"][3] == read(folder)["audio_sha256"][3]


def test_a_clip_that_is_no_longer_what_was_read_is_named(folder, build):
    clips = read(folder)
    write(folder / "3.wav", speech("surprised", 2, seconds=0.6))
    table, problems = build(clips)
    assert table["clip_id"].to_list() == ["0", "1", "2", "4"]
    assert problems["path"].to_list() == [str(folder / "3.wav")]
    assert problems["problem"].item() == "changed while it was read; run it again"


def test_a_defect_in_one_clip_costs_that_clip(folder, build, monkeypatch):
    def fails(clip, config):
        if clip.name == "2.wav":
            raise ZeroDivisionError("no frames")
        return features.extract(clip, config)

    monkeypatch.setattr(extraction, "extract", fails)
    table, problems = build(read(folder))
    assert len(table) == 4
    assert problems["problem"].item() == f"{folder / '2.wav'}: ZeroDivisionError('no frames')"


@dataclass(frozen=True)
class Deadly(augmentation.Change):
    """Ends the process that reads the longest clip."""

    def __call__(self, y, rate, rng):
        if len(y) > 0.65 * RATE:
            os._exit(1)
        return y


def test_a_clip_that_ends_its_process_costs_itself(folder, build):
    for i in range(5, 40):
        write(folder / f"{i:02d}.wav", speech("sad", i, seconds=0.6))
    write(folder / "17.wav", speech("sad", 17, seconds=0.7))
    clips = listed(folder)
    table, problems = build(clips, n_jobs=2, change=Deadly())
    assert table["clip_id"].to_list() == [name for name in clips["clip_id"] if name != "17"]
    assert problems["path"].to_list() == [str(folder / "17.wav")]
    assert "17.wav: the process that read it died" in problems["problem"].item()
    alone, _ = build(clips[clips["clip_id"] != "17"], n_jobs=2, cache_dir=folder / "other")
    assert_frame_equal(table, alone)


# --- files -----------------------------------------------------------------------------------------


@pytest.fixture
def table(folder, build) -> pd.DataFrame:
    return build(read(folder))[0]


def test_a_written_table_is_read_unchanged(table, tmp_path):
    path = tmp_path / "new" / "table.parquet"
    tables.write_table(table, path, CONFIG)
    assert_frame_equal(tables.read_table(path, CONFIG), table)


def test_extract_to_file_writes_what_build_returns(tiny_corpus, tmp_path, monkeypatch):
    expected, _ = extraction.build(corpora.listing(tiny_corpus)[0], CONFIG, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(tables, "ROW_GROUP", 25)
    path = tmp_path / "new" / "table.parquet"
    n_rows, problems = tables.extract_to_file(tiny_corpus, path, CONFIG, cache_dir=tmp_path / "cache")
    assert n_rows == len(expected)
    assert problems.empty
    assert_frame_equal(tables.read_table(path, CONFIG), expected)
    about = pq.read_metadata(path)
    assert [about.row_group(i).num_rows for i in range(about.num_row_groups)] == [25, 25, 25, 25, 8]
    tables.write_table(expected, tmp_path / "whole.parquet", CONFIG)
    assert pq.read_schema(path).equals(pq.read_schema(tmp_path / "whole.parquet"), check_metadata=True)
    for a, b in zip(
        *(pq.read_metadata(p).row_group(0).to_dict()["columns"] for p in (path, tmp_path / "whole.parquet")),
        strict=True,
    ):
        assert (a["compression"], a["encodings"]) == (b["compression"], b["encodings"])


def test_extract_to_file_returns_the_files_left_out(folder, tmp_path):
    write(folder / "2.wav", np.zeros(RATE))
    read(folder)
    (folder / "4.wav").write_text("not audio", encoding="utf-8")
    n_rows, problems = tables.extract_to_file(
        folder / "clips.csv", tmp_path / "t.parquet", CONFIG, cache_dir=tmp_path
    )
    assert n_rows == len(tables.read_table(tmp_path / "t.parquet", CONFIG)) == 3
    assert [Path(path).name for path in problems["path"]] == ["2.wav", "4.wav"]


def test_a_table_that_cannot_be_written_leaves_the_last_one(folder, tmp_path, monkeypatch):
    read(folder)
    path = tmp_path / "new" / "t.parquet"
    tables.extract_to_file(folder / "clips.csv", path, CONFIG, cache_dir=tmp_path)
    before = path.read_bytes()
    for file in folder.glob("*.wav"):
        write(file, np.zeros(RATE))
    with pytest.raises(CorpusError, match=r"clips\.csv: no usable clip \(.*0\.wav: silent"):
        tables.extract_to_file(folder / "clips.csv", path, CONFIG, cache_dir=tmp_path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_written_table_has_its_recipe(table, tmp_path):
    tables.write_table(table, tmp_path / "table.parquet", CONFIG)
    made = json.loads(pq.read_schema(tmp_path / "table.parquet").metadata[b"ser_lib"])
    assert made == json.loads(json.dumps(extraction.recipe(CONFIG)))
    assert made["config_hash"] == CONFIG.hash
    assert FeatureConfig(**made["config"] | {"audio": AudioConfig(**made["config"]["audio"])}) == CONFIG
    assert set(made["libraries"]) >= {"numpy", "scipy", "soxr"}


def test_a_table_of_another_configuration_is_refused(table, tmp_path):
    tables.write_table(table, tmp_path / "table.parquet", CONFIG)
    other = FeatureConfig("classic")
    with pytest.raises(CorpusError, match=f"{CONFIG.hash}, not {other.hash}"):
        tables.read_table(tmp_path / "table.parquet", other)


def test_what_is_no_feature_table_is_refused(table, tmp_path):
    table.to_parquet(tmp_path / "bare.parquet")  # without the metadata
    (tmp_path / "text.parquet").write_text("path,speaker\n", encoding="utf-8")
    tables.write_table(table, tmp_path / "cut.parquet", CONFIG)
    whole = (tmp_path / "cut.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    for name in ("bare.parquet", "text.parquet", "cut.parquet", "none.parquet", "."):
        with pytest.raises(CorpusError, match="not a feature table of ser_lib; make it with"):
            tables.read_table(tmp_path / name, CONFIG)


# --- load_data -------------------------------------------------------------------------------------

shipped = pytest.mark.skipif(not tables.SHIPPED[0].exists(), reason="no shipped table")


@pytest.fixture
def cached_here(monkeypatch, tmp_path):
    monkeypatch.setattr(
        extraction, "build", partial(extraction.build, cache_dir=tmp_path / "cache", n_jobs=1)
    )


@pytest.fixture
def no_audio(monkeypatch, tmp_path):
    monkeypatch.delenv("SER_RAVDESS_DIR", raising=False)
    monkeypatch.setattr(clips, "ROOT", tmp_path)


def test_load_data_from_audio(tiny_corpus, monkeypatch, cached_here):
    monkeypatch.setenv("SER_RAVDESS_DIR", str(tiny_corpus))
    data = tables.load_data(feature_set="compact")
    assert data.audio
    assert data.source.startswith("Audio: 108 clips of 6 speakers, 8 emotions; 0 file(s) left out")
    assert len(data.table) == len(data.corpus.clips) == 108
    assert list(data.table.columns[-len(NAMES) :]) == NAMES


def test_load_data_lists_the_problems(folder, cached_here, no_audio):
    write(folder / "2.wav", np.zeros(RATE))
    read(folder)
    data = tables.load_data(folder / "clips.csv", "compact")
    assert len(data.table) == 4
    assert data.corpus.problems["path"].to_list() == [str(folder / "2.wav")]
    assert "1 file(s) left out" in data.source


@shipped
def test_load_data_without_audio_is_the_shipped_table(no_audio):
    data = tables.load_data()
    assert not data.audio
    assert data.table.shape == (1440, 12 + len(feature_names()))
    assert list(data.table.columns[12:]) == list(feature_names())
    assert np.isfinite(data.table[list(feature_names())].to_numpy()).all()
    assert data.source.startswith("The shipped table, ravdess_full.parquet: 1440 clips of 24 speakers")
    assert ravdess.check_ravdess_grid(data.corpus.clips) == ([], [])


@shipped
def test_shipped_files_that_do_not_belong_together_are_refused(tmp_path):
    whole = tables.shipped()
    names = list(feature_names())
    first, second = (tmp_path / f"{name}.parquet" for name in ("first", "second"))
    tables.write_table(whole.drop(columns=names[-3:]), first, FeatureConfig())
    tables.write_table(whole.drop(columns=names[:-3]), second, FeatureConfig())
    assert_frame_equal(tables.shipped([first, second]), whole)
    with pytest.raises(CorpusError, match=r"first.parquet: different clips, or a feature of this version"):
        tables.shipped([first])
    tables.write_table(whole.drop(columns=names[:-3])[::-1].reset_index(drop=True), second, FeatureConfig())
    with pytest.raises(CorpusError, match=r"first.parquet and second.parquet: different clips"):
        tables.shipped([first, second])


@pytest.mark.parametrize("feature_set", ["classic", "compact"])
def test_load_data_without_audio_refuses_sets_that_are_not_shipped(no_audio, feature_set):
    with pytest.raises(CorpusError, match=f"feature_set={feature_set}: only 'full' is shipped.*make data"):
        tables.load_data(feature_set=feature_set)


def test_load_data_refuses_a_missing_folder(no_audio, monkeypatch, tmp_path):
    monkeypatch.setenv("SER_RAVDESS_DIR", str(tmp_path / "gone"))
    with pytest.raises(CorpusError, match="gone: no such folder"):
        tables.load_data()


@shipped
def test_the_shipped_table_is_what_the_audio_gives(ravdess):
    """One clip per speaker, of all emotions.

    Tolerance: a last bit of 16 differs between processors and FFT builds (`rtol`); where that puts a
    frame on the other side of the voicing threshold, or a difference is small beside its terms, the
    error is small beside the spread of the column instead (`atol`, 1 % of its deviation).
    """
    table = tables.shipped()
    names = list(feature_names())
    paths = {path.stem: path for path in ravdess.rglob("03-01-*") if path.suffix in decoding.SUFFIXES}
    sample = table[7::61]
    assert len(sample) == sample["speaker"].nunique() == 24
    fresh = np.array([list(features.extract(audio.load(paths[name])).values()) for name in sample["clip_id"]])
    for i, name in enumerate(names):
        step = 1 / 256 if name.startswith("corr") else 0  # correlations are rounded
        atol = 0.01 * table[name].std() + step
        assert_allclose(fresh[:, i], sample[name], rtol=1e-3, atol=atol, err_msg=name)


@shipped
def test_training_copies_without_audio_are_the_shipped_ones(no_audio):
    data = tables.load_data()
    few = data.table[data.table["speaker"].isin(["03", "20"]) & (data.table["emotion"] == "sad")]
    whole = copies.for_training(data, few)
    altered = whole[~identity.originals(whole)]
    assert len(whole) == (1 + len(augmentation.TRAINING)) * len(few) == 64
    assert list(whole.columns) == [*data.table.columns, "source_clip"]
    assert_frame_equal(whole[: len(few)].drop(columns="source_clip"), few.reset_index(drop=True))
    assert altered["source_clip"].value_counts().to_dict() == dict.fromkeys(few["clip_id"], 3)
    assert whole["clip_id"].is_unique


@shipped
def test_training_copies_are_the_shipped_ones_with_audio_too(monkeypatch):
    monkeypatch.setattr(copies, "with_copies", None)
    shipped = tables.shipped()
    corpus = corpora.Corpus(shipped, pd.DataFrame())
    data = tables.Data(shipped, corpus, "", audio=True, config=FeatureConfig())
    assert len(copies.for_training(data, shipped)) == 4 * len(shipped)


def test_training_copies_from_audio_are_its_own(tiny_corpus, monkeypatch, cached_here):
    monkeypatch.setenv("SER_RAVDESS_DIR", str(tiny_corpus))
    data = tables.load_data(feature_set="compact")
    table = data.table[data.table["speaker"] == "04"]
    whole = copies.for_training(data, table)
    for change in augmentation.TRAINING:
        part = whole[whole["clip_id"] == f"{table['clip_id'].iloc[3]} {change.name}"].iloc[0]
        path = next(tiny_corpus.rglob(f"{part['source_clip']}.wav"))
        fresh = features.extract(audio.load(path, change=change), data.config)
        assert part[NAMES].to_list() == pytest.approx(list(fresh.values()))


@shipped
def test_the_shipped_copies_are_what_the_audio_gives(ravdess):
    """Two clips per change; tolerance as above, on top of half a step of `coarse`."""
    copies = tables.shipped(tables.SHIPPED_COPIES)
    names = list(feature_names())
    spread = copies[names].std().to_numpy()
    for change in augmentation.TRAINING:
        for row in copies[copies["clip_id"].str.endswith(change.name)][100::900].to_dict("records"):
            path = next(path for path in ravdess.rglob(f"{row['source_clip']}.*"))
            fresh = np.array(list(features.extract(audio.load(path, change=change)).values()))
            off = np.abs(fresh - [row[name] for name in names]) / np.maximum(spread, 1e-6)
            assert np.median(off) < 1 / 48
            assert np.quantile(off, 0.99) < 1 / 32 + 0.01
            assert off.max() < 0.15


def test_coarse_features_are_near_and_few():
    table = tables.shipped()[::10]
    names = list(feature_names())
    rough, spread = copies.coarse(table, FeatureConfig())[names], table[names].std(ddof=0)
    assert ((rough - table[names]).abs().max() <= spread / 32 + 1e-6).all()
    assert rough["mfcc_01_mean"].nunique() < 100 < table["mfcc_01_mean"].nunique()
