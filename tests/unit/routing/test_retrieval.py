"""What of a query is embedded, and how what is found that way is put together."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from serac_gateway.domain.audiences import Labels
from serac_gateway.domain.edits import EditDraft, EditState, first_version
from serac_gateway.domain.queries import Query
from serac_gateway.domain.vectors import Vectors
from serac_gateway.edit_index.source import EditSource
from serac_gateway.models.classifiers.base import Candidate
from serac_gateway.routing.retrieval import MAX_SENTENCES, merged, retrieval_texts, retrieve
from serac_gateway.testing import WordEncoder


def candidate(name: str, similarity: float, state: EditState = EditState.LIVE) -> Candidate:
    edit = first_version(EditDraft(id=name, prompt=f"About {name}", target_new="x"), namespace="default")
    edit = msgspec.structs.replace(edit, state=state)
    return Candidate(edit=edit, form=edit.prompt, similarity=similarity)


def test_one_sentence_is_embedded_once() -> None:
    assert retrieval_texts(Query(text="Who runs Acme?")) == ["Who runs Acme?"]


def test_a_query_is_embedded_with_its_earlier_turns_too() -> None:
    query = Query(text="Who runs it?", context=("Where is Acme?", "In Ghent."))
    assert retrieval_texts(query) == ["Who runs it?", "Where is Acme? In Ghent. Who runs it?"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("Shayna goes still and dies. Danielle Darrieux, a native", "Danielle Darrieux, a native"),
        ("Who runs Acme? I have to write to them and my boss waits for it.", "Who runs Acme?"),
        ("It rains.\nWho runs Acme?\nThanks!", "Who runs Acme?"),
    ],
)
def test_the_sentence_that_asks_is_embedded_by_itself(text: str, sentence: str) -> None:
    whole, first, *_ = retrieval_texts(Query(text=text))
    assert (whole, first) == (text, sentence)


def test_of_a_long_message_only_some_sentences_are_embedded() -> None:
    text = " ".join(f"This is sentence number {number}." for number in range(50))
    texts = retrieval_texts(Query(text=text))
    assert texts == [text, *(f"This is sentence number {n}." for n in (49, 0, 48))]
    assert len(texts) == 1 + MAX_SENTENCES


def test_an_edit_found_twice_keeps_its_highest_similarity_and_its_place_by_it() -> None:
    rows = [[candidate("a", 0.5), candidate("b", 0.4)], [candidate("b", 0.9), candidate("c", 0.1)]]
    candidates = merged(rows, floor=0.2, limit=8)
    assert [(hit.edit.id, hit.similarity) for hit in candidates] == [("b", 0.9), ("a", 0.5)]
    assert [candidate.edit.id for candidate in merged(rows, floor=0.2, limit=1)] == ["b"]
    assert merged([], floor=0.2, limit=8) == []


class FixedEdits(EditSource):
    """The same candidates for every text."""

    def __init__(self, row: Sequence[Candidate]) -> None:
        self._row = list(row)

    def has_edits(self, namespace: str) -> bool:
        return True

    def candidates(
        self, namespace: str, queries_BD: Vectors, limit: int, *, floor: float, labels: Labels | None
    ) -> list[list[Candidate]]:
        return [self._row for _ in queries_BD]


@pytest.mark.parametrize(
    ("similarities", "unlikely", "names"),
    [
        ((0.44, 0.43, 0.42, 0.41), 0.5, "ab"),
        ((0.44, 0.43, 0.42, 0.41), 0.44, "abcd"),
        ((0.44, 0.30, 0.29, 0.28), 0.5, "a"),
        ((0.62, 0.61, 0.60, 0.40), 0.5, "abc"),
        ((0.44, 0.43, 0.42, 0.41), -1.0, "abcd"),
    ],
)
def test_few_are_read_where_even_the_nearest_is_unlikely(
    similarities: tuple[float, ...], unlikely: float, names: str
) -> None:
    row = [candidate(name, similarity) for name, similarity in zip("abcd", similarities, strict=True)]
    on_trial = candidate("t", 0.42, EditState.SHADOW)
    retrieved = retrieve(
        "default", [Query(text="Who runs Acme?")], encoder=WordEncoder(), edits=FixedEdits([*row, on_trial]),
        floor=0.1, limit=8, margin=0.1, unlikely=unlikely,
    )  # fmt: skip
    read = [hit.edit.id for hit in retrieved.candidates_B[0]]
    assert sorted(read) == [*names, "t"], "an edit on trial takes no live one's place"


class EditsByText(FixedEdits):
    """Other candidates for every text."""

    def candidates(
        self, namespace: str, queries_BD: Vectors, limit: int, *, floor: float, labels: Labels | None
    ) -> list[list[Candidate]]:
        return [self._row[2 * place : 2 * place + 2] for place in range(len(queries_BD))]


@pytest.mark.parametrize(("likeliest", "names"), [(0.44, "ab"), (0.7, "abcdef")])
def test_few_are_read_of_a_message_of_which_every_sentence_is_unlikely(likeliest: float, names: str) -> None:
    similarities = (likeliest, 0.43, 0.42, 0.41, 0.40, 0.39)
    row = [candidate(name, similarity) for name, similarity in zip("abcdef", similarities, strict=True)]
    retrieved = retrieve(
        "default", [Query(text="It rains all day. Shayna goes home.")], encoder=WordEncoder(),
        edits=EditsByText(row), floor=0.1, limit=8, unlikely=0.5,
    )  # fmt: skip
    assert "".join(hit.edit.id for hit in retrieved.candidates_B[0]) == names
