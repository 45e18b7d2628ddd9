"""How far runs are is shown: on a terminal in one line, in a log now and then."""

from __future__ import annotations

import io
import os
import time

import pytest

from ser_lib.runs import execution
from ser_lib.runs.execution import CLEAR, Display


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def out(tmp_path, monkeypatch):
    """A folder with two runs that are under way and one that begins."""
    for name, constant in (("REWRITE_S", 0.02), ("LOG_S", 0.1)):
        monkeypatch.setattr(execution, name, constant)
    for name, cell in (("03_four", 4), ("03_eight", 2)):
        (tmp_path / f"{name}.running").mkdir()
        execution.note_progress(tmp_path / f"{name}.running", cell, 20, time.time() - 65)
    (tmp_path / "05.running").mkdir()
    return tmp_path


def until(stream, text):
    deadline = time.monotonic() + 30
    while text not in stream.getvalue():
        assert time.monotonic() < deadline, stream.getvalue()
        time.sleep(0.01)


def test_a_terminal_has_one_line_that_is_rewritten_and_taken_away(out):
    stream, lines = Terminal(), []
    with Display(["03_four", "05", "03_eight"], out, lines.append, stream) as shown:
        until(stream, f"{CLEAR}03_four: cell 4 of 20, 65 s; 03_eight: cell 2 of 20, 65 s")
        execution.note_progress(out / "03_four.running", 5, 20, time.time())
        until(stream, f"{CLEAR}03_four: cell 5 of 20, 0 s")
        shown.say("done")
    assert lines == ["done"]
    assert "\n" not in stream.getvalue()
    assert stream.getvalue().endswith(CLEAR)


def test_a_line_is_no_longer_than_the_terminal(out, monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    stream = Terminal()
    with Display(["03_four", "03_eight"], out, print, stream):
        until(stream, f"{CLEAR}03_four: cell 4 of 20, 65 s; {CLEAR}"[:29])
    assert max(map(len, stream.getvalue().split(CLEAR))) == 29


def test_a_log_has_lines_of_their_own_now_and_then(out):
    stream, lines = io.StringIO(), []
    with Display(["03_four", "03_eight"], out, lines.append, stream) as shown:
        shown.say("begun")
        assert stream.getvalue() == ""
        until(stream, "03_four: cell 4 of 20, 65 s\n03_eight: cell 2 of 20, 65 s\n")
    assert lines == ["begun"]
    assert "\r" not in stream.getvalue()


def test_what_a_killed_run_left_is_not_shown(out):
    os.utime(out / "03_four.running" / execution.PROGRESS, (0, 0))
    stream = Terminal()
    with Display(["03_four", "03_eight"], out, print, stream):
        until(stream, f"{CLEAR}03_eight: cell 2 of 20, 65 s")
    assert "03_four" not in stream.getvalue()


def test_a_log_of_short_runs_has_none(out, monkeypatch):
    monkeypatch.setattr(execution, "LOG_S", 60)
    stream = io.StringIO()
    with Display(["03_four"], out, print, stream):
        pass
    assert stream.getvalue() == ""
