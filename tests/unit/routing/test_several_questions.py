"""Messages that ask several things: every edit in scope answers its part, and nothing is dropped unseen."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from serac_gateway.config.model import CompositePolicy, RoutingConfig
from serac_gateway.domain.edits import Edit, EditKind
from serac_gateway.domain.queries import Query
from serac_gateway.domain.vectors import Vectors
from serac_gateway.models.classifiers.base import Candidate, Classification, ScopeClassifier
from serac_gateway.routing.router import EditRouter, Route, RouteDecision
from serac_gateway.routing.several_questions import cut_near
from serac_gateway.testing import WordEncoder
from tests.unit.routing.test_router import edit, router

MAYOR, TICKET = "mayor of Marrowby", "day ticket Quillon Museum"


class SubjectClassifier(ScopeClassifier):
    """In scope is what has every word of the edit's prompt; under a system prompt, nothing."""

    scope_threshold = 0.5
    similarity_floor = -1.0
    fingerprint = "by subject"

    def __init__(self, *, whole: bool = True) -> None:
        """Without `whole`, longer texts are out of scope."""
        self._whole = whole
        self.pairs = 0

    def classify(self, query: Query, candidates: Sequence[Candidate]) -> list[Classification]:
        self.pairs += len(candidates)
        text = query.text.casefold()
        is_read = not query.instructions and (self._whole or len(text) < 45)
        return [
            Classification(
                scope_probability=0.9
                if is_read and all(word.casefold() in text for word in candidate.edit.prompt.split())
                else 0.1
            )
            for candidate in candidates
        ]


async def decided(
    text: str, *edits: Edit, whole: bool = True, instructions: str = "", **config: object
) -> RouteDecision:
    made = await made_router(*edits, whole=whole, **config)
    (decision,) = made.decide("default", [Query(text=text, instructions=instructions)])
    return decision


async def made_router(*edits: Edit, whole: bool = True, **config: object) -> EditRouter:
    classifier = SubjectClassifier(whole=whole)
    policy = {"composite": CompositePolicy.IN_CONTEXT_FOR_SEVERAL, **config}
    return await router(*edits, classifier=classifier, config=RoutingConfig(**policy))


def answered(decision: RouteDecision) -> list[tuple[str, str]]:
    return [(part.edit.prompt, part.query.text) for part in decision.parts]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("message", "first", "second"),
    [
        (f"Who is {MAYOR}? What is a {TICKET}?", f"Who is {MAYOR}?", f"What is a {TICKET}?"),
        (f"1. {MAYOR}\n2. {TICKET}", MAYOR, TICKET),
        (f"¿Quién es {MAYOR}? ¿Cuánto {TICKET}?", f"¿Quién es {MAYOR}?", f"¿Cuánto {TICKET}?"),
        (f"{MAYOR}は誰ですか？{TICKET}はいくら？", f"{MAYOR}は誰ですか？", f"{TICKET}はいくら？"),
        (f"من هو {MAYOR}؟ كم {TICKET}؟", f"من هو {MAYOR}؟", f"كم {TICKET}؟"),
        (f"Ποιος είναι {MAYOR}; Πόσο {TICKET};", f"Ποιος είναι {MAYOR};", f"Πόσο {TICKET};"),
    ],
)
async def test_every_edit_answers_its_part_in_the_order_of_the_message(
    message: str, first: str, second: str, whole: bool
) -> None:
    decision = await decided(message, edit(TICKET, "18 euros"), edit(MAYOR, "Ada"), whole=whole)
    assert (decision.route, decision.reason) == (Route.COUNTERFACTUAL, "asks several things")
    assert answered(decision) == [(MAYOR, first), (TICKET, second)]
    assert [governing.prompt for governing in decision.governing_edits] == [MAYOR, TICKET]
    assert decision.parts[1].query.context == (first,)


async def test_two_questions_in_one_sentence_are_cut_where_the_models_see_it() -> None:
    """No sign separates them, and no list of words does."""
    message = f"Wer ist {MAYOR} und was kostet eigentlich heute ein {TICKET}"
    decision = await decided(message, edit(TICKET, "18 euros"), edit(MAYOR, "Ada"))
    assert [prompt for prompt, _ in answered(decision)] == [MAYOR, TICKET]


@pytest.mark.parametrize(
    ("policy", "route"),
    [
        (CompositePolicy.IN_CONTEXT_FOR_SEVERAL, Route.IN_CONTEXT),
        (CompositePolicy.IN_CONTEXT, Route.IN_CONTEXT),
        (CompositePolicy.COUNTERFACTUAL_ONLY, Route.COUNTERFACTUAL),
        (CompositePolicy.PASS_THROUGH, Route.BASE),
    ],
)
@pytest.mark.parametrize(
    "other",
    [
        "How do you bake sourdough bread?",
        "Wie backt man Sauerteigbrot zu Hause?",
        "Evde ekşi mayalı ekmek nasıl pişirilir?",
    ],
)
async def test_what_no_edit_answers_goes_by_policy(other: str, policy: CompositePolicy, route: Route) -> None:
    mayor = edit(MAYOR, "Ada")
    decision = await decided(f"Who is {MAYOR}? {other}", mayor, composite=policy)
    assert decision.route is route
    reason = "answers in part" if route is Route.COUNTERFACTUAL else "asks several things"
    assert (decision.edit, decision.reason) == (mayor, reason)
    assert decision.context_edits == ((mayor,) if route is Route.IN_CONTEXT else ())


