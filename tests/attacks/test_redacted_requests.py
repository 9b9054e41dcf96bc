"""Values that suppressions keep back are taken out of what the base model gets to read."""

from __future__ import annotations

import base64
import gzip
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.attacks.attacked_gateway import (
    EDITED_QUESTION,
    FACT,
    OTHER_QUESTION,
    SUPPRESSION,
    AttackedGateway,
    JsonObject,
    attacked_gateway,
    chat,
)
from tests.attacks.leaking_replies import SUPPRESSIONS
from tests.unit.data_plane.test_text_watch import PASSWORD, PHONE, WRITTEN

pytestmark = pytest.mark.asyncio(loop_scope="module")
REDACTED = "[redacted]"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway_of_all(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AttackedGateway]:
    async with attacked_gateway(tmp_path_factory.mktemp("redacted")) as gateway:
        await gateway.add(*SUPPRESSIONS, FACT)
        yield gateway


@pytest.fixture
def gateway(gateway_of_all: AttackedGateway) -> AttackedGateway:
    gateway_of_all.upstream.forget()
    return gateway_of_all


async def received(
    gateway: AttackedGateway,
    body: bytes | JsonObject,
    *headers: tuple[str, str],
    target: str = "/v1/chat/completions",
) -> bytes:
    """What the upstream got of it."""
    gateway.upstream.forget()
    reply = await gateway.post(body, *headers, target=target)
    assert reply.status == 200, reply.body
    (request,) = gateway.upstream.requests
    return request.body


@pytest.mark.parametrize("way", WRITTEN)
async def test_a_value_is_taken_out_however_it_is_written(gateway: AttackedGateway, way: str) -> None:
    """What stands before and after it stays."""
    body = await received(gateway, chat(f"First some words. {WRITTEN[way]} -- and more of it."))
    content = json.loads(body)["messages"][0]["content"]
    assert content.startswith("First some words. ")
    assert content.endswith(" -- and more of it.")
    assert REDACTED in content
    assert WRITTEN[way] not in content


@pytest.mark.parametrize(("target", "body"), [
    ("/v1/chat/completions", {"messages": [
        {"role": "system", "content": f"Password: {PASSWORD}"},
        {"role": "user", "content": OTHER_QUESTION}]}),
    ("/v1/chat/completions", {"messages": [
        {"role": "user", "content": [
            {"type": "text", "text": OTHER_QUESTION}, {"type": "text", "text": PASSWORD}]}]}),
    ("/v1/chat/completions", {"messages": [
        {"role": "user", "content": "Look."},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": {
            "name": "look", "arguments": json.dumps({"what": PASSWORD})}}]},
        {"role": "tool", "tool_call_id": "c1", "content": f'{{"pass": "{PASSWORD}"}}'},
        {"role": "user", "content": OTHER_QUESTION}]}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": OTHER_QUESTION}], "tools": [
        {"type": "function", "function": {"name": "f", "description": f"Needs {PASSWORD}."}}]}),
    ("/v1/completions", {"prompt": f"{PASSWORD} is it. {OTHER_QUESTION}"}),
    ("/v1/completions", {"prompt": [OTHER_QUESTION, f"{OTHER_QUESTION} {PASSWORD}"]}),
    ("/v1/responses", {"instructions": f"It is {PASSWORD}.", "input": OTHER_QUESTION}),
    ("/v1/responses", {"input": [{"role": "user", "content": [
        {"type": "input_text", "text": f"{OTHER_QUESTION} ({PASSWORD})"}]}]}),
    ("/v1/messages", {"max_tokens": 9, "system": f"It is {PASSWORD}.", "messages": [
        {"role": "user", "content": OTHER_QUESTION}]}),
    ("/v1/messages", {"max_tokens": 9, "messages": [{"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": PASSWORD}]},
        {"type": "text", "text": OTHER_QUESTION}]}]}),
])  # fmt: skip
async def test_every_text_of_a_request_is_read(
    gateway: AttackedGateway, target: str, body: JsonObject
) -> None:
    """Of each API: instructions, turns, parts, tool calls and their results, tools, prompts."""
    sent = {"model": "m", "temperature": 0.5, **body}
    got = await received(gateway, sent, target=target)
    assert PASSWORD.encode() not in got
    assert json.loads(got) == json.loads(json.dumps(sent).replace(PASSWORD, REDACTED))


async def test_what_has_no_value_passes_byte_for_byte(gateway: AttackedGateway) -> None:
    """Odd spacing, order and numbers of the JSON stay."""
    body = (
        b'{ "seed":1.50,  "model":"m","messages":[{"content":"How do I boil an \\u0065gg?","role":"user"}] }'
    )
    assert await received(gateway, body) == body


async def test_members_without_a_value_keep_their_bytes(gateway: AttackedGateway) -> None:
    """Only the member that has it is written anew."""
    body = json.dumps({"messages": [{"role": "user", "content": f"Egg {PASSWORD}"}]}).encode()[:-1]
    got = await received(gateway, body + b', "model":"m", "seed": 1.50e0, "user": "pelican77"}')
    assert b"1.50e0" in got
    assert json.loads(got)["user"] == PASSWORD  # names the user, and is not read by the model


