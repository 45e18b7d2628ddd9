"""The feature table: clip columns, then feature columns, cached so that nothing stale is ever used.

A cached row is found by what made it: the decoded samples (`audio_sha256`), the configuration, the
source of the modules that compute, and the versions of the libraries they call. Change any of them
and the row is computed again. Rows are written in parts, so an interrupted run goes on where it was.
"""

from __future__ import annotations

import dataclasses
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from ser_lib import ROOT, __version__, audio, corpus
from ser_lib.errors import AudioError, CorpusError
from ser_lib.features import FeatureConfig, extract, feature_names
from ser_lib.progress import parallel

CACHE = ROOT / "data" / "cache"
SHIPPED = ROOT / "data" / "ravdess_full.parquet"
LIBRARIES = ("numpy", "scipy", "librosa", "soxr", "soundfile", "av")
PART = 500  # clips computed and written at a time


@cache
def _code_hash() -> str:
    sources = (Path(__file__).with_name(f"{name}.py") for name in ("audio", "lld", "features"))
    return sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]


def provenance(config: FeatureConfig) -> dict:
    """What a feature table is made by: configuration, its hash, code hash and library versions."""
    return {
        "config": dataclasses.asdict(config),
        "config_hash": config.hash,
        "code_hash": _code_hash(),
        "ser_lib": __version__,
        "libraries": {name: version(name) for name in LIBRARIES},
    }


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
    change, seed
        What is done to each waveform first, as in `audio.load`; part of what finds a cached row.

    Returns
    -------
    table : DataFrame
        The clip columns but `path`, then the feature columns (float32).
    problems : DataFrame
        `path, problem` of clips without features (silent, too short); they are not in `table`.
    """
    names = list(feature_names(config))
    made = provenance(config)
    if change is not None:
        source = Path(__file__).with_name("augment.py").read_bytes()
        made |= {"change": repr(change), "seed": seed, "change_code": sha256(source).hexdigest()[:16]}
    key = sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()[:16]
    folder = Path(cache_dir) / f"{config.name}-{key}"
    rows = _cached(folder, names)
    todo = clips[~clips["audio_sha256"].isin(rows.index)].drop_duplicates("audio_sha256")
    wrong: dict[str, str] = {}  # by content, since identical clips fail alike
    for start in range(0, len(todo), PART):
        part = todo.iloc[start : start + PART]
        what = f"{config.name} features {start + len(part)}/{len(todo)}"
        results = parallel(
            partial(_row, config=config, change=change, seed=seed), part["path"], n_jobs=n_jobs, what=what
        )
        wrong |= {
            content: result
            for content, result in zip(part["audio_sha256"], results, strict=True)
            if isinstance(result, str)
        }
        good = [not isinstance(result, str) for result in results]
        if any(good):
            values = np.stack([result for result in results if not isinstance(result, str)])
            new = pd.DataFrame(values, index=part["audio_sha256"][good], columns=names)
            _write_part(folder, new)
            rows = pd.concat([rows, new])
    table = clips[clips["audio_sha256"].isin(rows.index)].reset_index(drop=True)
    values = rows.loc[table["audio_sha256"], names].reset_index(drop=True)
    table = pd.concat([table.drop(columns="path"), values], axis=1)
    left_out = clips[clips["audio_sha256"].isin(wrong)].reset_index(drop=True)
    return table, left_out[["path"]].assign(problem=left_out["audio_sha256"].map(wrong))


def _row(path: str, config: FeatureConfig, change: audio.Change | None, seed: int) -> np.ndarray | str:
    """The feature values of one file, or what is wrong with it."""
    try:
        clip = audio.load(path, config.audio, change=change, seed=seed)
        return np.fromiter(extract(clip, config).values(), np.float32)
    except AudioError as error:
        return str(error)


def _cached(folder: Path, names: list[str]) -> pd.DataFrame:
    import pyarrow as pa

    parts = []
    for path in sorted(folder.glob("*.parquet")):
        with suppress(OSError, pa.ArrowException):  # cut off by a full disk: computed again
            parts.append(pd.read_parquet(path))
    if not parts:
        return pd.DataFrame(columns=names, dtype=np.float32)
    return pd.concat(parts).groupby(level=0).first()


def _write_part(folder: Path, rows: pd.DataFrame) -> None:
    """Write one part so that it is there whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    name = sha256("".join(rows.index).encode()).hexdigest()[:16]
    unfinished = folder / f"{name}.{os.getpid()}.part"
    rows.to_parquet(unfinished)
    unfinished.replace(folder / f"{name}.parquet")


def save(table: pd.DataFrame, path: Path, config: FeatureConfig) -> None:
    """Write a feature table as Parquet; its metadata hold `provenance(config)`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = pa.Table.from_pandas(table, preserve_index=False)
    arrow = arrow.replace_schema_metadata({"ser_lib": json.dumps(provenance(config))})
    names = list(feature_names(config))
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        arrow,
        path,
        compression="zstd",
        compression_level=19,
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


@dataclass(frozen=True)
class Data:
    """What a notebook works on."""

    table: pd.DataFrame  # clip columns, then features
    corpus: corpus.Corpus  # the clips and what was left out
    source: str  # where it came from, in one sentence
    audio: bool  # whether the recordings are there


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
        table = load(SHIPPED, config)
        clips = table[[name for name in corpus.CLIP_COLUMNS if name in table]]
        held = corpus.Corpus(clips, pd.DataFrame(columns=["path", "problem"]))
        return Data(table, held, f"The shipped table, {SHIPPED.name}: {held.summary()}.", audio=False)
    held = corpus.read(found)
    table, problems = build(held.clips, config)
    held = corpus.Corpus(held.clips, pd.concat([held.problems, problems], ignore_index=True))
    return Data(table, held, f"Audio: {held.summary()}.", audio=True)
