"""WikiFactDiff (Ammar Khodja et al., LREC-COLING 2024): real changes of Wikidata between two dates.

Cloze prompts over many relations ("X played for"), one rephrased prompt that must fire, one neighbour's that
must not.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from training.benchmarks.base import Benchmark, Case, Role, fact, probes
from training.benchmarks.loading import converted
from training.data.files import Row, data_folder, read_rows

FILE = "wikifactdiff/wfd_train_en.jsonl.gz"
VALIDATION_EVERY = 3
"""Every third case_id (divisible by it) is held out of training, for validation."""

_FORM = "WikiFactDiff in EasyEdit's form (subject, src, rephrase, alt, old, loc)"


def read(path: Path, *, name: str = "wikifactdiff", role: Role = Role.TEST) -> Benchmark:
    """The cases of one file.

    Raises:
        ConfigError: The file cannot be read or has another form.
    """
    cases = converted(read_rows(path), _case, form=_FORM)
    return Benchmark(name=name, role=role, cases=tuple(cases), clozes=True)


def load() -> Benchmark:
    """The validation part of the shared data."""
    everything = read(data_folder() / FILE, role=Role.VALIDATION)
    return msgspec.structs.replace(everything, cases=everything.cases[::VALIDATION_EVERY])


def _case(position: int, row: Row) -> Case:
    # The shared rows' case_id counts from 0 without gaps, so the position is the case_id.
    return fact(
        f"wikifactdiff-{position}",
        prompt=row["src"],
        target_new=row["alt"],
        target_true=row.get("old"),
        subject=row["subject"],
        probes=(
            *probes("rephrase", [row["rephrase"]], in_scope=True),
            *probes("neighbour", [row["loc"]], in_scope=False, answers=[row.get("loc_ans")]),
        ),
    )
