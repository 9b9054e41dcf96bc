"""Words about the form of an answer do not put a question out of scope."""

from __future__ import annotations

import pytest

from serac_gateway.domain.edits import EditKind
from serac_gateway.domain.queries import Query
from serac_gateway.domain.wanted_forms import FormKind, WantedForm
from serac_gateway.models.forms.reader import FormReader
from serac_gateway.routing.router import EditRouter, Route
from tests.unit.routing.test_router import edit, router
from tests.unit.routing.test_several_questions import MAYOR, SubjectClassifier

MESSAGE = f"Who is the {MAYOR}? Write every single letter of it in capitals, please!"
"""Too long for a classifier that reads short texts only."""


class OneForm(FormReader):
    """Reads the same form in every request, and of its text the first sentence as the question."""

    def __init__(self, *kinds: FormKind) -> None:
        self.kinds = kinds
        self.texts: list[str] = []

    def read(self, query: Query, edit: object) -> WantedForm:
        self.texts.append(query.text)
        question, _, rest = query.text.partition("?")
        return WantedForm(kinds=self.kinds, question=f"{question}?" if self.kinds and rest else None)


async def made(reader: FormReader | None, *, kind: EditKind = EditKind.FACT) -> EditRouter:
    return await router(edit(MAYOR, kind=kind), classifier=SubjectClassifier(whole=False), reader=reader)


async def test_the_question_is_decided_without_the_words_about_the_form() -> None:
    """The decision is that on the question, and in scope."""
    (decision,) = (await made(OneForm(FormKind.UPPER))).decide("default", [Query(text=MESSAGE)])
    assert decision.route is Route.COUNTERFACTUAL
    assert decision.edit is not None
    assert decision.edit.prompt == MAYOR


@pytest.mark.parametrize(
    "reader", [None, OneForm(), OneForm(FormKind.OTHER), OneForm(FormKind.UPPER, FormKind.OTHER)]
)
async def test_other_words_stay_a_part_of_the_question(reader: FormReader | None) -> None:
    """Without a reader, without a form, and of what no answer here can be: a poem, a table."""
    (decision,) = (await made(reader)).decide("default", [Query(text=MESSAGE)])
    assert decision.route is Route.BASE


async def test_a_question_out_of_scope_stays_there() -> None:
    """The form alone brings nothing into scope."""
    message = MESSAGE.replace("mayor", "butcher")
    (decision,) = (await made(OneForm(FormKind.UPPER))).decide("default", [Query(text=message)])
    assert decision.route is Route.BASE


async def test_a_question_in_scope_is_read_no_second_time() -> None:
    """Only what is out of scope costs a reading."""
    reader = OneForm(FormKind.UPPER)
    (decision,) = (await made(reader)).decide("default", [Query(text=f"Who is the {MAYOR}?")])
    assert decision.in_scope
    assert reader.texts == []


async def test_only_facts_are_answered_that_way() -> None:
    """A suppression reads every passage anyway, and an instruction is stated with the whole."""
    (decision,) = (await made(OneForm(FormKind.UPPER), kind=EditKind.INSTRUCTION)).decide(
        "default", [Query(text=MESSAGE)]
    )
    assert decision.route is Route.BASE


async def test_a_question_that_loses_words_is_decided_as_it_stands() -> None:
    """Without "in 1987" it would ask something else; behind an order it is what the order is about."""
    message = f"Who is, in one word, the {MAYOR} that everybody in the valley talks about?"
    reader = OneForm(FormKind.BARE)
    reader.read = lambda query, edit: WantedForm(kinds=(FormKind.BARE,), question=f"Who is the {MAYOR}?")  # type: ignore[method-assign]
    helper_prompt = f"Extract the names as JSON, and nothing else. Who is the {MAYOR}?"
    for text in (message, f"{message} Thanks.", helper_prompt):
        (decision,) = (await made(reader)).decide("default", [Query(text=text)])
        assert decision.route is Route.BASE
