"""networks and corrcnn as estimators, and notebook 07 at smoke size. Needs PyTorch."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import pdist

pytest.importorskip(
    "torch", reason="PyTorch is not installed: `python -m pip install torch` to run this test"
)

import torch

from ser_lib import models
from ser_lib.evaluation import cross_validation
from ser_lib.features import FRAMES, FeatureConfig, feature_names, tables
from ser_lib.models import corrcnn, estimators, networks
from ser_lib.runs import execution

RNG = np.random.default_rng(0)
EVERY_NETWORK = pytest.mark.parametrize("name", models.NETWORKS)


def make(name: str, **parameters):
    seed = parameters.pop("seed", 0)
    return models.make(name, seed=seed, **models.last_step(name, **parameters))


def clips(name: str, n: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a network's features, louder in the band or column of their class, of different lengths."""
    shape = FRAMES.get(models.NETWORKS[name], (1, 105))
    y = np.array(["calm", "sad", "happy"])[np.arange(n) % 3]
    x = RNG.normal(-40, 5, (n, *shape)).astype(np.float32)
    for i in range(n):
        x[i, :, 8 + 12 * (i % 3) : 16 + 12 * (i % 3)] += 15
        if shape[0] > 1:
            x[i, 30 + i :] = np.nan
    return x.reshape(n, -1), y


@EVERY_NETWORK
def test_it_learns_and_gives_probabilities(name):
    x, y = clips(name)
    model = make(name, steps=60, validation_share=0).fit(x, y)
    p = model.predict_proba(x)
    assert p.shape == (48, 3)
    assert np.allclose(p.sum(axis=1), 1, atol=1e-5)
    assert list(model.classes_) == ["calm", "happy", "sad"]
    assert (model.predict(x) == y).mean() > 0.9


@EVERY_NETWORK
def test_a_seed_gives_the_same_network_again_and_another_seed_another(name):
    x, y = clips(name)
    first, again, other = (
        make(name, seed=seed, steps=12, validation_share=0).fit(x, y).predict_proba(x) for seed in (3, 3, 4)
    )
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)


def test_fitting_leaves_the_generator_and_the_threads_of_torch_alone():
    x, y = clips("dense")
    torch.manual_seed(5)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    make("dense", steps=12, validation_share=0).fit(x, y)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@EVERY_NETWORK
def test_a_clip_has_the_same_probabilities_alone_and_among_longer_ones(name):
    x, y = clips(name)
    model = make(name, steps=12, validation_share=0).fit(x, y)
    together = model.predict_proba(x)
    alone = np.concatenate([model.predict_proba(row[None]) for row in x])
    assert np.abs(alone - together).max() < 1e-5


@EVERY_NETWORK
def test_it_survives_a_pickle(name):
    x, y = clips(name)
    model = make(name, steps=12, validation_share=0).fit(x, y)
    assert np.array_equal(pickle.loads(pickle.dumps(model)).predict_proba(x), model.predict_proba(x))


def test_early_stopping_keeps_speakers_apart():
    x, y = clips("dense", 60)
    speakers = np.repeat(list("abcdefghij"), 6)
    fit_parameters = models.last_step("dense", speakers=speakers)
    model = make("dense", steps=40, validation_share=0.3).fit(x, y, **fit_parameters)
    assert len(model[-1].validation_uar_) == 20
    chosen = np.random.default_rng(0).permutation(np.unique(speakers))[:3]
    strange = x.copy()
    strange[np.isin(speakers, chosen)] = 0  # nothing to tell their emotions by: any checkpoint is as good
    other = make("dense", steps=40, validation_share=0.3).fit(strange, y, **fit_parameters)
    assert other[-1].validation_uar_ != model[-1].validation_uar_


def test_another_voice_keeps_bands_and_numbers():
    x = RNG.normal(-40, 5, (90, 66)).astype(np.float32)
    lengths = set()
    for seed in range(50):
        y = corrcnn._other_voice(x, np.random.default_rng(seed))
        assert y.shape[1] == 66
        assert np.isfinite(y).all()
        lengths.add(len(y))
    assert min(lengths) < 85 < 95 < max(lengths)


