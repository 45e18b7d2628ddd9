"""bundle: a saved model predicts the same when loaded; altered files are refused."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import warnings
from functools import cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import soundfile
from click.testing import CliRunner
from synth import speech

import ser_lib
from ser_lib import audio, models, provenance
from ser_lib.cli import main
from ser_lib.corpora import FOUR
from ser_lib.errors import AudioError, BundleError, SerError
from ser_lib.features import FeatureConfig, extract, feature_names
from ser_lib.features.relative import Speakers
from ser_lib.serving import bundle, model
from ser_lib.serving.model import Model, Typical


def wav(samples: np.ndarray, rate: int = 16_000) -> bytes:
    """The content of a WAV file."""
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format="WAV")
    return out.getvalue()


@cache
def fitted() -> tuple[dict, np.ndarray]:
    """Small models, fitted on four emotions of four synthesised speakers, and the features of these."""
    config = FeatureConfig("compact")
    clips = [(emotion, speaker) for emotion in FOUR for speaker in (1, 2, 3, 4)]
    rows = [extract(audio.load(wav(speech(*each))), config) for each in clips]
    X = np.array([[row[name] for name in feature_names(config)] for row in rows], np.float32)
    emotions, strength = (
        [each[0] for each in clips],
        ["strong" if each[1] > 2 else "normal" for each in clips],
    )
    return {
        "emotion": models.make("logistic", logisticregression__C=1.0).fit(X, emotions),
        "intensity": models.make("logistic").fit(X, strength),
        "enrolled": models.make("logistic", logisticregression__C=1.0).fit(X - X.mean(axis=0), emotions),
    }, X


def save_tiny(path: Path, **about):
    """Save the small models, and return that of emotions with its features."""
    small, X = fitted()
    settings = {"abstain_below": 0.5, "conformal": {"0.9": 0.8}, "created": "2020-01-01"}
    settings |= {"least_speech_s": 0.0}  # the clips of these tests are synthesised
    settings |= {"temperatures": {"emotion": 1.5, "intensity": 1.0, "enrolled": 1.2}}
    known = {"typical": Typical.of(X), "speakers": Speakers(X.mean(axis=0), X.var(axis=0))}
    bundle.save(small, path, config=FeatureConfig("compact"), **known | settings | about)
    return small["emotion"], X


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder, model and training features of a saved model; to be read, not changed."""
    folder = tmp_path_factory.mktemp("saved")
    return folder, *save_tiny(folder / "tiny.json", licence="CC0")


@pytest.fixture
def tiny(saved, tmp_path):
    """Path of the metadata in a copy of the saved model."""
    shutil.copytree(saved[0], tmp_path / "model")
    return tmp_path / "model" / "tiny.json"


def edit(path: Path, **changes) -> None:
    """Change the metadata, with the right hash."""
    about = json.loads(path.read_text(encoding="utf-8")) | changes
    if "metadata_sha256" not in changes:
        about["metadata_sha256"] = bundle.metadata_hash(about)
    path.write_text(json.dumps(about), encoding="utf-8")


def again(path: Path, without: str = "", **changes) -> Model:
    """Save a model once more with other settings, and load it."""
    old = bundle.load(path)
    kept = {key: old.metadata[key] for key in ("temperatures", "abstain_below", "conformal", "created")}
    fitted = {what: model for what, model in old.models.items() if what != without}
    known = {"typical": old.typical, "speakers": None if without == "enrolled" else old.speakers}
    bundle.save(fitted, path, config=old.config, **known, **kept | changes)
    return bundle.load(path)


def test_round_trip(saved):
    folder, model, X = saved
    loaded = bundle.load(folder / "tiny.json")
    np.testing.assert_array_equal(loaded.models["emotion"].predict_proba(X), model.predict_proba(X))
    assert loaded.config == FeatureConfig("compact")
    assert loaded.metadata["name"] == "tiny"
    assert loaded.metadata["licence"] == "CC0"
    assert loaded.metadata["classes"] == sorted(FOUR)


