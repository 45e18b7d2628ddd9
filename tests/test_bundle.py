"""The model file: what goes in comes out, and what is not what it claims is refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import soundfile
from synth import speech

from ser_lib import audio, bundle, models
from ser_lib.corpus import FOUR
from ser_lib.errors import AudioError, BundleError
from ser_lib.features import FeatureConfig, extract, feature_names


def wav(samples: np.ndarray, rate: int = 16_000) -> bytes:
    """The content of a WAV file."""
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format="WAV")
    return out.getvalue()


def save_tiny(path: Path, **about):
    """Fit a small model on four emotions of four synthesised speakers, save it, and return it."""
    config = FeatureConfig("compact")
    said = [(emotion, speaker) for emotion in FOUR for speaker in (1, 2, 3, 4)]
    rows = [extract(audio.load(wav(speech(*each))), config) for each in said]
    X = np.array([[row[name] for name in feature_names(config)] for row in rows], np.float32)
    model = models.make("logistic", logisticregression__C=1.0).fit(X, [emotion for emotion, _ in said])
    strong = models.make("logistic").fit(X, ["strong" if speaker > 2 else "normal" for _, speaker in said])
    settings = {"abstain_below": 0.5, "conformal": {"0.9": 0.8}, "created": "2020-01-01"}
    fitted, temperatures = {"emotion": model, "intensity": strong}, {"emotion": 1.5, "intensity": 1.0}
    bundle.save(fitted, path, config=config, temperatures=temperatures, **settings | about)
    return model, X


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder, model and training features of a saved model; to be read, not changed."""
    folder = tmp_path_factory.mktemp("saved")
    return folder, *save_tiny(folder / "tiny.json", licence="CC0")


@pytest.fixture
def tiny(saved, tmp_path):
    """Path of the passport in a copy of the saved model."""
    shutil.copytree(saved[0], tmp_path / "model")
    return tmp_path / "model" / "tiny.json"


def edit(path: Path, **changes) -> None:
    """Change the passport."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_round_trip(saved):
    folder, model, X = saved
    loaded = bundle.load(folder / "tiny.json")
    np.testing.assert_array_equal(loaded.models["emotion"].predict_proba(X), model.predict_proba(X))
    assert loaded.config == FeatureConfig("compact")
    assert loaded.passport["name"] == "tiny"
    assert loaded.passport["licence"] == "CC0"
    assert loaded.passport["classes"] == sorted(FOUR)


@pytest.mark.parametrize("emotion", FOUR)
def test_probabilities_by_name(tiny, emotion):
    """A clip of the training set is recognised, so no probability stands under another's name."""
    answer = bundle.load(tiny).predict(wav(speech(emotion, 2)), name="clip.wav")
    assert answer["emotion"] == emotion == max(answer["probabilities"], key=answer["probabilities"].get)
    assert answer["confidence"] == answer["probabilities"][emotion]
    assert set(answer["probabilities"]) == set(FOUR)
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=3e-4)
    assert answer["duration_s"] == 1.2
    assert answer["model"]["name"] == "tiny"


def test_same_clip_from_path_bytes_and_file(tiny, tmp_path):
    model, content = bundle.load(tiny), wav(speech("happy", 1))
    path = tmp_path / "clip.wav"
    path.write_bytes(content)
    assert model.predict(path) == model.predict(content) == model.predict(io.BytesIO(content))


def test_temperature_softens_and_keeps_the_order(tiny):
    clip = audio.load(wav(speech("calm", 3)))
    sharp = bundle.load(tiny).probabilities(clip)["emotion"]
    edit(tiny, temperatures={"emotion": 4.0, "intensity": 1.0})
    soft = bundle.load(tiny).probabilities(clip)["emotion"]
    assert max(soft.values()) < max(sharp.values())
    assert sorted(soft, key=soft.get) == sorted(sharp, key=sharp.get)


