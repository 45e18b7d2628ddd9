"""The command that serves: `python -m ser_lib serve`, and serve.py in a clone."""

from __future__ import annotations

from typing import Any

import click

from ser_lib.cli_told import Told
from ser_lib.places import SERVED

ANY = click.IntRange(1)


@click.command(cls=Told, context_settings={"auto_envvar_prefix": "SER", "show_default": True})
@click.option("--host", default="127.0.0.1", show_envvar=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option(
    "--port", default=8000, type=click.IntRange(0, 65535), show_envvar=True, help="0 for any free one."
)
@click.option("--model", default=str(SERVED), show_envvar=True, help="Passport of the model.")
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
    from ser_lib import endpoints, server

    app = endpoints.create_app(settings)
    kept = ("host", "port", "threads", "timeout", "max_bytes")
    try:
        server.run(app, **{name: settings[name] for name in kept})
    except (OSError, ValueError) as error:
        where = f"{settings['host']} port {settings['port']}"
        raise click.ClickException(f"cannot listen on {where} ({error}); give --host or --port") from error
