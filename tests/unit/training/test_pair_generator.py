"""The tables, the pairs made from them, and a user's own data."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from serac_gateway.domain.edits import EditDraft
from serac_gateway.domain.vectors import Vectors
from serac_gateway.errors import ConfigError
from training.data import hard_negatives, phrasing
from training.data.contrasts import load_contrast_sets
from training.data.fact_source import FactSource
from training.data.facts import Fact, Names
from training.data.own_data import is_held_out, own_pairs, read_edits, read_own, read_traffic
from training.data.pairs import Pair
from training.data.rehearsal import rehearsal_pairs
from training.data.relations import Relation, load_pools, load_relations
from training.runs import load_records, read_config, save_records
from training.scope.config import ScopeConfig
from training.scope.pair_generator import PairMaker
from training.scope.validation_sets import own_benchmark

FACTS = [
    Fact("P19", f"{first} {last}", city)
    for first, last, city in zip(
        ("Ada", "Ben", "Cleo", "Dan"),
        ("Stone", "Stone", "Marsh", "Field"),
        ("Rome", "Oslo", "Lyon", "Bern"),
        strict=True,
    )
]  # fmt: skip
KEPT = ("P19", "P20", "P569", "P106", "W45", "W07", "W08")


def made(groups: int, seed: int = 5) -> list[Pair]:
    relations = load_relations()
    pools = {**load_pools(), **{kind: ("Rome", "Oslo", "Lyon") for kind in ("city", "profession")}}
    facts = [*FACTS, *(Fact("P20", f.subject, "Turin") for f in FACTS)]
    names = Names(facts, pools, relations)
    return list(PairMaker(FactSource([relations[r] for r in KEPT], facts, names, [], seed)).pairs(groups))


def test_the_tables_hold_many_relations_with_many_phrasings() -> None:
    relations = load_relations()
    assert len(relations) > 250
    for relation in relations.values():
        assert len(relation.questions) >= 2, relation.id
        assert relation.nouns, relation.id
        assert relation.clozes, relation.id


def test_every_object_and_subject_type_of_the_work_place_has_names() -> None:
    relations, pools = load_relations(), {**load_pools(), "company": ("Acme",)}
    names = Names(FACTS, pools, relations)
    for relation in relations.values():
        if relation.id.startswith("W"):
            text = names.subject(relation.subject_type, random.Random(1))
            assert "{" not in text + names.object(relation.object_type, random.Random(1))


@pytest.mark.parametrize(
    ("line", "said"),
    [("x: What?", "is no phrasing"), ("q: Who is it?", "lacks its subject"), ("just text", "is no phrasing")],
)
def test_a_table_that_is_wrong_says_where(tmp_path: Path, line: str, said: str) -> None:
    (tmp_path / "bad.txt").write_text(f"= P1 name | person -> city\n{line}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=rf"bad\.txt.*{said}"):
        load_relations(tmp_path)


def test_the_same_seed_makes_the_same_pairs_and_both_labels() -> None:
    pairs = made(60)
    assert pairs == made(60)
    assert pairs != made(60, seed=6)
    share = sum(p.in_scope for p in pairs) / len(pairs)
    assert 0.25 < share < 0.6


def test_pairs_hold_no_unfilled_template() -> None:
    for pair in made(300):
        assert "[X]" not in pair.text + pair.prompt, pair
        assert "[Y]" not in pair.text + pair.prompt, pair


def test_negatives_of_every_kind_are_made() -> None:
    kinds = {pair.kind for pair in made(600) if not pair.in_scope}
    assert {
        "same subject", "other subject", "near-duplicate name", "discussion", "negated or modified",
        "multi-hop before", "follow-up on another", "small talk", "twin claim", "reversed",
        "topic", "other qualifier", "remark",
    } <= kinds  # fmt: skip


def test_a_held_out_relation_occurs_in_no_query() -> None:
    queries = " ".join(pair.text for pair in made(400) if pair.kind != "discussion").casefold()
    assert "spouse" not in queries
    assert "married" not in queries


def test_near_relations_count_as_different_only_where_both_name_themselves() -> None:
    relations = load_relations()
    born, citizen = relations["P19"], relations["P27"]
    assert hard_negatives.conflicting(born, citizen, "[X] is from", "What country is [X] from?")
    assert not hard_negatives.conflicting(
        born, citizen, "The birthplace of [X] is", "What is the nationality of [X]?"
    )
    assert not hard_negatives.conflicting(born, relations["P569"], "[X] was born in", "When was [X] born?")


@pytest.mark.parametrize(
    "name", ["John Smith", "Henry VIII", "Aurora 3", "Bern", "König Ludwig II", "2019 Cup"]
)
def test_a_lookalike_is_another_name(name: str) -> None:
    rng = random.Random(3)
    assert all(hard_negatives.near_duplicate(name, rng) != name for _ in range(50))


def test_a_follow_up_has_a_pronoun_for_its_subject() -> None:
    text = phrasing.pronoun_question("Where was [X] born?", "person", random.Random(1))
    assert "[X]" not in text
    assert any(f" {word} " in f" {text} " for word in ("he", "she", "they"))


def test_mining_finds_the_nearest_edits_best_first() -> None:
    edits_ND: Vectors = np.eye(3, dtype=np.float32)
    query_1D = np.array([[0.6, 0.8, 0.0]], dtype=np.float32)
    (row,) = hard_negatives.mined(edits_ND, query_1D, top_k=3, floor=0.1)
    assert [place for place, _ in row] == [1, 0]


def test_pairs_outlive_their_file(tmp_path: Path) -> None:
    pairs = made(5)
    save_records(tmp_path / "pairs.jsonl", pairs)
    assert load_records(tmp_path / "pairs.jsonl", Pair) == pairs


def _embed(texts: object) -> Vectors:
    rows = [[text.count(letter) + 0.01 for letter in "aeioust"] for text in texts]  # type: ignore[attr-defined]
    vectors_BD = np.array(rows, dtype=np.float32)
    unit_BD: Vectors = vectors_BD / np.linalg.norm(vectors_BD, axis=1, keepdims=True)
    return unit_BD


def test_own_edits_and_traffic_become_pairs_and_a_benchmark(tmp_path: Path) -> None:
    (tmp_path / "edits.ndjson").write_text(
        '{"id": "a", "prompt": "Who runs Acme?", "target_new": "Ada", "paraphrases": ["Acme CEO"]}\n'
        '{"id": "b", "prompt": "Where is Acme?", "target_new": "Oslo"}\n'
    )
    (tmp_path / "traffic.ndjson").write_text(
        '{"query": "who is the boss of acme", "edit_id": "a"}\n'
        '{"query": "how do I cook rice", "edit_id": null}\n'
    )
    edits = read_edits(tmp_path / "edits.ndjson")
    traffic = read_traffic(tmp_path / "traffic.ndjson", edits)
    pairs = own_pairs(edits, traffic, _embed, random.Random(1))
    in_scope = {(p.text, p.prompt): p.in_scope for p in pairs}
    assert in_scope[("who is the boss of acme", "Who runs Acme?")]
    assert not in_scope[("who is the boss of acme", "Where is Acme?")]
    assert in_scope[("Acme CEO", "Who runs Acme?")]
    assert not in_scope[("how do I cook rice", "Who runs Acme?")]
    benchmark = own_benchmark(edits, traffic)
    assert [len(case.probes) for case in benchmark.cases] == [1, 0]
    assert [probe.text for probe in benchmark.traffic] == ["how do I cook rice"]


def test_own_rows_keep_what_was_said_before_and_edits_the_other_names(tmp_path: Path) -> None:
    (tmp_path / "edits.ndjson").write_text(
        '{"id": "a", "prompt": "Who runs Acme?", "target_new": "Ada", "subject": "Acme",'
        ' "aliases": ["Acme Corporation"]}\n'
    )
    (tmp_path / "traffic.ndjson").write_text(
        '{"query": "and who runs it", "edit_id": "a", "context": ["Where is Acme?"]}\n'
        '{"query": "and who runs it", "edit_id": null, "instructions": "Translate into French."}\n'
    )
    own = read_own(tmp_path / "edits.ndjson", tmp_path / "traffic.ndjson")
    rows = [*own.trained, *own.held_out]
    assert len(rows) == 2, "they are read differently"
    pairs = own_pairs(own.edits, rows, _embed, random.Random(1))
    made = {(pair.text, pair.context, pair.instructions): pair.in_scope for pair in pairs}
    assert made["and who runs it", ("Where is Acme?",), ""]
    assert not made["and who runs it", (), "Translate into French."]
    assert made["Who runs Acme Corporation?", (), ""]
    (after, task) = sorted(
        (
            probe
            for source in (own_benchmark(own.edits, rows),)
            for probe in (*source.traffic, *source.cases[0].probes)
        ),
        key=lambda probe: not probe.in_scope,
    )
    assert [(turn.role, turn.text) for turn in after.context] == [("user", "Where is Acme?")]
    assert [(turn.role, turn.text) for turn in task.context] == [("system", "Translate into French.")]


@pytest.mark.parametrize(
    ("edits", "traffic", "said"),
    [
        ('{"prompt": "x"}', "", "line 1 has no 'target_new'"),
        ("", "", "holds no rows"),
        ("{broken", "", r"line 1 is '{broken'"),
        ('{"id": "a", "prompt": "x", "target_new": "y"}', '{"query": "q"}', "lacks 'query' or 'edit_id'"),
        ('{"id": "a", "prompt": "x", "target_new": "y"}', '{"query": "q", "edit_id": "z"}', "names edit 'z'"),
        (
            '{"id": "a", "prompt": "x", "target_new": "y"}',
            '{"query": "q", "edit_id": "a", "context": "one"}',
            "line 1: 'context' is no list",
        ),
        (
            '{"id": "a", "prompt": "x", "target_new": "y"}',
            '{"query": "q", "edit_id": "a", "instructions": 3}',
            "line 1: 'instructions' is no text",
        ),
    ],
)
def test_own_data_that_is_wrong_says_where(tmp_path: Path, edits: str, traffic: str, said: str) -> None:
    (tmp_path / "edits.ndjson").write_text(edits)
    (tmp_path / "traffic.ndjson").write_text(traffic)
    with pytest.raises(ConfigError, match=said):
        read_traffic(tmp_path / "traffic.ndjson", read_edits(tmp_path / "edits.ndjson"))


def test_a_row_is_trained_or_held_out_by_its_edit_and_never_both(tmp_path: Path) -> None:
    edits, traffic = tmp_path / "edits.ndjson", tmp_path / "traffic.ndjson"
    rows = [{"id": f"e{n}", "prompt": f"Who runs company {n}?", "target_new": "Ada"} for n in range(40)]
    edits.write_text("".join(json.dumps(row) + "\n" for row in rows))
    logged = [{"query": f"the boss of company {n % 40}, {n}", "edit_id": f"e{n % 40}"} for n in range(120)]
    logged += [{"query": f"recipe number {n}", "edit_id": None} for n in range(80)]
    traffic.write_text("".join(json.dumps(row) + "\n" for row in [*logged, *logged[:9]]))
    own = read_own(edits, traffic)
    assert len(own.trained) + len(own.held_out) == 200, "repeated rows count once"
    assert not {row.query for row in own.trained} & {row.query for row in own.held_out}
    trained = {row.edit_id for row in own.trained} - {None}
    assert trained == {edit.id for edit in own.trained_edits}
    assert not trained & {row.edit_id for row in own.held_out}
    assert 0 < len(own.held_out) < 100
    assert is_held_out("Who runs  company 3?") is is_held_out("who runs company 3?")
    renamed = [row | {"id": f"other-{row['id']}"} for row in rows]
    edits.write_text("".join(json.dumps(row) + "\n" for row in renamed))
    moved = [row | {"edit_id": row["edit_id"] and f"other-{row['edit_id']}"} for row in logged]
    traffic.write_text("".join(json.dumps(row) + "\n" for row in moved))
    assert [row.query for row in read_own(edits, traffic).held_out] == [row.query for row in own.held_out]


def test_an_edit_of_the_same_question_is_no_negative() -> None:
    prompts = {"a": "Who runs Acme?", "b": "who runs  acme?"}
    edits = [EditDraft(id=name, prompt=prompt, target_new="x") for name, prompt in prompts.items()]
    pairs = own_pairs(edits, [], _embed, random.Random(1))
    assert all(pair.in_scope for pair in pairs)


def test_rehearsal_is_our_own_material_of_both_labels_without_what_is_kept_for_validation() -> None:
    pairs = rehearsal_pairs(random.Random(3), 400)
    assert len(pairs) == 400
    assert 0.2 < sum(pair.in_scope for pair in pairs) / 400 < 0.8
    assert {pair.kind.split(",")[0] for pair in pairs} == {"contrast", "request"}

    def filled(*, held_out: bool) -> set[str]:
        return {
            prompt.replace("[X]", subject)
            for contrast in load_contrast_sets()
            if contrast.is_held_out is held_out
            for prompt in contrast.prompts
            for subject in contrast.subjects
        }

    only_held_out = filled(held_out=True) - filled(held_out=False)  # languages share edits
    assert not {pair.prompt for pair in pairs} & only_held_out


def test_the_shipped_configurations_load_and_name_known_relations() -> None:
    known: dict[str, Relation] = load_relations()
    for name in ("scope.toml", "scope-second.toml", "own.toml"):
        config = read_config(Path("configs/training") / name, ScopeConfig)
        assert set(config.mixture.held_out_relations) <= known.keys()


def test_an_unknown_key_of_a_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[training]\nlearning_rat = 1e-4\n")
    with pytest.raises(ConfigError, match="learning_rat"):
        read_config(tmp_path / "c.toml", ScopeConfig)
