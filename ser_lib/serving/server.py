"""What `endpoints` stands on: limits, counters, errors as JSON, and a production server that stops gracefully."""

from __future__ import annotations

import ctypes
import io
import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any

import prometheus_client as prometheus
import waitress
from flask import Flask, Request, abort, json, request
from flask.typing import ResponseReturnValue
from threadpoolctl import threadpool_limits
from waitress.channel import HTTPChannel
from waitress.task import ErrorTask
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, ServiceUnavailable, UnprocessableEntity
from werkzeug.wrappers import Response

from ser_lib import audio
from ser_lib.audio import decoding
from ser_lib.errors import AudioError, BundleError, SerError
from ser_lib.serving import bundle, command
from ser_lib.serving.answers import as_csv
from ser_lib.serving.model import STEP_S, WINDOW_S

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
PROBLEM = "application/problem+json"
SPARE = 4  # threads beside those that hear clips: for /health, and to refuse what is too much
DRAIN_S = 30.0  # seconds in which requests under way are still answered after SIGTERM


class Counts:
    """What /metrics tells, of this process."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        made: dict[str, Any] = {"registry": self.registry, "namespace": "ser"}
        self.requests = prometheus.Counter(
            "requests", "Answers by route and status.", ["route", "status"], **made
        )
        self.clips = prometheus.Counter("clips", "Clips heard, by emotion.", ["emotion"], **made)
        self.abstained = prometheus.Counter("abstained", "Clips on which the model was not sure.", **made)
        self.refused = prometheus.Counter("refused", "Clips that could not be heard.", **made)
        self.seconds = prometheus.Histogram(
            "predict_seconds", "Time to hear a clip.", buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5), **made
        )
        self.in_flight = prometheus.Gauge("in_flight", "Requests that are being heard.", **made)

    def heard(self, emotion: str, abstained: bool, seconds: float) -> None:
        self.clips.labels(emotion).inc()
        self.abstained.inc(abstained)
        self.seconds.observe(seconds)


class Slots:
    """At most `n` predictions at once; one that waits longer than `wait` seconds is refused."""

    def __init__(self, n: int, wait: float, gauge: prometheus.Gauge):
        self.free, self.wait, self.gauge = threading.BoundedSemaphore(n), wait, gauge

    def __enter__(self) -> None:
        if not self.free.acquire(timeout=self.wait):
            raise ServiceUnavailable("too many clips at once; try again in a second", retry_after=1)
        self.gauge.inc()

    def __exit__(self, *_: object) -> None:
        self.gauge.dec()
        self.free.release()


class InMemory(Request):
    """A request whose form files never touch the disk, where werkzeug would put large ones."""

    def _get_file_stream(self, *sizes: object, **types: object) -> io.BytesIO:
        return io.BytesIO()


def problem(error: HTTPException) -> dict[str, Any]:
    """An error as RFC 9457 has it."""
    return {"type": "about:blank", "title": error.name, "status": error.code, "detail": error.description}


def flask_app(name: str, counts: Counts, *, max_bytes: int) -> Flask:
    """An application that keeps uploads in memory, answers errors as JSON, and counts its answers."""
    app = Flask(name, static_folder="web", static_url_path="/web")
    app.request_class = InMemory
    app.json.sort_keys = False  # type: ignore[attr-defined]  # of Flask's own provider
    app.config.update(MAX_CONTENT_LENGTH=max_bytes, MAX_FORM_MEMORY_SIZE=max_bytes)

    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> Response:
        if isinstance(error, RequestEntityTooLarge) and not error.description.endswith("in a request"):
            error.description = too_large(max_bytes)
        response = error.get_response()
        response.data, response.mimetype = json.dumps(problem(error)) + "\n", PROBLEM
        return response

    @app.after_request
    def finish(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else "none"
        counts.requests.labels(route, response.status_code).inc()
        response.headers.update(HEADERS)
        return response

    return app


def too_large(max_bytes: int) -> str:
    """What to say of an upload that is."""
    return f"the upload is larger than {max_bytes / 1e6:.0f} MB; send a shorter or a compressed clip"


def warm_up() -> None:
    """Load FFmpeg, so that the first clip that needs it is as fast as the second."""
    with suppress(AudioError):
        audio.load(b"not audio")


# --- waitress --------------------------------------------------------------------------------------


def run(app: Flask, *, host: str, port: int, threads: int, timeout: int, max_bytes: int) -> None:
    """Serve until interrupted or told to stop (SIGTERM); what is under way then is still answered.

    Raises
    ------
    OSError, ValueError
        The address cannot be listened on.
    """
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a line for each request that waits
    threadpool_limits(1)  # of BLAS, within each of the server's threads
    # of glibc alone; M_ARENA_MAX: one heap, not one a thread that keeps its most
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(-8, 1)
    HTTPChannel.error_task_class = type("Problem", (ProblemTask,), {"max_bytes": max_bytes})
    serving = waitress.create_server(
        app, host=host, port=port, threads=threads + SPARE, ident=None, channel_timeout=timeout,
        max_request_body_size=2 * max_bytes, inbuf_overflow=2 * max_bytes,  # refused, never on disk
        recv_bytes=2**18,  # an upload in few pieces
    )  # fmt: skip
    drained = threading.Event()

    def stop(*_: object) -> None:
        if drained.is_set():
            raise SystemExit  # which waitress takes for its end
        threading.Thread(target=drain, args=(serving, drained)).start()

    signal.signal(signal.SIGTERM, stop)
    serving.print_listen("Serving on http://{}:{}")
    serving.run()


def drain(serving: Any, drained: threading.Event) -> None:
    """Take no new connection, wait for the answers that are due, then stop the server by a second SIGTERM."""
    serving.adj.connection_limit = 0
    end = time.monotonic() + DRAIN_S
    while time.monotonic() < end and any(
        channel.requests or channel.total_outbufs_len for channel in list(serving.active_channels.values())
    ):
        time.sleep(0.02)
    drained.set()
    os.kill(os.getpid(), signal.SIGTERM)  # not SIGINT, which is ignored in the background of a script


class ProblemTask(ErrorTask):
    """What waitress refuses before Flask sees it, in the same form."""

    max_bytes: int

    def execute(self) -> None:
        error = self.request.error
        detail = too_large(self.max_bytes) if error.code == 413 else error.body
        said = {"type": "about:blank", "title": error.reason, "status": error.code, "detail": detail}
        body = (json.dumps(said) + "\n").encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers += [("Content-Type", PROBLEM), *HEADERS.items()]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)


# --- the application ------------------------------------------------------------------------------

ABOUT = (
    "name", "version", "created", "estimator", "classes", "training", "headline", "metrics", "intensity", "enrolled",
    "abstain_below", "licence",
)  # fmt: skip


def uploads(field: str = "file") -> list[tuple[str, bytes]]:
    """Names and contents of a form field's files, or of the raw body."""
    if field == "file" and (
        request.mimetype.startswith("audio/") or request.mimetype == "application/octet-stream"
    ):
        return [("clip", request.get_data(cache=False))]
    found = request.files.getlist(field)
    return [
        (PurePosixPath((file.filename or "").replace("\\", "/")).name or "clip", file.read())
        for file in found
    ]


