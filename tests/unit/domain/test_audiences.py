"""For whom an edit holds: which audiences are allowed, how they are compared, and what a request is in."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serac_gateway.domain.audiences import (
    LABEL_PATTERN,
    MAX_LABELS,
    MAX_VALUES,
    VALUE_PATTERN,
    Audience,
    Caller,
    audience_of_texts,
    audience_text,
    checked_audience,
    holds_for,
    label_value,
    labels_within,
    lies_within,
    may_meet,
    specificity,
)
from serac_gateway.domain.edits import Edit, EditDraft, EditPatch, first_version, patched, record_json
from serac_gateway.errors import InvalidRequestError

VALUES = st.frozensets(st.sampled_from("abc"), min_size=1).map(lambda values: tuple(sorted(values)))
AUDIENCES = st.dictionaries(st.sampled_from(("lang", "region", "tenant")), VALUES)
LABELS = st.dictionaries(st.sampled_from(("lang", "region", "tenant")), st.sampled_from("abcd"))


def edit(audience: dict[str, list[str]]) -> Edit:
    draft = msgspec.convert({"prompt": "Who?", "target_new": "Ada", "audience": audience}, EditDraft)
    return first_version(draft, namespace="default")


def test_all_labels_must_fit_each_with_any_of_its_values() -> None:
    audience = checked_audience({"region": ["eu", "uk"], "tenant": ["acme"]})
    assert holds_for(audience, {"region": "uk", "tenant": "acme", "language": "de"})
    for labels in ({"region": "uk"}, {"region": "us", "tenant": "acme"}, {"tenant": "acme"}, {}):
        assert not holds_for(audience, labels), labels
    assert holds_for({}, {})


@given(audience=AUDIENCES, other=AUDIENCES, labels=LABELS)
def test_the_relations_of_audiences_are_those_of_the_requests_in_them(
    audience: Audience, other: Audience, labels: dict[str, str]
) -> None:
    if lies_within(audience, other) and holds_for(audience, labels):
        assert holds_for(other, labels)
    if holds_for(audience, labels) and holds_for(other, labels):
        assert may_meet(audience, other)
    if may_meet(audience, other):
        both = {label: values[0] for label, values in (audience | other).items()}
        for label in audience.keys() & other.keys():
            both[label] = min(set(audience[label]) & set(other[label]))
        assert holds_for(audience, both)
        assert holds_for(other, both)
    assert holds_for(audience, labels_within(audience))


@given(audience=AUDIENCES, other=AUDIENCES)
def test_an_audience_within_another_one_is_more_specific(audience: Audience, other: Audience) -> None:
    if lies_within(audience, other) and audience != other:
        assert specificity(audience) > specificity(other)


@pytest.mark.parametrize("written", ["EU", " eu ", "eu", "\teU\r\n"])
def test_case_and_white_space_around_a_value_make_no_difference(written: str) -> None:
    assert label_value(written) == "eu"
    assert edit({" Region ": [written, "uk"]}).audience == {"region": ("eu", "uk")}


@pytest.mark.parametrize(
    "written", ["", " ", "e u", "eu,uk", "ＥＵ", "eu\u200b", "x" * 65, "\u212a", "İ", "-eu", "e=u", "eu\0"]
)
def test_what_is_no_value_is_none_and_refused_in_an_audience(written: str) -> None:
    assert label_value(written) is None
    with pytest.raises(
        InvalidRequestError, match=r"audience\.region .* is not allowed; give 1 to 64"
    ) as refused:
        edit({"region": [written]})
    assert refused.value.field == "audience.region"


@pytest.mark.parametrize(
    ("audience", "problem"),
    [
        ({"region": []}, "give 1 to 64 values, or leave the label out"),
        ({"region": [f"v{number}" for number in range(MAX_VALUES + 1)]}, "give 1 to 64 values"),
        ({f"l{number}": ["x"] for number in range(MAX_LABELS + 1)}, "at most 8 labels"),
        ({"": ["eu"]}, "1 to 32 characters"),
        ({"re gion": ["eu"]}, "1 to 32 characters"),
        ({"r" * 33: ["eu"]}, "1 to 32 characters"),
        ({"\u212aey": ["eu"]}, "1 to 32 characters"),
        ({"region": ["eu"], "REGION": ["us"]}, "each label once"),
    ],
)
def test_a_bad_audience_is_refused_with_what_is_allowed(audience: dict[str, list[str]], problem: str) -> None:
    with pytest.raises(InvalidRequestError, match=problem):
        edit(audience)


def test_an_edit_without_audience_is_stored_as_before_there_were_any() -> None:
    plain = edit({})
    assert b"audience" not in record_json(plain)
    assert msgspec.json.decode(record_json(plain), type=Edit) == plain
    limited = edit({"region": ["eu"]})
    assert msgspec.json.decode(record_json(limited), type=Edit) == limited


def test_a_change_replaces_the_audience_and_an_empty_one_makes_the_edit_everybodys() -> None:
    limited = edit({"region": ["eu"]})
    moved = patched(limited, EditPatch(audience={"tenant": ("ACME",)}))
    assert moved.audience == {"tenant": ("acme",)}
    assert patched(moved, EditPatch(target_new="Bea")).audience == {"tenant": ("acme",)}
    assert patched(moved, EditPatch(audience={})).audience == {}


def test_a_caller_outside_the_audience_is_in_no_canary_of_it() -> None:
    draft = msgspec.convert(
        {
            "prompt": "Who?",
            "target_new": "Ada",
            "state": "canary",
            "canary_share": 1.0,
            "audience": {"region": ["eu"]},
        },
        EditDraft,
    )
    canary = first_version(draft, namespace="default")
    applied = [canary.is_applied_to(Caller(name="u", labels=labels)) for labels in ({"region": "eu"}, {})]
    assert applied == [True, False]


def test_the_text_of_an_audience_is_read_back() -> None:
    audience = checked_audience({"tenant": ["acme"], "region": ["uk", "eu"]})
    assert audience_text(audience) == "region=eu,uk tenant=acme"
    assert audience_of_texts(audience_text(audience).split()) == audience
    assert audience_of_texts(["region=eu", "region=UK"]) == {"region": ("eu", "uk")}
    for text in ("region", "=eu", "region=", "region= "):
        with pytest.raises(InvalidRequestError, match="LABEL=VALUE"):
            audience_of_texts([text])


def test_the_patterns_of_the_configuration_are_those_of_edits() -> None:
    from serac_gateway.config import model

    patterns = {model.AudienceLabel: LABEL_PATTERN, model.AudienceValue: VALUE_PATTERN}
    for annotated, pattern in patterns.items():
        kind = msgspec.inspect.type_info(annotated)
        assert isinstance(kind, msgspec.inspect.StrType)
        assert kind.pattern == pattern
