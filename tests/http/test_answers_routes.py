"""Who answers which request, what the headers report, and what happens when we fail (cases 9, 15-17, 20)."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest

from serac_gateway.config.model import FailurePolicy, GatewayConfig, ModelsConfig, RoutingConfig, ServerConfig
from serac_gateway.domain.edits import Edit
from serac_gateway.errors import ModelUnavailableError
from serac_gateway.observability.counts import RouteCount
from serac_gateway.testing import ScriptedCounterfactualModel
from tests.http.running_gateway import (
    EDITED_QUESTION,
    NEW_ANSWER,
    OTHER_QUESTION,
    Gateway,
    chat,
    running_gateway,
)
from tests.http.wire import connected, eventually, request_bytes

DEBUG = ("x-serac-debug", "true")
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}

IMAGE = {"type": "image_url", "image_url": {"url": "data:"}}


def in_scope(**parameters: object) -> dict:
    return chat(EDITED_QUESTION, **parameters)


async def test_only_the_query_in_scope_is_answered_here(editing: Gateway) -> None:
    inside = await editing.post(in_scope())
    outside = await editing.post(chat(OTHER_QUESTION))
    assert inside.one("x-serac-route") == "counterfactual"
    assert inside.json["choices"][0]["message"]["content"] == NEW_ANSWER
    assert outside.one("x-serac-route") == "base"
    assert len(editing.upstream.requests) == 1


async def test_a_target_longer_than_our_own_limit_is_said_whole(editing: Gateway) -> None:
    target = " ".join(f"word{number}" for number in range(200))
    await editing.add("Which words are on the list?", target)
    whole = await editing.post(chat("Which words are on the list?"))
    assert whole.json["choices"][0] | {"message": None} == {
        "index": 0, "finish_reason": "stop", "logprobs": None, "message": None
    }  # fmt: skip
    assert whole.json["choices"][0]["message"]["content"] == target
    cut = await editing.post(chat("Which words are on the list?", max_tokens=5))
    assert cut.json["choices"][0]["finish_reason"] == "length"


async def test_an_edit_acts_in_its_namespace_only(editing: Gateway) -> None:
    await editing.add(EDITED_QUESTION, "Bart.", namespace="other")
    other = await editing.post(in_scope(), ("x-serac-namespace", "other"))
    third = await editing.post(in_scope(), ("x-serac-namespace", "third"))
    assert other.json["choices"][0]["message"]["content"] == "Bart."
    assert third.one("x-serac-route") == "base"


async def test_details_are_shown_on_request_only(editing: Gateway) -> None:
    (edit,) = editing.active_edits._namespaces["default"].edits.values()
    quiet = await editing.post(in_scope())
    detailed = await editing.post(in_scope(), DEBUG)
    base = await editing.post(chat(OTHER_QUESTION), DEBUG)
    quiet_names = {name for name, _ in quiet.headers if name.startswith("x-serac-")}
    assert quiet_names == {"x-serac-route", "x-serac-schema", "x-serac-request-id"}
    assert detailed.one("x-serac-edit-id") == edit.id
    assert detailed.one("x-serac-edit-version") == "1"
    assert float(detailed.one("x-serac-scope-probability")) > 0.9
    assert detailed.one("x-serac-reason") == "in scope"
    assert [part.split(";dur=")[0] for part in detailed.one("x-serac-timings").split(", ")] == [
        "encode", "search", "classify", "decide",
    ]  # fmt: skip
    assert detailed.one("x-serac-read") == f"chars={len(EDITED_QUESTION)}"
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": OTHER_QUESTION}]
    instructed = await editing.post(chat(OTHER_QUESTION, messages=messages), DEBUG)
    assert instructed.one("x-serac-read") == f"chars={len(OTHER_QUESTION)}, instructions={len('Be brief.')}"
    assert not base.all("x-serac-edit-id")
    assert base.one("x-serac-reason") in ("no candidate", "below threshold")


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"tools": [TOOL], "tool_choice": "required"}, "tools required"),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tools required"),
        ({"functions": [], "function_call": {"name": "f"}}, "tools required"),
        ({"response_format": {"type": "json_object"}}, "structured output"),
        ({"response_format": {"type": "json_schema", "json_schema": {}}}, "structured output"),
        ({"guided_json": {"type": "object"}}, "structured output"),
        ({"logprobs": True}, "log probabilities"),
        ({"modalities": ["text", "audio"], "audio": {"voice": "x"}}, "audio"),
        ({"n": 200}, "too many choices"),
        ({"messages": "hello"}, "malformed request"),
        ({"messages": [{"role": "assistant", "content": EDITED_QUESTION}]}, "last turn is not the user's"),
        (
            {"messages": [{"role": "user", "content": EDITED_QUESTION}, {"role": "tool", "content": "x"}]},
            "tool result turn",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}
                ]
            },
            "no text in the user turn",
        ),
    ],
)
async def test_what_cannot_be_answered_here_reaches_the_base_model_unchanged(
    editing: Gateway, parameters: dict, reason: str
) -> None:
    body = json.dumps(in_scope(**parameters)).encode()
    response = await editing.post(body, DEBUG)
    assert (response.one("x-serac-route"), response.one("x-serac-reason")) == ("bypass", reason)
    assert editing.upstream.requests[0].body == body
    assert RouteCount(route="bypass", reason=reason, count=1) in editing.counts.snapshot()


@pytest.mark.parametrize(
    "parameters",
    [
        {"tools": [TOOL]},
        {"tools": [TOOL], "tool_choice": "auto"},
        {"response_format": {"type": "text"}},
        {"logprobs": False, "logit_bias": {}, "frequency_penalty": 0, "n": 1, "stop": None},
        {"logit_bias": {"50256": -100}},
        {"frequency_penalty": 0.5, "presence_penalty": "1"},
        {"web_search_options": {"search_context_size": "low"}},
        {"temperature": 5, "top_p": 0, "seed": 2**70},
        {"max_tokens": 0, "max_completion_tokens": "many"},
        {"stop": 5, "stream": "false", "stream_options": []},
        {"model": None},
        {"user": "u", "store": True, "metadata": {}, "service_tier": "auto", "unknown": {"x": 1}},
        {"messages": [{"role": "system", "content": "Be brief."}, *chat(EDITED_QUESTION)["messages"]]},
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        IMAGE,
                        {"type": "text", "text": EDITED_QUESTION},
                    ],
                }
            ]
        },
    ],
)
async def test_hints_and_permissions_do_not_keep_an_edit_from_acting(
    editing: Gateway, parameters: dict
) -> None:
    response = await editing.post(in_scope(**parameters))
    assert response.one("x-serac-route") == "counterfactual"


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"prompt": [1, 2, 3]}, "prompt of token ids"),
        ({"prompt": [[1, 2], [3]]}, "prompt of token ids"),
        ({"prompt": EDITED_QUESTION, "echo": True}, "echo"),
        ({"prompt": EDITED_QUESTION, "suffix": "end"}, "insertion"),
        ({"prompt": EDITED_QUESTION, "logprobs": 0}, "log probabilities"),
    ],
)
async def test_text_completions_that_cannot_be_answered_here(
    editing: Gateway, parameters: dict, reason: str
) -> None:
    response = await editing.post({"model": "m", **parameters}, DEBUG, target="/v1/completions")
    assert (response.one("x-serac-route"), response.one("x-serac-reason")) == ("bypass", reason)


async def test_a_transcript_prompt_is_decided_on_its_last_question(editing: Gateway) -> None:
    prompt = f"Q: {OTHER_QUESTION}\nA: With water.\n\nQ: {EDITED_QUESTION}\nA:"
    response = await editing.post({"model": "m", "prompt": prompt}, target="/v1/completions")
    assert response.json["choices"][0]["text"] == NEW_ANSWER


async def test_a_body_over_the_limit_passes_unclassified() -> None:
    config = GatewayConfig(server=ServerConfig(max_classified_body_bytes=100_000))
    async with running_gateway(config=config) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        body = json.dumps(in_scope(padding="x" * 3_000_000)).encode()
        response = await gateway.post(body, DEBUG)
        assert response.one("x-serac-reason") == "body too long"
        assert gateway.upstream.requests[0].body == body


POLICIES = pytest.mark.parametrize("policy", list(FailurePolicy))


def policy_config(policy: FailurePolicy, **models: float) -> GatewayConfig:
    return GatewayConfig(routing=RoutingConfig(on_failure=policy), models=ModelsConfig(**models))


async def assert_follows(gateway: Gateway, policy: FailurePolicy, reason: str, **parameters: object) -> None:
    body = json.dumps(in_scope(**parameters)).encode()
    before = len(gateway.upstream.requests)
    response = await gateway.post(body, DEBUG)
    assert (response.one("x-serac-route"), response.one("x-serac-reason")) == ("bypass", reason)
    if policy is FailurePolicy.OPEN:
        assert (response.status, response.body) == (200, body)
    else:
        assert response.status == 503
        assert response.json["error"]["code"] == "model_unavailable"
        assert int(response.one("retry-after")) > 0
        assert len(gateway.upstream.requests) == before


@POLICIES
@pytest.mark.parametrize("failure", [ModelUnavailableError("no encoder"), RuntimeError("bug")])
async def test_a_decision_that_fails_follows_the_policy(policy: FailurePolicy, failure: Exception) -> None:
    async with running_gateway(config=policy_config(policy)) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        gateway.encoder.failure = failure
        await assert_follows(gateway, policy, "decision failed")
        gateway.encoder.failure = None
        gateway.classifier.failure = failure
        await assert_follows(gateway, policy, "decision failed")


@POLICIES
@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_fails_before_its_first_byte_follows_the_policy(
    policy: FailurePolicy, stream: bool
) -> None:
    def fail(edit: Edit, query: object) -> str:
        raise RuntimeError("bug")

    model = ScriptedCounterfactualModel(fail)
    async with running_gateway(config=policy_config(policy), counterfactual=model) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        await assert_follows(gateway, policy, "answer failed", stream=stream)
        assert gateway.engine_counts.open_answers == 0


@POLICIES
async def test_an_answer_that_takes_too_long_follows_the_policy(policy: FailurePolicy) -> None:
    model = ScriptedCounterfactualModel(token_delay_s=0.3)
    config = policy_config(policy, answer_timeout_s=0.2)
    async with running_gateway(config=config, counterfactual=model) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        await assert_follows(gateway, policy, "answer timeout", stream=False)


@POLICIES
async def test_edits_that_are_not_loaded_yet_follow_the_policy(policy: FailurePolicy) -> None:
    async with running_gateway(config=policy_config(policy), loaded=False) as gateway:
        await assert_follows(gateway, policy, "edits not loaded")


class HeldModel(ScriptedCounterfactualModel):
    """Answers when it is let."""

    def __init__(self) -> None:
        self.let = threading.Event()
        super().__init__(self._wait)

    def _wait(self, edit: Edit, query: object) -> str:
        assert self.let.wait(10)
        return edit.target_new


@POLICIES
async def test_a_full_queue_follows_the_policy_and_base_requests_go_on(policy: FailurePolicy) -> None:
    model = HeldModel()
    config = policy_config(policy, answer_threads=1, max_queued_answers=1)
    async with running_gateway(config=config, counterfactual=model) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        accepted = [asyncio.create_task(gateway.post(in_scope())) for _ in range(2)]
        while gateway.engine_counts.open_answers < 2:
            await asyncio.sleep(0.01)
        await assert_follows(gateway, policy, "answer queue full")
        assert (await gateway.post(chat(OTHER_QUESTION))).one("x-serac-route") == "base"
        assert not any(task.done() for task in accepted)
        model.let.set()
        routes = [(await task).one("x-serac-route") for task in accepted]
        assert routes == ["counterfactual", "counterfactual"]


@POLICIES
async def test_an_edit_retired_while_its_answer_waits_does_not_act(policy: FailurePolicy) -> None:
    model = HeldModel()
    config = policy_config(policy, answer_threads=1)
    async with running_gateway(config=config, counterfactual=model) as gateway:
        edit = await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        first = asyncio.create_task(gateway.post(in_scope()))
        while not model.calls:
            await asyncio.sleep(0.01)
        second = asyncio.create_task(gateway.post(in_scope(), DEBUG))
        while gateway.engine_counts.open_answers < 2:
            await asyncio.sleep(0.01)
        await gateway.retire(edit)
        model.let.set()
        assert (await first).one("x-serac-route") == "counterfactual"  # it had begun
        assert (await second).one("x-serac-reason") == "edit out of force"


async def test_a_client_that_leaves_the_queue_gives_its_place_up_and_is_not_answered() -> None:
    model = HeldModel()
    config = policy_config(FailurePolicy.OPEN, answer_threads=1, max_queued_answers=1)
    async with running_gateway(config=config, counterfactual=model) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        first = asyncio.create_task(gateway.post(in_scope()))
        while gateway.engine_counts.open_answers < 1:
            await asyncio.sleep(0.01)
        async with connected(gateway.url) as (_, writer):
            body = json.dumps(in_scope()).encode()
            writer.write(request_bytes(gateway.url, "POST", "/v1/chat/completions", [], body))
            while gateway.engine_counts.open_answers < 2:
                await asyncio.sleep(0.01)
        while gateway.engine_counts.open_answers > 1:
            await asyncio.sleep(0.01)
        model.let.set()
        assert (await first).one("x-serac-route") == "counterfactual"
        assert len(model.calls) == 1
        assert gateway.upstream.requests == []
        assert gateway.counts.clients_left == 1


async def test_a_client_that_leaves_a_streamed_answer_stops_the_model() -> None:
    model = ScriptedCounterfactualModel(lambda edit, query: "word " * 600, token_delay_s=0.05)  # 30 s
    config = policy_config(FailurePolicy.OPEN, answer_threads=1)
    async with running_gateway(config=config, counterfactual=model) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        async with connected(gateway.url) as (reader, writer):
            body = json.dumps(in_scope(stream=True)).encode()
            writer.write(request_bytes(gateway.url, "POST", "/v1/chat/completions", [], body))
            await reader.readuntil(b"word")
        begun = time.perf_counter()
        while gateway.engine_counts.open_answers or gateway.counts.in_flight:
            await asyncio.sleep(0.01)
        after = await gateway.post(in_scope(max_tokens=1))  # the one thread is free again
        assert after.one("x-serac-route") == "counterfactual"
        assert time.perf_counter() - begun < 10


async def test_eight_answers_at_once_all_begin_before_the_first_ends() -> None:
    model = ScriptedCounterfactualModel(lambda edit, query: "word " * 40, token_delay_s=0.05)  # 2 s
    async with running_gateway(counterfactual=model) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        times = await asyncio.gather(*(_times(gateway) for _ in range(8)))
        assert max(first_s for first_s, _ in times) < min(ended_s for _, ended_s in times)


async def test_one_of_eight_clients_that_leaves_stops_its_answer_alone() -> None:
    model = ScriptedCounterfactualModel(lambda edit, query: "word " * 60, token_delay_s=0.05)  # 3 s
    async with running_gateway(counterfactual=model) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        staying = [asyncio.create_task(gateway.post(in_scope(stream=True))) for _ in range(7)]
        async with connected(gateway.url) as (reader, writer):
            body = json.dumps(in_scope(stream=True)).encode()
            writer.write(request_bytes(gateway.url, "POST", "/v1/chat/completions", [], body))
            await reader.readuntil(b"word")
        await eventually(lambda: gateway.engine_counts.open_answers <= 7)
        assert not any(task.done() for task in staying)
        assert all(reply.body.count(b"word") == 60 for reply in await asyncio.gather(*staying))


async def _times(gateway: Gateway) -> tuple[float, float]:
    """When the first text and the end of a streamed answer came."""
    async with connected(gateway.url) as (reader, writer):
        body = json.dumps(in_scope(stream=True)).encode()
        writer.write(request_bytes(gateway.url, "POST", "/v1/chat/completions", [], body))
        await reader.readuntil(b"word")
        first_s = time.perf_counter()
        await reader.readuntil(b"[DONE]")
        return first_s, time.perf_counter()
