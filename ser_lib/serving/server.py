"""The prediction server. `create_app` has the routes; what they call, the limits and the graceful stop follow."""

from __future__ import annotations

import ctypes
import gzip
import io
import logging
import os
import signal
import threading
import time
import zlib
from contextlib import suppress
from functools import partial
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import prometheus_client as prometheus
import waitress
from flask import Flask, Request, abort, json, request
from flask.typing import ResponseReturnValue
from threadpoolctl import threadpool_limits
from waitress import wasyncore
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import BaseWSGIServer
from waitress.task import ErrorTask
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, ServiceUnavailable, UnprocessableEntity
from werkzeug.wrappers import Response

from ser_lib import audio
from ser_lib.audio import decoding
from ser_lib.errors import AudioError, BundleError, SerError
from ser_lib.serving import bundle
from ser_lib.serving.answers import as_csv
from ser_lib.serving.model import STEP_S, WINDOW_S, Model

ABOUT = (
    "name", "version", "created", "estimator", "classes", "training", "headline", "metrics", "intensity", "enrolled",
    "abstain_below", "licence",
)  # fmt: skip
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; media-src 'self' blob:; object-src 'none'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
PROBLEM = "application/problem+json"
FLAG = (  # of a parameter
    {"": False}
    | dict.fromkeys(("0", "false", "no", "off"), False)
    | dict.fromkeys(("1", "true", "yes", "on"), True)
)
RAW = ("audio/", "video/", "application/octet-stream", "application/ogg", "application/mp4")
SPARE = 4  # more threads than clips at once: for /health, and to refuse clips beyond the limit
CONNECTIONS = 1000  # open at once
MIN_BYTES_S = 10_000  # a request that comes more slowly than this, after `--timeout` seconds, is cut off
DRAIN_S = 30.0  # seconds that running requests have to finish after SIGTERM


def create_app(settings: dict[str, Any]) -> Flask:
    """Build the application around one model, with the settings of `command.serve`.

    Raises
    ------
    BundleError
        As `bundle.load`.
    """
    max_bytes, max_files, max_s = (
        settings["max_bytes"],
        settings["max_files"],
        settings["max_seconds_per_request"],
    )
    model = bundle.load(settings["model"])
    with suppress(AudioError):
        audio.load(b"not audio")  # loads FFmpeg now, not with the first clip that needs it
    limit_threads()  # of all libraries, which are loaded now
    counts = Counts()
    slots = Slots(settings["threads"], settings["wait"], counts.in_flight)
    app = Flask(__name__, static_folder="web", static_url_path="/web")
    app.request_class = InMemory
    app.json.sort_keys = False  # type: ignore[attr-defined]  # of Flask's own provider
    app.config.update(MAX_CONTENT_LENGTH=max_bytes, MAX_FORM_MEMORY_SIZE=max_bytes)

    for path, file in (("/", "index.html"), ("/openapi.json", "openapi.json")):
        app.add_url_rule(path, file.split(".")[0], partial(app.send_static_file, file))

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready")
    def ready() -> dict[str, str]:
        return check_ready(model)

    @app.get("/model")
    def about() -> dict[str, Any]:
        return describe_model(model, max_bytes=max_bytes, max_files=max_files, max_s=max_s)

    @app.get("/metrics")
    def metrics() -> ResponseReturnValue:
        return prometheus.generate_latest(counts.registry), {"Content-Type": prometheus.CONTENT_TYPE_LATEST}

    @app.post("/predict")
    def predict() -> ResponseReturnValue:
        asked = parse_request(decoded(request, max_bytes=max_bytes), max_files=max_files)
        with slots:
            limit_threads()
            return predict_all(model, asked, counts, Budget(max_s))

    @app.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> Response:
        if error.description == RequestEntityTooLarge.description:  # without a detail of ours
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


# --- what the routes call --------------------------------------------------------------------------


class Asked(NamedTuple):
    """A request for predictions: names and contents of the clips and of the reference clips, and the options."""

    clips: list[tuple[str, bytes]]
    references: list[tuple[str, bytes]]
    timeline: bool
    csv: bool


