"""Changes to a waveform: augmented copies for training, distortions for robustness tests."""

from ser_lib.augmentation.changes import (
    SPEEDS,
    TRAINING,
    TUTORIALS,
    Chain,
    Change,
    Gain,
    Microphone,
    Noise,
    Pitch,
    Room,
    Speed,
    Telephone,
    Tilt,
)

__all__ = [
    "SPEEDS",
    "TRAINING",
    "TUTORIALS",
    "Chain",
    "Change",
    "Gain",
    "Microphone",
    "Noise",
    "Pitch",
    "Room",
    "Speed",
    "Telephone",
    "Tilt",
]
