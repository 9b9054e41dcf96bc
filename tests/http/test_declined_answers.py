"""The counterfactual model finds that an edit does not answer a request: the base model gets it unchanged."""

from __future__ import annotations

import json
import logging

import pytest

from serac_gateway.config.model import DeclinePolicy, GatewayConfig, NamespaceRouting, RoutingConfig
from serac_gateway.domain.edits import EditKind
from serac_gateway.observability.counts import RouteCount
from serac_gateway.observability.logging import FIELDS
from serac_gateway.testing import ReceivedRequest, ScriptedConnection, ScriptedCounterfactualModel
from tests.http.running_gateway import EDITED_QUESTION, ENDPOINTS, NEW_ANSWER, OTHER_QUESTION, running_gateway
from tests.http.test_metrics import scraped

PARAPHRASE = "Who is the mayor of Springfield now?"
DEBUG = ("x-serac-debug", "true")


def declining() -> ScriptedCounterfactualModel:
    return ScriptedCounterfactualModel(declines=lambda edit, query: True)


def body_of(target: str, question: str = PARAPHRASE, **parameters: object) -> bytes:
    messages = [{"role": "user", "content": question}]
    member = {
        "/v1/completions": {"prompt": question},
        "/v1/responses": {"input": question},
    }.get(target, {"messages": messages, "max_tokens": 50})
    return json.dumps({"model": "m", **member, **parameters}).encode()


@pytest.mark.parametrize("through_worker", [False, True])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("target", ENDPOINTS)
async def test_a_declined_request_reaches_the_base_model_byte_for_byte(
    target: str, stream: bool, through_worker: bool
) -> None:
    async with running_gateway(counterfactual=declining(), through_worker=through_worker) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        body = body_of(target, stream=stream)
        reply = await gateway.post(body, DEBUG, target=target)
        assert (reply.status, reply.body) == (200, body)
        assert (reply.one("x-serac-route"), reply.one("x-serac-reason")) == ("base", "declined")
        assert gateway.upstream.requests[0].body == body
        assert len(gateway.counterfactual.calls) == 1


async def test_a_request_sent_ahead_is_sent_again_where_the_answer_is_declined() -> None:
    config = GatewayConfig(routing=RoutingConfig(speculate=True))
    async with running_gateway(config=config, counterfactual=declining()) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        body = body_of("/v1/chat/completions")
        reply = await gateway.post(body)
        assert (reply.status, reply.body, reply.one("x-serac-route")) == (200, body, "base")


async def test_it_is_counted_and_logged_and_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    async with running_gateway(counterfactual=declining()) as gateway:
        edit = await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        with caplog.at_level(logging.INFO, "serac_gateway.requests"):
            await gateway.post(body_of("/v1/chat/completions"))
        samples = await scraped(gateway)
        assert samples["serac_requests_total", "default", "declined", "base", "2xx"] == 1
        assert not [name for name, *_ in samples if name.startswith("serac_failures_total")]
        assert RouteCount(route="base", reason="declined", count=1) in gateway.counts.snapshot()
        assert gateway.counts.edits() == []  # the edit has not acted
        (line,) = [getattr(record, FIELDS) for record in caplog.records if hasattr(record, FIELDS)]
        assert (line["route"], line["reason"], line["edit"]) == ("base", "declined", edit.id)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("kind", [EditKind.SUPPRESSION, EditKind.INSTRUCTION])
async def test_a_refusal_and_an_instruction_are_never_passed_on(kind: EditKind, stream: bool) -> None:
    async with running_gateway(counterfactual=declining()) as gateway:
        await gateway.add(EDITED_QUESTION, "No comment.", kind=kind)
        reply = await gateway.post(body_of("/v1/chat/completions", stream=stream))
        assert reply.one("x-serac-route") == "counterfactual"
        assert b"comment." in reply.body
        assert gateway.upstream.requests == []


async def test_a_suppression_beside_a_declined_fact_still_refuses() -> None:
    async with running_gateway(counterfactual=declining()) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        await gateway.add(OTHER_QUESTION, "No comment.", kind=EditKind.SUPPRESSION)
        reply = await gateway.post(body_of("/v1/chat/completions", f"{PARAPHRASE} {OTHER_QUESTION}"))
        assert "No comment." in reply.json["choices"][0]["message"]["content"]
        assert gateway.upstream.requests == []


@pytest.mark.parametrize(
    ("routing", "route"),
    [
        (RoutingConfig(on_declined=DeclinePolicy.ANSWER), "counterfactual"),
        (
            RoutingConfig(namespaces={"default": NamespaceRouting(on_declined=DeclinePolicy.ANSWER)}),
            "counterfactual",
        ),
        (RoutingConfig(namespaces={"other": NamespaceRouting(on_declined=DeclinePolicy.ANSWER)}), "base"),
    ],
)
async def test_the_policy_can_leave_the_model_no_choice(routing: RoutingConfig, route: str) -> None:
    config = GatewayConfig(routing=routing)
    async with running_gateway(config=config, counterfactual=declining()) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        reply = await gateway.post(body_of("/v1/chat/completions"))
        assert reply.one("x-serac-route") == route


async def test_the_words_of_the_edit_itself_are_answered_with_it() -> None:
    async with running_gateway(counterfactual=declining()) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        reply = await gateway.post(body_of("/v1/chat/completions", "who is the mayor of springfield"))
        assert reply.one("x-serac-route") == "counterfactual"


@pytest.mark.parametrize("stream", [False, True])
async def test_several_choices_are_declined_together(stream: bool) -> None:
    async with running_gateway(counterfactual=declining()) as gateway:
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        reply = await gateway.post(body_of("/v1/chat/completions", n=3, stream=stream, temperature=1))
        assert reply.one("x-serac-route") == "base"
        assert len(gateway.counterfactual.calls) == 1


async def test_one_prompt_of_a_batch_may_be_declined() -> None:
    async def complete(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        prompts = json.loads(request.body)["prompt"]
        choices = [{"index": index, "text": text.upper()} for index, text in enumerate(prompts)]
        await connection.whole(200, json.dumps({"choices": choices}).encode())

    model = ScriptedCounterfactualModel(declines=lambda edit, query: edit.target_new != NEW_ANSWER)
    async with running_gateway(counterfactual=model) as gateway:
        gateway.upstream.script = complete
        await gateway.add(EDITED_QUESTION, NEW_ANSWER)
        await gateway.add("Which colour has the town hall of Shelbyville?", "Green.")
        declined = "Which colour has Shelbyville and the town hall?"
        prompts = [declined, OTHER_QUESTION, EDITED_QUESTION]
        reply = await gateway.post({"model": "m", "prompt": prompts}, target="/v1/completions")
        texts = [choice["text"] for choice in reply.json["choices"]]
        assert texts == [declined.upper(), OTHER_QUESTION.upper(), NEW_ANSWER]
