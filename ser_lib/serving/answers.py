"""Answers on the command line: for files, or live from the microphone; as a table, JSON lines, CSV or bars."""

from __future__ import annotations

import csv
import io
import json
import os
import queue
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import click
import numpy as np

from ser_lib import audio
from ser_lib.audio import decoding
from ser_lib.errors import AudioError, SerError, explain
from ser_lib.serving.model import WINDOW_S, Model

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would compute a cell that begins so


def list_files(places: Iterable[str], *, quiet: bool = True) -> list[str]:
    """List files, and the recordings in folders and their subfolders; `-` and a folder without any stay as given.

    Unless `quiet`, the number of other files in each folder is printed on standard error.

    Raises
    ------
    SerError
        An empty name.

    Examples
    --------
    >>> list_files(["a.wav", "-"])
    ['a.wav', '-']
    """
    files = []
    for place in places:
        if not place.strip():
            raise SerError(
                "an empty name where a file belongs; give a file, a folder, or - for standard input"
            )
        if place == "-" or not os.path.isdir(place):
            files.append(place)
            continue
        files += sorted(map(str, decoding.recordings(place))) or [place]
        others = decoding.other_files(place)
        if others and not quiet:
            echo(f"{place}: {decoding.other_files_text(others)}", err=True)
    return files


def answer_files(
    files: Sequence[str],
    predict: Callable[[str], Iterator[dict[str, Any]]],
    *,
    quiet: bool,
    failed: list[str],
) -> Iterator[dict[str, Any]]:
    """Yield the answers to each file, with its name; a progress bar shows where standard error is a terminal.

    A file without an answer is named on standard error and added to `failed`; the others go on.
    """
    from tqdm import tqdm

    for file in tqdm(files, "analysing", unit="file", delay=2, leave=False, disable=True if quiet else None):
        try:
            if os.path.isdir(file):
                if not os.access(file, os.R_OK | os.X_OK):
                    raise AudioError(f"{file}: the folder cannot be read; change its permissions")
                raise AudioError(
                    f"{file}: no recordings ({', '.join(decoding.SUFFIXES)}) in it or its subfolders"
                )
            for answer in predict(file):
                yield {"file": file} | answer
        except (SerError, OSError) as error:
            failed.append(file)
            name = "standard input" if file == "-" else file
            echo(explain(error, name) if isinstance(error, OSError) else str(error), err=True)


def echo(line: str, *, err: bool = False) -> None:
    """Print a line without disturbing the progress bar."""
    from tqdm import tqdm

    with tqdm.external_write_mode(sys.stderr if err else sys.stdout):
        click.echo(line, err=err)


# --- answers as text -------------------------------------------------------------------------------


def as_lines(
    answers: Iterable[Mapping[str, Any]], form: str, labels: Sequence[str], first: Sequence[str] = ("file",)
) -> Iterator[str]:
    """Format answers as lines of a table, jsonl or csv, each as soon as its answer is there; `first`: first columns.

    Examples
    --------
    >>> answer = {"file": "a.wav", "emotion": "sad", "confidence": 0.9, "abstained": False}
    >>> for line in as_lines([answer | {"probabilities": {"sad": 0.9, "calm": 0.1}}], "csv", ["calm", "sad"]):
    ...     print(line)
    file,emotion,confidence,abstained,p_calm,p_sad
    a.wav,sad,0.9,False,0.1,0.9
    """
    if form == "jsonl":
        return (json.dumps(answer) for answer in answers)
    return as_csv(answers, labels, first) if form == "csv" else _as_table(answers, labels, first)


def as_csv(
    answers: Iterable[Mapping[str, Any]],
    labels: Sequence[str],
    first: Sequence[str],
    last: Sequence[str] = (),
) -> Iterator[str]:
    """CSV lines with the columns `first`, emotion, confidence, abstained, `p_<label>` for each label, and `last`."""
    columns = (*first, "emotion", "confidence", "abstained")
    yield _csv_line([*columns, *(f"p_{label}" for label in labels), *last])
    for answer in answers:
        p = answer.get("probabilities", {})
        cells = [*(answer.get(name) for name in columns), *(p.get(label) for label in labels)]
        yield _csv_line([*cells, *(answer.get(name) for name in last)])


