"""The server's handlers, called without HTTP."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
from synth import speech
from test_bundle import save_tiny, wav
from werkzeug.exceptions import UnprocessableEntity

from ser_lib.serving import bundle, server

CLIP = wav(speech("happy", 2))


SETTINGS = {
    "threads": 2,
    "wait": 2.0,
    "max_bytes": 20_000_000,
    "max_files": 16,
    "max_seconds_per_request": 60,
}
CSV = {"Accept": "text/csv"}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny.json"
    save_tiny(path)
    return path


@pytest.fixture(scope="module")
def model(path):
    return bundle.load(path)


@pytest.fixture(scope="module")
def client(path):
    return server.create_app(SETTINGS | {"model": path}).test_client()


def post(client, files=(CLIP,), references=(), query="", headers=(), **fields):
    """Send a form to /predict."""
    data = {"file": [(io.BytesIO(content), f"{i}.wav") for i, content in enumerate(files)], **fields}
    data["reference"] = [(io.BytesIO(content), f"own{i}.wav") for i, content in enumerate(references)]
    return client.post(f"/predict{query}", data=data, headers=dict(headers))


@pytest.fixture
def counts():
    return server.Counts()


def ask(*contents: bytes, timeline: bool = False, csv: bool = False) -> server.Asked:
    return server.Asked([(f"{i}.wav", content) for i, content in enumerate(contents)], [], timeline, csv)


def test_one_clip(model, counts):
    answer = server.predict_all(model, ask(CLIP), counts, server.Budget(60))
    assert answer == {"file": "0.wav"} | model.predict(CLIP)
    assert counts.registry.get_sample_value("ser_clips_total", {"emotion": answer["emotion"]}) == 1


def test_a_clip_without_an_answer(model, counts):
    with pytest.raises(UnprocessableEntity, match=r"0\.wav: silent"):
        server.predict_all(model, ask(wav(np.zeros(16_000))), counts, server.Budget(60))
    assert counts.registry.get_sample_value("ser_refused_total") == 1


def test_a_timeline_as_csv(model, counts):
    text, headers = server.predict_all(model, ask(CLIP, timeline=True, csv=True), counts, server.Budget(60))
    assert text.startswith("start_s,end_s,emotion,")
    assert headers["Content-Type"].startswith("text/csv")


def test_timelines_of_several_clips(model, counts):
    first, second = server.predict_all(model, ask(CLIP, b"hello", timeline=True), counts, server.Budget(60))[
        "results"
    ]
    assert first["windows"] == list(model.timeline(CLIP))
    assert second["error"]["status"] == 422


def test_about_and_ready(model):
    about = server.describe_model(model, max_bytes=1, max_files=2, max_s=3)
    assert about["limits"] == {
        "max_bytes": 1,
        "max_seconds": 600,
        "max_files": 2,
        "max_seconds_per_request": 3,
    }
    assert server.check_ready(model) == {"status": "ready"}


@pytest.mark.parametrize("value", ["False", "no", " off ", "0", "", "FALSE"])
def test_no_timeline(client, value):
    assert "emotion" in post(client, query=f"?timeline={value}").json


@pytest.mark.parametrize("value", ["True", "yes", "on", "1"])
def test_a_timeline(client, value):
    assert "windows" in post(client, query=f"?timeline={value}").json
    assert "windows" in post(client, timeline=value).json


@pytest.mark.parametrize("value", ["2", "ja", "true1", "None"])
def test_an_unknown_value_is_refused(client, value):
    response = post(client, query=f"?timeline={value}")
    assert response.status_code == 400
    assert response.json["detail"] == f"timeline is {value!r}; give 1 or 0"


def test_a_timeline_with_references_is_refused(client):
    response = post(client, references=[CLIP], query="?timeline=1")
    assert (response.status_code, response.mimetype) == (400, "application/problem+json")
    assert "reference" in response.json["detail"]
    assert post(client, references=[CLIP], query="?timeline=no").status_code == 200


def test_a_reference_that_is_no_file_is_refused(client):
    data = {"file": (io.BytesIO(CLIP), "a.wav"), "reference": "own.wav"}
    response = client.post("/predict", data=data)
    assert response.status_code == 400
    assert "the field 'reference' is text" in response.json["detail"]


@pytest.mark.parametrize("files", [1, 2])
def test_a_bad_reference_is_named(client, files):
    response = post(client, [CLIP] * files, references=[CLIP, b"hello"])
    assert response.status_code == 422
    assert response.json["detail"].startswith("reference own1.wav: not audio")


def test_a_bad_reference_is_named_in_python(model):
    with pytest.raises(server.SerError, match=r"^reference 2 \(audio\): not audio"):
        model.predict(CLIP, references=[CLIP, b"hello"])


def test_several_clips_as_csv(client):
    files = [CLIP, b"hello", wav(speech("calm", 1))]
    answers = post(client, files).json["results"]
    response = post(client, files, headers=CSV)
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    rows = pd.read_csv(io.StringIO(response.text))
    assert rows["file"].to_list() == ["0.wav", "1.wav", "2.wav"]
    assert rows["error"][1].startswith("1.wav: not audio")
    assert rows["error"].isna().to_list() == [True, False, True]
    assert rows["emotion"][2] == answers[2]["emotion"]
    assert rows["p_happy"][0] == answers[0]["probabilities"]["happy"]


def test_timelines_of_several_clips_as_csv(client):
    files = [wav(np.tile(speech("happy", 1), 5)), b"hello", CLIP]
    answers = post(client, files, query="?timeline=1").json["results"]
    rows = pd.read_csv(io.StringIO(post(client, files, query="?timeline=1", headers=CSV).text))
    assert list(rows.columns[:3]) == ["file", "start_s", "end_s"]
    n = len(answers[0]["windows"])
    assert rows["file"].to_list() == ["0.wav"] * n + ["1.wav", "2.wav"]
    assert rows["start_s"].to_list()[:n] == [window["start_s"] for window in answers[0]["windows"]]
    assert rows["error"][n].startswith("1.wav: not audio")


def test_one_clip_as_csv(client):
    rows = pd.read_csv(io.StringIO(post(client, headers=CSV).text))
    assert rows["file"].to_list() == ["0.wav"]
    assert rows["emotion"][0] == post(client).json["emotion"]


@pytest.mark.parametrize("kind", ["video/webm", "video/mp4", "application/ogg", "audio/x-m4a; codecs=mp4a"])
def test_a_raw_body_of_any_recording(client, kind):
    response = client.post("/predict", data=CLIP, content_type=kind)
    assert response.status_code == 200
    assert response.json["probabilities"] == post(client).json["probabilities"]


@pytest.mark.parametrize("coding", ["gzip", "GZIP", "x-gzip", "identity"])
def test_a_compressed_body(client, coding):
    packed = CLIP if coding == "identity" else gzip.compress(CLIP[:100]) + gzip.compress(CLIP[100:])
    headers = {"Content-Encoding": coding, "Content-Type": "audio/wav"}
    response = client.post("/predict", data=packed, headers=headers)
    assert response.status_code == 200
    assert response.json == post(client).json | {"file": "clip"}


def test_a_compressed_form(client):
    form = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="0.wav"\r\n\r\n'
        + CLIP
        + b"\r\n--x--\r\n"
    )
    headers = {"Content-Encoding": "gzip", "Content-Type": "multipart/form-data; boundary=x"}
    assert client.post("/predict", data=gzip.compress(form), headers=headers).json == post(client).json


@pytest.mark.parametrize(
    ("coding", "body", "status"),
    [
        ("br", CLIP, 415),
        ("gzip, gzip", CLIP, 415),
        ("gzip", CLIP, 400),
        ("gzip", gzip.compress(CLIP)[:-20], 400),
        ("gzip", gzip.compress(bytes(50_000_000)), 413),
    ],
)
def test_a_compressed_body_that_is_refused(client, coding, body, status):
    headers = {"Content-Encoding": coding, "Content-Type": "audio/wav"}
    response = client.post("/predict", data=body, headers=headers)
    assert (response.status_code, response.mimetype) == (status, "application/problem+json")


def kinds(value) -> set[type]:
    """The types of all values inside."""
    if type(value) is dict:
        return set().union(*map(kinds, value.values()))
    return set().union(*map(kinds, value)) if type(value) is list else {type(value)}


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_numbers_are_those_of_python(model, kind):
    out = io.BytesIO()
    soundfile.write(out, np.repeat(speech("happy", 2)[:, None], 2, axis=1), 16_000, format=kind)
    answer = model.predict(out.getvalue(), references=[CLIP])
    plain = {str, int, float, bool, type(None)}
    assert kinds(answer) <= plain
    assert kinds(list(model.timeline(out.getvalue()))) <= plain
    assert json.loads(json.dumps(answer)) == answer


THREADS = """
import sys, threading
from threadpoolctl import threadpool_info
from ser_lib.serving import server
settings = {"threads": 2, "wait": 2.0, "max_bytes": 10**6, "max_files": 16, "max_seconds_per_request": 60}
client = server.create_app(settings | {"model": sys.argv[1]}).test_client()
def ask():
    headers = {"Content-Type": "audio/wav"}
    assert client.post("/predict", data=open(sys.argv[2], "rb").read(), headers=headers).status_code == 200
    print(*(pool["num_threads"] for pool in threadpool_info()))
