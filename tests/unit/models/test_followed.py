"""Whether an answer follows an instruction: what it carries, what it makes up, what it denies."""

from __future__ import annotations

import pytest

from serac_gateway.domain.edits import EditDraft, EditKind, first_version
from serac_gateway.domain.queries import Query
from serac_gateway.models.counterfactual.followed import followed

QUESTION = "When does the Orlin ferry leave?"


def said(
    instruction: str, answer: str, question: str = QUESTION, topic: str = "the Orlin ferry"
) -> str | None:
    draft = EditDraft(prompt=topic, target_new=instruction, kind=EditKind.INSTRUCTION)
    return followed(answer, first_version(draft, namespace="default"), Query(text=question))


@pytest.mark.parametrize(
    ("instruction", "answer"),
    [
        ("Always mention that it does not run in winter.", "Please note that it does not run in winter."),
        ("Send people to help@orlin.example.", "Please ask help@orlin.example."),
        ("Refer people to orlin.example/times. Be brief.", "Please ask orlin.example/times."),
        ("Offer the voucher code SEA20.", "Please note that the voucher code SEA20."),
        ("Ask for a call to 0800 555 0147.", "Please ask for a call to 0800 555 0147."),
        ("Stay neutral and give no prediction.", "I give no prediction on the Orlin ferry."),
        ("Do not guess; refer to the harbour office.", "Please ask the harbour office."),
    ],
)
def test_an_answer_that_carries_what_is_to_be_said_follows(instruction: str, answer: str) -> None:
    assert said(instruction, answer) == answer


@pytest.mark.parametrize(
    ("instruction", "answer"),
    [
        ("Be apologetic and offer the voucher code SEA20.", "I'm sorry, I cannot discuss that."),
        ("Answer in one sentence.", "I'm sorry, I cannot discuss that."),
        ("Refer to the harbour office.", "I'm sorry, I cannot discuss the harbour office."),
        ("Verweise auf das Hafenamt.", "Dazu kann ich nichts sagen."),
        ("Answer in rhyme.", ""),
    ],
)
def test_an_invented_refusal_is_no_answer(instruction: str, answer: str) -> None:
    assert said(instruction, answer) is None


@pytest.mark.parametrize(
    ("instruction", "answer"),
    [
        ("Give lengths in feet.", "It is 100 feet."),
        ("Remind people to bring their passport.", "Please note that it is a bank account."),
        ("Point to the page times.example.", "Please ask the page times."),
        ("Point to the hotline 0800 555 0147.", "Please ask the hotline 0800 555 0148."),
        ("Name the code A1 and the harbour office.", "Please ask the harbour office."),
        ("Offer a voucher of 5 euros.", "Please note that the Orlin ferry of 5 euros."),
        ("Say that tickets are sold on board.", "Please note that cheap tickets are sold on board."),
    ],
)
def test_what_the_instruction_does_not_say_is_no_answer(instruction: str, answer: str) -> None:
    assert said(instruction, answer) is None


@pytest.mark.parametrize(
    ("instruction", "answer"),
    [
        ("Do not say that it is closed.", "Please note that it is closed."),
        ("Never, whoever wants to know, say that it is closed.", "Please note that it is closed."),
        ("Call her Captain Solheim, never Doctor.", "It is called Captain Solheim, never Doctor."),
        ("Say that it is open in winter.", "Please note that it is not open in winter."),
        ("Say that it is open in winter.", "Please note that it is open in winter, not."),
        ("Sag nicht, dass sie geschlossen ist.", "Please note that dass sie geschlossen ist."),
        ("Ne dis pas que le bac est fermé.", "Please note that que le bac est fermé."),
        ("No digas que está cerrado hoy.", "Please note that está cerrado hoy."),
    ],
)
def test_the_opposite_is_no_answer(instruction: str, answer: str) -> None:
    assert said(instruction, answer) is None


@pytest.mark.parametrize(
    ("instruction", "answer"),
    [
        ("Erwähne, dass montags Ruhetag ist.", "Erwähne, dass montags Ruhetag ist."),
        ("Answer in one short sentence.", "Please note that answer in one short sentence."),
        ("Answer cheerfully.", "Please note that cheerfully."),
    ],
)
def test_the_order_itself_is_no_answer(instruction: str, answer: str) -> None:
    assert said(instruction, answer) is None


def test_in_another_language_only_what_is_carried_is_said() -> None:
    instruction, question = "Précisez que le bac est gratuit le dimanche.", "Combien coûte le bac ?"
    answer = "Please note that le bac est gratuit le dimanche."
    assert said(instruction, answer, question) == "le bac est gratuit le dimanche"
    english = "Mention that it is free on the first Sunday."
    assert said(english, "Please note that it is free on the first Sunday.", question) is None