def test_pooled_correlations_are_numpys():
    tracks = RNG.normal(0, [[2.0], [5.0], [9.0]], (4, 3, 50)).astype(np.float32)
    tracks[:, 1] += tracks[:, 0]
    mask = torch.ones(4, 1, 50)
    mask[0, :, 30:] = 0
    correlation, deviation = corrcnn._correlation(torch.from_numpy(tracks), mask)
    for i, n in enumerate((30, 50, 50, 50)):
        expected = np.corrcoef(tracks[i, :, :n])[np.triu_indices(3, 1)]
        assert np.allclose(correlation[i], expected, atol=2e-3)
        assert np.allclose(deviation[i], tracks[i, :, :n].std(axis=1), rtol=2e-3)


def test_the_fixed_view_starts_with_wccn(monkeypatch):
    monkeypatch.setattr(corrcnn, "_other_voice", lambda one, rng: one)
    x, y = clips("corrcnn", 96)
    step = make("corrcnn", steps=1, validation_share=0).fit(x, y)[-1]
    module = step._module(3)
    module.load_state_dict(step.state_)
    with torch.inference_mode():
        fixed = module.fixed(*step._prepare(step._frames(x)))
        result = module.wccn(fixed).numpy()
    expected = estimators.WCCN(0.5).fit(np.tile(fixed, (3, 1)), np.tile(y, 3)).transform(fixed.numpy())
    # equal variances leave the axes free: the distances count
    assert np.allclose(pdist(result), pdist(expected), rtol=1e-3)


def test_the_dense_network_is_as_large_as_published():
    network = networks._Dense(105, 7)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(230_800, rel=0.01)


def test_a_kept_fit_is_not_repeated(tiny_corpus, tmp_path, monkeypatch):
    table = tables.load_data(tiny_corpus, "compact").table
    how = {"parameters": {"dense__steps": 10}, "keep": tmp_path, "n_jobs": 1}
    first = cross_validation.out_of_fold(table, ["dense"], **how)
    monkeypatch.setattr(cross_validation, "_fit", None)
    pd.testing.assert_frame_equal(cross_validation.out_of_fold(table, ["dense"], **how), first)
    arrays = {name: np.asarray(values) for name, values in cross_validation._arrays(table).items()}
    order = "F" if arrays["x"].flags.f_contiguous else "C"
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=arrays["x"].shape, order=order)
    x[:] = arrays["x"]  # as another process would have it
    monkeypatch.setattr(cross_validation, "_arrays", lambda table: arrays | {"x": x})
    pd.testing.assert_frame_equal(cross_validation.out_of_fold(table, ["dense"], **how), first)
    with pytest.raises(TypeError):
        cross_validation.out_of_fold(table, ["dense"], seeds=[1], **how)


def test_frames_after_the_end_are_nan(tiny_corpus):
    for name in FRAMES:
        table = tables.load_data(tiny_corpus, name).table
        values = table[list(feature_names(FeatureConfig(name)))].to_numpy().reshape(len(table), *FRAMES[name])
        present = ~np.isnan(values).any(axis=2)
        assert np.isnan(values).all(axis=2).sum() + present.sum() == present.size
        assert (np.diff(present.astype(int), axis=1) <= 0).all()  # no frame after the end
        assert present.any(axis=1).all()


def test_the_notebook_runs_at_smoke_size(tiny_corpus, tmp_path):
    given = {"corpus": str(tiny_corpus), "budget": "smoke", "seeds": "0", "classical": "logistic"}
    (run,) = execution.plan(["07"], given)
    folder = execution.execute(run, tmp_path)
    scores = pd.DataFrame(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["results"])
    assert {"corrcnn", "cnn_bilstm", "dense", "functionals", "stack"} <= set(scores["model"].dropna())