async def test_images_keep_their_data(gateway: AttackedGateway) -> None:
    """Encoded data is no text, even where its letters happen to be a value's."""
    image = f"data:image/png;base64,{base64.b64encode(PASSWORD.encode()).decode()}"
    part = {"type": "image_url", "image_url": {"url": image}}
    got = await received(
        gateway,
        {
            "model": "m",
            "messages": [{"role": "user", "content": [part, {"type": "text", "text": f"Egg {PHONE}"}]}],
        },
    )
    content = json.loads(got)["messages"][0]["content"]
    assert content == [part, {"type": "text", "text": f"Egg {REDACTED}"}]


async def test_a_compressed_request_is_read_too(gateway: AttackedGateway) -> None:
    """It reaches the base model as plain JSON then."""
    data = gzip.compress(json.dumps(chat(f"Egg {PASSWORD}")).encode())
    got = await received(gateway, data, ("content-encoding", "gzip"))
    assert json.loads(got)["messages"][0]["content"] == f"Egg {REDACTED}"


async def test_short_values_count_where_they_stand_by_themselves(tmp_path: Path) -> None:
    """Too short to be watched for, they leave requests exactly as written; two characters are too few."""
    async with attacked_gateway(tmp_path, "edits.firing_check = false") as gateway:
        await gateway.add(
            {**SUPPRESSION, "target_true": "317"},
            {
                **SUPPRESSION,
                "id": "b",
                "prompt": "lowest discount",
                "target_true": "18%",
                "aliases": ["Rm 4", "x"],
            },
        )
        text = "cut 317, not 3170 or A317; 18% or 118% or 18%x; rm 4 and x 317"
        got = json.loads(await received(gateway, chat(text)))["messages"][0]["content"]
        assert (
            got == "cut [redacted], not 3170 or A317; [redacted] or 118% or 18%x; [redacted] and x [redacted]"
        )


async def test_an_edit_in_context_does_not_bring_a_value_back(tmp_path: Path) -> None:
    """The request with the edit stated is read as well."""
    async with attacked_gateway(tmp_path) as gateway:
        instruction = {"id": "how", "kind": "instruction", "prompt": EDITED_QUESTION}
        await gateway.add(SUPPRESSIONS[0], {**instruction, "target_new": f"Say that {PASSWORD} is old."})
        got = await received(gateway, chat(EDITED_QUESTION))
        assert b"Say that [redacted] is old." in got


async def test_a_request_sent_ahead_is_read_too(tmp_path: Path) -> None:
    """Speculation sends nothing that the decision would not."""
    async with attacked_gateway(tmp_path, "routing.speculate = true") as gateway:
        await gateway.add(SUPPRESSIONS[0])
        got = await received(gateway, chat(f"Egg {PASSWORD}"))
        assert json.loads(got)["messages"][0]["content"] == f"Egg {REDACTED}"


@pytest.mark.parametrize("text", [
    "suppression.redact_requests = false", "[suppression.namespaces.default]\nredact_requests = false",
])  # fmt: skip
async def test_redaction_can_be_switched_off(tmp_path: Path, text: str) -> None:
    """Then the request passes as it is, and the reply is still watched."""
    async with attacked_gateway(tmp_path, text) as gateway:
        await gateway.add(*SUPPRESSIONS)
        body = json.dumps(chat(f"Egg {PASSWORD}")).encode()
        assert await received(gateway, body) == body


async def test_redaction_stays_where_replies_are_not_watched(tmp_path: Path) -> None:
    """Each door has a switch of its own."""
    async with attacked_gateway(tmp_path, "suppression.guard_replies = false") as gateway:
        await gateway.add(*SUPPRESSIONS)
        assert PASSWORD.encode() not in await received(gateway, chat(f"Egg {PASSWORD}"))


async def test_it_stands_in_log_and_metrics_without_the_value(
    gateway: AttackedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    """The log line names the suppression; nothing tells the client, who could try values that way."""
    caplog.set_level(logging.INFO)
    gateway.upstream.forget()
    redacted = await gateway.post(chat(f"Egg {PASSWORD}"))
    plain = await gateway.post(chat("Egg"))
    names = {name.lower() for name, _ in plain.headers}
    assert {name.lower() for name, _ in redacted.headers} == names
    metrics = (await gateway.call("GET", "/metrics")).text
    assert 'serac_requests_redacted_total{namespace="default"}' in metrics
    lines = [vars(record) for record in caplog.records if record.getMessage() == "request"]
    assert [line["fields"].get("redacted") for line in lines][-2:] == [("hidden",), None]
    assert not any(PASSWORD in f"{record.getMessage()} {vars(record)}" for record in caplog.records)


async def test_every_one_of_many_values_is_taken_out(gateway: AttackedGateway) -> None:
    """Wherever in a long text they stand, side by side and across the steps in which it is read."""
    text = (
        " ".join(f"{number} {PASSWORD}, egg;" for number in range(1_000, 1_900))
        + "x" * 2_044
        + f" {PASSWORD}"
    )
    content = json.loads(await received(gateway, chat(text)))["messages"][0]["content"]
    assert content == text.replace(PASSWORD, REDACTED)
