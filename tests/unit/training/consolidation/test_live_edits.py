"""Which of a gateway's edits weights can hold."""

from __future__ import annotations

from typing import Any

import msgspec

from serac_gateway.domain.edits import Edit, EditDraft, first_version
from training.consolidation.live_edits import choose


def edit(edit_id: str, **fields: Any) -> Edit:  # noqa: ANN401 - any field of a draft
    draft = {"id": edit_id, "prompt": f"Who runs {edit_id}?", "target_new": "Ann", **fields}
    return first_version(msgspec.convert(draft, EditDraft), namespace="default")


def test_suppressions_instructions_trials_and_windows_are_left_out_each_with_its_reason() -> None:
    chosen = choose(
        [
            edit("a"),
            edit("b", kind="suppression", target_true="4711"),
            edit("c", kind="instruction"),
            edit("d", state="canary", canary_share=0.5),
            edit("e", valid_until="2031-05-06T07:08:09Z"),
        ],
        limit=None,
    )
    assert [fact.id for fact in chosen.facts] == ["a"]
    reasons = {left.id: left.why for left in chosen.left_out}
    assert sorted(reasons) == ["b", "c", "d", "e"]
    assert "holds at the gateway alone" in reasons["b"]
    assert "how to speak" in reasons["c"]
    assert "on trial (canary)" in reasons["d"]
    assert "ends at a time" in reasons["e"]


def test_the_limit_takes_the_first_and_counts_the_others() -> None:
    chosen = choose([edit(name) for name in "abc"], limit=2)
    assert ([fact.id for fact in chosen.facts], chosen.beyond) == (["a", "b"], 1)


def test_facts_with_one_wording_and_two_answers_conflict_also_with_one_beyond_the_limit() -> None:
    facts = [
        edit("a", paraphrases=["Who leads the pier?"]),
        edit("b", prompt="who leads the Pier", target_new="Bea"),
        edit("c", prompt="Who leads the pier?", target_new="ann"),
    ]
    assert choose(facts, limit=None).conflicts == {"a": "b", "b": "c", "c": "b"}
    assert choose(facts, limit=1).conflicts == {"a": "b"}
    assert choose([facts[0], facts[2]], limit=None).conflicts == {}, "they say the same"
