"""Live answers from the microphone, and how they are shown."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from synth import speech
from test_bundle import save_tiny, wav

from ser_lib.cli import main
from ser_lib.corpora import FOUR
from ser_lib.serving import answers, bundle
from ser_lib.serving.model import WINDOW_S

RATE = 16_000


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Path of the metadata of a small saved model; to be read, not changed."""
    path = tmp_path_factory.mktemp("listen") / "tiny.json"
    save_tiny(path)
    return path


@pytest.fixture(scope="module")
def model(tiny):
    return bundle.load(tiny)


def sound(*emotions: str) -> np.ndarray:
    """Six seconds of each emotion, or of silence."""
    return np.concatenate(
        [np.tile(speech(name, 1), 5) if name else np.zeros(6 * RATE, np.float32) for name in emotions]
    )


def blocks(samples: np.ndarray, n: int = RATE // 10) -> list[np.ndarray]:
    return np.split(samples, range(n, len(samples), n))


def test_the_emotion_is_followed(model):
    live = list(answers.live(model, blocks(sound("happy", "calm", "")), RATE))
    assert [answer["end_s"] for answer in live] == pytest.approx(np.arange(0.5, 18.1, 0.5))
    for i, name in enumerate(("happy", "calm", None)):
        inside = [a["emotion"] for a in live if 6 * i + WINDOW_S < a["end_s"] <= 6 * (i + 1)]
        assert inside == [name] * 6
    assert live[-1] == {"end_s": 18.0, "emotion": None, "silent": True}


def test_a_window_is_the_same_answer_as_its_file(model):
    samples = sound("happy", "calm")
    *_, last = answers.live(model, blocks(samples), RATE)
    assert last["probabilities"] == pytest.approx(
        model.predict(wav(samples[-3 * RATE :]))["probabilities"], abs=0.01
    )


def test_other_rates(model):
    samples = np.tile(speech("happy", 1, rate=44_100), 5)
    *_, last = answers.live(model, blocks(samples, 4_410), 44_100)
    assert (last["emotion"], last["end_s"]) == ("happy", 6.0)


def test_a_slow_machine_answers_once_for_all_that_came_meanwhile(model):
    samples = sound("calm", "happy")
    (answer,) = answers.live(model, [samples], RATE)
    assert (answer["emotion"], answer["end_s"]) == ("happy", 12.0)


def test_bars_are_drawn_over_the_last_ones():
    p = {"happy": 0.75, "sad": 0.25}
    answer = {"emotion": "happy", "probabilities": p, "abstained": False, "warnings": ["narrow band"]}
    first, second = answers.bars(
        [{"end_s": 0.5} | answer, {"end_s": 1.0, "emotion": None, "silent": True}], list(p)
    )
    assert first.splitlines()[0] == f"happy        {'█' * 22}▌         75%{answers.CLEAR}"
    assert first.splitlines()[1] == f"sad          {'█' * 7}▌{' ' * 24}25%{answers.CLEAR}"
    assert "0.5 s  happy  narrow band" in first
    assert second.startswith("\x1b[3A")
    assert second.count("\n") == first.count("\n") == 2
    assert "1.0 s  no speech" in second
    assert "█" not in second


def test_json_lines_in_a_pipe_and_an_end_without_an_error(tiny, monkeypatch):
    def until_interrupted(device):
        def endless():
            yield from blocks(sound("happy"))
            raise KeyboardInterrupt

        return endless(), RATE

    monkeypatch.setattr(answers, "microphone", until_interrupted)
    done = CliRunner().invoke(main, ["listen", "--model", str(tiny)])
    assert done.exit_code == 0
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["emotion"] == "happy"
    assert set(lines[-1]["probabilities"]) == set(FOUR)
    assert "\x1b" not in done.stdout


# --- the microphone, played by a stand-in for sounddevice ---


class PortAudioError(Exception):
    """As sounddevice has it."""


def stand_in(monkeypatch, **parts):
    fake = SimpleNamespace(PortAudioError=PortAudioError, **parts)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)


def test_blocks_of_the_microphone_come_in_order(monkeypatch):
    asked = []

    class InputStream:
        def __init__(self, rate, size, device, channels, callback):
            asked.append((rate, size, device, channels))
            self.callback = callback

        def __enter__(self):
            buffer = np.empty((2, 1), np.float32)
            for i in range(3):  # sounddevice uses one buffer for all blocks
                buffer[:] = i
                self.callback(buffer, 2, None, None)

        def __exit__(self, *_):
            asked.append("closed")

    stand_in(monkeypatch, InputStream=InputStream, query_devices=lambda *_: {"default_samplerate": 44_100.0})
    stream, rate = answers.microphone("3")
    assert rate == 44_100
    assert next(stream).tolist() == [0, 0, 1, 1, 2, 2]
    stream.close()
    assert asked == [(44_100, 4_410, 3, 1), "closed"]


def test_no_microphone_is_one_line(tiny, monkeypatch):
    def refuse(*_):
        raise PortAudioError("Error querying device -1")

    stand_in(monkeypatch, query_devices=refuse)
    done = CliRunner().invoke(main, ["listen", "--model", str(tiny)])
    assert done.exit_code == 1
    assert done.stderr == (
        "Error: microphone: cannot be opened (Error querying device -1); `python -m sounddevice` lists the "
        "devices, choose one with --device\n"
    )
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    done = CliRunner().invoke(main, ["listen", "--model", str(tiny)])
    assert done.exit_code == 1
    assert "python -m pip install sounddevice" in done.stderr
