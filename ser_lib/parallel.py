"""Work spread over all cores, with a progress bar on standard error once it takes over two seconds.

Inside `cluster.connect` the same call spreads it over a Dask cluster.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import joblib
from joblib._dask import DaskDistributedBackend

from ser_lib.errors import SerError

if TYPE_CHECKING:
    from distributed import Client

LOOK_S = 0.5  # seconds between looks at the process that started this one


def map_parallel(
    work: Callable[[Any], Any],
    items: Iterable[Any],
    *,
    n_jobs: int = -1,
    what: str = "",
    chunk: int = 1,
    lost: Callable[[Any], Any] | None = None,
) -> list[Any]:
    """`[work(item) for item in items]` in worker processes of one thread each, in order.

    Parameters
    ----------
    n_jobs : int
        Processes; -1 for all cores, 1 for none beside this one.
    what : str
        The progress bar's title.
    chunk : int
        Items sent to a process at a time, for work of milliseconds.
    lost : callable, optional
        Gives the result of an item whose process died. The others go on.

    Raises
    ------
    BrokenProcessPool
        A process died, and there is no `lost`.
    """
    from joblib import effective_n_jobs
    from tqdm import tqdm

    items = list(items)
    n_jobs = n_jobs if lost or len(items) > 1 else 1
    results: list[Any] = []
    singly = 0  # how many of the next items go one at a time, since one of them may have ended a process
    bar = {"desc": what, "delay": 2, "leave": False, "disable": "SER_REPORT_DIR" in os.environ}
    with tqdm(total=len(items), file=sys.stderr, **bar) as shown, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A worker stopped")  # loky replaces one whose memory has grown
        while len(results) < len(items):
            done = len(results)
            now = items[done : done + 1] if singly else items[done:]
            try:
                for result in _spread(work, now, n_jobs, chunk):
                    results.append(result)
                    shown.update()
            except BrokenProcessPool:
                if lost is None:
                    raise
                if singly:
                    results.append(lost(now[0]))
                else:
                    singly = 1 + 2 * chunk * effective_n_jobs(n_jobs)  # as many as were under way
            singly = max(0, singly - 1)
    return results


def _spread(work: Callable[[Any], Any], items: list[Any], n_jobs: int, chunk: int) -> Iterator[Any]:
    from joblib import Parallel, delayed, parallel_config
    from joblib.parallel import get_active_backend

    backend, _ = get_active_backend()
    one_thread = {"inner_max_num_threads": 1} if backend.supports_inner_max_num_threads else {}
    with (
        parallel_config(backend, **one_thread),
        Parallel(
            n_jobs=n_jobs,
            return_as="generator",
            batch_size=chunk,
            pre_dispatch=f"{2 * chunk} * n_jobs",
            initializer=_end_with,
            initargs=(os.getpid(),),
        ) as pool,
    ):
        yield from pool(delayed(work)(item) for item in items)


def _end_with(parent: int) -> None:
    """End this process once `parent` has ended, however that did; loky's would stay for five minutes."""
    import psutil

    def watch() -> None:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(parent)
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(LOOK_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# --- a Dask cluster -------------------------------------------------------------------------------

WAIT_S = 30  # seconds for the scheduler to answer and a worker to be there


@contextmanager
def dask_cluster(address: str) -> Iterator[Client]:
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
