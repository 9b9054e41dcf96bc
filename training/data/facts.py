"""Facts (relation, subject, object) and pools of names, from the public sets and our own tables."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import msgspec

from training.data.files import read_rows
from training.data.relations import Relation

OBJECT_POOL_RELATIONS: dict[str, tuple[str, ...]] = {
    "city": ("P19", "P20", "P937", "P36", "P159"),
    "company": ("P176", "P178", "P127", "P108"),
    "country": ("P17", "P27", "P495"),
    "language": ("P103", "P1412", "P37", "P364"),
    "profession": ("P106",),
    "religion": ("P140",),
    "instrument": ("P1303",),
    "genre": ("P136",),
    "label": ("P264",),
    "sportsposition": ("P413",),
    "field": ("P101",),
    "organisation": ("P463", "P108"),
    "place": ("P17", "P131", "P276"),
    "continent": ("P30",),
    "network": ("P449",),
    "region": ("P131",),
}
"""Which relations of T-REx and CounterFact give the values of an object type."""

SUBJECT_POOL_RELATIONS: dict[str, tuple[str, ...]] = {
    "person": ("P19", "P20", "P27", "P106", "P39", "P101", "P1303", "P413", "P140", "P108", "P463"),
    "work": ("P364", "P449", "P495", "P407"),
    "country": ("P36",),
    "city": ("P1376", "P190"),
    "place": ("P17", "P131", "P30", "P47"),
    "building": ("P276",),
    "company": ("P159", "P740", "P127"),
    "product": ("P176",),
    "software": ("P178",),
    "thing": ("P279", "P31", "P527"),
    "river": (),
}
MERGED = {"P407": "P364"}
"""Relations of the public sets that our tables treat as one."""


class Fact(msgspec.Struct, frozen=True):
    """`relation` of `subject` is `object`."""

    relation: str
    subject: str
    object: str


def _merged(relation: str) -> str:
    return MERGED.get(relation, relation)


def trex_facts(data: Path) -> Iterator[Fact]:
    """Facts of T-REx as ParaRel carries them."""
    for row in read_rows(data / "pararel/trex_lms_vocab.jsonl.gz"):
        relation = _merged(row["relation"])
        yield Fact(relation, row["sub_label"], row["obj_label"])


def pararel_statements(data: Path) -> dict[str, list[str]]:
    """Statement patterns by relation, spaces tidied, full stop dropped."""
    patterns: dict[str, list[str]] = defaultdict(list)
    for row in read_rows(data / "pararel/patterns.jsonl.gz"):
        relation = _merged(row["relation"])
        pattern = re.sub(r"\s+", " ", row["pattern"]).strip(" .")
        if "[X]" in pattern and "[Y]" in pattern and pattern not in patterns[relation]:
            patterns[relation].append(pattern)
    return dict(patterns)


def counterfact_relation(prompt: str, subject: str, clozes: dict[str, set[str]]) -> frozenset[str]:
    """Every relation one of whose clozes the CounterFact prompt is; several where the text is ambiguous."""
    template = template_of(prompt, subject)
    return frozenset(relation for relation, texts in clozes.items() if template in texts)


def template_of(text: str, subject: str) -> str:
    """`text` with the subject replaced by [X], lower-cased and tidied, for comparison only."""
    replaced = re.sub(re.escape(subject), "[X]", text, flags=re.IGNORECASE) if subject else text
    return re.sub(r"\s+", " ", replaced).strip(" .?!:").casefold()


class Names:
    """Random subjects and objects of a type: from facts where they exist, from `pools.txt` elsewhere."""

    def __init__(
        self, facts: list[Fact], pools: dict[str, tuple[str, ...]], relations: dict[str, Relation]
    ) -> None:
        objects: dict[str, set[str]] = defaultdict(set)
        subjects: dict[str, set[str]] = defaultdict(set)
        by_relation: dict[str, list[Fact]] = defaultdict(list)
        for fact in facts:
            by_relation[fact.relation].append(fact)
        for kind, ids in OBJECT_POOL_RELATIONS.items():
            objects[kind].update(f.object for rid in ids for f in by_relation[rid])
        for kind, ids in SUBJECT_POOL_RELATIONS.items():
            subjects[kind].update(f.subject for rid in ids for f in by_relation[rid])
        for relation in relations.values():
            if relation.subject_type not in SUBJECT_POOL_RELATIONS:
                subjects[relation.subject_type].update(f.subject for f in by_relation[relation.id])
        objects["person"] = subjects["person"]
        objects["work"] = subjects["work"]
        objects["university"] = {f"University of {city}" for city in list(sorted(objects["city"]))[:120]}
        self._subjects = {kind: sorted(names) for kind, names in subjects.items() if names}
        self._objects = {kind: sorted(names) for kind, names in objects.items() if names}
        self._pools = pools

    def subject(self, kind: str, rng: random.Random) -> str:
        """A subject of the type."""
        pool = self._pools.get(kind, ())
        known = self._subjects.get(kind, [])
        if pool and (not known or rng.random() < 0.3):
            return self.filled(rng.choice(pool), rng)
        if not known:
            raise ValueError(f"no names of the subject type {kind!r}; add them to pools.txt")
        return rng.choice(known)

    def object(self, kind: str, rng: random.Random) -> str:
        """An object of the type."""
        pool = self._pools.get(kind, ())
        known = self._objects.get(kind, [])
        if known and (not pool or rng.random() < 0.5):
            return rng.choice(known)
        if not pool:
            return self.subject(kind, rng)
        return self.filled(rng.choice(pool), rng)

    def filled(self, text: str, rng: random.Random) -> str:
        """`text` with its ``{…}`` filled at random."""

        def fill(match: re.Match[str]) -> str:
            what = match.group(1)
            if what == "n":
                return str(rng.choice((rng.randint(2, 60), rng.randint(10, 999), 10 * rng.randint(1, 99))))
            if what == "d":
                return str(rng.randint(1, 9))
            if what == "y":
                return str(rng.randint(1500, 2030) if rng.random() < 0.3 else rng.randint(1900, 2028))
            if what == "month":
                return rng.choice(MONTHS)
            if what == "date":
                return f"{rng.randint(1, 28)} {rng.choice(MONTHS)} {rng.randint(1700, 2028)}"
            if what == "code":
                return "".join(rng.choice("ABCDEFGHKLMNPRSTUVXZ") for _ in range(3))
            if what == "name":
                return rng.choice(self._subjects["person"])
            if what == "word":
                return rng.choice(WORDS)
            return self.filled(rng.choice(self._pools[what]), rng)

        return re.sub(r"\{(\w+)\}", fill, text)


MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
WORDS = [
    "acme",
    "nimbus",
    "marlow",
    "vela",
    "orchid",
    "basalt",
    "kestrel",
    "lumen",
    "harbour",
    "falcon",
    "birch",
    "solis",
    "quartz",
    "delta",
    "juno",
]