@pytest.mark.parametrize("emotion", FOUR)
def test_probabilities_by_name(tiny, emotion):
    """A clip of the training set is recognised, so no probability stands under another's name."""
    answer = bundle.load(tiny).predict(wav(speech(emotion, 2)), name="clip.wav")
    assert answer["emotion"] == emotion == max(answer["probabilities"], key=answer["probabilities"].get)
    assert answer["confidence"] == answer["probabilities"][emotion]
    assert set(answer["probabilities"]) == set(FOUR)
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=3e-4)
    assert answer["quality"]["duration_s"] == 1.2
    assert answer["model"]["name"] == "tiny"


@pytest.mark.parametrize("name", ["majority", "xgboost"])
def test_the_files_of_a_model(tmp_path, name):
    """In a folder that was not there; the booster's version is that of models that have one."""
    path = tmp_path / "new" / "folder" / "small.json"
    x, y = np.zeros((4, len(feature_names(FeatureConfig("compact"))))), ["calm", "happy"] * 2
    kept = {"config": FeatureConfig("compact"), "typical": Typical.of(x + np.arange(4)[:, None])}
    kept |= {
        "temperatures": {"emotion": 1.0},
        "abstain_below": 0.0,
        "conformal": {"0.9": 1.0},
        "created": "2020-01-01",
    }
    here = provenance.versions()
    metadata = bundle.save({"emotion": models.make(name).fit(x, y)}, path, **kept)
    booster = {provenance.BOOSTER} if name == "xgboost" else set()
    assert metadata["libraries"] == {k: here[k] for k in here.keys() - {provenance.BOOSTER} | booster}
    assert path.read_text(encoding="utf-8") == json.dumps(metadata, indent=1) + "\n"
    assert path.with_suffix(".pkl").read_bytes()[:2] == b"\x80\x05"  # every Python since 3.8 reads it
    assert bundle.load(path).metadata == metadata


def test_same_clip_from_path_bytes_and_file(tiny, tmp_path):
    model, content = bundle.load(tiny), wav(speech("happy", 1))
    path = tmp_path / "clip.wav"
    path.write_bytes(content)
    assert model.predict(path) == model.predict(content) == model.predict(io.BytesIO(content))


def test_temperature_softens_and_keeps_the_order(tiny):
    clip = wav(speech("calm", 3))
    sharp = bundle.load(tiny).predict(clip)["probabilities"]
    soft = again(tiny, temperatures={"emotion": 4.0, "intensity": 1.0, "enrolled": 1.0}).predict(clip)[
        "probabilities"
    ]
    assert max(soft.values()) < max(sharp.values())
    assert sorted(soft, key=soft.get) == sorted(sharp, key=sharp.get)


def test_intensity_set_and_abstaining(tiny):
    """Each threshold decides at its very value; without an intensity model there is no intensity."""
    content = wav(speech("happy", 4))
    answer = bundle.load(tiny).predict(content)
    p = answer["probabilities"]
    assert answer["intensity"]["strong"] > 0.5
    assert sum(answer["intensity"].values()) == pytest.approx(1, abs=2e-6)
    last = min(p.values())
    answer = again(tiny, abstain_below=answer["confidence"] + 1e-9, conformal={"0.9": 1 - last}).predict(
        content
    )
    assert answer["abstained"]
    percent = f"{100 * answer['confidence']:.0f} %."
    assert answer["reason"] == f"Too uncertain: {percent} I only commit from {percent}"
    assert set(answer["prediction_set"]) == set(FOUR)
    at = {"abstain_below": answer["confidence"], "conformal": {"0.9": 1 - last - 1e-9}}
    answer = again(tiny, **at).predict(content)
    assert not answer["abstained"]
    assert answer["reason"] is None
    assert answer["prediction_set"] == sorted((label for label in p if p[label] > last), key=lambda k: -p[k])
    assert "intensity" not in again(tiny, without="intensity").predict(content)


# --- references, long recordings, unusual clips ---


def test_references_average_both_models(tiny):
    model = bundle.load(tiny)
    clip, own = wav(speech("sad", 1)), [wav(speech("neutral", 1, seed)) for seed in (0, 1)]
    rows = np.concatenate([model.features(audio.load(source)) for source in (clip, *own)])
    x = model.speakers.relative_to(rows[1:], rows[:1])
    near, far = (
        model.models["enrolled"].predict_proba(x)[0],
        model.models["emotion"].predict_proba(rows[:1])[0],
    )
    p = (near * far) ** (1 / 2 / 1.2)
    p /= p.sum()
    assert list(model.predict(clip, references=own)["probabilities"].values()) == pytest.approx(p, abs=2e-6)
    assert model.predict(clip, references=own[:1]) != model.predict(clip, references=own)
    with pytest.raises(SerError, match="not trained for reference clips"):
        again(tiny, without="enrolled").predict(clip, references=own)


