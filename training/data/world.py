"""What pairs and examples are made from: relations, facts, names and passages of all sources."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from serac_gateway.errors import ConfigError
from training.data import public_sets
from training.data.facts import Fact, Names, counterfact_relation, pararel_statements, trex_facts
from training.data.files import read_rows
from training.data.pairs import sentences
from training.data.relations import Relation, load_pools, load_relations


class World(msgspec.Struct, frozen=True, kw_only=True):
    """The material of pairs and examples."""

    relations: dict[str, Relation]
    facts: list[Fact]
    names: Names
    passages: list[str]
    clozes: dict[str, set[str]]
    """Comparable clozes by relation, all phrasings."""

    def known(self, relations: Sequence[str]) -> frozenset[str]:
        """The ids of `relations`.

        Raises:
            ConfigError: One of them is in no table.
        """
        unknown = sorted(set(relations) - self.relations.keys())
        if unknown:
            raise ConfigError(
                f"held-out relations {unknown!r} are in no table; the tables know {len(self.relations)}"
            )
        return frozenset(relations)


def load_world(data: Path) -> World:
    """Our tables joined with ParaRel's statements, T-REx's and CounterFact's facts."""
    relations = load_relations()
    patterns = pararel_statements(data)
    for relation_id, statements_of in patterns.items():
        if relation_id in relations:
            known = relations[relation_id]
            statements = tuple(dict.fromkeys((*known.statements, *(_tidy(p) for p in statements_of))))
            relations[relation_id] = msgspec.structs.replace(known, statements=statements)
    clozes = public_sets.cloze_table({rid: list(r.statements) for rid, r in relations.items()})
    facts = list(trex_facts(data))
    for row in read_rows(data / "counterfact/counterfact-train.jsonl.gz"):
        of = counterfact_relation(row["prompt"], row["subject"], clozes)
        if len(of) == 1:
            facts.append(Fact(next(iter(of)), row["subject"], row["target_new"]))
    facts = [f for f in facts if f.relation in relations]
    passages = sentences(public_sets.unrelated_texts(data)[:3000] + [
        public_sets.tidy(row["evidence_sentence"])
        for row in read_rows(data / "fever_vitaminc/symmetric_v0.1_fever_symmetric_generated.jsonl.gz")
    ] + [
        row["sentence1"] for row in read_rows(data / "paraphrase_pairs/paws_wiki_val.jsonl.gz")[:3000]
    ])  # fmt: skip
    return World(
        relations=relations,
        facts=facts,
        names=Names(facts, load_pools(), relations),
        passages=passages,
        clozes=clozes,
    )


def _tidy(pattern: str) -> str:
    return re.sub(r"\s+([,.?])", r"\1", pattern).strip()
