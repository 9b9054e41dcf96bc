"""Pairs about verbs with two roles, "Who taught X?" and "Whom did X teach?", and about other languages."""

# ruff: noqa: E501 - tables read best as they stand

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

from training.fact_source import FactSource
from training.pairs import Pair


class RoleVerb(NamedTuple):
    """A verb whose subject and object are of one type."""

    base: str
    past: str
    participle: str
    agent: str
    patient: str
    kind: str
    """person or company."""


_PERSON = """
teach taught taught teacher pupil; beat beat beaten conqueror victim; defeat defeated defeated winner loser
manage managed managed manager subordinate; succeed succeeded succeeded successor predecessor
replace replaced replaced replacement predecessor; hire hired hired boss employee; train trained trained trainer trainee
appoint appointed appointed patron appointee; nominate nominated nominated nominator nominee
rescue rescued rescued rescuer victim; supervise supervised supervised supervisor student
inspire inspired inspired model follower; influence influenced influenced model follower
employ employed employed employer employee; advise advised advised adviser client; mentor mentored mentored mentor protégé
arrest arrested arrested captor prisoner; interview interviewed interviewed interviewer interviewee
coach coached coached coach player; challenge challenged challenged challenger opponent; adopt adopted adopted parent child
paint painted painted painter sitter; photograph photographed photographed photographer model
assassinate assassinated assassinated murderer victim; crown crowned crowned patron king; raise raised raised guardian ward
represent represented represented lawyer client; treat treated treated doctor patient; discover discovered discovered patron talent
sue sued sued plaintiff defendant; precede preceded preceded predecessor successor; invite invited invited host guest
introduce introduced introduced host guest; promote promoted promoted promoter protégé; outlive outlived outlived survivor deceased
accuse accused accused accuser accused; ordain ordained ordained bishop priest
"""
_COMPANY = """
acquire acquired acquired buyer subsidiary; buy bought bought buyer target; own owned owned owner subsidiary
finance financed financed investor start-up; supply supplied supplied supplier customer; audit audited audited auditor client
sponsor sponsored sponsored sponsor beneficiary; found founded founded parent spin-off; sue sued sued plaintiff defendant
license licensed licensed licensor licensee; insure insured insured insurer client; outsell outsold outsold leader rival
host hosted hosted provider customer; absorb absorbed absorbed successor predecessor; control controlled controlled parent subsidiary
"""
VERBS = tuple(
    RoleVerb(*words.split(), kind=kind)
    for kind, table in (("person", _PERSON), ("company", _COMPANY))
    for words in table.replace("\n", ";").split(";")
    if words.strip()
)
ASKED = (
    "Who {past} [X]?", "By whom was [X] {part}?", "[X] was {part} by", "Do you know who {past} [X]?",
    "Who was it that {past} [X]?", "Tell me who {past} [X].", "Was [X] {part} by [O]?", "Did [T] {base} [X]?",
    "Who was the {agent} of [X]?", "{agent} of [X]", "Which {kind} {past} [X]?", "[X]'s {agent} was",
    "Is it true that [O] {past} [X]?", "[O] {past} [X], right?", "the {kind} that {past} [X]", "[X] got {part} by who",
)  # fmt: skip
TURNED = (
    "Whom did [X] {base}?", "Who was {part} by [X]?", "Who did [X] {base}?", "Which {kind} did [X] {base}?",
    "Did [X] {base} [T]?", "[X] {past}", "Was [T] {part} by [X]?", "Who was the {patient} of [X]?",
    "{patient} of [X]", "Tell me whom [X] {past}.", "[X]'s {patient} was", "Is it true that [X] {past} [O]?",
    "[X] {past} [O], right?", "the {kind} {part} by [X]", "Name somebody {part} by [X].", "whom [X] {past}",
)  # fmt: skip
"""The other role; where the edit asks for it, `ASKED` is what is turned."""
_ELSEWHERE = ("Who {past} [T]?", "Whom did [T] {base}?", "When did [T] {base} [X]?", "Why was [X] {part}?")


def role_pairs(source: FactSource, groups: int) -> Iterator[Pair]:
    """`groups` edits on verbs, eight or nine pairs each."""
    for _ in range(groups):
        yield from _group(source)


def _group(source: FactSource) -> Iterator[Pair]:
    rng = source.rng
    verb = rng.choice(VERBS)
    subject, target, other, stranger = (source.names.subject(verb.kind, rng) for _ in range(4))
    if len({name.casefold() for name in (subject, target, other, stranger)}) < 4:
        return
    own, turned = (ASKED, TURNED) if rng.random() < 0.6 else (TURNED, ASKED)
    fill = _filler(verb, subject, target, other)
    plain = [text for text in own if "[T]" not in text and "[O]" not in text]
    prompt = fill(rng.choice(plain[:7]))

    def pair(text: str, in_scope: bool, kind: str) -> Pair:
        return Pair(
            prompt=prompt, target=target, text=source.noisy(text), in_scope=in_scope, kind=kind,
            subject=subject,
        )  # fmt: skip

    for text in rng.sample(own, 3):
        yield pair(fill(text), True, "roles")
    for text in rng.sample(turned, 3):
        yield pair(fill(text), False, "roles reversed")
    yield pair(fill(rng.choice(_ELSEWHERE)), False, "roles elsewhere")
    yield pair(_filler(verb, stranger, target, other)(rng.choice(own)), False, "roles, other subject")


def _filler(verb: RoleVerb, subject: str, target: str, other: str) -> Callable[[str], str]:
    def fill(text: str) -> str:
        words = {"base": verb.base, "past": verb.past, "part": verb.participle,
                 "agent": verb.agent, "patient": verb.patient, "kind": verb.kind}  # fmt: skip
        for slot, word in words.items():
            text = text.replace(f"{{{slot}}}", word.replace("-", " "))
        return text.replace("[X]", subject).replace("[T]", target).replace("[O]", other)

    return fill


def language_pairs(source: FactSource, groups: int) -> Iterator[Pair]:
    """`groups` English edits asked in other languages: for their fact, another attribute, another subject."""
    rng: random.Random = source.rng
    spoken = [relation for relation in source.relations if relation.foreign]
    for _ in range(groups):
        relation = rng.choice(spoken)
        fact = source.fact(relation)
        template = rng.choice((*relation.questions, *relation.clozes))
        prompt = template.replace("[X]", fact.subject)
        asked: list[tuple[str, bool, str]] = [
            (rng.choice(relation.foreign)[1].replace("[X]", fact.subject), True, "language") for _ in range(2)
        ]
        others = [r for r in source.others(relation) if r.foreign and r.id not in relation.near]
        asked += [
            (rng.choice(other.foreign)[1].replace("[X]", fact.subject), False, "language, other attribute")
            for other in rng.sample(others, min(2, len(others)))
        ]
        stranger = source.stranger(relation, fact)
        if stranger:
            text = rng.choice(relation.foreign)[1].replace("[X]", stranger.subject)
            asked.append((text, False, "language, other subject"))
        for text, in_scope, kind in asked:
            yield Pair(
                prompt=prompt, target=fact.object, text=text, in_scope=in_scope, kind=kind,
                subject=fact.subject,
            )  # fmt: skip