def test_a_timeline_finds_each_emotion_where_it_is(tiny):
    emotions = ["happy", "calm", "calm", "happy"]
    sound = np.concatenate(
        [np.tile(speech(emotion, 1), 5) for emotion in emotions] + [np.zeros(8 * 16_000, np.float32)]
    )
    windows = list(bundle.load(tiny).timeline(wav(sound)))
    assert [window["start_s"] for window in windows] == pytest.approx(np.arange(len(windows)) * model.STEP_S)
    assert windows[-1]["end_s"] == pytest.approx(len(sound) / 16_000, abs=0.01)
    for i, emotion in enumerate(emotions):
        inside = [w for w in windows if w["start_s"] >= 6 * i and w["end_s"] <= 6 * (i + 1)]
        assert len(inside) >= 2
        assert all(
            w["emotion"] == emotion and w["confidence"] == max(w["probabilities"].values()) for w in inside
        )
    assert [w["emotion"] for w in windows if w["start_s"] >= 24] == [None] * sum(
        w["start_s"] >= 24 for w in windows
    )


def test_a_short_clip_is_one_window_and_the_same_answer(tiny):
    model, clip = bundle.load(tiny), wav(speech("happy", 2))
    (window,) = model.timeline(clip)
    answer = model.predict(clip)
    assert window["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-5)
    assert (window["start_s"], window["end_s"]) == (0, 1.2)


def test_a_timeline_of_no_audio_or_no_numbers_is_refused(tiny):
    model = bundle.load(tiny)
    with pytest.raises(AudioError, match=r"^note: not audio"):
        list(model.timeline(b"hello", name="note"))
    broken = speech("happy", 2)
    broken[9_000] = np.nan
    out = io.BytesIO()
    soundfile.write(out, broken, 16_000, format="WAV", subtype="FLOAT")
    with pytest.raises(AudioError, match="not numbers"):
        list(model.timeline(out.getvalue()))


def test_distance_is_one_at_the_farthest_hundredth():
    values = np.random.default_rng(0).normal(5, [1, 100, 0], (1000, 3))
    typical = Typical.of(values)
    assert np.mean(typical.distance(values) > 1) == pytest.approx(0.01, abs=0.002)
    assert typical.distance(values.mean(axis=0, keepdims=True)) == pytest.approx(0)
    assert typical.distance(values[:1] + np.array([0, 1e6, 0])) > 100


def test_self_test_clips_are_unchanged():
    """Every metadata has predictions for them; processors may differ in the last of 16 bits."""
    clips = [soundfile.read(io.BytesIO(clip), dtype="int16") for clip in bundle.self_test_clips()]
    assert [(len(samples), rate) for samples, rate in clips] == [(96_000, 48_000)] * 3
    made = [[17, 2217, -2763, 2867, 1], [33, 4918, 5698, -185, 2], [44, -981, -33, -748, 10]]
    np.testing.assert_allclose([x[[1, 4_801, 24_003, 70_007, 95_999]] for x, _ in clips], made, atol=1)


def test_the_self_test_detects_another_model(tiny):
    edit(tiny, temperatures={"emotion": 2.5, "intensity": 1.0, "enrolled": 1.0})
    with pytest.raises(
        BundleError, match=r"tiny: self-test failed: \w+ has probability 0\.\d+, the metadata has"
    ):
        bundle.load(tiny)


def test_the_self_test_allows_its_tolerance(tiny, monkeypatch):
    expected = json.loads(tiny.read_text(encoding="utf-8"))["self_test"]
    label, p = next(iter(expected[0].items()))
    edit(tiny, self_test=[expected[0] | {label: p + 0.25}, *expected[1:]])
    monkeypatch.setattr(bundle, "SELF_TEST_TOLERANCE", abs(p - (p + 0.25)))
    assert bundle.load(tiny).metadata["self_test"][0][label] == p + 0.25


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
    digest = sha256(content).hexdigest()[:12]
    with pytest.raises(
        BundleError, match=rf"tiny\.pkl: SHA-256 {digest}… does not match the metadata; .*not loaded"
    ):
        bundle.load(tiny)
    assert not (tmp_path / "owned").exists()
    pickle.loads(content)  # the payload works: had it been loaded, the folder would be there
    assert (tmp_path / "owned").exists()


def test_a_pickle_that_names_anything_else_is_refused_though_its_hash_is_right(tiny, tmp_path):
    content = pickle.dumps({"models": Payload(tmp_path / "owned"), "typical": None, "speakers": None})
    tiny.with_suffix(".pkl").write_bytes(content)
    edit(tiny, sha256=sha256(content).hexdigest())
    with pytest.raises(BundleError, match=r"tiny\.pkl: it names posix\.mkdir, which no model contains"):
        bundle.load(tiny)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps([1]), pickle.dumps({"models": {}})[:-3]])
