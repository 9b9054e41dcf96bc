"""KnowEdit (Zhang et al., arXiv 2401.01286): wiki_recent and wiki_counterfact, for same-subject questions.

"Relation_Specificity" asks for other attributes of the edited subject, "Forgetfulness" for further answers
besides the new one; neither is answered by the edit. Subject aliases, reasoning and logical generalization
(portability) are no question of scope by text: only answers are measured on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from training.benchmarks.base import Benchmark, Case, Probe, Role, fact, probes
from training.benchmarks.loading import converted
from training.data.files import Row, data_folder, read_rows

FILES = ("knowedit/wiki_recent_train.jsonl.gz", "knowedit/wiki_counterfact_train.jsonl.gz")

_PORTABILITY = {
    "Reasoning": "reasoning",
    "Subject_Aliasing": "subject_alias",
    "Logical_Generalization": "logical_generalization",
}
"""Their kinds and ours."""

_FORM = "KnowEdit (subject, prompt, target_new, locality)"


def read(paths: Sequence[Path], *, name: str = "knowedit", role: Role = Role.TEST) -> Benchmark:
    """The cases of all files, in order.

    Raises:
        ConfigError: A file cannot be read or has another form.
    """
    rows = [row for path in paths for row in read_rows(path)]
    cases = converted(rows, _case, form=_FORM)
    return Benchmark(name=name, role=role, cases=tuple(cases), clozes=True)


def load() -> Benchmark:
    """The shared rows; marked train, so evidence of quality only where a model was not trained on them."""
    folder = data_folder()
    return read([folder / file for file in FILES], role=Role.TRAIN)


def _case(position: int, row: Row) -> Case:
    locality = row.get("locality") or {}
    rephrase = row.get("rephrase_prompt") or row.get("rephrase") or ()
    subject = row["subject"]
    made: tuple[Probe, ...] = (
        *probes("rephrase", [rephrase] if isinstance(rephrase, str) else rephrase, in_scope=True),
        *_probes(locality, "Relation_Specificity", "same_subject", in_scope=False),
        *_probes(locality, "Forgetfulness", "forgetfulness", in_scope=False),
    )
    portability = row.get("portability") or {}
    return fact(
        f"knowedit-{position}",
        prompt=row["prompt"],
        target_new=_first(row["target_new"]),
        subject=subject,
        relation=_template(row["prompt"], subject),
        probes=[msgspec.structs.replace(probe, relation=_template(probe.text, subject)) for probe in made],
        entailed=[
            probe
            for kind, own_kind in _PORTABILITY.items()
            for probe in _probes(portability, kind, own_kind, in_scope=True)
        ],
    )


def _probes(
    rows_by_kind: Mapping[str, Sequence[Row]], kind: str, own_kind: str, *, in_scope: bool
) -> tuple[Probe, ...]:
    return tuple(
        probe
        for row in rows_by_kind.get(kind) or ()
        for probe in probes(
            own_kind, [row["prompt"]], in_scope=in_scope, answers=list(_flat(row["ground_truth"]))
        )
    )


def _flat(truth: object) -> Iterator[str]:
    """The published answers: one text, or lists of aliases within a list."""
    if isinstance(truth, str):
        yield truth
    elif isinstance(truth, list):
        for part in truth:
            yield from _flat(part)


def _template(prompt: str, subject: str) -> str:
    """KnowEdit's prompts are made from one template a relation, so that names the relation."""
    return prompt.replace(subject, "{}")


def _first(target: str | Sequence[str]) -> str:
    return target if isinstance(target, str) else target[0]
