"""zsRE (Levy et al., CoNLL 2017) as MEND and all later editing papers use it.

Each edit is a question with a new answer; one rephrased question must fire, one Natural Questions query must
not. The 1,037 cases of the lifelong-editing papers are the test set; 294 of them ask for a fact that another
one asks for too, often with another new answer, so cases with the same subject and true answer are rivals.
"""

from __future__ import annotations

from pathlib import Path

from training.benchmarks.base import Benchmark, Case, Role, fact, probes
from training.benchmarks.loading import converted
from training.data.files import Row, data_folder, read_rows

TEST_FILE = "zsre/zsre_mend_eval_portability_gpt4.jsonl.gz"
TRAIN_FILE = "zsre/zsre_mend_train_10000.jsonl.gz"
SMALL_TRAIN_FILE = "zsre/zsre_mend_train-1k.jsonl.gz"
"""1,000 of the 10,000."""

_FORM = "zsRE as MEND published it (subject, src, rephrase, alt, loc)"


def read(path: Path, *, name: str = "zsre", role: Role = Role.TEST) -> Benchmark:
    """The cases of one file; MEND's zsre_mend_*.json and the shared rows have the same fields.

    Raises:
        ConfigError: The file cannot be read or has another form.
    """
    return Benchmark(name=name, role=role, cases=tuple(converted(read_rows(path), _case, form=_FORM)))


def load() -> Benchmark:
    """The test set of the shared data."""
    return read(data_folder() / TEST_FILE)


def load_10k() -> Benchmark:
    """10,000 train-marked cases: for the curve over store sizes, never as evidence of quality."""
    return read(data_folder() / TRAIN_FILE, name="zsre-10k", role=Role.TRAIN)


def _case(position: int, row: Row) -> Case:
    locality = row.get("loc") or ""
    portability = row.get("portability") or {}
    true_answer = (row.get("answers") or [None])[0]
    return fact(
        f"zsre-{position}",
        prompt=row["src"],
        target_new=row["alt"],
        target_true=true_answer,
        subject=row["subject"],
        question=f"{row['subject']}: {true_answer}" if true_answer else None,
        probes=(
            *probes("rephrase", [row["rephrase"]], in_scope=True),
            *probes("locality", [_query(locality)], in_scope=False, answers=[row.get("loc_ans")]),
        ),
        entailed=probes(
            "one_hop",
            [portability.get("New Question") or ""],
            in_scope=True,
            answers=[portability.get("New Answer")],
        ),
    )


def _query(locality: str) -> str:
    """MEND's marker is no part of what a user asks; the question mark is what users leave out."""
    return locality.removeprefix("nq question: ")
