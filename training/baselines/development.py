"""What settings of editing methods are chosen on and their networks trained: no case that is reported."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from training.benchmarks import counterfact, zsre
from training.benchmarks.base import Case, Role
from training.data.files import data_folder

Prompts = Callable[[int], Sequence[str]]
"""Gives so many prompts that no edit is about, always the same ones."""

DEVELOPMENT_CASES = 500


def development_cases(count: int) -> list[Case]:
    """So many of the 500 cases of CounterFact's training rows that settings are chosen on, in a random order.

    Raises:
        ConfigError: The public data is missing; SERAC_DATA names its folder.
    """
    return _counterfact_cases()[:DEVELOPMENT_CASES][:count]


def hyper_network_cases(*, zsre_rows: int, counterfact_rows: int, seed: int) -> list[Case]:
    """Training cases of zsRE and the other ones of CounterFact, mixed, about no subject that a test case has.

    Raises:
        ConfigError: The public data is missing; SERAC_DATA names its folder.
    """
    tested = {case.edit.subject for case in zsre.read(data_folder() / zsre.TEST_FILE).cases}
    questions = zsre.read(data_folder() / zsre.TRAIN_FILE, role=Role.TRAIN).cases
    cases = [case for case in questions if case.edit.subject not in tested][:zsre_rows]
    cases += _counterfact_cases()[DEVELOPMENT_CASES:][:counterfact_rows]
    random.Random(seed).shuffle(cases)
    return cases


def development_prompts(count: int) -> list[str]:
    """Neighbours' prompts of the last training cases of CounterFact, which no development case is.

    Raises:
        ConfigError: The public data is missing; SERAC_DATA names its folder.
    """
    neighbours = [
        probe.text
        for case in reversed(_counterfact_cases()[DEVELOPMENT_CASES:])
        for probe in case.probes
        if probe.kind == "neighbour"
    ]
    return list(dict.fromkeys(neighbours))[:count]


def _counterfact_cases() -> list[Case]:
    tested = {case.edit.subject for case in counterfact.read(data_folder() / counterfact.TEST_FILE).cases}
    train = counterfact.read(data_folder() / counterfact.TRAIN_FILE, role=Role.TRAIN).cases
    cases = [case for case in train if case.edit.subject not in tested]
    random.Random(0).shuffle(cases)
    return cases
