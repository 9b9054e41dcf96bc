"""Reversed relations, from "Unveiling the Pitfalls of Knowledge Editing" (Li et al., ICLR 2024).

An edit in cloze form ("The notable work of X is"); its question must fire. The inverse question about the old
object ("Who is the creator of Y?") must not: the edit says what X's work is now, not who made Y.
"""

from __future__ import annotations

from pathlib import Path

from training.benchmarks.base import Benchmark, Case, Probe, Role, fact
from training.benchmarks.loading import converted
from training.data.files import Row, data_folder, read_rows

FILE = "pitfalls/gptj_reverse_edit.jsonl.gz"

_FORM = "the pitfalls' reverse_edit.json (triples, edits)"


def read(path: Path, *, role: Role = Role.VALIDATION) -> Benchmark:
    """The cases of one file.

    Raises:
        ConfigError: The file cannot be read or has another form.
    """
    return Benchmark(name="pitfalls", role=role, cases=tuple(converted(read_rows(path), _case, form=_FORM)))


def load() -> Benchmark:
    """The shared rows."""
    return read(data_folder() / FILE)


def _case(position: int, row: Row) -> Case:
    edit, inverse = row["edits"][0], row["triples"][1]
    relation, subject = edit["relation"], edit["subject"]["label"]
    return fact(
        f"pitfalls-{position}",
        prompt=relation["prompt"].format(subject),
        target_new=edit["new_object"]["label"],
        target_true=edit["object"]["label"],
        subject=subject,
        relation=relation["id"],
        probes=(
            Probe(
                kind="rephrase",
                text=relation["query"].format(subject),
                in_scope=True,
                relation=relation["id"],
            ),
            Probe(
                kind="reversed",
                text=inverse["relation"]["query"].format(inverse["subject"]["label"]),
                in_scope=False,
                relation=inverse["relation"]["id"],
            ),
        ),
    )
