"""The three-way merge of two changes of one edit."""

from __future__ import annotations

from serac_gateway.console.edit_fields import record_texts
from serac_gateway.console.merges import merged

BASE = record_texts({"prompt": "P", "target_new": "A", "source": "S"})


def test_changes_of_different_fields_are_joined() -> None:
    """Nothing is left to choose."""
    merge = merged(BASE, BASE | {"target_new": "Mine"}, BASE | {"source": "Theirs"})
    assert (merge.texts["target_new"], merge.texts["source"]) == ("Mine", "Theirs")
    assert merge.in_conflict == ()
    assert [field.name for field in merge.fields] == ["source"]


def test_of_two_changes_of_one_field_ones_own_stands_and_the_other_is_beside_it() -> None:
    """Somebody has to choose."""
    merge = merged(BASE, BASE | {"target_new": "Mine"}, BASE | {"target_new": "Theirs"})
    assert merge.texts["target_new"] == "Mine"
    [field] = merge.in_conflict
    assert (field.before, field.theirs) == ("A", "Theirs")


def test_the_same_change_by_both_is_no_conflict() -> None:
    """And is not shown."""
    both = BASE | {"target_new": "Same"}
    assert merged(BASE, both, both).fields == ()


def test_the_reason_is_always_ones_own() -> None:
    """It belongs to the version that is made."""
    merge = merged(BASE, BASE | {"reason": "Mine"}, BASE | {"reason": "Theirs"})
    assert merge.texts["reason"] == "Mine"
    assert merge.fields == ()
