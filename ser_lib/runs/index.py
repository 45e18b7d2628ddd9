"""What the runs found: as tables and pages, and two of them side by side."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ser_lib import ROOT
from ser_lib.evaluation import metrics
from ser_lib.evaluation.comparison import difference
from ser_lib.runs import ledger
from ser_lib.runs.ledger import REPORTS, VALUES

TEMPLATES = Path(__file__).with_name("templates")


def read_results(out: Path = REPORTS) -> pd.DataFrame:
    """The result rows of every run below `out`, with the run's name in `run`."""
    done = [run for run in ledger.runs(out) if run["status"] == "done"]
    rows = [{"run": run["name"], **row} for run in done for row in run["results"]]
    columns = ["run", "emotions", "protocol", "model", "metric", "value", "low", "high"]
    return pd.DataFrame(rows).reindex(columns=columns)


def main_table(results: pd.DataFrame) -> str:
    """Markdown: UAR of each model on unseen speakers and, marked as such, on the random split.

    Examples
    --------
    >>> row = {"emotions": "four", "model": "mlp", "protocol": "loso", "metric": "uar", "value": 0.58}
    >>> print(main_table(pd.DataFrame([row | {"low": 0.52, "high": 0.64}])))
    | emotions | model | unseen speakers (`loso`) |
    |---|---|---|
    | four | mlp | 58.0 % (52.0 to 64.0) |
    """
    names = {
        "actors5": "unseen speakers (`actors5`)",
        "loso": "unseen speakers (`loso`)",
        "random": "random split ✗",
    }
    uar = results[results["metric"] == "uar"].drop_duplicates(["emotions", "model", "protocol"])
    uar = uar[uar["protocol"].isin(list(names))].sort_values("emotions", kind="stable")
    protocols = [name for name in names if name in set(uar["protocol"])]
    lines = [
        "| emotions | model | " + " | ".join(names[name] for name in protocols) + " |",
        "|---|---|" + "---|" * len(protocols),
    ]
    for (emotions, model), part in uar.groupby(["emotions", "model"], sort=False):
        by_protocol = part.set_index("protocol")
        cells = [cell(by_protocol.loc[name]) if name in by_protocol.index else "" for name in protocols]
        lines.append(f"| {emotions} | {model} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def honest_table(out: Path = REPORTS) -> str:
    """Markdown: who hears what of speakers never heard before. People, the served model, the stack of 07, the honest rungs of 05."""
    folders = [out / run for run in ("04_choose_and_export", "05_leakage_audit")]
    if not all((folder / ledger.FILE).is_file() for folder in folders):
        return ""
    chosen, ladder = (pd.DataFrame(ledger.read(folder)["results"]).astype(object) for folder in folders)
    both = ["uar", "accuracy"]
    lines = ["| who listens | to whom | UAR | accuracy |", "|---|---|---|---|"]

    def add(who: str, whom: str, rows: pd.DataFrame) -> None:
        cells = [cell(row) for name in both for row in rows[rows["metric"] == name].to_dict("records")]
        lines.append(f"| {who} | {whom} | " + " | ".join(cells) + " |")

    beside = chosen[chosen["metric"] == "accuracy_listeners_options"]
    for row in beside[beside["group"] == "all clips"].to_dict("records") if len(beside) else ():
        lines.append(f"| people | these clips; neutral and calm are one | | {100 * row['listeners']:.1f} % |")
        who = f"`{row['model']}`, served"
        lines.append(f"| {who} | unseen speakers; neutral and calm are one | | {cell(row)} |")
    served = chosen[chosen["metric"].isin(both)]
    for (protocol, model), rows in served.groupby(["protocol", "model"], sort=False):
        left = ", each left out in turn" if protocol == "loso" else ""
        add(f"`{model}`, served", f"unseen speakers{left}", rows)
    if (networks := out / "07_sequence_models" / ledger.FILE).is_file():
        found = pd.DataFrame(ledger.read(networks.parent)["results"]).astype(object)
        rows = found[found["model"].eq("stack") & found["metric"].isin(both)]
        add("`stack` of a network and functionals", "unseen speakers", rows)
    rungs = ladder[ladder["metric"].isin(both) & (ladder["same_speaker"] == 0)]
    for (rung, model, chance), rows in rungs.groupby(["rung", "model", "chance"], sort=False):
        add(f"`{model}`", f"{rung.partition(' ')[2]}; chance {100 * chance:.1f} %", rows)
    return "\n".join(lines) + "\n\n"


def cell(row: Mapping[str, Any]) -> str:
    """`58.1 % (52.0 to 63.9)` of a result row; a count as it is.

    Examples
    --------
    >>> cell({"value": 0.581, "low": 0.52, "high": 0.639})
    '58.1 % (52.0 to 63.9)'
    """
    if row["low"] is None:
        return f"{100 * row['value']:.1f} %" if abs(row["value"]) <= 1 else f"{row['value']:g}"
    return f"{100 * row['value']:.1f} % ({100 * row['low']:.1f} to {100 * row['high']:.1f})"


def listing(runs: Sequence[dict[str, Any]]) -> str:
    """The ledger's rows as a table of text.

    Examples
    --------
    >>> print(listing([{"name": "03_trial", "status": "failed", "score": None, "error": "no such folder"}]))
         run status what score seconds MB commit started          error
    03_trial failed                                      no such folder
    """
    rows = [
        {
            "run": run["name"],
            "status": run["status"],
            "what": " ".join(str(score[name]) for name in ("metric", "model") if score.get(name)),
            "score": cell(score) if score else "",
            "seconds": f"{run['seconds']:.0f}" if "seconds" in run else "",
            "MB": run.get("peak_memory_mb", ""),
            "commit": (run.get("commit") or "")[:7] + "*" * bool(run.get("uncommitted_changes")),
            "started": run.get("started", "")[:16],
            "error": run.get("error", ""),
        }
        for run in runs
        for score in [run["score"] or {}]
    ]
    return pd.DataFrame(rows).to_string(index=False) if rows else "no runs"


def write(out: Path = REPORTS) -> None:
    """Write `README.md` (which GitHub shows) and `index.html`, the same text, from the runs' files."""
    import jinja2
    import mistune

    runs = ledger.runs(out)
    text = [
        "# Reports",
        "UAR (unweighted average recall) over all test clips, mean over seeds, with a 95 % interval from "
        "resampling speakers. Only unseen speakers tell what a new speaker will get; under the random "
        "split the same speakers are in training and test, and the figure is shown to be compared with. Run again, "
        "a notebook gives the same figures to the last digit; on another CPU, where features "
        "and fits differ in their last bits, means over seeds on unseen speakers are within 0.5 points and others within 3.5.",
        main_table(read_results(out)),
    ]
    for run in [run for run in runs if run["status"] == "done"]:
        settings = ", ".join(f"{name}={value}" for name, value in run["parameters"].items() if value != "")
        text += [
            f"## [{run['name']}]({run['name']}/index.html)",
            f"`{run['notebook']}` with {settings or 'its defaults'}.",
        ]
        figures = sorted((out / run["name"]).glob("*.webp"))
        text += [f"![{figure.stem}]({run['name']}/{figure.name})" for figure in figures]
    markdown = "\n\n".join(text) + "\n"
    _replace(out / "README.md", markdown)
    body = mistune.create_markdown(plugins=["table"])(markdown.partition("\n")[2])
    page = jinja2.Environment(autoescape=True).from_string(
        (TEMPLATES / "runs.html").read_text(encoding="utf-8")
    )
    _replace(out / "index.html", page.render(runs=runs, body=body, cell=cell))


def _replace(path: Path, text: str) -> None:
    """Write a file in one step, since other runs may write it too."""
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def readme_tables(names: Collection[str], out: Path = REPORTS) -> str:
    """The honest rungs beside human listeners, then every model of the runs of these names."""
    results = read_results(out)
    return honest_table(out) + main_table(results[results["run"].isin(names)])


def write_readme(names: Collection[str], path: Path = ROOT / "README.md", out: Path = REPORTS) -> None:
    """Put the tables between the two `results` marks of the repository's README."""
    before, mark, rest = path.read_text(encoding="utf-8").partition("<!-- results -->\n")
    _, end, after = rest.partition("<!-- /results -->")
    path.write_text(f"{before}{mark}{readme_tables(names, out)}\n{end}{after}", encoding="utf-8")


def compare(a: str, b: str, out: Path = REPORTS) -> dict[str, pd.DataFrame]:
    """Two runs side by side.

    Returns
    -------
    dict of DataFrame
        `row`: the columns that differ. `results`: all, as `value, low, high` of both. Where both tested the same
        clips, `differences`: UAR of `a` minus that of `b` on these, with its interval, for each protocol and
        model that both have, else the first of each; and `a`, `b`: what is heard as what in the first of them.

    Raises
    ------
    ReportError
        No such run.
    """
    folders = [ledger.find(name, ledger.FILE, out).parent for name in (a, b)]
    contents = [ledger.read(folder) for folder in folders]
    rows = [pd.json_normalize(content["run"]).iloc[0].astype(str) for content in contents]
    row = pd.concat(rows, axis=1, keys=["a", "b"])
    found = {
        "row": row[row["a"] != row["b"]],
        "results": _side_by_side(*(content["results"] for content in contents)),
    }
    paths = [folder / "predictions.parquet" for folder in folders]
    if not all(path.is_file() for path in paths):
        return found
    x, y = (dict(list(pd.read_parquet(p).groupby(["protocol", "model"], sort=False))) for p in paths)
    same = [(key, key) for key in x if key in y] or [(next(iter(x)), next(iter(y)))]
    gaps = []
    for first, second in same:
        clip = ["clip_id", "speaker", "emotion"]
        common = x[first][clip].merge(y[second][clip]).drop_duplicates()
        heard = [part.merge(common) for part in (x[first], y[second])]
        if len(common):
            labels = sorted(set().union(*(part[name] for part in heard for name in ("emotion", "predicted"))))
            what = dict(zip(("protocol", "model"), first, strict=True)) | {"clips": len(common)}
            if first != second:
                what |= {"minus": " ".join(second)}
            gaps.append(what | dict(zip(VALUES, difference(heard[0], heard[1], labels), strict=True)))
            for name, part in zip("ab", heard, strict=True):
                shares = metrics.confusion(part, labels)
                found.setdefault(name, shares[shares.any(axis=1)])
    return found | ({"differences": pd.DataFrame(gaps)} if gaps else {})


def _side_by_side(a: list[dict[str, Any]], b: list[dict[str, Any]]) -> pd.DataFrame:
    """Results of both by what they are about, but for what is one thing in `a` and another in `b`."""
    x, y = (pd.DataFrame(part, columns=None if part else ["metric", *VALUES]) for part in (a, b))
    shared = [name for name in x if name in y and name not in (*VALUES, "seeds")]
    differ = {
        name for name in shared if x[name].nunique() == 1 == y[name].nunique() and x[name][0] != y[name][0]
    }
    on = [name for name in shared if name not in differ]
    left, right = (part[[*on, *VALUES]].drop_duplicates(on) for part in (x, y))
    return left.merge(right, on=on, how="outer", sort=False, suffixes=(" a", " b"))


def comparison(a: str, b: str, out: Path = REPORTS) -> str:
    """`compare` as text."""
    found = compare(a, b, out)
    parts = [f"a: {a}\nb: {b}", found["row"].to_string() if len(found["row"]) else "nothing differs"]
    parts.append(found["results"].to_string(index=False, na_rep="", float_format="{:.4g}".format))
    if "differences" in found:
        signed = dict.fromkeys(VALUES, "{:+.1%}".format)
        parts += ["UAR of a minus b on common clips, 95 % interval from resampling speakers"]
        parts += [found["differences"].to_string(index=False, formatters=signed)]
        parts += [f"Heard by {name}:\n{found[name].to_string(float_format='{:.1%}'.format)}" for name in "ab"]
    else:
        parts += ["no predictions of the same clips"]
    return "\n\n".join(parts)
