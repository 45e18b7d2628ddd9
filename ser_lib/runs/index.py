"""The index of the reports: results of all runs as tables and pages, and two runs side by side."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ser_lib import ROOT, write_file
from ser_lib.evaluation import metrics
from ser_lib.evaluation.comparison import difference
from ser_lib.runs import ledger
from ser_lib.runs.ledger import REPORTS, VALUES

TEMPLATES = Path(__file__).with_name("templates")
HEADS = {
    "actors5": "unseen speakers (`actors5`)",
    "loso": "unseen speakers (`loso`)",
    "random": "same speakers in training and test ✗ (`random`)",
}

# --- tables of results ----------------------------------------------------------------------------


def read_results(out: Path = REPORTS) -> pd.DataFrame:
    """Return the result rows of every finished run below `out`, with the run's name in `run`."""
    done = [run for run in ledger.runs(out) if run["status"] == "done"]
    rows = [{"run": run["name"], **row} for run in done for row in run["results"]]
    columns = ["run", "emotions", "protocol", "model", "metric", "value", "low", "high"]
    return pd.DataFrame(rows).reindex(columns=columns)


def main_table(results: pd.DataFrame) -> str:
    """Return Markdown: the UAR of each model, one column a protocol.

    Examples
    --------
    >>> row = {"emotions": "four", "model": "mlp", "protocol": "loso", "metric": "uar", "value": 0.58}
    >>> print(main_table(pd.DataFrame([row | {"low": 0.52, "high": 0.64}])))
    | emotions | model | unseen speakers (`loso`) |
    |---|---|---|
    | four | mlp | 58.0 % (52.0 to 64.0) |
    """
    uar = results[results["metric"] == "uar"].drop_duplicates(["emotions", "model", "protocol"])
    uar = uar[uar["protocol"].isin(list(HEADS))].sort_values("emotions", kind="stable")
    protocols = [name for name in HEADS if name in set(uar["protocol"])]
    rows = [["emotions", "model", *(HEADS[name] for name in protocols)], ["---"] * (2 + len(protocols))]
    for (emotions, model), part in uar.groupby(["emotions", "model"], sort=False):
        scores = {row["protocol"]: score_text(row) for row in part.to_dict("records")}
        rows.append([emotions, model, *(scores.get(name, "") for name in protocols)])
    return _markdown(rows)


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines[1] = lines[1].replace(" ", "")
    return "\n".join(lines)


def headline_table(out: Path = REPORTS) -> str:
    """Return Markdown: UAR and accuracy on unseen speakers of people, the served model, the stack of 07 and the MLP of 05."""
    names = ("04_choose_and_export", "05_leakage_audit", "07_sequence_models")
    paths = [out / name / ledger.FILE for name in names]
    if not (paths[0].is_file() and paths[1].is_file()):
        return ""
    chosen, ladder, *networks = (_results_table(path.parent) for path in paths if path.is_file())
    shown = ["uar", "accuracy"]
    lines = [["who", "on what clips", "UAR", "accuracy"], ["---"] * 4]

    def add(who: str, clips: str, rows: pd.DataFrame) -> None:
        by_metric = {row["metric"]: score_text(row) for row in rows.to_dict("records")}
        lines.append([who, clips, *(by_metric[name] for name in shown)])

    listeners = chosen[chosen["metric"] == "accuracy_listeners_options"]
    for row in listeners.to_dict("records"):
        if row["group"] == "all clips":
            people = f"{100 * row['listeners']:.1f} %"
            lines.append(["human listeners", "all clips; neutral and calm count as one", "", people])
            clips = "unseen speakers; neutral and calm count as one"
            lines.append([f"`{row['model']}`, served", clips, "", score_text(row)])
    served = chosen[chosen["metric"].isin(shown)]
    for (protocol, model), rows in served.groupby(["protocol", "model"], sort=False):
        clips = "unseen speakers, each left out in turn" if protocol == "loso" else "unseen speakers"
        add(f"`{model}`, served", clips, rows)
    for table in networks:
        rows = table[table["model"].eq("stack") & table["metric"].isin(shown)]
        add("`stack` of a network and functionals", "unseen speakers", rows)
    rungs = ladder[ladder["metric"].isin(shown) & (ladder["same_speaker"] == 0)]
    for (rung, model, chance), rows in rungs.groupby(["rung", "model", "chance"], sort=False):
        add(f"`{model}`", f"{rung.partition(' ')[2]}; chance {100 * chance:.1f} %", rows)
    return _markdown(lines) + "\n\n"


