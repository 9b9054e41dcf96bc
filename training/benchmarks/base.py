"""What a benchmark is: edits, and for each the queries that must fire with it or must not fire at all."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum

import msgspec

from serac_gateway.domain.edits import DEFAULT_NAMESPACE, EditDraft, first_version
from serac_gateway.errors import InvalidRequestError
from training.data.conversations import Turn


class Role(StrEnum):
    """What may be done with a data set."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
    """Never trained, tuned or calibrated on."""


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """One query with what is right for it."""

    kind: str
    """What it tries: prompt, rephrase, neighbour, same_subject, locality, unrelated, or a semantic table."""
    text: str
    in_scope: bool
    """True: it must fire with the edit of its case. False: it must fire with no edit."""
    context: tuple[Turn, ...] = ()
    """Earlier turns, oldest first."""
    relation: str | None = None
    """The relation of the query, if the data has it."""
    contested: bool = False
    """A negative that another stored edit may rightly answer; see `prepared`."""
    answers: tuple[str, ...] = ()
    """What a right reply contains, any of it. Empty where it must fire: the edit's target_new. Where it must
    not: what is published as true, if anything is."""
    verdict: bool | None = None
    """The probe wants this yes (True) or no, whatever `answers` says."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One edit with its probes. The edit's id is the case's id."""

    edit: EditDraft
    probes: tuple[Probe, ...]
    relation: str | None = None
    """The edited relation, if the data has it."""
    question: str | None = None
    """Cases with an equal one ask the same in other words, maybe with other answers (zsRE has many)."""
    rivals: tuple[str, ...] = ()
    """The other cases with this question, see `prepared`. Which of them answers is the gateway's rule for
    conflicts (the newest); that one of them does is what a scope classifier has to see."""
    entailed: tuple[Probe, ...] = ()
    """Probes whose answer follows from the edit without being it (portability). Their text does not show
    whether they must fire, so only answers are measured on them."""
    companions: tuple[EditDraft, ...] = ()
    """Further edits that the entailed probes need."""
    edited_facts: tuple[tuple[str, str], ...] = ()
    """What the edits change, as (subject and relation, new object), if the data has it."""
    premises: tuple[tuple[str, str], ...] = ()
    """The facts, in the same form, on which the entailed answers rest."""

    @property
    def id(self) -> str:
        """Unique within a benchmark, and a valid edit id."""
        assert self.edit.id is not None, "cases are built with an id"
        return self.edit.id


class Benchmark(msgspec.Struct, frozen=True, kw_only=True):
    """Edits that are all stored together, and probes."""

    name: str
    role: Role
    cases: tuple[Case, ...]
    traffic: tuple[Probe, ...] = ()
    """Probes that belong to no edit; none may fire."""
    left_out: int = 0
    """Cases that `chosen` found unusable."""
    clozes: bool = False
    """Its probes are texts to be continued, not questions."""
    shares_edits: bool = False
    """Cases may have equal edits: what is asked is not their prompt but what follows from it."""


def chosen(benchmark: Benchmark, *, edits: int | None, seed: int) -> Benchmark:
    """The benchmark with `edits` of its cases, drawn without replacement; None or too many: all of them.

    Left out are edits that no gateway stores (some published rows have no target) and, but for the first,
    those that ask the same question (the prompt, letter case and spaces aside): a store answers with the
    newest of them, so no answer could be right for both. (Cases of a benchmark that shares edits stay.)
    """
    distinct = [case for case in benchmark.cases if _is_storable(case)]
    if not benchmark.shares_edits:
        distinct = list({_question(case.edit.prompt): case for case in reversed(distinct)}.values())
        distinct.reverse()
    left_out = len(benchmark.cases) - len(distinct)
    if edits is not None and edits < len(distinct):
        distinct = random.Random(seed).sample(distinct, edits)
    return msgspec.structs.replace(benchmark, cases=tuple(distinct), left_out=left_out)


