"""The server over real HTTP, with a small model; the page in a real browser where there is one."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import av
import numpy as np
import pandas as pd
import pytest
import requests
import soundfile
from synth import speech
from test_bundle import edit, save_tiny, wav

from ser_lib import ROOT, audio
from ser_lib.corpora import FOUR
from ser_lib.evaluation import calibration
from ser_lib.serving import bundle

RATE = 48_000  # what browsers record
SETTINGS = {
    "threads": 2,
    "wait": 2.0,
    "max_bytes": 20_000_000,
    "max_files": 16,
    "max_seconds_per_request": 1200,
}


def start(*arguments, **environment) -> subprocess.Popen:
    """serve.py on a free port, unable to write a byte to any file, and ignoring SIGINT as in a script's background."""

    def no_writing():
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    inherited = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    return subprocess.Popen(
        [sys.executable, ROOT / "serve.py", *map(str, arguments)],
        env=inherited | {"SER_PORT": "0", "JOBLIB_MULTIPROCESSING": "0"} | environment,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        preexec_fn=no_writing if os.name == "posix" else None,
    )


def serving(*arguments, log: list | None = None, **environment) -> tuple[subprocess.Popen, str]:
    """A server that is ready, and its address; its standard error goes into `log`."""
    process, log = start(*arguments, **environment), [] if log is None else log

    def read():
        with process.stderr:
            log.extend(process.stderr)

    for line in process.stderr:
        log.append(line)
        if "Serving on" in line:
            break
    else:
        pytest.fail("".join(log))
    threading.Thread(target=read, daemon=True).start()
    return process, line.split()[-1]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """The server's folder for temporary files."""
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="module")
def metadata(tmp_path_factory):
    """Path of a small model."""
    path = tmp_path_factory.mktemp("model") / "tiny.json"
    save_tiny(path, headline={"uar": 0.5, "low": 0.4, "high": 0.6, "protocol": "actors5", "emotions": "four"})
    return path


@pytest.fixture(scope="module")
def server(metadata, scratch):
    """Address of a running server, which must still run after the last test."""
    log = []
    process, address = serving("--model", metadata, log=log, TMPDIR=str(scratch))
    yield address
    assert process.poll() is None
    process.terminate()
    assert process.wait(10) == 0
    assert not [line for line in log if "Traceback" in line or ".wav" in line], log


