"""The command line: `python -m ser_lib data · corpus · features · reports · runs · predict · serve · listen · export · card · …`.

Exit codes: 0, all is well; 1, something failed or is doubtful, and a line says what; 2, the command is wrong.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ser_lib import __version__
from ser_lib.errors import BundleError
from ser_lib.serving.command import Commands, serve


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="ser_lib")
def main() -> None:
    """Speech emotion recognition, scored on speakers never heard in training."""


main.add_command(serve)


@main.command()
def data() -> None:
    """Download RAVDESS speech (208 MB) into data/ravdess, or among your own files where that is read-only; goes on where it was interrupted."""
    from ser_lib.corpora.ravdess import fetch_ravdess

    click.echo(f"RAVDESS is in {fetch_ravdess()}")


@main.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("table", type=click.Path(path_type=Path))
@click.option("--set", "feature_set", default="full", help="classic, compact, full or your own")
@click.option("--jobs", default=-1, help="processes; -1 for all cores")
@click.option("--copies", is_flag=True, help="of the changed copies that the served model is trained with")
@click.option("--family", "families", multiple=True, help="write only its columns: mfcc, pitch, …")
@click.option("--dask", "scheduler", help="a Dask scheduler, tcp://HOST:PORT, whose workers see SOURCE")
def features(
    source: Path,
    table: Path,
    feature_set: str,
    jobs: int,
    copies: bool,
    families: tuple[str, ...],
    scheduler: str | None,
) -> None:
    """Extract the feature TABLE (.parquet) of a folder or manifest SOURCE; goes on where it was interrupted."""
    from contextlib import nullcontext

    from ser_lib import augmentation, corpora
    from ser_lib.augmentation.copies import coarse, with_copies
    from ser_lib.corpora import clips, identity
    from ser_lib.features import FeatureConfig, extraction, family, feature_names, tables

    config = FeatureConfig(feature_set)
    named = {family(name) for name in feature_names(config)}
    if unknown := set(families) - named:
        raise click.BadParameter(
            f"no {', '.join(unknown)} in {feature_set}; it has {', '.join(sorted(named))}"
        )
    others = [name for name in feature_names(config) if families and family(name) not in families]
    if scheduler:
        from ser_lib import parallel
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
    """One's own recordings: a folder, a CSV of path, speaker and emotion, or several with commas between."""


@corpus.command()
@click.argument("source")
@click.option("--protocol", default="actors5", help="of the report to come: actors5, loso or random")
@click.option("--emotions", help="four, eight or a comma-separated list [default: all there are]")
@click.option("--json", "as_json", is_flag=True, help="the same as one JSON object")
def check(source: str, protocol: str, emotions: str | None, as_json: bool) -> None:
    """Tell what SOURCE holds and whether a report on it could be trusted; if not, why, and exit with 1.

    Its features are computed on the way, and kept for the report.
    """
    from ser_lib import corpora
    from ser_lib.evaluation import splits
    from ser_lib.runs import preflight

    if protocol not in splits.PROTOCOLS:
        raise click.BadParameter(f"--protocol {protocol}: choose one of {', '.join(splits.PROTOCOLS)}")
    found = preflight.examine(source, protocol, corpora.emotion_list(emotions) if emotions else None)
    click.echo(json.dumps(found) if as_json else preflight.written(found))
    if found["doubts"]:
        raise SystemExit(1)


MODEL = click.option("--model", type=click.Path(path_type=Path), help="a metadata [default: models/ser.json]")


