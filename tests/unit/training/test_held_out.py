"""Relations held out of training: no table, fact, contrast set or public row asks for them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from serac_gateway.domain.vectors import Vectors
from serac_gateway.errors import ConfigError
from serac_gateway.testing import WordEncoder
from training.counterfactual.mixture import ExampleSettings, training_examples
from training.data.contrasts import load_contrast_sets
from training.data.facts import OBJECT_POOL_RELATIONS, SUBJECT_POOL_RELATIONS
from training.data.held_out import held_out_templates, without_held_out
from training.data.world import World, load_world
from training.scope.mixture import MixtureSettings, training_pairs

HELD_OUT = ("P36", "P1303")
KEPT = ("P19", "P103", "P106", "P264", "P30", "P37")
"""The tables are cut down to these and the held-out ones, so that few groups ask for all of them."""
MARKS = ("is the capital of", "the capital of ruritania", "which instrument does", "seat of government")
"""Texts that ask for the held-out relations have one of them; texts for the kept ones have none."""


def embed(texts: Sequence[str]) -> Vectors:
    """Texts are near by the words that they share."""
    return np.asarray(WordEncoder().encode(list(texts)))


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.parent.mkdir(exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every public file that is read, with a few rows of held-out and of kept relations each."""
    folder = tmp_path_factory.mktemp("data")
    pools = (*OBJECT_POOL_RELATIONS.values(), *SUBJECT_POOL_RELATIONS.values())
    relations = sorted({rid for ids in pools for rid in ids})
    write(folder / "pararel/trex_lms_vocab.jsonl.gz", [
        {"relation": rid, "sub_label": f"Subject {rid} {letter}", "obj_label": f"Object {rid} {letter}"}
        for rid in relations for letter in "ABCD"
    ])  # fmt: skip
    write(folder / "pararel/patterns.jsonl.gz", [{"relation": "P36", "pattern": "[X] rules from [Y] ."}])
    write(folder / "counterfact/counterfact-train.jsonl.gz", [
        {"prompt": cloze.format("Ruritania"), "rephrase_prompt": cloze.format("Ruritania"),
         "locality_prompt": cloze.format("Syldavia"), "subject": "Ruritania", "target_new": "Zenda",
         "ground_truth": "Strelsau"}
        for cloze in ("The capital of {} is", "The mother tongue of {} is") * 4
    ])  # fmt: skip
    questions = ["What is the capital of {}?", *(f"Which thing{n} word{n} has {{}}?" for n in range(60))]
    write(folder / "zsre/zsre_mend_train_10000.jsonl.gz", [
        {"src": question.format("Ruritania"), "rephrase": question.format("Ruritania"), "alt": "Zenda",
         "subject": "Ruritania", "answers": ["Strelsau"], "loc": f"nq question: how do I cook rice{place}"}
        for place, question in enumerate(questions)
    ])  # fmt: skip
    edit = {"prompt": "The capital of Ruritania is", "subject": "Ruritania", "target_new": "Zenda"}
    for name in ("wiki_counterfact_train", "wiki_recent_train"):
        write(folder / f"knowedit/{name}.jsonl.gz", [
            edit | {"portability": {"Subject_Aliasing": [{"prompt": "The capital of Old Ruritania is"}]}}
        ])  # fmt: skip
    write(folder / "scope_pokemqa/cls-filtered.jsonl.gz", [
        {"edit": f"The {what} of Ruritania is Zenda", "questions": [f"Is Zenda the {what} of Ruritania?"]}
        for what in ("capital", "anthem")
    ])  # fmt: skip
    paraphrases = folder / "paraphrase_pairs"
    write(paraphrases / "similiar_qqp_full.jsonl.gz", [{"text_a": "a", "text_b": "b", "label": 0}])
    sentence = "One long sentence about nothing."
    write(paraphrases / "paws_wiki_val.jsonl.gz", [
        {"sentence1": sentence, "sentence2": "About nothing one.", "label": "0"}
    ])  # fmt: skip
    claim = {"claim": sentence, "evidence": sentence, "evidence_sentence": sentence, "label": "SUPPORTS"}
    fever = folder / "fever_vitaminc"
    write(fever / "symmetric_v0.2_fever_symmetric_dev.jsonl.gz", [{"claim": "x", "evidence": "y"}])
    write(fever / "symmetric_v0.1_fever_symmetric_generated.jsonl.gz", [claim | {"id": "1a"}])
    return folder


