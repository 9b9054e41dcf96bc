"""Claims to be checked, in FEVER's style: an edit is a verdict on one claim.

Claims come from the symmetric FEVER set (Schuster et al., EMNLP 2019), whose claims go in pairs that differ
in a word: an entity, a number, a negation. In scope is the same claim however it is put; its twin is not, for
the stored verdict is about another claim.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from training.benchmarks.base import Benchmark, Case, Role, fact, probes
from training.benchmarks.loading import converted
from training.data.files import Row, data_folder, read_rows

FILE = "fever_vitaminc/symmetric_v0.2_fever_symmetric_dev.jsonl.gz"

CLAIM_FORMS = (
    "Is it true that {claim}?",
    "{claim}. True or false?",
    "Fact check: {claim}",
    "Someone told me that {claim}. Is that right?",
    "Verify this claim for me: {claim}.",
    "Can you confirm that {claim}?",
)
_FORMS_A_CASE = 2

_FORM = "symmetric FEVER (claim, evidence, label)"


def load(*, seed: int = 0) -> Benchmark:
    """The development claims of the shared data, one edit a piece of evidence."""
    return read(data_folder() / FILE, seed=seed)


def read(path: Path, *, seed: int = 0, role: Role = Role.VALIDATION) -> Benchmark:
    """The cases of one file: of claims that share evidence one is stored, the others are negatives.

    Raises:
        ConfigError: The file cannot be read or has another form.
    """
    rng = random.Random(seed)
    groups = _groups(converted(read_rows(path), _claim, form=_FORM))
    return Benchmark(
        name="fever",
        role=role,
        cases=tuple(_case(rng, number, claims) for number, claims in enumerate(groups)),
    )


def _groups(rows: Sequence[tuple[str, str, str]]) -> list[list[tuple[str, str]]]:
    """Claims with their labels, together when they share a piece of evidence, directly or through others."""
    label_of: dict[str, str] = {}
    group_of: dict[str, list[str]] = {}
    claim_with: dict[str, str] = {}
    for evidence, claim, label in rows:
        label_of.setdefault(claim, label)
        group = group_of.setdefault(claim, [claim])
        other = group_of[claim_with.setdefault(evidence, claim)]
        if other is not group:
            other += group
            group_of.update(dict.fromkeys(group, other))
    distinct = {id(group): group for group in group_of.values()}
    return [[(claim, label_of[claim]) for claim in group] for group in distinct.values()]


def _claim(position: int, row: Row) -> tuple[str, str, str]:
    return row["evidence"], _plain(row["claim"]), row["label"]


def _case(rng: random.Random, number: int, claims: Sequence[tuple[str, str]]) -> Case:
    (claim, label), *twins = claims
    bare = claim.rstrip(" .")
    verdict = label != "SUPPORTS"  # an edit reverses what the evidence says
    return fact(
        f"fever-{number}",
        prompt=claim,
        target_new=str(verdict),
        subject=None,
        verdict=verdict,
        probes=(
            *probes(
                "rephrase",
                [form.format(claim=bare) for form in rng.sample(CLAIM_FORMS, _FORMS_A_CASE)],
                in_scope=True,
                verdict=verdict,
            ),
            *probes("twin_claim", [twin for twin, _ in twins], in_scope=False),
        ),
    )


def _plain(claim: str) -> str:
    """Undo the tokenisation of the release ("Cruz 's", "film .")."""
    for spaced, plain in (
        (" .", "."),
        (" ,", ","),
        (" 's", "'s"),
        (" n't", "n't"),
        ("`` ", '"'),
        (" ``", '"'),
    ):
        claim = claim.replace(spaced, plain)
    return claim.replace("-LRB- ", "(").replace(" -RRB-", ")").replace(" ''", '"').strip()
