"""Recordings of any format to mono samples at one rate, the same for training and serving."""

from ser_lib.audio.clip import (
    Audio,
    AudioConfig,
    Change,
    content_hash,
    load,
    mix_down,
    prepare,
    resample,
    stream,
    trim,
)

__all__ = [
    "Audio",
    "AudioConfig",
    "Change",
    "content_hash",
    "load",
    "mix_down",
    "prepare",
    "resample",
    "stream",
    "trim",
]
