"""A served model for elsewhere: its two files under another name, or the emotion model as one ONNX graph.

The graph takes the features by the order of `feature_names`, float32 of shape (n_clips, n_features), and
gives calibrated probabilities in the order of `classes`; both lists are in its metadata. It computes in the
precisions in which scikit-learn does, so that the answers agree.
"""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from ser_lib.errors import SerError
from ser_lib.evaluation.calibration import TINY
from ser_lib.models.estimators import (
    RANK_LIMIT,
    WCCN,
    Balanced,
    NormalRanks,
    WCCNRegression,
)
from ser_lib.serving import bundle
from ser_lib.serving.model import Model

if TYPE_CHECKING:
    import onnx

OPSET, IR = 17, 8  # of 2022: what runtimes on phones have by now
INT64 = 7  # onnx.TensorProto.INT64

# Rational approximations of the inverse normal, to 1e-7: PPND7 of Wichura (1988), Applied Statistics 37, AS 241.
# The middle in (0.425^2 - (u - 0.5)^2), the tails in sqrt(-log(u)) - 1.6; lowest power first.
MIDDLE = (
    (3.3871327179, 50.434271938, 159.29113202, 59.109374720),
    (1, 17.895169469, 78.757757664, 67.187563600),
)
TAIL = (1.4234372777, 2.7568153900, 1.3067284816, 0.17023821103), (1, 0.73700164250, 0.12021132975)


def write(metadata: Path, out: Path) -> str:
    """Write the model of a metadata to `out`, and say what was written.

    Parameters
    ----------
    metadata : Path
    out : Path
        ``.pkl``: a copy of the pickle, its metadata beside it. ``.onnx``: the graph.

    Raises
    ------
    BundleError
        As `bundle.load`.
    SerError
        Another suffix, the metadata's own pickle, no `onnx`, or a model that has no graph here.
    """
    model = bundle.load(metadata)
    if out.suffix not in (".pkl", ".onnx"):
        raise SerError(f"{out}: the name decides what is written; let it end in .pkl or .onnx")
    if out.resolve() == metadata.with_suffix(".pkl").resolve():
        raise SerError(f"{out}: is the model itself; give another name")
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".pkl":
        shutil.copyfile(metadata.with_suffix(".pkl"), out)
        shutil.copyfile(metadata, out.with_suffix(".json"))
        return f"{out} and {out.with_suffix('.json').name}, its metadata; `python -m ser_lib serve --model` takes the metadata"
    content = graph(model, metadata_sha256=sha256(metadata.read_bytes()).hexdigest()).SerializeToString()
    out.write_bytes(content)
    return f"{out}: {len(content) / 1e3:.0f} kB, {len(model.metadata['feature_names'])} features to {len(model.metadata['classes'])} emotions"


