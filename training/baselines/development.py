"""What the settings of editing methods are chosen on: training rows of CounterFact, none that is reported."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from training.benchmarks.base import Case, Role
from training.benchmarks.counterfact import TEST_FILE, TRAIN_FILE, read
from training.data.files import data_folder

Prompts = Callable[[int], Sequence[str]]
"""Gives so many prompts that no edit is about, always the same ones."""


def development_cases(count: int, *, seed: int = 0) -> list[Case]:
    """So many training cases about subjects that the test cases do not have, in a random order.

    Raises:
        ConfigError: The public data is missing; SERAC_DATA names its folder.
    """
    tested = {case.edit.subject for case in read(data_folder() / TEST_FILE).cases}
    train = read(data_folder() / TRAIN_FILE, role=Role.TRAIN).cases
    cases = [case for case in train if case.edit.subject not in tested]
    random.Random(seed).shuffle(cases)
    return cases[:count]


def development_prompts(count: int) -> list[str]:
    """Neighbours' prompts of the training cases from the other end, which no development edit is about.

    Raises:
        ConfigError: The public data is missing; SERAC_DATA names its folder.
    """
    neighbours = [
        probe.text
        for case in reversed(development_cases(-1))
        for probe in case.probes
        if probe.kind == "neighbour"
    ]
    return list(dict.fromkeys(neighbours))[:count]
