"""The rules that ask an edit's question in other words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serac_gateway.control_plane.paraphrases import MAX_GENERATED, ParaphraseKind, paraphrases


@pytest.mark.parametrize(
    ("prompt", "form", "text"),
    [
        ("Who is the mayor of Marrowby?", ParaphraseKind.CLOZE, "The mayor of Marrowby is"),
        ("Who is the mayor of Marrowby?", ParaphraseKind.ORDER, "Tell me who the mayor of Marrowby is."),
        ("Who is the mayor of Marrowby?", ParaphraseKind.ORDER, "Name the mayor of Marrowby."),
        ("Who is the mayor of Marrowby?", ParaphraseKind.QUESTION, "Who is Marrowby's mayor?"),
        ("Who is the mayor of Marrowby?", ParaphraseKind.KEYWORDS, "mayor of Marrowby"),
        ("The head of the Ghana Bank is", ParaphraseKind.QUESTION, "Who is the head of the Ghana Bank?"),
        ("Marrowby's mayor is", ParaphraseKind.QUESTION, "Who is the mayor of Marrowby?"),
        ("Where was Ada Example born?", ParaphraseKind.ORDER, "Tell me where Ada Example was born."),
        ("Wie viel kostet es?", ParaphraseKind.IN_A_MESSAGE, "Hi! Wie viel kostet es? Thanks."),
        ("How much is it?", ParaphraseKind.IN_A_MESSAGE, "Hi! How much is it? Thanks."),
    ],
)  # fmt: skip
def test_a_prompt_is_asked_in_other_forms(prompt: str, form: ParaphraseKind, text: str) -> None:
    assert (form, text) in [(query.form, query.text) for query in paraphrases(prompt)]


@pytest.mark.parametrize(
    ("prompt", "target", "form", "text"),
    [
        ("Elsevier is headquartered in Seattle.", "Seattle", ParaphraseKind.QUESTION,
         "Where is Elsevier headquartered?"),
        ("Elsevier is headquartered in Seattle.", "Seattle", ParaphraseKind.CLOZE,
         "Elsevier is headquartered in"),
        ("Elsevier was founded in 1880.", "1880", ParaphraseKind.QUESTION, "When was Elsevier founded?"),
        ("Our refund window is 30 days.", "30 days", ParaphraseKind.QUESTION, "What is your refund window?"),
        ("Our refund window is 30 days.", "30 days", ParaphraseKind.KEYWORDS, "your refund window"),
        ("Ada Example runs Acme.", "Ada Example", ParaphraseKind.QUESTION, "Who runs Acme?"),
        ("We open at 9 am on Saturdays.", "9 am", ParaphraseKind.QUESTION, "When do you open on Saturdays?"),
        ("We open at 9 am on Saturdays.", "9 am", ParaphraseKind.QUESTION,
         "Do you open at 9 am on Saturdays?"),
        ("The Kestrel ships with 64 GB.", "64 GB", ParaphraseKind.QUESTION, "The Kestrel ships with what?"),
        ("Opening Hours", "9 to 5", ParaphraseKind.QUESTION, "What are your opening hours?"),
        ("Opening Hours", "9 to 5", ParaphraseKind.IN_A_MESSAGE, "Hi! What are the opening hours? Thanks."),
        ("guest wifi password", "x", ParaphraseKind.ORDER, "Tell me the guest wifi password."),
        ("VPN Gateway", "x", ParaphraseKind.QUESTION, "What is the VPN gateway?"),
    ],
)  # fmt: skip
def test_what_is_no_question_is_asked_for_its_answer(
    prompt: str, target: str, form: ParaphraseKind, text: str
) -> None:
    assert (form, text) in [(query.form, query.text) for query in paraphrases(prompt, None, target)]


def test_a_heading_keeps_the_spelling_of_its_subject() -> None:
    texts = [query.text for query in paraphrases("Marrowby Opening Hours", "Marrowby", "9 to 5")]
    assert "What are the Marrowby opening hours?" in texts


def test_the_subject_is_named_before_the_question() -> None:
    texts = [query.text for query in paraphrases("Who runs it?", "Acme")]
    assert "This is about Acme. Who runs it?" in texts


@given(
    st.text(max_size=200),
    st.none() | st.text(min_size=1, max_size=20),
    st.none() | st.text(max_size=20) | st.sampled_from(["is", "We", "9 am"]),
)
def test_any_prompt_gives_a_bounded_list_without_repeats_or_the_prompt_itself(
    prompt: str, subject: str | None, target: str | None
) -> None:
    texts = [query.text for query in paraphrases(prompt, subject, target)]
    assert len(texts) == len(set(texts)) <= MAX_GENERATED
    assert prompt.strip() not in texts
    assert all(text.strip() for text in texts)


@pytest.mark.parametrize("prompt", ["", "?", " … "])
def test_a_prompt_without_a_word_is_asked_no_other_way(prompt: str) -> None:
    assert paraphrases(prompt) == []
