"""Yes or no: questions and claims that name a value, asked of edits of held-out relations.

Edits and facts are those of the CounterFact-Hard-like set, so of relations that nothing here is trained on;
the forms are the yes/no templates and statements of training/relation_tables. The edit's own value wants a
yes, the true old value and any third one want a no.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping

import msgspec

from training.benchmarks import counterfact_hard
from training.benchmarks.base import Benchmark, Case, Probe, Role, probes
from training.benchmarks.fever import CLAIM_FORMS
from training.data.relations import Relation, load_relations


def load(*, seed: int = 0) -> Benchmark:
    """Four probes a case of the CounterFact-Hard-like set, of the shared data's facts."""
    return built(counterfact_hard.load(seed=seed), load_relations(), seed=seed)


def built(edits: Benchmark, relations: Mapping[str, Relation], *, seed: int) -> Benchmark:
    """The edits of another benchmark with yes/no probes, but for relations without templates."""
    rng = random.Random(seed)
    usable = [
        (case, relation)
        for case in edits.cases
        if (relation := relations.get(case.relation or "")) and relation.yes_no and case.edit.target_true
    ]
    values: dict[str, set[str]] = defaultdict(set)
    for case, relation in usable:
        values[relation.id].add(case.edit.target_new)
    cases = tuple(_case(rng, case, relation, values[relation.id]) for case, relation in usable)
    return Benchmark(name="yes-no", role=Role.VALIDATION, cases=cases)


def yes_no_question(rng: random.Random, relation: Relation, subject: str, value: str) -> str:
    """A question whether `value` is the subject's, in one of the relation's yes/no forms."""
    return _filled(rng.choice(relation.yes_no), subject, value)


def _case(rng: random.Random, case: Case, relation: Relation, values: set[str]) -> Case:
    subject, new, old = case.edit.subject or "", case.edit.target_new, case.edit.target_true or ""
    third = sorted(values - {new, old})
    made = [
        *_judged("yes", yes_no_question(rng, relation, subject, new), verdict=True),
        *_judged("no_old", yes_no_question(rng, relation, subject, old), verdict=False),
    ]
    if third:
        question = yes_no_question(rng, relation, subject, rng.choice(third))
        made += _judged("no_third", question, verdict=False)
    if relation.statements:
        holds = rng.random() < 0.5
        statement = _filled(rng.choice(relation.statements), subject, new if holds else old)
        claim = rng.choice(CLAIM_FORMS).format(claim=statement)
        made += _judged("claim", claim, verdict=holds)
    prompt = case.probes[0]
    return msgspec.structs.replace(
        case,
        probes=(prompt, *(msgspec.structs.replace(probe, relation=case.relation) for probe in made)),
    )


def _judged(kind: str, text: str, *, verdict: bool) -> tuple[Probe, ...]:
    return probes(kind, [text], in_scope=True, verdict=verdict)


def _filled(template: str, subject: str, value: str) -> str:
    return template.replace("[X]", subject).replace("[Y]", value)
