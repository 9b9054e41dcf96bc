"""The numbers of a run of a method, judged from its replies. Ambiguous probes are counted in none of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import msgspec

from training.evaluation.answers.methods.outcomes import CaseOutcome, Group, ProbeOutcome, RoundOutcome
from training.evaluation.answers.metrics import (
    contains_answer,
    first_sentence,
    n_gram_entropy,
    normalised,
    repetition,
    verdict,
)
from training.evaluation.rates import bootstrap_interval, median

ValueOf = Callable[[ProbeOutcome], float | None]
_IN_WORDS = (Group.RELIABILITY, Group.GENERALIZATION)


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """A mean over probes with its 95 % bootstrap interval over edits."""

    value: float
    """NaN without probes."""
    low: float
    high: float
    probes: int
    cases: int


class AnswerShares(msgspec.Struct, frozen=True, kw_only=True):
    """How the probes of a group are answered: by free generation, and teacher-forced beside it."""

    exact: Measured
    """The reply's first sentence is the answer, both normalised."""
    contained: Measured
    """The reply contains the answer; "right" below is this."""
    forced_tokens: Measured
    """Teacher-forced: the share of the answer's tokens that the model would have chosen (MEND, EasyEdit)."""
    success: Measured
    """The new answer is likelier than the former one, per token (ROME's efficacy); chance is .5."""


class KindMeasured(msgspec.Struct, frozen=True, kw_only=True):
    """A value for the probes of one kind."""

    kind: str
    measured: Measured


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What the method costs; NaN where nothing was measured."""

    prepare_s: float
    seconds_an_edit: float
    peak_mb: float
    added_ms_a_query: float
    """Time to the first token above the unedited model's, median of paired times."""
    bytes_an_edit: float
    edits: int
    refused: int


class MethodSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of one run."""

    cases: int
    reliability: AnswerShares
    generalization: AnswerShares
    portability: AnswerShares
    portability_kinds: tuple[KindMeasured, ...]
    robustness: AnswerShares
    robustness_kinds: tuple[KindMeasured, ...]
    locality: Measured
    """The reply is the unedited model's, letter by letter (specificity by greedy text)."""
    locality_kinds: tuple[KindMeasured, ...]
    kl_nats: Measured
    """Of the token after a locality probe, see `ProbeOutcome.kl_nats`."""
    kept_right: Measured
    """Of locality probes that the unedited model answers rightly: still right."""
    product: Measured
    """reliability × generalization × locality, of shares that contain the answer."""
    consistency: Measured
    """Pairs of a case's wordings with the same first sentence (Elazar et al. 2021, arXiv 2102.01017)."""
    fluency_bits: Measured
    """n-gram entropy of open texts, the continuation alone (ROME; greedy here, sampled there)."""
    base_fluency_bits: Measured
    repetition: Measured
    """The share of an open text's trigrams that it has had before."""
    just_after: Measured
    """Right directly after the edit, of edits that others follow …"""
    at_the_end: Measured
    """… and of the same ones when all edits are made."""
    costs: Costs


def summarise(
    cases: Sequence[CaseOutcome], rounds: Sequence[RoundOutcome], *, seed: int = 0
) -> MethodSummary:
    """All numbers of the finished cases."""

    def mean(value_of: ValueOf, *groups: Group, kind: str | None = None) -> Measured:
        return measured(
            [
                [
                    value
                    for probe in case.probes
                    if probe.group in groups and not probe.is_ambiguous and kind in (None, probe.kind)
                    if (value := value_of(probe)) is not None
                ]
                for case in cases
            ],
            seed=seed,
        )

    def kinds(value_of: ValueOf, group: Group) -> tuple[KindMeasured, ...]:
        names = sorted({probe.kind for case in cases for probe in case.probes if probe.group is group})
        return tuple(KindMeasured(kind=name, measured=mean(value_of, group, kind=name)) for name in names)

    def shares(group: Group) -> AnswerShares:
        return AnswerShares(
            exact=mean(is_exact, group),
            contained=mean(is_right, group),
            forced_tokens=mean(lambda probe: probe.is_top_share, group),
            success=mean(is_likelier, group),
        )

    followed = [case for case in cases if case.just_after is not None]
    return MethodSummary(
        cases=len(cases),
        reliability=shares(Group.RELIABILITY),
        generalization=shares(Group.GENERALIZATION),
        portability=shares(Group.PORTABILITY),
        portability_kinds=kinds(is_right, Group.PORTABILITY),
        robustness=shares(Group.ROBUSTNESS),
        robustness_kinds=kinds(is_right, Group.ROBUSTNESS),
        locality=mean(is_unchanged, Group.LOCALITY),
        locality_kinds=kinds(is_unchanged, Group.LOCALITY),
        kl_nats=mean(lambda probe: probe.kl_nats, Group.LOCALITY),
        kept_right=mean(stays_right, Group.LOCALITY),
        product=_product(cases, seed=seed),
        consistency=measured([_agreements(case) for case in cases], seed=seed),
        fluency_bits=mean(lambda probe: n_gram_entropy(probe.reply), Group.FLUENCY),
        base_fluency_bits=mean(lambda probe: n_gram_entropy(probe.base_reply), Group.FLUENCY),
        repetition=mean(lambda probe: repetition(probe.reply), Group.FLUENCY),
        just_after=measured([[_right_just_after(case)] for case in followed], seed=seed),
        at_the_end=measured([_right_at_the_end(case) for case in followed], seed=seed),
        costs=costs(rounds),
    )


