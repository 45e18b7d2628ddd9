"""Commands whose errors are one line and whose output any terminal or pipe can print; the command `serve`."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sqlite3
import sys
import warnings
from collections.abc import Iterator
from typing import Any

import click

from ser_lib import SERVED
from ser_lib.errors import SerError, explain


def make_streams_tolerant() -> None:
    r"""Make every text printable: a terminal shows `\u2264` for a character it lacks; pipes and files are UTF-8.

    Readers of JSON, CSV and Markdown expect UTF-8; a pipe on Windows would use the encoding of the region.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a window without a console has none
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn an error that the user can fix into a ClickException, which is printed as one line and exits with 1."""
    try:
        yield
    except SerError as error:
        raise click.ClickException(str(error)) from error
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("ser_lib"):
            raise
        raise click.ClickException(
            f"{error.name} is not installed; `python -m pip install -e '.[notebooks]'` in a clone of the "
            "repository installs what features, training and reports need"
        ) from error
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader of a pipe has left, as `head` does; click ends quietly
            raise
        _drop_unwritten()
        raise click.ClickException(explain(error)) from error
    except sqlite3.Error as error:
        raise click.ClickException(
            f"{error}; make room for the database, or allow it to be written"
        ) from error
    except Exception as error:
        arrow = sys.modules.get("pyarrow")
        if arrow is None or not isinstance(error, arrow.ArrowException):
            raise
        raise click.ClickException(" ".join(str(error).split())) from error


def _drop_unwritten() -> None:
    """Drop the output that a full disk did not take; Python would try again at its end, and exit with 120."""
    if sys.stdout is None:  # a window without a console
        return
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Command(click.Command):
    """A command that prints an error the user can fix as one line, and exits with 1."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run as a program."""
        make_streams_tolerant()  # --help needs it too
        return super().main(*arguments, **options)

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """Read the options, or print the help."""
        with one_line_errors():
            return super().make_context(*arguments, **options)

    def invoke(self, context: click.Context) -> Any:
        """Run the command."""
        with warnings.catch_warnings(), one_line_errors():
            warnings.showwarning = lambda message, *_, **__: click.echo(f"warning: {message}", err=True)
            return super().invoke(context)


class Group(Command, click.Group):
    """A group of such commands."""


POSITIVE = click.IntRange(1)


@click.command(cls=Command, context_settings={"auto_envvar_prefix": "SER", "show_default": True})
@click.option("--host", default="127.0.0.1", show_envvar=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option(
    "--port", default=8000, type=click.IntRange(0, 65535), show_envvar=True, help="0: any free one."
)
@click.option("--model", default=str(SERVED), show_envvar=True, help="Model metadata (.json).")
@click.option("--threads", default=4, type=POSITIVE, show_envvar=True, help="Requests analysed at once.")
@click.option("--wait", default=2.0, show_envvar=True, help="Seconds a request waits for its turn, else 503.")
@click.option(
    "--timeout",
    default=60,
    type=POSITIVE,
    show_envvar=True,
    help="Seconds until a connection is closed that is idle, or sends a request at under 10 kB/s.",
)
@click.option("--max-bytes", default=20_000_000, type=POSITIVE, show_envvar=True, help="Limit of an upload.")
@click.option("--max-files", default=16, type=POSITIVE, show_envvar=True, help="Limit of a request.")
@click.option(
    "--max-seconds-per-request", default=1200, type=POSITIVE, show_envvar=True, help="Limit of its audio."
)
def serve(**settings: Any) -> None:
    """Serve predictions over HTTP: a page at /, POST /predict; /health, /ready, /model, /metrics and /openapi.json."""
    from ser_lib.serving import server

    app = server.create_app(settings)
    names = ("host", "port", "threads", "timeout", "max_bytes")
    try:
        server.run(app, **{name: settings[name] for name in names})
    except (OSError, ValueError) as error:
        where = f"{settings['host']} port {settings['port']}"
        raise click.ClickException(f"cannot listen on {where} ({error}); give --host or --port") from error


def create_app(settings: dict[str, Any] | None = None) -> Any:
    """Build the Flask application, for gunicorn and others; its settings are those of the environment if not given."""
    from ser_lib.serving import server

    return server.create_app(settings or serve.make_context("serve", []).params)
