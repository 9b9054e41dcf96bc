"""An edit that no paraphrase of its own makes fire is recognised, at bounded cost."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from serac_gateway.config.model import RoutingConfig
from serac_gateway.control_plane.firing import MAX_TRIED, FiringCheck, probes
from serac_gateway.control_plane.model_threads import ModelThreads
from serac_gateway.domain.edits import Edit, EditDraft, EditKind, first_version, retired
from serac_gateway.domain.queries import Query
from serac_gateway.errors import ModelUnavailableError
from serac_gateway.models.classifiers.base import Candidate, Classification
from serac_gateway.testing import ThresholdClassifier, WordEncoder

NAMED = ("Who is the mayor of Marrowby?", "Ada")
PROMPTS = [
    NAMED,
    ("Elsevier is headquartered in Seattle.", "Seattle"),
    ("Opening Hours", "9 to 5"),
    ("マロウビーの市長は誰ですか？", "Ada"),
    ("Wie lange ist die Frist? مرحبا 🦆", "30"),
    ("🦆", "🦆"),
    ("Acme", "Acme"),
    ("?", "x"),
]


class CountingClassifier(ThresholdClassifier):
    """Remembers what it was asked; in scope are the texts of `in_scope`."""

    def __init__(self, *in_scope: str) -> None:
        super().__init__(0.8)
        self.in_scope = in_scope
        self.queries: list[str] = []

    def classify(self, query: Query, candidates: Sequence[Candidate]) -> list[Classification]:
        if self.failure is not None:
            raise self.failure
        self.queries.append(query.text)
        return [Classification(scope_probability=0.9 if query.text in self.in_scope else 0.1)] * len(
            candidates
        )


def edit(prompt: str, target: str, **fields: object) -> Edit:
    return first_version(EditDraft(prompt=prompt, target_new=target, **fields), namespace="default")


@pytest.fixture
async def threads() -> AsyncIterator[ModelThreads]:
    with ThreadPoolExecutor(2) as pool:
        yield ModelThreads(pool)


def check(classifier: ThresholdClassifier, threads: ModelThreads, **routing: object) -> FiringCheck:
    return FiringCheck(
        encoder=WordEncoder(), classifier=classifier, config=RoutingConfig(**routing), threads=threads
    )


async def test_an_edit_that_fires_on_the_first_paraphrase_costs_one_classification(
    threads: ModelThreads,
) -> None:
    classifier = CountingClassifier(probes(edit(*NAMED))[0])
    assert await check(classifier, threads).doubt(edit(*NAMED)) is None
    assert len(classifier.queries) == 1


async def test_one_that_fires_on_none_is_doubted_with_the_likeliest(threads: ModelThreads) -> None:
    classifier = CountingClassifier()
    doubt = await check(classifier, threads).doubt(edit(*NAMED))
    assert doubt is not None
    assert doubt.tried == len(classifier.queries) == MAX_TRIED
    assert doubt.likeliest == classifier.queries[0]
    assert (doubt.scope_probability, doubt.scope_threshold) == (0.1, 0.8)


async def test_the_threshold_is_the_configured_one(threads: ModelThreads) -> None:
    assert await check(CountingClassifier(), threads, scope_threshold=0.05).doubt(edit(*NAMED)) is None


async def test_instructions_and_retired_edits_are_not_tried(threads: ModelThreads) -> None:
    classifier = CountingClassifier()
    firing = check(classifier, threads)
    assert await firing.doubt(edit("complaints", "Be kind.", kind=EditKind.INSTRUCTION)) is None
    assert await firing.doubt(retired(edit(*NAMED))) is None
    assert classifier.queries == []


async def test_a_model_that_fails_is_no_error(threads: ModelThreads) -> None:
    classifier = CountingClassifier()
    classifier.failure = ModelUnavailableError("out of memory")
    assert await check(classifier, threads).doubt(edit(*NAMED)) is None


@pytest.mark.parametrize(("prompt", "target"), PROMPTS)
async def test_any_edit_is_tried_on_a_bounded_number_of_texts_that_are_not_its_own(
    threads: ModelThreads, prompt: str, target: str
) -> None:
    classifier = CountingClassifier()
    await check(classifier, threads).doubt(edit(prompt, target))
    assert len(classifier.queries) <= MAX_TRIED
    letters = ["".join(filter(str.isalnum, text.casefold())) for text in (prompt, *classifier.queries)]
    assert letters[0] not in letters[1:]


def test_different_forms_come_first() -> None:
    assert probes(edit("Elsevier is headquartered in Seattle.", "Seattle"))[:4] == [
        "Where is Elsevier headquartered?",
        "Tell me where Elsevier is headquartered.",
        "Elsevier headquartered",
        "Elsevier is headquartered in",
    ]


def test_a_question_that_has_the_answer_in_it_shows_nothing_of_a_statement() -> None:
    texts = probes(edit("Elsevier is headquartered in Seattle.", "Seattle"))
    assert not any("seattle" in text.lower() for text in texts)


def test_what_an_editor_gave_as_paraphrase_shows_nothing() -> None:
    given = edit("Opening Hours", "9 to 5", paraphrases=("what are the opening hours",))
    assert "What are the opening hours?" not in probes(given)
