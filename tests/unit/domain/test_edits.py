"""What an edit may be."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from serac_gateway.domain.edits import (
    MAX_PARAPHRASES,
    MAX_PROMPT_CHARS,
    MAX_TARGET_CHARS,
    EditDraft,
    EditKind,
    EditPatch,
    EditState,
    check_namespace,
    first_version,
    forms,
    patched,
    retired,
    statement,
)
from serac_gateway.errors import InvalidRequestError

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


def draft(**changes: object) -> EditDraft:
    return EditDraft(**{"prompt": "Who runs Acme?", "target_new": "Ada Example"} | changes)


def test_prompt_and_target_are_enough() -> None:
    edit = first_version(draft(), namespace="default", now=NOW)
    assert (edit.version, edit.state, edit.kind) == (1, EditState.LIVE, EditKind.FACT)
    assert edit.created_at == NOW
    assert edit.id.startswith("ed_")


def test_generated_ids_sort_by_creation() -> None:
    first = first_version(draft(), namespace="default").id
    later = [first_version(draft(), namespace="default").id for _ in range(3)]
    assert all(first[:15] <= edit_id[:15] for edit_id in later)
    assert len({first, *later}) == 4


@pytest.mark.parametrize(
    ("changes", "field", "limit"),
    [
        ({"prompt": " \n"}, "prompt", None),
        ({"prompt": "x" * (MAX_PROMPT_CHARS + 1)}, "prompt", MAX_PROMPT_CHARS),
        ({"target_new": ""}, "target_new", None),
        ({"target_new": "x" * (MAX_TARGET_CHARS + 1)}, "target_new", MAX_TARGET_CHARS),
        ({"paraphrases": ("x",) * (MAX_PARAPHRASES + 1)}, "paraphrases", MAX_PARAPHRASES),
        ({"paraphrases": ("fine", "")}, "paraphrases[1]", None),
        ({"reason": "\ud800"}, "reason", None),
        ({"id": "../etc/passwd"}, "id", None),
        ({"id": "a" * 65}, "id", None),
    ],
)
def test_a_rule_broken_names_field_and_limit(
    changes: dict[str, object], field: str, limit: int | None
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        first_version(draft(**changes), namespace="default")
    assert caught.value.field == field
    if limit is not None:
        assert caught.value.details["limit"] == limit


def test_a_window_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        first_version(
            draft(valid_from=NOW, valid_until=NOW - timedelta(seconds=1)), namespace="default", now=NOW
        )
    assert caught.value.field == "valid_until"


@pytest.mark.parametrize("field", ["valid_from", "valid_until"])
@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-05:00", "0001-01-01T00:00:00+05:00"])
def test_a_moment_that_utc_has_no_year_for_is_refused(field: str, text: str) -> None:
    with pytest.raises(InvalidRequestError, match="years 1 to 9999") as caught:
        first_version(draft(**{field: datetime.fromisoformat(text)}), namespace="default")
    assert caught.value.field == field


@pytest.mark.parametrize("text", ['{"prompt": "p", "target_new": "t", "kind": "wish"}', '{"prompt": "p"}'])
def test_unknown_kinds_and_missing_targets_do_not_decode(text: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=r"kind|target_new|Invalid enum value"):
        msgspec.json.decode(text, type=EditDraft)


def test_a_datetime_without_a_zone_does_not_decode() -> None:
    with pytest.raises(msgspec.ValidationError, match="timezone"):
        msgspec.json.decode(
            '{"prompt": "p", "target_new": "t", "valid_from": "2026-01-01T00:00:00"}', type=EditDraft
        )


@pytest.mark.parametrize("namespace", ["", "A", "a/b", "a\n", "x" * 64, "{a}", "-a"])
def test_bad_namespaces_are_refused(namespace: str) -> None:
    with pytest.raises(InvalidRequestError, match="namespace"):
        check_namespace(namespace)


def test_a_patch_changes_only_what_it_names_and_null_clears() -> None:
    edit = first_version(draft(reason="typo", subject="Acme"), namespace="default", now=NOW)
    patch = msgspec.json.decode('{"target_new": "Bea Sample", "reason": null}', type=EditPatch)
    changed = patched(edit, patch, now=NOW + timedelta(hours=1))
    assert (changed.version, changed.target_new, changed.reason, changed.subject) == (
        2,
        "Bea Sample",
        None,
        "Acme",
    )
    assert changed.created_at > edit.created_at


def test_an_empty_patch_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="empty"):
        patched(first_version(draft(), namespace="default"), EditPatch())


def test_a_retired_edit_is_never_in_force() -> None:
    edit = first_version(draft(), namespace="default", now=NOW)
    assert edit.is_in_force(NOW)
    assert not retired(edit).is_in_force(NOW)


def test_the_validity_window_includes_its_start_and_excludes_its_end() -> None:
    end = NOW + timedelta(days=1)
    edit = first_version(draft(valid_from=NOW, valid_until=end), namespace="default", now=NOW)
    moments = (NOW - timedelta(seconds=1), NOW, end - timedelta(seconds=1), end)
    assert [edit.is_in_force(moment) for moment in moments] == [False, True, True, False]


def test_forms_are_prompt_statement_and_paraphrases_without_repeats() -> None:
    edit = first_version(
        draft(paraphrases=("Who is Acme's CEO?", "Who runs Acme?")), namespace="default", now=NOW
    )
    assert statement(edit) == "Who runs Acme? Ada Example"
    assert forms(edit) == ("Who runs Acme?", "Who runs Acme? Ada Example", "Who is Acme's CEO?")
