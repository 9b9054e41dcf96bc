"""Unrelated real traffic: what people ask chat models, none of it about an edit.

Web questions (NQ-open), school mathematics (GSM8K), open tasks of one and two turns (MT-bench, Vicuna bench,
self-instruct) and trick questions (TruthfulQA): 12,000 prompts. The edits that they must not meet come from
another benchmark.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from training.benchmarks.base import Benchmark, Probe, Role
from training.benchmarks.counterfact import load_10k
from training.benchmarks.loading import converted
from training.data.conversations import Turn
from training.data.files import Row, data_folder, read_rows


def load() -> Benchmark:
    """All traffic, against the 10,000 CounterFact edits of the shared data."""
    return against(load_10k(), data_folder() / "unrelated_traffic")


def against(edits: Benchmark, folder: Path) -> Benchmark:
    """All traffic of `folder` against the edits of another benchmark, whose own probes are left out."""
    traffic = tuple(
        probe
        for source, probes_of in _SOURCES.items()
        for probes in converted(read_rows(folder / f"{source}.jsonl.gz"), probes_of, form=source)
        for probe in probes
        if probe.text
    )
    bare = tuple(msgspec.structs.replace(case, probes=()) for case in edits.cases)
    return Benchmark(name="unrelated", role=Role.VALIDATION, cases=bare, traffic=traffic)


def _question(source: str, field: str) -> Callable[[int, Row], tuple[Probe, ...]]:
    return lambda position, row: (_probe(source, row[field]),)


def _turns(source: str) -> Callable[[int, Row], tuple[Probe, ...]]:
    return lambda position, row: tuple(
        _probe(source, turn, context=tuple(Turn(role="user", text=said) for said in row["turns"][:number]))
        for number, turn in enumerate(row["turns"])
    )


def _instruction(source: str) -> Callable[[int, Row], tuple[Probe, ...]]:
    return lambda position, row: (
        _probe(source, f"{row['instruction']}\n{row['instances'][0].get('input') or ''}"),
    )


def _probe(source: str, text: str, context: tuple[Turn, ...] = ()) -> Probe:
    return Probe(kind=f"unrelated/{source}", text=text.strip(), in_scope=False, context=context)


_SOURCES: Mapping[str, Callable[[int, Row], tuple[Probe, ...]]] = {
    "NQ-open.dev": _question("nq_open", "question"),
    "gsm8k_train": _question("gsm8k", "question"),
    "truthfulqa": _question("truthfulqa", "Question"),
    "mt_bench": _turns("mt_bench"),
    "vicuna_bench": _turns("vicuna_bench"),
    "self_instruct_seed_tasks": _instruction("self_instruct_seed"),
    "self_instruct_user_oriented": _instruction("self_instruct_user"),
}
