"""The query that a request is decided on."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serac_gateway.data_plane.protocols.base import ApiProtocol
from serac_gateway.data_plane.protocols.endpoints import PROTOCOLS
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.queries import (
    MAX_CONTEXT_CHARS,
    MAX_CONTEXT_TURNS,
    MAX_QUERY_CHARS,
    Bypass,
    Query,
)

CHAT, PROMPT, RESPONSES, MESSAGES = (
    PROTOCOLS[endpoint]
    for endpoint in (Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.RESPONSES, Endpoint.MESSAGES)
)


def user(text: object) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


def query_of(*messages: dict) -> Query:
    query = CHAT.query({"messages": list(messages)})
    assert isinstance(query, Query)
    return query


def reason_of(*messages: object) -> str:
    bypass = CHAT.query({"messages": list(messages)})
    assert isinstance(bypass, Bypass)
    return bypass.reason


def test_the_query_is_the_text_of_the_last_user_turn() -> None:
    parts = [{"type": "image_url"}, {"type": "text", "text": "Who wrote"}, {"type": "text", "text": "Dune?"}]
    assert query_of(user("old"), assistant("x"), user("Who wrote Dune by the way?")).text == (
        "Who wrote Dune by the way?"
    )
    assert query_of(user(parts)).text == "Who wrote\nDune?"
    assert query_of(user("What is Dune about?"), {"role": "system", "content": "late"}).text == (
        "What is Dune about?"
    )


def test_a_long_question_stands_alone() -> None:
    long = "What is the capital of Peru, " + "please, " * 20 + "tell me?"
    assert query_of(user("Who leads ACME?"), assistant("Ada."), user(long)).context == ()


@pytest.mark.parametrize(
    "follow_up",
    [
        "And who runs it now?",
        "Where was she born and raised?",
        "What about the company in Paris?",
        "Why?",
        "What does the plan cost?",
        "Hm, the leaflet says noon.",
        "Wer leitet das Unternehmen heute?",
        "since when exactly",
        "How old is that building by now?",
    ],
)
def test_a_question_that_leans_back_takes_the_turns_before_it(follow_up: str) -> None:
    turns = [user("Who leads ACME?"), assistant("Ada Byron leads ACME."), user(follow_up)]
    assert query_of(*turns).context == ("Who leads ACME?", "Ada Byron leads ACME.")


@pytest.mark.parametrize(
    "talk", ["Thanks!", "ok, thank you very much", "Great, that helps a lot.", "hello", "Got it", "No"]
)
def test_small_talk_takes_no_context(talk: str) -> None:
    assert query_of(user("Who leads ACME?"), assistant("Ada."), user(talk)).context == ()


def test_a_subject_two_questions_back_is_in_the_context() -> None:
    turns = [
        user("Where is Brannock?"),
        assistant("In the north."),
        user("Is it a big town?"),
        assistant("No, a small one."),
        user("Who is its mayor?"),
    ]
    assert query_of(*turns).context == ("Where is Brannock?", "Is it a big town?", "No, a small one.")


def test_context_is_the_latest_short_turns_without_small_talk_and_tool_results() -> None:
    turns = [
        user("one is the first"),
        assistant("long " * 200),
        user("two " + "x" * 1_000),
        {"role": "tool", "content": "tool"},
        user("thanks"),
        assistant("three"),
        user("four stands here"),
        user("And it?"),
    ]
    context = query_of(*turns).context
    assert len(context) == MAX_CONTEXT_TURNS
    assert [text[:5] for text in context] == ["two x", "three", "four "]
    assert len(context[0]) == MAX_CONTEXT_CHARS


def test_of_a_long_text_head_and_tail_are_kept() -> None:
    text = "Who wrote Dune? " + "noise " * 20_000 + "Answer in one word, please?"
    query = query_of(user(text))
    assert query.text.startswith("Who wrote Dune?")
    assert query.text.endswith("Answer in one word, please?")
    assert len(query.text) <= MAX_QUERY_CHARS


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "malformed request"),
        ([1], "malformed request"),
        ([{"content": "x"}], "malformed request"),
        ([user("x"), {"role": "tool", "content": "5"}], "tool result turn"),
        ([user("x"), {"role": "function", "content": "5"}], "tool result turn"),
        ([user("x"), assistant("{")], "last turn is not the user's"),
        ([user("x"), {"role": "assistant", "tool_calls": [{}]}], "last turn is not the user's"),
        ([{"role": "system", "content": ""}], "no text in the user turn"),
        ([user("  \n ")], "no text in the user turn"),
        ([user(None)], "no text in the user turn"),
        ([user([{"type": "input_audio", "input_audio": {}}])], "no text in the user turn"),
    ],
)
def test_what_has_no_query_says_why(messages: list, reason: str) -> None:
    assert reason_of(*messages) == reason


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("The capital of Peru is", "The capital of Peru is"),
        (["The capital of Peru is"], "The capital of Peru is"),
        ("Q: Who wrote Dune?\nA: Herbert\n\nQ: Who leads ACME today?\nA:", "Who leads ACME today?"),
        ("Human: Who leads ACME today?\n\nAssistant:", "Who leads ACME today?"),
        ("A long text.\nMore of it.\n\nQuestion: Who leads ACME today?\n", "Who leads ACME today?"),
    ],
)
def test_the_query_of_a_prompt_is_its_last_line(prompt: object, text: str) -> None:
    query = PROMPT.query({"prompt": prompt})
    assert isinstance(query, Query)
    assert (query.text, query.context) == (text, ())


def test_a_prompt_that_leans_back_has_its_earlier_lines_as_context() -> None:
    query = PROMPT.query({"prompt": "Q: Who leads ACME?\nA: Ada.\nQ: Where was she born?\nA:"})
    assert query == Query(text="Where was she born?", context=("Who leads ACME?", "A: Ada."))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
roles = st.sampled_from(["user", "assistant", "system", "tool", "developer", ""]) | json_values
contents = json_values | st.lists(
    st.fixed_dictionaries(
        {
            "type": st.sampled_from(["text", "input_text", "image_url", "tool_result"]) | json_values,
            "text": json_values,
        }
    )
)
kinds = st.sampled_from(["message", "function_call_output", "item_reference", "reasoning"]) | json_values
items = st.lists(
    st.fixed_dictionaries({"role": roles, "content": contents}, optional={"type": kinds})
    | st.fixed_dictionaries({"type": kinds, "id": json_values})
    | json_values
)
bodies = json_values | st.fixed_dictionaries(
    {"messages": items | json_values, "prompt": json_values, "input": items | json_values},
    optional={"previous_response_id": json_values},
)


@settings(deadline=None)  # a busy machine is no failure
@given(protocol=st.sampled_from([CHAT, PROMPT, RESPONSES, MESSAGES]), body=bodies)
def test_any_json_gives_a_bounded_query_or_a_reason(protocol: ApiProtocol, body: object) -> None:
    outcome = protocol.query(body)
    if isinstance(outcome, Bypass):
        assert outcome.reason
        return
    assert 0 < len(outcome.text) <= MAX_QUERY_CHARS
    assert len(outcome.context) <= MAX_CONTEXT_TURNS
    for text in (outcome.text, *outcome.context):
        text.encode()


@settings(deadline=None)  # a busy machine is no failure
@given(st.text(alphabet="gobyehank ,.!\n", max_size=3_000), st.text(max_size=50))
def test_no_text_takes_long(text: str, tail: str) -> None:
    begun = time.process_time()
    CHAT.query({"messages": [user("x"), user(text + tail)]})
    assert time.process_time() - begun < 0.1


def test_a_million_characters_take_no_longer_than_two_thousand() -> None:
    begun = time.process_time()
    CHAT.query({"messages": [user("good bye " * 1_000_000), user("it " * 1_000_000)]})
    PROMPT.query({"prompt": "\n" * 1_000_000 + "Q: " * 1_000_000})
    assert time.process_time() - begun < 0.05


def test_a_response_is_decided_on_the_last_users_item_with_those_before_it() -> None:
    items = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "Who runs Acme?"}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "Ada"},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Ada."}]},
        user("Where was she born?"),
    ]
    query = RESPONSES.query({"input": items})
    assert query == Query(
        text="Where was she born?", context=("Who runs Acme?", "Ada."), instructions="Be brief."
    )
    assert RESPONSES.query({"input": items[:-2]}) == Bypass(reason="tool result turn")
    assert RESPONSES.query({"input": items[:3]}) == Bypass(reason="last turn is not the user's")


@pytest.mark.parametrize("elsewhere", ["previous_response_id", "conversation"])
def test_turns_that_only_the_upstream_knows_count_where_the_text_leans_on_them(elsewhere: str) -> None:
    def outcome(items: object) -> Query | Bypass:
        return RESPONSES.query({"input": items, elsewhere: "x"})

    assert outcome("Who runs Acme?") == Query(text="Who runs Acme?")
    assert outcome("Thanks, that is all!") == Query(text="Thanks, that is all!")
    assert outcome("And who runs it now?") == Bypass(reason="leans on turns not shown", unreadable=True)
    referring = outcome([user("Who runs Acme?"), user("And where does she live?")])
    assert referring == Query(text="And where does she live?", context=("Who runs Acme?",))


def test_a_tools_result_in_an_anthropic_turn_is_a_tool_result_turn() -> None:
    result = {"type": "tool_result", "tool_use_id": "t", "content": "x"}
    turn = user([result, {"type": "text", "text": "Who runs Acme?"}])
    assert MESSAGES.query({"messages": [turn]}) == Bypass(reason="tool result turn")
    later = MESSAGES.query({"messages": [turn, assistant("Ada."), user("Where was she born?")]})
    assert later == Query(text="Where was she born?", context=("Ada.",))


@pytest.mark.parametrize(
    ("protocol", "body"),
    [
        (
            CHAT,
            {"messages": [{"role": "system", "content": "Translate."}, {"role": "user", "content": "Who?"}]},
        ),
        (RESPONSES, {"instructions": "Translate.", "input": "Who?"}),
        (RESPONSES, {"instructions": "Translate.", "input": [{"role": "user", "content": "Who?"}]}),
        (MESSAGES, {"system": "Translate.", "messages": [{"role": "user", "content": "Who?"}]}),
        (
            MESSAGES,
            {
                "system": [{"type": "text", "text": "Translate.", "cache_control": {"type": "ephemeral"}}],
                "messages": [{"role": "user", "content": "Who?"}],
            },
        ),
    ],
)  # fmt: skip
def test_the_system_prompt_of_every_api_is_read_as_instructions(protocol: ApiProtocol, body: dict) -> None:
    query = protocol.query(body)
    assert isinstance(query, Query)
    assert (query.text, query.instructions) == ("Who?", "Translate.")


@pytest.mark.parametrize("given", [None, "", "  ", [], 7, {"a": 1}, [{"type": "image"}]])
def test_instructions_without_text_are_none(given: object) -> None:
    for protocol, body in (
        (RESPONSES, {"instructions": given, "input": "Who?"}),
        (MESSAGES, {"system": given, "messages": [{"role": "user", "content": "Who?"}]}),
    ):
        query = protocol.query(body)
        assert isinstance(query, Query)
        assert query.instructions == ""
