"""A CounterFact-Hard-like set: the subject's other attributes, and the neighbours, asked as questions.

After CounterFact-Hard (EREN: Chen et al., COLING 2024, arXiv 2403.17431), which showed that SERAC fires on
half of the questions about an edited subject's other attributes. Facts are T-REx's, of relations that no
classifier here is trained on; questions are ours (counterfact_hard.toml).
"""

from __future__ import annotations

import hashlib
import random
import tomllib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import msgspec

from training.benchmarks.base import Benchmark, Case, Probe, Role, fact
from training.data.files import Row, data_folder, read_rows

FACTS_FILE = "pararel/trex_lms_vocab.jsonl.gz"
QUESTIONS_FILE = Path(__file__).with_suffix(".toml")

HELD_OUT_RELATIONS = ("P36", "P140", "P176", "P413", "P449", "P740", "P937", "P1303")
"""Wikidata ids. Training must not see them: no facts, no phrasings, no CounterFact rows of theirs."""

EDITS_PER_RELATION = 150
_PARAPHRASES, _OTHER = 2, 2
"""Probes a case: paraphrased questions, and questions on other attributes."""


class Questions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The templates of one relation."""

    name: str
    stored: tuple[str, ...]
    paraphrases: tuple[str, ...]
    other: tuple[str, ...]


def load(*, seed: int = 0) -> Benchmark:
    """1,200 edits from the facts of the shared data."""
    return built(read_rows(data_folder() / FACTS_FILE), questions(), seed=seed)


def questions(path: Path = QUESTIONS_FILE) -> dict[str, Questions]:
    """The templates, by relation."""
    return msgspec.convert(tomllib.loads(path.read_text("utf-8")), dict[str, Questions])


def built(facts: Sequence[Row], templates: dict[str, Questions], *, seed: int) -> Benchmark:
    """Cases from T-REx rows (relation, sub_label, obj_label): a new object for each subject drawn."""
    rng = random.Random(seed)
    objects: dict[str, dict[str, str]] = defaultdict(dict)
    for row in facts:
        objects[row["relation"]].setdefault(row["sub_label"], row["obj_label"])
    cases: list[Case] = []
    for relation, object_of in sorted(objects.items()):
        if relation not in templates or len(set(object_of.values())) < 2:
            continue
        subjects = rng.sample(sorted(object_of), len(object_of))
        edited, others = subjects[:EDITS_PER_RELATION], subjects[EDITS_PER_RELATION:] or subjects
        cases += (_case(rng, relation, templates[relation], object_of, subject, others) for subject in edited)
    return Benchmark(name="counterfact-hard", role=Role.VALIDATION, cases=tuple(cases))


def _case(
    rng: random.Random,
    relation: str,
    templates: Questions,
    object_of: dict[str, str],
    subject: str,
    others: Sequence[str],
) -> Case:
    true_object = object_of[subject]
    alike = [other for other in others if object_of[other] == true_object and other != subject]
    neighbours = [
        rng.choice(alike or others),  # of the same answer, as CounterFact's are
        rng.choice(others),
    ]

    def probes(kind: str, texts: Sequence[str], about: Sequence[str], asks: str) -> list[Probe]:
        return [
            Probe(kind=kind, text=text.replace("[X]", name), in_scope=kind == "rephrase", relation=asks)
            for text, name in zip(texts, about, strict=True)
        ]

    return fact(
        f"hard-{relation}-{_digest(subject)}",
        prompt=rng.choice(templates.stored).replace("[X]", subject),
        target_new=rng.choice(sorted({*object_of.values()} - {true_object})),
        target_true=true_object,
        subject=subject,
        relation=relation,
        probes=[
            *probes(
                "rephrase",
                rng.sample(templates.paraphrases, _PARAPHRASES),
                [subject] * _PARAPHRASES,
                relation,
            ),
            *probes("same_subject", rng.sample(templates.other, _OTHER), [subject] * _OTHER, "other"),
            *probes("neighbour", rng.sample(templates.paraphrases, len(neighbours)), neighbours, relation),
        ],
    )


def _digest(subject: str) -> str:
    return hashlib.blake2b(subject.encode(), digest_size=8).hexdigest()