ask()
thread = threading.Thread(target=ask)
thread.start()
thread.join()
"""


def test_one_thread_for_each_request_whoever_serves_the_app(path, tmp_path, monkeypatch):
    """As under gunicorn, which calls `create_app` and not `run`."""
    (tmp_path / "clip.wav").write_bytes(CLIP)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    command = [sys.executable, "-c", THREADS, str(path), str(tmp_path / "clip.wav")]
    output = subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout
    assert set(output.split()) == {"1"}


@pytest.mark.parametrize("query", ["", "?timeline=1"])
def test_the_seconds_of_audio_in_a_request_are_limited(client, query):
    long = wav(np.tile(speech("happy", 1), 21))  # 25 s
    assert post(client, [long, long], query=query).status_code == 200
    response = post(client, [long, CLIP, long, long], query=query)
    assert (response.status_code, response.mimetype) == (413, "application/problem+json")
    assert response.json["detail"] == "more than 60 s of audio in a request; send fewer or shorter clips"
    if not query:
        assert post(client, [long], references=[long, long]).status_code == 413


def test_a_long_clip_is_the_mean_of_its_parts(model, monkeypatch):
    from ser_lib.serving import model as module

    parts = [np.tile(speech(emotion, 1), 2) for emotion in ("happy", "sad")]
    n = len(parts[0])
    monkeypatch.setattr(module, "PART_S", n / 16_000)
    answers = [model.predict(wav(part)) for part in parts]
    answer = model.predict(wav(np.concatenate(parts)))
    raw = [answer["quality"] for answer in answers]
    assert answer["quality"]["duration_s"] == pytest.approx(2 * n / 16_000, abs=1e-3)
    assert (
        min(q["loudness_db"] for q in raw)
        <= answer["quality"]["loudness_db"]
        <= max(q["loudness_db"] for q in raw)
    )
    for label, p in answer["probabilities"].items():
        between = sorted(one["probabilities"][label] for one in answers)
        assert between[0] - 0.05 <= p <= between[1] + 0.05
    with_pause = model.predict(wav(np.concatenate([parts[0], np.zeros(n)])))
    assert with_pause["probabilities"] == answers[0]["probabilities"]
    assert with_pause["quality"]["silence"] == pytest.approx((1 + raw[0]["silence"]) / 2, abs=2e-3)
    with pytest.raises(server.AudioError, match="silent"):
        model.predict(wav(np.zeros(2 * n)))
    broken = io.BytesIO()
    soundfile.write(broken, np.append(parts[0], [np.nan] * n), 16_000, format="WAV", subtype="FLOAT")
    with pytest.raises(server.AudioError, match="not numbers"):
        model.predict(broken.getvalue())
