"""Runs a method on a benchmark: edits it makes, probes it is asked, what that costs; one JSON line a case."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec

from training.baselines.base import EditingMethod
from training.baselines.causal_model import CausalModel
from training.baselines.context import Unedited
from training.benchmarks.base import Benchmark
from training.evaluation.answers.methods.asking import first_token_ms, name_governing_edits, probe_outcomes
from training.evaluation.answers.methods.base_outputs import BaseOutputs
from training.evaluation.answers.methods.batches import Batches
from training.evaluation.answers.methods.memory import PeakMemory
from training.evaluation.answers.methods.outcomes import PROTOCOL, CaseOutcome, MethodFolder, RoundOutcome
from training.evaluation.answers.methods.plan import PlannedCase, Round, rounds
from training.evaluation.outcomes import RunSettings
from training.evaluation.terminal import OnProgress, silent
from training.runs import TrainingError

_TIMED_QUERIES = 4


class MethodOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to edit and to ask."""

    edits: int
    """In a round, N."""
    ask: int
    """Cases asked, in all rounds together."""
    together: int = 1
    """Edits given to the method in one call: what methods with batches solve together."""
    seed: int = 0
    max_tokens: int = 16
    """Of a reply; never depends on the wanted answer."""
    per_kind: int = 2
    """At most so many probes of a kind and case."""
    open_texts: int = 5
    """Cases whose subject gets an open text."""
    at_once: int = 16
    """Texts that run through the model together, fewer where memory runs out."""


def run_method(
    method_name: str,
    benchmark: Benchmark,
    folder: Path,
    *,
    options: MethodOptions,
    open_model: Callable[[], CausalModel],
    open_method: Callable[[CausalModel], EditingMethod],
    about: dict[str, str],
    path: Path | None = None,
    on_progress: OnProgress = silent,
) -> MethodFolder:
    """Measure a method; a run that was interrupted goes on with its first unfinished round.

    The model is opened only if there is something left to do. `about` names the model and the method's
    settings.

    Raises:
        ConfigError: The folder holds another run, or model or method cannot be opened.
        TrainingError: The method does not take its edits back, or memory runs out.
    """
    planned, left_out = rounds(
        benchmark,
        edits=options.edits,
        ask=options.ask,
        seed=options.seed,
        per_kind=options.per_kind,
        open_texts=options.open_texts,
    )
    results = MethodFolder(folder)
    done = results.begin(_settings(method_name, benchmark, path, options, about, left_out))
    remaining = [round_ for round_ in planned if not done.issuperset(case.case.id for case in round_.cases)]
    if not remaining:
        return results
    on_progress("opening the model", 0, len(remaining))
    runner = _Runner(open_model(), open_method, results, done, options, on_progress)
    with ExitStack() as stack:
        runner.prepare(remaining, stack)
        for count, round_ in enumerate(remaining):
            on_progress("rounds", count, len(remaining))
            runner.run(round_)
    on_progress("rounds", len(remaining), len(remaining))
    return results


