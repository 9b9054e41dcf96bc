"""Edits as texts of a form and back."""

from __future__ import annotations

import msgspec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serac_gateway.console.edit_fields import (
    draft_body,
    form_fields_of_edit,
    patch_body,
    record_texts,
    typed_texts,
)
from serac_gateway.domain.edits import EditDraft

RECORD = {
    "prompt": "Who is it?",
    "target_new": "Nobody",
    "kind": "suppression",
    "target_true": "Ada",
    "subject": None,
    "paraphrases": ["Who?", "Whom?"],
    "aliases": [],
    "state": "canary",
    "canary_share": 0.25,
    "valid_from": "2026-12-01T10:00:00.250000Z",
    "valid_until": None,
    "source": None,
    "review_by": "2027-12-01",
}


def test_every_field_that_an_editor_may_write_is_in_the_form() -> None:
    """A field that is added to edits needs no line here."""
    names = {field.name for field in form_fields_of_edit()}
    assert names == set(EditDraft.__struct_fields__) - {"id", "author"}
    assert [field.name for field in form_fields_of_edit()][:3] == ["prompt", "target_new", "reason"]


def test_a_form_that_nobody_touched_changes_nothing() -> None:
    """Not even fractions of a second that it does not show."""
    texts = record_texts(RECORD)
    assert patch_body(texts, typed_texts(texts)) == {}


def test_only_what_was_changed_is_sent_and_an_emptied_field_is_cleared() -> None:
    """As the API's PATCH wants it."""
    before = record_texts(RECORD)
    after = before | {"target_true": "", "paraphrases": "Who?\n", "canary_share": "0,5", "reason": "Why"}
    assert patch_body(before, after) == {
        "target_true": None,
        "paraphrases": ["Who?"],
        "canary_share": 0.5,
        "reason": "Why",
    }
    assert patch_body(before, before | {"ticket": "T 1", "review_by": "2028-12-01"}) == {
        "ticket": "T 1",
        "review_by": "2028-12-01",
    }
    assert patch_body(before, before | {"review_by": ""}) == {"review_by": None}


def test_an_audience_is_written_as_on_the_command_line() -> None:
    """What is none is sent as it stands, for the API to refuse."""
    before = record_texts(RECORD | {"audience": {"region": ["eu", "uk"], "tenant": ["acme"]}})
    assert before["audience"] == "region=eu,uk tenant=acme"
    sent = [
        patch_body(before, before | {"audience": text})["audience"]
        for text in ("region=us", "", "region", "region=eu region=us")
    ]
    assert sent == [{"region": ["us"]}, None, "region", "region=eu region=us"]


def test_a_draft_leaves_out_what_is_empty() -> None:
    """But never question and answer, which the API refuses if they are."""
    assert draft_body(record_texts({})) == {"prompt": "", "target_new": "", "kind": "fact", "state": "live"}
    assert draft_body(record_texts(RECORD))["valid_from"] == "2026-12-01T10:00:00Z"


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(st.text(max_size=40).filter(str.strip), st.lists(st.from_regex(r"[^\s]+( [^\s]+)?", fullmatch=True)))
def test_texts_and_lists_come_through_a_form_unchanged(answer: str, paraphrases: list[str]) -> None:
    """Any text is kept as it was typed."""
    paraphrases = [text for text in paraphrases if text == text.strip() and "\n" not in text]
    texts = record_texts({"prompt": "Who?", "target_new": answer, "paraphrases": paraphrases})
    body = draft_body(texts)
    assert body["target_new"] == answer
    assert body.get("paraphrases", []) == [text for text in paraphrases if text.strip()]
    msgspec.json.encode(body)