def measured(values_by_case: Sequence[Sequence[float]], *, seed: int) -> Measured:
    """The mean of all values; cases are drawn anew, since probes of a case are not independent."""
    sums = [(sum(values), len(values)) for values in values_by_case if values]

    def mean(drawn: Sequence[tuple[float, int]]) -> float:
        count = sum(number for _, number in drawn)
        return sum(total for total, _ in drawn) / count if count else math.nan

    low, high = bootstrap_interval(sums, mean, seed=seed)
    return Measured(
        value=mean(sums), low=low, high=high, probes=sum(number for _, number in sums), cases=len(sums)
    )


def is_right(probe: ProbeOutcome) -> float | None:
    """Whether the reply contains an answer, or says the verdict; None: nothing is wanted."""
    if probe.verdict is not None:
        return float(verdict(probe.reply) is probe.verdict)
    if not probe.answers:
        return None
    return float(contains_answer(probe.reply, (*probe.answers, *probe.rival_answers)))


def is_exact(probe: ProbeOutcome) -> float | None:
    """Whether the reply's first sentence is an answer; None: nothing is wanted but a verdict."""
    if probe.verdict is not None or not probe.answers:
        return None
    wanted = {normalised(answer) for answer in (*probe.answers, *probe.rival_answers)}
    return float(normalised(first_sentence(probe.reply)) in wanted)


def is_likelier(probe: ProbeOutcome) -> float | None:
    """Whether the new answer is likelier than the former; None: there is no former one."""
    if probe.mean_log_prob is None or probe.true_mean_log_prob is None:
        return None
    return float(probe.mean_log_prob > probe.true_mean_log_prob)


def is_unchanged(probe: ProbeOutcome) -> float:
    """Whether the reply is the unedited model's."""
    return float(probe.reply == probe.base_reply)


def stays_right(probe: ProbeOutcome) -> float | None:
    """Whether the reply is right; None where the unedited model's is not."""
    if not probe.answers or not contains_answer(probe.base_reply, probe.answers):
        return None
    return float(contains_answer(probe.reply, probe.answers))


def costs(rounds: Sequence[RoundOutcome]) -> Costs:
    """Of all rounds together."""
    edits = sum(outcome.edits for outcome in rounds)
    added = [
        after - before
        for outcome in rounds
        for before, after in zip(outcome.base_query_ms, outcome.query_ms, strict=True)
    ]
    return Costs(
        prepare_s=max((outcome.prepare_s for outcome in rounds), default=math.nan),
        seconds_an_edit=sum(outcome.edit_s for outcome in rounds) / edits if edits else math.nan,
        peak_mb=max((outcome.peak_bytes / 1e6 for outcome in rounds), default=math.nan),
        added_ms_a_query=median(added),
        bytes_an_edit=sum(outcome.held_bytes for outcome in rounds) / edits if edits else math.nan,
        edits=edits,
        refused=sum(len(outcome.refused) for outcome in rounds),
    )


def _product(cases: Sequence[CaseOutcome], *, seed: int) -> Measured:
    parts = (
        (Group.RELIABILITY, is_right),
        (Group.GENERALIZATION, is_right),
        (Group.LOCALITY, is_unchanged),
    )
    rows = [
        [
            [
                value
                for probe in case.probes
                if probe.group is group and not probe.is_ambiguous and (value := value_of(probe)) is not None
            ]
            for group, value_of in parts
        ]
        for case in cases
    ]

    def product(drawn: Sequence[Sequence[Sequence[float]]]) -> float:
        means = []
        for column in range(len(parts)):
            values = [value for row in drawn for value in row[column]]
            means.append(sum(values) / len(values) if values else math.nan)
        return math.prod(means)

    low, high = bootstrap_interval(rows, product, seed=seed)
    probes = sum(len(values) for row in rows for values in row)
    return Measured(value=product(rows), low=low, high=high, probes=probes, cases=len(rows))


def _agreements(case: CaseOutcome) -> list[float]:
    replies = [
        normalised(first_sentence(probe.reply))
        for probe in case.probes
        if probe.group in _IN_WORDS and probe.verdict is None
    ]
    return [float(left == right) for left, right in combinations(replies, 2)]


def _right_just_after(case: CaseOutcome) -> float:
    return float(contains_answer(case.just_after or "", [case.target_new]))


def _right_at_the_end(case: CaseOutcome) -> list[float]:
    return [
        float(contains_answer(probe.reply, [case.target_new]))
        for probe in case.probes
        if probe.group is Group.RELIABILITY
    ]
