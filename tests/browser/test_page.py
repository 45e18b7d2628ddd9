"""The page in a real browser, against a server with canned answers: no model is needed."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import threading
import time
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import requests
import soundfile
import waitress
from flask import Flask, request
from test_serve import CHROMIUM, Browser, wait_for

from ser_lib import ROOT
from ser_lib.corpora import EIGHT

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs chromium on the path to show the page")

RATE = 16_000
LIMIT = 5_000_000  # bytes
WARNINGS = ["very quiet (-52 dB): speak closer to the microphone", "mostly silence (81% of the clip)"]
REASON = "Too uncertain: 31 %. I only commit from 55 %."


# --- a server with canned answers, chosen by the name of the file ---


def shares(best: str, p: float) -> dict[str, float]:
    """Probabilities with p for the best and the rest falling off."""
    rest = [emotion for emotion in EIGHT if emotion != best]
    weights = 0.6 ** np.arange(len(rest))
    falling = (1 - p) * weights / weights.sum()
    return {best: p} | {emotion: round(float(q), 4) for emotion, q in zip(rest, falling, strict=True)}


def clip_answer(name: str, seconds: float) -> dict:
    unsure = name.startswith("unsure")
    best, p = ("disgust", 0.31) if unsure else ("fearful", 0.71)
    return {
        "file": name,
        "emotion": best,
        "confidence": p,
        "probabilities": shares(best, p),
        "prediction_set": [best, "neutral", "calm"] if unsure else [best, "sad"],
        "abstained": unsure,
        "reason": REASON if unsure else None,
        "intensity": {"normal": 0.3, "strong": 0.7},
        "quality": {
            "duration_s": seconds, "sample_rate": 48000, "channels": 1,
            "loudness_db": -52.4 if unsure else -23.1, "clipped": 0.013 if unsure else 0.0,
            "silence": 0.81 if unsure else 0.21, "bandwidth_hz": 7900, "distance": 1.4 if unsure else 0.8,
        },
        "warnings": WARNINGS if unsure else [],
        "model": {"name": "ser", "version": "0.2.0", "created": "2026-11-21"},
    }  # fmt: skip


def timeline_answer(name: str, seconds: float) -> dict:
    windows = []
    for i, start in enumerate(np.arange(0, max(seconds - 1.5, 1), 1.5).tolist()):
        end = min(start + 3, seconds)
        if i % 6 == 4:
            windows.append({"start_s": start, "end_s": end, "emotion": None, "silent": True})
            continue
        emotion = EIGHT[(i // 3) % len(EIGHT)]
        p = 0.42 if i % 5 == 2 else 0.8
        windows.append({"start_s": start, "end_s": end, "emotion": emotion, "confidence": p,
                        "probabilities": shares(emotion, p), "abstained": p < 0.55})  # fmt: skip
    return {"file": name, "duration_s": seconds, "window_s": 3.0, "step_s": 1.5, "windows": windows,
            "warnings": ["windows without speech have no answer"], "model": {"name": "ser", "version": "0.2.0"}}  # fmt: skip


MODEL = {
    "name": "ser", "version": "0.2.0", "created": "2026-11-21", "estimator": "logistic",
    "classes": sorted(EIGHT), "n_features": 880, "feature_set": "full",
    "headline": {"uar": 0.63, "low": 0.59, "high": 0.67, "protocol": "actors5", "emotions": "eight"},
    "metrics": {"uar": {"value": 0.63, "low": 0.59, "high": 0.67},
                "accuracy": {"value": 0.634, "low": 0.6, "high": 0.669},
                "macro_f1": {"value": 0.625, "low": 0.58, "high": 0.66}},
    "training": {"clips": 1440, "speakers": 24, "copies": 4320}, "abstain_below": 0.55,
    "licence": "CC BY-NC-SA 4.0, as RAVDESS, from which it was trained",
    "limits": {"max_bytes": LIMIT, "max_seconds": 600, "max_files": 16},
}  # fmt: skip


def create_app(seen: list) -> Flask:
    """The endpoints of the page; what was asked is added to `seen`."""
    app = Flask(__name__, static_folder=ROOT / "ser_lib" / "serving" / "web", static_url_path="/web")
    app.json.sort_keys = False

    @app.get("/")
    def page():
        return app.send_static_file("index.html")

    @app.get("/model")
    def model():
        return MODEL

    @app.post("/predict")
    def predict():
        file, content = request.files["file"], request.files["file"].read()
        references = [reference.filename for reference in request.files.getlist("reference")]
        timeline = request.args.get("timeline") == "1"
        name = file.filename
        seen.append({"name": name, "content": content, "references": references, "timeline": timeline})
        if name.startswith("slow"):
            time.sleep(2)
        if name.startswith("bad") or (name.startswith("half") and timeline):
            detail = f"{name}: not audio, or damaged; send WAV, FLAC, OGG, MP3, M4A or WebM"
            body = {"type": "about:blank", "title": "Unprocessable", "status": 422, "detail": detail}
            return json.dumps(body), 422, {"Content-Type": "application/problem+json"}
        try:
            seconds = soundfile.info(io.BytesIO(content)).duration
        except soundfile.LibsndfileError:
            seconds = 1.5
        return timeline_answer(name, seconds) if timeline else clip_answer(name, seconds)

    @app.after_request
    def protect(response):
        response.headers.update({
            "Content-Security-Policy": "default-src 'self'; media-src 'self' blob:; img-src 'self' blob:; "
            "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
            "Permissions-Policy": "microphone=(self)",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        })  # fmt: skip
        return response

    return app


@pytest.fixture(scope="module")
def seen() -> list[dict]:
    """What the server was asked, in order."""
    return []


@pytest.fixture(scope="module")
def page_server(seen):
    """Address of the running server."""
    server = waitress.create_server(create_app(seen), host="127.0.0.1", port=0)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.effective_port}"
    server.close()


# --- clips ---


def voice(seconds: float) -> np.ndarray:
    """A buzz with syllables, loud enough to be seen."""
    t = np.arange(int(seconds * RATE)) / RATE
    buzz = sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 12))
    syllables = np.clip(np.sin(2 * np.pi * 1.7 * t) + 0.3 * np.sin(2 * np.pi * 0.4 * t), 0, 1) ** 1.5
    return (0.18 * buzz * syllables).astype(np.float32)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Path of a clip by its name."""
    folder = tmp_path_factory.mktemp("clips")
    lengths = {"clip": 2.0, "unsure": 2.0, "long": 20.0, "half": 20.0, "slow": 1.0, "calm1": 1.0}
    for name, seconds in lengths.items():
        soundfile.write(folder / f"{name}.wav", voice(seconds), RATE)
    (folder / "bad.wav").write_text("hello", encoding="utf-8")
    (folder / "odd.wav").write_text("no browser decodes this", encoding="utf-8")
    (folder / "large.wav").write_bytes(bytes(LIMIT + 1))
    return lambda name: folder / f"{name}.wav"


