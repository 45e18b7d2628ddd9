"""What goes wrong in a command, and what it warns of, told in one line each."""

from __future__ import annotations

import errno
import warnings
from typing import Any

import click

from ser_lib import console
from ser_lib.errors import SerError


class Told(click.Command):
    """Shows what a user can mend as one message and exits with 1; every terminal takes what is printed."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run as a program."""
        console.tolerant()  # before the help, too
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
