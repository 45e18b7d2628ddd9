"""Work spread over all cores, with a progress bar on standard error once it takes over two seconds.

Inside `dask_cluster`, the same call spreads it over a Dask cluster. TQDM_DISABLE=1 turns the bar off.
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
from joblib.parallel import get_active_backend

from ser_lib.errors import SerError

if TYPE_CHECKING:
    from distributed import Client

WATCH_S = 0.5  # seconds between checks that the parent process is alive
WAIT_S = 30  # seconds to wait for a Dask scheduler, and for a first worker


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
        Processes; -1 for all cores, 1 for this process only.
    what : str
        Title of the progress bar.
    chunk : int
        Items sent to a process at a time, for work of milliseconds.
    lost : callable, optional
        Returns the result for an item whose process died; the other items go on.

    Raises
    ------
    BrokenProcessPool
        A process died, and there is no `lost`.
    """
    from tqdm import tqdm

    items = list(items)
    n_jobs = n_jobs if lost or len(items) > 1 else 1
    results: list[Any] = []
    singly = (
        0  # how many of the next items to run one at a time, because one of them may have killed a process
    )
    bar = tqdm(total=len(items), desc=what, delay=2, leave=False, file=sys.stderr)
    with bar, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "A worker stopped")  # loky replaces a worker whose memory has grown
        while len(results) < len(items):
            rest = items[len(results) :]
            batch = rest[:1] if singly else rest
            try:
                for result in _spread(work, batch, n_jobs, chunk):
                    results.append(result)
                    bar.update()
            except BrokenProcessPool:
                if lost is None:
                    raise
                if singly:
                    results.append(lost(batch[0]))
                else:
                    singly = 1 + 2 * chunk * joblib.effective_n_jobs(n_jobs)  # as many as had been sent out
            singly = max(0, singly - 1)
    return results


def _spread(work: Callable[[Any], Any], items: list[Any], n_jobs: int, chunk: int) -> Iterator[Any]:
    backend, _ = get_active_backend()
    one_thread = {"inner_max_num_threads": 1} if backend.supports_inner_max_num_threads else {}
    with (
        joblib.parallel_config(backend, **one_thread),
        joblib.Parallel(
            n_jobs=n_jobs,
            return_as="generator",
            batch_size=chunk,
            pre_dispatch=f"{2 * chunk} * n_jobs",
            initializer=_exit_with,
            initargs=(os.getpid(),),
        ) as pool,
    ):
        yield from pool(joblib.delayed(work)(item) for item in items)


def _exit_with(parent: int) -> None:
    """Exit this worker as soon as process `parent` has ended; otherwise loky keeps it for five minutes."""
    import psutil

    def watch() -> None:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(parent)
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(WATCH_S)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def dask_cluster(address: str) -> Iterator[Client]:
    """Run `map_parallel` on the Dask cluster of a scheduler, `tcp://host:8786`; no item is lost with a worker.

    Each worker needs this version of ser_lib and its libraries, and the files under the same paths.

    Raises
    ------
    SerError
        Dask is not installed, no scheduler answers, or it has no workers.
    """
    try:
        from distributed import Client
    except ImportError as error:
        remedy = "`python -m pip install 'dask[distributed]'`"
        raise SerError(f"Dask is not installed; install it with {remedy}") from error
    try:
        client = Client(address, timeout=WAIT_S)
    except (OSError, ValueError) as error:
        remedy = "start one with `dask scheduler`"
        raise SerError(f"{address}: no Dask scheduler answers ({error}); {remedy}") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=WAIT_S)
        except TimeoutError as error:
            raise SerError(f"{address}: no workers; start them with `dask worker {address}`") from error
        with joblib.parallel_config(_Backend(client=client)):
            yield client


class _Backend(DaskDistributedBackend):
    """joblib's Dask backend, which alone would wait forever for a task that failed outside its function."""

    def effective_n_jobs(self, n_jobs: int = 1) -> int:
        """At least 2: with 1, while workers restart, joblib would work in this process."""
        return max(2, super().effective_n_jobs(n_jobs))

    def submit(self, func: Callable[..., Any], callback: Any = None) -> Any:
        """Submit a batch; `callback` is also called if it fails."""
        task = super().submit(func, callback)
        task.add_done_callback(lambda done: callback(done) if done.exception() else None)
        return task

    def retrieve_result_callback(self, out: Any) -> Any:
        """Return the results of a batch, or raise its error."""
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
        """Cancel the running tasks."""
        super().abort_everything(ensure_ready)
        self.client.cancel(list(self._results))