def test_what_is_no_pickle_of_a_model_is_refused(tiny, content):
    tiny.with_suffix(".pkl").write_bytes(content)
    edit(tiny, sha256=sha256(content).hexdigest())
    with pytest.raises(BundleError, match=r"tiny\.pkl: .*not loaded"):
        bundle.load(tiny)


@pytest.mark.parametrize("name", models.MODELS)
def test_every_model_can_be_loaded(name):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 6)).astype(np.float32), np.tile(["a", "b"], 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = models.make(name).fit(x, y)
    back = bundle.unpickled(pickle.dumps(model, protocol=5))
    np.testing.assert_array_equal(back.predict_proba(x), model.predict_proba(x))


def test_one_flipped_bit_is_refused(tiny):
    content = bytearray(tiny.with_suffix(".pkl").read_bytes())
    content[len(content) // 2] ^= 1
    tiny.with_suffix(".pkl").write_bytes(content)
    with pytest.raises(BundleError, match="does not match the metadata"):
        bundle.load(tiny)


def test_other_features_are_refused(tiny):
    config = json.loads(tiny.read_text(encoding="utf-8"))["feature_config"]
    edit(tiny, feature_config=config | {"hop": 80})
    with pytest.raises(
        BundleError, match=r"tiny\.json: trained on features that this ser_lib does not compute"
    ):
        bundle.load(tiny)


def test_renamed_feature_is_refused(tiny):
    names = json.loads(tiny.read_text(encoding="utf-8"))["feature_names"]
    edit(tiny, feature_names=[*names[:-1], "loudness_of_old"])
    with pytest.raises(BundleError, match="trained on features that this ser_lib does not compute"):
        bundle.load(tiny)


@pytest.mark.parametrize(("suffix", "remedy"), [(".json", "reports --notebook 04"), (".pkl", "retrain")])
def test_missing_file_is_named(tiny, suffix, remedy):
    tiny.with_suffix(suffix).unlink()
    with pytest.raises(BundleError, match=rf"tiny\{suffix}: no such file; .*`python -m ser_lib {remedy}`"):
        bundle.load(tiny)


@pytest.mark.parametrize("text", ["", "{", '{"name": "tiny"', "\x80\x05binary"])
def test_broken_metadata_is_refused(tiny, text):
    tiny.write_text(text, encoding="latin-1")
    with pytest.raises(BundleError, match=r"tiny\.json: not model metadata \("):
        bundle.load(tiny)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("conformal", [0.8]), ("conformal", {"0.8": 0.9}), ("conformal", {"0.9": "x"}), ("conformal", None),
        ("temperatures", {"emotion": 0}), ("temperatures", {"emotion": 1.5}), ("temperatures", 1.5),
        ("abstain_below", "0.5"), ("abstain_below", float("nan")), ("abstain_below", True), ("least_speech_s", "1"),
        ("classes", "angry"), ("classes", ["angry", "sad"]), ("libraries", ["numpy"]), ("libraries", {"numpy": 2}),
        ("self_test", {}), ("self_test", [1, 2]), ("self_test", None), ("sha256", 5), ("name", None), ("version", 1),
        ("feature_names", 3), ("feature_hash", []), ("feature_config", "full"), ("feature_config", {"audio": 1}),
        ("feature_config", {"name": "compact", "audio": {"sample_rate": "x"}, "n_fft": "400"}),
    ],
)  # fmt: skip
def test_a_malformed_field_is_one_line(tiny, field, value):
    edit(tiny, **{field: value})
    assert re.fullmatch(r"\S+tiny\.json: .*; .*`python -m ser_lib .*", refusal(tiny))


