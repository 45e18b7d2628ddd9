"""The command line, `python -m ser_lib COMMAND`.

Exit codes: 0, success; 1, something failed or is not reliable, and a line tells what; 2, the command is wrong.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click

from ser_lib import __version__, need_repository
from ser_lib.errors import BundleError
from ser_lib.serving.command import Group, serve

PATH = click.Path(
    path_type=Path, readable=False
)  # an unreadable file is an error with a remedy, not a wrong command


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="ser_lib")
def main() -> None:
    """Speech emotion recognition, scored on speakers that the model has never met."""


main.add_command(serve)


@main.command()
def data() -> None:
    """Download RAVDESS speech (208 MB) into data/ravdess, or your own data folder where that is read-only.

    An interrupted download continues.
    """
    from ser_lib.corpora.ravdess import fetch_ravdess

    click.echo(f"RAVDESS is in {fetch_ravdess()}")


@main.command()
@click.argument("source", type=PATH)
@click.argument("table", type=PATH)
@click.option("--set", "feature_set", default="full", help="classic, compact, full or your own")
@click.option("--jobs", default=-1, help="processes; -1 for all cores")
@click.option("--copies", is_flag=True, help="of the augmented copies that the served model is trained with")
@click.option("--family", "families", multiple=True, help="write only its columns: mfcc, pitch, …")
@click.option("--dask", "scheduler", help="a Dask scheduler, tcp://HOST:PORT, whose workers can read SOURCE")
def features(
    source: Path, table: Path, feature_set: str, jobs: int, copies: bool, families: tuple[str, ...],
    scheduler: str | None,
) -> None:  # fmt: skip
    """Extract the feature TABLE (.parquet) of a folder or manifest SOURCE. An interrupted extraction continues."""
    from ser_lib import augmentation, corpora, parallel
    from ser_lib.augmentation.copies import coarse, with_copies
    from ser_lib.corpora import identity
    from ser_lib.features import FeatureConfig, extraction, family, feature_names, tables

    config = FeatureConfig(feature_set)
    known = {family(name) for name in feature_names(config)}
    if unknown := set(families) - known:
        listed = ", ".join(sorted(known))
        raise click.BadParameter(f"no {', '.join(unknown)} in {feature_set}; it has {listed}")
    others = [name for name in feature_names(config) if families and family(name) not in families]
    with parallel.dask_cluster(scheduler) if scheduler else nullcontext():
        if copies or others:
            clips, unnamed = corpora.listing(source)
            rows, unusable = extraction.build(clips, config, n_jobs=jobs)
            if copies:
                rows = with_copies(rows, clips, augmentation.TRAINING, config)
                rows = coarse(rows[~identity.originals(rows)], config)
            tables.write_table(rows.drop(columns=others), table, config)
            n_rows, left_out = len(rows), [*unnamed["problem"], *unusable["problem"]]
        else:
            n_rows, problems = tables.extract_to_file(source, table, config, n_jobs=jobs)
            left_out = list(problems["problem"])
    for problem in left_out:
        click.echo(f"left out: {problem}", err=True)
    click.echo(f"{table}: {n_rows} rows of the {feature_set} set; {len(left_out)} file(s) left out")


@main.group()
def corpus() -> None:
    """Your own recordings: a folder, a CSV with path, speaker and emotion, or several with commas between."""


@corpus.command()
@click.argument("source")
@click.option("--protocol", default="actors5", help="of the planned report: actors5, loso or random")
@click.option("--emotions", help="four, eight or a comma-separated list [default: all]")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object")
def check(source: str, protocol: str, emotions: str | None, as_json: bool) -> None:
    """Show what SOURCE contains and whether a report on it would be reliable; if not, why, and exit with 1.

    The features are computed on the way and cached for the report.
    """
    from ser_lib import corpora
    from ser_lib.evaluation import splits
    from ser_lib.runs import preflight

    if protocol not in splits.PROTOCOLS:
        raise click.BadParameter(f"--protocol {protocol}: choose one of {', '.join(splits.PROTOCOLS)}")
    result = preflight.examine(source, protocol, corpora.emotion_list(emotions) if emotions else None)
    click.echo(json.dumps(result) if as_json else preflight.as_text(result))
    if result["doubts"]:
        raise SystemExit(1)


MODEL = click.option("--model", type=PATH, help="model metadata (.json) [default: models/ser.json]")


class FilesCommand(click.Command):
    """Tells how a file is given whose name looks like an option."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        """Read the command line."""
        given = list(args)
        try:
            return super().parse_args(context, args)
        except click.NoSuchOption as error:
            files = [name for name in given if name.startswith("-") and os.path.exists(name)]
            if not files:
                raise
            raise click.UsageError(
                f"{files[0]} is a file: write ./{files[0]}, or -- before the names"
            ) from error


@main.command(cls=FilesCommand)
@click.argument("files", nargs=-1, required=True)
@MODEL
@click.option(
    "--format",
    "form",
    type=click.Choice(("table", "jsonl", "csv")),
    help="[default: table on a terminal, else jsonl]",
)
@click.option("--timeline", is_flag=True, help="one answer for each window of a recording")
@click.option(
    "--reference",
    "references",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False),
    help="a neutral clip of the same speaker; give several",
)
@click.option("-q", "--quiet", is_flag=True, help="no progress bar and no warnings")
def predict(
    files: tuple[str, ...],
    model: Path | None,
    form: str | None,
    timeline: bool,
    references: tuple[str, ...],
    quiet: bool,
) -> None:
    """Print the predicted emotion of FILES; folders are searched, and - is standard input.

    Files without an answer are named on standard error, the others go on, and the command exits with 1.
    """
    from ser_lib.serving import answers, bundle

    if timeline and references:
        raise click.UsageError("--timeline takes no references; leave one of the two out")
    if quiet:
        warnings.simplefilter("ignore", bundle.VersionWarning)
    form = form or ("table" if sys.stdout.isatty() else "jsonl")
    served = bundle.load(model or bundle.DEFAULT)
    failed: list[str] = []

    def predict_file(file: str) -> Iterator[dict[str, Any]]:
        source, name = (sys.stdin.buffer.read(), "standard input") if file == "-" else (file, file)
        if timeline:
            yield from served.timeline(source, name=name)
            return
        answer = served.predict(source, name=name, references=references)
        if form == "table" and not quiet:
            for warning in answer["warnings"]:
                answers.echo(f"{name}: {warning}", err=True)
        yield answer

    rows = answers.answer_files(
        answers.list_files(files, quiet=quiet), predict_file, quiet=quiet, failed=failed
    )
    first = ("file", "start_s", "end_s") if timeline else ("file",)
    for line in answers.as_lines(rows, form, served.metadata["classes"], first):
        answers.echo(line)
    if failed:
        raise SystemExit(1)


@main.command()
@MODEL
@click.option("--device", help="of the microphone, its number or a part of its name")
def listen(model: Path | None, device: str | None) -> None:
    """Predict live from the microphone until Ctrl-C: bars in a terminal, JSON lines in a pipe. Needs the extra `mic`."""
    from ser_lib.serving import answers, bundle

    served = bundle.load(model or bundle.DEFAULT)
    live = answers.live(served, *answers.microphone(device))
    labels = served.metadata["classes"]
    lines = answers.bars(live, labels) if sys.stdout.isatty() else answers.as_lines(live, "jsonl", labels)
    try:
        for line in lines:
            click.echo(line)
    except KeyboardInterrupt:
        pass


@main.command()
@click.argument("metadata", nargs=-1, metavar="[METADATA]", type=PATH)
@click.argument("out", metavar="OUT.pkl", type=PATH)
def export(metadata: tuple[Path, ...], out: Path) -> None:
    """Copy the model of METADATA [default: models/ser.json] to OUT.pkl, with its metadata beside it."""
    from ser_lib.serving import bundle

    if len(metadata) > 1:
        raise click.UsageError(f"one METADATA and one OUT, not {len(metadata) + 1} files")
    bundle.export(metadata[0] if metadata else bundle.DEFAULT, out)
    click.echo(
        f"{out} and its metadata {out.with_suffix('.json')}, which `python -m ser_lib serve --model` takes"
    )


@main.command()
@click.argument("metadata", required=False, type=PATH)
def card(metadata: Path | None) -> None:
    """Print the model card of METADATA [default: models/ser.json], in Markdown."""
    from ser_lib.serving import bundle, card

    path = metadata or bundle.DEFAULT
    try:
        click.echo(card.model_card(bundle.read_metadata(path)), nl=False)
    except KeyError as error:
        raise BundleError(
            f"{path}: no {error.args[0]} in the metadata, so no card; {bundle.CHOOSE}"
        ) from error


@main.command()
@click.argument("model", type=PATH, required=False)
def retrain(model: Path | None) -> None:
    """Fit the model with metadata MODEL [default: models/ser.json] again from the shipped tables and installed libraries."""
    need_repository("the tables")
    from ser_lib.serving import bundle, training

    metadata = training.retrain(model or bundle.DEFAULT)
    click.echo(f"{model or bundle.DEFAULT}: trained again, with {metadata['libraries']}")


# --- reports and runs -----------------------------------------------------------------------------


def key_values(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """Return `-p seed=1 -p emotions=four` as a dictionary."""
    for text in given:
        if "=" not in text:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE")
    return dict(text.split("=", 1) for text in given)


class NotebookCommand(click.Command):
    """Its help lists the parameters of the given notebooks as well."""

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the parameters."""
        named = context.params.get("notebooks")
        if not named:
            return

        need_repository("the notebooks")
        from ser_lib.runs import execution, parameters

        for notebook in dict.fromkeys(run.notebook for run in execution.plan(named)):
            with formatter.section(f"Parameters of {notebook}"):
                formatter.write_dl(parameters.help_rows(notebook))


