"""Beyond one machine: the same calls on a Dask cluster. Needs the extra `dask`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
from joblib._dask import DaskDistributedBackend

from ser_lib import models, tables
from ser_lib.errors import SerError

if TYPE_CHECKING:
    from distributed import Client
    from sklearn.pipeline import Pipeline

WAIT_S = 30  # seconds for the scheduler to answer and a worker to be there


@contextmanager
def connect(address: str) -> Iterator[Client]:
    """Inside, `progress.parallel` works on the cluster; a worker that is lost loses no row.

    Each worker needs this version of ser_lib and its libraries, and the files under the same paths.

    Parameters
    ----------
    address : str
        Of the scheduler, as `tcp://host:8786`.

    Raises
    ------
    SerError
        Dask is not installed, no scheduler answers, or it has no workers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise SerError(
            "Dask is not installed; `python -m pip install 'dask[dataframe,distributed]'` brings it"
        ) from error
    try:
        client = Client(address, timeout=WAIT_S)
    except (OSError, ValueError) as error:
        raise SerError(
            f"{address}: no Dask scheduler answers ({error}); start one with `dask scheduler`"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=WAIT_S)
        except TimeoutError as error:
            raise SerError(f"{address}: no workers; start them with `dask worker {address}`") from error
        with joblib.parallel_config(_Backend(client=client)):
            yield client


class _Backend(DaskDistributedBackend):
    """joblib's own, which would wait for ever for a task that failed outside its function."""

    def effective_n_jobs(self, n_jobs: int = 1) -> int:
        """At least 2: joblib takes 1, which is left while workers start again, for work in this process."""
        return max(2, super().effective_n_jobs(n_jobs))

    def submit(self, func: Callable[..., Any], callback: Any = None) -> Any:
        """Hand in a batch; `callback` also hears of its failure."""
        task = super().submit(func, callback)
        task.add_done_callback(lambda done: callback(done) if done.exception() else None)
        return task

    def retrieve_result_callback(self, out: Any) -> Any:
        """The results of a batch, or the error that stands for them."""
        if not isinstance(out, Future):
            return super().retrieve_result_callback(out)
        from distributed import KilledWorker

        error = out.exception()
        if isinstance(error, KilledWorker):
            raise BrokenProcessPool(str(error)) from error
        raise SerError(
            f"a Dask worker cannot run the work ({str(error).splitlines()[0]}); "
            "it needs this version of ser_lib and its libraries"
        ) from error

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Stop what is under way."""
        super().abort_everything(ensure_ready)
        self.client.cancel(list(self._results))


def fit_xgboost(paths: Path | Sequence[Path], client: Client, *, seed: int = 0) -> Pipeline:
    """`models.make("xgboost")` fitted by XGBoost's Dask trainer on tables too large for one memory.

    Each worker reads its row groups and keeps a byte a value. Another number of workers samples other
    rows, so that probabilities differ as they do between two seeds.

    Parameters
    ----------
    paths : path or sequence of paths
        Feature tables of `tables.write`, as the workers see them.
    client : Client
        From `connect`.

    Returns
    -------
    Pipeline
        It predicts without Dask, and can be saved like one that was fitted here.
    """
    from dask import dataframe as dd
    from xgboost import XGBClassifier
    from xgboost.dask import DaskXGBClassifier

    table = dd.read_parquet(paths, split_row_groups=True)
    counts = table["emotion"].value_counts().compute().sort_index()
    code = {label: i for i, label in enumerate(counts.index)}
    y = table["emotion"].map(code, meta=("emotion", "int64"))
    weight = y.map(dict(enumerate(counts.sum() / (len(counts) * counts))), meta=("emotion", "float32"))
    pipeline = models.make("xgboost", seed=seed)
    balanced = pipeline[-1]
    trees = DaskXGBClassifier(**balanced.estimator.get_params())
    trees.client = client
    trees.fit(table[tables.feature_columns(table)], y, sample_weight=weight)  # type: ignore[unused-awaitable]  # `client` waits
    balanced.classes_ = np.array(counts.index, dtype=object)
    balanced.estimator_ = XGBClassifier(**balanced.estimator.get_params())
    balanced.estimator_.load_model(trees.get_booster().save_raw())
    return pipeline