def _csv_line(cells: list[Any]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow([_harmless(cell) for cell in cells])
    return out.getvalue()


def _harmless(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell[1:] and cell.startswith(FORMULA) else cell


def _as_table(
    answers: Iterable[Mapping[str, Any]], labels: Sequence[str], first: Sequence[str]
) -> Iterator[str]:
    """Columns of equal width; the file, whose name may be long, comes last."""
    times = [name for name in first if name != "file"]
    width = max(map(len, [*labels, "emotion"]))
    yield "".join(f"{name:>8}  " for name in times) + f"{'emotion':<{width}}  sure   file"
    for answer in answers:
        emotion, sure = "silent", "     "
        if answer["emotion"]:
            emotion = answer["emotion"]
            sure = f"{answer['confidence']:4.0%}{'?' if answer['abstained'] else ' '}"
        seconds = "".join(f"{answer[name]:8.1f}  " for name in times)
        yield f"{seconds}{emotion:<{width}}  {sure}  {answer['file']}"


# --- the microphone -------------------------------------------------------------------------------

LIVE_S = 0.5  # seconds between two live answers
BAR = 30  # characters of a probability of 1
EIGHTHS = " ▏▎▍▌▋▊▉"
UP = "\x1b[{}A"  # ANSI: the cursor goes up
CLEAR = "\x1b[K"  # ANSI: the rest of the line is emptied
LIVE_KEYS = ("emotion", "confidence", "probabilities", "abstained", "warnings")


def live(model: Model, blocks: Iterable[np.ndarray], rate: int) -> Iterator[dict[str, Any]]:
    """Predict the emotion of the last `WINDOW_S` seconds, again and again, while sound comes in.

    Parameters
    ----------
    blocks : iterable of ndarray, shape (n_samples,)
        Of any length; at most one answer a block, so that a slow machine does not fall behind.
    rate : int
        Hertz.

    Yields
    ------
    dict
        At least `LIVE_S` apart: `end_s` and, as in `Model.predict`, `emotion`, `confidence`, `probabilities`,
        `abstained`, `warnings`; in silence an `emotion` of None and `silent`.
    """
    window, n_samples, fresh = np.empty(0, np.float32), 0, 0
    for block in blocks:
        window = np.concatenate([window, block])[-int(WINDOW_S * rate) :]
        n_samples, fresh = n_samples + len(block), fresh + len(block)
        if fresh < LIVE_S * rate:
            continue
        fresh = 0
        time = {"end_s": round(n_samples / rate, 2)}
        try:
            clip = audio.prepare(window[:, None], rate, model.config.audio, name="microphone")
        except AudioError:  # silent or nearly so
            yield time | {"emotion": None, "silent": True}
            continue
        answer = model.answer(clip)
        yield time | {key: answer[key] for key in LIVE_KEYS}


def microphone(device: str | None = None) -> tuple[Iterator[np.ndarray], int]:
    """Open a microphone: an endless iterator over blocks of samples, and their rate in hertz.

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
    waiting: queue.SimpleQueue[np.ndarray] = queue.SimpleQueue()
    try:
        rate = int(sounddevice.query_devices(chosen, "input")["default_samplerate"])
        stream = sounddevice.InputStream(
            rate, rate // 10, chosen, 1, callback=lambda data, *_: waiting.put(data[:, 0].copy())
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        raise SerError(
            f"{device or 'microphone'}: cannot be opened ({error}); `python -m sounddevice` lists the devices, "
            "choose one with --device"
        ) from error

    def blocks() -> Iterator[np.ndarray]:
        with stream:
            while True:
                parts = [waiting.get()]
                while not waiting.empty():
                    parts.append(waiting.get())
                yield np.concatenate(parts)

    return blocks(), rate


def bars(answers: Iterable[Mapping[str, Any]], labels: Sequence[str]) -> Iterator[str]:
    """A bar for each label, drawn over the previous ones in a terminal."""
    up = ""
    for answer in answers:
        p = answer.get("probabilities", {})
        lines = [f"{label:<12} {_bar(p.get(label, 0)):<{BAR}} {p.get(label, 0):4.0%}" for label in labels]
        remark = "; ".join(answer.get("warnings", [])) or ("not sure" if answer.get("abstained") else "")
        lines.append(f"{answer['end_s']:.1f} s  {answer['emotion'] or 'silence'}  {remark}"[:79])
        yield up + "\n".join(line + CLEAR for line in lines)
        up = UP.format(len(lines))


def _bar(share: float) -> str:
    whole, rest = divmod(round(share * BAR * 8), 8)
    return "█" * whole + EIGHTHS[rest].strip()
