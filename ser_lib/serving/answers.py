"""What is heard in files, as a table, JSON lines or CSV."""

from __future__ import annotations

import csv
import io
import json
import queue
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from ser_lib import corpora
from ser_lib.errors import AudioError, SerError
from ser_lib.serving.model import WINDOW_S, Model

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would compute a cell that begins so


def recordings(places: Iterable[str]) -> list[str]:
    """The files named, and those of each folder with its subfolders; `-` and an empty folder stay as they are.

    Examples
    --------
    >>> recordings(["a.wav", "-"])
    ['a.wav', '-']
    """
    files = []
    for place in places:
        inside = corpora.recordings(Path(place)) if place != "-" else ()
        files += sorted(map(str, inside)) or [place]
    return files


def heard(
    files: Sequence[str], hear: Callable[[str], Iterator[dict[str, Any]]], *, quiet: bool, failed: list[str]
) -> Iterator[dict[str, Any]]:
    """The answers to each file, with its name, and a progress bar where standard error is a terminal.

    What cannot be heard is told on standard error and added to `failed`; the others go on.
    """
    from tqdm import tqdm

    for file in tqdm(files, "hearing", unit="file", delay=2, leave=False, disable=True if quiet else None):
        try:
            if Path(file).is_dir():
                raise AudioError(
                    f"{file}: no recordings ({', '.join(corpora.SUFFIXES)}) in it or its subfolders"
                )
            for row in hear(file):
                yield {"file": file} | row
        except SerError as error:
            failed.append(file)
            say(str(error), err=True)


def say(line: str, *, err: bool = False) -> None:
    """A line on standard output or error, around the progress bar."""
    from tqdm import tqdm

    with tqdm.external_write_mode(sys.stderr if err else sys.stdout):
        click.echo(line, err=err)


# --- answers as text -------------------------------------------------------------------------------


def written(
    rows: Iterable[Mapping[str, Any]], form: str, labels: Sequence[str], first: Sequence[str] = ("file",)
) -> Iterator[str]:
    """Answers as lines without their ends, each as soon as it is there.

    Parameters
    ----------
    rows : iterable of dict
        Answers of `Bundle.predict` or `Bundle.timeline`, with what `first` names.
    form : table, jsonl or csv

    Examples
    --------
    >>> answer = {"file": "a.wav", "emotion": "sad", "confidence": 0.9, "abstained": False}
    >>> for line in written([answer | {"probabilities": {"sad": 0.9, "calm": 0.1}}], "csv", ["calm", "sad"]):
    ...     print(line)
    file,emotion,confidence,abstained,p_calm,p_sad
    a.wav,sad,0.9,False,0.1,0.9
    """
    if form == "jsonl":
        return (json.dumps(row) for row in rows)
    return as_csv(rows, labels, first) if form == "csv" else _as_table(rows, labels, first)


def as_csv(rows: Iterable[Mapping[str, Any]], labels: Sequence[str], first: Sequence[str]) -> Iterator[str]:
    """CSV lines: the columns `first`, then emotion, confidence, whether it abstained, and `p_<label>`."""
    columns = (*first, "emotion", "confidence", "abstained")
    yield _csv_line([*columns, *(f"p_{label}" for label in labels)])
    for row in rows:
        p = row.get("probabilities", {})
        yield _csv_line([*(row.get(name) for name in columns), *(p.get(label) for label in labels)])


def _csv_line(cells: list[Any]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow([_harmless(cell) for cell in cells])
    return out.getvalue()


def _harmless(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell[1:] and cell.startswith(FORMULA) else cell


def _as_table(
    rows: Iterable[Mapping[str, Any]], labels: Sequence[str], first: Sequence[str]
) -> Iterator[str]:
    """Columns of one width; the file, whose name may be long, comes last."""
    times = [name for name in first if name != "file"]
    width = max(map(len, [*labels, "emotion"]))
    head = "".join(f"{name:>8}  " for name in times)
    yield f"{head}{'emotion':<{width}}  sure   file"
    for row in rows:
        said = f"{row['confidence']:4.0%}{'?' if row['abstained'] else ' '}" if row["emotion"] else "     "
        when = "".join(f"{row[name]:8.1f}  " for name in times)
        yield f"{when}{row['emotion'] or 'silent':<{width}}  {said}  {row['file']}"


# --- the microphone -------------------------------------------------------------------------------

LIVE_S = 0.5  # seconds between two answers to the microphone
BAR = 30  # characters of a probability of 1
EIGHTHS = " ▏▎▍▌▋▊▉"
UP = "\x1b[{}A"  # ANSI: the cursor goes up
CLEAR = "\x1b[K"  # ANSI: the rest of the line is emptied


def live(model: Model, blocks: Iterable[np.ndarray], rate: int) -> Iterator[dict[str, Any]]:
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
