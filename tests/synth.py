"""Synthesised speech-like clips: a pulse train through formant resonators, syllables and pauses.

Pitch, level, tempo and brightness follow the emotion, base pitch and vocal tract the speaker, so a
classifier has something to learn and speakers differ. No recorded speech is needed by the tests.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import lfilter

from ser_lib.corpora import EIGHT

ACTORS = (1, 2, 3, 4, 5, 6)  # of three published folds: (2, 5), (3, 6) and (1, 4)
VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (530, 1840, 2480), (570, 840, 2410), (300, 870, 2240))

# semitones from the speaker's base, semitones of movement, level in dB, syllables a second, breath
MANNER = {
    "neutral": (0, 1, -28, 4.0, 0.02),
    "calm": (-1, 1, -32, 3.0, 0.05),
    "happy": (6, 5, -22, 5.0, 0.02),
    "sad": (1, 1, -35, 2.8, 0.08),
    "angry": (7, 3, -16, 5.2, 0.01),
    "fearful": (9, 2, -23, 6.5, 0.06),
    "disgust": (2, 3, -26, 3.3, 0.03),
    "surprised": (11, 7, -23, 4.2, 0.02),
}


def speech(emotion: str, speaker: int, seed: int = 0, rate: int = 16_000, seconds: float = 1.2) -> np.ndarray:
    """One clip, float32 of shape (seconds * rate,), with a little silence at both ends."""
    rng = np.random.default_rng([EIGHT.index(emotion), speaker, seed])
    lift, movement, level, tempo, breath = MANNER[emotion]
    base = (115 if speaker % 2 else 200) * 2 ** (0.1 * np.sin(speaker))  # hertz; odd numbers are men
    tract = (1.0 if speaker % 2 else 1.15) * (1 + 0.03 * np.cos(2 * speaker))

    margin = np.zeros(int(0.1 * rate), np.float32)
    n = int(seconds * rate) - 2 * len(margin)
    time = np.arange(n) / rate
    phrase = np.sin(2 * np.pi * (0.6 * time / time[-1] + rng.uniform(0, 0.3)))
    vibrato = 0.2 * np.sin(2 * np.pi * 5.5 * time)
    jitter = np.repeat(rng.normal(0, 0.15, n // 80 + 1), 80)[:n]
    f0 = base * 2 ** ((lift + movement * phrase + vibrato + jitter + rng.normal(0, 0.7)) / 12)
    pulses = np.diff(np.floor(np.cumsum(f0) / rate), prepend=0)

    tempo *= rng.uniform(0.9, 1.1)
    position = (time * tempo) % 1
    envelope = np.clip(np.minimum(position, 0.85 - position) * 8, 0, 1)  # the last 15 % is a pause
    out = np.zeros(n)
    for i in range(int(time[-1] * tempo) + 1):
        here = (time * tempo).astype(int) == i
        sound = pulses[here] + breath * rng.normal(size=here.sum())
        for formant, width in zip(
            (*VOWELS[rng.integers(len(VOWELS))], 3500), (80, 100, 140, 200), strict=True
        ):
            radius = np.exp(-np.pi * width / rate)
            angle = 2 * np.pi * min(formant * tract, 0.45 * rate) / rate
            sound = lfilter([1 - radius], [1, -2 * radius * np.cos(angle), radius**2], sound)
        out[here] = sound
    out *= envelope
    out *= 10 ** ((level + rng.normal(0, 1)) / 20) / np.sqrt(np.mean(out**2))
    out += 1e-4 * rng.normal(size=n)
    return np.clip(np.concatenate([margin, out, margin]), -0.99, 0.99).astype(np.float32)


def write_ravdess(folder: Path, actors=ACTORS, *, rate: int = 16_000) -> Path:
    """A corpus with RAVDESS names: each actor says each emotion twice, and two of them strongly."""
    for actor in actors:
        (folder / f"Actor_{actor:02d}").mkdir(parents=True)
        renditions = [(code, 1, repetition) for code in range(1, 9) for repetition in (1, 2)]
        for emotion, intensity, repetition in [*renditions, (3, 2, 1), (5, 2, 1)]:
            clip = speech(EIGHT[emotion - 1], actor, seed=10 * intensity + repetition, rate=rate)
            name = f"03-01-{emotion:02d}-{intensity:02d}-01-{repetition:02d}-{actor:02d}.wav"
            soundfile.write(folder / f"Actor_{actor:02d}" / name, clip, rate, subtype="PCM_16")
    return folder
