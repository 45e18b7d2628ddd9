"""The page in a real browser, against a server with canned answers: no model is needed."""

from __future__ import annotations

import csv
import io
import json
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import requests
import soundfile
import waitress
from flask import Flask, request
from page_checks import check_contrast, check_screen_reader, open_details
from test_serve import wait_for

from ser_lib import ROOT
from ser_lib.corpora import EIGHT

expect = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive the browser").expect

RATE = 16_000
LIMIT = 5_000_000  # bytes
WARNINGS = ["very quiet (-52 dB): speak closer to the microphone", "mostly silence (81% of the clip)"]
REASON = "Too uncertain: 31 %. I only commit from 55 %."


# --- a server with canned answers, chosen by the name of the file ---


def shares(best: str, p: float) -> dict[str, float]:
    """Probabilities: p for the best, falling ones for the rest."""
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
    """The endpoints of the page; each request to /predict is added to `seen`."""
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
    """The requests to /predict, in order."""
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
    """A buzz with syllables, loud enough for its waveform to show."""
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


@pytest.fixture
def page(open_page, page_server, seen):
    """The page in an empty profile that may use the microphone."""
    seen.clear()
    page = open_page(page_server, permissions=["microphone"])
    expect(page.locator("#bars li")).to_have_count(8)
    return page


def analyse(page, clip: Path) -> None:
    """Choose a file and wait for its answer."""
    page.set_input_files("#file", clip)
    expect(page.locator(".panel:not(.idle)")).to_be_visible()


def text(page, selector: str) -> str:
    """The text of an element as it is shown."""
    return page.locator(selector).inner_text()


def expect_text(page, selector: str, expected: str | re.Pattern) -> None:
    """Wait until an element shows a text."""
    expect(page.locator(selector)).to_have_text(expected, use_inner_text=True)


def wait_for_playback(page, seconds: float) -> None:
    """Wait until the clip has played so far."""
    wait_for(lambda: page.evaluate("audio.currentTime") > seconds)


# --- answers ---


def test_upload(page, clips, seen):
    analyse(page, clips("clip"))
    assert text(page, ".emotion") == "Fearful"
    verdict = text(page, "#verdict")
    assert "Fairly sure (71%), from 2.0 s of audio." in verdict
    assert "It may also be sad." in verdict
    assert "strong intensity (70%)" in verdict
    expect(page.locator(".warnings")).to_have_count(0)
    bars = [bar.split("\n") for bar in page.locator("#bars li").all_inner_texts()]
    assert [bar[0].lower() for bar in bars] == list(clip_answer("clip", 2)["probabilities"])
    assert bars[0][1] == "71%"
    expect(page.locator(".fill").first).to_have_css("background-color", "rgb(123, 79, 163)")
    expect_text(page, ".face", "😨")
    quality = text(page, "#quality")
    for fact in ("2.0 s", "48 kHz", "1, mono", "−23 dB", "none", "21% of the clip", "7.9 kHz"):
        assert fact in quality
    assert "like the training clips (0.8" in quality
    assert seen == [
        {"name": "clip.wav", "content": clips("clip").read_bytes(), "references": [], "timeline": False}
    ]


def test_uncertain_answer_with_warnings(page, clips):
    analyse(page, clips("unsure"))
    assert text(page, ".unsure") == "Not sure"
    verdict = text(page, "#verdict")
    assert "Perhaps disgust (31%), or neutral or calm" in verdict
    assert REASON in verdict
    for warning in WARNINGS:
        assert warning[1:] in verdict
    expect(page.locator("#verdict")).to_have_role("status")
    quality = text(page, "#quality")
    assert "1% of the samples" in quality
    assert "unlike the training clips (1.4" in quality


def test_server_error_is_an_alert(page, clips):
    analyse(page, clips("clip"))
    page.set_input_files("#file", clips("bad"))
    expect_text(page, "[role=alert]", re.compile(r"^bad\.wav: not audio, or damaged"))
    expect(page.locator(".emotion")).to_have_count(0)
    expect(page.locator("#downloads")).to_be_hidden()
    analyse(page, clips("clip"))
    expect_text(page, "[role=alert]", "")
    errors = [message.text for message in page.console_messages() if message.type == "error"]
    assert all("422" in error for error in errors)  # the browser's own line
    page.clear_console_messages()


