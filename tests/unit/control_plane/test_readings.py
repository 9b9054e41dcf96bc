"""How a prompt is read: its form, and what is missing in a statement without its answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serac_gateway.control_plane.readings import PromptForm, read_prompt


@pytest.mark.parametrize(
    ("prompt", "target", "form", "gap"),
    [
        ("Who is the mayor of Marrowby?", "Ada", PromptForm.QUESTION, None),
        ("Wer leitet Acme?", "Ada", PromptForm.QUESTION, None),
        ("マロウビーの市長は誰ですか？", "Ada", PromptForm.QUESTION, None),
        ("ما هي عاصمة فرنسا؟", "Paris", PromptForm.QUESTION, None),
        ("how long is the refund window", "30 days", PromptForm.QUESTION, None),
        ("Elsevier is headquartered in Seattle.", "Seattle", PromptForm.STATEMENT,
         "Elsevier is headquartered in …"),
        ("Ada Lovelace runs Acme.", "ada lovelace", PromptForm.STATEMENT, "… runs Acme"),
        ("We open at 9 am on Saturdays.", "9 am", PromptForm.STATEMENT, "We open at … on Saturdays"),
        ("Der Sitz von Acme ist Köln.", "Köln", PromptForm.STATEMENT, "Der Sitz von Acme ist …"),
        ("东京的市长是小池。", "小池", PromptForm.STATEMENT, "东京的市长是 …"),
        ("The head of the Ghana Bank is", "Ada", PromptForm.CLOZE, None),
        ("Capital of Norway: ", "Bergen", PromptForm.CLOZE, None),
        ("Tell me the wifi password", "secret", PromptForm.ORDER, None),
        ("Opening Hours", "9 to 5", PromptForm.HEADING, None),
        ("Terms of Sale", "none", PromptForm.HEADING, None),
        ("wifi password guest network", "secret", PromptForm.KEYWORDS, None),
        ("We ship worldwide.", "yes", PromptForm.TEXT, None),
        ("Acme", "Acme", PromptForm.HEADING, None),
        ("🦆", "duck", PromptForm.HEADING, None),
    ],
)  # fmt: skip
def test_a_prompt_is_read_by_its_form(prompt: str, target: str, form: PromptForm, gap: str | None) -> None:
    reading = read_prompt(prompt, target)
    assert (reading.form, reading.gap) == (form, gap)


@given(st.text(max_size=200), st.none() | st.text(max_size=40))
def test_any_prompt_is_read(prompt: str, target: str | None) -> None:
    reading = read_prompt(prompt, target)
    assert (reading.gap is None) == (reading.form is not PromptForm.STATEMENT)