def encode(samples: np.ndarray, kind: str) -> bytes:
    """The clip as a file of the kind, written by libsndfile or FFmpeg."""
    out = io.BytesIO()
    if kind in ("wav", "flac", "ogg", "mp3"):
        soundfile.write(out, samples, RATE, format=kind.upper())
        return out.getvalue()
    container_format, codec = {"m4a": ("ipod", "aac"), "webm": ("webm", "libopus")}[kind]
    with av.open(out, "w", format=container_format) as container:
        stream = container.add_stream(codec, rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate = RATE
        container.mux([*stream.encode(frame), *stream.encode()])
    return out.getvalue()


def send(server: str, content: bytes, name: str = "clip.wav") -> requests.Response:
    """Upload as a form does."""
    return requests.post(f"{server}/predict", files={"file": (name, content)}, timeout=60)


def problem(response: requests.Response, status: int) -> str:
    """The detail of an error, after checking its form."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    body = response.json()
    assert set(body) == {"type", "title", "status", "detail"}
    assert body["type"] == "about:blank"
    assert body["status"] == status
    return body["detail"]


@pytest.fixture(scope="module")
def clip():
    """A training clip of the model, at the rate of browsers."""
    return audio.resample(speech("fearful", 1), 16_000, RATE)


# --- answers ---


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg", "m4a", "webm"])
def test_formats(server, clip, kind):
    response = send(server, encode(clip, kind), f"clip.{kind}")
    assert response.status_code == 200, response.text
    answer = response.json()
    p = answer["probabilities"]
    assert set(p) == set(FOUR)
    assert sum(p.values()) == pytest.approx(1, abs=3e-4)
    assert answer["emotion"] == max(p, key=p.get) == "fearful"
    assert answer["confidence"] == p["fearful"]
    assert answer["file"] == f"clip.{kind}"
    assert answer["quality"]["duration_s"] == pytest.approx(1.2, abs=0.1)
    assert all(text.startswith("narrow band") for text in answer["warnings"])  # as the synthesised clips are
    assert answer["model"]["name"] == "tiny"


@pytest.mark.parametrize("kind", ["audio/wav", "audio/x-whatever; rate=1", "application/octet-stream"])
def test_raw_body(server, clip, kind):
    content = encode(clip, "wav")
    raw = requests.post(f"{server}/predict", data=content, headers={"Content-Type": kind}, timeout=60).json()
    assert raw == send(server, content).json() | {"file": "clip"}


def test_raw_body_in_chunks(server, clip):
    content = encode(clip, "wav")
    halves = iter((content[:1000], content[1000:]))
    headers = {"Content-Type": "audio/wav"}
    raw = requests.post(f"{server}/predict", data=halves, headers=headers, timeout=60)
    assert raw.json()["probabilities"] == send(server, content).json()["probabilities"]


@pytest.mark.parametrize("name", ["/etc/clip.wav", "../../clip.wav", r"C:\\voices\\clip.wav"])
def test_only_the_base_name_is_shown(server, name):
    assert problem(send(server, b"hello", name), 422).startswith("clip.wav: ")


def test_parallel_requests_agree_with_sequential_ones(server):
    clips = [wav(speech(emotion, speaker)) for emotion in FOUR for speaker in (5, 6)]
    one_by_one = [send(server, clip).json() for clip in clips]
    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(lambda clip: send(server, clip).json(), 2 * clips))
    assert at_once == 2 * one_by_one
    assert len({json.dumps(answer) for answer in one_by_one}) == len(clips)


def test_large_upload_stays_in_memory(server, scratch):
    """The server of these tests cannot write to files: it would fail if it tried."""
    content = wav(np.tile(speech("happy", 2, rate=RATE), 45), RATE)
    assert len(content) > 5_000_000
    assert send(server, content).status_code == 200
    assert not list(scratch.iterdir())


def test_health_ready_and_model(server):
    assert requests.get(f"{server}/health", timeout=10).json() == {"status": "ok"}
    assert requests.get(f"{server}/ready", timeout=10).json() == {"status": "ready"}
    about = requests.get(f"{server}/model", timeout=10).json()
    assert about["name"] == "tiny"
    assert about["classes"] == sorted(FOUR)
    assert about["headline"]["uar"] == 0.5
    assert (about["feature_set"], about["n_features"]) == ("compact", 105)
    assert about["limits"] == {
        "max_bytes": 20_000_000,
        "max_seconds": 600,
        "max_files": 16,
        "max_seconds_per_request": 1200,
    }


def test_not_ready_gives_the_reason(metadata, monkeypatch):
    import serve

    client = serve.create_app(SETTINGS | {"model": metadata}).test_client()
    assert client.get("/ready").status_code == 200
    monkeypatch.setattr(calibration, "apply_temperature", lambda p, temperature: p**9)
    response = client.get("/ready")
    assert response.status_code == 503
    assert response.json["detail"].startswith("tiny: self-test failed: ")


def test_metrics(server, clip):
    def value(line: str) -> float:
        text = requests.get(f"{server}/metrics", timeout=10).text
        return float(next((row.split()[-1] for row in text.splitlines() if row.startswith(line + " ")), 0))

    names = (
        'ser_clips_total{emotion="fearful"}',
        "ser_refused_total",
        'ser_requests_total{route="/predict",status="422"}',
    )
    before = [value(name) for name in names]
    send(server, encode(clip, "wav"))
    send(server, b"hello")
    assert [value(name) for name in names] == [n + 1 for n in before]
    assert value("ser_in_flight") == 0
    assert value("ser_predict_seconds_count") >= 1


def test_several_files_are_answered_one_by_one(server, clip):
    contents = [encode(clip, "wav"), b"hello", wav(speech("happy", 2))]
    files = [("file", (f"{i}.wav", content)) for i, content in enumerate(contents)]
    results = requests.post(f"{server}/predict", files=files, timeout=60).json()["results"]
    assert results[0] == send(server, contents[0], "0.wav").json()
    assert results[1]["file"] == "1.wav"
    assert results[1]["error"]["status"] == 422
    assert results[1]["error"]["detail"].startswith("1.wav: not audio")
    assert results[2] == send(server, contents[2], "2.wav").json()
    many = [("file", ("a.wav", b""))] * 17
    assert problem(requests.post(f"{server}/predict", files=many, timeout=10), 413) == (
        "17 files; at most 16 in a request"
    )


def test_references(server, metadata):
    own = [wav(speech("neutral", 1, seed)) for seed in (0, 1)]
    content = wav(speech("calm", 1))
    files = [("file", ("clip.wav", content)), *(("reference", ("own.wav", one)) for one in own)]
    answer = requests.post(f"{server}/predict", files=files, timeout=60).json()
    assert answer == {"file": "clip.wav"} | bundle.load(metadata).predict(content, references=own)
    files[1] = ("reference", ("own.wav", b"hello"))
    assert "not audio" in problem(requests.post(f"{server}/predict", files=files, timeout=60), 422)


def test_timeline_as_json_and_csv(server, metadata):
    content = wav(np.tile(speech("happy", 1), 10))
    ask = {"url": f"{server}/predict?timeline=1", "files": {"file": ("long.wav", content)}, "timeout": 60}
    answer = requests.post(**ask).json()
    windows = list(bundle.load(metadata).timeline(content))
    assert answer == {
        "file": "long.wav",
        "duration_s": 12.0,
        "window_s": 3.0,
        "step_s": 1.5,
        "windows": windows,
    }
    response = requests.post(**ask, headers={"Accept": "text/csv"})
    assert response.headers["Content-Type"] == "text/csv; charset=utf-8"
    rows = pd.read_csv(io.StringIO(response.text))
    assert list(rows.columns[:5]) == ["start_s", "end_s", "emotion", "confidence", "abstained"]
    assert rows["p_happy"].to_list() == [window["probabilities"]["happy"] for window in windows]
    assert problem(requests.post(**ask | {"files": {"file": ("n.wav", b"hello")}}), 422).startswith(
        "n.wav: not audio"
    )


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3", "ogg", "m4a", "webm"])
def test_server_and_command_line_agree(server, metadata, clip, kind, tmp_path):
    path = tmp_path / f"clip.{kind}"
    path.write_bytes(encode(clip, kind))
    served = send(server, path.read_bytes(), path.name).json()
    output = subprocess.run(
        [sys.executable, "-m", "ser_lib", "predict", str(path), "--model", str(metadata)],
        capture_output=True, encoding="utf-8", check=True,
    )  # fmt: skip
    called = json.loads(output.stdout)
    assert served.pop("file") == path.name
    assert called.pop("file") == str(path)
    for key in ("probabilities", "intensity", "confidence"):
        assert served.pop(key) == pytest.approx(called.pop(key), abs=1e-6)
    assert served == called


# --- limits, and the end ---


def test_too_many_requests_at_once_are_503(metadata):
    log = []
    process, address = serving("--model", metadata, "--threads", "1", "--wait", "0.05", log=log)
    content = wav(np.tile(speech("happy", 2, rate=RATE), 45), RATE)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: send(address, content), range(12)))
        alive = requests.get(f"{address}/health", timeout=10)
    process.terminate()
    codes = [answer.status_code for answer in answers]
    assert set(codes) == {200, 503}
    refused = answers[codes.index(503)]
    assert problem(refused, 503) == "too many clips at once; try again in a second"
    assert refused.headers["Retry-After"] == "1"
    assert alive.status_code == 200
    assert process.wait(30) == 0
    assert not [line for line in log if "queue" in line]  # a log of every wait would fill a pipe nobody reads


def test_requests_in_progress_are_answered_after_sigterm(metadata):
    process, address = serving("--model", metadata, "--threads", "2", "--wait", "30")
    content = wav(np.tile(speech("happy", 2, rate=RATE), 45), RATE)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(send, address, content) for _ in range(4)]
        wait_for(lambda: "ser_in_flight 2.0" in requests.get(f"{address}/metrics", timeout=10).text)
        process.terminate()
        answers = [future.result() for future in waiting]
    assert [answer.status_code for answer in answers] == [200] * 4
    assert process.wait(30) == 0
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{address}/health", timeout=5)


def test_connections_after_sigterm_are_refused(metadata):
    process, address = serving("--model", metadata, "--host", "localhost")
    where = address.removeprefix("http://").rsplit(":", 1)
    content = wav(np.tile(speech("happy", 2, rate=RATE), 45), RATE)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(send, address, content)
        wait_for(lambda: "ser_in_flight 1.0" in requests.get(f"{address}/metrics", timeout=10).text)
        process.terminate()

        def refused() -> bool:
            try:
                socket.create_connection((where[0].strip("[]"), int(where[1])), timeout=5).close()
            except ConnectionRefusedError:
                return True
            return False

        wait_for(refused, 5)
        assert running.result().status_code == 200
    assert process.wait(30) == 0


@pytest.mark.skipif(os.name != "posix", reason="select() of Windows has at most 512 sockets")
def test_slow_connections_keep_nobody_out_and_are_closed(metadata):
    """110 connections that send a byte each 0.2 s, never a whole request."""
    process, address = serving("--model", metadata, "--timeout", "4")
    host, port = address.removeprefix("http://").split(":")
    slow = [socket.create_connection((host, int(port)), timeout=10) for _ in range(110)]
    began, alive = time.monotonic(), set(slow)
    head = b"POST /predict HTTP/1.1\r\nContent-Type: audio/wav\r\nContent-Length: 99999\r\n\r\n"
    waits = []
    while alive and time.monotonic() < began + 40:
        for connection in list(alive):
            try:
                connection.sendall(head if not waits else b"x")
            except OSError:
                alive.discard(connection)
        asked = time.monotonic()
        assert requests.get(f"{address}/health", timeout=10).status_code == 200
        waits.append(time.monotonic() - asked)
        time.sleep(0.2)
    for connection in slow:
        connection.close()
    assert max(waits) < 5
    assert len(waits) > 5  # they were alive for a while
    assert not alive
    process.terminate()
    assert process.wait(30) == 0


def test_two_lengths_are_refused(server):
    host, port = server.removeprefix("http://").split(":")
    body = b"5\r\nhello\r\n0\r\n\r\n"
    for version in (b"1.1", b"1.0"):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(
                b"POST /predict HTTP/%b\r\nContent-Type: audio/wav\r\nContent-Length: %d\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n%b" % (version, len(body), body)
            )
            answer = connection.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.%b 400 " % version[-1:])
        assert b"application/problem+json" in answer


def test_aborted_requests_do_no_harm(server, clip):
    host, port = server.removeprefix("http://").split(":")
    for _ in range(20):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(
                b"POST /predict HTTP/1.1\r\nContent-Length: 99999\r\nContent-Type: audio/wav\r\n\r\nRIFF"
            )
    assert send(server, encode(clip, "wav")).status_code == 200


@pytest.mark.skipif(os.name != "posix", reason="gunicorn needs a POSIX system")
def test_create_app_reads_its_settings_from_the_environment(metadata, monkeypatch):
    import serve

    monkeypatch.setenv("SER_MODEL", str(metadata))
    monkeypatch.setenv("SER_MAX_FILES", "3")
    client = serve.create_app().test_client()
    assert client.get("/model").json["limits"]["max_files"] == 3
    assert client.get("/model").json["name"] == "tiny"


# --- refusals ---


@pytest.mark.parametrize(
    ("name", "content", "detail"),
    [
        ("note.wav", b"This is a text.\n" * 100, r"note\.wav: not audio, or damaged"),
        ("empty.wav", b"", r"empty\.wav: empty file \(0 bytes\)"),
        ("cut.wav", wav(speech("calm", 1))[:30], r"cut\.wav: not audio, or damaged"),
        ("short.wav", wav(speech("calm", 1)[:1600]), r"short\.wav: 0\.10 s of audio; at least 0\.3 s"),
        ("silent.wav", wav(np.zeros(16_000)), r"silent\.wav: silent"),
    ],
)
def test_refusal_names_the_file(server, name, content, detail):
    assert re.match(detail, problem(send(server, content, name), 422))


@pytest.mark.parametrize(
    "body",
    [{}, {"data": {"file": "text"}}, {"json": {"file": "x"}}, {"files": {"clip": ("clip.wav", b"RIFF")}}],
)
def test_missing_field(server, body):
    detail = problem(requests.post(f"{server}/predict", **body, timeout=10), 400)
    assert detail == f"no file in a form field 'file'; try: curl -F file=@clip.wav {server}/predict"


def test_unknown_page(server):
    problem(requests.get(f"{server}/nothing", timeout=10), 404)


def test_nothing_outside_the_page_folder_is_served(server):
    for path in ("/web/%2e%2e/bundle.py", "/web/..%2f..%2fserve.py", "/web/"):
        problem(requests.get(server + path, timeout=10), 404)


def test_wrong_method(server):
    response = requests.get(f"{server}/predict", timeout=10)
    problem(response, 405)
    assert "POST" in response.headers["Allow"]


@pytest.mark.parametrize("megabytes", [21, 60], ids=["read", "unread"])
def test_too_large(server, megabytes):
    detail = problem(send(server, bytes(megabytes * 1_000_000)), 413)
    assert detail.startswith("the upload is larger than 20 MB")


def test_malformed_http(server):
    host, port = server.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"POST /predict HTTP/1.1\r\nContent-Length: many\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"application/problem+json" in answer


def test_unexpected_error_shows_no_traceback(metadata, monkeypatch):
    import serve
    from ser_lib.serving.model import Model

    client = serve.create_app(SETTINGS | {"model": metadata}).test_client()
    monkeypatch.setattr(Model, "predict", lambda *_, **__: 1 / 0)
    response = client.post("/predict", data={"file": (io.BytesIO(b"RIFF"), "clip.wav")})
    assert response.status_code == 500
    assert response.mimetype == "application/problem+json"
    assert response.json["title"] == "Internal Server Error"
    assert "division" not in response.text
    assert "Traceback" not in response.text


# --- start ---


def run(*arguments, **environment) -> tuple[int, str]:
    """Exit code and standard error of a serve.py that ends at once."""
    process = start(*arguments, **environment)
    _, output = process.communicate(timeout=60)
    return process.returncode, output


def test_missing_model_is_one_line(tmp_path):
    code, output = run(SER_MODEL=str(tmp_path / "none.json"))
    assert code == 1
    assert re.fullmatch(r"Error: \S+none\.json: no such file; .*\n", output)


def test_other_versions_are_in_the_log_once(metadata, tmp_path):
    shutil.copy(metadata.with_suffix(".pkl"), tmp_path)
    other = tmp_path / metadata.name
    shutil.copy(metadata, other)
    edit(other, libraries=json.loads(metadata.read_text(encoding="utf-8"))["libraries"] | {"numpy": "0.1"})
    log = []
    process, address = serving("--model", other, log=log)
    try:
        assert requests.get(f"{address}/ready", timeout=10).status_code == 200
    finally:
        process.terminate()
        process.wait(10)
    warned, serves = log
    assert warned.startswith(f"warning: {other}: made with numpy 0.1 (here {np.__version__}); its self-test")
    assert serves.startswith("Serving on")


def test_port_in_use_is_one_line(server, metadata):
    code, output = run("--model", metadata, SER_PORT=server.rsplit(":")[-1])
    assert code == 1
    assert re.fullmatch(r"Error: cannot listen on 127\.0\.0\.1 port \d+ \(.*in use\); .*\n", output)


@pytest.mark.parametrize(
    ("variable", "value"), [("SER_PORT", "70000"), ("SER_PORT", "x"), ("SER_THREADS", "0")]
)
def test_bad_settings_are_usage_errors(variable, value):
    code, output = run(**{variable: value})
    assert code == 2
    assert "Error: Invalid value for '--" in output


def test_help_lists_the_environment():
    output = subprocess.run(
        [sys.executable, ROOT / "serve.py", "--help"], capture_output=True, encoding="utf-8"
    ).stdout
    for name in (
        "host",
        "port",
        "model",
        "threads",
        "wait",
        "timeout",
        "max-bytes",
        "max-files",
        "max-seconds-per-request",
    ):
        assert f"--{name}" in output
        assert f"SER_{name.upper().replace('-', '_')}" in output


# --- page ---


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/web/app.js", "text/javascript"),
        ("/web/style.css", "text/css"),
        ("/web/icon.svg", "image/svg+xml"),
    ],
)
def test_page_and_assets(server, path, kind):
    response = requests.get(server + path, timeout=10)
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith(kind)
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'self'; img-src 'self' blob:; media-src 'self' blob:;")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?:https?:)?//""", response.text)


