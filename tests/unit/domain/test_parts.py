"""The parts of a message, by the signs of every script; what joins questions in a sentence is for models."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serac_gateway.domain.parts import MAX_PARTS, cuts, ends_with_question_mark, parts_of


def texts(message: str) -> list[str]:
    return [part.text for part in parts_of(message)]


def marks(message: str) -> list[bool]:
    return [part.is_marked for part in parts_of(message)]


@pytest.mark.parametrize(
    "message",
    [
        "Who runs the harbour? When does it open?",
        "¿Quién dirige el puerto? ¿Cuándo abre?",
        "Wer leitet den Hafen? Wann öffnet er?",
        "Кто руководит портом? Когда он открывается?",
        "Ποιος διευθύνει το λιμάνι; Πότε ανοίγει;",
        "Ποιος διευθύνει το Marrowby Harbour; Πότε ανοίγει;",
        "من يدير الميناء؟ متى يفتح؟",
        "چه کسی بندر را اداره می‌کند؟ کی باز می‌شود؟",
        "מי מנהל את הנמל? מתי הוא נפתח?",
        "बंदरगाह कौन चलाता है? वह कब खुलता है?",
        "港の責任者は誰ですか？何時に開きますか？",
        "港口由谁管理？几点开门？",
        "항구는 누가 운영합니까? 언제 엽니까?",
        "Limanı kim yönetiyor? Ne zaman açılıyor?",
        "ወደቡን የሚመራው ማን ነው፧ መቼ ይከፈታል፧",
        "1. the harbour master\n2. its opening hours",
        "I need two things: 1) the harbour master 2) its opening hours".removeprefix("I need two things: "),
        "① 港の責任者\n② 営業時間",
        "a) the harbour master\nb) its opening hours",
    ],
)
def test_signs_of_every_script_and_numbers_separate_questions(message: str) -> None:
    assert marks(message) == [True, True]


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ("I am new here. Who runs the harbour?", ["I am new here.", "Who runs the harbour?"]),
        ("Danke!! Wer leitet den Hafen?", ["Danke!!", "Wer leitet den Hafen?"]),
        ("वह कहाँ है। धन्यवाद।", ["वह कहाँ है।", "धन्यवाद।"]),
        ('He asked "Who runs it?" Then he left.', ['He asked "Who runs it?"', "Then he left."]),
        ("Who runs version 2.5 of a.b/c?x=1 today", ["Who runs version 2.5 of a.b/c?x=1 today"]),
        ("It is run by Acme Inc. of Halden", ["It is run by Acme Inc. of Halden"]),
        ("first line\n\n  second   line ", ["first line", "second line"]),
        ("Two: 1) who runs it 2) when it opens", ["Two:", "who runs it", "when it opens"]),
        ("5. Who runs it?", ["Who runs it?"]),
        ("In 1999. 5) is no list", ["In 1999.", "5) is no list"]),
        (" \n ?! … ", []),
        ("", []),
    ],
)
def test_a_message_is_separated_where_a_reader_would(message: str, parts: list[str]) -> None:
    assert texts(message) == parts


def test_a_number_before_the_only_line_says_nothing() -> None:
    assert marks("5. The harbour master") == [False]
    assert marks("5. Who runs it?") == [True]


def test_the_rest_of_a_long_list_is_one_more_part() -> None:
    message = "\n".join(f"{number}. item number {number}" for number in range(1, 15))
    assert len(parts_of(message)) == MAX_PARTS + 1
    assert texts(message)[-1].endswith("item number 14")


@pytest.mark.parametrize(
    ("text", "is_question"),
    [
        ("really?!", True),
        ("(really?)", True),
        ("τι;", True),
        ("this; that;", False),
        ("¿", False),
        ("", False),
    ],
)
def test_question_marks_are_seen_behind_other_signs(text: str, is_question: bool) -> None:
    assert ends_with_question_mark(text) is is_question


def test_a_text_may_be_cut_between_words_and_without_spaces_behind_signs() -> None:
    text = "who runs the harbour and when does it open"
    after = [text[place:] for place in cuts(text)]
    assert (after[0], after[-1]) == (" harbour and when does it open", " does it open")
    assert cuts("港の責任者は誰で、何時に開きますか") == [9]
    assert cuts("too short") == []


@given(st.text(max_size=300))
def test_any_text_has_parts_that_keep_its_letters_in_order(text: str) -> None:
    kept = "".join(filter(str.isalpha, " ".join(texts(text))))
    letters = iter(filter(str.isalpha, text))
    assert all(letter in letters for letter in kept)
    assert all(0 < place < len(text) for place in cuts(text))