def test_too_large_file_is_not_sent(page, clips, seen):
    page.set_input_files("#file", clips("large"))
    expect(page.get_by_role("alert")).to_contain_text("at most 5 MB")
    assert not seen


def test_no_answer_from_the_server(page, clips):
    page.route("**/predict", lambda route: route.abort())
    page.set_input_files("#file", clips("clip"))
    expect_text(page, "[role=alert]", "The server does not answer. Is it still running?")
    page.clear_console_messages()


def test_new_clip_replaces_a_slow_one(page, clips):
    page.set_input_files("#file", clips("slow"))
    expect(page.locator("#result")).to_have_attribute("aria-busy", "true")
    analyse(page, clips("unsure"))
    page.wait_for_timeout(2200)
    assert text(page, "#name") == "unsure.wav"
    assert text(page, ".unsure") == "Not sure"
    expect(page.locator("#result[aria-busy]")).to_have_count(0)


def test_clip_dropped_on_the_page(page):
    file = {"name": "dropped.wav", "mimeType": "audio/wav", "buffer": b"dropped"}
    page.locator("body").drop({"files": [file]})
    expect(page.locator(".emotion")).to_be_visible()
    assert text(page, "#name") == "dropped.wav"


def test_neutral_clips_are_sent_as_references(page, clips, seen):
    page.click("#reference summary")
    page.set_input_files("#references", [clips("calm1"), *[clips("clip")] * 3])
    expect(page.locator("#referred")).to_contain_text("calm1.wav, clip.wav, clip.wav (1 more left out)")
    analyse(page, clips("unsure"))
    assert seen[-1]["references"] == ["calm1.wav", "clip.wav", "clip.wav"]
    assert "Compared with 3 neutral clips of the speaker." in text(page, "#verdict")
    with page.expect_response("**/predict"):
        page.click("#forget")
    assert len(seen) == 2
    assert seen[-1]["references"] == []


def test_model_facts_in_the_footer(page):
    about = text(page, "footer")
    assert "it recognises 63% of the clips of each emotion on average" in about
    assert "59% to 67%, chance 13%" in about
    page.click("#technical summary")
    facts = text(page, "#technical")
    for fact in (
        "logistic",
        "880 numbers",
        "1,440 clips of 24 speakers",
        "4,320",
        "55.0%",
        "CC BY-NC-SA",
        "63.4%",
    ):
        assert fact in facts
    assert text(page, "#formats").endswith("up to 5 MB and 10 minutes")


# --- waveform and playback ---


def test_waveform_seek_and_play(page, clips):
    analyse(page, clips("clip"))
    expect(page.locator("#wave")).to_be_visible()
    colours = (
        "new Set(new Uint32Array(waveform.getContext('2d').getImageData(0, 0, 600, 80).data.buffer)).size"
    )
    assert page.evaluate(colours) > 1
    page.click("#seek")
    wait_for(lambda: page.evaluate("audio.currentTime") == pytest.approx(1, abs=0.05))
    assert text(page, "#time") == "1.0 s / 2.0 s"
    expect(page.locator("#seek")).to_have_attribute("aria-valuetext", "1.0 s of 2.0 s")
    page.keyboard.press("Home")
    expect(page.locator("#audio")).to_have_js_property("currentTime", 0)
    page.click("#play")
    expect(page.locator("#play")).to_have_accessible_name("Pause")
    wait_for_playback(page, 0.2)
    expect(page.locator("#play")).to_have_accessible_name("Play")
    expect(page.locator("#audio")).to_have_js_property("ended", True)


def test_no_waveform_of_a_clip_that_the_browser_cannot_decode(page, clips):
    analyse(page, clips("odd"))
    expect_text(page, "#time", "cannot be played here")
    for part in ("#wave", "#play", "#audio"):
        expect(page.locator(part)).to_be_hidden()
    assert text(page, ".emotion") == "Fearful"


def particles(page) -> str:
    return page.evaluate("particles.toDataURL()")


def particles_rest(page) -> bool:
    before = particles(page)
    page.wait_for_timeout(200)
    return particles(page) == before


def test_particles_move_only_while_the_clip_plays(page, clips):
    analyse(page, clips("clip"))
    expect(page.locator("#wave")).to_be_visible()
    assert particles_rest(page)
    before = particles(page)
    page.click("#play")
    wait_for(lambda: particles(page) != before)
    expect(page.locator("#audio")).to_have_js_property("ended", True)
    wait_for(lambda: particles_rest(page))


