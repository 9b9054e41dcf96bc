"""The numbers of a run of the answer metrics, judged from its replies."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import msgspec

from serac_gateway.domain.edits import EditKind
from serac_gateway.routing.router import Route
from training.evaluation.answers.metrics import contains_answer, leaks, n_gram_entropy, verdict
from training.evaluation.answers.outcomes import CaseAnswers, ProbeAnswer
from training.evaluation.answers.timing import ANSWERED_HERE, RouteShare, Times, routes_taken, times_by_route
from training.evaluation.rates import (
    Interval,
    KindRate,
    Rate,
    bootstrap_interval,
    median,
    percentile,
    rate,
)

Pair = tuple[ProbeAnswer, CaseAnswers]


class PortabilityRate(msgspec.Struct, frozen=True, kw_only=True):
    """How entailed probes of one kind came out."""

    kind: str
    right: Rate
    uncontested: Rate
    """Of those whose premises no other stored edit changes."""


class AnswerSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one run. "Right" is: the reply contains the answer, see `contains_answer`."""

    reliability: Rate
    """The edited prompts themselves, right by the case's own answer or a rival's."""
    generalization: Rate
    """Likewise all other probes that must fire, but for yes/no and generation."""
    reliability_own: Rate
    generalization_own: Rate
    """Rivals not counted: which of them answers is the rule for conflicts."""
    right_when_answered_here: Rate
    """Of both together, those that an edit answered: what the counterfactual model makes of a right route."""
    verdicts: Rate
    """Yes/no questions and claims, by the reply's first yes or no."""
    locality: Rate
    """Uncontested probes that must not fire: the reply is the upstream's own, byte for byte."""
    locality_with_contested: Rate
    true_answer: Rate
    """Of those with a published true answer: the reply contains it …"""
    true_answer_base: Rate
    """… and the upstream's own reply does."""
    portability: tuple[PortabilityRate, ...]
    portability_any: Rate
    """Cases with an entailed probe right (MQuAKE: one phrasing of three)."""
    portability_any_uncontested: Rate
    leaked: Rate
    """Replies within the scope of suppressions that give target_true away, or confirm or deny it."""
    leaked_when_answered_here: Rate
    """Of those that the suppression answered: the others are misses of the scope classifier."""
    old_answer: Rate
    """Replies within the scope of fact edits that contain target_true."""
    forced_reliability: Interval
    forced_generalization: Interval
    forced_portability: Interval
    """Teacher-forced token accuracy, means over probes; intervals by bootstrap over cases."""
    fluency: Interval
    """n-gram entropy of replies that were answered here."""
    fluency_base: Interval
    """Of the base model's replies in the same run."""
    answer_words_median: float
    answer_words_p95: float
    """Of replies that were answered here."""
    routes: tuple[RouteShare, ...]
    times: tuple[Times, ...]
    kinds: tuple[KindRate, ...]


def is_right(probe: ProbeAnswer, *, own_only: bool = False) -> bool:
    """Must fire, or entailed: the answer (or verdict) is in the reply. Must not fire: it is unchanged."""
    if not probe.in_scope:
        return probe.identical is True
    if probe.verdict is not None:
        return verdict(probe.reply) is probe.verdict
    rivals = () if own_only else probe.rival_answers
    return contains_answer(probe.reply, (*probe.answers, *rivals))


def is_leak(probe: ProbeAnswer, case: CaseAnswers) -> bool:
    """Whether the reply to a suppressed query contains target_true, or yes or no instead of the refusal."""
    if case.target_true is not None and leaks(probe.reply, case.target_true):
        return True
    is_refusal = contains_answer(probe.reply, [case.target_new or ""])
    return not is_refusal and verdict(probe.reply) is not None


