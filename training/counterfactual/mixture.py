"""The training and validation sets of the counterfactual model: how much of each source, what is held out."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from serac_gateway.errors import ConfigError
from training.counterfactual import public_sets as public
from training.counterfactual.contrast_examples import contrast_examples
from training.counterfactual.examples import Example
from training.counterfactual.fact_examples import fact_examples
from training.counterfactual.instruction_examples import instruction_examples
from training.data import public_sets
from training.data.contrasts import load_contrast_sets
from training.data.fact_source import FactSource
from training.data.relations import VAGUE_NOUNS
from training.scope.mixture import World

MAX_ANSWER_CHARS = 160
"""Longer targets are given by the gateway as they are, without the model."""
MAX_QUERY_CHARS = 420


class ExampleSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of each source. `held_out_relations` never occur in training, neither as edit nor as query."""

    held_out_relations: tuple[str, ...] = ()
    facts: int = 9_000
    contrast_rounds: int = 1
    zsre_rows: int = 2_000
    counterfact_rows: int = 1_500
    knowedit_rows: int = 500
    pokemqa_rows: int = 300
    instructions: int = 600
    seed: int = 13


def training_examples(world: World, data: Path, settings: ExampleSettings) -> list[Example]:
    """The whole mixture, shuffled.

    Raises:
        ConfigError: A held-out relation that does not exist.
    """
    held_out = _known(world, settings.held_out_relations)
    rng = random.Random(settings.seed)
    source = _source(world, [rid for rid in world.relations if rid not in held_out], settings.seed)
    words = frozenset(
        noun for rid in held_out for noun in world.relations[rid].nouns if noun not in VAGUE_NOUNS
    )
    left_out = public.naming(words)
    pattern = re.compile("|".join(map(re.escape, sorted(words))) or "$^", re.IGNORECASE)
    sets = [one for one in load_contrast_sets() if not one.is_held_out]
    pairs = public_sets.knowedit_pairs(
        data, rng, rows=settings.knowedit_rows, excluded=lambda ts: frozenset(t for t in ts if left_out(t))
    )
    questions = public_sets.pokemqa_pairs(data, rng, rows=settings.pokemqa_rows, excluded_words=pattern)
    made = [
        *fact_examples(source, settings.facts),
        *instruction_examples(source, settings.instructions),
        *contrast_examples(sets, rng, rounds=settings.contrast_rounds),
        *public.zsre_examples(data, rng, rows=settings.zsre_rows, left_out=left_out),
        *public.counterfact_examples(
            data, rng, world.clozes, rows=settings.counterfact_rows, held_out=held_out
        ),
        *public.pair_examples(pairs, "knowedit"),
        *public.pair_examples(questions, "pokemqa"),
        *public.fever_examples(data, rng),
    ]
    rng.shuffle(made)
    return _usable(made)


def validation_examples(
    world: World, data: Path, settings: ExampleSettings, *, per_source: int
) -> list[Example]:
    """Examples of held-out relations, contrast sets and data sets, `per_source` of each; none is trained on.

    Raises:
        ConfigError: A held-out relation that does not exist.
    """
    held_out = _known(world, settings.held_out_relations)
    rng = random.Random(settings.seed + 1_000)
    source = _source(world, sorted(held_out), settings.seed + 1_000)
    sets = [one for one in load_contrast_sets() if one.is_held_out]
    others = frozenset(world.relations) - held_out
    contrasts = list(contrast_examples(sets, rng, rounds=1))
    rng.shuffle(contrasts)
    file = "counterfact/counterfact-val.jsonl.gz"
    return _usable([
        *fact_examples(source, per_source, name="held-out relations"),
        *instruction_examples(source, per_source // 6),
        *contrasts[:per_source],
        *public.wikifactdiff_examples(rng, rows=per_source),
        *public.counterfact_examples(
            data, rng, world.clozes, rows=per_source, held_out=others, file=file
        ),
    ])  # fmt: skip


def _known(world: World, relations: Sequence[str]) -> frozenset[str]:
    unknown = sorted(set(relations) - world.relations.keys())
    if unknown:
        raise ConfigError(
            f"held-out relations {unknown!r} are in no table; the tables know {len(world.relations)}"
        )
    return frozenset(relations)


def _source(world: World, relations: Sequence[str], seed: int) -> FactSource:
    kept = [world.relations[rid] for rid in relations]
    facts = [fact for fact in world.facts if fact.relation in set(relations)]
    return FactSource(kept, facts, world.names, world.passages, seed)


def _usable(examples: Sequence[Example]) -> list[Example]:
    return [
        one
        for one in examples
        if one.answer.strip()
        and len(one.answer) <= MAX_ANSWER_CHARS
        and len(one.text) <= MAX_QUERY_CHARS
        and "\n" not in one.answer
    ]
