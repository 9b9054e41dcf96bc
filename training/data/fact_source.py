"""Draws what groups of pairs are made of: relations, facts, other subjects, values, noise. All seeded."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Sequence

from training.data import hard_negatives, phrasing
from training.data.facts import Fact, Names
from training.data.relations import Relation


class FactSource:
    """Relations with their facts. Facts of other relations are ignored: what is not given is held out."""

    def __init__(
        self,
        relations: Sequence[Relation],
        facts: Sequence[Fact],
        names: Names,
        passages: Sequence[str],
        seed: int,
    ) -> None:
        """`passages` are sentences for noise; none is fine."""
        self.rng = random.Random(seed)
        self.names = names
        self.passages = list(passages)
        self.relations = list(relations)
        self._facts: dict[str, list[Fact]] = defaultdict(list)
        self._alike: dict[tuple[str, str], list[Fact]] = defaultdict(list)
        known = {relation.id for relation in self.relations}
        for fact in facts:
            if fact.relation not in known:
                continue
            self._facts[fact.relation].append(fact)
            for word in _long_words(fact.subject):
                self._alike[(fact.relation, word)].append(fact)
        self._others = {r.id: hard_negatives.other_relations(r, self.relations) for r in self.relations}
        self._phrasings = {r.id: _comparable(r) for r in self.relations}
        self._by_subject_type: dict[str, list[Relation]] = defaultdict(list)
        for relation in self.relations:
            self._by_subject_type[relation.subject_type].append(relation)
        self._weights = [1.0 if r.id in self._facts else 0.6 for r in self.relations]

    def relation(self) -> Relation:
        """A relation; those with known facts a little more often."""
        return self.rng.choices(self.relations, self._weights)[0]

    def fact(self, relation: Relation) -> Fact:
        """A fact of the relation: known, or with another one's object, or put together from the pools."""
        known = self._facts.get(relation.id)
        if known and self.rng.random() < 0.85:
            fact = self.rng.choice(known)
            if self.rng.random() < 0.5:
                return Fact(relation.id, fact.subject, self.rng.choice(known).object)
            return fact
        return Fact(
            relation.id,
            self.names.subject(relation.subject_type, self.rng),
            self.names.object(relation.object_type, self.rng),
        )

    def stranger(self, relation: Relation, fact: Fact) -> Fact | None:
        """A fact on another subject, often one that shares a word of its name; None if none came up."""
        words = _long_words(fact.subject)
        if words and self.rng.random() < 0.5:
            alike = self._alike.get((relation.id, self.rng.choice(words)), [])
            others = [other for other in alike if other.subject != fact.subject]
            if others:
                return self.rng.choice(others)
        drawn = self.fact(relation)
        return drawn if drawn.subject.casefold() != fact.subject.casefold() else None

    def value(self, relation: Relation, fact: Fact) -> str:
        """The fact's object, or more often another one that fits: what a user may believe."""
        return fact.object if self.rng.random() < 0.4 else self.names.object(relation.object_type, self.rng)

    def answer(self, relation: Relation, fact: Fact) -> str:
        """What an assistant said before: the answer alone or in a sentence."""
        if self.rng.random() < 0.6 or not relation.statements:
            return f"{fact.object}."
        return f"{self.statement(relation, fact.subject, fact.object)}."

    def statement(self, relation: Relation, subject: str, value: str) -> str:
        """A statement of the relation."""
        return self.rng.choice(relation.statements).replace("[X]", subject).replace("[Y]", value)

    def question(self, relation: Relation, subject: str) -> str:
        """A plain question of the relation's table."""
        return self.rng.choice(relation.questions).replace("[X]", subject)

    def noun(self, relation: Relation) -> str:
        """A noun for the relation."""
        return self.rng.choice(relation.nouns or (relation.name,))

    def others(self, relation: Relation) -> list[Relation]:
        """Relations that the same subject can have."""
        return self._others[relation.id]

    def distinct(self, relation: Relation) -> Relation | None:
        """Another relation of the subject that is not near this one, or None."""
        others = [r for r in self._others[relation.id] if r.id not in relation.near]
        return self.rng.choice(others) if others else None

    def about_objects(self, relation: Relation) -> list[Relation]:
        """Relations that the object of this one can have as their subject."""
        return self._by_subject_type.get(relation.object_type, [])

    def asks_for(self, relation: Relation, template: str) -> bool:
        """Whether a template is, word for word, also a phrasing of `relation`."""
        return _plain(template) in self._phrasings[relation.id]

    def noisy(self, text: str) -> str:
        """`text` as it arrives."""
        return phrasing.decorated(text, self.rng, self.passages)

    def passage(self) -> str:
        """A sentence that has nothing to do with anything."""
        return self.rng.choice(self.passages or ["Hello."])


def _long_words(text: str) -> list[str]:
    return [word for word in text.split() if len(word) > 2]


def _plain(text: str) -> str:
    return re.sub(r"[\s?.!:]+", " ", text).strip().casefold()


def _comparable(relation: Relation) -> frozenset[str]:
    return frozenset(
        _plain(t) for t in (*relation.questions, *relation.clozes, *phrasing.questions_of(relation))
    )