def summarise(cases: Sequence[CaseAnswers], *, seed: int = 0) -> AnswerSummary:
    """All numbers."""
    pairs = [(probe, case) for case in cases for probe in case.probes]
    prompts = [pair for pair in pairs if _is_prompt(pair[0])]
    rephrased = [pair for pair in pairs if _is_rephrased(pair[0])]
    unchanged = [pair for pair in pairs if not pair[0].in_scope]
    with_truth = [probe for probe, _ in unchanged if probe.answers]
    suppressed = [pair for pair in pairs if pair[1].edit_kind is EditKind.SUPPRESSION and pair[0].in_scope]
    here = [probe for probe, _ in pairs if probe.route in ANSWERED_HERE]
    words = [float(len(probe.reply.split())) for probe in here]

    def mean(value: Callable[[ProbeAnswer], float | None]) -> Interval:
        return _mean(cases, value, seed)

    return AnswerSummary(
        reliability=_right(prompts),
        generalization=_right(rephrased),
        reliability_own=_right(prompts, own_only=True),
        generalization_own=_right(rephrased, own_only=True),
        right_when_answered_here=_right(
            [pair for pair in (*prompts, *rephrased) if pair[0].route in ANSWERED_HERE]
        ),
        verdicts=_right([pair for pair in pairs if pair[0].verdict is not None]),
        locality=_right([pair for pair in unchanged if not pair[0].contested]),
        locality_with_contested=_right(unchanged),
        true_answer=rate([contains_answer(probe.reply, probe.answers) for probe in with_truth]),
        true_answer_base=rate(
            [contains_answer(probe.base_reply or "", probe.answers) for probe in with_truth]
        ),
        portability=_portability(pairs),
        portability_any=_any_right(cases, contested_too=True),
        portability_any_uncontested=_any_right(cases, contested_too=False),
        leaked=rate([is_leak(probe, case) for probe, case in suppressed]),
        leaked_when_answered_here=rate(
            [is_leak(probe, case) for probe, case in suppressed if probe.route in ANSWERED_HERE]
        ),
        old_answer=rate(_old_answers((*prompts, *rephrased))),
        forced_reliability=mean(lambda probe: probe.token_accuracy if _is_prompt(probe) else None),
        forced_generalization=mean(lambda probe: probe.token_accuracy if _is_rephrased(probe) else None),
        forced_portability=mean(lambda probe: probe.token_accuracy if probe.entailed else None),
        fluency=mean(lambda probe: n_gram_entropy(probe.reply) if probe.route in ANSWERED_HERE else None),
        fluency_base=mean(lambda probe: n_gram_entropy(probe.reply) if probe.route == Route.BASE else None),
        answer_words_median=median(words),
        answer_words_p95=percentile(words, 95),
        routes=routes_taken([probe for probe, _ in pairs]),
        times=times_by_route([probe for probe, _ in pairs]),
        kinds=_kinds(pairs),
    )


def _is_prompt(probe: ProbeAnswer) -> bool:
    return probe.kind == "prompt" and probe.verdict is None and not probe.entailed


def _is_rephrased(probe: ProbeAnswer) -> bool:
    apart = probe.kind in ("prompt", "generation") or probe.verdict is not None or probe.entailed
    return probe.in_scope and not apart


def _right(pairs: Sequence[Pair], *, own_only: bool = False) -> Rate:
    return rate([is_right(probe, own_only=own_only) for probe, _ in pairs])


def _old_answers(pairs: Sequence[Pair]) -> list[bool]:
    return [
        contains_answer(probe.reply, [case.target_true])
        for probe, case in pairs
        if case.edit_kind is EditKind.FACT
        and case.target_true
        and not contains_answer(case.target_new or "", [case.target_true])
    ]


def _portability(pairs: Sequence[Pair]) -> tuple[PortabilityRate, ...]:
    by_kind: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        if pair[0].entailed:
            by_kind[pair[0].kind].append(pair)
    return tuple(
        PortabilityRate(
            kind=kind,
            right=_right(pairs),
            uncontested=_right([pair for pair in pairs if not pair[0].contested]),
        )
        for kind, pairs in sorted(by_kind.items())
    )


def _any_right(cases: Sequence[CaseAnswers], *, contested_too: bool) -> Rate:
    entailed = [[probe for probe in case.probes if probe.entailed] for case in cases]
    return rate(
        [
            any(is_right(probe) for probe in probes)
            for probes in entailed
            if probes and (contested_too or not any(probe.contested for probe in probes))
        ]
    )


def _kinds(pairs: Sequence[Pair]) -> tuple[KindRate, ...]:
    by_kind: dict[tuple[str, bool], list[Pair]] = defaultdict(list)
    for probe, case in pairs:
        if not probe.contested and not probe.entailed and probe.kind != "generation":
            by_kind[probe.kind, probe.in_scope].append((probe, case))
    return tuple(
        KindRate(kind=kind, in_scope=in_scope, right=_right(pairs))
        for (kind, in_scope), pairs in sorted(by_kind.items())
    )


def _mean(cases: Sequence[CaseAnswers], value: Callable[[ProbeAnswer], float | None], seed: int) -> Interval:
    """The mean over probes that have the value, with its bootstrap interval over cases."""
    values = [[number for probe in case.probes if (number := value(probe)) is not None] for case in cases]
    sums = [(sum(numbers), len(numbers)) for numbers in values if numbers]

    def mean(drawn: Sequence[tuple[float, int]]) -> float:
        count = sum(number for _, number in drawn)
        return sum(total for total, _ in drawn) / count if count else math.nan

    low, high = bootstrap_interval(sums, mean, seed=seed)
    return Interval(value=mean(sums), low=low, high=high)
