"""The training set of the scope classifier: which sources, how much of each, what is held out."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from training.data import public_sets, question_sets, requests
from training.data.attributes import (
    Attribute,
    AttributePairs,
    load_attributes,
    load_entities,
    load_values,
    own_names,
)
from training.data.contrasts import contrast_pairs, load_contrast_sets
from training.data.fact_source import FactSource
from training.data.held_out import held_out_templates, without_held_out
from training.data.pairs import Pair
from training.data.public_sets import Embed
from training.data.relations import load_pools
from training.data.world import World
from training.scope.pair_generator import PairMaker

_TRANSLATED = 3
"""Attributes with names in more languages than this are asked for in other languages."""
_FOREIGN_SHARE = 0.9


class MixtureSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of each source.

    No edit and no query asks for `held_out_relations`, but for rows of QQP, PAWS, FEVER and NQ.
    """

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
    attribute_edits: int = 0
    """Edits about attributes of four public vocabularies; each gives about six pairs."""
    foreign_attribute_edits: int = 0
    """The same, most of them asked for in another language than English."""
    question_edits: int = 0
    """Edits that are questions of public sets; each gives about four pairs."""
    follow_up_edits: int = 0
    labelled_rows: int = 0
    requests: int = 0
    """Whole requests around the questions: system prompts, mails, helper prompts, retrieved passages."""
    unrelated: int = 0
    """Questions of one edit against another edit, drawn at random."""
    seed: int = 13


WIDE = MixtureSettings(
    groups=4_000, zsre_rows=2_500, counterfact_rows=5_000, knowedit_rows=300, pokemqa_rows=800, qqp_rows=0,
    paws_rows=0, contrast_rounds=2, claim_rounds=0, attribute_edits=1_500, foreign_attribute_edits=800,
    question_edits=800,
)  # fmt: skip
"""Edits of every kind, for a store against which hard negatives are mined."""


def training_pairs(world: World, data: Path, settings: MixtureSettings, embed: Embed) -> list[Pair]:
    """The whole mixture, shuffled. `embed` is the bi-encoder: it measures templates.

    Raises:
        ConfigError: A held-out relation that does not exist.
    """
    held_out = world.known(settings.held_out_relations)
    rng = random.Random(settings.seed)
    kept = [relation for rid, relation in world.relations.items() if rid not in held_out]
    source = FactSource(kept, world.facts, world.names, world.passages, settings.seed)
    maker = PairMaker(source, claim_share=settings.claim_share)
    excluded = held_out_templates(world, held_out, embed)
    words = re.compile(
        "|".join(re.escape(n) for rid in sorted(held_out) for n in world.relations[rid].nouns[:2]) or "$^",
        re.IGNORECASE,
    )
    pairs = list(maker.pairs(settings.groups))
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
    sets = without_held_out(load_contrast_sets(), excluded)
    pairs += contrast_pairs(sets, rng, world.passages, rounds=settings.contrast_rounds)
    pairs += _attribute_pairs(data, settings, rng)
    pairs += question_sets.question_pairs(data, rng, edits=settings.question_edits)
    pairs += question_sets.follow_up_pairs(data, rng, edits=settings.follow_up_edits)
    pairs += question_sets.labelled_pairs(data, rng, rows=settings.labelled_rows)
    unrelated = public_sets.unrelated_texts(data)
    pairs += requests.request_pairs(
        requests.edits_with_queries(pairs), requests.load_request_forms(), rng,
        passages=world.passages, unrelated=unrelated, count=settings.requests,
    )  # fmt: skip
    pairs += _unrelated(pairs, unrelated, rng, settings.unrelated)
    rng.shuffle(pairs)
    return pairs


HELD_OUT_ATTRIBUTES_ONE_IN = 10
"""Of this many attributes one is kept from training, by its id alone."""


def is_held_out_attribute(attribute: Attribute) -> bool:
    """Whether training leaves it out, so that it can be validated on."""
    return int(hashlib.sha256(attribute.id.encode()).hexdigest(), 16) % HELD_OUT_ATTRIBUTES_ONE_IN == 0


def _attribute_pairs(data: Path, settings: MixtureSettings, rng: random.Random) -> Iterator[Pair]:
    if not settings.attribute_edits and not settings.foreign_attribute_edits:
        return
    kept = [attribute for attribute in load_attributes(data) if not is_held_out_attribute(attribute)]
    translated = [attribute for attribute in kept if len(attribute.names) > _TRANSLATED]
    subjects = (subject for contrast in load_contrast_sets() for subject in contrast.subjects)
    given = load_entities(data), load_values(data), rng
    own = own_names(load_pools(), subjects)
    yield from AttributePairs(kept, *given, own_names=own).pairs(settings.attribute_edits, foreign=0.0)
    maker = AttributePairs(translated, *given, own_names=own)
    yield from maker.pairs(settings.foreign_attribute_edits, foreign=_FOREIGN_SHARE)


def _unrelated(
    pairs: Sequence[Pair], unrelated: Sequence[str], rng: random.Random, count: int
) -> Iterator[Pair]:
    for _ in range(count):
        edit, other = rng.choice(pairs), rng.choice(pairs)
        text = rng.choice((other.text, rng.choice(unrelated)))
        if edit.subject is None or edit.subject.casefold() not in text.casefold():
            yield Pair(prompt=edit.prompt, target=edit.target, text=text, in_scope=False, kind="unrelated")
