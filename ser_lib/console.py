"""What is printed, whatever the terminal or the pipe can hold."""

from __future__ import annotations

import io
import sys


def tolerant() -> None:
    r"""Make every text printable: a terminal that lacks a character gets `\u2264` for it, a pipe or a file is UTF-8.

    UTF-8 is what reads JSON, CSV and Markdown elsewhere, and on Windows a pipe would otherwise be in the
    encoding of the machine's region.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a window without a console has none
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")