@contextmanager
def immediate_interrupt() -> Iterator[None]:
    """Let Ctrl-C end this process, and with it its runs, without waiting for its threads."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # a script's background job ignores it, and so do we
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@main.command(cls=NotebookCommand)
@click.option(
    "--notebook",
    "notebooks",
    multiple=True,
    is_eager=True,
    help="a run or notebook by its beginning: 03, 03_four; with --help, its parameters",
)
@click.option(
    "-p", "parameters", multiple=True, callback=key_values, help="NAME=VALUE of a notebook parameter"
)
@click.option("--grid", type=PATH, help="YAML of PARAMETER: [VALUE, …]; runs every combination")
@click.option("--failed", is_flag=True, help="repeat the runs that failed")
@click.option("--force", is_flag=True, help="run unchanged notebooks too")
@click.option("--jobs", type=int, help="runs at a time; -1 for all cores [default: 2; with --grid -1]")
@click.option("--out", type=PATH, help="folder of the reports [default: reports]")
@click.option("--name", default="", help="name of the report's folder, for a single run")
@click.option(
    "--mlflow", default="", metavar="URI", help="also log the runs in this MLflow store; extra `mlflow`"
)
@click.option(
    "--data", "corpus_folder", type=click.Path(exists=True), help="RAVDESS, instead of SER_RAVDESS_DIR"
)
def reports(
    notebooks: tuple[str, ...], parameters: dict[str, str], grid: Path | None, failed: bool, force: bool,
    jobs: int | None, out: Path | None, name: str, mlflow: str, corpus_folder: str | None,
) -> None:  # fmt: skip
    """Run the notebooks whose parameters, data, code or versions changed, and rebuild the index of the reports."""
    need_repository("the notebooks")
    from ser_lib.runs import execution, ledger

    if corpus_folder:
        os.environ["SER_RAVDESS_DIR"] = corpus_folder
    if (failed and (parameters or grid or name)) or (grid and name):
        raise click.UsageError("--failed goes with --notebook alone, and --grid with no --name")
    out = out or ledger.REPORTS
    if failed:
        runs = execution.failed_runs(out, notebooks)
    elif grid:
        runs = execution.plan_grid(grid, notebooks, parameters, out)
        click.echo(f"{len(runs)} runs:")
        for run in runs:
            click.echo(f"  {run.name}")
    else:
        runs = execution.plan(notebooks, parameters, name=name, out=out)
    with immediate_interrupt():
        execution.execute_all(
            runs, out, jobs=jobs or (-1 if grid else 2), force=force, keep_going=bool(grid or failed),
            mlflow=mlflow, say=click.echo,
        )  # fmt: skip


@main.group(invoke_without_command=True)
@click.option("--out", type=PATH, help="folder of the reports [default: reports]")
@click.option("--json", "as_json", is_flag=True, help="print all columns as one JSON array")
@click.pass_context
def runs(context: click.Context, out: Path | None, as_json: bool) -> None:
    """List the runs: parameters, result, status."""
    from ser_lib.runs import index, ledger

    context.obj = out = out or ledger.REPORTS
    if out.is_dir():
        os.scandir(out).close()  # PermissionError, which the search for runs does not raise
    if context.invoked_subcommand is None:
        rows = ledger.runs(out)
        click.echo(json.dumps(rows, indent=1) if as_json else index.runs_text(rows))


@runs.command()
@click.argument("a")
@click.argument("b")
@click.pass_obj
def diff(out: Path, a: str, b: str) -> None:
    """Compare two runs: parameters, results, and predictions of the same clips."""
    from ser_lib.runs import index

    click.echo(index.comparison_text(a, b, out))


@runs.command()
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def rm(out: Path, names: tuple[str, ...]) -> None:
    """Delete runs with all their files."""
    from ser_lib.runs import index, ledger

    for name in names:
        ledger.remove(name, out)
        click.echo(f"{name}: removed")
    index.write_index(out)