def test_no_particles_with_reduced_motion(open_page, page_server, clips):
    page = open_page(page_server, reduced_motion="reduce")
    analyse(page, clips("clip"))
    expect(page.locator("#particles")).to_be_hidden()
    before = particles(page)
    page.click("#play")
    wait_for_playback(page, 0.3)
    assert particles(page) == before
    expect(page.locator(".fill").first).to_have_css("transition-property", "none")


def test_record(page, seen):
    page.click("#record")
    expect_text(page, "#record-label", "Stop")
    wait_for(lambda: page.evaluate("level.style.transform") > "scaleX(0.1")
    page.wait_for_timeout(1000)
    page.click("#record")
    expect(page.locator(".emotion")).to_be_visible()
    assert text(page, "#record-label") == "Record"
    assert text(page, "#name") == "recording.webm"
    assert seen[0]["content"].startswith(b"\x1a\x45\xdf\xa3")
    page.click("#seek")
    wait_for_playback(page, 0.3)


# --- windows ---


@pytest.fixture
def strip(page, clips):
    """The page with the windows of a long clip."""
    analyse(page, clips("long"))
    expect(page.locator("#strip input")).to_have_count(13)
    return page


def width(page, selector: str) -> float:
    return page.locator(selector).bounding_box()["width"]


def test_timeline(strip, seen):
    expected = timeline_answer("long.wav", 20.0)["windows"]
    assert [request["timeline"] for request in seen] == [False, True]
    names = strip.locator("#strip input").evaluate_all("all => all.map(input => input.ariaLabel)")
    assert len(names) == len(expected) == 13
    assert names[0] == "0:00 to 0:03: neutral, 80%"
    assert names[1] == "0:01.5 to 0:04.5: neutral, 80%"
    assert names[2] == "0:03 to 0:06: neutral, 42%, not sure"
    assert names[4] == "0:06 to 0:09: silent"
    cells = [cell.bounding_box()["width"] for cell in strip.locator("#strip label").all()]
    assert width(strip, "#strip") == width(strip, "#wave") == pytest.approx(sum(cells), abs=1)
    assert cells[0] == pytest.approx(2.25 / 20 * sum(cells), abs=1)
    assert "silent 2" in text(strip, "#legend")
    hint = text(strip, "#windows-hint")
    assert hint.startswith("13 windows of 3 s.")
    assert hint.endswith("Windows without speech have no answer.")


def test_click_a_window(strip):
    assert text(strip, ".emotion") == "Fearful"
    strip.click("#strip label:nth-of-type(4)")
    expect_text(strip, ".emotion", "Calm")
    assert text(strip, "#result-title") == "From 0:04.5 to 0:07.5"
    expect(strip.locator("#audio")).to_have_js_property("currentTime", 4.5)
    expect(strip.locator("#band")).to_be_visible()
    strip.click("#whole")
    assert text(strip, ".emotion") == "Fearful"
    assert text(strip, "#result-title") == "Emotion"
    expect(strip.locator("#band")).to_be_hidden()


def test_windows_by_keyboard(strip):
    strip.locator("#seek").focus()
    strip.keyboard.press("Tab")
    strip.keyboard.press("Space")
    expect_text(strip, "#result-title", "From 0:00 to 0:03")
    for _ in range(2):
        strip.keyboard.press("ArrowRight")
    expect_text(strip, "#result-title", "From 0:03 to 0:06")
    assert "Perhaps neutral (42%)." in text(strip, "#verdict")
    assert text(strip, ".unsure") == "Not sure"
    for _ in range(2):
        strip.keyboard.press("ArrowRight")
    expect(strip.locator("#verdict")).to_contain_text("No speech in this window")
    expect(strip.locator("#bars")).to_have_class("empty")


def test_windows_as_a_table(strip):
    strip.click("#windows summary")
    rows = [row.split("\t") for row in strip.locator("#rows tr").all_inner_texts()]
    assert len(rows) == 13
    assert rows[2] == ["0:03 to 0:06", "neutral (not sure)", "42%"]
    strip.click("#rows tr:nth-child(2) button")
    expect_text(strip, "#result-title", "From 0:01.5 to 0:04.5")


def test_answer_stays_when_the_windows_fail(page, clips):
    analyse(page, clips("half"))
    expect_text(
        page, "[role=alert]", re.compile("^The clip could not be analysed window by window: half.wav")
    )
    assert text(page, ".emotion") == "Fearful"
    page.clear_console_messages()


