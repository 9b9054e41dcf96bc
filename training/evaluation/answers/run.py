"""Runs a benchmark's answers through a gateway: store edits, ask probes as users do, one JSON line a case."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from serac_gateway.cli.ask import first_model
from serac_gateway.cli.client import CommandClient
from serac_gateway.domain.edits import EditDraft, EditKind
from training.benchmarks.base import Benchmark, Case, Probe, chosen, prepared, stored
from training.evaluation.answers.client import Form, Reply, ask_streamed, ask_whole
from training.evaluation.answers.outcomes import AnswerFolder, CaseAnswers, ProbeAnswer
from training.evaluation.outcomes import settings_of
from training.evaluation.remote_namespace import HttpNamespace
from training.evaluation.terminal import OnProgress, silent

if TYPE_CHECKING:  # torch takes seconds, and over HTTP nothing is forced
    from training.evaluation.answers.teacher_forcing import TeacherForcing


class AnswerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The form of the requests and of the store."""

    given_edit: bool = False
    """Only the edits of the case asked are in the store, and only what they answer is asked."""
    as_completion: bool = False
    """Texts to be continued go to /v1/completions."""
    max_tokens: int = 48
    at_once: int = 1
    """Cases asked side by side. More than one is quicker and makes every single answer slower."""


async def run_answers(
    benchmark: Benchmark,
    url: str,
    folder: Path,
    *,
    options: AnswerOptions = AnswerOptions(),  # noqa: B008 - frozen
    about: Mapping[str, str],
    edits: int | None = None,
    ask: int | None = None,
    seed: int = 0,
    path: Path | None = None,
    forcing: TeacherForcing | None = None,
    on_progress: OnProgress = silent,
) -> AnswerFolder:
    """Measure the gateway at `url`; a run that was interrupted goes on where it stopped.

    All `edits` are stored; `ask` limits the cases, and the prompts of traffic, whose probes are asked.
    `about` is added to the decider in the run's settings.

    Raises:
        ConfigError: The folder holds another run, or an edit was refused.
        UnreachableError, ApiError, GatewayRefusedError: The gateway cannot be asked.
    """
    subset = chosen(benchmark, edits=edits, seed=seed)
    if not options.given_edit:
        subset = prepared(subset)  # alone in its store, a case has neither rivals nor contested probes
    results = AnswerFolder(folder)
    done = results.begin(
        settings_of(
            subset,
            path=path,
            edits=edits,
            ask=ask,
            seed=seed,
            decider={**about, **_described(options), "teacher-forced": "yes" if forcing else "no"},
            stored_edits=1 if options.given_edit else len(stored(subset)),
            measures="answers",
        )
    )
    remaining = [case for case in _drawn(subset, ask, seed, options) if case.id not in done]
    if not remaining:
        return results
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(HttpNamespace(url))
        untouched = await stack.enter_async_context(
            CommandClient(first.url, namespace=f"{first.name}-without-edits")
        )
        form = Form(
            model=await first_model(first.client),
            max_tokens=options.max_tokens,
            as_completion=options.as_completion and benchmark.clozes,
        )
        lanes = [first] * options.at_once
        if options.given_edit:
            others = [HttpNamespace(url) for _ in lanes[1:]]
            lanes = [first, *[await stack.enter_async_context(other) for other in others]]
        else:
            drafts = stored(subset)
            await first.store(drafts, lambda count: on_progress("storing edits", count, len(drafts)))
        asker = _Asker(subset, untouched, form, options, forcing)
        for start in range(0, len(remaining), len(lanes)):
            batch = remaining[start : start + len(lanes)]
            answered = await asyncio.gather(
                *(asker.answers(case, lane) for case, lane in zip(batch, lanes, strict=False)),
                return_exceptions=True,  # the others are let finish: they still use their namespaces
            )
            for outcome in answered:
                if isinstance(outcome, BaseException):
                    raise outcome
                results.append([outcome])
            on_progress("asking", start + len(batch), len(remaining))
    return results


