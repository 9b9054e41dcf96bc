"""The measuring commands of `serac-train`: parsing and printing only."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from serac_gateway.cli.terminal import print_json
from serac_gateway.cli.terminal import run as run_command
from training.evaluation.answers.cli import answers
from training.evaluation.options import (
    RUNS,
    AskOption,
    BenchmarkOption,
    ClassifierOption,
    EditsOption,
    EncoderOption,
    JsonOption,
    OutOption,
    PathOption,
    SeedOption,
    StoredOption,
)
from training.evaluation.scope.outcomes import RunFolder
from training.evaluation.terminal import config_errors, print_table, progress_bars

app = typer.Typer(no_args_is_help=True, help="Measure the scope classifier and the answers.")
app.command()(answers)

VECTORS = RUNS / "vectors"
"""What encoders gave in earlier runs."""


@app.command()
def scope(
    benchmark: BenchmarkOption,
    path: PathOption = None,
    edits: EditsOption = None,
    ask: AskOption = None,
    seed: SeedOption = 0,
    url: Annotated[str | None, typer.Option(help="Ask a running gateway instead of in this process.")] = None,
    out: OutOption = None,
    encoder: EncoderOption = None,
    classifier: ClassifierOption = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Default: the one calibrated with the classifier.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Decisions side by side.")] = 1,
    json: JsonOption = False,
) -> None:
    """Which queries fire with which edit: hits, false fires, and a report."""
    from training.benchmarks.catalogue import open_benchmark
    from training.evaluation.gateway_models import open_gateway_models
    from training.evaluation.scope.deciders import Decider, HttpDecider, InProcessDecider
    from training.evaluation.scope.encoder_cache import cached
    from training.evaluation.scope.report import result_rows, write_report
    from training.evaluation.scope.run import run

    with ExitStack() as stack:
        stack.enter_context(config_errors())
        opened = open_benchmark(benchmark, path)
        decider: Decider
        if url is not None:
            decider = HttpDecider(url)
        else:
            models = open_gateway_models(encoder=encoder, classifier=classifier)
            decider = InProcessDecider(
                encoder=stack.enter_context(cached(models.encoder, VECTORS)),
                classifier=models.classifier,
                make_index=models.make_index,
                scope_threshold=threshold,
                threads=threads,
            )
        name = [
            benchmark,
            str(edits or "all"),
            f"ask{ask}" if ask else "",
            f"seed{seed}",
            "http" if url else "",
        ]
        folder = out or RUNS / "-".join(filter(None, name))

        async def measured() -> RunFolder:
            async with decider:
                with progress_bars() as on_progress:
                    return await run(
                        opened,
                        decider,
                        folder,
                        edits=edits,
                        ask=ask,
                        seed=seed,
                        path=path,
                        on_progress=on_progress,
                    )

        results = run_command(measured())
        written = write_report(results)
    if json:
        print_json(written.summary)
        return
    print_table(result_rows([(results.settings(), written.summary)]))
    Console().print(f"report: {written.markdown} and {written.html}", soft_wrap=True)


@app.command()
def report(runs: Annotated[list[Path], typer.Argument(help="Folders of runs.")]) -> None:
    """Write the reports of runs again, and print one table of them all."""
    from training.evaluation.answers.outcomes import AnswerFolder
    from training.evaluation.answers.report import answer_rows, write_answer_report
    from training.evaluation.scope.report import result_rows, write_report

    with config_errors():
        settings = {folder: RunFolder(folder).settings() for folder in runs}
        of_scope = [folder for folder in runs if settings[folder].measures == "scope"]
        of_answers = [folder for folder in runs if settings[folder].measures == "answers"]
        scope_rows = result_rows(
            [(settings[folder], write_report(RunFolder(folder)).summary) for folder in of_scope]
        )
        rows = answer_rows(
            [(settings[folder], write_answer_report(AnswerFolder(folder)).summary) for folder in of_answers]
        )
    if of_scope:
        print_table(scope_rows)
    if of_answers:
        print_table(rows)


@app.command()
def cases(
    source: Annotated[
        str,
        typer.Argument(help="field, written, written-second, suppressions or suppressions-calibration."),
    ],
    path: PathOption = None,
    encoder: EncoderOption = None,
    classifier: ClassifierOption = None,
    wrong: Annotated[
        Path | None, typer.Option(help="Gets the wrong decisions, a JSON object a line.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Which single decisions are right, by kind; each case has only its own edits in force."""
    from training.benchmarks.decision_cases import open_cases
    from training.evaluation.gateway_models import open_gateway_models
    from training.evaluation.scope import case_decisions
    from training.runs import save_records

    with config_errors():
        opened = open_cases(source, path)
        models = open_gateway_models(encoder=encoder, classifier=classifier)
        with progress_bars() as on_progress:
            decisions = case_decisions.decide_cases(models, opened, on_progress=on_progress)
    measured = case_decisions.summary(decisions)
    if wrong is not None:
        save_records(wrong, [decision for decision in decisions if not decision.is_right])
    if json:
        print_json(measured)
    else:
        print_table(case_decisions.rows(measured))


