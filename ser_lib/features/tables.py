"""The feature table: clip columns, then feature columns; read and written as Parquet, and loaded for notebooks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ser_lib import ROOT, corpora, replacing
from ser_lib.corpora import identity
from ser_lib.errors import CorpusError
from ser_lib.features import FeatureConfig, extraction, feature_names

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

NOT_FEATURES = (*corpora.CLIP_COLUMNS, identity.SOURCE)
# Two files per table, so that changing one feature family does not make a clone larger by the whole table.
SHIPPED = (ROOT / "data" / "ravdess_full.parquet", ROOT / "data" / "ravdess_correlation.parquet")
SHIPPED_COPIES = tuple(
    path.with_stem(f"{path.stem}_copies") for path in SHIPPED
)  # by `augmentation.TRAINING`
ROW_GROUP = 10_000  # rows; the writer keeps about 1 kB per column and group in memory until the end


def feature_columns(table: pd.DataFrame) -> list[str]:
    """The feature columns of a table.

    Examples
    --------
    >>> feature_columns(pd.DataFrame({"clip_id": ["a"], "emotion": ["sad"], "level_mean": [-30.0], "zcr_std": [0.1]}))
    ['level_mean', 'zcr_std']
    """
    return [name for name in table.columns if name not in NOT_FEATURES]


def select(table: pd.DataFrame, emotions: Sequence[str]) -> pd.DataFrame:
    """The clips with these emotions.

    Raises
    ------
    CorpusError
        The table has no clip with one of them.

    Examples
    --------
    >>> table = pd.DataFrame({"clip_id": list("abc"), "emotion": ["sad", "calm", "happy"]})
    >>> select(table, ["happy", "sad"])["clip_id"].to_list()
    ['a', 'c']
    """
    present = sorted(table["emotion"].unique())
    absent = [name for name in emotions if name not in present]
    if absent:
        raise CorpusError(f"no clip of emotion {', '.join(absent)}; the table has {', '.join(present)}")
    return table[table["emotion"].isin(emotions)].reset_index(drop=True)


# --- as a file -------------------------------------------------------------------------------------


def extract_to_file(
    source: str | Path,
    path: Path,
    config: FeatureConfig = FeatureConfig(),
    *,
    cache_dir: Path = extraction.CACHE,
    n_jobs: int = -1,
) -> tuple[int, pd.DataFrame]:
    """Extract the features of a folder or manifest to Parquet, with at most `ROW_GROUP` rows in memory.

    The content is that of `extraction.build` and `write_table`. The file appears complete or not at all.

    Returns
    -------
    n_rows : int
    problems : DataFrame
        `path, problem` of every file left out.

    Raises
    ------
    CorpusError
        As `corpora.listing`, or no clip can be used.
    """
    clips, unlisted = corpora.listing(source)
    problems, n_rows = [unlisted], 0
    with _feature_file(path, config) as write:
        for table, unusable in extraction.build_in_parts(clips, config, ROW_GROUP, cache_dir, n_jobs):
            problems.append(unusable)
            n_rows += len(table)
            if len(table):
                write(table)
            del table  # before the next is made
        left_out = pd.concat(problems, ignore_index=True)
        if not n_rows:
            raise CorpusError(f"{source}: no usable clip ({left_out['problem'].iloc[0]})")
    return n_rows, left_out


def write_table(table: pd.DataFrame, path: Path, config: FeatureConfig) -> None:
    """Write a feature table as Parquet, with `extraction.recipe(config)` as its metadata."""
    with _feature_file(path, config) as write:
        write(table)


@contextmanager
def _feature_file(path: Path, config: FeatureConfig) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Yield a function that appends tables to a new Parquet file, which replaces `path` at the end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writers: list[pq.ParquetWriter] = []

    def write(table: pd.DataFrame) -> None:
        if not writers:
            writers.append(_writer(new, table, config))
        writers[0].write_table(_to_arrow(table, writers[0].schema))

    with replacing(path) as new:
        try:
            yield write
        finally:
            for writer in writers:
                writer.close()


def _to_arrow(table: pd.DataFrame, schema: pa.Schema | None = None) -> pa.Table:
    import pyarrow as pa

    return pa.Table.from_pandas(table, schema, preserve_index=False)


def _writer(path: Path, table: pd.DataFrame, config: FeatureConfig) -> pq.ParquetWriter:
    """Open a new Parquet file for rows like those of `table`."""
    import pyarrow.parquet as pq

    names = [name for name in feature_names(config) if name in table]
    return pq.ParquetWriter(
        path,
        _to_arrow(table[:0]).schema.with_metadata({"ser_lib": json.dumps(extraction.recipe(config))}),
        compression="zstd",
        compression_level=3,
        use_dictionary=[name for name in table if name not in names],
        column_encoding=dict.fromkeys(names, "BYTE_STREAM_SPLIT"),
    )


def read_table(path: Path, config: FeatureConfig = FeatureConfig()) -> pd.DataFrame:
    """Read a feature table from `write_table`.

    Raises
    ------
    CorpusError
        No such file, not a feature table, or made with another configuration.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    remedy = "make it with `python -m ser_lib features`"
    try:
        arrow = pq.read_table(path)
        config_hash = json.loads((arrow.schema.metadata or {})[b"ser_lib"])["config_hash"]
    except (OSError, pa.ArrowException, KeyError) as error:
        raise CorpusError(f"{path}: not a feature table of ser_lib; {remedy}") from error
    if config_hash != config.hash:
        raise CorpusError(f"{path}: made with configuration {config_hash}, not {config.hash}; {remedy}")
    return arrow.to_pandas()


