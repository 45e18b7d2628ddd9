"""The server does what /openapi.json says, whatever is sent that the document allows."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from synth import speech
from test_bundle import save_tiny, wav
from test_serve import SETTINGS

import serve

schemathesis = pytest.importorskip("schemathesis")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.json"
    save_tiny(path)
    return serve.create_app(SETTINGS | {"model": path})


@pytest.fixture(scope="module")
def document(app):
    return schemathesis.openapi.from_wsgi("/openapi.json", app)


PATHS = ("/predict", "/health", "/ready", "/model", "/metrics", "/openapi.json")


def test_every_route_is_described(app, document):
    rules = {rule.rule for rule in app.url_map.iter_rules()}
    assert rules - {"/", "/web/<path:filename>"} == set(PATHS)
    assert set(document.raw_schema["paths"]) == set(PATHS)


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_is_as_described(document, path):
    operation = document[path]["POST" if path == "/predict" else "GET"]

    @given(case=operation.as_strategy())
    @settings(
        max_examples=40 if path == "/predict" else 2, deadline=None, suppress_health_check=list(HealthCheck)
    )
    def ask(case):
        case.call_and_validate(excluded_checks=[checks.positive_data_acceptance])  # random bytes are no audio

    ask()


@pytest.mark.parametrize("query", ["", "?timeline=1"])
@pytest.mark.parametrize("files", [1, 2])
def test_answers_to_real_clips_are_as_described(app, document, query, files):
    content = wav(speech("happy", 1))
    data = {"file": [(io.BytesIO(content), f"{i}.wav") for i in range(files)]}
    response = app.test_client().post(f"/predict{query}", data=data)
    assert response.status_code == 200
    document["/predict"]["POST"].validate_response(schemathesis.Response.from_any(response))


def test_the_answer_to_no_speech_is_as_described(document, tmp_path):
    save_tiny(tmp_path / "tiny.json", least_speech_s=0.5)
    app = serve.create_app(SETTINGS | {"model": tmp_path / "tiny.json"})
    tone = np.sin(2 * np.pi * 440 * np.arange(32_000) / 16_000) / 4
    data = {"file": [(io.BytesIO(wav(tone)), "tone.wav")]}
    response = app.test_client().post("/predict", data=data)
    assert (response.status_code, response.json["emotion"]) == (200, None)
    document["/predict"]["POST"].validate_response(schemathesis.Response.from_any(response))
