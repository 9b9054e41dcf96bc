"""Benchmarks: reading files, drawing cases, and marking negatives that are none."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from serac_gateway.errors import ConfigError
from training.benchmarks import counterfact, fever, knowedit, pitfalls, wikifactdiff, zsre
from training.benchmarks.base import Benchmark, Case, Probe, Role, chosen, fact, prepared, probes
from training.benchmarks.catalogue import BENCHMARKS, READERS, open_benchmark
from training.data.files import data_folder, read_rows

ZSRE_ROW = {
    "subject": "Oru Bridge",
    "src": "Who built Oru Bridge?",
    "pred": "Ana",
    "rephrase": "Oru Bridge was built by whom?",
    "alt": "Ben",
    "answers": ["Ana"],
    "loc": "nq question: how deep is the sea",
    "loc_ans": "deep",
    "cond": "Ana >> Ben || Who built Oru Bridge?",
}
ROME_ROW = {
    "case_id": 7,
    "requested_rewrite": {
        "prompt": "{} is located in",
        "relation_id": "P17",
        "target_new": {"str": "Peru", "id": "Q1"},
        "target_true": {"str": "Chile", "id": "Q2"},
        "subject": "Mount Oru",
    },
    "paraphrase_prompts": ["One climbs Mount Oru in", "Mount Oru stands in"],
    "neighborhood_prompts": ["Mount Ketti is located in"],
}


def written(path: Path, rows: list[dict[str, object]]) -> Path:
    """Rows as JSON Lines or as a JSON array, gzipped or not, by the name."""
    text = json.dumps(rows) if ".jsonl" not in path.name else "\n".join(json.dumps(row) for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def kinds(case: Case) -> list[tuple[str, str, bool]]:
    return [(probe.kind, probe.text, probe.in_scope) for probe in case.probes]


# -- files


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.jsonl.gz", "a.json.gz"])
def test_a_file_is_read_as_json_lines_or_as_an_array_gzipped_or_not(tmp_path: Path, name: str) -> None:
    rows: list[dict[str, object]] = [{"a": "x"}, {"a": "y"}]
    assert read_rows(written(tmp_path / name, rows)) == rows


def test_a_line_separator_of_unicode_inside_a_text_does_not_break_a_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": "one\u2028two\u0085three"}\n', "utf-8")
    assert read_rows(path) == [{"a": "one\u2028two\u0085three"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{broken", "neither a JSON array nor JSON Lines"),
        (b"[1, 2]", "holds no rows"),
        (b"", "holds no rows"),
        (b"\xff\xfe\x00", "not in UTF-8"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "damaged.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"damaged\.json.*{message}|{message}.*damaged\.json"):
        read_rows(path)


def test_a_truncated_gzip_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 100)[:-8])
    with pytest.raises(ConfigError, match="cannot read"):
        read_rows(path)


def test_a_missing_data_folder_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERAC_DATA", "/nowhere")
    with pytest.raises(ConfigError, match=r"'/nowhere' does not exist; set SERAC_DATA.*--path"):
        data_folder()


# -- the published forms


def test_zsre_as_mend_published_it(tmp_path: Path) -> None:
    (case,) = zsre.read(written(tmp_path / "zsre.json", [ZSRE_ROW])).cases
    assert (case.edit.prompt, case.edit.target_new, case.edit.target_true) == (ZSRE_ROW["src"], "Ben", "Ana")
    assert kinds(case) == [
        ("prompt", "Who built Oru Bridge?", True),
        ("rephrase", "Oru Bridge was built by whom?", True),
        ("locality", "how deep is the sea", False),
    ]


def test_counterfact_as_rome_published_it(tmp_path: Path) -> None:
    (case,) = counterfact.read(written(tmp_path / "counterfact.json", [ROME_ROW])).cases
    assert (case.edit.prompt, case.edit.target_new, case.relation) == (
        "Mount Oru is located in", "Peru", "P17",
    )  # fmt: skip
    assert [kind for kind, _, _ in kinds(case)] == ["prompt", "rephrase", "rephrase", "neighbour"]


@pytest.mark.parametrize(
    "row",
    [
        {"rephrase_prompt": "One climbs it in", "locality_prompt": "Mount Ketti is in"},
        {
            "rephrase_prompt": ["One climbs it in"],
            "locality": [{"prompt": "Mount Ketti is in", "ground_truth": None}],
        },
    ],
)
def test_counterfact_with_flat_fields(tmp_path: Path, row: dict[str, object]) -> None:
    edit = {"prompt": "Oru is in", "target_new": "Peru", "ground_truth": "Chile", "subject": "Oru"}
    (case,) = counterfact.read(written(tmp_path / "c.jsonl", [{**edit, **row}])).cases
    assert kinds(case)[1:] == [
        ("rephrase", "One climbs it in", True),
        ("neighbour", "Mount Ketti is in", False),
    ]


def test_counterfacts_generation_prompts_are_no_paraphrases(tmp_path: Path) -> None:
    probes = [*((f"Ana {letter}", "{} is known for") for letter in "abcd"), ("Ben", "It rained. {} speaks")]
    rows: list[dict[str, object]] = [
        {
            "prompt": f"{name} speaks", "target_new": "Finnish", "ground_truth": "Thai", "subject": name,
            "rephrase_prompt": text.format(name), "locality_prompt": "Ketti speaks",
        }
        for name, text in probes
    ]  # fmt: skip
    cases = counterfact.read(written(tmp_path / "c.jsonl", rows)).cases
    assert [case.probes[1].kind for case in cases] == ["generation"] * 4 + ["rephrase"]


def test_knowedit_asks_for_other_attributes_of_the_subject(tmp_path: Path) -> None:
    row: dict[str, object] = {
        "subject": "Oru",
        "prompt": "The mayor of Oru is",
        "target_new": ["Ben", "Benjamin"],
        "portability": {"Reasoning": [{"prompt": "The mayor's father is", "ground_truth": "x"}]},
        "locality": {
            "Relation_Specificity": [{"prompt": "The river of Oru is", "ground_truth": "x"}],
            "Forgetfulness": [{"prompt": "The mayor of Oru, which is not Ben, is", "ground_truth": "x"}],
        },
    }
    (case,) = knowedit.read([written(tmp_path / "k.json", [row])]).cases
    assert case.edit.target_new == "Ben"
    assert kinds(case)[1:] == [
        ("same_subject", "The river of Oru is", False),
        ("forgetfulness", "The mayor of Oru, which is not Ben, is", False),
    ]
    assert (case.relation, case.probes[1].relation) == ("The mayor of {} is", "The river of {} is")


def test_wikifactdiff_has_a_rephrased_and_a_neighbours_prompt(tmp_path: Path) -> None:
    row: dict[str, object] = {
        "subject": "Oru", "src": "Oru played for", "rephrase": "Oru plays for", "alt": "FC", "old": "SC",
        "loc": "Ketti plays for",
    }  # fmt: skip
    (case,) = wikifactdiff.read(written(tmp_path / "w.json", [row])).cases
    assert kinds(case)[1:] == [("rephrase", "Oru plays for", True), ("neighbour", "Ketti plays for", False)]


def test_fever_stores_one_of_the_claims_that_share_evidence(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"evidence": "e1", "claim": "Oru is a town .", "label": "SUPPORTS"},
        {"evidence": "e1", "claim": "Oru is a river .", "label": "REFUTES"},
        {"evidence": "e2", "claim": "Oru is a river .", "label": "SUPPORTS"},
        {"evidence": "e2", "claim": "Oru 's a sea .", "label": "REFUTES"},
        {"evidence": "e3", "claim": "Ketti is a poet .", "label": "REFUTES"},
    ]
    first, second = fever.read(written(tmp_path / "f.jsonl", rows)).cases
    assert (first.edit.prompt, first.edit.target_new) == ("Oru is a town.", "False")
    assert [text for kind, text, _ in kinds(first) if kind == "twin_claim"] == [
        "Oru is a river.",
        "Oru's a sea.",
    ]
    assert (second.edit.prompt, second.edit.target_new) == ("Ketti is a poet.", "True")
    assert all("Ketti is a poet" in probe.text for probe in second.probes)


def test_pitfalls_ask_the_inverse_question_about_the_old_object(tmp_path: Path) -> None:
    work = {"id": "P800", "prompt": "The notable work of {} is", "query": "What is the notable work of {}?"}
    creator = {"id": "P170", "prompt": "The creator of {} is", "query": "Who is the creator of {}?"}
    row: dict[str, object] = {
        "triples": [
            {"relation": work, "subject": {"label": "Ana"}, "object": {"label": "Dawn"}},
            {"relation": creator, "subject": {"label": "Dawn"}, "object": {"label": "Ana"}},
        ],
        "edits": [
            {
                "relation": work,
                "subject": {"label": "Ana"},
                "object": {"label": "Dawn"},
                "new_object": {"label": "Dusk"},
            }
        ],
    }
    (case,) = pitfalls.read(written(tmp_path / "p.json", [row])).cases
    assert (case.edit.prompt, case.edit.target_new) == ("The notable work of Ana is", "Dusk")
    assert kinds(case)[1:] == [
        ("rephrase", "What is the notable work of Ana?", True),
        ("reversed", "Who is the creator of Dawn?", False),
    ]


def test_a_row_of_another_form_is_refused_with_what_was_expected(tmp_path: Path) -> None:
    path = written(tmp_path / "z.json", [ZSRE_ROW, {"question": "?"}])
    with pytest.raises(ConfigError, match=r"row 1 is not in the form of zsRE.*'src'.*\['question'\]"):
        zsre.read(path)


def test_an_unknown_benchmark_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'zsr'.*choose one of zsre"):
        open_benchmark("zsr")
    with pytest.raises(ConfigError, match="--path goes with zsre"):
        open_benchmark("unrelated", tmp_path)


# -- drawing and preparing


def case(name: str, prompt: str, *, subject: str | None = None, **fields: object) -> Case:
    negatives = probes("neighbour", fields.pop("negatives", ()), in_scope=False)  # type: ignore[arg-type]
    return fact(name, prompt=prompt, target_new="x", subject=subject, probes=negatives, **fields)  # type: ignore[arg-type]


def stored(*cases: Case, traffic: tuple[Probe, ...] = ()) -> Benchmark:
    return Benchmark(name="b", role=Role.VALIDATION, cases=cases, traffic=traffic)


def test_cases_are_drawn_by_seed_without_repeats() -> None:
    benchmark = stored(*(case(f"c{number}", f"prompt {number}") for number in range(50)))
    first, again, other = (
        [case.id for case in chosen(benchmark, edits=10, seed=seed).cases] for seed in (1, 1, 2)
    )
    assert first == again != other
    assert len(set(first)) == 10


def test_edits_that_cannot_be_stored_or_ask_the_same_are_left_out_and_counted() -> None:
    blank = fact("blank", prompt="p", target_new=" ", subject=None, probes=())
    kept = chosen(
        stored(case("a", "Who leads Oru?"), blank, case("b", " who leads  ORU"), case("c", "Other")),
        edits=None,
        seed=0,
    )
    assert [case.id for case in kept.cases] == ["a", "c"]
    assert kept.left_out == 2


def contested(benchmark: Benchmark) -> list[bool]:
    return [
        probe.contested for case in prepared(benchmark).cases for probe in case.probes if not probe.in_scope
    ]


def test_a_negative_about_another_edited_subject_is_contested() -> None:
    a = case("a", "Oru is in", subject="Oru", negatives=["Mount Ketti is in", "Kettister is in"])
    b = case("b", "Mount Ketti lies in", subject="Mount Ketti")
    assert contested(stored(a, b)) == [True, False]
    assert contested(stored(a)) == [False, False]


def test_a_negative_that_asks_for_another_relation_is_not_contested() -> None:
    a = case("a", "Oru is in", subject="Oru", relation="P17")
    other = Probe(kind="neighbour", text="Ketti's mayor is", in_scope=False, relation="P6")
    a = Case(edit=a.edit, probes=(*a.probes, other), relation="P17")
    assert contested(stored(a, case("b", "Ketti is in", subject="Ketti", relation="P17"))) == [False]
    assert contested(stored(a, case("b", "Ketti's head is", subject="Ketti", relation="P6"))) == [True]


def test_a_negative_that_is_another_edits_prompt_is_contested() -> None:
    assert contested(stored(case("a", "A?", negatives=["is it raining"]), case("b", "Is it raining?"))) == [
        True
    ]


def test_cases_that_ask_the_same_question_are_rivals(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        dict(ZSRE_ROW),
        {**ZSRE_ROW, "src": "Who made Oru Bridge?", "alt": "Carl"},
        {**ZSRE_ROW, "src": "Who sank Oru Bridge?", "answers": ["Dora"]},
    ]
    named = prepared(zsre.read(written(tmp_path / "z.json", rows)))
    assert [case.rivals for case in named.cases] == [("zsre-1",), ("zsre-0",), ()]


# -- the real data


@pytest.mark.data
@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_of_the_shared_data_opens_with_distinct_ids_and_both_kinds_of_probes(
    name: str,
) -> None:
    benchmark = chosen(open_benchmark(name), edits=None, seed=0)
    assert len({case.id for case in benchmark.cases}) == len(benchmark.cases) >= 40
    probes = [probe for case in benchmark.cases for probe in case.probes] + list(benchmark.traffic)
    for_answers = {"mquake", "yes-no", "suppression"}
    assert all(probe.in_scope for probe in probes) is (name in for_answers)
    assert name == "unrelated" or any(probe.in_scope for probe in probes)


@pytest.mark.data
def test_the_unrelated_traffic_is_more_than_ten_thousand_prompts_against_ten_thousand_edits() -> None:
    benchmark = open_benchmark("unrelated")
    assert len(benchmark.traffic) > 10_000
    assert len(benchmark.cases) == 10_000


def test_every_reader_has_a_benchmark_of_its_name() -> None:
    assert READERS.keys() <= BENCHMARKS.keys()