def prepared(benchmark: Benchmark) -> Benchmark:
    """The benchmark with rivals named, and with those negatives marked that another edit may rightly answer.

    A neighbour's question is no negative once the neighbour has an edit of its own. A negative is contested
    when it is another case's prompt, or names the subject of another case's edit and asks for the same
    relation (or either relation is unknown). This looks at texts only, never at a classifier's decision.
    Traffic stays unmarked: there every fire counts. Entailed probes are contested when the edit of another
    case changes a premise.
    """
    subjects = _Subjects(benchmark.cases)
    objects: dict[str, set[str]] = defaultdict(set)
    for case in benchmark.cases:
        for changed, new_object in case.edited_facts:
            objects[changed].add(new_object)
    ids: dict[str, list[str]] = defaultdict(list)
    for case in benchmark.cases:
        if case.question is not None:
            ids[case.question].append(case.id)
    return msgspec.structs.replace(
        benchmark,
        cases=tuple(
            msgspec.structs.replace(
                case,
                probes=tuple(subjects.mark(probe, own_id=case.id) for probe in case.probes),
                entailed=_marked(case, objects),
                rivals=tuple(case_id for case_id in ids.get(case.question or "", ()) if case_id != case.id),
            )
            for case in benchmark.cases
        ),
    )


def stored(benchmark: Benchmark) -> list[EditDraft]:
    """The edits of all cases, of equal ones the first."""
    drafts = (draft for case in benchmark.cases for draft in (case.edit, *case.companions))
    distinct: dict[tuple[str, str], EditDraft] = {}
    for draft in drafts:
        distinct.setdefault((_question(draft.prompt), draft.target_new), draft)
    return list(distinct.values())


def _marked(case: Case, objects: Mapping[str, set[str]]) -> tuple[Probe, ...]:
    is_contested = any(objects.get(premise, set()) - {known} for premise, known in case.premises)
    return tuple(msgspec.structs.replace(probe, contested=is_contested) for probe in case.entailed)


class _Subjects:
    """The subjects of all edits, by first word."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self._prompts = {_question(case.edit.prompt) for case in cases}
        self._by_first_word: dict[str, list[tuple[str, Case]]] = defaultdict(list)
        for case in cases:
            subject = _words(case.edit.subject or "")
            if subject:
                self._by_first_word[subject.split()[0]].append((f" {subject} ", case))

    def mark(self, probe: Probe, *, own_id: str) -> Probe:
        if probe.in_scope:
            return probe
        text = f" {_words(probe.text)} "
        is_contested = _question(probe.text) in self._prompts or any(
            case.id != own_id
            and (probe.relation is None or case.relation is None or probe.relation == case.relation)
            and subject in text
            for word in set(text.split())
            for subject, case in self._by_first_word.get(word, ())
        )
        return msgspec.structs.replace(probe, contested=is_contested)


def probes(
    kind: str,
    texts: Iterable[str],
    *,
    in_scope: bool,
    answers: Sequence[str | None] = (),
    verdict: bool | None = None,
) -> tuple[Probe, ...]:
    """Probes of one kind with the same answers, blank and repeated texts left out."""
    known = tuple(answer for answer in answers if answer)
    return tuple(
        Probe(kind=kind, text=text, in_scope=in_scope, answers=known, verdict=verdict)
        for text in dict.fromkeys(text.strip() for text in texts)
        if text
    )


def fact(
    case_id: str,
    *,
    prompt: str,
    target_new: str,
    subject: str | None,
    target_true: str | None = None,
    probes: Sequence[Probe],
    relation: str | None = None,
    question: str | None = None,
    verdict: bool | None = None,
    entailed: Sequence[Probe] = (),
) -> Case:
    """A case of a fact edit, with the edited prompt itself as the first probe."""
    edit = EditDraft(
        id=case_id,
        prompt=prompt,
        target_new=target_new,
        subject=subject or None,
        target_true=target_true or None,
    )
    return Case(
        edit=edit,
        probes=(Probe(kind="prompt", text=prompt, in_scope=True, verdict=verdict), *probes),
        relation=relation,
        question=question,
        entailed=tuple(entailed),
    )


def _is_storable(case: Case) -> bool:
    try:
        for draft in (case.edit, *case.companions):
            first_version(draft, namespace=DEFAULT_NAMESPACE)
    except InvalidRequestError:
        return False
    return True


def _question(prompt: str) -> str:
    return " ".join(prompt.casefold().split()).rstrip(" ?.!:")


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
