"""The prediction server: a page at /, POST /predict, GET /health.

Uploads are held in memory, answered, and neither stored nor logged. Every error is
application/problem+json (RFC 9457).
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import PurePosixPath

import numpy as np
import soundfile
import waitress
from flask import Flask, Request, abort, json, request
from threadpoolctl import threadpool_limits
from waitress.channel import HTTPChannel
from waitress.task import ErrorTask
from werkzeug.exceptions import HTTPException, UnprocessableEntity

from ser_lib import bundle
from ser_lib.errors import AudioError, BundleError

MAX_BYTES = 20_000_000
TOO_LARGE = f"the upload is larger than {MAX_BYTES / 1e6:.0f} MB; send a shorter or a compressed clip"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; media-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class InMemory(Request):
    """A request whose form files never touch the disk, where werkzeug would put large ones."""

    def _get_file_stream(self, *sizes, **types) -> io.BytesIO:
        return io.BytesIO()


class ProblemTask(ErrorTask):
    """What waitress refuses before Flask sees it, in the same form."""

    def execute(self):
        error = self.request.error
        body = problem(error.code, error.reason, TOO_LARGE if error.code == 413 else error.body).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers += [("Content-Type", "application/problem+json"), *HEADERS.items()]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


def problem(status: int, title: str, detail: str) -> str:
    """The body of an error."""
    return json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail}) + "\n"


def upload() -> tuple[bytes, str]:
    """The clip of the request and the base name of its file: form field `file`, or a raw body."""
    if request.mimetype.startswith("audio/") or request.mimetype == "application/octet-stream":
        return request.get_data(cache=False), "clip"
    file = request.files.get("file")
    if file is None:
        abort(400, f"no file in a form field 'file'; try: curl -F file=@clip.wav {request.url}")
    return file.read(), PurePosixPath((file.filename or "").replace("\\", "/")).name or "clip"


def create_app(bundle_path: str | os.PathLike | None = None) -> Flask:
    """The application around one model, loaded and warm.

    Raises
    ------
    BundleError
        As `bundle.load`.
    """
    model = bundle.load(bundle_path or bundle.DEFAULT)
    hum = io.BytesIO()
    soundfile.write(hum, np.sin(np.arange(48_000) / 40), 48_000, format="WAV")
    model.predict(hum.getvalue())
    with suppress(AudioError):
        model.predict(b"not audio")  # loads FFmpeg

    app = Flask(__name__, static_folder="ser_lib/web", static_url_path="/web")
    app.request_class = InMemory
    app.json.sort_keys = False
    app.config.update(MAX_CONTENT_LENGTH=MAX_BYTES, MAX_FORM_MEMORY_SIZE=MAX_BYTES)

    @app.get("/")
    def page():
        return app.send_static_file("index.html")

    @app.get("/health")
    def health():
        about = ("name", "version", "created", "classes", "headline")
        passport = {key: model.passport.get(key) for key in about}
        return {"status": "ok", "model": passport, "max_bytes": MAX_BYTES}

    @app.post("/predict")
    def predict():
        clip, name = upload()
        try:
            return {"file": name, **model.predict(clip, name=name)}
        except AudioError as error:
            raise UnprocessableEntity(str(error)) from error

    @app.errorhandler(HTTPException)
    def refuse(error):
        detail = TOO_LARGE if error.code == 413 else error.description
        response = error.get_response()
        response.data, response.mimetype = problem(error.code, error.name, detail), "application/problem+json"
        return response

    @app.after_request
    def protect(response):
        response.headers.update(HEADERS)
        return response

    return app


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description="A page at /, POST /predict, GET /health.")
    for name, kind, default, text in (
        ("host", str, "127.0.0.1", "address to listen on; 0.0.0.0 for all"),
        ("port", int, "8000", "0 for any free one"),
        ("model", str, str(bundle.DEFAULT), "passport of the model"),
        ("threads", int, "4", "clips heard at once"),
    ):
        variable = f"SER_{name.upper()}"
        text += f" (default {default}, environment {variable})"
        parser.add_argument(f"--{name}", type=kind, default=os.environ.get(variable) or default, help=text)
    args = parser.parse_args()
    if not 0 <= args.port < 65536 or args.threads < 1:
        parser.error("the port is a number from 0 to 65535, and at least one thread is needed")
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    HTTPChannel.error_task_class = ProblemTask
    threadpool_limits(1)  # of BLAS, within each of the server's threads
    try:
        app = create_app(args.model)
    except BundleError as error:
        sys.exit(f"serve.py: {error}")
    try:
        waitress.serve(
            app, host=args.host, port=args.port, threads=args.threads, ident=None,
            max_request_body_size=2 * MAX_BYTES, inbuf_overflow=2 * MAX_BYTES,  # refused, never on disk
        )  # fmt: skip
    except (OSError, ValueError) as error:
        sys.exit(f"serve.py: cannot listen on {args.host} port {args.port} ({error}); give --host or --port")


if __name__ == "__main__":
    main()