def decoded(request: Request, *, max_bytes: int) -> Request:
    """The request with its body decompressed; 415 for a coding that is not gzip, 413 beyond `max_bytes`."""
    coding = request.headers.get("Content-Encoding", "").strip().lower()
    if coding in ("", "identity"):
        return request
    if coding not in ("gzip", "x-gzip"):
        abort(415, f"Content-Encoding {coding} is not read; send the body as it is, or with gzip")
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(request.get_data(cache=False))) as file:
            body = file.read(max_bytes + 1)
    except (OSError, EOFError, zlib.error):
        abort(400, "Content-Encoding is gzip, and the body is not, or is cut off; send it again")
    if len(body) > max_bytes:
        raise RequestEntityTooLarge
    environ = request.environ | {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
    return InMemory({name: value for name, value in environ.items() if name != "werkzeug.request"})


def parse_request(request: Request, *, max_files: int) -> Asked:
    """Read the files of a form, or the raw body, and the options.

    400 without a file or with an option that is not understood, 413 with too many files.
    """
    references = _uploads(request, "reference")
    if request.mimetype.startswith(RAW):
        clips = [("clip", request.get_data(cache=False))]
    else:
        clips = _uploads(request, "file")
    if not clips:
        abort(400, f"no file in a form field 'file'; try: curl -F file=@clip.wav {request.base_url}")
    if len(clips) + len(references) > max_files:
        abort(413, f"{len(clips) + len(references)} files; at most {max_files} in a request")
    if "reference" in request.form:
        abort(400, f"the field 'reference' is text; try: curl -F reference=@neutral.wav {request.base_url}")
    flag = request.values.get("timeline", "")
    timeline = FLAG.get(flag.strip().lower())
    if timeline is None:
        abort(400, f"timeline is {flag[:40]!r}; give 1 or 0")
    if timeline and references:
        abort(400, "a timeline is not compared with reference clips; leave out timeline or the references")
    csv = request.accept_mimetypes.best_match(("application/json", "text/csv")) == "text/csv"
    return Asked(clips, references, timeline, csv)


def _uploads(request: Request, field: str) -> list[tuple[str, bytes]]:
    """Base names and contents of a form field's files."""
    files = request.files.getlist(field)
    names = [PurePosixPath((file.filename or "").replace("\\", "/")).name or "clip" for file in files]
    return [(name, file.read()) for name, file in zip(names, files, strict=True)]


def predict_all(model: Model, asked: Asked, counts: Counts, budget: Budget) -> ResponseReturnValue:
    """The answer to one clip, or the answers and errors of several; 422 if the only clip has no answer."""
    references = load_references(model, asked, counts, budget)
    if len(asked.clips) == 1:
        answer = predict_clip(model, *asked.clips[0], asked, counts, budget, references)
        return csv_answer(model, asked, [answer]) if asked.csv else answer
    results = []
    for name, content in asked.clips:
        try:
            results.append(predict_clip(model, name, content, asked, counts, budget, references))
        except UnprocessableEntity as error:
            results.append({"file": name, "error": problem(error)})
    return csv_answer(model, asked, results) if asked.csv else {"results": results}


def csv_answer(model: Model, asked: Asked, results: list[dict[str, Any]]) -> ResponseReturnValue:
    """The answers as CSV; a clip without an answer has an `error`."""
    rows = []
    for result in results:
        error = {"error": result["error"]["detail"]} if "error" in result else {}
        rows += [{"file": result["file"]} | window | error for window in result.get("windows", [result])]
    times = ("start_s", "end_s") if asked.timeline else ()
    if len(results) == 1 and times:  # which file it is, the client knows
        lines = as_csv(rows, model.metadata["classes"], times)
    else:
        lines = as_csv(rows, model.metadata["classes"], ("file", *times), ("error",))
    return "\r\n".join((*lines, "")), {"Content-Type": "text/csv; charset=utf-8"}


def load_references(model: Model, asked: Asked, counts: Counts, budget: Budget) -> np.ndarray:
    """Features of the reference clips, shape (n_parts, n_features); 422 if one cannot be analysed."""
    names, contents = [name for name, _ in asked.references], [content for _, content in asked.references]
    try:
        return model.reference_features(contents, names=names, count=budget.spend)
    except SerError as error:
        counts.refused.inc()
        raise UnprocessableEntity(str(error)) from error


def predict_clip(
    model: Model,
    name: str,
    content: bytes,
    asked: Asked,
    counts: Counts,
    budget: Budget,
    references: np.ndarray,
) -> dict[str, Any]:
    """The answer to one clip, whole or in windows; 422 if it cannot be analysed."""
    started = time.perf_counter()
    try:
        if asked.timeline:
            windows = list(model.timeline(content, name=name, count=budget.spend))
            times = {"duration_s": windows[-1]["end_s"], "window_s": WINDOW_S, "step_s": STEP_S}
            return {"file": name, **times, "windows": windows}
        answer = model.predict(content, name=name, reference_rows=references, count=budget.spend)
    except SerError as error:
        counts.refused.inc()
        raise UnprocessableEntity(str(error)) from error
    counts.clips.labels(answer["emotion"] or "no speech").inc()
    counts.abstained.inc(answer["abstained"])
    counts.seconds.observe(time.perf_counter() - started)
    return {"file": name, **answer}


def check_ready(model: Model) -> dict[str, str]:
    """Run the self-test; 503 if it fails."""
    try:
        bundle.self_test(model)
    except BundleError as error:
        raise ServiceUnavailable(str(error)) from error
    return {"status": "ready"}


def describe_model(model: Model, *, max_bytes: int, max_files: int, max_s: float) -> dict[str, Any]:
    """The model metadata that clients need, and the limits of a request."""
    about = {key: model.metadata[key] for key in ABOUT if key in model.metadata}
    features = {"feature_set": model.config.name, "n_features": len(model.metadata["feature_names"])}
    limits: dict[str, float] = {"max_bytes": max_bytes, "max_seconds": decoding.MAX_S, "max_files": max_files}
    limits["max_seconds_per_request"] = max_s
    return about | features | {"limits": limits}


def problem(error: HTTPException) -> dict[str, Any]:
    """An error in the form of RFC 9457."""
    return {"type": "about:blank", "title": error.name, "status": error.code, "detail": error.description}


def too_large(max_bytes: int) -> str:
    """The detail of a 413."""
    return f"the upload is larger than {max_bytes / 1e6:.0f} MB; send a shorter or a compressed clip"


# --- counters and limits ---------------------------------------------------------------------------


class Counts:
    """The metrics of this process."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        common: dict[str, Any] = {"registry": self.registry, "namespace": "ser"}
        labels = ["route", "status"]
        self.requests = prometheus.Counter("requests", "Answers by route and status.", labels, **common)
        self.in_flight = prometheus.Gauge("in_flight", "Requests that are being analysed.", **common)
        self.clips = prometheus.Counter("clips", "Clips analysed, by emotion.", ["emotion"], **common)
        self.abstained = prometheus.Counter("abstained", "Clips on which the model was not sure.", **common)
        self.refused = prometheus.Counter("refused", "Clips that could not be analysed.", **common)
        common["buckets"] = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5)
        self.seconds = prometheus.Histogram("predict_seconds", "Time of a prediction.", **common)


class Budget:
    """The seconds of audio that a request may hold; more are refused with 413 as soon as they are decoded."""

    def __init__(self, seconds: float):
        self.seconds, self.left = seconds, seconds

    def spend(self, seconds: float) -> None:
        """Count decoded audio."""
        self.left -= seconds
        if self.left < 0:
            abort(413, f"more than {self.seconds:.0f} s of audio in a request; send fewer or shorter clips")


class Slots:
    """Lets `n` requests predict at once; one that waits longer than `wait` seconds is refused with 503."""

    def __init__(self, n: int, wait: float, gauge: prometheus.Gauge):
        self.free, self.wait, self.gauge = threading.BoundedSemaphore(n), wait, gauge

    def __enter__(self) -> None:
        if not self.free.acquire(timeout=self.wait):
            raise ServiceUnavailable("too many clips at once; try again in a second", retry_after=1)
        self.gauge.inc()

    def __exit__(self, *_: object) -> None:
        self.gauge.dec()
        self.free.release()


_limited = threading.local()


def limit_threads() -> None:
    """Limit BLAS and OpenMP to one thread in this thread, since requests already run beside each other.

    OpenMP has a limit for each thread that calls it, so each thread that predicts sets it, whoever started it.
    """
    if not hasattr(_limited, "limits"):
        _limited.limits = threadpool_limits(1)


class InMemory(Request):
    """A request whose form files never touch the disk, where werkzeug would put large ones."""

    def _get_file_stream(self, *sizes: object, **types: object) -> io.BytesIO:
        return io.BytesIO()


# --- waitress --------------------------------------------------------------------------------------


def run(app: Flask, *, host: str, port: int, threads: int, timeout: int, max_bytes: int) -> None:
    """Serve until interrupted or stopped by SIGTERM; requests that are running then are still answered.

    Raises
    ------
    OSError, ValueError
        The address cannot be listened on.
    """
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # else a line for each request that waits
    # M_ARENA_MAX of glibc: one heap for all threads, since each would keep its peak
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(-8, 1)
    Channel.error_task_class = type("Problem", (ProblemTask,), {"max_bytes": max_bytes})
    BaseWSGIServer.channel_class = Channel
    sockets: dict[int, Any] = {}
    serving = waitress.create_server(
        app, map=sockets, host=host, port=port, threads=threads + SPARE, ident=None, channel_timeout=timeout,
        max_request_body_size=2 * max_bytes, inbuf_overflow=2 * max_bytes,  # too large is refused, never on disk
        recv_bytes=2**18,  # an upload in few pieces
        connection_limit=CONNECTIONS, asyncore_use_poll=True,  # select() has at most 1024
        cleanup_interval=min(5, timeout),  # seconds between looking for connections that are idle or slow
    )  # fmt: skip
    listeners = [each for each in sockets.values() if isinstance(each, BaseWSGIServer)]
    drained = threading.Event()

    def stop(*_: object) -> None:
        if drained.is_set():
            raise SystemExit  # ends waitress
        threading.Thread(target=drain, args=(listeners, drained)).start()

    signal.signal(signal.SIGTERM, stop)
    serving.print_listen("Serving on http://{}:{}")
    serving.run()


def drain(listeners: list[Any], drained: threading.Event) -> None:
    """Accept no new connection, wait for the running requests, then stop the server with a second SIGTERM."""
    for listener in listeners:
        listener.trigger.pull_trigger(
            partial(close_listener, listener)
        )  # in the thread that owns the sockets
    end = time.monotonic() + DRAIN_S
    time.sleep(0.2)  # the requests of connections accepted last are read
    while time.monotonic() < end and any(map(is_busy, listeners)):
        time.sleep(0.02)
    drained.set()
    os.kill(os.getpid(), signal.SIGTERM)  # not SIGINT, which a script's background processes ignore


def close_listener(listener: Any) -> None:
    """Close the socket that new connections come to, so that they are refused; those already there are accepted."""
    n_connections = -1
    while len(listener.active_channels) > n_connections:
        n_connections = len(listener.active_channels)
        listener.handle_accept()
    wasyncore.dispatcher.close(listener)


def is_busy(listener: Any) -> bool:
    """Whether it still accepts, or one of its connections waits for an answer."""
    channels = list(listener.active_channels.values())
    return listener.accepting or any(each.requests or each.total_outbufs_len for each in channels)


class Parser(HTTPRequestParser):
    """Refuses a request with two lengths: a proxy and this server might see its end at different places."""

    def parse_header(self, header_plus: bytes) -> None:
        """Parse the first line and the headers."""
        super().parse_header(header_plus)
        if "TRANSFER_ENCODING" in self.headers:  # waitress takes it out of requests of HTTP/1.1
            raise ParsingError("Transfer-Encoding needs HTTP/1.1")
        if self.chunked and "CONTENT_LENGTH" in self.headers:
            raise ParsingError("Content-Length beside Transfer-Encoding")


class Channel(HTTPChannel):
    """A connection that is closed if it sends a request too slowly; waitress closes those that send nothing."""

    parser_class = Parser
    began, n_bytes = 0.0, 0  # of the request that is being received

    def received(self, data: bytes) -> bool:
        """Take data. While a request is incomplete, only data that come fast enough count as activity."""
        before = self.request
        going_on = super().received(data)
        if self.request is not before:
            self.began, self.n_bytes = time.time(), 0
        self.n_bytes += len(data)
        if self.request is not None:
            self.last_activity = min(time.time(), self.began + self.n_bytes / MIN_BYTES_S)
        return going_on


class ProblemTask(ErrorTask):
    """Answers a request that waitress refuses before Flask sees it, in the form of RFC 9457."""

    max_bytes: int

    def execute(self) -> None:
        error = self.request.error
        detail = too_large(self.max_bytes) if error.code == 413 else error.body
        content = {"type": "about:blank", "title": error.reason, "status": error.code, "detail": detail}
        body = (json.dumps(content) + "\n").encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers += [("Content-Type", PROBLEM), *HEADERS.items()]
        self.set_close_on_finish()
        self.content_length = len(body)
        self.write(body)