def create_app(settings: dict[str, Any] | None = None) -> Flask:
    """The application around one model, loaded, checked and warm; by default as the environment says.

    Raises
    ------
    BundleError
        As `bundle.load`.
    """
    given = settings or command.serve.make_context("serve", []).params
    model = bundle.load(given["model"])  # the self-test clips warm it up
    warm_up()
    counts = Counts()
    slots = Slots(given["threads"], given["wait"], counts.in_flight)
    app = flask_app(__name__, counts, max_bytes=given["max_bytes"])

    @app.get("/")
    def page() -> Response:
        return app.send_static_file("index.html")

    @app.get("/openapi.json")
    def openapi() -> Response:
        return app.send_static_file("openapi.json")

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready")
    def ready() -> dict[str, str]:
        try:
            bundle.self_test(model)
        except BundleError as error:
            raise ServiceUnavailable(str(error)) from error
        return {"status": "ready"}

    @app.get("/model")
    def about() -> dict[str, Any]:
        limits = {
            "max_bytes": given["max_bytes"],
            "max_seconds": decoding.MAX_S,
            "max_files": given["max_files"],
        }
        features = {"feature_set": model.config.name, "n_features": len(model.metadata["feature_names"])}
        return (
            {key: model.metadata[key] for key in ABOUT if key in model.metadata}
            | features
            | {"limits": limits}
        )

    @app.get("/metrics")
    def metrics() -> ResponseReturnValue:
        return prometheus.generate_latest(counts.registry), {"Content-Type": prometheus.CONTENT_TYPE_LATEST}

    @app.post("/predict")
    def predict() -> ResponseReturnValue:
        clips, references = uploads(), [content for _, content in uploads("reference")]
        if not clips:
            abort(400, f"no file in a form field 'file'; try: curl -F file=@clip.wav {request.base_url}")
        if len(clips) + len(references) > given["max_files"]:
            abort(413, f"{len(clips) + len(references)} files; at most {given['max_files']} in a request")
        hear = timeline if request.args.get("timeline", "0") not in ("", "0", "false") else single
        with slots:
            if len(clips) == 1:
                return hear(*clips[0], references)
            return {"results": [either(hear, name, content, references) for name, content in clips]}

    def single(name: str, content: bytes, references: list[bytes]) -> ResponseReturnValue:
        started = time.perf_counter()
        try:
            answer = model.predict(content, name=name, references=references)
        except SerError as error:
            counts.refused.inc()
            raise UnprocessableEntity(str(error)) from error
        counts.heard(answer["emotion"], answer["abstained"], time.perf_counter() - started)
        return {"file": name, **answer}

    def timeline(name: str, content: bytes, references: list[bytes]) -> ResponseReturnValue:
        try:
            windows = list(model.timeline(content, name=name))
        except SerError as error:
            counts.refused.inc()
            raise UnprocessableEntity(str(error)) from error
        if request.accept_mimetypes.best_match(("application/json", "text/csv")) == "text/csv":
            lines = as_csv(windows, model.metadata["classes"], ("start_s", "end_s"))
            return "\r\n".join((*lines, "")), {"Content-Type": "text/csv; charset=utf-8"}
        about = {"duration_s": windows[-1]["end_s"], "window_s": WINDOW_S, "step_s": STEP_S}
        return {"file": name, **about, "windows": windows}

    def either(
        hear: Callable[..., ResponseReturnValue], name: str, content: bytes, references: list[bytes]
    ) -> ResponseReturnValue:
        try:
            return hear(name, content, references)
        except HTTPException as error:
            return {"file": name, "error": problem(error)}

    return app