def shipped(paths: Sequence[Path] = SHIPPED) -> pd.DataFrame:
    """Read the shipped feature table, or with `SHIPPED_COPIES` that of the augmented copies.

    Raises
    ------
    CorpusError
        As `read_table`, or the files have different clips or lack columns.

    Examples
    --------
    >>> table = shipped()
    >>> len(table), len(feature_columns(table)), table["speaker"].nunique()
    (1440, 1156, 24)
    """
    parts = [read_table(path) for path in paths]
    table = parts[0]
    same_clips = all(part["clip_id"].equals(table["clip_id"]) for part in parts)
    for part in parts[1:]:
        table = pd.concat([table, part[[name for name in part if name not in table]]], axis=1)
    if not same_clips or set(feature_names()) - set(table):
        raise CorpusError(
            f"{' and '.join(path.name for path in paths)}: different clips, or a feature of this version is "
            "missing; restore the files from the repository"
        )
    return table


# --- for notebooks ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Data:
    """The input of a notebook."""

    table: pd.DataFrame  # clip columns, then features
    corpus: corpora.Corpus  # the clips, and the files left out
    source: str  # where the table comes from, in one sentence
    audio: bool  # whether the recordings are there
    config: FeatureConfig


def load_data(source: str | Path = "", feature_set: str = "full") -> Data:
    """Load the feature table of a corpus: extracted from its audio or, without audio, as shipped.

    Parameters
    ----------
    source : path
        A folder or manifest. Empty: RAVDESS from `corpora.find_audio` or, without audio, the shipped table.

    Raises
    ------
    CorpusError
        No audio and another set than the shipped one, or as `corpora.listing`.
    """
    config = FeatureConfig(feature_set)
    place = corpora.find_audio(source or None)
    if place is None:
        if feature_set != "full":
            raise CorpusError(
                f"feature_set={feature_set}: only 'full' is shipped as a table; for the others run "
                "`make data` or set SER_RAVDESS_DIR"
            )
        table = shipped()
        clips = table[[name for name in corpora.CLIP_COLUMNS if name in table]]
        corpus = corpora.Corpus(clips, pd.DataFrame(columns=["path", "problem"]))
        text = f"The shipped table, {SHIPPED[0].name}: {corpus.summary()}."
        return Data(table, corpus, text, audio=False, config=config)
    clips, unlisted = corpora.listing(place)
    table, unusable = extraction.build(clips, config)
    problems = pd.concat([unlisted, unusable], ignore_index=True)
    if table.empty:
        raise CorpusError(f"{place}: no usable clip ({problems['problem'].iloc[0]})")
    clips = clips[["clip_id", "path"]].merge(table)[list(corpora.CLIP_COLUMNS)]
    corpus = corpora.Corpus(clips, problems)
    return Data(table, corpus, f"Audio: {corpus.summary()}.", audio=True, config=config)
