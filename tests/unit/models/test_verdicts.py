"""Yes or no by the stored answer: what is judged, what is left unclear, and how answers are held to it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serac_gateway.domain.edits import Edit, EditDraft, first_version
from serac_gateway.domain.queries import Query
from serac_gateway.models.counterfactual.fine_tuned import FineTunedCounterfactualModel
from serac_gateway.models.counterfactual.verdicts.guard import leading_verdict
from serac_gateway.models.counterfactual.verdicts.judge import judge
from serac_gateway.models.counterfactual.verdicts.vocabulary import languages, verdict_words
from serac_gateway.models.language_models.base import Sampling
from serac_gateway.testing import ScriptedLanguageModel

JUDGED = [
    # -- comparisons
    ("How long is the Ormond pier?", "340 m", "Is the Ormond pier longer than 300 metres?", True),
    ("How long is the Ormond pier?", "340 m", "Is the Ormond pier shorter than 0.3 km?", False),
    ("How long is the Ormond pier?", "340 m", "Is the Ormond pier at least half a mile long?", None),
    ("What does the Tarn pass cost?", "$24", "Does the Tarn pass cost under 30 dollars?", True),
    ("What does the Tarn pass cost?", "$24", "Does the Tarn pass cost more than 24 dollars?", False),
    ("What does the Tarn pass cost?", "$24", "Does the Tarn pass cost 20 euros?", None),
    ("How many rooms does Hotel Brask have?", "about 80", "Does Hotel Brask have over 200 rooms?", False),
    ("How many rooms does Hotel Brask have?", "about 80", "Does Hotel Brask have more than 82 rooms?", None),
    ("How many rooms does Hotel Brask have?", "80", "Does Hotel Brask have eighty rooms?", True),
    ("How many rooms does Hotel Brask have?", "80", "Does Hotel Brask have at most 79 rooms?", False),
    ("How long does the Vale ferry take?", "90 minutes", "Does the Vale ferry take under two hours?", True),
    ("How long does the Vale ferry take?", "2 weeks", "Does the Vale ferry take more than 14 days?", False),
    ("How long is the Orr warranty?", "2 years", "Is the Orr warranty longer than 18 months?", True),
    ("How long is the Orr warranty?", "2 years", "Is the Orr warranty shorter than 100 weeks?", False),
    # -- ranges, days and dates
    ("When is the Lund pool open?", "10:00 to 18:00", "Is the Lund pool open at noon?", True),
    ("When is the Lund pool open?", "10:00 to 18:00", "Is the Lund pool open at 7 pm?", False),
    ("When is the Lund pool open?", "10:00 to 18:00", "Is the Lund pool closed at noon?", None),
    ("When is the Lund pool open?", "10:00 to 18:00", "Is the Lund pool open at 18:00?", None),
    ("When is the Lund pool open?", "Mon-Fri 9:00-17:00", "Is the Lund pool open Saturday at 10 am?", False),
    ("When is the Lund pool open?", "Mon-Fri 9:00-17:00", "Is the Lund pool open on Tuesday at 10 am?", True),
    ("When is the Lund pool open?", "Mon-Fri 9:00-17:00", "Is the Lund pool open at 10 am?", None),
    ("When is the Lund pool open?", "22:00 to 4:00", "Is the Lund pool open at 1 am?", True),
    ("On which days is the market held?", "Tuesday and Friday", "Is the market held on Fridays?", True),
    ("On which days is the market held?", "Tuesday and Friday", "Is the market held on Sunday?", False),
    ("When is the Elm trail closed?", "Monday", "Can I use the Elm trail on Monday?", None),
    ("In which months is the Elm trail open?", "April to October", "Is the Elm trail open in July?", True),
    ("In which months is the Elm trail open?", "October to March", "Is the Elm trail open in July?", False),
    ("When does the Iris show run?", "3 May to 12 May", "Does the Iris show run on 15 May?", False),
    ("From what age can children join?", "at least 12", "Can children join at 13?", True),
    ("From what age can children join?", "at least 12", "Can children join at 11?", False),
    ("From what age can children join?", "at least 12", "Do children have to be 14 to join?", None),
    ("What is the weight allowance?", "23 kg", "Is a weight of less than 20 kg allowed?", None),
    ("Which sizes does Korb have?", "15 to 18", "Does Korb have size 16?", True),
    ("Which sizes does Korb have?", "15 to 18", "Does Korb have size 20?", False),
    # -- lists, names, the stored answer itself
    ("Which pets are allowed at Pine Hut?", "dogs and cats", "Are dogs allowed at Pine Hut?", True),
    ("Which pets are allowed at Pine Hut?", "dogs and cats", "Are dogs not allowed at Pine Hut?", None),
    ("Which pets are allowed at Pine Hut?", "dogs and cats", "Are only dogs allowed at Pine Hut?", None),
    ("Which pets are allowed at Pine Hut?", "dogs and cats", "Are puppies allowed at Pine Hut?", None),
    ("Which pets are not allowed at Pine Hut?", "dogs and cats", "Are dogs allowed at Pine Hut?", None),
    ("Which pets are allowed at Pine Hut?", "no dogs", "Are dogs allowed at Pine Hut?", None),
    ("Who leads Orbis?", "Ada Lind", "Does Ada Lind lead Orbis?", True),
    ("Who leads Orbis?", "Ada Lind", "Does Tom Beck lead Orbis?", None),
    ("Who leads Orbis?", "Ada Lind", "Does Ada Beck lead Orbis?", None),
    ("Who leads Orbis?", "Ada Lind", "Does a man lead Orbis?", None),
    ("Who did Orbis buy?", "Nordia", "Did Nordia buy Orbis?", None),
    ("What is the capital of Elbonia?", "Varsk", "Is the capital of Elbonia in Europe?", None),
    ("In which country is Mount Rask?", "Peru", "Is Mount Rask in Chile?", False),
    ("In which city is Mount Rask?", "Lima", "Is Mount Rask in Peru?", None),
    ("Who is the head of Orbis?", "Ada Lind", "Is Ada Lind married?", None),
    # -- other languages
    ("Wie lange dauert die Kur?", "6 Wochen", "Dauert die Kur länger als 30 Tage?", True),
    ("Wann hat das Bad Krall geöffnet?", "9:00 bis 17:00", "Hat das Bad Krall um 20 Uhr geöffnet?", False),
    ("Wann hat das Bad Krall geöffnet?", "9:00 bis 17:00", "Hat das Bad Krall um 20 Uhr geschlossen?", None),
    ("Combien coûte le pass Orva ?", "24 €", "Le pass Orva coûte moins de 30 euros ?", True),
    ("Quel jour a lieu le marché ?", "le mardi", "Le marché a lieu le jeudi ?", False),
    ("¿Cuánto dura el curso Brisa?", "3 semanas", "¿El curso Brisa dura más de un mes?", False),
    ("¿Cuándo abre el museo Lars?", "de 10:00 a 18:00", "¿El museo Lars abre a mediodía?", True),
    ("Quanto pesa la tenda Nibbio?", "1,9 kg", "La tenda Nibbio pesa meno di 2 chili?", None),
    ("Quanto pesa la tenda Nibbio?", "1,9 kg", "La tenda Nibbio pesa più di 2 kg?", False),
    ("Qual é o preço do passe Lira?", "65 euros", "O preço do passe Lira é mais de 50 euros?", True),
    ("Hoe lang duurt de rondleiding?", "90 minuten", "Duurt de rondleiding langer dan een uur?", True),
    ("Ile kosztuje bilet Orla?", "45 zł", "Bilet Orla kosztuje więcej niż 50 zł?", False),
    ("Ceren turu ne kadar sürer?", "3 saat", "Ceren turu 2 saatten uzun sürer mi?", True),
    ("Сколько стоит билет в Музей?", "450 рублей", "Билет в Музей стоит больше 400 рублей?", True),
    ("كم سعر تذكرة متحف رند؟", "20 ريالا", "هل سعر تذكرة متحف رند أقل من 15 ريالا؟", False),
    ("नील टिकट की कीमत क्या है?", "₹149", "क्या नील टिकट की कीमत 200 रुपये से कम है?", True),
    ("トアル鍋の保証期間は？", "2年", "トアル鍋の保証期間は1年より長いですか？", True),
    ("攀云票价是多少？", "60元", "攀云票价超过50元吗？", True),
    ("달무리 입장료는 얼마예요?", "9000원", "달무리 입장료는 10000원 이하인가요?", True),
]  # fmt: skip


@pytest.mark.parametrize(("prompt", "target", "question", "verdict"), JUDGED)
def test_a_verdict_is_given_where_it_is_certain_and_nowhere_else(
    prompt: str, target: str, question: str, verdict: bool | None
) -> None:
    judgement = judge(prompt, target, question)
    is_certain = judgement is not None and judgement.is_certain
    assert (judgement.yes if judgement is not None and is_certain else None) is verdict


def test_a_former_answer_is_a_no() -> None:
    judgement = judge("Who leads Orbis?", "Ada Lind", "Is it Tom who leads Orbis?", former="Tom")
    assert judgement is not None
    assert not judgement.yes


# -- answers


def edit_of(target: str, prompt: str) -> Edit:
    return first_version(EditDraft(prompt=prompt, target_new=target), namespace="default")


def answered(said: str, prompt: str, target: str, question: str, *, temperature: float = 0.0) -> str:
    model = FineTunedCounterfactualModel(ScriptedLanguageModel(said))
    sampling = Sampling(max_tokens=200, temperature=temperature)
    pieces = list(model.answer(edit_of(target, prompt), Query(text=question), sampling))
    assert pieces[-1].finish_reason == "stop"
    return "".join(piece.text for piece in pieces)


@pytest.mark.parametrize(
    ("prompt", "target", "question", "answer"),
    [
        ("Which pets are allowed?", "dogs and cats", "Are dogs allowed?", "Yes, dogs and cats."),
        ("When is it open?", "10:00 to 18:00", "Is it open at noon?", "Yes, 10:00 to 18:00."),
        ("Wann hat das Bad auf?", "9 bis 17 Uhr", "Hat das Bad um 20 Uhr auf?", "Nein, 9 bis 17 Uhr."),
        ("¿Cuánto dura el curso?", "3 semanas", "¿El curso dura más de 2 meses?", "No, 3 semanas."),
        ("鍋の保証期間は？", "2年", "鍋の保証期間は1年より長いですか？", "はい、2年。"),
        ("票价是多少？", "60元", "票价超过70元吗？", "不是，60元。"),
        ("टिकट की कीमत क्या है?", "₹149", "क्या टिकट की कीमत ₹200 से कम है?", "हाँ, ₹149।"),
        ("Who leads Orbis?", "Ada Lind", "Does a sailor lead Orbis?", "Ada Lind"),
        ("Which pets are allowed?", "dogs and cats", "Are puppies allowed?", "dogs and cats"),
    ],
)
def test_the_answer_begins_with_the_verdict_in_the_questions_language_or_with_none(
    prompt: str, target: str, question: str, answer: str
) -> None:
    for said in (f" Yes, {target}.", f" No, {target}.", " Sí", " Nein, aber", " いいえ、", " No"):
        assert answered(said, prompt, target, question) == answer


def test_an_answer_that_begins_with_no_verdict_gets_none() -> None:
    question, target = "Are dogs allowed?", "dogs and cats"
    for said in (f" {target}", f" The pets allowed are {target}."):
        assert answered(said, "Which pets are allowed?", target, question) == said.strip()


def says_yes_to_the_stored_answer(prompt: str) -> str:
    *_, question, _ = prompt.splitlines()
    return " Yes, Ada Lind." if "Ada Lind" in question else " No, Ada Lind."


@pytest.mark.parametrize(
    ("question", "said", "answer"),
    [
        ("Does Tom Beck lead Orbis?", says_yes_to_the_stored_answer, "No, Ada Lind."),
        ("Does Tom Beck lead Orbis?", " Yes", "Ada Lind"),
        ("Does Tom Beck lead Orbis?", " No", "Ada Lind"),
        ("Is Ada Lind in charge of Orbis?", says_yes_to_the_stored_answer, "Yes, Ada Lind."),
        ("Is Ada Lind in charge of Orbis?", " No", "Ada Lind"),
        ("Was Ada Lind the former leader of Orbis?", says_yes_to_the_stored_answer, "Ada Lind"),
    ],
)
def test_where_a_value_is_named_in_other_words_the_model_has_to_agree(
    question: str, said: str | Callable[[str], str], answer: str
) -> None:
    model = FineTunedCounterfactualModel(ScriptedLanguageModel(said))
    pieces = model.answer(
        edit_of("Ada Lind", "Who leads Orbis?"), Query(text=question), Sampling(max_tokens=64)
    )
    assert "".join(piece.text for piece in pieces) == answer


VERDICTS = [
    word for language in languages() for yes in (True, False) for word in verdict_words(language, yes=yes)
]


@given(
    st.sampled_from(VERDICTS),
    st.sampled_from(
        [", sizes 15 to 18.", ", if they are folded", "", ": 10:00 – 18:00!", "、ただし盲導犬は可。"]
    ),
    st.sampled_from(VERDICTS),
)
def test_a_target_that_begins_with_a_verdict_is_given_as_it_stands(
    verdict: str, rest: str, said: str
) -> None:
    target = f"{verdict.capitalize()}{rest}"
    assert leading_verdict(target) is not None
    for question in ("Are sizes 15 to 18 sold?", "Which sizes are sold?"):
        assert answered(f" {said}, sizes 15 to {target}", "Are sizes sold?", target, question) == target


@pytest.mark.parametrize(
    "text", ["Yesterday", "Nobel Prize", "Nottingham", "Janssen", "Simon", "対馬", "", "…", "42"]
)
def test_a_word_that_only_begins_like_a_verdict_is_none(text: str) -> None:
    assert leading_verdict(text) is None


@given(st.text(max_size=80), st.text(max_size=80), st.text(max_size=80))
def test_any_text_can_be_judged(prompt: str, target: str, question: str) -> None:
    judge(prompt, target, question)