def test_intensity_set_and_abstaining(tiny):
    """Each threshold decides at its very value; without a second model nothing is said of intensity."""
    content = wav(speech("happy", 4))
    answer = bundle.load(tiny).predict(content)
    p = answer["probabilities"]
    assert answer["intensity"]["strong"] > 0.5
    assert sum(answer["intensity"].values()) == pytest.approx(1, abs=2e-4)
    last = min(p.values())
    edit(tiny, abstain_below=answer["confidence"] + 1e-9, conformal={"0.9": 1 - last})
    answer = bundle.load(tiny).predict(content)
    assert answer["abstained"]
    assert set(answer["prediction_set"]) == set(FOUR)
    edit(tiny, abstain_below=answer["confidence"], conformal={"0.9": 1 - last - 1e-9})
    answer = bundle.load(tiny).predict(content)
    assert not answer["abstained"]
    assert answer["prediction_set"] == sorted((label for label in p if p[label] > last), key=lambda k: -p[k])
    fitted, passport = bundle.load(tiny).models, json.loads(tiny.read_text())
    kept = {key: passport[key] for key in ("temperatures", "abstain_below", "conformal", "created")}
    bundle.save({"emotion": fitted["emotion"]}, tiny, config=FeatureConfig("compact"), **kept)
    assert "intensity" not in bundle.load(tiny).predict(content)


def test_bad_clip_is_named(tiny):
    with pytest.raises(AudioError, match=r"^note\.wav: not audio, or damaged"):
        bundle.load(tiny).predict(b"hello", name="note.wav")


class Payload:
    """Pickled, it makes a folder on loading."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_altered_pickle_is_refused_unread(tiny, tmp_path):
    content = pickle.dumps(Payload(tmp_path / "owned"))
    tiny.with_suffix(".pkl").write_bytes(content)
    found = sha256(content).hexdigest()[:12]
    with pytest.raises(
        BundleError, match=rf"tiny\.pkl: SHA-256 {found}… is not the passport's; .*not loaded"
    ):
        bundle.load(tiny)
    assert not (tmp_path / "owned").exists()
    pickle.loads(content)  # the payload works: had it been loaded, the folder would be there
    assert (tmp_path / "owned").exists()


def test_one_flipped_bit_is_refused(tiny):
    content = bytearray(tiny.with_suffix(".pkl").read_bytes())
    content[len(content) // 2] ^= 1
    tiny.with_suffix(".pkl").write_bytes(content)
    with pytest.raises(BundleError, match="is not the passport's"):
        bundle.load(tiny)


def test_other_library_version_is_refused(tiny):
    libraries = bundle.versions()
    edit(tiny, libraries=libraries | {"scikit-learn": "0.1"})
    with pytest.raises(
        BundleError, match=rf"tiny\.json: made with scikit-learn 0\.1 \(here {libraries['scikit-learn']}\)"
    ):
        bundle.load(tiny)


def test_other_features_are_refused(tiny):
    config = json.loads(tiny.read_text())["feature_config"]
    edit(tiny, feature_config=config | {"hop": 80})
    with pytest.raises(BundleError, match=r"tiny\.json: its features are not those of this ser_lib"):
        bundle.load(tiny)


def test_renamed_feature_is_refused(tiny):
    names = json.loads(tiny.read_text())["feature_names"]
    edit(tiny, feature_names=[*names[:-1], "loudness_of_old"])
    with pytest.raises(BundleError, match="its features are not those of this ser_lib"):
        bundle.load(tiny)


@pytest.mark.parametrize("suffix", [".json", ".pkl"])
def test_missing_file_is_named(tiny, suffix):
    tiny.with_suffix(suffix).unlink()
    with pytest.raises(BundleError, match=rf"tiny\{suffix}: no such file; retrain it"):
        bundle.load(tiny)


@pytest.mark.parametrize("text", ["", "{", '{"name": "tiny"', "\x80\x05binary"])
def test_broken_passport_is_refused(tiny, text):
    tiny.write_text(text, encoding="latin-1")
    with pytest.raises(BundleError, match=r"tiny\.json: not a passport \("):
        bundle.load(tiny)


@pytest.mark.skipif(not bundle.DEFAULT.exists(), reason="models/ser.json is not there: make reports")
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_shipped_model(rate):
    answer = bundle.load().predict(wav(speech("angry", 1, rate=rate), rate))
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=5e-4)
    assert answer["emotion"] in answer["probabilities"]