@main.command()
@click.argument("files", nargs=-1, required=True)
@MODEL
@click.option(
    "--format",
    "form",
    type=click.Choice(("table", "jsonl", "csv")),
    help="[default: table on a terminal, else jsonl]",
)
@click.option("--timeline", is_flag=True, help="an answer for each window of a recording")
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
    """Print the emotion heard in FILES; folders are searched, and - is standard input.

    What cannot be heard is named on standard error, the others go on, and the command ends with 1.
    """
    from ser_lib.serving import answers, bundle

    if timeline and references:
        raise click.UsageError("--timeline hears no references; leave one of the two out")
    if quiet:
        warnings.simplefilter("ignore", bundle.VersionWarning)
    form = form or ("table" if sys.stdout.isatty() else "jsonl")
    chosen = bundle.load(model or bundle.DEFAULT)
    failed: list[str] = []

    def hear(file: str) -> Iterator[dict[str, Any]]:
        source, name = (sys.stdin.buffer.read(), "standard input") if file == "-" else (file, file)
        if timeline:
            yield from chosen.timeline(source, name=name)
            return
        answer = chosen.predict(source, name=name, references=references)
        if form == "table" and not quiet:
            for warning in answer["warnings"]:
                answers.say(f"{name}: {warning}", err=True)
        yield answer

    rows = answers.heard(answers.recordings(files), hear, quiet=quiet, failed=failed)
    first = ("file", "start_s", "end_s") if timeline else ("file",)
    for line in answers.written(rows, form, chosen.metadata["classes"], first):
        answers.say(line)
    if failed:
        raise SystemExit(1)


@main.command()
@MODEL
@click.option("--device", help="of the microphone, its number or a part of its name")
def listen(model: Path | None, device: str | None) -> None:
    """Hear the microphone until Ctrl-C: bars in a terminal, JSON lines in a pipe. Needs the extra `mic`."""
    from ser_lib.serving import answers, bundle

    chosen = bundle.load(model or bundle.DEFAULT)
    heard = answers.live(chosen, *answers.microphone(device))
    labels = chosen.metadata["classes"]
    lines = answers.bars(heard, labels) if sys.stdout.isatty() else answers.written(heard, "jsonl", labels)
    try:
        for line in lines:
            click.echo(line)
    except KeyboardInterrupt:
        pass


