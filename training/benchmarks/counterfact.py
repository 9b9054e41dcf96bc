"""CounterFact (Meng et al., NeurIPS 2022): cloze edits, paraphrases behind noise, and neighbours' prompts.

Neighbours have the same relation and the same true answer, so they look alike: "neighbour no-fire" is what
papers call locality or specificity.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from training.benchmarks.base import Benchmark, Case, Probe, Role, chosen, fact, probes
from training.benchmarks.loading import converted
from training.data.files import Row, data_folder, read_rows

TEST_FILE = "counterfact/counterfact_500_full_prompts.jsonl.gz"
VALIDATION_FILE = "counterfact/counterfact-val.jsonl.gz"
TRAIN_FILE = "counterfact/counterfact-train.jsonl.gz"

FACTS_FILE = "pararel/trex_lms_vocab.jsonl.gz"
"""CounterFact was made from these facts, so they give the relations of rows that lack them."""

_REPEATED = 4

_FORM = "CounterFact as ROME published it (requested_rewrite, …), or with flat fields (prompt, target_new, …)"


def read(path: Path, *, name: str = "counterfact", role: Role = Role.TEST) -> Benchmark:
    """The cases of one file: ROME's counterfact.json, or either of the flat forms of the shared data.

    Raises:
        ConfigError: The file cannot be read or has another form.
    """
    rows = read_rows(path)
    cases = converted(rows, _case, form=_FORM)
    return Benchmark(name=name, role=role, cases=tuple(_generation_marked(cases)), clozes=True)


def load() -> Benchmark:
    """The 500 test cases of the shared data."""
    return _with_relations(read(data_folder() / TEST_FILE))


def load_validation() -> Benchmark:
    """The validation cases, less those whose case is also in the test set."""
    benchmark = read(data_folder() / VALIDATION_FILE, name="counterfact-validation", role=Role.VALIDATION)
    test_prompts = {case.edit.prompt for case in read(data_folder() / TEST_FILE).cases}
    cases = tuple(case for case in benchmark.cases if case.edit.prompt not in test_prompts)
    return _with_relations(msgspec.structs.replace(benchmark, cases=cases))


def load_10k() -> Benchmark:
    """10,000 train-marked cases, for the size of the store; of quality only where they were held out."""
    return _with_relations(read(data_folder() / TRAIN_FILE, name="counterfact-10k", role=Role.TRAIN))


def load_among_10k() -> Benchmark:
    """The 500 test cases in a store of 10,000: the others are train-marked edits without probes."""
    test = load()
    test_prompts = {case.edit.prompt for case in test.cases}
    others = [
        msgspec.structs.replace(
            case, probes=(), edit=msgspec.structs.replace(case.edit, id=f"other-{case.id}")
        )
        for case in chosen(load_10k(), edits=None, seed=0).cases
        if case.edit.prompt not in test_prompts
    ]
    cases = (*test.cases, *others)[:10_000]
    return msgspec.structs.replace(test, name="counterfact-among-10k", cases=cases)


def _with_relations(benchmark: Benchmark) -> Benchmark:
    """The benchmark with the relation of every case whose fact (subject, true object) has exactly one."""
    relations: dict[tuple[str, str], set[str]] = defaultdict(set)
    for row in read_rows(data_folder() / FACTS_FILE):
        relations[row["sub_label"], row["obj_label"]].add(row["relation"])

    def completed(case: Case) -> Case:
        candidates = relations.get((case.edit.subject or "", case.edit.target_true or ""), set())
        return _of_relation(case, next(iter(candidates))) if len(candidates) == 1 else case

    return msgspec.structs.replace(benchmark, cases=tuple(map(completed, benchmark.cases)))


def _of_relation(case: Case, relation: str) -> Case:
    """All probes of a case ask for its relation: neighbours differ in the subject."""
    probes = tuple(msgspec.structs.replace(probe, relation=relation) for probe in case.probes)
    return msgspec.structs.replace(case, relation=relation, probes=probes)


def _generation_marked(cases: Sequence[Case]) -> Iterator[Case]:
    """Call those rephrased probes "generation" whose template many cases share.

    Some releases hold, in place of a paraphrase, one of ROME's 70 generation prompts ("X is incredible at",
    "Where X is from, people speak the language of"). These depend on the edit and do not ask for it. True
    paraphrases stand behind a sentence of their own, so their templates do not repeat.
    """
    templates = Counter(
        _template(probe, case) for case in cases for probe in case.probes if probe.kind == "rephrase"
    )
    for case in cases:
        probes = tuple(
            msgspec.structs.replace(probe, kind="generation")
            if probe.kind == "rephrase" and templates[_template(probe, case)] >= _REPEATED
            else probe
            for probe in case.probes
        )
        yield msgspec.structs.replace(case, probes=probes)


def _template(probe: Probe, case: Case) -> str:
    return probe.text.replace(case.edit.subject or "", "{}")


def _case(position: int, row: Row) -> Case:
    return _published(position, row) if "requested_rewrite" in row else _flat(position, row)


def _published(position: int, row: Row) -> Case:
    rewrite = row["requested_rewrite"]
    case = fact(
        f"counterfact-{position}",
        prompt=rewrite["prompt"].format(rewrite["subject"]),
        target_new=rewrite["target_new"]["str"],
        target_true=rewrite["target_true"]["str"],
        subject=rewrite["subject"],
        probes=(
            *probes("rephrase", row["paraphrase_prompts"], in_scope=True),
            *probes(
                "neighbour",
                row["neighborhood_prompts"],
                in_scope=False,
                answers=[rewrite["target_true"]["str"]],
            ),
        ),
    )
    return _of_relation(case, rewrite["relation_id"]) if rewrite.get("relation_id") else case


def _flat(position: int, row: Row) -> Case:
    rephrases = row["rephrase_prompt"]
    neighbours = row["locality"] if "locality" in row else [row["locality_prompt"]]
    return fact(
        f"counterfact-{position}",
        prompt=row["prompt"],
        target_new=row["target_new"],
        target_true=row["ground_truth"],
        subject=row["subject"],
        probes=(
            *probes("rephrase", [rephrases] if isinstance(rephrases, str) else rephrases, in_scope=True),
            *probes(
                "neighbour",
                [_text(neighbour) for neighbour in neighbours],
                in_scope=False,
                answers=[row["ground_truth"]],  # neighbours share the true answer, that is what makes them so
            ),
        ),
    )


def _text(neighbour: str | Row) -> str:
    return neighbour if isinstance(neighbour, str) else neighbour["prompt"]
