"""What is reported was not trained on: no text of the validation sets stands among those of training."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

import pytest

from training.benchmarks import unrelated
from training.benchmarks.decision_cases import (
    SECOND_WRITTEN_SETS,
    SUPPRESSION_CALIBRATION_SETS,
    SUPPRESSION_SETS,
    WRITTEN_SETS,
    field_cases,
)
from training.data.contrasts import SETS, load_contrast_sets
from training.data.files import data_folder
from training.data.public_sets import unrelated_texts
from training.data.requests import load_request_forms
from training.scope.mined import written_prompts

NEAR = 0.8
"""Texts that share this much of their character trigrams differ by a word or two."""
VALIDATED = [WRITTEN_SETS, SECOND_WRITTEN_SETS, SUPPRESSION_SETS, SUPPRESSION_CALIBRATION_SETS]


def plain(text: str) -> str:
    """Without slots, letter case, punctuation and white space: what is left is the wording."""
    return re.sub(r"\W+", " ", re.sub(r"\[[A-Z]\]", " ", text).casefold()).strip()


def trigrams(text: str) -> frozenset[str]:
    return frozenset(text[i : i + 3] for i in range(len(text) - 2))


def overlaps(reported: Iterable[str], trained: Iterable[str], *, shortest: int = 16) -> list[tuple[str, str]]:
    """Pairs of a reported and a trained text of at least `shortest` characters that are nearly equal.

    Compared are texts that share one of their three rarest words.
    """
    known = {text: trigrams(text) for text in map(plain, trained) if len(text) >= shortest}
    frequency = Counter(word for text in known for word in set(text.split()))
    by_word: dict[str, list[str]] = defaultdict(list)
    for text in known:
        for word in rarest(text, frequency):
            by_word[word].append(text)
    pairs = []
    for text in sorted({plain(text) for text in reported}):
        grams = trigrams(text)
        near = {other for word in rarest(text, frequency) for other in by_word.get(word, ())}
        alike = [o for o in near if len(grams & known[o]) >= NEAR * len(grams | known[o])]
        if len(text) >= shortest and alike:
            pairs.append((text, alike[0]))
    return pairs


def rarest(text: str, frequency: Counter[str]) -> list[str]:
    return sorted(set(text.split()), key=lambda word: (frequency[word], word))[:3]


def texts_of(folder: Path) -> list[str]:
    return [line.text for contrast in load_contrast_sets(folder) for line in contrast.lines]


def test_the_check_finds_what_differs_by_a_word() -> None:
    trained = ["Who runs the town hall of [X] these days, please?", "a completely different sentence"]
    assert overlaps(["Who runs the town hall of [X] these days?"], trained)
    assert not overlaps(["Which river flows through [X] and where does it end?"], trained)


@pytest.mark.parametrize("folder", VALIDATED, ids=lambda folder: folder.name)
def test_no_written_validation_query_is_a_training_query(folder: Path) -> None:
    """Writers hit on the same short question at times: such lines were taken out of the validation sets."""
    reported, trained = texts_of(folder), texts_of(SETS)
    same = overlaps(reported, [*trained, *(form.text for form in load_request_forms())])
    assert not same


@pytest.mark.parametrize("validated", VALIDATED, ids=lambda folder: folder.name)
def test_no_validation_set_has_the_edit_of_a_training_set(validated: Path) -> None:
    def edits(folder: Path) -> set[tuple[str, str]]:
        return {
            (plain(prompt), subject.casefold())
            for contrast in load_contrast_sets(folder)
            for prompt in contrast.prompts
            for subject in contrast.subjects
        }

    assert not edits(validated) & edits(SETS)


def test_the_threshold_of_suppressions_is_not_chosen_on_what_is_reported() -> None:
    """Neither by the writers' chance, nor by a set that was copied from one folder to the other."""
    chosen_on, reported = texts_of(SUPPRESSION_CALIBRATION_SETS), texts_of(SUPPRESSION_SETS)
    assert not overlaps(reported, [*chosen_on, *texts_of(WRITTEN_SETS), *texts_of(SECOND_WRITTEN_SETS)])


def test_no_field_case_is_a_training_query() -> None:
    try:
        data_folder()
    except Exception:
        pytest.skip("the field cases lie in the shared data, which is not here")
    reported = [str(case.messages[-1]["content"]) for case in field_cases() if case.messages]
    filled = [
        line.text.replace("[X]", subject)
        for contrast in load_contrast_sets()
        for line in contrast.lines
        for subject in contrast.subjects[:1]
    ]
    same = overlaps([text for text in reported if len(text) < 2_000], filled)
    assert len(same) <= 0.01 * len(reported), same  # "can I bring my dog" and the like


def test_no_unrelated_prompt_of_the_benchmark_is_trained_on() -> None:
    try:
        data = data_folder()
    except Exception:
        pytest.skip("the unrelated traffic lies in the shared data, which is not here")
    reported = {probe.text for probe in unrelated.load().traffic if len(probe.text) < 2_000}
    written = [*written_prompts(), *written_prompts(held_out=True)]
    assert not overlaps(reported, written)
    trained, validated = (set(unrelated_texts(data, held_out=part)) for part in (False, True))
    assert not trained & validated
