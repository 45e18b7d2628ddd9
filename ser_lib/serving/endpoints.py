"""The prediction server: parse, one call into `ser_lib.bundle`, answer. `cli_serve` runs it.

Uploads are held in memory, answered, and neither stored nor logged. Every error is
application/problem+json (RFC 9457). The answers are described by /openapi.json.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

import prometheus_client as prometheus
from flask import Flask, Response, abort, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException, ServiceUnavailable, UnprocessableEntity

from ser_lib import bundle, cli_serve, decoding, hearing, server
from ser_lib.answers import as_csv
from ser_lib.errors import BundleError, SerError

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
    given = settings or cli_serve.serve.make_context("serve", []).params
    model = bundle.load(given["model"])  # the golden clips warm it up
    server.warm_up()
    counts = server.Counts()
    slots = server.Slots(given["threads"], given["wait"], counts.in_flight)
    app = server.flask_app(__name__, counts, max_bytes=given["max_bytes"])

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
            bundle.check(model)
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
        features = {"feature_set": model.config.name, "n_features": len(model.passport["feature_names"])}
        return (
            {key: model.passport[key] for key in ABOUT if key in model.passport}
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
            lines = as_csv(windows, model.passport["classes"], ("start_s", "end_s"))
            return "\r\n".join((*lines, "")), {"Content-Type": "text/csv; charset=utf-8"}
        about = {"duration_s": windows[-1]["end_s"], "window_s": hearing.WINDOW_S, "step_s": hearing.STEP_S}
        return {"file": name, **about, "windows": windows}

    def either(
        hear: Callable[..., ResponseReturnValue], name: str, content: bytes, references: list[bytes]
    ) -> ResponseReturnValue:
        try:
            return hear(name, content, references)
        except HTTPException as error:
            return {"file": name, "error": server.problem(error)}

    return app
