"""The server's handlers, called without HTTP."""

from __future__ import annotations

import numpy as np
import pytest
from synth import speech
from test_bundle import save_tiny, wav
from werkzeug.exceptions import UnprocessableEntity

from ser_lib.serving import bundle, server

CLIP = wav(speech("happy", 2))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.json"
    save_tiny(path)
    return bundle.load(path)


@pytest.fixture
def counts():
    return server.Counts()


def ask(*contents: bytes, timeline: bool = False, csv: bool = False) -> server.Asked:
    return server.Asked([(f"{i}.wav", content) for i, content in enumerate(contents)], [], timeline, csv)


def test_one_clip(model, counts):
    answer = server.predict_all(model, ask(CLIP, csv=True), counts)
    assert answer == {"file": "0.wav"} | model.predict(CLIP)
    assert counts.registry.get_sample_value("ser_clips_total", {"emotion": answer["emotion"]}) == 1


def test_a_clip_without_an_answer(model, counts):
    with pytest.raises(UnprocessableEntity, match=r"0\.wav: silent"):
        server.predict_all(model, ask(wav(np.zeros(16_000))), counts)
    assert counts.registry.get_sample_value("ser_refused_total") == 1


def test_a_timeline_as_csv(model, counts):
    text, headers = server.predict_all(model, ask(CLIP, timeline=True, csv=True), counts)
    assert text.startswith("start_s,end_s,emotion,")
    assert headers["Content-Type"].startswith("text/csv")


def test_timelines_of_several_clips_are_json(model, counts):
    first, second = server.predict_all(model, ask(CLIP, b"hello", timeline=True, csv=True), counts)["results"]
    assert first["windows"] == list(model.timeline(CLIP))
    assert second["error"]["status"] == 422


def test_about_and_ready(model):
    about = server.describe_model(model, max_bytes=1, max_files=2)
    assert about["limits"] == {"max_bytes": 1, "max_seconds": 600, "max_files": 2}
    assert server.check_ready(model) == {"status": "ready"}
