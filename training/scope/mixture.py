"""The training set of the scope classifier: which sources, how much of each, what is held out."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from training.data import hard_negatives, public_sets
from training.data.contrasts import contrast_pairs, load_contrast_sets
from training.data.fact_source import FactSource
from training.data.facts import (
    Fact,
    Names,
    counterfact_relation,
    pararel_statements,
    template_of,
    trex_facts,
)
from training.data.files import read_rows
from training.data.pairs import Pair, sentences
from training.data.public_sets import Embed
from training.data.relations import Relation, load_pools, load_relations
from training.scope.pair_generator import PairMaker


class MixtureSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of each source. `held_out_relations` never occur in training, neither as edit nor as query."""

    held_out_relations: tuple[str, ...] = ()
    groups: int = 11000
    """Edits made from the relation tables; each gives about seven pairs."""
    claim_share: float = 0.06
    """Of the groups: verdicts on claims instead of facts."""
    zsre_rows: int = 3500
    counterfact_rows: int = 2000
    knowedit_rows: int = 700
    pokemqa_rows: int = 1500
    qqp_rows: int = 4500
    paws_rows: int = 2000
    contrast_rounds: int = 0
    """How often the hand-written contrast sets come, each time with another of their subjects."""
    claim_rounds: int = 1
    """How often FEVER's claims come, each time in other forms; 0 leaves them out."""
    mined_edits: int = 5000
    mined_queries: int = 3000
    mined_floor: float = 0.35
    seed: int = 13


class World(msgspec.Struct, frozen=True, kw_only=True):
    """What pairs are made from."""

    relations: dict[str, Relation]
    facts: list[Fact]
    names: Names
    passages: list[str]
    clozes: dict[str, set[str]]
    """Comparable clozes by relation, all phrasings."""


def load_world(data: Path) -> World:
    """Our tables joined with ParaRel's statements, T-REx's and CounterFact's facts."""
    relations = load_relations()
    patterns = pararel_statements(data)
    for relation_id, found in patterns.items():
        if relation_id in relations:
            known = relations[relation_id]
            statements = tuple(dict.fromkeys((*known.statements, *(_tidy(p) for p in found))))
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


def training_pairs(world: World, data: Path, settings: MixtureSettings, embed: Embed) -> list[Pair]:
    """The whole mixture, shuffled. `embed` is the bi-encoder: it measures templates and mines hard negatives.

    Raises:
        ValueError: A held-out relation that does not exist.
    """
    held_out = frozenset(settings.held_out_relations)
    unknown = held_out - world.relations.keys()
    if unknown:
        raise ValueError(
            f"held-out relations {sorted(unknown)!r} are in no table; the tables know {len(world.relations)}"
        )
    rng = random.Random(settings.seed)
    kept = [r for rid, r in world.relations.items() if rid not in held_out]
    facts = [f for f in world.facts if f.relation not in held_out]
    source = FactSource(kept, facts, world.names, world.passages, settings.seed)
    maker = PairMaker(source, claim_share=settings.claim_share)
    excluded = _belongs_to([world.relations[rid] for rid in sorted(held_out)], kept, embed)
    words = re.compile(
        "|".join(re.escape(n) for rid in sorted(held_out) for n in world.relations[rid].nouns[:2]) or "$^",
        re.IGNORECASE,
    )
    pairs = list(maker.pairs(settings.groups))
    mined_from = [p for p in pairs if p.in_scope]
    pairs += public_sets.zsre_pairs(data, rng, embed, rows=settings.zsre_rows, excluded=excluded)
    pairs += public_sets.counterfact_pairs(
        data, rng, world.clozes, rows=settings.counterfact_rows, held_out=held_out
    )
    pairs += public_sets.knowedit_pairs(data, rng, rows=settings.knowedit_rows, excluded=excluded)
    pairs += public_sets.pokemqa_pairs(data, rng, rows=settings.pokemqa_rows, excluded_words=words)
    pairs += public_sets.qqp_pairs(data, rng, rows=settings.qqp_rows)
    pairs += public_sets.paws_pairs(data, rng, rows=settings.paws_rows)
    for _ in range(settings.claim_rounds):
        pairs += public_sets.fever_pairs(data, rng)
    sets = load_contrast_sets()
    pairs += contrast_pairs(sets, rng, world.passages, rounds=settings.contrast_rounds)
    pairs += _mined(pairs, mined_from, public_sets.unrelated_texts(data), settings, embed, rng)
    rng.shuffle(pairs)
    return pairs