def _results_table(folder: Path) -> pd.DataFrame:
    return pd.DataFrame(ledger.read_metrics(folder)["results"]).astype(object)  # `low` stays None


def score_text(row: Mapping[str, Any]) -> str:
    """Return the value and interval of a result row; a count as it is.

    Examples
    --------
    >>> score_text({"value": 0.581, "low": 0.52, "high": 0.639})
    '58.1 % (52.0 to 63.9)'
    """
    if row["low"] is None:
        return f"{100 * row['value']:.1f} %" if abs(row["value"]) <= 1 else f"{row['value']:g}"
    return f"{100 * row['value']:.1f} % ({100 * row['low']:.1f} to {100 * row['high']:.1f})"


def runs_text(runs: Sequence[dict[str, Any]]) -> str:
    """Return the ledger's rows as a table of text.

    Examples
    --------
    >>> print(runs_text([{"name": "03_trial", "status": "failed", "score": None, "error": "no such folder"}]))
         run status what score seconds MB commit started          error
    03_trial failed                                      no such folder
    """
    rows = []
    for run in runs:
        score = run["score"] or {}
        rows.append(
            {
                "run": run["name"],
                "status": run["status"],
                "what": " ".join(str(score[name]) for name in ("metric", "model") if score.get(name)),
                "score": score_text(score) if score else "",
                "seconds": f"{run['seconds']:.0f}" if "seconds" in run else "",
                "MB": run.get("peak_memory_mb", ""),
                "commit": (run.get("commit") or "")[:7] + ("*" if run.get("uncommitted_changes") else ""),
                "started": run.get("started", "")[:16],
                "error": run.get("error", ""),
            }
        )
    return pd.DataFrame(rows).to_string(index=False) if rows else "no runs"


# --- README.md and index.html ---------------------------------------------------------------------

INTRODUCTION = """# Reports

UAR (unweighted average recall) over all test clips, mean over seeds, with a 95 % interval from resampling speakers.
Only scores on unseen speakers tell what to expect of a new speaker. Under the random split the same speakers are in
training and test; that score is for comparison alone. A second run of a notebook gives the same figures to the last
digit. On another CPU, where features and fits differ in their last bits, means over seeds on unseen speakers are
within 0.5 points and other figures within 3.5."""


def write_index(out: Path = REPORTS) -> None:
    """Write `README.md`, which GitHub shows, and `index.html` with the same text and the list of runs."""
    import jinja2
    import mistune

    runs = ledger.runs(out)
    text = [INTRODUCTION, main_table(read_results(out))]
    for run in [run for run in runs if run["status"] == "done"]:
        settings = ", ".join(f"{name}={value}" for name, value in run["parameters"].items() if value != "")
        text.append(f"## [{run['name']}]({run['name']}/index.html)")
        text.append(f"`{run['notebook']}` with {settings or 'its defaults'}.")
        figures = sorted((out / run["name"]).glob("*.webp"))
        text += [f"![{figure.stem}]({run['name']}/{figure.name})" for figure in figures]
    markdown = "\n\n".join(text) + "\n"
    write_file(out / "README.md", markdown)
    body = mistune.create_markdown(plugins=["table"])(markdown.partition("\n")[2])
    template = (TEMPLATES / "runs.html").read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True).from_string(template)
    write_file(out / "index.html", page.render(runs=runs, body=body, cell=score_text))


def readme_tables(names: Collection[str], out: Path = REPORTS) -> str:
    """Return the headline table, then the main table of the runs of these names."""
    results = read_results(out)
    return headline_table(out) + main_table(results[results["run"].isin(names)])


