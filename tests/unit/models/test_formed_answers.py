"""An answer is made from the question alone and given in the form, or left to the base model."""

from __future__ import annotations

import json

import pytest

from serac_gateway.domain.edits import EditDraft, first_version
from serac_gateway.domain.queries import Query
from serac_gateway.domain.wanted_forms import PLAIN, FormKind, WantedForm
from serac_gateway.errors import AnswerDeclinedError
from serac_gateway.models.counterfactual.fine_tuned import FineTunedCounterfactualModel
from serac_gateway.models.forms.answers import formed_answer
from serac_gateway.models.language_models.base import Piece, Sampling
from serac_gateway.testing import ScriptedCounterfactualModel, ScriptedLanguageModel

QUESTION = "Who leads Initech?"
EDIT = first_version(EditDraft(prompt=QUESTION, target_new="Bill Lumbergh"), namespace="default")


def form(*kinds: str, **fields: object) -> WantedForm:
    return WantedForm(kinds=tuple(map(FormKind, kinds)), language="en", **fields)


def answered(said: str, wanted: WantedForm, text: str = QUESTION, **limits: object) -> list[Piece]:
    """By the trained model over a language model that says `said`."""
    model = FineTunedCounterfactualModel(ScriptedLanguageModel(said))
    sampling = Sampling(**{"max_tokens": 64} | limits)
    return list(formed_answer(model, EDIT, Query(text=text), sampling, wanted))


def text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def test_a_plain_answer_is_the_models_own_piece_by_piece() -> None:
    """Nothing is held where no form is asked for."""
    pieces = answered(" Bill Lumbergh leads Initech.", PLAIN)
    assert text_of(pieces) == "Bill Lumbergh leads Initech."
    assert len(pieces) > 2


def test_the_model_sees_the_question_and_the_client_the_form() -> None:
    """The limit of tokens is on the form."""
    model = ScriptedCounterfactualModel(lambda edit, query: edit.target_new)
    wanted = form("json", key="boss", question="Who leads Initech?")
    query = Query(text="Who leads Initech? As JSON, key boss.")
    answer = text_of(list(formed_answer(model, EDIT, query, Sampling(max_tokens=64), wanted)))
    assert json.loads(answer) == {"boss": "Bill Lumbergh"}
    assert model.calls[0][1].text == "Who leads Initech?"
    (*_, last) = answered(" Bill Lumbergh", form("json", key="boss"), max_tokens=2)
    assert (last.finish_reason, last.tokens) == ("length", 2)


def test_a_form_that_cannot_be_given_is_left_to_the_base_model_or_falls_back() -> None:
    """As the policy says; never is a form made up."""
    with pytest.raises(AnswerDeclinedError) as declined:
        answered(" Bill Lumbergh", form("yesno", falls_back=False))
    assert declined.value.details["reason"] == "form"
    assert text_of(answered(" Bill Lumbergh", form("yesno"))) == "Bill Lumbergh"


def test_a_verdict_stands_alone_where_yes_or_no_is_asked_for() -> None:
    """The edit judges it as it does without a form."""
    text = "Does Bill Lumbergh lead Initech?"
    assert text_of(answered(" Yes, Bill Lumbergh.", form("yesno"), text)) == "Yes"
    assert text_of(answered(" No, Bill Lumbergh.", form("bare"), "Does Peter lead Initech?")) != "Yes"


def test_a_sentence_is_the_models_own_if_it_has_only_given_words() -> None:
    """The lead makes the adapter go on with what the question names."""
    wanted = form("sentence")
    text = "Tell me the leader of Initech"
    own = text_of(answered(" leader of Initech is Bill Lumbergh.", wanted, text))
    assert own == "The leader of Initech is Bill Lumbergh."
    invented = text_of(answered(" boss of Globex is Bill Lumbergh.", wanted, text))
    assert invented == "The answer is Bill Lumbergh."


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (" The CEO of Initech is Bill Lumbergh.", "Bill Lumbergh"),
        (" Bill Lumbergh leitet Initech.", "Bill Lumbergh leitet Initech."),
        (" Bill Lumbergh", "Bill Lumbergh"),
        ("", "Bill Lumbergh"),
    ],
)
def test_an_answer_in_another_language_has_no_english_words(said: str, answer: str) -> None:
    """A small model goes over into the language that it was trained in."""
    german = WantedForm(language="de")
    assert text_of(answered(said, german, "Sag mir, wer Initech leitet")) == answer


@pytest.mark.parametrize(("language", "answer"), [("es", "Sí, Bill Lumbergh."), ("fi", "Bill Lumbergh")])
def test_a_verdict_is_in_the_language_that_was_read(language: str, answer: str) -> None:
    """Names alone do not show it; the target stands alone where no word for yes is known."""
    text = "¿Bill Lumbergh leads Initech?"
    assert text_of(answered(" Yes, Bill Lumbergh.", WantedForm(language=language), text)) == answer
