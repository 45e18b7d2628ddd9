"""The feature table: clip columns, then feature columns, cached so that nothing stale is ever used.

A cached row is found by what made it: the decoded samples (`audio_sha256`), the configuration, the
source of the modules that compute, and the versions of the libraries they call. Change any of them
and the row is computed again. Rows are kept in parts, so an interrupted run goes on where it was, and
a table that is too large for memory goes from the cache to its file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from joblib import effective_n_jobs

from ser_lib import ROOT, audio, augment, corpus, rows
from ser_lib.cache import FACTS, Cache
from ser_lib.errors import CorpusError
from ser_lib.features import FeatureConfig, feature_names
from ser_lib.progress import parallel

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

CACHE = ROOT / "data" / "cache"
# The columns lie in two files a table, so that a change of one family does not make a clone larger by all.
SHIPPED = (ROOT / "data" / "ravdess_full.parquet", ROOT / "data" / "ravdess_correlation.parquet")
SHIPPED_COPIES = tuple(path.with_stem(f"{path.stem}_copies") for path in SHIPPED)  # of `augment.TRAINING`
PART = 250  # clips a process, computed and kept together
CHUNK = 4  # clips sent to a process at a time
GROUP = 10_000  # rows written at a time; the writer keeps about 1 kB a column of each group until the end


def build(
    clips: pd.DataFrame,
    config: FeatureConfig = FeatureConfig(),
    *,
    cache_dir: Path = CACHE,
    n_jobs: int = -1,
    change: audio.Change | None = None,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The feature table of `clips`, computing only the rows that the cache does not hold.

    Parameters
    ----------
    clips : DataFrame
        From `corpus.read`, or from `corpus.listing`: then a file is decoded once, for its facts and its
        features, and not at all while neither its size nor its time has changed.
    change, seed
        What is done to each waveform first, as in `audio.load`; part of what finds a cached row.

    Returns
    -------
    table : DataFrame
        The clip columns but `path`, then the feature columns (float32).
    problems : DataFrame
        `path, problem` of clips without features (silent, too short); they are not in `table`.
    """
    whole = max(1, len(clips))
    ((table, problems),) = _parts(clips, config, whole, cache_dir, n_jobs, change, seed)
    return table, problems


def write(
    source: str | Path,
    path: Path,
    config: FeatureConfig = FeatureConfig(),
    *,
    cache_dir: Path = CACHE,
    n_jobs: int = -1,
) -> tuple[int, pd.DataFrame]:
    """Write the feature table of a folder or manifest, with at most `GROUP` of its rows in memory.

    What `build` and `save` would write, but for the row groups. The file is there whole or not at all.

    Returns
    -------
    n_rows : int
    problems : DataFrame
        `path, problem` of every file left out.

    Raises
    ------
    CorpusError
        As `corpus.listing`, or no clip can be used.
    """
    clips, problems = corpus.listing(source)
    left_out, n_rows, writer = [problems], 0, None
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        for table, wrong in _parts(clips, config, GROUP, cache_dir, n_jobs):
            left_out.append(wrong)
            n_rows += len(table)
            if len(table):
                writer = writer or _writer(unfinished, table, config)
                writer.write_table(_arrow(table, writer.schema))
            del table  # before the next is made
        problems = pd.concat(left_out, ignore_index=True)
        if writer is None:
            raise CorpusError(f"{source}: no usable clip ({problems['problem'].iloc[0]})")
        writer.close()
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return n_rows, problems


