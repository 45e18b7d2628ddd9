"""The microphone, heard as it goes, and bars of what is heard.

A block of samples has shape (n_samples,) and is mono; full scale is 1.
"""

from __future__ import annotations

import io
import queue
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ser_lib.errors import AudioError, SerError
from ser_lib.hearing import WINDOW_S, Bundle

LIVE_S = 0.5  # seconds between two answers to the microphone
BAR = 30  # characters of a probability of 1
EIGHTHS = " ▏▎▍▌▋▊▉"
UP = "\x1b[{}A"  # ANSI: the cursor goes up
CLEAR = "\x1b[K"  # ANSI: the rest of the line is emptied


def live(model: Bundle, blocks: Iterable[np.ndarray], rate: int) -> Iterator[dict[str, Any]]:
    """Hear a sound that goes on, always its last `WINDOW_S` seconds.

    Parameters
    ----------
    model : Bundle
    blocks : iterable of ndarray, shape (n_samples,)
        As they come, of any length; at most one answer a block, so that a slow machine does not fall behind.
    rate : int
        Hertz.

    Yields
    ------
    dict
        At least `LIVE_S` apart: `end_s` and, as `Bundle.predict` gives them, `emotion`, `confidence`,
        `probabilities`, `abstained`, `warnings`; an `emotion` of None and `silent` where there is nothing to hear.
    """
    import soundfile

    held, n_samples, fresh = np.empty(0, np.float32), 0, 0
    for block in blocks:
        held = np.concatenate([held, block])[-int(WINDOW_S * rate) :]
        n_samples, fresh = n_samples + len(block), fresh + len(block)
        if fresh < LIVE_S * rate:
            continue
        fresh = 0
        wav, when = io.BytesIO(), {"end_s": round(n_samples / rate, 2)}
        soundfile.write(wav, held, rate, format="WAV", subtype="FLOAT")
        try:
            answer = model.predict(wav.getvalue(), name="microphone")
        except AudioError:  # silent, or next to it
            yield when | {"emotion": None, "silent": True}
            continue
        yield when | {
            name: answer[name] for name in ("emotion", "confidence", "probabilities", "abstained", "warnings")
        }


def microphone(device: str | None = None) -> tuple[Iterator[np.ndarray], int]:
    """Blocks of a microphone as they come, without end, and their rate in hertz.

    Parameters
    ----------
    device : str, optional
        A part of its name, or its number.

    Raises
    ------
    SerError
        The extra `mic` is not installed, or there is no such microphone.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: PortAudio, which is not in its wheel for Linux
        raise SerError(
            f"no access to microphones ({error}); `python -m pip install sounddevice`, and on Linux the package libportaudio2"
        ) from error
    chosen = int(device) if device and device.isdigit() else device
    try:
        rate = int(sounddevice.query_devices(chosen, "input")["default_samplerate"])
        waiting: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
        opened = sounddevice.InputStream(
            rate, rate // 10, chosen, 1, callback=lambda data, *_: waiting.put(data[:, 0].copy())
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        raise SerError(
            f"{device or 'microphone'}: cannot be opened ({error}); `python -m sounddevice` lists the devices, "
            "choose one with --device"
        ) from error

    def heard() -> Iterator[np.ndarray]:
        with opened:
            while True:
                come = [waiting.get()]
                while not waiting.empty():
                    come.append(waiting.get())
                yield np.concatenate(come)

    return heard(), rate


def bars(answers: Iterable[Mapping[str, Any]], labels: Sequence[str]) -> Iterator[str]:
    """A bar a label for a terminal, drawn over the last ones."""
    up = ""
    for answer in answers:
        p = answer.get("probabilities", {})
        lines = [f"{label:<12} {_bar(p.get(label, 0)):<{BAR}} {p.get(label, 0):4.0%}" for label in labels]
        told = "; ".join(answer.get("warnings", [])) or ("not sure" if answer.get("abstained") else "")
        lines.append(f"{answer['end_s']:.1f} s  {answer['emotion'] or 'silence'}  {told}"[:79])
        yield up + "\n".join(line + CLEAR for line in lines)
        up = UP.format(len(lines))


def _bar(share: float) -> str:
    whole, rest = divmod(round(share * BAR * 8), 8)
    return "█" * whole + EIGHTHS[rest].strip()
