"""MQuAKE-CF (Zhong et al., EMNLP 2023, arXiv 2305.14795): does what follows from several edits hold?

A case has one to four edits and three phrasings of a question over two to four hops, some of them edited. The
edits are stored as their questions; the cloze is a paraphrase that must fire; the multi-hop questions are
entailed. They count as right with any alias of the new answer, and the paper counts a case as right when one
of its three phrasings is.

The edits of 998 of the 3,000 cases of the first release contradict a hop of another case. With all edits in
one store these cases are contested: no answer could be right for both. Case by case none is.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from serac_gateway.domain.edits import EditDraft
from training.benchmarks.base import Benchmark, Case, Role, fact, probes
from training.benchmarks.loading import converted
from training.data.files import Row, data_folder, read_rows

FILE = "mquake/MQuAKE-CF-3k.jsonl.gz"

_FORM = "MQuAKE (requested_rewrite, questions, new_answer, new_answer_alias, new_single_hops, orig)"


def read(path: Path, *, role: Role = Role.TEST) -> Benchmark:
    """The cases of one file.

    Raises:
        ConfigError: The file cannot be read or has another form.
    """
    cases = converted(read_rows(path), _case, form=_FORM)
    return Benchmark(name="mquake", role=role, cases=tuple(cases), shares_edits=True)


def load() -> Benchmark:
    """The 3,000 cases of the shared data."""
    return read(data_folder() / FILE)


def _case(position: int, row: Row) -> Case:
    first, *others = row["requested_rewrite"]
    case = fact(
        f"mquake-{position}",
        prompt=first["question"],
        target_new=first["target_new"]["str"],
        target_true=first["target_true"]["str"],
        subject=first["subject"],
        relation=first["relation_id"],
        probes=[
            msgspec.structs.replace(probe, relation=first["relation_id"])
            for probe in probes("rephrase", [_cloze(first)], in_scope=True)
        ],
        entailed=probes(
            f"{len(row['new_single_hops'])}_hops",
            row["questions"],
            in_scope=True,
            answers=[row["new_answer"], *row["new_answer_alias"]],
        ),
    )
    return msgspec.structs.replace(
        case,
        companions=tuple(
            _draft(f"mquake-{position}-{number}", rewrite) for number, rewrite in enumerate(others, start=2)
        ),
        edited_facts=_facts(row["orig"]["edit_triples"]),
        premises=_facts(row["orig"]["new_triples"]),
    )


def _draft(edit_id: str, rewrite: Row) -> EditDraft:
    return EditDraft(
        id=edit_id,
        prompt=rewrite["question"],
        target_new=rewrite["target_new"]["str"],
        target_true=rewrite["target_true"]["str"],
        subject=rewrite["subject"],
    )


def _cloze(rewrite: Row) -> str:
    return str(rewrite["prompt"].format(rewrite["subject"]))


def _facts(triples: list[tuple[str, str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((f"{subject} {relation}", new_object) for subject, relation, new_object in triples)