def write_readme(names: Collection[str], path: Path = ROOT / "README.md", out: Path = REPORTS) -> None:
    """Put the tables between the two `results` marks of the repository's README."""
    before, mark, rest = path.read_text(encoding="utf-8").partition("<!-- results -->\n")
    _, end, after = rest.partition("<!-- /results -->")
    write_file(path, f"{before}{mark}{readme_tables(names, out)}\n{end}{after}")


# --- two runs side by side ------------------------------------------------------------------------


def compare(a: str, b: str, out: Path = REPORTS) -> dict[str, pd.DataFrame]:
    """Compare two runs.

    Returns
    -------
    dict of DataFrame
        `row`: the columns that differ. `results`: `value, low, high` of both. Where both tested the same clips:
        `differences`, the UAR of `a` minus that of `b` on these clips with its interval, for each protocol and model
        of both runs, or else for the first of each run; `a` and `b`, the confusion of the first such model.
    """
    folders = [ledger.find_run(name, out) for name in (a, b)]
    contents = [ledger.read_metrics(folder) for folder in folders]
    rows = [pd.json_normalize(content["run"]).iloc[0].astype(str) for content in contents]
    row = pd.concat(rows, axis=1, keys=["a", "b"])
    tables = {
        "row": row[row["a"] != row["b"]],
        "results": _side_by_side(contents[0]["results"], contents[1]["results"]),
    }
    paths = [folder / "predictions.parquet" for folder in folders]
    if not all(path.is_file() for path in paths):
        return tables
    x, y = (dict(list(pd.read_parquet(p).groupby(["protocol", "model"], sort=False))) for p in paths)
    pairs = [(key, key) for key in x if key in y] or [(next(iter(x)), next(iter(y)))]
    gaps = []
    for first, second in pairs:
        clip = ["clip_id", "speaker", "emotion"]
        common = x[first][clip].merge(y[second][clip]).drop_duplicates()
        if common.empty:
            continue
        predictions = {"a": x[first].merge(common), "b": y[second].merge(common)}
        labels = sorted({*pd.concat(predictions.values())[["emotion", "predicted"]].to_numpy().ravel()})
        gap = {"protocol": first[0], "model": first[1], "clips": len(common)}
        if first != second:
            gap["minus"] = " ".join(second)
        interval = difference(predictions["a"], predictions["b"], labels)
        gaps.append(gap | dict(zip(VALUES, interval, strict=True)))
        if len(gaps) == 1:
            for name, part in predictions.items():
                confusion = metrics.confusion(part, labels)
                tables[name] = confusion[confusion.any(axis=1)]
    return tables | ({"differences": pd.DataFrame(gaps)} if gaps else {})


def _side_by_side(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> pd.DataFrame:
    """Join the results of both on their common columns, except those with one value in `a` and another in `b`."""
    x, y = (pd.DataFrame(part, columns=None if part else ["metric", *VALUES]) for part in (a, b))
    on = [
        name
        for name in x
        if name in y
        and name not in (*VALUES, "seeds")
        and not (x[name].nunique() == y[name].nunique() == 1 and x[name][0] != y[name][0])
    ]
    left, right = (part[[*on, *VALUES]].drop_duplicates(on) for part in (x, y))
    return left.merge(right, on=on, how="outer", sort=False, suffixes=(" a", " b"))


def comparison_text(a: str, b: str, out: Path = REPORTS) -> str:
    """Return `compare` as text."""
    tables = compare(a, b, out)
    parts = [f"a: {a}\nb: {b}", tables["row"].to_string() if len(tables["row"]) else "nothing differs"]
    parts.append(tables["results"].to_string(index=False, na_rep="", float_format="{:.4g}".format))
    if "differences" not in tables:
        return "\n\n".join([*parts, "no predictions of the same clips"])
    parts.append("UAR of a minus b on common clips, 95 % interval from resampling speakers")
    signed = dict.fromkeys(VALUES, "{:+.1%}".format)
    parts.append(tables["differences"].to_string(index=False, formatters=signed))
    for name in ("a", "b"):
        parts.append(f"Confusion of {name}:\n{tables[name].to_string(float_format='{:.1%}'.format)}")
    return "\n\n".join(parts)