@app.command()
def curve(
    sizes: Annotated[str, typer.Option(help="Numbers of edits in the store.")] = "1,10,100,1000,10000,100000",
    cases: Annotated[
        int, typer.Option(min=1, help="Cases measured, a fourth from each of four sets.")
    ] = 1_000,
    seed: SeedOption = 0,
    out: Annotated[Path, typer.Option(help="Gets curve.json, curve.md and curve.png.")] = RUNS / "curve",
    encoder: EncoderOption = None,
    classifier: ClassifierOption = None,
) -> None:
    """The same probes at growing numbers of edits in the store."""
    from training.evaluation.gateway_models import open_gateway_models
    from training.evaluation.scope import edit_count_curve as curves
    from training.evaluation.scope.encoder_cache import cached

    with config_errors():
        models = open_gateway_models(encoder=encoder, classifier=classifier)
        with progress_bars() as on_progress, cached(models.encoder, out / "vectors") as known:
            models = msgspec.structs.replace(models, encoder=known)
            points = run_command(
                curves.measure(
                    models,
                    sizes=[int(size) for size in sizes.split(",")],
                    measured=curves.measured_cases(cases, seed=seed),
                    fillers=curves.fillers,
                    on_progress=on_progress,
                )
            )
        rows = curves.write(points, out, classifier=models.classifier.fingerprint)
    print_table(rows)


@app.command()
def latency(
    edits: StoredOption = 10_000,
    queries: Annotated[int, typer.Option(min=1, help="Queries timed, of each of two kinds.")] = 500,
    seed: SeedOption = 0,
    encoder: EncoderOption = None,
    classifier: ClassifierOption = None,
    json: JsonOption = False,
) -> None:
    """How long decisions take: encoder alone, without and with candidates."""
    from training.benchmarks import counterfact, unrelated
    from training.benchmarks.base import chosen
    from training.evaluation.gateway_models import open_gateway_models
    from training.evaluation.scope import latency as latencies

    with config_errors():
        stored = chosen(counterfact.load_10k(), edits=edits, seed=seed)
        texts = latencies.queries_of(stored, unrelated.load().traffic, count=queries)
        models = open_gateway_models(encoder=encoder, classifier=classifier)
        with progress_bars() as on_progress:
            measured = run_command(
                latencies.measure(models, stored=stored, texts=texts, on_progress=on_progress)
            )
    if json:
        print_json(measured)
    else:
        print_table(latencies.rows(measured))


@app.command()
def conflicts(
    edits: StoredOption = 10_000,
    count: Annotated[int, typer.Option(min=1, help="Edits that come, of each of four kinds.")] = 300,
    seed: SeedOption = 0,
    encoder: EncoderOption = None,
    classifier: ClassifierOption = None,
    json: JsonOption = False,
) -> None:
    """Which contradictions are found when an edit comes, which are not there, and how long that takes."""
    from training.benchmarks import counterfact
    from training.benchmarks.base import chosen
    from training.evaluation.gateway_models import open_gateway_models
    from training.evaluation.scope import conflicts as conflict_runs

    with config_errors():
        stored = chosen(counterfact.load_10k(), edits=edits, seed=seed)
        models = open_gateway_models(encoder=encoder, classifier=classifier)
        with progress_bars() as on_progress:
            measured = run_command(
                conflict_runs.measure(models, stored=stored, count=count, seed=seed, on_progress=on_progress)
            )
    if json:
        print_json(measured)
    else:
        print_table(conflict_runs.rows(measured))


def calibrate_similarity(
    out: Annotated[Path, typer.Option(help="Folder that gets calibration.json.")] = Path(
        "serac_gateway/models/weights/similarity-minilm"
    ),
    encoder: EncoderOption = None,
) -> None:
    """Calibrate the similarity classifier on the validation rows of the public data."""
    from serac_gateway.edit_index.opening import index_maker
    from training.evaluation.gateway_models import open_encoder
    from training.evaluation.scope import similarity_calibration

    with config_errors(), Console(stderr=True).status("encoding and searching"):
        opened = open_encoder(encoder)
        calibration = similarity_calibration.calibrate(
            encoder=opened,
            make_index=index_maker(opened.width),
            benchmarks=similarity_calibration.validation_sets(),
            provenance=similarity_calibration.provenance(
                shlex.join(
                    ["serac-train", "calibrate-similarity", *(["--encoder", encoder] if encoder else [])]
                )
            ),
        )
        path = similarity_calibration.write(calibration, out)
    Console().print(f"wrote {path}: {calibration.provenance['at_threshold']}", soft_wrap=True)
