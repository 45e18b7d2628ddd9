"""The exported model answers as the served one does."""

from __future__ import annotations

import json
import warnings
from hashlib import sha256
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.special import ndtri
from synth import speech
from test_bundle import save_tiny, wav

from ser_lib import audio, models
from ser_lib.cli import main
from ser_lib.errors import SerError
from ser_lib.evaluation import calibration
from ser_lib.models import estimators
from ser_lib.serving import bundle, export

EXTRA = "the extra `onnx` is not installed: python -m pip install onnx onnxruntime to run this test"
RNG = np.random.default_rng(0)
N = 300


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Path of the metadata of a small saved model; to be read, not changed."""
    path = tmp_path_factory.mktemp("export") / "tiny.json"
    save_tiny(path)
    return path


def features(n: int, rng: np.random.Generator = RNG) -> np.ndarray:
    """Columns that features have: plain, far from zero, stepped, mostly zero, constant, heavy-tailed."""
    x = rng.normal(size=(n, 12))
    x[:, 1] = 1e4 + 0.01 * x[:, 1]
    x[:, 2] = np.round(x[:, 2])
    x[:, 3] = np.maximum(x[:, 3], 0)
    x[:, 4] = 7
    x[:, 5] = np.exp(3 * x[:, 5])
    return x.astype(np.float32)


def run(made, x: np.ndarray) -> np.ndarray:
    onnxruntime = pytest.importorskip("onnxruntime", reason=EXTRA)
    content = made if isinstance(made, bytes) else made.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"features": x})[0]


def stand_in(model, labels, temperature=1.7):
    """As much of a bundle as a graph needs."""
    about = {"name": "m", "version": "0", "classes": labels, "temperatures": {"emotion": temperature}}
    about |= {"feature_names": [f"f{i}" for i in range(12)], "feature_config": {}, "sha256": "0"}
    return SimpleNamespace(models={"emotion": model}, metadata=about)


@pytest.mark.parametrize("labels", [["a", "b"], ["a", "b", "c", "d"]], ids=["two", "four"])
@pytest.mark.parametrize("name", ["logistic", "wccn", "mlp", "mlp300"])
def test_the_graph_answers_as_the_model(name, labels):
    """Also on values that it was fitted on (ties among the quantiles) and beyond all of them."""
    pytest.importorskip("onnx", reason=EXTRA)
    x, y = features(N), np.array(labels)[np.arange(N) % len(labels)]
    x[:, 6] += np.arange(N) % len(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = models.make(name, **{"mlpclassifier__max_iter": 5} if name == "mlp300" else {}).fit(x, y)
    asked = np.concatenate([x, features(N), 100 * features(9), x.min(axis=0)[None], x.max(axis=0)[None]])
    expected = calibration.apply_temperature(model.predict_proba(asked), 1.7)
    found = run(export.graph(stand_in(model, labels)), asked)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.ptp(expected[:, 0]) > 0.2  # the answers differ, so that agreeing says something


def test_ranks_and_deviates_alone():
    """Step by step, where the answers of a classifier would hide an error."""
    pytest.importorskip("onnx", reason=EXTRA)
    onnxruntime = pytest.importorskip("onnxruntime", reason=EXTRA)
    from onnx import TensorProto, helper

    x = features(N)
    normal = estimators.NormalRanks().fit(x)
    asked = np.concatenate([x, features(N), 100 * features(9)])
    steps = export.Steps()
    steps.add("Identity", steps.of(normal, "x"), output="z")
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 12]) for name in "xz"]
    made = helper.make_model(
        helper.make_graph(steps.nodes, "g", sides[:1], sides[1:], steps.constants),
        opset_imports=[helper.make_opsetid("", export.OPSET)],
        ir_version=export.IR,
    )
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(["z"], {"x": asked})[0]
    np.testing.assert_allclose(found, normal.transform(asked), atol=3e-6)


def test_the_inverse_normal_is_good_to_a_ten_millionth():
    u = np.concatenate([np.geomspace(1e-7, 0.5, 10_000), 1 - np.geomspace(1e-7, 0.5, 10_000)])

    def ratio(t, above, below):
        return np.polyval(above[::-1], t) / np.polyval(below[::-1], t)

    off = u - 0.5
    near, far = 0.425**2 - off**2, np.sqrt(-np.log(np.minimum(u, 1 - u))) - 1.6
    z = np.where(near >= 0, off * ratio(near, *export.MIDDLE), np.sign(off) * ratio(far, *export.TAIL))
    np.testing.assert_allclose(z, ndtri(u), rtol=3e-7, atol=1e-7)


@pytest.mark.parametrize("name", ["xgboost", "majority"])
def test_what_has_no_graph_is_refused(name):
    pytest.importorskip("onnx", reason=EXTRA)
    model = models.make(name).fit(features(40), np.tile(["a", "b"], 20))
    with pytest.raises(SerError, match=r"(XGB|Dummy)Classifier: no ONNX graph .* or export a \.pkl"):
        export.graph(stand_in(model, ["a", "b"]))


def test_an_exported_graph_hears_clips_as_the_bundle_does(tiny, tmp_path):
    onnx = pytest.importorskip("onnx", reason=EXTRA)
    out = tmp_path / "new" / "tiny.onnx"
    done = CliRunner().invoke(main, ["export", str(tiny), str(out)])
    assert done.exit_code == 0, done.output
    assert "105 features to 4 emotions" in done.output
    model = bundle.load(tiny)
    told = {prop.key: prop.value for prop in onnx.load(out).metadata_props}
    assert json.loads(told["feature_names"]) == model.metadata["feature_names"]
    assert json.loads(told["feature_config"]) == model.metadata["feature_config"]
    assert told["metadata_sha256"] == sha256(tiny.read_bytes()).hexdigest()
    for emotion in ("happy", "calm", "fearful"):
        clip = wav(speech(emotion, 5))
        answer = model.predict(clip)["probabilities"]
        heard = run(out.read_bytes(), model._features(audio.load(clip)))[0]
        said = dict(zip(json.loads(told["classes"]), map(float, heard), strict=True))
        assert said == pytest.approx(answer, abs=1e-4)


def test_an_exported_pickle_is_served(tiny, tmp_path):
    done = CliRunner().invoke(main, ["export", str(tiny), str(tmp_path / "copy.pkl")])
    assert done.exit_code == 0, done.output
    clip = wav(speech("happy", 1))
    assert bundle.load(tmp_path / "copy.json").predict(clip) == bundle.load(tiny).predict(clip)


@pytest.mark.parametrize(
    ("out", "message"),
    [("model.tflite", "let it end in .pkl or .onnx"), ("tiny.pkl", "is the model itself; give another name")],
)
def test_exports_that_are_refused(tiny, out, message):
    before = tiny.with_suffix(".pkl").read_bytes()
    done = CliRunner().invoke(main, ["export", str(tiny), str(tiny.with_name(out))])
    assert done.exit_code == 1
    assert message in done.output
    assert tiny.with_suffix(".pkl").read_bytes() == before
    assert CliRunner().invoke(main, ["export", "a", "b", "c.pkl"]).exit_code == 2


def test_without_the_extra_the_remedy_is_named(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    done = CliRunner().invoke(main, ["export", str(tiny), str(tmp_path / "x.onnx")])
    assert done.exit_code == 1
    assert "python -m pip install onnx onnxruntime" in done.output
    assert not (tmp_path / "x.onnx").exists()
