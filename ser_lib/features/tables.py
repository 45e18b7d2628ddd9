"""The feature table: clip columns, then feature columns; as a file, as it is shipped, and as notebooks get it.

With copies of its clips to be trained on as well: `altered`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from ser_lib import ROOT, corpora
from ser_lib.corpora import identity
from ser_lib.errors import CorpusError
from ser_lib.features import FeatureConfig, extraction, feature_names

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

ABOUT = (*corpora.CLIP_COLUMNS, identity.SOURCE)  # the columns that are no features
# The columns lie in two files a table, so that a change of one family does not make a clone larger by all.
SHIPPED = (ROOT / "data" / "ravdess_full.parquet", ROOT / "data" / "ravdess_correlation.parquet")
SHIPPED_COPIES = tuple(path.with_stem(f"{path.stem}_copies") for path in SHIPPED)  # of `augment.TRAINING`
GROUP = 10_000  # rows written at a time; the writer keeps about 1 kB a column of each group until the end


def feature_columns(table: pd.DataFrame) -> list[str]:
    """The columns of a feature table that are features.

    Examples
    --------
    >>> feature_columns(pd.DataFrame({"clip_id": ["a"], "emotion": ["sad"], "level_mean": [-30.0], "zcr_std": [0.1]}))
    ['level_mean', 'zcr_std']
    """
    return [name for name in table.columns if name not in ABOUT]


def select(table: pd.DataFrame, emotions: Sequence[str]) -> pd.DataFrame:
    """The clips of these emotions.

    Raises
    ------
    CorpusError
        The table has no clip of one of them.

    Examples
    --------
    >>> table = pd.DataFrame({"clip_id": list("abc"), "emotion": ["sad", "calm", "happy"]})
    >>> select(table, ["happy", "sad"])["clip_id"].to_list()
    ['a', 'c']
    """
    absent = [name for name in emotions if name not in set(table["emotion"])]
    if absent:
        held = ", ".join(sorted(table["emotion"].unique()))
        raise CorpusError(f"no clip of emotion {', '.join(absent)}; the table holds {held}")
    return table[table["emotion"].isin(emotions)].reset_index(drop=True)


# --- as a file -------------------------------------------------------------------------------------


def write(
    source: str | Path,
    path: Path,
    config: FeatureConfig = FeatureConfig(),
    *,
    cache_dir: Path = extraction.CACHE,
    n_jobs: int = -1,
) -> tuple[int, pd.DataFrame]:
    """Write the feature table of a folder or manifest, with at most `GROUP` of its rows in memory.

    What `extraction.build` and `save` would write, but for the row groups. The file is there whole or not at all.

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
    clips, problems = corpora.listing(source)
    left_out, n_rows, writer = [problems], 0, None
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        for table, wrong in extraction.parts(clips, config, GROUP, cache_dir, n_jobs):
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


def save(table: pd.DataFrame, path: Path, config: FeatureConfig) -> None:
    """Write a feature table as Parquet; its metadata hold `extraction.recipe(config)`."""
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
    schema = _arrow(table[:0]).schema.with_metadata({"ser_lib": json.dumps(extraction.recipe(config))})
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

    Examples
    --------
    >>> table = shipped()
    >>> len(table), len(feature_columns(table)), table["speaker"].nunique()
    (1440, 1156, 24)
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


# --- as notebooks get it ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Data:
    """What a notebook works on."""

    table: pd.DataFrame  # clip columns, then features
    corpus: corpora.Corpus  # the clips and what was left out
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
    found = corpora.find_audio(source or None)
    if found is None:
        if feature_set != "full":
            raise CorpusError(
                f"feature_set={feature_set}: only 'full' is shipped as a table; for the others run "
                "`make data` or set SER_RAVDESS_DIR"
            )
        table = shipped()
        clips = table[[name for name in corpora.CLIP_COLUMNS if name in table]]
        held = corpora.Corpus(clips, pd.DataFrame(columns=["path", "problem"]))
        return Data(
            table,
            held,
            f"The shipped table, {SHIPPED[0].name}: {held.summary()}.",
            audio=False,
            config=config,
        )
    clips, problems = corpora.listing(found)
    table, wrong = extraction.build(clips, config)
    problems = pd.concat([problems, wrong], ignore_index=True)
    if table.empty:
        raise CorpusError(f"{found}: no usable clip ({problems['problem'].iloc[0]})")
    held = corpora.Corpus(clips[["clip_id", "path"]].merge(table)[list(corpora.CLIP_COLUMNS)], problems)
    return Data(table, held, f"Audio: {held.summary()}.", audio=True, config=config)
