"""Changes to a waveform: augmented copies for training, distortions for robustness tests."""

from ser_lib.augmentation.changes import (
    TRAINING,
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
    "TRAINING",
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
