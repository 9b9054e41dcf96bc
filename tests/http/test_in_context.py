"""The route in_context: the base model answers with the edits in its context."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import msgspec
import pytest

from serac_gateway.config.model import CompositePolicy, GatewayConfig, InstructionPolicy, RoutingConfig
from serac_gateway.data_plane.protocols.body import RequestBody
from serac_gateway.data_plane.protocols.edits_in_context import with_edits
from serac_gateway.data_plane.protocols.endpoints import PROTOCOLS
from serac_gateway.domain.edits import Edit, EditDraft, EditKind, first_version
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.queries import Query
from serac_gateway.models.counterfactual.declines import not_followed
from serac_gateway.testing import ScriptedCounterfactualModel
from tests.http.running_gateway import (
    EDITED_QUESTION,
    ENDPOINTS,
    OTHER_QUESTION,
    Gateway,
    chat,
    running_gateway,
)

NEXT_STEP = "In which town was the mayor of Springfield born?"
IN_CONTEXT = GatewayConfig(routing=RoutingConfig(composite=CompositePolicy.IN_CONTEXT))


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with running_gateway(config=IN_CONTEXT, depends_threshold=0.3) as running:
        await running.add(EDITED_QUESTION, "Lisa Simpson")
        yield running


async def test_a_next_step_reaches_the_base_model_with_the_edit_stated(gateway: Gateway) -> None:
    reply = await gateway.post(chat(NEXT_STEP, temperature=0), ("x-serac-debug", "true"))
    assert reply.one("x-serac-route") == "in_context"
    assert reply.one("x-serac-edit-id")
    (sent,) = gateway.upstream.requests
    instruction, question = json.loads(sent.body)["messages"]
    assert instruction["role"] == "system"
    assert f"- {EDITED_QUESTION} Lisa Simpson" in instruction["content"]
    assert question == {"role": "user", "content": NEXT_STEP}
    assert json.loads(sent.body)["temperature"] == 0


async def test_its_stream_passes_through(gateway: Gateway) -> None:
    reply = await gateway.post(chat(NEXT_STEP, stream=True))
    assert reply.one("x-serac-route") == "in_context"
    assert json.loads(gateway.upstream.requests[0].body)["stream"] is True


async def test_what_does_not_depend_on_an_edit_reaches_the_base_model_byte_for_byte(gateway: Gateway) -> None:
    body = (
        b'{ "messages":[{"role":"user","content":"'
        + OTHER_QUESTION.encode()
        + b'"}],"top_p":1e-7,"model":"m"}'
    )
    reply = await gateway.post(body)
    assert reply.one("x-serac-route") == "base"
    assert gateway.upstream.requests[0].body == body


async def test_the_default_adds_nothing_for_the_base_model() -> None:
    async with running_gateway(depends_threshold=0.3) as running:
        await running.add(EDITED_QUESTION, "Lisa Simpson")
        reply = await running.post(chat(NEXT_STEP))
        assert reply.one("x-serac-route") == "base"
        assert json.loads(running.upstream.requests[0].body) == chat(NEXT_STEP)


def edit(kind: EditKind = EditKind.FACT, target: str = "Lisa Simpson") -> Edit:
    draft = EditDraft(prompt="Who is mayor?", target_new=target, kind=kind)
    return first_version(draft, namespace="default")


def rewritten(body: bytes, *edits: Edit, endpoint: Endpoint = Endpoint.CHAT) -> bytes:
    return with_edits(PROTOCOLS[endpoint], RequestBody(body).members, edits)


def test_everything_but_the_note_keeps_its_bytes_and_order() -> None:
    user = b'{"role":"user",  "content":"hi \\u00e9 1e-7", "x":1e-7}'
    body = b'{"seed":1e-7,"messages":[' + user + b'],"unknown":{"a" : 1.50},"model":"m"}'
    made = rewritten(body, edit())
    assert made.startswith(b'{"seed":1e-7,"messages":[{"role":"system"')
    assert made.endswith(user + b'],"unknown":{"a" : 1.50},"model":"m"}')


@pytest.mark.parametrize(
    "content", ["Be brief.", [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Really."}]]
)
@pytest.mark.parametrize("role", ["system", "developer"])
def test_the_note_goes_to_the_end_of_the_clients_system_message(role: str, content: object) -> None:
    body = {"messages": [{"role": role, "content": content}, {"role": "user", "content": "hi"}]}
    made = msgspec.json.decode(rewritten(msgspec.json.encode(body), edit()))
    first, last = made["messages"]
    assert first["role"] == role
    if isinstance(content, str):
        assert first["content"].startswith("Be brief.\n\nTake the following as true")
    else:
        assert first["content"][:-1] == content
        assert first["content"][-1]["text"].startswith("Take the following as true")
    assert last == {"role": "user", "content": "hi"}


@pytest.mark.parametrize("prompt", ["The mayor was born in", ["The mayor was born in"]])
def test_a_completion_gets_the_edit_at_the_head_of_its_prompt(prompt: object) -> None:
    body = msgspec.json.encode({"prompt": prompt, "n": 1})
    made = msgspec.json.decode(rewritten(body, edit(), endpoint=Endpoint.COMPLETIONS))
    assert made["prompt"].startswith("Take the following as true")
    assert made["prompt"].endswith("Lisa Simpson\n\nThe mayor was born in")


def test_rules_are_stated_as_rules() -> None:
    body = msgspec.json.encode(chat("hi"))
    made = rewritten(body, edit(EditKind.SUPPRESSION, "No comment."), edit(EditKind.INSTRUCTION, "Be kind."))
    note = msgspec.json.decode(made)["messages"][0]["content"]
    assert note.splitlines() == [
        'Do not tell what answers "Who is mayor?"; if asked, say: No comment.',
        'Whenever you speak of "Who is mayor?": Be kind.',
    ]


@pytest.mark.parametrize(
    ("endpoint", "member", "input_member"),
    [(Endpoint.RESPONSES, "instructions", "input"), (Endpoint.MESSAGES, "system", "messages")],
)
@pytest.mark.parametrize("own", [None, "Be brief."])
def test_responses_and_messages_get_the_edit_in_their_instructions(
    endpoint: Endpoint, member: str, input_member: str, own: str | None
) -> None:
    for body in (
        {member: own, input_member: "hi"},
        {input_member: "hi"} if own is None else {input_member: "hi", member: own},
    ):
        made = msgspec.json.decode(rewritten(msgspec.json.encode(body), edit(), endpoint=endpoint))
        assert made[input_member] == "hi"
        assert made[member].startswith("Take the following as true" if own is None else "Be brief.\n\nTake")
        assert made[member].endswith("Who is mayor? Lisa Simpson")


def test_the_note_is_one_more_block_of_a_system_in_blocks() -> None:
    blocks = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    body = msgspec.json.encode({"system": blocks, "messages": []})
    made = msgspec.json.decode(rewritten(body, edit(), endpoint=Endpoint.MESSAGES))
    assert made["system"][:-1] == blocks
    assert made["system"][-1]["text"].startswith("Take the following as true")


async def test_a_next_step_by_either_api_reaches_the_base_model_with_the_edit_stated(
    gateway: Gateway,
) -> None:
    request = {"model": "m", "input": NEXT_STEP}
    reply = await gateway.post(request, target="/v1/responses")
    assert reply.one("x-serac-route") == "in_context"
    sent = json.loads(gateway.upstream.requests[-1].body)
    assert f"- {EDITED_QUESTION} Lisa Simpson" in sent.pop("instructions")
    assert sent == request
    message = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": NEXT_STEP}]}
    reply = await gateway.post(message, target="/v1/messages")
    assert reply.one("x-serac-route") == "in_context"
    sent = json.loads(gateway.upstream.requests[-1].body)
    assert f"- {EDITED_QUESTION} Lisa Simpson" in sent.pop("system")
    assert sent == message


INSTRUCTED = GatewayConfig(routing=RoutingConfig(instructions=InstructionPolicy.IN_CONTEXT))
RULE = "Mention that the office is vacant."


@pytest.fixture
async def instructed() -> AsyncIterator[Gateway]:
    async with running_gateway(config=INSTRUCTED) as running:
        await running.add(EDITED_QUESTION, RULE, kind=EditKind.INSTRUCTION)
        yield running


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("target", ENDPOINTS)
async def test_an_instruction_is_added_to_the_base_models_own_answer(
    instructed: Gateway, target: str, stream: bool
) -> None:
    request = {
        "/v1/chat/completions": chat(EDITED_QUESTION),
        "/v1/completions": {"model": "m", "prompt": EDITED_QUESTION},
        "/v1/responses": {"model": "m", "input": EDITED_QUESTION},
        "/v1/messages": {**chat(EDITED_QUESTION), "max_tokens": 9},
    }[target]
    reply = await instructed.post({**request, "stream": stream}, ("x-serac-debug", "true"), target=target)
    assert (reply.one("x-serac-route"), reply.one("x-serac-reason")) == ("in_context", "instruction")
    assert reply.one("x-serac-edit-id")
    (sent,) = instructed.upstream.requests
    assert RULE.encode() in sent.body
    assert json.loads(sent.body)["stream"] is stream
    assert instructed.counterfactual.calls == []


@pytest.mark.parametrize(
    "form",
    [
        {"response_format": {"type": "json_object"}},
        {"logprobs": True},
        {"n": 3, "tools": [{"type": "function"}], "tool_choice": "required"},
    ],
)
async def test_it_is_added_whatever_form_of_answer_is_demanded(instructed: Gateway, form: dict) -> None:
    reply = await instructed.post(chat(EDITED_QUESTION, **form))
    assert reply.one("x-serac-route") == "in_context"
    assert RULE.encode() in instructed.upstream.requests[0].body


@pytest.mark.parametrize("given", [EDITED_QUESTION, [{"role": "user", "content": EDITED_QUESTION}]])
async def test_a_chat_whose_turns_are_named_input_gets_it_there(instructed: Gateway, given: object) -> None:
    reply = await instructed.post({"model": "m", "input": given})
    assert reply.one("x-serac-route") == "in_context"
    first, question = json.loads(instructed.upstream.requests[0].body)["input"]
    assert (first["role"], question) == ("system", {"role": "user", "content": EDITED_QUESTION})
    assert first["content"].endswith(RULE)


async def test_a_first_message_without_a_role_is_left_as_it_is(instructed: Gateway) -> None:
    question = {"role": "user", "content": EDITED_QUESTION}
    await instructed.post({"model": "m", "messages": [{"content": "Hello."}, question]})
    sent = json.loads(instructed.upstream.requests[0].body)["messages"]
    assert sent[-1] == question
    assert [message.get("role") for message in sent] in (["system", None, "user"], [None, "user"])


def not_following(edit: Edit, query: Query) -> str:
    raise not_followed(edit.id)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_instruction_that_the_small_model_does_not_follow_is_stated_to_the_base_model(
    stream: bool,
) -> None:
    model = ScriptedCounterfactualModel(not_following)
    async with running_gateway(counterfactual=model) as running:
        await running.add(EDITED_QUESTION, RULE, kind=EditKind.INSTRUCTION)
        reply = await running.post(chat(EDITED_QUESTION, stream=stream), ("x-serac-debug", "true"))
        assert (reply.one("x-serac-route"), reply.one("x-serac-reason")) == (
            "in_context",
            "instruction not followed",
        )
        assert len(model.calls) == 1
        assert RULE.encode() in running.upstream.requests[0].body


async def test_one_that_it_follows_reaches_no_base_model() -> None:
    model = ScriptedCounterfactualModel(lambda edit, query: "The office is vacant.")
    async with running_gateway(counterfactual=model) as running:
        await running.add(EDITED_QUESTION, RULE, kind=EditKind.INSTRUCTION)
        reply = await running.post(chat(EDITED_QUESTION))
        assert reply.one("x-serac-route") == "counterfactual"
        assert running.upstream.requests == []
