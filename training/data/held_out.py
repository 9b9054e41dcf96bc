"""Keeping what asks for a held-out relation out of training: texts by their phrasing, and contrast sets.

Not filtered: QQP, PAWS, FEVER and NQ, whose rows are paraphrases, claims and questions without a relation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from training.data.contrasts import ContrastSet
from training.data.public_sets import Embed, Excluded
from training.data.relations import Relation
from training.data.world import World

NEAR = 0.7
"""The cosine of two phrasings of one relation is mostly above it, that of two relations below."""
MARGIN = 0.03
"""A text that is nearer to another relation's phrasing by less than this counts as held out too."""


def held_out_templates(world: World, held_out: frozenset[str], embed: Embed) -> Excluded:
    """Returns a function that picks the templates that ask for a relation of `held_out`.

    Such a template is near (`NEAR`) a phrasing of one of them, and nearer than to the phrasings of all other
    relations, but for `MARGIN`.
    """
    if not held_out:
        return lambda templates: frozenset()
    own_ND = embed(_phrasings([world.relations[rid] for rid in sorted(held_out)]))
    rest_ND = embed(_phrasings([r for rid, r in world.relations.items() if rid not in held_out]))

    def excluded(templates: Sequence[str]) -> frozenset[str]:
        if not templates:
            return frozenset()
        vectors_BD = embed([_comparable(template) for template in templates])
        near_B = (vectors_BD @ own_ND.T).max(axis=1)
        other_B = (vectors_BD @ rest_ND.T).max(axis=1)
        rows = zip(templates, near_B, other_B, strict=True)
        return frozenset(t for t, near, other in rows if near > NEAR and near >= other - MARGIN)

    return excluded


def without_held_out(sets: Sequence[ContrastSet], excluded: Excluded) -> list[ContrastSet]:
    """The sets without those that have an excluded prompt, and without excluded queries in the others.

    A query out of scope counts too: it would teach the phrasing of the relation. A set that has no query
    left is left out.
    """
    texts = {text for contrast in sets for text in contrast.prompts}
    texts |= {line.text for contrast in sets for line in contrast.lines}
    template_of = {text: re.sub(r"\[Z\]", "[X]", text) for text in texts}
    left_out = excluded(sorted(set(template_of.values())))
    kept = []
    for contrast in sets:
        if any(template_of[prompt] in left_out for prompt in contrast.prompts):
            continue
        lines = tuple(line for line in contrast.lines if template_of[line.text] not in left_out)
        if lines:
            kept.append(msgspec.structs.replace(contrast, lines=lines))
    return kept


def _phrasings(relations: Sequence[Relation]) -> list[str]:
    return [
        _comparable(text)
        for relation in relations
        for text in (
            *relation.questions,
            *relation.clozes,
            *(f"The {noun} of [X] is" for noun in relation.nouns),
        )
    ]


def _comparable(template: str) -> str:
    return re.sub(r"\[[XYTO]\]", "it", template)
