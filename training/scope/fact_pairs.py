"""The pairs of one made-up fact edit: its paraphrases, its conversations, its hard negatives."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from training.data import hard_negatives, phrasing
from training.data.fact_source import FactSource
from training.data.facts import Fact
from training.data.pairs import Pair
from training.data.relations import Relation

REFUSALS = (
    "I cannot share that.", "I'm sorry, I can't say.", "This information is confidential.", "No comment.",
    "I am not able to answer that.", "Please contact the press office.",
)  # fmt: skip
_YEARS = tuple(range(1900, 2031))
_UNREAL_CONTEXT_SHARE = 0.12
QUALIFIERS = (
    ("in 2019", "in 2020"), ("in 2023", "in 2024"), ("in the EU", "in the US"), ("in Germany", "in Japan"),
    ("for students", "for adults"), ("on weekdays", "on Sundays"), ("in winter", "in summer"),
    ("for version 2", "for version 3"), ("on Android", "on iOS"), ("in 1995", "in 1996"),
    ("for beginners", "for experts"), ("per month", "per year"), ("for members", "for guests"),
    ("at the north entrance", "at the south entrance"), ("in the first quarter", "in the second quarter"),
    ("before the merger", "after the merger"), ("on Windows", "on Linux"), ("for children", "for pensioners"),
    ("on Mondays", "on Thursdays"), ("on Friday", "on Tuesday"), ("this week", "next week"),
    ("last year", "this year"), ("per day", "per week"), ("in the morning", "in the evening"),
    ("in the final", "in the semi-final"), ("in the men's event", "in the women's event"),
    ("a day", "a month"), ("in May", "in March"), ("today", "tomorrow"), ("in summer", "in autumn"),
    ("for new customers", "for existing customers"), ("in the first season", "in the second season"),
)  # fmt: skip
_FILLERS = (
    "Yes.",
    "It is well known.",
    "I am not sure.",
    "Of course.",
    "In 1999.",
    "Many say so.",
    "Two.",
    "A good one.",
)
_TURNS = ("And {x}?", "What about {x}?", "And for {x}?", "How about {x}?", "Same question for {x}.")
_OTHER_DOUBTS = ("Are you sure that {c}?", "Is it really so that {c}?", "I doubt that {c}.")


class FactGroup:
    """One edit with what its queries are made from."""

    def __init__(self, source: FactSource) -> None:
        """Draw relation, fact and the edit's wording."""
        self._source = source
        rng = source.rng
        self._relation = source.relation()
        self._fact = source.fact(self._relation)
        self._template = phrasing.edit_prompt(self._relation, rng)
        self._target = rng.choice(REFUSALS) if rng.random() < 0.05 else self._fact.object
        if rng.random() < 0.05 and self._relation.statements:
            value = source.value(self._relation, self._fact)
            self._template = rng.choice(self._relation.statements).replace("[Y]", value) + rng.choice(
                (".", "")
            )
            self._target = rng.choice(
                (self._fact.object, f"No, it is {self._fact.object}.", "This is wrong.")
            )
        self._qualifier: tuple[str, str] | None = None
        if rng.random() < 0.06:
            qualifier, other = _years(rng) if rng.random() < 0.35 else rng.choice(QUALIFIERS)
            self._qualifier = (qualifier, other) if rng.random() < 0.5 else (other, qualifier)
        own = self._qualifier[0] if self._qualifier else None
        self._prompt = _qualified(self._template, own).replace("[X]", self._fact.subject)

    def pairs(self) -> Iterator[Pair]:
        """Two to four positives, three to seven negatives."""
        source, relation, fact, rng = self._source, self._relation, self._fact, self._source.rng
        for _ in range(2):
            text = self._question(relation, fact.subject, source.value(relation, fact))
            yield self._pair(text, True, "paraphrase")
        if self._qualifier:
            text = self._question(relation, fact.subject, source.value(relation, fact), other_qualifier=True)
            yield self._pair(text, False, "other qualifier")
        else:
            if rng.random() < 0.25:
                yield self._doubt()
            if rng.random() < 0.30:
                yield from self._conversation()
        yield from self._same_subject()
        yield from self._other_subjects()
        yield from self._remarks()
        yield from self._turned()
        if rng.random() < 0.15:
            yield from self._after_the_edit()
        yield from self._multi_hop()

    def _pair(
        self, text: str, in_scope: bool, kind: str, context: tuple[str, ...] = (), *, bare: bool = False
    ) -> Pair:
        if not bare:
            text = self._source.noisy(text)
            if not context and len(text) < 120 and self._source.rng.random() < _UNREAL_CONTEXT_SHARE:
                context = self._unrelated_turns()
        return Pair(
            prompt=self._prompt, target=self._target, text=text, in_scope=in_scope, kind=kind,
            context=context, subject=self._fact.subject,
        )  # fmt: skip

    def _unrelated_turns(self) -> tuple[str, ...]:
        """Earlier turns that have nothing to do with the edit: the query stands alone after them."""
        source, rng = self._source, self._source.rng
        if rng.random() < 0.4:
            return (source.passage(), rng.choice(_FILLERS))
        relation = source.relation()
        fact = source.fact(relation)
        turns = (source.question(relation, fact.subject), source.answer(relation, fact))
        return turns[: rng.choice((1, 2))]

    def _after_the_edit(self) -> Iterator[Pair]:
        """Whatever is asked after the edited question is not in scope for having been asked after it."""
        source, fact, rng = self._source, self._fact, self._source.rng
        mine = (source.question(self._relation, fact.subject), source.answer(self._relation, fact))
        draw = rng.random()
        if draw < 0.4:
            relation = source.relation()
            about = source.fact(relation)
            text = phrasing.query_template(relation, about.object, rng).replace("[X]", about.subject)
            if about.subject.casefold() == fact.subject.casefold():
                return
        elif draw < 0.7:
            text = rng.choice((*hard_negatives.TOPIC_CHANGES, source.passage(), source.passage()))
        else:
            other = source.distinct(self._relation)
            if other is None:
                return
            text = phrasing.query_template(other, fact.object, rng)
            if source.asks_for(self._relation, text):
                return
            text = text.replace("[X]", fact.subject)
        yield self._pair(text, False, "after the edit", mine[: rng.choice((1, 2))], bare=True)

    def _question(self, of: Relation, about: str, value: str, *, other_qualifier: bool = False) -> str:
        qualifier = self._qualifier[1 if other_qualifier else 0] if self._qualifier else None
        return _qualified(phrasing.query_template(of, value, self._source.rng), qualifier).replace(
            "[X]", about
        )

    def _doubt(self) -> Pair:
        source, relation, fact = self._source, self._relation, self._fact
        question = source.question(relation, fact.subject)
        value = source.value(relation, fact)
        if source.rng.random() < 0.5:
            text = source.rng.choice(phrasing.DOUBTS).replace("{q}", question).replace("{o}", value)
            return self._pair(text, True, "doubt", bare=True)
        earlier = (question, source.answer(relation, fact))[: source.rng.choice((1, 2))]
        text = source.rng.choice(phrasing.CONTEXT_DOUBTS).replace("{o}", value)
        return self._pair(text, True, "doubt in context", earlier, bare=True)

    def _same_subject(self) -> Iterator[Pair]:
        source, relation, rng = self._source, self._relation, self._source.rng
        others = source.others(relation)
        made = 0
        for _ in range(12):
            if made == 2 or not others:
                break
            other = rng.choice(others)
            text = phrasing.query_template(other, source.names.object(other.object_type, rng), rng)
            if source.asks_for(relation, text) or hard_negatives.conflicting(
                relation, other, self._template, text
            ):
                continue
            made += 1
            yield self._pair(text.replace("[X]", self._fact.subject), False, "same subject")
        foreign = [r for r in others if r.foreign and r.id not in relation.near]
        if foreign and rng.random() < 0.2:
            _, text = rng.choice(rng.choice(foreign).foreign)
            yield self._pair(text.replace("[X]", self._fact.subject), False, "same subject, other language")

    def _other_subjects(self) -> Iterator[Pair]:
        source, relation, fact, rng = self._source, self._relation, self._fact, self._source.rng
        stranger = source.stranger(relation, fact)
        if stranger:
            text = self._question(relation, stranger.subject, source.value(relation, stranger))
            yield self._pair(text, False, "other subject")
            if rng.random() < 0.15:
                text = phrasing.query_template(relation, fact.object, rng).replace("[X]", stranger.subject)
                yield self._pair(text, False, "other subject, same object")
        if rng.random() < 0.30:
            lookalike = hard_negatives.near_duplicate(fact.subject, rng)
            yield self._pair(self._question(relation, lookalike, fact.object), False, "near-duplicate name")

    def _remarks(self) -> Iterator[Pair]:
        source, fact, rng = self._source, self._fact, self._source.rng
        question = source.question(self._relation, fact.subject)
        if rng.random() < 0.10:
            about = fact.subject if rng.random() < 0.8 else fact.object
            remark = rng.choice(hard_negatives.REMARKS).replace("[X]", about)
            off = rng.choice((*hard_negatives.TOPIC_CHANGES, source.passage())) if rng.random() < 0.5 else ""
            yield self._pair(f"{remark} {off}".strip(), False, "remark", bare=True)
            remark = rng.choice(hard_negatives.REMARKS).replace("[X]", fact.subject)
            text = f"{remark} {question}" if rng.random() < 0.7 else f"{question} {remark}"
            yield self._pair(text, True, "remark", bare=True)
        if rng.random() < 0.38:
            statement = source.statement(self._relation, fact.subject, fact.object)
            noun = source.noun(self._relation)
            text = hard_negatives.discussion(question, statement, noun, fact.subject, rng)
            yield self._pair(text, False, "discussion", bare=True)

    def _turned(self) -> Iterator[Pair]:
        source, relation, fact, rng = self._source, self._relation, self._fact, self._source.rng
        if rng.random() < 0.20:
            if rng.random() < 0.5:
                text = rng.choice(hard_negatives.REVERSALS).replace("{n}", source.noun(relation))
                text = text.replace("[X]", fact.subject).replace("[Y]", fact.object)
                yield self._pair(text, False, "reversed")
            about = rng.choice(source.about_objects(relation) or source.others(relation) or [relation])
            if fact.object.casefold() != fact.subject.casefold():
                text = phrasing.query_template(about, fact.subject, rng).replace("[X]", fact.object)
                yield self._pair(text, False, "object as subject")
        if rng.random() < 0.20:
            text = rng.choice(phrasing.questions_of(relation))
            changed = (
                hard_negatives.negated(text, rng)
                if rng.random() < 0.5
                else hard_negatives.modified(text, relation.nouns, rng)
            )
            if changed:
                yield self._pair(changed.replace("[X]", fact.subject), False, "negated or modified")

    def _multi_hop(self) -> Iterator[Pair]:
        source, relation, fact, rng = self._source, self._relation, self._fact, self._source.rng
        further = source.about_objects(relation)
        if further and rng.random() < 0.15:
            step = f"the {source.noun(relation)} of {fact.subject}"
            text = phrasing.query_template(rng.choice(further), fact.subject, rng).replace("[X]", step)
            yield self._pair(text, False, "multi-hop")
        before = source.distinct(relation)
        if before and rng.random() < 0.10:
            step = f"the {source.noun(before)} of {fact.subject}"
            yield self._pair(self._question(relation, step, fact.object), False, "multi-hop before")

    def _conversation(self) -> Iterator[Pair]:
        source, relation, fact, rng = self._source, self._relation, self._fact, self._source.rng
        template = rng.choice(relation.questions)
        mine = template.replace("[X]", fact.subject)
        other = source.distinct(relation)
        stranger = source.stranger(relation, fact)
        draw = rng.random()
        if draw < 0.5:
            yield from self._pronoun_turn(template, other, stranger)
        elif draw < 0.7 and stranger:
            turn = rng.choice(_TURNS)
            theirs = template.replace("[X]", stranger.subject)
            yield self._pair(
                turn.replace("{x}", fact.subject), True, "follow-up, subject changed", (theirs,), bare=True
            )
            yield self._pair(
                turn.replace("{x}", stranger.subject), False, "follow-up, subject left", (mine,), bare=True
            )
        elif draw < 0.9:
            earlier = (mine, source.answer(relation, fact))[: rng.choice((1, 2))]
            said = rng.choice(rng.choice(hard_negatives.AFTER_TURNS))
            yield self._pair(said, False, "small talk", earlier, bare=True)
            if other and other.statements:
                value = source.names.object(other.object_type, rng)
                claim = source.statement(other, fact.subject, value)
                said = rng.choice(_OTHER_DOUBTS).replace("{c}", claim)
                yield self._pair(said, False, "doubt on another", earlier, bare=True)
        elif other:
            off = phrasing.pronoun_question(rng.choice(other.questions), relation.subject_type, rng)
            yield self._pair(off, False, "follow-up, other relation", (mine,), bare=True)

    def _pronoun_turn(self, template: str, other: Relation | None, stranger: Fact | None) -> Iterator[Pair]:
        source, fact, rng = self._source, self._fact, self._source.rng
        said = phrasing.pronoun_question(template, self._relation.subject_type, rng)
        opening = rng.choice(phrasing.INTRODUCTIONS)
        if other and rng.random() < 0.5:
            opening = rng.choice(other.questions)
        draw = rng.random()
        between: Sequence[str] = ()
        if draw < 0.5:
            between = (source.passage()[:200] if draw < 0.25 else rng.choice(_FILLERS),)
        context = (opening.replace("[X]", fact.subject), *between)
        yield self._pair(said, True, "follow-up", context, bare=True)
        if stranger:
            context = (opening.replace("[X]", stranger.subject), *between)
            yield self._pair(said, False, "follow-up on another", context, bare=True)


def _years(rng: random.Random) -> tuple[str, str]:
    first = rng.choice(_YEARS)
    other = rng.choice([year for year in _YEARS if year != first])
    word = rng.choice(("in", "in", "of", "for", "since", "before"))
    return f"{word} {first}", f"{word} {other if rng.random() < 0.5 else first + rng.choice((-1, 1, 2, 10))}"


def _qualified(template: str, qualifier: str | None) -> str:
    if qualifier is None:
        return template
    if template.endswith("?"):
        return f"{template[:-1]} {qualifier}?"
    if template.endswith((" is", " was", " on", " in", ":", " to", " by", " for", " of")):
        return f"{qualifier[0].upper()}{qualifier[1:]}, {template}"
    return f"{template.rstrip('.')} {qualifier}"