def test_a_malformed_field_is_shown_in_part(tiny):
    edit(tiny, classes="angry" * 30)
    assert f"{tiny}: classes is {repr('angry' * 30)[:60]}, not a list" in refusal(tiny)
    edit(tiny, classes=sorted(FOUR), temperatures={"emotion": 1.5})
    assert f"{tiny}: no temperature of intensity, enrolled; {bundle.RETRAIN}" in refusal(tiny)


def test_an_altered_score_is_refused(tiny, capsys):
    about = json.loads(tiny.read_text(encoding="utf-8"))
    tiny.write_text(json.dumps(about | {"headline": {"uar": 0.99}}), encoding="utf-8")
    assert "does not match its metadata_sha256; the file was altered" in refusal(tiny)
    done = CliRunner().invoke(main, ["card", str(tiny)])
    assert done.exit_code == 1
    assert "was altered" in done.output


def test_metadata_without_its_hash_are_refused(tiny):
    about = json.loads(tiny.read_text(encoding="utf-8"))
    del about["metadata_sha256"]
    tiny.write_text(json.dumps(about), encoding="utf-8")
    assert "without metadata_sha256" in refusal(tiny)
    save_tiny(tiny)  # in its place
    assert "metadata_sha256" in bundle.load(tiny).metadata


def test_the_layout_of_the_metadata_does_not_matter(tiny):
    about = json.loads(tiny.read_text(encoding="utf-8"))
    tiny.write_text(json.dumps(dict(reversed(about.items())), indent=4), encoding="utf-8")
    assert bundle.load(tiny).metadata == about


def refusal(path: Path) -> str:
    """The message when a model is refused."""
    with pytest.raises(BundleError) as refused:
        bundle.load(path)
    return str(refused.value)


def test_refused_files_are_named_with_the_remedy(tiny, tmp_path):
    missing, whole = tmp_path / "none.json", json.loads(tiny.read_text(encoding="utf-8"))
    assert refusal(missing) == f"{missing}: no such file; {bundle.CHOOSE}"
    assert refusal(tmp_path) == f"{tmp_path}: cannot be read (Is a directory); {bundle.CHOOSE}"
    tiny.write_text("[1]", encoding="utf-8")
    assert (
        refusal(tiny) == f"{tiny}: not model metadata (without {', '.join(bundle.REQUIRED)}); {bundle.CHOOSE}"
    )
    tiny.write_text(
        json.dumps({name: value for name, value in whole.items() if name != "self_test"}), encoding="utf-8"
    )
    assert refusal(tiny) == f"{tiny}: not model metadata (without self_test); {bundle.CHOOSE}"


def test_refused_features_are_named_with_the_remedy(tiny):
    kept = json.loads(tiny.read_text(encoding="utf-8"))["feature_config"]
    edit(tiny, feature_config={})
    assert (
        refusal(tiny)
        == f"{tiny}: trained on features that this ser_lib does not compute ('audio'); {bundle.CHOOSE}"
    )
    edit(tiny, feature_config=kept, feature_hash="0")
    assert refusal(tiny) == f"{tiny}: trained on features that this ser_lib does not compute; {bundle.CHOOSE}"


def of_other_versions(path: Path) -> str:
    """Edit the metadata to other versions, and return the start of the message about them."""
    here = provenance.versions()
    edit(path, libraries=here | {"numpy": "0.1", "scipy": "0.2", "cupy": "1"})
    listed = f"numpy 0.1 (here {here['numpy']}), scipy 0.2 (here {here['scipy']}), cupy 1 (here None)"
    return f"{path}: made with {listed}"


def test_other_versions_that_predict_the_same_are_loaded_with_one_warning(tiny, monkeypatch):
    clip, expected = wav(speech("happy", 2)), bundle.load(tiny).predict(wav(speech("happy", 2)))
    made = of_other_versions(tiny)
    monkeypatch.setattr("sklearn.base.__version__", "0.1")  # whose own warnings are many
    with pytest.warns(bundle.VersionWarning) as caught:
        model = bundle.load(tiny)
    assert [str(one.message) for one in caught] == [f"{made}; its self-test passes"]
    assert model.predict(clip) == expected