def _mined(
    pairs: Sequence[Pair],
    in_scope: Sequence[Pair],
    unrelated: Sequence[str],
    settings: MixtureSettings,
    embed: Embed,
    rng: random.Random,
) -> list[Pair]:
    """Unrelated traffic and other edits' questions against the edits that the index would return for them."""
    edits = list({(p.prompt, p.target): p for p in pairs if p.kind != "qqp"}.values())
    edits = rng.sample(edits, min(settings.mined_edits, len(edits)))
    half = settings.mined_queries // 2
    asked = rng.sample(list(in_scope), min(half, len(in_scope)))
    queries: list[tuple[str, tuple[str, str] | None]] = [
        (p.text, (p.prompt, p.target)) for p in asked if not p.context
    ]
    queries += [(text, None) for text in rng.sample(list(unrelated), min(half, len(unrelated)))]
    edits_ND = embed([e.prompt for e in edits])
    found = hard_negatives.mined(
        edits_ND, embed([q for q, _ in queries]), top_k=6, floor=settings.mined_floor
    )
    made = []
    for (text, own), row in zip(queries, found, strict=True):
        for place, _ in row[: 3 if own is None else 2]:
            edit = edits[place]
            if own is not None and (_shared(own[0], edit.prompt) or _shared(text, edit.prompt)):
                continue  # it may be about the same subject, and then nobody knows the label
            made.append(Pair(prompt=edit.prompt, target=edit.target, text=text, in_scope=False,
                             kind="unrelated, mined" if own is None else "other edit, mined"))  # fmt: skip
    return made


def _shared(left: str, right: str) -> bool:
    """Whether two texts share a capitalised word that does not begin them."""

    def names(text: str) -> set[str]:
        words = re.findall(r"\w+", text)
        return {
            w.casefold()
            for i, w in enumerate(words)
            if w[:1].isupper() and (i > 0 or len(words) < 3 or not w.islower())
        } - OPENINGS

    return bool(names(left) & names(right))


OPENINGS = frozenset(
    [
        "what",
        "who",
        "where",
        "when",
        "which",
        "how",
        "the",
        "in",
        "is",
        "of",
        "whose",
        "why",
        "whom",
        "to",
        "for",
        "did",
        "does",
        "was",
        "are",
        "a",
        "on",
        "at",
        "by",
    ]
)


def _belongs_to(
    held_out: Sequence[Relation], kept: Sequence[Relation], embed: Embed
) -> Callable[[Sequence[str]], frozenset[str]]:
    """Tells which templates ask for a held-out relation: near one of its phrasings, nearer than to others."""
    if not held_out:
        return lambda templates: frozenset()
    own = [t for r in held_out for t in (*r.questions, *r.clozes, *(f"The {n} of [X] is" for n in r.nouns))]
    rest = [t for r in kept for t in (*r.questions, *r.clozes, *(f"The {n} of [X] is" for n in r.nouns))]
    own_ND = embed([t.replace("[X]", "it") for t in own])
    rest_ND = embed([t.replace("[X]", "it") for t in rest])

    def belonging(templates: Sequence[str]) -> frozenset[str]:
        vectors_BD = embed([t.replace("[X]", "it") for t in templates])
        near_B = (vectors_BD @ own_ND.T).max(axis=1)
        other_B = (vectors_BD @ rest_ND.T).max(axis=1)
        rows = zip(templates, near_B, other_B, strict=True)
        return frozenset(t for t, near, other in rows if near > 0.7 and near >= other - 0.03)

    return belonging


def _tidy(pattern: str) -> str:
    return re.sub(r"\s+([,.?])", r"\1", pattern).strip()


__all__ = ["MixtureSettings", "World", "load_world", "template_of", "training_pairs"]
