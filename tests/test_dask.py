"""parallel.dask_cluster: a real scheduler and two worker processes give the same results as this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from pandas.testing import assert_frame_equal

from ser_lib import augmentation, corpora, parallel
from ser_lib.cli import main
from ser_lib.errors import SerError
from ser_lib.features import FeatureConfig, extraction, tables
from ser_lib.parallel import map_parallel

CONFIG = FeatureConfig("compact")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address of a scheduler with two workers of one thread each."""
    pytest.importorskip("distributed", reason="the extra `dask` is not installed")
    folder = tmp_path_factory.mktemp("dask")
    scheduler_file = folder / "scheduler.json"
    here = Path(__file__).parent
    path = os.pathsep.join([str(here.parent), str(here), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": path, "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "1"}
    common = ["--scheduler-file", str(scheduler_file), "--no-dashboard"]
    scheduler = ["distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0", *common]
    worker = ["distributed.cli.dask_worker", "--nthreads", "1", "--local-directory", str(folder), *common]
    with (folder / "log").open("w", encoding="utf-8") as log:
        processes = [
            subprocess.Popen([sys.executable, "-m", *arguments], stdout=log, stderr=log, env=environment)
            for arguments in (scheduler, worker, worker)
        ]
    import distributed

    try:
        with distributed.Client(scheduler_file=str(scheduler_file), timeout=60) as client:
            client.wait_for_workers(2, timeout=60)
            yield client.scheduler.address
    finally:
        for process in processes[::-1]:
            process.terminate()
        for process in processes:
            process.wait(30)


@dataclass(frozen=True)
class Slow(augmentation.Change):
    """No change; leaves a file named by its process."""

    folder: str

    def __call__(self, y, rate, rng):
        (Path(self.folder) / f"{os.getpid()}-{time.monotonic_ns()}").touch()
        time.sleep(0.03)
        return y


def build(tiny_corpus, cache_dir, **how):
    return extraction.build(corpora.listing(tiny_corpus)[0], CONFIG, cache_dir=cache_dir, n_jobs=2, **how)


@pytest.mark.slow
def test_no_row_is_lost_with_a_worker(address, tiny_corpus, tmp_path):
    seen = tmp_path / "seen"
    seen.mkdir()
    slow, killed = Slow(str(seen)), []

    def kill() -> None:
        while len(marks := list(seen.iterdir())) < 30:
            time.sleep(0.01)
        killed.append(int(marks[0].name.split("-")[0]))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill, daemon=True)
    with parallel.dask_cluster(address):
        killer.start()
        spread, problems = build(tiny_corpus, tmp_path / "there", change=slow)
    killer.join(1)
    workers = {int(mark.name.split("-")[0]) for mark in seen.iterdir()}
    assert killed[0] in workers
    assert os.getpid() not in workers
    assert len(workers) >= 2
    assert problems.empty
    assert spread["clip_id"].is_unique
    local, _ = build(tiny_corpus, tmp_path / "here", change=slow)
    assert_frame_equal(spread, local)


def deadly(i: int) -> int:
    if i == 7:
        os._exit(1)
    return i * i


@pytest.mark.slow
def test_work_that_ends_every_process_costs_itself(address):
    with parallel.dask_cluster(address):
        assert map_parallel(deadly, range(12), chunk=2, lost=lambda i: -i) == [
            i * i if i != 7 else -7 for i in range(12)
        ]
        with pytest.raises(BrokenProcessPool, match="2 different workers"):
            map_parallel(deadly, range(6, 9))


def test_workers_that_lack_the_code_are_named_and_not_waited_for(address, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def work(i):\n    return i\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    import only_here

    with (
        parallel.dask_cluster(address),
        pytest.raises(SerError, match=r"a Dask worker cannot run the work .*deserial"),
    ):
        map_parallel(only_here.work, range(4))


def test_workers_of_other_code_are_refused(address, tiny_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "code_hash", lambda *modules: "0123456789abcdef")
    with (
        parallel.dask_cluster(address),
        pytest.raises(SerError, match="differs from where the run was started"),
    ):
        build(tiny_corpus, tmp_path)


def test_the_command_line_extracts_on_the_cluster(address, tiny_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "CACHE", tmp_path / "cache")
    arguments = ["features", str(tiny_corpus), str(tmp_path / "t.parquet"), "--set", "compact"]
    done = CliRunner().invoke(main, [*arguments, "--dask", address])
    assert done.exit_code == 0, done.output
    assert_frame_equal(
        tables.read_table(tmp_path / "t.parquet", CONFIG), build(tiny_corpus, tmp_path / "here")[0]
    )


def test_a_scheduler_that_is_not_there_is_refused(address, monkeypatch):
    monkeypatch.setattr(parallel, "WAIT_S", 0.5)
    with (
        pytest.raises(SerError, match=r"tcp://127\.0\.0\.1:1: no Dask scheduler answers"),
        parallel.dask_cluster("tcp://127.0.0.1:1"),
    ):
        pass


def test_without_dask_the_option_names_the_extra(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "distributed", None)
    done = CliRunner().invoke(main, ["features", str(tmp_path), "t.parquet", "--dask", "tcp://127.0.0.1:1"])
    assert done.exit_code == 1
    assert "python -m pip install 'dask[distributed]'" in done.output
