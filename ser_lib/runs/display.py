"""How far runs are, while they run: one line on a terminal, rewritten each second; in a log a line of each now and then."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TextIO

from ser_lib import ledger

FILE = "progress"  # in the folder of a run: the cell that is executed, of how many, since when the run goes
REWRITE_S = 1.0  # seconds between rewritings of the line
LOG_S = 60.0  # and between lines in a log
CLEAR = "\r\x1b[K"


def note(running: Path, cell: int, cells: int, since: float) -> None:
    """Say which cell a run has come to, for a `Display`, which may be of another process."""
    new = running / f"{FILE}.new"
    new.write_text(f"{cell} {cells} {since}", encoding="utf-8")
    new.replace(running / FILE)


class Display:
    """Shows how far the runs of some names are, until it is left.

    Parameters
    ----------
    names : sequence of str
    out : Path
        Folder of the reports.
    say : callable
        What `say` passes lines on to, so that they do not run into that of the terminal.
    stream : text file, optional
        Instead of standard error.
    """

    def __init__(
        self,
        names: Sequence[str],
        out: Path,
        say: Callable[[str], object],
        stream: TextIO | None = None,
    ):
        self.names, self.out, self.pass_on = names, out, say
        self.stream = stream or sys.stderr
        self.terminal, self.begun = self.stream.isatty(), time.time()
        self.lock, self.left = threading.Lock(), threading.Event()
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Display:
        """Begin."""
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        """Take the line away."""
        self.left.set()
        self.thread.join()
        self._write("")

    def say(self, text: str) -> None:
        """Say a line that stays."""
        with self.lock:
            if self.terminal:
                print(CLEAR, end="", file=self.stream, flush=True)
            self.pass_on(text)

    def _follow(self) -> None:
        while not self.left.wait(REWRITE_S if self.terminal else LOG_S):
            told = [line for name in self.names if (line := self._told(name))]
            self._write("; ".join(told) if self.terminal else "\n".join(told))

    def _told(self, name: str) -> str:
        path = self.out / f"{name}{ledger.RUNNING}" / FILE
        try:
            if path.stat().st_mtime < self.begun - 1:  # left by a run that was killed
                return ""
            cell, cells, since = path.read_text(encoding="utf-8").split()
        except OSError:  # it has not begun, or has ended
            return ""
        return f"{name}: cell {cell} of {cells}, {time.time() - float(since):.0f} s"

    def _write(self, text: str) -> None:
        with self.lock:
            if self.terminal:
                width = shutil.get_terminal_size().columns - 1  # a line that wraps is not cleared whole
                print(CLEAR, text[:width], sep="", end="", file=self.stream, flush=True)
            elif text:
                print(text, file=self.stream, flush=True)