def test_other_versions_that_predict_otherwise_are_refused(tiny):
    first, *others = json.loads(tiny.read_text(encoding="utf-8"))["self_test"]
    made, label = of_other_versions(tiny), next(iter(first))
    edit(tiny, self_test=[first | {label: 2.0}, *others])
    assert refusal(tiny) == (
        f"{made}; tiny: self-test failed: {label} has probability {first[label]}, the metadata has 2.0; "
        f"features or libraries differ; {bundle.RETRAIN}"
    )


@pytest.mark.parametrize("error", [AttributeError, ModuleNotFoundError, ValueError, RuntimeWarning])
@pytest.mark.parametrize("step", ["serving.bundle.unpickled", "serving.model.Model.answer"])
def test_other_versions_that_do_not_run_are_refused(tiny, monkeypatch, error, step):
    def fail(*_, **__):
        raise error("no such part")

    monkeypatch.setattr(f"ser_lib.{step}", fail)
    made, pickled = of_other_versions(tiny), tiny.with_suffix(".pkl")
    assert refusal(tiny) == f"{made}; {pickled}: no such part; it is not loaded; {bundle.RETRAIN}"


def test_the_self_test_covers_every_model(tiny):
    """Of the emotion, of the intensity, and of the emotion beside a reference."""
    first, *others = again(tiny).metadata["self_test"]
    parts = {"calm", "of strong intensity", "calm beside another"}
    assert parts <= set(first)
    assert parts - {"calm beside another"} == parts & set(others[0])
    for label in parts:
        edit(tiny, self_test=[first | {label: 2.0}, *others])
        assert (
            f"tiny: self-test failed: {label} has probability {first[label]}, the metadata has 2.0;"
            in refusal(tiny)
        )


def test_a_failed_self_test_is_named_with_the_remedy(tiny):
    first, *others = json.loads(tiny.read_text(encoding="utf-8"))["self_test"]
    label = next(iter(first))
    edit(tiny, self_test=[dict.fromkeys(first, 2.0), *others])
    assert refusal(tiny) == (
        f"tiny: self-test failed: {label} has probability {first[label]}, the metadata has 2.0; "
        f"features or libraries differ; {bundle.RETRAIN}"
    )
    edit(tiny, self_test=[{"bored": 0.5}, *others])
    assert "self-test failed: bored has probability None, the metadata has 0.5;" in refusal(tiny)
    edit(tiny, self_test=[first, others[0]])
    assert refusal(tiny) == f"tiny: the metadata has 2 self-test clips, 3 are needed; {bundle.RETRAIN}"


def test_refused_pickles_are_named_with_the_remedy(tiny):
    pickled, parts = tiny.with_suffix(".pkl"), pickle.dumps({"models": {}, "typical": {}})
    pickled.write_bytes(parts)
    edit(tiny, sha256=sha256(parts).hexdigest())
    assert refusal(tiny) == f"{pickled}: 'speakers'; it is not loaded; {bundle.RETRAIN}"
    pickled.write_bytes(b"hello")
    digest = sha256(b"hello").hexdigest()[:12]
    assert refusal(tiny) == (
        f"{pickled}: SHA-256 {digest}… does not match the metadata; the file was altered and is not loaded; {bundle.RETRAIN}"
    )
    pickled.write_bytes(b"")
    edit(tiny, sha256=sha256(b"").hexdigest())
    assert (
        refusal(tiny) == f"{pickled}: not a pickle of a model (EOFError); it is not loaded; {bundle.RETRAIN}"
    )


def test_the_same_model_keeps_its_date(tmp_path):
    path = tmp_path / "tiny.json"
    save_tiny(path, licence="CC0")
    before = path.read_bytes(), path.with_suffix(".pkl").read_bytes()
    save_tiny(path, licence="CC0", created="2021-02-03")
    assert (path.read_bytes(), path.with_suffix(".pkl").read_bytes()) == before
    save_tiny(path, licence="CC BY", created="2021-02-03")
    assert bundle.read_metadata(path)["created"] == "2021-02-03"
    path.write_text("{}", encoding="utf-8")
    save_tiny(path, created="2022-02-03")
    assert bundle.read_metadata(path)["created"] == "2022-02-03"


