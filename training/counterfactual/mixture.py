"""The training and validation sets of the counterfactual model: how much of each source, what is held out."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from training.counterfactual import public_sets as public
from training.counterfactual.answer_sets import answer_examples, load_answer_sets
from training.counterfactual.contrast_examples import contrast_examples
from training.counterfactual.examples import Example
from training.counterfactual.fact_examples import fact_examples
from training.counterfactual.instruction_examples import instruction_examples
from training.data import public_sets
from training.data.contrasts import load_contrast_sets
from training.data.fact_source import FactSource
from training.data.held_out import held_out_templates, without_held_out
from training.data.public_sets import Embed
from training.data.relations import VAGUE_NOUNS
from training.data.world import World

MAX_ANSWER_CHARS = 160
"""Longer targets are given by the gateway as they are, without the model."""
MAX_QUERY_CHARS = 420


class ExampleSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of each source.

    No edit and no query asks for `held_out_relations`, but for rows of FEVER.
    """

    held_out_relations: tuple[str, ...] = ()
    facts: int = 9_000
    contrast_rounds: int = 1
    answer_rounds: int = 0
    """How often the hand-written answers come, each time with another wording of the edit."""
    zsre_rows: int = 2_000
    counterfact_rows: int = 1_500
    knowedit_rows: int = 500
    pokemqa_rows: int = 300
    instructions: int = 600
    seed: int = 13


def training_examples(world: World, data: Path, settings: ExampleSettings, embed: Embed) -> list[Example]:
    """The whole mixture, shuffled. `embed` is the bi-encoder: it measures which contrast sets are held out.

    Raises:
        ConfigError: A held-out relation that does not exist.
    """
    held_out = world.known(settings.held_out_relations)
    rng = random.Random(settings.seed)
    source = _source(world, [rid for rid in world.relations if rid not in held_out], settings.seed)
    words = frozenset(
        noun for rid in held_out for noun in world.relations[rid].nouns if noun not in VAGUE_NOUNS
    )
    left_out = public.naming(words)
    pattern = re.compile("|".join(map(re.escape, sorted(words))) or "$^", re.IGNORECASE)
    sets = without_held_out(
        [contrast for contrast in load_contrast_sets() if not contrast.is_held_out],
        held_out_templates(world, held_out, embed),
    )
    pairs = public_sets.knowedit_pairs(
        data, rng, rows=settings.knowedit_rows, excluded=lambda ts: frozenset(t for t in ts if left_out(t))
    )
    questions = public_sets.pokemqa_pairs(data, rng, rows=settings.pokemqa_rows, excluded_words=pattern)
    made = [
        *fact_examples(source, settings.facts),
        *instruction_examples(source, settings.instructions),
        *contrast_examples(sets, rng, rounds=settings.contrast_rounds),
        *answer_examples(
            [answered for answered in load_answer_sets() if not answered.is_held_out]
            * settings.answer_rounds,
            rng,
        ),
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
    held_out = world.known(settings.held_out_relations)
    rng = random.Random(settings.seed + 1_000)
    source = _source(world, sorted(held_out), settings.seed + 1_000)
    sets = [contrast for contrast in load_contrast_sets() if contrast.is_held_out]
    others = frozenset(world.relations) - held_out
    contrasts = list(contrast_examples(sets, rng, rounds=1))
    rng.shuffle(contrasts)
    answered = list(answer_examples([kept for kept in load_answer_sets() if kept.is_held_out], rng))
    rng.shuffle(answered)
    file = "counterfact/counterfact-val.jsonl.gz"
    return _usable([
        *fact_examples(source, per_source, name="held-out relations"),
        *instruction_examples(source, per_source // 6),
        *contrasts[:per_source],
        *answered[:per_source],
        *public.wikifactdiff_examples(rng, rows=per_source),
        *public.counterfact_examples(
            data, rng, world.clozes, rows=per_source, held_out=others, file=file
        ),
    ])  # fmt: skip


def _source(world: World, relations: Sequence[str], seed: int) -> FactSource:
    kept = [world.relations[rid] for rid in relations]
    return FactSource(kept, world.facts, world.names, world.passages, seed)


def _usable(examples: Sequence[Example]) -> list[Example]:
    return [
        example
        for example in examples
        if example.answer.strip()
        and len(example.answer) <= MAX_ANSWER_CHARS
        and len(example.text) <= MAX_QUERY_CHARS
        and "\n" not in example.answer
    ]