def _parts(
    clips: pd.DataFrame,
    config: FeatureConfig,
    size: int,
    cache_dir: Path,
    n_jobs: int,
    change: audio.Change | None = None,
    seed: int = 0,
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """First everything into the cache, then from there the two tables of `build`, of `size` clips at a time."""
    key = rows.key(config, change, seed)
    names = list(feature_names(config))
    with closing(Cache(Path(cache_dir) / f"{config.name}-{key}")) as cache:
        wrong = _fill(
            cache, clips, partial(rows.read, config=config, change=change, seed=seed, expected=key), n_jobs
        )
        for start in range(0, max(1, len(clips)), size):
            yield _part(cache, clips.iloc[start : start + size], names, wrong)


def _part(
    cache: Cache, clips: pd.DataFrame, names: list[str], wrong: dict[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The two tables of `build` for clips whose rows are in the cache, where nothing is wrong with them."""
    part = cache.known(clips)
    there = cache.holds(part["audio_sha256"])
    table, left_out = part[there].reset_index(drop=True), part[~there].reset_index(drop=True)
    table = table.drop(columns="path").astype(FACTS)
    values = pd.DataFrame(cache.rows(table["audio_sha256"], len(names)), columns=names)
    told = [wrong.get(name, "changed while it was read; run it again") for name in _content(left_out)]
    return pd.concat([table, values], axis=1), left_out[["path"]].assign(problem=told)


def _fill(cache: Cache, clips: pd.DataFrame, work: Callable, n_jobs: int) -> dict[str, str]:
    """Compute the rows that the cache does not hold; what is wrong with a clip, by `_content`."""
    wrong: dict[str, str] = {}
    step = PART * effective_n_jobs(n_jobs)
    for start in range(0, len(clips), step):
        part = cache.known(clips.iloc[start : start + step])
        content = _content(part)
        todo = part["path"][~cache.holds(part["audio_sha256"]) & ~content.duplicated()]
        what = f"features {start + len(part)}/{len(clips)}"
        read = parallel(work, todo, n_jobs=n_jobs, what=what, chunk=CHUNK, lost=rows.lost)
        for name, result in zip(content[todo.index], read, strict=True):
            if isinstance(result, str):
                wrong[name] = result
        good = zip(todo, read, strict=True)
        cache.add((path, result) for path, result in good if not isinstance(result, str))
    return wrong


def _content(clips: pd.DataFrame) -> pd.Series:
    """What tells clips apart: their content, or the path where that is not known. Identical clips fail alike."""
    return clips["audio_sha256"].fillna(clips["path"])


def with_copies(
    table: pd.DataFrame, clips: pd.DataFrame, changes: Sequence[augment.Change], config: FeatureConfig
) -> pd.DataFrame:
    """The table followed by an altered copy of every clip for each change.

    Parameters
    ----------
    table : DataFrame
        Feature table of the clips that are evaluated.
    clips : DataFrame
        Their clip table, with `path`: copies are made from the audio.

    Returns
    -------
    DataFrame
        With `source_clip`, by which `guard` knows a copy. A copy that cannot be used is left out.
    """
    wanted = clips[clips["clip_id"].isin(table["clip_id"])]
    parts = [table.assign(source_clip=table["clip_id"])]
    for change in changes:
        copies, _ = build(wanted, config, change=change)
        parts.append(
            copies.assign(source_clip=copies["clip_id"], clip_id=copies["clip_id"] + f" {change.name}")
        )
    return pd.concat(parts, ignore_index=True)


def coarse(table: pd.DataFrame, config: FeatureConfig) -> pd.DataFrame:
    """Features in steps of at most a sixteenth of their column's deviation, a power of two: for copies, in half the bytes."""
    names = list(feature_names(config))
    values = table[names].to_numpy(np.float64)
    steps = np.exp2(np.floor(np.log2(np.maximum(values.std(axis=0), 1e-12) / 16)))
    rounded = pd.DataFrame(np.round(values / steps) * steps, table.index, names, np.float32)
    return pd.concat([table.drop(columns=names), rounded], axis=1)[list(table)]


def save(table: pd.DataFrame, path: Path, config: FeatureConfig) -> None:
    """Write a feature table as Parquet; its metadata hold `rows.provenance(config)`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _writer(path, table, config) as writer:
        writer.write_table(_arrow(table, writer.schema))


def _arrow(table: pd.DataFrame, schema: pa.Schema | None = None) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pandas(table, schema, preserve_index=False)


def _writer(path: Path, table: pd.DataFrame, config: FeatureConfig) -> pq.ParquetWriter:
    """A new Parquet file for rows like those of `table`."""
    import pyarrow.parquet as pq

    names = [name for name in feature_names(config) if name in table]
    schema = _arrow(table[:0]).schema.with_metadata({"ser_lib": json.dumps(rows.provenance(config))})
    return pq.ParquetWriter(
        path,
        schema,
        compression="zstd",
        compression_level=3,
        use_dictionary=[name for name in table if name not in names],
        column_encoding={name: "BYTE_STREAM_SPLIT" for name in names},
    )


def load(path: Path, config: FeatureConfig = FeatureConfig()) -> pd.DataFrame:
    """Read a feature table written by `save`.

    Raises
    ------
    CorpusError
        No such file, not a feature table, or made with another configuration.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        arrow = pq.read_table(path)
        made = json.loads((arrow.schema.metadata or {})[b"ser_lib"])
    except (OSError, pa.ArrowException, KeyError) as error:
        raise CorpusError(
            f"{path}: not a feature table of ser_lib; make it with `python -m ser_lib features`"
        ) from error
    if made["config_hash"] != config.hash:
        raise CorpusError(
            f"{path}: made with configuration {made['config_hash']}, {config.hash} was asked for; "
            "make it again with `python -m ser_lib features`"
        )
    return arrow.to_pandas()


def shipped(paths: Sequence[Path] = SHIPPED) -> pd.DataFrame:
    """The table whose columns lie in the files of `SHIPPED`, or of `SHIPPED_COPIES`.

    Raises
    ------
    CorpusError
        As `load`, or the files hold different clips or not all columns.
    """
    whole, *others = map(load, paths)
    fits = all(part["clip_id"].equals(whole["clip_id"]) for part in others)
    for part in others:
        whole = pd.concat([whole, part[[name for name in part if name not in whole]]], axis=1)
    if not fits or set(feature_names()) - set(whole):
        raise CorpusError(
            f"{' and '.join(path.name for path in paths)}: not of the same clips, or without a feature of this "
            "version; restore them from the repository"
        )
    return whole


@dataclass(frozen=True)
class Data:
    """What a notebook works on."""

    table: pd.DataFrame  # clip columns, then features
    corpus: corpus.Corpus  # the clips and what was left out
    source: str  # where it came from, in one sentence
    audio: bool  # whether the recordings are there
    config: FeatureConfig


def get(source: str | Path = "", feature_set: str = "full") -> Data:
    """The feature table of a corpus, from its audio or, without audio, as it is shipped.

    Parameters
    ----------
    source : path
        A folder or manifest; where it is empty, RAVDESS as `corpus.find_audio` finds it, and
        without audio the shipped table.

    Raises
    ------
    CorpusError
        No audio, and the set is not the shipped one.
    """
    config = FeatureConfig(feature_set)
    found = corpus.find_audio(source or None)
    if found is None:
        if feature_set != "full":
            raise CorpusError(
                f"feature_set={feature_set}: only 'full' is shipped as a table; for the others run "
                "`make data` or set SER_RAVDESS_DIR"
            )
        table = shipped()
        clips = table[[name for name in corpus.CLIP_COLUMNS if name in table]]
        held = corpus.Corpus(clips, pd.DataFrame(columns=["path", "problem"]))
        return Data(
            table,
            held,
            f"The shipped table, {SHIPPED[0].name}: {held.summary()}.",
            audio=False,
            config=config,
        )
    clips, problems = corpus.listing(found)
    table, wrong = build(clips, config)
    problems = pd.concat([problems, wrong], ignore_index=True)
    if table.empty:
        raise CorpusError(f"{found}: no usable clip ({problems['problem'].iloc[0]})")
    held = corpus.Corpus(clips[["clip_id", "path"]].merge(table)[list(corpus.CLIP_COLUMNS)], problems)
    return Data(table, held, f"Audio: {held.summary()}.", audio=True, config=config)


def for_training(data: Data, table: pd.DataFrame) -> pd.DataFrame:
    """`table` and the copies of its clips that the served model is trained with (`augment.TRAINING`).

    Parameters
    ----------
    data : Data
        From `get`.
    table : DataFrame
        `data.table` or a part of it. Copies of RAVDESS are the shipped ones, with its recordings or without,
        so that both give the same model; those of other clips are made from the recordings.
    """
    copies = shipped(SHIPPED_COPIES)
    if data.config != FeatureConfig() or not table["audio_sha256"].isin(copies["audio_sha256"]).all():
        return with_copies(table, data.corpus.clips, augment.TRAINING, data.config)
    return with_shipped_copies(table)


def with_shipped_copies(table: pd.DataFrame) -> pd.DataFrame:
    """Clips of RAVDESS in the `full` set, followed by their shipped copies; as `with_copies`."""
    copies = shipped(SHIPPED_COPIES)
    own = table.assign(source_clip=table["clip_id"])
    return pd.concat([own, copies[copies["source_clip"].isin(table["clip_id"])]], ignore_index=True)