@pytest.mark.parametrize("fails", ["ser.pkl", "ser.json", "content"])
@pytest.mark.parametrize("present", [True, False])
def test_a_model_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch, fails, present):
    path = tmp_path / "ser.json"
    if present:
        save_tiny(path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    move, write = Path.replace, Path.write_bytes
    attempts = []

    def broken_move(self, target):
        if Path(target).name == fails and not attempts:
            attempts.append(target)
            raise full
        return move(self, target)

    def broken_write(self, data):
        if fails == "content" and len(data) > 10_000:
            write(self, data[:5_000])
            raise full
        return write(self, data)

    monkeypatch.setattr(Path, "replace", broken_move)
    monkeypatch.setattr(Path, "write_bytes", broken_write)
    with pytest.raises(OSError, match="No space left on device") as caught:
        save_tiny(path, licence="other", speakers=None)  # another pickle, too
    assert Path(caught.value.filename).suffix in (".pkl", ".json")
    monkeypatch.undo()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    if present:
        assert "licence" not in bundle.load(path).metadata


def test_a_library_that_is_not_there_is_absent(monkeypatch):
    monkeypatch.setattr(provenance, "LIBRARIES", ("numpy", "no-such-library"))
    assert provenance.versions() == {
        "ser_lib": ser_lib.__version__,
        "numpy": np.__version__,
        "no-such-library": "absent",
    }


newer = pytest.mark.filterwarnings("ignore::ser_lib.serving.bundle.VersionWarning")  # CI runs with them too
shipped = pytest.mark.skipif(not bundle.DEFAULT.exists(), reason="models/ser.json is not there: make reports")


@shipped
def test_a_damaged_pickle_is_trained_again_from_the_shipped_tables(tmp_path):
    path = tmp_path / "ser.json"
    shutil.copy(bundle.DEFAULT, path)
    path.with_suffix(".pkl").write_bytes(b"damaged")
    with pytest.raises(
        BundleError, match=r"the file was altered and is not loaded; .*`python -m ser_lib retrain`"
    ):
        bundle.load(path)
    done = CliRunner().invoke(main, ["retrain", str(path)])
    assert done.exit_code == 0, done.output
    whole, again = bundle.load(), bundle.load(path)
    clip = wav(speech("angry", 1))  # the committed model may be of features from audio, equal to 16 bits
    assert again.predict(clip)["probabilities"] == pytest.approx(
        whole.predict(clip)["probabilities"], abs=0.01
    )
    for key in ("metrics", "headline", "temperatures", "training", "chosen"):
        assert again.metadata[key] == whole.metadata[key]


@shipped
def test_a_model_of_other_clips_is_not_trained_from_the_shipped_tables(tmp_path):
    path = tmp_path / "ser.json"
    shutil.copy(bundle.DEFAULT, path)
    edit(path, training={"corpus": "emodb", "clips": 1440, "copies": 0, "seed": 0})
    done = CliRunner().invoke(main, ["retrain", str(path)])
    assert done.exit_code == 1
    assert f"{path}: trained on emodb, the shipped tables are of ravdess" in done.output


NO_PANDAS = """
import sys, warnings
class NotInstalled:  # scikit-learn imports pandas where it is installed
    def find_spec(name, *_):
        if name == "pandas":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NotInstalled)
warnings.simplefilter("ignore")
import ser_lib
from ser_lib.serving import bundle, command
clip = bundle.self_test_clips()[0]
served = command.create_app().test_client().post("/predict", data=clip, content_type="audio/wav").json
print(ser_lib.predict(clip)["emotion"] == served["emotion"])
"""


@shipped
def test_serving_needs_no_pandas():
    done = subprocess.run(
        [sys.executable, "-c", NO_PANDAS], capture_output=True, encoding="utf-8", cwd=ser_lib.ROOT
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


@shipped
@newer
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_shipped_model(rate):
    answer = bundle.load().predict(wav(speech("angry", 1, rate=rate), rate))
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=5e-4)
    assert answer["emotion"] in answer["probabilities"]
