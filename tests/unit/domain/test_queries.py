"""Which query the messages of a chat ask."""

from __future__ import annotations

from serac_gateway.domain.queries import Query, query_of_messages


def test_system_and_developer_messages_are_instructions() -> None:
    query = query_of_messages(
        [
            {"role": "system", "content": "Translate."},
            {"role": "developer", "content": [{"type": "text", "text": "Into French."}]},
            {"role": "user", "content": "Who runs Acme?"},
        ]
    )
    assert isinstance(query, Query)
    assert (query.text, query.instructions) == ("Who runs Acme?", "Translate.\nInto French.")
    alone = query_of_messages([{"role": "system", "content": "Who runs Acme?"}])
    assert isinstance(alone, Query)
    assert (alone.text, alone.instructions) == ("Who runs Acme?", "")


def test_long_instructions_keep_both_ends() -> None:
    query = query_of_messages(
        [
            {"role": "system", "content": "Begin. " + "x " * 60_000 + "End."},
            {"role": "user", "content": "Who?"},
        ]
    )
    assert isinstance(query, Query)
    assert len(query.instructions) <= 1_001
    assert query.instructions.startswith("Begin.")
    assert query.instructions.endswith("End.")