# --- the browser ---


class Page(Browser):
    """A browser with a microphone that beeps and needs no permission."""

    def __init__(self, profile):
        websocket = pytest.importorskip("websocket", reason="needs websocket-client to drive the browser")
        flags = (
            "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
            "--disable-background-networking --disable-component-update --remote-debugging-port=0 "
            "--use-fake-device-for-media-stream --use-fake-ui-for-media-stream --mute-audio"
        )
        self.process = subprocess.Popen(
            [CHROMIUM, *flags.split(), f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        ready = profile / "DevToolsActivePort"
        wait_for(lambda: ready.is_file() and ready.read_text(encoding="utf-8").count("\n"))
        port = ready.read_text(encoding="utf-8").split()[0]
        pages = requests.get(f"http://127.0.0.1:{port}/json", timeout=10).json()
        address = next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page")
        self.socket = websocket.create_connection(address, timeout=60, suppress_origin=True)
        self.ids, self.events = count(1), []

    def open(self, address: str, width: int = 1280, height: int = 800, **media) -> None:
        """Load the page anew, with a size and media features (colour scheme, motion)."""
        features = [{"name": f"prefers-{name.replace('_', '-')}", "value": v} for name, v in media.items()]
        self("Emulation.setEmulatedMedia", features=features)
        self(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self("Page.navigate", url="about:blank")
        wait_for(lambda: self.value("location.href") == "about:blank")
        self.events.clear()
        self("Page.navigate", url=address)
        self.until("document.querySelectorAll('#bars li').length === 8")

    def until(self, expression: str, seconds: float = 20):
        """Wait until a JavaScript expression is true, and return it."""
        return wait_for(lambda: self.value(expression), seconds)

    def text(self, selector: str) -> str:
        return self.value(f"document.querySelector({json.dumps(selector)}).innerText")

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of the element."""
        query = f"document.querySelector({json.dumps(selector)})"
        self.value(f"{query}.scrollIntoView({{ block: 'center', behavior: 'instant' }})")
        box = f"(({{ x, y, width, height }}) => [x + width / 2, y + height / 2])({query}.getBoundingClientRect())"
        before = None
        while (place := self.value(box)) != before:  # until nothing scrolls
            before = place
            time.sleep(0.06)
        x, y = place
        for kind in ("mousePressed", "mouseReleased"):
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, code: int) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            self("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def hear(self, path) -> None:
        """Choose a file and wait for its answer."""
        self.value("document.querySelector('#verdict').replaceChildren()")
        self.choose(path)
        self.until("document.querySelector('.panel:not(.idle)') !== null")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """One browser for the module."""
    page = Page(tmp_path_factory.mktemp("profile") / "profile")
    for domain in ("Page", "Runtime", "Log", "DOM", "Accessibility"):
        page(f"{domain}.enable")
    yield page
    page.socket.close()
    page.process.terminate()
    page.process.wait(30)


@pytest.fixture
def page(browser, page_server, seen):
    """The page, fresh; nothing may appear in the console unless the test clears it."""
    seen.clear()
    browser.open(page_server)
    yield browser
    assert not browser.errors()


# --- answers ---


def test_upload(page, clips, seen):
    page.choose(clips("clip"))
    page.until("document.querySelector('.emotion') !== null")
    assert page.text(".emotion") == "Fearful"
    verdict = page.text("#verdict")
    assert "Fairly sure (71%), from 2.0 s of audio." in verdict
    assert "It may also be sad." in verdict
    assert "strong intensity (70%)" in verdict
    assert page.value("document.querySelector('.warnings')") is None
    rows = [
        row.split("\n")
        for row in page.value("[...document.querySelectorAll('#bars li')].map(li => li.innerText)")
    ]
    assert [row[0].lower() for row in rows] == list(clip_answer("clip", 2)["probabilities"])
    assert rows[0][1] == "71%"
    assert (
        page.value("getComputedStyle(document.querySelector('.fill')).backgroundColor") == "rgb(123, 79, 163)"
    )
    assert page.value("document.querySelector('.face').innerText") == "😨"
    quality = page.text("#quality")
    for said in (
        "2.0 s",
        "48 kHz",
        "1, mono",
        "−23 dB",
        "none",
        "21% of the clip",
        "7.9 kHz",
        "like the training clips (0.8",
    ):
        assert said in quality
    assert seen == [
        {"name": "clip.wav", "content": clips("clip").read_bytes(), "references": [], "timeline": False}
    ]


def test_not_sure_with_warnings(page, clips):
    page.hear(clips("unsure"))
    assert page.text(".unsure") == "Not sure"
    verdict = page.text("#verdict")
    assert "Perhaps disgust (31%), or neutral or calm" in verdict
    assert REASON in verdict
    for warning in WARNINGS:
        assert warning[1:] in verdict
    assert page.value("document.querySelector('#verdict').getAttribute('role')") == "status"
    quality = page.text("#quality")
    assert "1% of the samples" in quality
    assert "unlike the training clips (1.4" in quality


def test_the_servers_error_is_an_alert(page, clips):
    page.hear(clips("clip"))
    page.choose(clips("bad"))
    page.until("document.querySelector('[role=alert]').innerText")
    assert page.text("[role=alert]").startswith("bad.wav: not audio, or damaged")
    assert page.value("document.querySelector('.emotion')") is None
    assert not page.value("document.querySelector('#downloads').checkVisibility()")
    page.hear(clips("clip"))
    assert page.text("[role=alert]") == ""
    assert all("422" in json.dumps(error) for error in page.errors())  # the browser's own line
    page.events.clear()


def test_too_large_is_not_sent(page, clips, seen):
    page.choose(clips("large"))
    page.until("document.querySelector('[role=alert]').innerText")
    assert "at most 5 MB" in page.text("[role=alert]")
    assert not seen


def test_server_that_is_gone(page, clips):
    page("Network.enable")
    page("Network.setBlockedURLs", urls=["*/predict"])
    page.choose(clips("clip"))
    page.until("document.querySelector('[role=alert]').innerText")
    assert page.text("[role=alert]") == "The server does not answer. Is it still running?"
    page("Network.setBlockedURLs", urls=[])
    page.events.clear()


def test_a_new_clip_overtakes_a_slow_one(page, clips):
    page.choose(clips("slow"))
    page.until("document.querySelector('#result').getAttribute('aria-busy') === 'true'")
    page.hear(clips("unsure"))
    time.sleep(2.2)
    assert page.text("#name") == "unsure.wav"
    assert page.text(".unsure") == "Not sure"
    assert page.value("document.querySelector('#result').getAttribute('aria-busy')") is None


def test_clip_dropped_on_the_page(page):
    page.value("""{
      const data = new DataTransfer();
      data.items.add(new File(["dropped"], "dropped.wav"));
      document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
    }""")
    page.until("document.querySelector('.emotion') !== null")
    assert page.text("#name") == "dropped.wav"


def test_neutral_clips_are_sent_along(page, clips, seen):
    page.click("#reference summary")
    root = page("DOM.getDocument")["root"]["nodeId"]
    node = page("DOM.querySelector", nodeId=root, selector="#references")["nodeId"]
    page("DOM.setFileInputFiles", files=[str(clips("calm1")), *[str(clips("clip"))] * 3], nodeId=node)
    assert "calm1.wav, clip.wav, clip.wav (1 more left out)" in page.until(
        "document.querySelector('#referred').innerText"
    )
    page.hear(clips("unsure"))
    assert seen[-1]["references"] == ["calm1.wav", "clip.wav", "clip.wav"]
    assert "Compared with 3 neutral clips of the speaker." in page.text("#verdict")
    page.click("#forget")
    wait_for(lambda: len(seen) == 2)
    assert seen[-1]["references"] == []


def test_the_model_introduces_itself(page):
    about = page.text("footer")
    assert "it recognises 63% of the clips of each emotion on average" in about
    assert "59% to 67%, chance 13%" in about
    page.click("#technical summary")
    facts = page.text("#technical")
    for said in (
        "logistic",
        "880 numbers",
        "1,440 clips of 24 speakers",
        "4,320",
        "55.0%",
        "CC BY-NC-SA",
        "63.4%",
    ):
        assert said in facts
    assert page.text("#formats").endswith("up to 5 MB and 10 minutes")


# --- waveform and playback ---


def test_waveform_seek_and_play(page, clips):
    page.hear(clips("clip"))
    page.until("!document.querySelector('#wave').hidden")
    inked = "new Set(new Uint32Array(document.querySelector('#waveform').getContext('2d').getImageData(0, 0, 600, 80).data.buffer)).size"
    assert page.value(inked) > 1
    page.click("#seek")
    page.until("Math.abs(document.querySelector('#audio').currentTime - 1) < 0.05")
    assert page.text("#time") == "1.0 s / 2.0 s"
    assert page.value("document.querySelector('#seek').getAttribute('aria-valuetext')") == "1.0 s of 2.0 s"
    page.press("Home", 36)
    page.until("document.querySelector('#audio').currentTime === 0")
    page.click("#play")
    page.until("document.querySelector('#play').getAttribute('aria-label') === 'Pause'")
    page.until("document.querySelector('#audio').currentTime > 0.2")
    page.until("document.querySelector('#play').getAttribute('aria-label') === 'Play'")
    assert page.value("document.querySelector('#audio').ended")


def test_a_clip_the_browser_cannot_decode_has_no_waveform(page, clips):
    page.hear(clips("odd"))
    page.until("document.querySelector('#time').innerText === 'cannot be played here'")
    for part in ("wave", "play", "audio"):
        assert page.value(f"document.querySelector('#{part}').hidden")
    assert page.text(".emotion") == "Fearful"


PARTICLES = "document.querySelector('#particles').toDataURL()"


def test_particles_move_with_the_sound_and_rest_without(page, clips):
    page.hear(clips("clip"))
    page.until("!document.querySelector('#wave').hidden")
    before = page.value(PARTICLES)
    time.sleep(0.2)
    assert page.value(PARTICLES) == before
    page.click("#play")
    page.until(f"{PARTICLES} !== {json.dumps(before)}")
    page.until("document.querySelector('#audio').ended")
    wait_for(lambda: page.value(PARTICLES) == (time.sleep(0.2), page.value(PARTICLES))[1])


def test_no_particles_with_reduced_motion(browser, page_server, clips):
    browser.open(page_server, reduced_motion="reduce")
    browser.hear(clips("clip"))
    assert not browser.value("document.querySelector('#particles').checkVisibility()")
    before = browser.value(PARTICLES)
    browser.click("#play")
    browser.until("document.querySelector('#audio').currentTime > 0.3")
    assert browser.value(PARTICLES) == before
    assert browser.value("getComputedStyle(document.querySelector('.fill')).transitionProperty") == "none"


def test_record(page, seen):
    page.click("#record")
    page.until("document.querySelector('#record').classList.contains('on')")
    assert page.text("#record-label") == "Stop"
    page.until("document.querySelector('#level').style.transform > 'scaleX(0.1'")
    time.sleep(1)
    page.click("#record")
    page.until("document.querySelector('.emotion') !== null")
    assert page.text("#record-label") == "Record"
    assert page.text("#name") == "recording.webm"
    assert seen[0]["content"].startswith(b"\x1a\x45\xdf\xa3")
    page.until("!document.querySelector('#wave').hidden")
    page.click("#seek")
    page.until("document.querySelector('#audio').currentTime > 0.3")


# --- windows ---


@pytest.fixture
def strip(page, clips):
    """The page with the windows of a long clip."""
    page.hear(clips("long"))
    page.until("document.querySelectorAll('#strip input').length")
    return page


def test_timeline(strip, seen):
    expected = timeline_answer("long.wav", 20.0)["windows"]
    assert [asked["timeline"] for asked in seen] == [False, True]
    names = strip.value(
        "[...document.querySelectorAll('#strip input')].map(i => i.getAttribute('aria-label'))"
    )
    assert len(names) == len(expected) == 13
    assert names[0] == "0:00 to 0:03: neutral, 80%"
    assert names[1] == "0:01.5 to 0:04.5: neutral, 80%"
    assert names[2] == "0:03 to 0:06: neutral, 42%, not sure"
    assert names[4] == "0:06 to 0:09: silent"
    strip_box = strip.value("document.querySelector('#strip').getBoundingClientRect().width")
    wave_box = strip.value("document.querySelector('#wave').getBoundingClientRect().width")
    cells = strip.value(
        "[...document.querySelectorAll('#strip label')].map(l => l.getBoundingClientRect().width)"
    )
    assert strip_box == wave_box == pytest.approx(sum(cells), abs=1)
    assert cells[0] == pytest.approx(2.25 / 20 * strip_box, abs=1)
    assert "silent 2" in strip.text("#legend")
    hint = strip.text("#windows-hint")
    assert hint.startswith("13 windows of 3 s.")
    assert hint.endswith("Windows without speech have no answer.")


def test_click_a_window(strip):
    assert strip.text(".emotion") == "Fearful"
    strip.click("#strip label:nth-of-type(4)")
    strip.until("document.querySelector('.emotion').innerText === 'Calm'")
    assert strip.text("#result-title") == "From 0:04.5 to 0:07.5"
    assert strip.value("document.querySelector('#audio').currentTime") == 4.5
    assert not strip.value("document.querySelector('#band').hidden")
    strip.click("#whole")
    assert strip.text(".emotion") == "Fearful"
    assert strip.text("#result-title") == "Emotion"
    assert strip.value("document.querySelector('#band').hidden")


def test_windows_by_keyboard(strip):
    strip.value("document.querySelector('#seek').focus()")
    strip.press("Tab", 9)
    strip.press(" ", 32)
    strip.until("document.querySelector('#result-title').innerText === 'From 0:00 to 0:03'")
    strip.press("ArrowRight", 39)
    strip.press("ArrowRight", 39)
    strip.until("document.querySelector('#result-title').innerText === 'From 0:03 to 0:06'")
    assert "Perhaps neutral (42%)." in strip.text("#verdict")
    assert strip.text(".unsure") == "Not sure"
    for _ in range(2):
        strip.press("ArrowRight", 39)
    strip.until("document.querySelector('#verdict').innerText.includes('No speech in this window')")
    assert strip.value("document.querySelector('#bars').classList.contains('empty')")


def test_windows_as_a_table(strip):
    strip.click("#windows summary")
    rows = strip.value("[...document.querySelectorAll('#rows tr')].map(row => row.innerText.split('\\t'))")
    assert len(rows) == 13
    assert rows[2] == ["0:03 to 0:06", "neutral (not sure)", "42%"]
    strip.click("#rows tr:nth-child(2) button")
    strip.until("document.querySelector('#result-title').innerText === 'From 0:01.5 to 0:04.5'")


def test_the_answer_stays_when_the_windows_fail(page, clips):
    page.hear(clips("half"))
    page.until("document.querySelector('[role=alert]').innerText")
    assert page.text("[role=alert]").startswith("The clip could not be analysed window by window: half.wav")
    assert page.text(".emotion") == "Fearful"
    page.events.clear()


# --- downloads ---


def download(page, button: str, folder, name: str) -> str:
    page("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    page.click(button)
    wait_for((folder / name).is_file)
    wait_for(lambda: (folder / name).stat().st_size)
    return (folder / name).read_text(encoding="utf-8")


def test_downloads_of_a_clip(page, clips, tmp_path):
    page.hear(clips("clip"))
    answer = clip_answer("clip.wav", 2.0)
    assert json.loads(download(page, "#json", tmp_path, "clip.json")) == answer
    (row,) = csv.DictReader(io.StringIO(download(page, "#csv", tmp_path, "clip.csv")))
    assert row["file"] == "clip.wav"
    assert row["emotion"] == "fearful"
    assert (row["start_s"], row["end_s"], row["abstained"]) == ("0", "2", "false")
    assert {emotion: float(row[emotion]) for emotion in EIGHT} == answer["probabilities"]


def test_downloads_of_windows(strip, tmp_path):
    expected = timeline_answer("long.wav", 20.0)
    saved = json.loads(download(strip, "#json", tmp_path, "long.json"))
    assert saved == clip_answer("long.wav", 20.0) | {"timeline": expected}
    rows = list(csv.DictReader(io.StringIO(download(strip, "#csv", tmp_path, "long.csv"))))
    assert [float(row["start_s"]) for row in rows] == [window["start_s"] for window in expected["windows"]]
    assert [row["emotion"] for row in rows] == [window["emotion"] or "" for window in expected["windows"]]
    assert rows[4]["silent"] == "true"
    assert rows[4]["neutral"] == ""


# --- for everyone ---


@pytest.mark.parametrize("width", [390, 360])
def test_no_horizontal_scroll_on_a_phone(browser, page_server, clips, width):
    browser.open(page_server, width=width, height=780)
    assert browser.value("document.documentElement.scrollWidth") == width
    browser.value("document.querySelectorAll('details').forEach((details) => { details.open = true })")
    for name in ("unsure", "long"):
        browser.hear(clips(name))
        browser.until("!document.querySelector('#wave').hidden")
        assert browser.value("document.documentElement.scrollWidth") == width
    browser.until("document.querySelectorAll('#strip input').length")
    browser.value("document.querySelectorAll('details').forEach((details) => { details.open = true })")
    assert browser.value("document.documentElement.scrollWidth") == width
    assert not browser.errors()


# Every visible text against what is behind it; over the bare page also against two dots of the background.
CONTRAST = """(() => {
  const context = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], under) => [r, g, b].map((c, i) => a * c + (1 - a) * under[i]);
  const luminance = (colour) => {
    const [r, g, b] = colour.map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const root = getComputedStyle(document.documentElement);
  const emotions = "neutral calm happy sad angry fearful disgust surprised other accent".split(" ");
  const dots = emotions.map((name) => rgba(root.getPropertyValue("--" + name)).with(3, 1 - (1 - ALPHA) ** 2));
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const { data, parentElement: element } = walker.currentNode;
    if (!data.trim() || element.closest("[aria-hidden=true], .unseen, noscript, script") || !element.checkVisibility()) continue;
    const layers = [];
    let bare = true;
    for (let at = element; at; at = at.parentElement) {
      const ground = rgba(getComputedStyle(at).backgroundColor);
      if (ground[3] > 0) layers.push(ground);
      if (ground[3] === 1) { bare = at === document.body; break; }
    }
    const ground = layers.reduceRight((under, layer) => over(layer, under), [255, 255, 255]);
    const grounds = bare ? [ground, ...dots.map((dot) => over(dot, ground))] : [ground];
    for (const behind of grounds) {
      const text = over(rgba(getComputedStyle(element).color), behind);
      found.push([data.trim().slice(0, 40), Math.round(100 * ratio(text, behind)) / 100]);
    }
  }
  return found;
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(browser, page_server, clips, scheme):
    browser.open(page_server, color_scheme=scheme)
    alpha = re.search(
        r"ALPHA = ([\d.]+)", (ROOT / "ser_lib/serving/web/particles.js").read_text(encoding="utf-8")
    )[1]
    grounds = set()
    for name in ("unsure", "long", "bad", "clip"):
        browser.choose(clips(name))
        browser.until("document.querySelector('.panel:not(.idle), #error:not(:empty)') !== null")
        browser.value("document.querySelectorAll('details').forEach((details) => { details.open = true })")
        if name == "long":
            browser.until("document.querySelectorAll('#strip input').length")
            browser.click("#strip label:nth-of-type(3)")
        wait_for(lambda: browser.value("document.querySelector('#result').getAttribute('aria-busy')") is None)
        found = browser.value(CONTRAST.replace("ALPHA", alpha))
        assert len(found) > 50
        assert not [(text, ratio) for text, ratio in found if ratio < 4.5]
        grounds.add(browser.value("getComputedStyle(document.body).backgroundColor"))
    assert grounds == {"rgb(246, 245, 242)" if scheme == "light" else "rgb(20, 22, 26)"}


CONTROLS = {"button", "slider", "radio", "link", "textbox", "checkbox", "combobox", "DisclosureTriangle"}


def test_names_for_a_screen_reader(strip):
    strip.value("document.querySelectorAll('details').forEach((details) => { details.open = true })")
    nodes = [node for node in strip("Accessibility.getFullAXTree")["nodes"] if not node["ignored"]]
    controls = [node for node in nodes if node["role"]["value"] in CONTROLS]
    assert len(controls) > 25
    nameless = [node for node in controls if not node.get("name", {}).get("value", "").strip()]
    assert not nameless
    roles = {node["role"]["value"] for node in nodes}
    assert {"banner", "main", "contentinfo", "region", "alert", "status", "slider", "radio", "table"} <= roles
    ids = strip.value("[...document.querySelectorAll('[id]')].map((element) => element.id)")
    assert len(ids) == len(set(ids))
    pointed = strip.value(
        "[...document.querySelectorAll('[aria-labelledby], [aria-describedby]')]"
        ".map((e) => e.getAttribute('aria-labelledby') ?? e.getAttribute('aria-describedby'))"
    )
    assert set(pointed) <= set(ids)
    levels = strip.value("[...document.querySelectorAll('h1, h2, h3')].map((h) => h.tagName)")
    assert levels.count("H1") == 1
    assert strip.value("document.documentElement.lang") == "en"
    assert strip.value("[...document.images].every((image) => image.hasAttribute('alt'))")


FOCUSED = """(() => {
  const focused = document.activeElement;
  const ringed = [focused, focused.closest("label"), focused.closest("#wave")].filter(Boolean)
    .some((e) => { const { outlineStyle, outlineWidth, opacity } = getComputedStyle(e);
      return outlineStyle !== "none" && parseFloat(outlineWidth) >= 2 && opacity === "1"; });
  return [focused.id || focused.closest("[id]")?.id || focused.tagName, ringed];
})()"""


def test_focus_is_seen_all_along_the_page(strip):
    strip.value("document.activeElement.blur(); scrollTo(0, 0)")
    passed = []
    for _ in range(20):
        strip.press("Tab", 9)
        name, ringed = strip.value(FOCUSED)
        if name == "BODY" or name in [p for p, _ in passed[:1]]:
            break
        passed.append((name, ringed))
    assert [name for name, _ in passed] == [
        "file", "record", "reference", "play", "seek", "strip", "windows", "json", "csv", "technical"
    ]  # fmt: skip
    assert all(ringed for _, ringed in passed), passed


def test_nothing_inline_and_nothing_from_elsewhere(page_server):
    web = ROOT / "ser_lib" / "serving" / "web"
    html = (web / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=", html)
    for path in filter(Path.is_file, web.iterdir()):
        assert not re.findall(
            r"""(?:src|href|url|import|from|fetch)\s*[=(]?\s*["']?(?:https?:)?//\w""",
            path.read_text(encoding="utf-8"),
        )
        assert requests.get(f"{page_server}/web/{path.name}", timeout=10).status_code == 200