def graph(model: Model, **about: str) -> onnx.ModelProto:
    """The emotion model of a bundle with its temperature.

    Parameters
    ----------
    **about
        What else the metadata say.

    Raises
    ------
    SerError
        `onnx` is not installed, or a step of the model has no graph here (boosting, networks over frames).
    """
    try:
        from onnx import checker, helper
    except ImportError as error:
        raise SerError("onnx is not installed; `python -m pip install onnx onnxruntime` brings it") from error

    metadata, steps = model.metadata, Steps()
    names, classes = metadata["feature_names"], metadata["classes"]
    p = "features"
    for step in _flat(model.models["emotion"]):
        p = steps.of(step, p)
    warm = steps.add("Log", steps.add("Max", p, np.array(TINY, steps.dtype)))
    fair = steps.add(
        "Softmax", steps.add("Div", warm, np.array(metadata["temperatures"]["emotion"], steps.dtype)), axis=1
    )
    steps.cast(fair, np.float32, output="probabilities")

    kind = helper.np_dtype_to_tensor_dtype(np.dtype(np.float32))
    made = helper.make_model(
        helper.make_graph(
            steps.nodes,
            metadata["name"],
            [helper.make_tensor_value_info("features", kind, ["clips", len(names)])],
            [helper.make_tensor_value_info("probabilities", kind, ["clips", len(classes)])],
            steps.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="ser_lib",
        producer_version=metadata["version"],
    )
    told = {key: json.dumps(metadata[key]) for key in ("classes", "feature_names", "feature_config")}
    helper.set_model_props(
        made, told | {"name": metadata["name"], "pickle_sha256": metadata["sha256"]} | about
    )
    checker.check_model(made)
    return made


def _flat(estimator: Any) -> list[Any]:
    if isinstance(estimator, Pipeline):
        return [part for _, step in estimator.steps for part in _flat(step)]
    return _flat(estimator.estimator_) if isinstance(estimator, Balanced) else [estimator]


class Steps:
    """The nodes of a graph as they are added; `dtype` is the precision of the last result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.dtype = np.dtype(np.float32)

    def add(self, kind: str, *inputs: str | np.ndarray, output: str = "", **attributes: Any) -> str:
        """One node; arrays among its inputs become constants. Returns its output's name."""
        from onnx import helper, numpy_helper

        names = []
        for given in inputs:
            if isinstance(given, np.ndarray):
                self.constants.append(numpy_helper.from_array(given, f"c{len(self.constants)}"))
                given = self.constants[-1].name
            names.append(given)
        output = output or f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def cast(self, x: str, dtype: Any, output: str = "") -> str:
        """`x` in another precision, which becomes that of what follows."""
        from onnx import helper

        self.dtype = np.dtype(dtype)
        return self.add("Cast", x, output=output, to=helper.np_dtype_to_tensor_dtype(self.dtype))

    def of(self, step: Any, x: str) -> str:
        """A fitted step of a pipeline."""
        if isinstance(step, NormalRanks):
            return self._deviates(self._ranks(step, x))
        if isinstance(step, StandardScaler):
            centred = self.add("Sub", x, step.mean_.astype(np.float32))
            return self.add("Div", centred, step.scale_.astype(np.float32))
        if isinstance(step, WCCN):
            return self.add("MatMul", self.add("Sub", x, step.mean_), step.projection_)
        if isinstance(step, WCCNRegression):
            return self._chances(x, step.coef_, step.intercept_)
        if isinstance(step, LogisticRegression):
            return self._chances(x, step.coef_.T, step.intercept_)
        if isinstance(step, MLPClassifier) and step.activation == "relu":
            for weights, offset in zip(step.coefs_[:-1], step.intercepts_[:-1], strict=True):
                x = self.add("Relu", self._linear(x, weights, offset))
            return self._chances(x, step.coefs_[-1], step.intercepts_[-1])
        raise SerError(
            f"{type(step).__name__}: no ONNX graph is written for it; choose a model of logistic, wccn, mlp or "
            "mlp300, or export a .pkl"
        )

    def _linear(self, x: str, weights: np.ndarray, offset: np.ndarray) -> str:
        product = self.add("MatMul", self.cast(x, weights.dtype), np.ascontiguousarray(weights))
        return self.add("Add", product, offset.astype(weights.dtype))

    def _chances(self, x: str, weights: np.ndarray, offset: np.ndarray) -> str:
        """Probabilities of the classes; of two, scikit-learn keeps the second alone."""
        if weights.shape[1] == 1:
            weights, offset = (np.insert(part, 0, 0, axis=-1) for part in (weights, offset))
        return self.add("Softmax", self._linear(x, weights, offset), axis=1)

    def _ranks(self, step: NormalRanks, x: str) -> str:
        """Between its two neighbouring quantiles; where quantiles are equal, the mean from below and from above."""
        quantiles, ranks = (
            step.quantiles_.T.astype(np.float64),
            step.ranks_,
        )  # (n_features, n_quantiles), (n_quantiles,)
        n_features, n = quantiles.shape
        gaps = np.diff(quantiles)
        slopes = np.divide(np.diff(ranks), gaps, out=np.zeros_like(gaps), where=gaps > 0)
        starts = np.arange(n_features) * (n - 1)
        x = self.cast(x, np.float64)
        wide = self.add("Unsqueeze", x, np.array([2]))
        found = []
        for passes in ("GreaterOrEqual", "Greater"):
            passed = self.add("Cast", self.add(passes, wide, quantiles[None]), to=INT64)
            count = self.add("ReduceSum", passed, np.array([2]), keepdims=0)
            i = self.add("Clip", self.add("Sub", count, np.array(1)), np.array(0), np.array(n - 2))
            at = self.add("Add", i, starts)
            beyond = self.add("Sub", x, self.add("Gather", quantiles[:, :-1].ravel(), at))
            rise = self.add("Mul", beyond, self.add("Gather", slopes.ravel(), at))
            found.append(self.add("Add", rise, self.add("Gather", ranks, i)))
        u = self.add("Mul", self.add("Add", *found), np.array(0.5))
        u = self.add("Where", self.add("GreaterOrEqual", x, quantiles[:, -1]), np.array(1.0), u)
        u = self.add("Where", self.add("LessOrEqual", x, quantiles[:, 0]), np.array(0.0), u)
        return self.cast(u, np.float32)

    def _deviates(self, u: str) -> str:
        """Normal deviates of ranks."""
        u = self.add("Clip", self.cast(u, np.float64), np.array(RANK_LIMIT), np.array(1 - RANK_LIMIT))
        off = self.add("Sub", u, np.array(0.5))
        near = self.add("Sub", np.array(0.425**2), self.add("Mul", off, off))
        middle = self.add("Mul", off, self._ratio(near, *MIDDLE))
        least = self.add("Min", u, self.add("Sub", np.array(1.0), u))
        far = self.add("Sub", self.add("Sqrt", self.add("Neg", self.add("Log", least))), np.array(1.6))
        tail = self.add("Mul", self.add("Sign", off), self._ratio(far, *TAIL))
        z = self.add("Where", self.add("GreaterOrEqual", near, np.array(0.0)), middle, tail)
        return self.cast(z, np.float32)

    def _ratio(self, x: str, above: tuple[float, ...], below: tuple[float, ...]) -> str:
        """The quotient of two polynomials."""
        sides = []
        for powers in (above, below):
            value: str | np.ndarray = np.array(float(powers[-1]))
            for power in powers[-2::-1]:
                value = self.add("Add", self.add("Mul", value, x), np.array(float(power)))
            sides.append(value)
        return self.add("Div", *sides)