def wait_for(what, seconds: float = 60):
    """Call until it is true, and return it."""
    end = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)
    return value


def test_page_in_a_browser(server, open_page, clip, tmp_path):
    (tmp_path / "clip.wav").write_bytes(encode(clip, "wav"))
    (tmp_path / "note.wav").write_text("hello", encoding="utf-8")
    page = open_page(server, width=360, height=740)
    page.locator(f"#bars li:nth-child({len(FOUR)})").wait_for()
    assert "50%" in page.locator("footer").inner_text()

    page.set_input_files("#file", tmp_path / "clip.wav")
    assert page.locator(".emotion").inner_text() == "Fearful"
    bars = page.locator("#bars").inner_text().lower().split()
    assert bars[0] == "fearful"
    assert set(bars[::2]) == set(FOUR)
    verdict = page.locator("#verdict").inner_text()
    assert "of audio." in verdict
    assert " intensity (" in verdict
    colour = page.locator(".fill").first.evaluate("fill => getComputedStyle(fill).backgroundColor")
    assert colour == "rgb(123, 79, 163)"
    assert page.locator("#error").inner_text() == ""
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert not [message for message in page.console_messages() if message.type == "error"]

    page.set_input_files("#file", tmp_path / "note.wav")
    assert page.locator("#error:not(:empty)").inner_text().startswith("note.wav: not audio")
    assert page.locator(".emotion").count() == 0
    page.clear_console_messages()  # the browser's own line on the status 422
