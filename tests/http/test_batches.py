"""Several prompts in one request of /v1/completions: each is decided by itself, and one response has all."""

from __future__ import annotations

import gzip
import json

import openai
import pytest

from serac_gateway.config.model import GatewayConfig, InstructionPolicy, RoutingConfig
from serac_gateway.domain.edits import Edit, EditKind
from serac_gateway.domain.queries import Query
from serac_gateway.models.counterfactual.declines import not_followed
from serac_gateway.testing import ReceivedRequest, ScriptedConnection, ScriptedCounterfactualModel
from tests.http.running_gateway import (
    EDITED_QUESTION,
    NEW_ANSWER,
    OTHER_QUESTION,
    Gateway,
    running_gateway,
)

TARGET = "/v1/completions"
THIRD = "What is the boiling point of water?"


async def complete(request: ReceivedRequest, connection: ScriptedConnection) -> None:
    """Answers each prompt n times with the prompt itself in capitals."""
    body = json.loads(request.body)
    prompts = body["prompt"] if isinstance(body["prompt"], list) else [body["prompt"]]
    texts = [prompt.upper() for prompt in prompts for _ in range(body.get("n", 1))]
    choices = [
        {"index": index, "text": text, "finish_reason": "length", "logprobs": None}
        for index, text in enumerate(texts)
    ]
    reply = json.dumps({"object": "text_completion", "choices": list(reversed(choices))}).encode()
    await connection.whole(
        200, gzip.compress(reply), ("content-type", "application/json"), ("content-encoding", "gzip")
    )


def batch(*prompts: str, **parameters: object) -> dict:
    return {"model": "m", "prompt": list(prompts), "max_tokens": 50, **parameters}


async def test_prompts_that_no_edit_governs_go_to_the_base_model_together(editing: Gateway) -> None:
    editing.upstream.script = complete
    body = batch(OTHER_QUESTION, EDITED_QUESTION, THIRD, n=2, user="u")
    reply = await editing.post(body, target=TARGET)
    assert reply.status == 200
    assert [choice["text"] for choice in reply.json["choices"]] == [
        OTHER_QUESTION.upper(), OTHER_QUESTION.upper(), NEW_ANSWER, NEW_ANSWER, THIRD.upper(), THIRD.upper(),
    ]  # fmt: skip
    assert [choice["index"] for choice in reply.json["choices"]] == list(range(6))
    assert reply.json["choices"][0]["finish_reason"] == "length"
    assert reply.one("x-serac-route") == "counterfactual"
    (request,) = editing.upstream.requests
    assert json.loads(request.body) == body | {"prompt": [OTHER_QUESTION, THIRD], "stream": False}


async def test_the_openai_client_streams_the_choices_of_all_prompts(editing: Gateway) -> None:
    editing.upstream.script = complete
    async with openai.AsyncOpenAI(base_url=f"{editing.url}/v1", api_key="k") as client:
        texts = {0: "", 1: ""}
        async for chunk in await client.completions.create(
            model="m",
            prompt=[EDITED_QUESTION, OTHER_QUESTION],
            stream=True,
            stream_options={"include_usage": True},
        ):
            for choice in chunk.choices:
                texts[choice.index] += choice.text
    assert texts == {0: NEW_ANSWER, 1: OTHER_QUESTION.upper()}
    assert "stream_options" not in json.loads(editing.upstream.requests[0].body)


async def test_a_batch_that_edits_govern_whole_asks_no_upstream(editing: Gateway) -> None:
    reply = await editing.post(batch(EDITED_QUESTION, EDITED_QUESTION), target=TARGET)
    assert [choice["text"] for choice in reply.json["choices"]] == [NEW_ANSWER] * 2
    assert editing.upstream.requests == []


@pytest.mark.parametrize(
    "body",
    [
        batch(OTHER_QUESTION, THIRD, stream=True),
        batch(EDITED_QUESTION, OTHER_QUESTION, echo=True),
        batch(*[EDITED_QUESTION] * 65),
        batch(EDITED_QUESTION, ""),
    ],
    ids=["no edit governs", "a form that cannot be given", "too many", "an empty prompt"],
)
async def test_other_batches_pass_unchanged(editing: Gateway, body: dict) -> None:
    if "" in body["prompt"]:
        editing.upstream.script = complete
        reply = await editing.post(body, target=TARGET)
        assert [choice["text"] for choice in reply.json["choices"]] == [NEW_ANSWER, ""]
        return
    reply = await editing.post(body, target=TARGET)
    assert reply.json == json.loads(editing.upstream.requests[0].body) == body
    assert reply.one("x-serac-route") in ("base", "bypass")


@pytest.mark.parametrize("answer", [b"no JSON", b'{"choices":[]}'])
@pytest.mark.parametrize("status", [200, 400])
async def test_where_the_base_model_fails_it_is_sent_the_whole_batch(
    editing: Gateway, answer: bytes, status: int
) -> None:
    async def fail_first(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        is_first = len(editing.upstream.requests) == 1
        await connection.whole(status if is_first else 200, answer if is_first else request.body)

    editing.upstream.script = fail_first
    body = batch(EDITED_QUESTION, OTHER_QUESTION)
    reply = await editing.post(body, ("x-serac-debug", "true"), target=TARGET)
    assert (reply.json, reply.one("x-serac-reason")) == (body, "answer failed")


RULE = "Mention that it takes ten minutes."


@pytest.mark.parametrize("with_fact", [True, False])
async def test_an_instruction_is_stated_before_its_own_prompt_alone(with_fact: bool) -> None:
    config = GatewayConfig(routing=RoutingConfig(instructions=InstructionPolicy.IN_CONTEXT))
    async with running_gateway(config=config) as gateway:
        gateway.upstream.script = complete
        await gateway.add(OTHER_QUESTION, RULE, kind=EditKind.INSTRUCTION)
        if with_fact:
            await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        reply = await gateway.post(batch(THIRD, EDITED_QUESTION, OTHER_QUESTION), target=TARGET)
        sent = json.loads(gateway.upstream.requests[0].body)["prompt"]
    assert reply.one("x-serac-route") == ("counterfactual" if with_fact else "in_context")
    plain = [THIRD] if with_fact else [THIRD, EDITED_QUESTION]
    assert sent[:-1] == plain
    assert sent[-1].endswith(f"{RULE}\n\n{OTHER_QUESTION}")


async def test_an_instruction_of_a_batch_that_is_not_followed_is_stated() -> None:
    def answer(edit: Edit, query: Query) -> str:
        if edit.kind is EditKind.INSTRUCTION:
            raise not_followed(edit.id)
        return edit.target_new

    async with running_gateway(counterfactual=ScriptedCounterfactualModel(answer)) as gateway:
        gateway.upstream.script = complete
        await gateway.add(OTHER_QUESTION, RULE, kind=EditKind.INSTRUCTION)
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        reply = await gateway.post(batch(OTHER_QUESTION, EDITED_QUESTION), target=TARGET)
        (sent,) = (json.loads(request.body)["prompt"] for request in gateway.upstream.requests)
    assert [text.endswith(f"{RULE}\n\n{OTHER_QUESTION}") for text in sent] == [True]
    first, second = (choice["text"] for choice in reply.json["choices"])
    assert first == sent[0].upper()
    assert second == NEW_ANSWER