@pytest.fixture(scope="module")
def all_relations(data: Path) -> World:
    return load_world(data)


@pytest.fixture(scope="module")
def world(all_relations: World) -> World:
    relations = {rid: all_relations.relations[rid] for rid in (*HELD_OUT, *KEPT)}
    return msgspec.structs.replace(all_relations, relations=relations)


def asking(texts: Sequence[str]) -> list[str]:
    return [text for text in texts if any(mark in text.casefold() for mark in MARKS)]


def pair_texts(world: World, data: Path, held_out: Sequence[str]) -> dict[str, list[str]]:
    """Prompts, queries and earlier turns of all pairs, by source."""
    settings = MixtureSettings(
        held_out_relations=tuple(held_out), groups=120, contrast_rounds=1, claim_share=0.0,
    )  # fmt: skip
    by_source: dict[str, list[str]] = {}
    for pair in training_pairs(world, data, settings, embed):
        source = next((name for name in PAIR_SOURCES if pair.kind.startswith(name)), "tables")
        by_source.setdefault(source, []).extend((pair.prompt, pair.text, *pair.context))
    return by_source


PAIR_SOURCES = ("contrast, ", "zsre", "counterfact", "knowedit", "pokemqa")


def example_texts(world: World, data: Path, held_out: Sequence[str]) -> dict[str, list[str]]:
    settings = ExampleSettings(held_out_relations=tuple(held_out), facts=150, instructions=10)
    by_source: dict[str, list[str]] = {}
    for example in training_examples(world, data, settings, embed):
        by_source.setdefault(example.source, []).extend((example.prompt, example.text, *example.context))
    return by_source


def test_the_classifiers_pairs_ask_for_no_held_out_relation(world: World, data: Path) -> None:
    trained = pair_texts(world, data, ())
    for source in ("tables", *PAIR_SOURCES):
        assert asking(trained[source]), f"{source} never asks for these relations: nothing to hold out"
    held_out = pair_texts(world, data, HELD_OUT)
    assert {source: asking(texts) for source, texts in held_out.items() if asking(texts)} == {}
    assert held_out["tables"]
    assert len(held_out["contrast, "]) > 0.8 * len(trained["contrast, "])


def test_the_adapters_examples_ask_for_no_held_out_relation(world: World, data: Path) -> None:
    trained = example_texts(world, data, ())
    assert {"contrasts", "zsre", "counterfact", "knowedit", "pokemqa"} <= trained.keys()
    for source, texts in trained.items():
        if source not in ("fever", "instructions"):
            assert asking(texts), f"{source} never asks for these relations: nothing to hold out"
    held_out = example_texts(world, data, HELD_OUT)
    assert {source: asking(texts) for source, texts in held_out.items() if asking(texts)} == {}
    assert len(held_out["contrasts"]) > 0.8 * len(trained["contrasts"])


def test_a_contrast_set_is_left_out_by_its_prompt_and_a_query_by_its_text(all_relations: World) -> None:
    sets = load_contrast_sets()
    kept = {
        contrast.name: contrast
        for contrast in without_held_out(sets, held_out_templates(all_relations, frozenset(HELD_OUT), embed))
    }
    missing = {contrast.name for contrast in sets} - kept.keys()
    assert {"capital of a country", "instrument of a musician"} <= missing
    assert len(missing) < 0.06 * len(sets)
    lines = [line.text for line in kept["country of origin of a work"].lines]
    assert lines
    assert "What is the capital of [T]?" not in lines


def test_without_held_out_relations_every_contrast_set_stays(world: World) -> None:
    sets = load_contrast_sets()
    assert without_held_out(sets, held_out_templates(world, frozenset(), embed)) == sets


def test_a_held_out_relation_that_no_table_has_is_refused(world: World, data: Path) -> None:
    with pytest.raises(ConfigError, match=r"\['P0'\] are in no table"):
        training_pairs(world, data, MixtureSettings(held_out_relations=("P0",)), embed)
    with pytest.raises(ConfigError, match=r"\['P0'\] are in no table"):
        training_examples(world, data, ExampleSettings(held_out_relations=("P0",)), embed)