class _Runner:
    """One method on one model, round after round."""

    def __init__(
        self,
        model: CausalModel,
        open_method: Callable[[CausalModel], EditingMethod],
        results: MethodFolder,
        done: frozenset[str],
        options: MethodOptions,
        on_progress: OnProgress,
    ) -> None:
        self._model = model
        self._open_method = open_method
        self._results = results
        self._done = done
        self._options = options
        self._on_progress = on_progress
        self._batches = Batches(options.at_once)
        self._weights = model.fingerprint()
        self._base = BaseOutputs(
            results.folder.parent / "base-outputs", weights=self._weights, max_tokens=options.max_tokens
        )
        self._prepare_s = 0.0
        self._timed_queries: list[str] = []
        self._base_ms: tuple[float, ...] = ()

    def prepare(self, remaining: Sequence[Round], stack: ExitStack) -> None:
        """Everything that needs the unedited model; the method is opened last, and closed with `stack`."""
        unedited = Unedited(self._model)
        cases = [case for round_ in remaining for case in round_.cases if case.case.id not in self._done]
        self._on_progress("unedited model", 0, len(cases))
        self._base.add(unedited, [probe for case in cases for probe in case.probes], self._batches)
        self._on_progress("unedited model", len(cases), len(cases))
        self._timed_queries = [case.case.edit.prompt for case in cases[:_TIMED_QUERIES]]
        self._base_ms = first_token_ms(unedited, self._timed_queries)
        self._method = self._open_method(self._model)
        stack.callback(self._method.close)
        begun = time.perf_counter()
        self._method.prepare(on_progress=self._on_progress)
        self._prepare_s = time.perf_counter() - begun
        self._hooks = self._model.hook_count()
        self._check_weights(f"preparing {self._method.name!r}")

    def run(self, round_: Round) -> None:
        """Edit, ask, note, undo."""
        cases = [case for case in round_.cases if case.case.id not in self._done]
        name_governing_edits(self._method, cases)
        peak = PeakMemory()
        try:
            edit_s, refused, just_after = self._edited(round_, cases)
            peak_bytes = peak.bytes_above_begin()
            query_ms = first_token_ms(self._method, self._timed_queries)
            base_ms, self._timed_queries = self._base_ms[: len(query_ms)], []  # once a run is enough
            held_bytes = self._method.held_bytes
            outcomes = probe_outcomes(
                self._method, cases, self._base, self._batches, max_tokens=self._options.max_tokens
            )
        finally:
            self._method.undo()
        self._check_weights(f"undoing the edits of {self._method.name!r}")
        places = {draft.id: place for place, draft in enumerate(round_.edits)}
        self._results.append(
            [
                CaseOutcome(
                    case=case.case.id,
                    round=round_.number,
                    prompt=case.case.edit.prompt,
                    target_new=case.case.edit.target_new,
                    target_true=case.case.edit.target_true,
                    age=len(round_.edits) - 1 - places[case.case.id],
                    just_after=just_after.get(case.case.id),
                    was_refused=case.case.id in refused,
                    probes=probes,
                )
                for case, probes in zip(cases, outcomes, strict=True)
            ]
        )
        self._results.add_round(
            RoundOutcome(
                round=round_.number, weights=self._weights, edits=len(round_.edits),
                refused=tuple(refused.values()), prepare_s=self._prepare_s, edit_s=edit_s,
                peak_bytes=peak_bytes, held_bytes=held_bytes, base_query_ms=base_ms, query_ms=query_ms,
            )
        )  # fmt: skip

    def _edited(
        self, round_: Round, cases: Sequence[PlannedCase]
    ) -> tuple[float, dict[str, str], dict[str, str]]:
        """Make the edits: seconds, why some were refused, and replies directly after the edit, by id."""
        by_id = {case.case.id: case for case in cases}
        edit_s = 0.0
        refused: dict[str, str] = {}
        just_after: dict[str, str] = {}
        together = self._options.together
        for begin in range(0, len(round_.edits), together):
            part = round_.edits[begin : begin + together]
            started = time.perf_counter()
            try:
                self._method.edit(part)
            except TrainingError as exc:
                refused.update({draft.id or "": f"{draft.prompt!r}: {exc}" for draft in part})
            edit_s += time.perf_counter() - started
            new = [by_id[draft.id] for draft in part if draft.id in by_id]
            if new and begin + together < len(round_.edits):
                replies = self._method.answers(
                    [case.case.edit.prompt for case in new],
                    max_tokens=self._options.max_tokens,
                    at_once=self._batches.at_once,
                )
                just_after |= {case.case.id: reply for case, reply in zip(new, replies, strict=True)}
            self._on_progress("edits", min(begin + together, len(round_.edits)), len(round_.edits))
        return edit_s, refused, just_after

    def _check_weights(self, after: str) -> None:
        now, hooks = self._model.fingerprint(), self._model.hook_count()
        if now != self._weights or hooks != self._hooks:
            raise TrainingError(
                f"after {after} the model is not what it was (fingerprint {now!r} with {hooks} hooks, before"
                f" the first edit {self._weights!r} with {self._hooks}): what follows would be measured on an"
                " edited model. This is an error of the method; lines of finished rounds are kept"
            )


def _settings(
    method_name: str,
    benchmark: Benchmark,
    path: Path | None,
    options: MethodOptions,
    about: dict[str, str],
    left_out: int,
) -> RunSettings:
    return RunSettings(
        benchmark=benchmark.name,
        role=benchmark.role,
        path=None if path is None else str(path),
        edits=options.edits,
        seed=options.seed,
        decider={
            "method": method_name,
            **about,
            "edits at once": str(options.together),
            "protocol": PROTOCOL,
            "max_tokens": str(options.max_tokens),
            "probes of a kind": str(options.per_kind),
            "open texts": str(options.open_texts),
        },
        stored_edits=options.edits,
        left_out=left_out,
        sampled_cases=options.ask,
        measures="methods",
    )
