"""A run that is ended ends all of its processes within five seconds, whatever ended it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress

import psutil
import pytest
from test_execution import CELLS, Clone

from ser_lib import ROOT

LIMIT_S = 5
SIGNALS = [name for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGKILL") if hasattr(signal, name)]
MARK = "SER_TEST_RUN"  # in the environment of a run's processes, to find those that lost their parent

# two processes that leave a file each and sleep for longer than any test, unless BUSY_S is given
BUSY = """import os, time
from pathlib import Path
from ser_lib.parallel import map_parallel
def work(i):
    Path(os.environ["BUSY"], str(i)).touch()
    time.sleep(float(os.environ.get("BUSY_S", 900)))
map_parallel(work, range(2), n_jobs=2)"""

# a kernel that cannot look whether its parent is alive, since no other thread of it has a turn
STUCK = """import ctypes, os
from pathlib import Path
Path(os.environ["BUSY"], "0").touch()
ctypes.PyDLL(None).sleep(900)"""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="Windows has no signals to end a process by")


class Busy:
    """Starts commands whose `BUSY` cell or line keeps two processes, and looks for what is left of them."""

    def __init__(self, folder):
        self.folder, self.mark = folder / "busy", uuid.uuid4().hex
        self.folder.mkdir()
        self.environment = {MARK: self.mark, "BUSY": str(self.folder)}

    def processes(self):
        """Those alive that were started by the command or by one of its processes."""
        alive = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # ended meanwhile, or of another user
                if process.environ().get(MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(process)
        return alive

    def wait(self, process, n=2, seconds=120):
        """Until `n` items are under way."""
        deadline = time.monotonic() + seconds
        while len(list(self.folder.iterdir())) < n:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def end(self, process, name):
        """Send the signal; nothing is left within the limit."""
        assert len(self.processes()) >= 3
        process.send_signal(getattr(signal, name))
        deadline = time.monotonic() + LIMIT_S
        while left := self.processes():
            if time.monotonic() > deadline:
                commands = [(one.pid, one.cmdline()[:6]) for one in left]
                for one in left:
                    one.kill()
                pytest.fail(f"left after {LIMIT_S} s of {name}: {commands}")
            time.sleep(0.05)


@pytest.fixture
def busy(tmp_path):
    """Its commands take signals as from a terminal, though the tests may run in the background, which ignores some."""
    before = {signal.Signals[name]: signal.getsignal(signal.Signals[name]) for name in SIGNALS[:-1]}
    ignored = [number for number, how in before.items() if how is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield Busy(tmp_path)
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)


@pytest.mark.parametrize("name", SIGNALS)
def test_reports_leaves_no_process_and_is_started_again(busy, tmp_path, tiny_corpus, name):
    folder = tmp_path / "clone"
    folder.mkdir()
    clone = Clone(folder, tiny_corpus, (CELLS[0], BUSY))
    with clone.start(**busy.environment) as process:
        busy.wait(process)
        busy.end(process, name)
    assert process.returncode != 0
    assert clone.status() == {"03_four": "failed"}
    if name == "SIGINT":
        code, output = clone.run(**busy.environment, BUSY_S="0")
        assert code == 0, output
        assert clone.status() == {"03_four": "done"}


def test_a_kernel_that_hears_nothing_is_ended(busy, tmp_path, tiny_corpus):
    folder = tmp_path / "clone"
    folder.mkdir()
    with Clone(folder, tiny_corpus, (CELLS[0], STUCK)).start(**busy.environment) as process:
        busy.wait(process, 1)
        busy.end(process, "SIGKILL")


@pytest.mark.parametrize("name", SIGNALS)
def test_work_in_processes_leaves_none(busy, name):
    """As `features` and a fit in a script have it."""
    command = [sys.executable, "-c", BUSY]
    with subprocess.Popen(
        command, cwd=ROOT, env=os.environ | busy.environment, stderr=subprocess.PIPE
    ) as process:
        busy.wait(process)
        busy.end(process, name)
