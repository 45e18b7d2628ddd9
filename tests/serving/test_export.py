"""export: a copy of the model predicts the same."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from synth import speech
from test_bundle import save_tiny, wav

from ser_lib.cli import main
from ser_lib.serving import bundle


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Path of the metadata of a small saved model; to be read, not changed."""
    path = tmp_path_factory.mktemp("export") / "tiny.json"
    save_tiny(path)
    return path


def test_an_exported_pickle_is_served(tiny, tmp_path):
    done = CliRunner().invoke(main, ["export", str(tiny), str(tmp_path / "copy.pkl")])
    assert done.exit_code == 0, done.output
    clip = wav(speech("happy", 1))
    assert bundle.load(tmp_path / "copy.json").predict(clip) == bundle.load(tiny).predict(clip)


@pytest.mark.parametrize(
    ("out", "message"),
    [("model.onnx", "let it end in .pkl"), ("tiny.pkl", "is the model itself; give another name")],
)
def test_exports_that_are_refused(tiny, out, message):
    before = tiny.with_suffix(".pkl").read_bytes()
    done = CliRunner().invoke(main, ["export", str(tiny), str(tiny.with_name(out))])
    assert done.exit_code == 1
    assert message in done.output
    assert tiny.with_suffix(".pkl").read_bytes() == before
    assert CliRunner().invoke(main, ["export", "a", "b", "c.pkl"]).exit_code == 2