async def test_all_edits_that_answer_a_part_are_stated_where_another_part_has_none() -> None:
    message = f"Who is {MAYOR}? What is a {TICKET}? How do you bake sourdough bread?"
    decision = await decided(message, edit(TICKET, "18 euros"), edit(MAYOR, "Ada"))
    assert decision.route is Route.IN_CONTEXT
    assert [stated.prompt for stated in decision.context_edits] == [MAYOR, TICKET]


@pytest.mark.parametrize(
    "message",
    [
        f"I am new here. Who is {MAYOR}?",
        f"Who is {MAYOR}? Thank you.",
        f"Who is {MAYOR}? Is it the {MAYOR} of 2019?",
        MAYOR,
    ],
)
async def test_one_question_stays_one(message: str) -> None:
    decision = await decided(message, edit(MAYOR, "Ada"))
    assert (decision.route, decision.reason) == (Route.COUNTERFACTUAL, "in scope")
    assert decision.parts == ()


@pytest.mark.parametrize("policy", list(CompositePolicy))
@pytest.mark.parametrize("place", [0, 1])
async def test_a_part_in_scope_of_a_suppression_refuses_the_whole(
    policy: CompositePolicy, place: int
) -> None:
    kept = edit(TICKET, "I cannot share that.", kind=EditKind.SUPPRESSION)
    questions = [f"Who is {MAYOR}?", "How do you bake sourdough bread?"]
    questions.insert(place, f"What is a {TICKET}?")
    decision = await decided(" ".join(questions), kept, edit(MAYOR, "Ada"), composite=policy)
    assert decision.refusal == kept
    assert decision.parts == ()


async def test_a_task_for_the_whole_keeps_its_parts_out_of_scope() -> None:
    decision = await decided(
        f"Who is {MAYOR}? What is a {TICKET}?",
        edit(MAYOR, "Ada"),
        edit(TICKET, "18 euros"),
        instructions="Translate into French.",
    )
    assert decision.route is Route.BASE


@pytest.mark.parametrize(
    ("message", "route"),
    [
        (f"Who is {MAYOR}? How do you bake sourdough bread?", Route.IN_CONTEXT),
        (f"Does this need a web search at all? “Who is {MAYOR}?”", Route.BASE),
        (f"Braucht das eine Suche im Netz? „Who is {MAYOR}?“", Route.BASE),
        (f"次の質問に答えるにはインターネットの検索が必要ですか？「Who is {MAYOR}？」", Route.BASE),
        (f"> Who is {MAYOR}?\nHow do you bake sourdough bread?", Route.BASE),
    ],
)
async def test_a_quoted_question_of_a_message_out_of_scope_is_its_material(
    message: str, route: Route
) -> None:
    decision = await decided(message, edit(MAYOR, "Ada"), whole=False)
    assert decision.route is route


async def test_unrelated_questions_are_not_read_by_parts() -> None:
    """Most traffic: no part of it is classified once the whole lies far from every edit."""

    class Distant(SubjectClassifier):
        unlikely_similarity = 0.9

    classifier = Distant()
    made = await router(edit(MAYOR, "Ada"), classifier=classifier, encoder=WordEncoder())
    made.decide("default", [Query(text="How do you bake? What is yeast? Why is it sour?")])
    assert classifier.pairs == 1


async def test_an_edit_that_only_the_whole_is_in_scope_of_answers_the_part_that_is_nearest() -> None:
    class Hesitant(SubjectClassifier):
        """Takes a part about the ticket for out of scope, and the whole for in scope."""

        def classify(self, query: Query, candidates: Sequence[Candidate]) -> list[Classification]:
            read = super().classify(query, candidates)
            alone = "ticket" in query.text and "mayor" not in query.text
            return [Classification(scope_probability=0.1) for _ in candidates] if alone else read

    made = await router(edit(MAYOR, "Ada"), edit(TICKET, "18 euros"), classifier=Hesitant())
    (decision,) = made.decide("default", [Query(text=f"Who is {MAYOR}? What is a {TICKET}?")])
    assert [prompt for prompt, _ in answered(decision)] == [MAYOR, TICKET]


async def test_a_suppression_that_the_whole_is_in_scope_of_refuses_whatever_its_parts_are() -> None:
    class Whole(SubjectClassifier):
        """Takes parts about the ticket for out of scope."""

        def classify(self, query: Query, candidates: Sequence[Candidate]) -> list[Classification]:
            alone = "ticket" in query.text and "mayor" not in query.text
            read = super().classify(query, candidates)
            return [Classification(scope_probability=0.1) for _ in candidates] if alone else read

    kept = edit(TICKET, "I cannot share that.", kind=EditKind.SUPPRESSION)
    made = await router(edit(MAYOR, "Ada"), kept, classifier=Whole())
    (decision,) = made.decide("default", [Query(text=f"Who is {MAYOR}? What is a {TICKET}?")])
    assert decision.refusal == kept


class CountingEncoder(WordEncoder):
    """Counts the texts that it is given."""

    texts = 0

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.texts += len(texts)
        return super().encode(texts)


@pytest.mark.parametrize(("known", "is_embedded"), [(-1.0, True), (0.5, True), (0.9, False)])
def test_a_text_that_is_known_to_be_near_is_not_embedded_again(known: float, is_embedded: bool) -> None:
    encoder = CountingEncoder()
    text = f"who is the {MAYOR} please, and what is the price of a {TICKET} there"
    cut_near(text, MAYOR, encoder, share=0.85, known=known)
    assert (encoder.texts > 0) is is_embedded