# --- downloads ---


def download(page, button: str, name: str) -> str:
    """Content of the file that a button saves under this name."""
    with page.expect_download() as saved:
        page.click(button)
    assert saved.value.suggested_filename == name
    return saved.value.path().read_text(encoding="utf-8")


def test_downloads_of_a_clip(page, clips):
    analyse(page, clips("clip"))
    answer = clip_answer("clip.wav", 2.0)
    assert json.loads(download(page, "#json", "clip.json")) == answer
    (row,) = csv.DictReader(io.StringIO(download(page, "#csv", "clip.csv")))
    assert row["file"] == "clip.wav"
    assert row["emotion"] == "fearful"
    assert (row["start_s"], row["end_s"], row["abstained"]) == ("0", "2", "false")
    assert {emotion: float(row[emotion]) for emotion in EIGHT} == answer["probabilities"]


def test_downloads_of_windows(strip):
    expected = timeline_answer("long.wav", 20.0)
    saved = json.loads(download(strip, "#json", "long.json"))
    assert saved == clip_answer("long.wav", 20.0) | {"timeline": expected}
    rows = list(csv.DictReader(io.StringIO(download(strip, "#csv", "long.csv"))))
    assert [float(row["start_s"]) for row in rows] == [window["start_s"] for window in expected["windows"]]
    assert [row["emotion"] for row in rows] == [window["emotion"] or "" for window in expected["windows"]]
    assert rows[4]["silent"] == "true"
    assert rows[4]["neutral"] == ""


# --- for everyone ---


@pytest.mark.parametrize("width", [390, 360])
def test_no_horizontal_scroll_on_a_phone(open_page, page_server, clips, width):
    page = open_page(page_server, width=width, height=780)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for name in ("unsure", "long"):
        open_details(page)
        analyse(page, clips(name))
        expect(page.locator("#wave")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == width
    expect(page.locator("#strip input")).to_have_count(13)
    open_details(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize(("scheme", "ground"), [("light", "rgb(246, 245, 242)"), ("dark", "rgb(20, 22, 26)")])
def test_contrast(open_page, page_server, clips, scheme, ground):
    page = open_page(page_server, color_scheme=scheme)
    script = (ROOT / "ser_lib/serving/web/particles.js").read_text(encoding="utf-8")
    alpha = float(re.search(r"ALPHA = ([\d.]+)", script)[1])
    for name in ("unsure", "long", "bad", "clip"):
        page.set_input_files("#file", clips(name))
        expect(page.locator(".panel:not(.idle), #error:not(:empty)")).to_be_visible()
        open_details(page)
        if name == "long":
            page.click("#strip label:nth-of-type(3)")
        expect(page.locator("#result[aria-busy]")).to_have_count(0)
        check_contrast(page, at_least=50, dots=alpha)
        expect(page.locator("body")).to_have_css("background-color", ground)
    page.clear_console_messages()


def test_names_for_a_screen_reader(strip):
    open_details(strip)
    landmarks = {"banner", "main", "contentinfo", "region"}
    check_screen_reader(strip, controls=25, roles=landmarks | {"alert", "status", "slider", "radio", "table"})
    ids = strip.locator("[id]").evaluate_all("all => all.map(element => element.id)")
    for attribute in ("aria-labelledby", "aria-describedby"):
        pointed = strip.locator(f"[{attribute}]").evaluate_all(
            "(all, attribute) => all.map(element => element.getAttribute(attribute))", attribute
        )
        assert set(pointed) <= set(ids)
    expect(strip.locator("html")).to_have_attribute("lang", "en")
    expect(strip.locator("img:not([alt])")).to_have_count(0)


FOCUSED = """() => {
  const focused = document.activeElement;
  const ringed = [focused, focused.closest("label"), focused.closest("#wave")].filter(Boolean)
    .some((e) => { const { outlineStyle, outlineWidth, opacity } = getComputedStyle(e);
      return outlineStyle !== "none" && parseFloat(outlineWidth) >= 2 && opacity === "1"; });
  return [focused.id || focused.closest("[id]")?.id || focused.tagName, ringed];
}"""


def test_tab_order_and_visible_focus(strip):
    strip.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    passed = []
    for _ in range(20):
        strip.keyboard.press("Tab")
        name, ringed = strip.evaluate(FOCUSED)
        if name == "BODY" or (passed and name == passed[0][0]):
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
