"""Write models/silero_vad.npz: the weights of the voice activity detector Silero VAD, as half-precision arrays.

    python -m pip download --no-deps silero-vad==6.2.3 && python -m pip install onnx
    python tools/make_voice_weights.py silero_vad-6.2.3-py3-none-any.whl

The network itself is `voice_probability` in ser_lib/audio/quality.py. Silero VAD: Silero Team, MIT licence
(models/silero_vad.LICENSE).
"""

import sys
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import onnx
from onnx import numpy_helper

MEMBER = "silero_vad/data/silero_vad_16k_sequence.onnx"
SHA256 = "9ccdacc4719d8aa7e45a77536bfabec45a03ba1f2fad5e241ab4060b24238a85"
NAMES = {
    "stft.forward_basis_buffer": "stft",
    "onnx::LSTM_209": "lstm_input",
    "onnx::LSTM_210": "lstm_state",
    "onnx::LSTM_211": "lstm_bias",
}

content = ZipFile(sys.argv[1]).read(MEMBER)
if (digest := sha256(content).hexdigest()) != SHA256:
    sys.exit(f"{sys.argv[1]}: {MEMBER} has SHA-256 {digest}, expected {SHA256}; take silero-vad 6.2.3")
weights = {
    NAMES.get(each.name, each.name.replace(".", "_")): numpy_helper.to_array(each).astype(np.float16)
    for each in onnx.load_from_string(content).graph.initializer
}
np.savez_compressed(Path(__file__).parents[1] / "models" / "silero_vad.npz", **weights)
