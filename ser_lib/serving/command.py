"""What is printed, whatever the terminal or the pipe can hold."""

from __future__ import annotations

import errno
import io
import sys
import warnings
from typing import Any

import click

from ser_lib import SERVED
from ser_lib.errors import SerError


def tolerant() -> None:
    r"""Make every text printable: a terminal that lacks a character gets `\u2264` for it, a pipe or a file is UTF-8.

    UTF-8 is what reads JSON, CSV and Markdown elsewhere, and on Windows a pipe would otherwise be in the
    encoding of the machine's region.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a window without a console has none
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="backslashreplace")


# --- commands -------------------------------------------------------------------------------------


class Told(click.Command):
    """Shows what a user can mend as one message and exits with 1; every terminal takes what is printed."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run as a program."""
        tolerant()  # before the help, too
        return super().main(*arguments, **options)

    def invoke(self, context: click.Context) -> Any:
        """Run the command."""
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: click.echo(f"warning: {message}", err=True)
            try:
                return super().invoke(context)
            except SerError as error:
                raise click.ClickException(str(error)) from error
            except ModuleNotFoundError as error:
                if error.name is None or error.name.startswith("ser_lib"):
                    raise
                raise click.ClickException(
                    f"{error.name} is not installed; `python -m pip install -e '.[notebooks]'` in a clone of the "
                    "repository brings all that features, training and reports need"
                ) from error
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EROFS):
                    raise
                raise click.ClickException(f"{error.filename}: {error.strerror}") from error


class Commands(Told, click.Group):
    """A group of such commands."""


# --- serve ----------------------------------------------------------------------------------------

ANY = click.IntRange(1)


@click.command(cls=Told, context_settings={"auto_envvar_prefix": "SER", "show_default": True})
@click.option("--host", default="127.0.0.1", show_envvar=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option(
    "--port", default=8000, type=click.IntRange(0, 65535), show_envvar=True, help="0 for any free one."
)
@click.option("--model", default=str(SERVED), show_envvar=True, help="Model metadata of the model.")
@click.option("--threads", default=4, type=ANY, show_envvar=True, help="Clips analysed at once.")
@click.option(
    "--wait",
    default=2.0,
    show_envvar=True,
    help="Seconds that a clip waits for its turn before it is refused.",
)
@click.option(
    "--timeout",
    default=60,
    type=ANY,
    show_envvar=True,
    help="Seconds without a byte before a connection is closed.",
)
@click.option("--max-bytes", default=20_000_000, type=ANY, show_envvar=True, help="Of an upload.")
@click.option("--max-files", default=16, type=ANY, show_envvar=True, help="In a request.")
def serve(**settings: Any) -> None:
    """Answer over HTTP: a page at /, POST /predict; /health, /ready, /model, /metrics and /openapi.json."""
    from ser_lib.serving import server

    app = server.create_app(settings)
    kept = ("host", "port", "threads", "timeout", "max_bytes")
    try:
        server.run(app, **{name: settings[name] for name in kept})
    except (OSError, ValueError) as error:
        where = f"{settings['host']} port {settings['port']}"
        raise click.ClickException(f"cannot listen on {where} ({error}); give --host or --port") from error