class _Unit(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes one line."""

    id: str
    case: Case | None
    """None: traffic."""
    probes: tuple[Probe, ...]
    entailed: tuple[Probe, ...] = ()


class _Asker:
    """Asks the probes of a case, one after the other."""

    def __init__(
        self,
        benchmark: Benchmark,
        untouched: CommandClient,
        form: Form,
        options: AnswerOptions,
        forcing: TeacherForcing | None,
    ) -> None:
        """`untouched` asks in a namespace without edits: there every reply is the upstream's own."""
        self._drafts = {
            draft.id: draft for case in benchmark.cases for draft in (case.edit, *case.companions)
        }
        self._untouched = untouched
        self._form = form
        self._given_edit = options.given_edit
        self._forcing = forcing

    async def answers(self, unit: _Unit, namespace: HttpNamespace) -> CaseAnswers:
        """The case's line."""
        case = unit.case
        if self._given_edit and case is not None:
            await namespace.store([case.edit, *case.companions])
        answers = [
            *[await self._answer(case, probe, namespace.client) for probe in unit.probes],
            *[
                msgspec.structs.replace(await self._answer(case, probe, namespace.client), entailed=True)
                for probe in unit.entailed
            ],
        ]
        if self._given_edit:
            await namespace.retire()
        edit = case.edit if case else None
        return CaseAnswers(
            case=unit.id,
            edit_kind=edit.kind if edit else EditKind.FACT,
            prompt=edit.prompt if edit else None,
            target_new=edit.target_new if edit else None,
            target_true=edit.target_true if edit else None,
            relation=case.relation if case else None,
            probes=tuple(answers),
        )

    async def _answer(self, case: Case | None, probe: Probe, client: CommandClient) -> ProbeAnswer:
        base: Reply | None = None
        if probe.in_scope:
            reply = await ask_streamed(client, probe, self._form)
        else:
            reply = await ask_whole(client, probe, self._form)
            base = await ask_whole(self._untouched, probe, self._form)
        answers = probe.answers or ((case.edit.target_new,) if case and probe.in_scope else ())
        return ProbeAnswer(
            kind=probe.kind,
            text=probe.text,
            in_scope=probe.in_scope,
            contested=probe.contested,
            context=len(probe.context),
            answers=answers,
            rival_answers=self._rivals(case, probe),
            verdict=probe.verdict,
            reply=reply.text,
            route=reply.route,
            edit_id=reply.edit_id,
            tokens=reply.tokens,
            first_token_ms=reply.first_token_ms,
            total_ms=reply.total_ms,
            base_reply=base.text if base else None,
            identical=base.raw == reply.raw if base else None,
            token_accuracy=await self._forced(case, probe, answers, reply),
        )

    def _rivals(self, case: Case | None, probe: Probe) -> tuple[str, ...]:
        if case is None or not probe.in_scope or probe.answers or self._given_edit:
            return ()
        return tuple(self._drafts[rival].target_new for rival in case.rivals)

    async def _forced(
        self, case: Case | None, probe: Probe, answers: Sequence[str], reply: Reply
    ) -> float | None:
        is_fact = case is not None and case.edit.kind is EditKind.FACT
        if self._forcing is None or not is_fact or not probe.in_scope or probe.kind == "generation":
            return None
        fired: EditDraft | None = self._drafts.get(reply.edit_id) if reply.edit_id else None
        return await asyncio.to_thread(self._forcing.token_accuracy, fired, probe, answers[0])


def _drawn(benchmark: Benchmark, count: int | None, seed: int, options: AnswerOptions) -> list[_Unit]:
    """All units with probes, or `count` of them."""
    with_probes = [unit for unit in _units(benchmark, options) if unit.probes or unit.entailed]
    if count is None:
        return with_probes
    return random.Random(seed).sample(with_probes, min(count, len(with_probes)))


def _units(benchmark: Benchmark, options: AnswerOptions) -> Iterator[_Unit]:
    for case in benchmark.cases:
        probes = case.probes
        if options.given_edit:
            probes = tuple(probe for probe in probes if probe.in_scope)
        yield _Unit(id=case.id, case=case, probes=probes, entailed=case.entailed)
    for number, probe in enumerate(() if options.given_edit else benchmark.traffic):
        yield _Unit(id=f"traffic-{number}", case=None, probes=(probe,))


def _described(options: AnswerOptions) -> dict[str, str]:
    return {
        "store": "only the case's own edits" if options.given_edit else "all edits together",
        "clozes asked by": "/v1/completions" if options.as_completion else "/v1/chat/completions",
        "max_tokens": str(options.max_tokens),
        "cases asked at once": str(options.at_once),
    }