@main.command()
@click.argument("metadata", nargs=-1, metavar="[METADATA]", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT.pkl|OUT.onnx", type=click.Path(path_type=Path))
def export(metadata: tuple[Path, ...], out: Path) -> None:
    """Write the model of METADATA [default: models/ser.json] as pickle with metadata, or as ONNX (extra `onnx`)."""
    from ser_lib.serving import bundle, export

    if len(metadata) > 1:
        raise click.UsageError(f"one METADATA and one OUT, not {len(metadata) + 1} files")
    click.echo(export.write(metadata[0] if metadata else bundle.DEFAULT, out))


@main.command()
@click.argument("metadata", required=False, type=click.Path(path_type=Path))
def card(metadata: Path | None) -> None:
    """Print the model card of METADATA [default: models/ser.json], in Markdown."""
    from ser_lib.serving import bundle, card

    path = metadata or bundle.DEFAULT
    try:
        click.echo(card.model_card(bundle.read_metadata(path)), nl=False)
    except KeyError as error:
        raise BundleError(f"{path}: tells no {error.args[0]}, so it has no card; {bundle.CHOOSE}") from error


@main.command()
@click.argument("model", type=click.Path(path_type=Path), required=False)
def retrain(model: Path | None) -> None:
    """Fit MODEL, a metadata [default: models/ser.json], again from the shipped tables, with the libraries of here."""
    from ser_lib import paths

    paths.need_repository("the tables")
    from ser_lib.serving import bundle, training

    metadata = training.again(model or bundle.DEFAULT)
    click.echo(f"{model or bundle.DEFAULT}: trained again, with {metadata['libraries']}")


# --- reports and runs -----------------------------------------------------------------------------


def key_values(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """`-p seed=1 -p emotions=four` as a dictionary."""
    for text in given:
        if "=" not in text:
            raise click.BadParameter(f"{text!r} is not NAME=VALUE")
    return dict(text.split("=", 1) for text in given)


class Described(click.Command):
    """`--notebook 03 --help` lists the parameters of notebook 03 as well."""

    def format_epilog(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """Write them."""
        named = context.params.get("notebooks")
        if not named:
            return
        from ser_lib import paths

        paths.need_repository("the notebooks")
        from ser_lib.runs import execution, parameters

        for notebook in dict.fromkeys(run.notebook for run in execution.plan(named)):
            with formatter.section(f"Parameters of {notebook}"):
                formatter.write_dl(parameters.help_rows(notebook))


@contextmanager
def ended_at_once() -> Iterator[None]:
    """Inside, Ctrl-C ends this process, and so its runs, without waiting for the threads that wait for them."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # else it is ignored, as in the background of a script
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@main.command(cls=Described)
@click.option(
    "--notebook",
    "notebooks",
    multiple=True,
    is_eager=True,
    help="a run or notebook by its beginning: 03, 03_four; followed by --help, its parameters",
)
@click.option(
    "-p", "parameters", multiple=True, callback=key_values, help="NAME=VALUE of a notebook parameter"
)
@click.option(
    "--grid", type=click.Path(path_type=Path), help="YAML of PARAMETER: [VALUE, …]; every combination is run"
)
@click.option("--failed", is_flag=True, help="take up the runs that failed")
@click.option("--force", is_flag=True, help="run what is unchanged as well")
@click.option("--jobs", type=int, help="runs at a time; -1 for all cores [default: 2; with --grid -1]")
@click.option("--out", type=click.Path(path_type=Path), help="folder of the reports [default: reports]")
@click.option("--name", default="", help="name of the run's folder, where there is one run")
@click.option(
    "--mlflow", default="", metavar="URI", help="log the runs in this MLflow store too; extra `mlflow`"
)
@click.option("--data", "corpus_folder", type=click.Path(exists=True), help="RAVDESS; as SER_RAVDESS_DIR")
def reports(
    notebooks: tuple[str, ...],
    parameters: dict[str, str],
    grid: Path | None,
    failed: bool,
    force: bool,
    jobs: int | None,
    out: Path | None,
    name: str,
    mlflow: str,
    corpus_folder: str | None,
) -> None:
    """Run the notebooks whose parameters, data, code or versions changed, and rebuild the index of the reports."""
    from ser_lib import paths

    paths.need_repository("the notebooks")
    from ser_lib.runs import execution, ledger

    if corpus_folder:
        os.environ["SER_RAVDESS_DIR"] = corpus_folder
    if (failed and (parameters or grid or name)) or (grid and name):
        raise click.UsageError("--failed goes with --notebook alone, and --grid names its runs itself")
    out = out or ledger.REPORTS
    if failed:
        runs = execution.failed(out, notebooks)
    elif grid:
        runs = execution.grid(grid, notebooks, parameters, out)
        click.echo(f"{len(runs)} runs:")
        for run in runs:
            click.echo(f"  {run.name}")
    else:
        runs = execution.plan(notebooks, parameters, name=name, out=out)
    several = bool(grid or failed)
    with ended_at_once():
        execution.execute_all(
            runs,
            out,
            jobs=jobs or (-1 if grid else 2),
            force=force,
            keep_going=several,
            mlflow=mlflow,
            say=click.echo,
        )


@main.group(invoke_without_command=True)
@click.option("--out", type=click.Path(path_type=Path), help="folder of the reports [default: reports]")
@click.option("--json", "as_json", is_flag=True, help="everything that is known of each, as one JSON array")
@click.pass_context
def runs(context: click.Context, out: Path | None, as_json: bool) -> None:
    """List the runs: what has been run, with what, how it ended."""
    from ser_lib.runs import index, ledger

    context.obj = out = out or ledger.REPORTS
    if context.invoked_subcommand is None:
        found = ledger.runs(out)
        click.echo(json.dumps(found, indent=1) if as_json else index.listing(found))


@runs.command()
@click.argument("a")
@click.argument("b")
@click.pass_obj
def diff(out: Path, a: str, b: str) -> None:
    """Show two runs side by side: parameters, results, and their predictions of the same clips."""
    from ser_lib.runs import index

    click.echo(index.comparison(a, b, out))


@runs.command()
@click.argument("names", nargs=-1, required=True)
@click.pass_obj
def rm(out: Path, names: tuple[str, ...]) -> None:
    """Delete runs with all they left."""
    from ser_lib.runs import index, ledger

    for name in names:
        ledger.remove(name, out)
        click.echo(f"{name}: removed")
    index.write(out)
