"""KnowEdit (Zhang et al., arXiv 2401.01286): wiki_recent and wiki_counterfact, for same-subject questions.

"Relation_Specificity" asks for other attributes of the edited subject, "Forgetfulness" for further answers
besides the new one; neither is answered by the edit. Subject aliases and reasoning (portability) are no
question of scope by text and are left to the answer metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from training.benchmarks.base import Benchmark, Case, Probe, Role, fact, probes
from training.benchmarks.rows import Row, converted, data_folder, read_rows

FILES = ("knowedit/wiki_recent_train.jsonl.gz", "knowedit/wiki_counterfact_train.jsonl.gz")

_FORM = "KnowEdit (subject, prompt, target_new, locality)"


def read(paths: Sequence[Path], *, name: str = "knowedit", role: Role = Role.TEST) -> Benchmark:
    """The cases of all files, in order.

    Raises:
        ConfigError: A file cannot be read or has another form.
    """
    rows = [row for path in paths for row in read_rows(path)]
    return Benchmark(name=name, role=role, cases=tuple(converted(rows, _case, form=_FORM)))


def load() -> Benchmark:
    """The shared rows; marked train, so evidence of quality only where a model was not trained on them."""
    folder = data_folder()
    return read([folder / file for file in FILES], role=Role.TRAIN)


def _case(position: int, row: Row) -> Case:
    locality = row.get("locality") or {}
    rephrase = row.get("rephrase_prompt") or row.get("rephrase") or ()
    subject = row["subject"]
    asked: tuple[Probe, ...] = (
        *probes("rephrase", [rephrase] if isinstance(rephrase, str) else rephrase, in_scope=True),
        *probes("same_subject", _prompts(locality, "Relation_Specificity"), in_scope=False),
        *probes("forgetfulness", _prompts(locality, "Forgetfulness"), in_scope=False),
    )
    return fact(
        f"knowedit-{position}",
        prompt=row["prompt"],
        target_new=_first(row["target_new"]),
        subject=subject,
        relation=_template(row["prompt"], subject),
        probes=[msgspec.structs.replace(probe, relation=_template(probe.text, subject)) for probe in asked],
    )


def _prompts(locality: Mapping[str, Sequence[Row]], kind: str) -> list[str]:
    return [asked["prompt"] for asked in locality.get(kind) or ()]


def _template(prompt: str, subject: str) -> str:
    """KnowEdit's prompts are made from one template a relation, so that names the relation."""
    return prompt.replace(subject, "{}")


def _first(target: str | Sequence[str]) -> str:
    return target if isinstance(target, str) else target[0]
