"""A request that asks for a form in words gets it, or goes where the composite policy says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from serac_gateway.config.model import CompositePolicy, GatewayConfig, RoutingConfig
from serac_gateway.testing import ScriptedCounterfactualModel
from tests.http.modes import MODES, Mode
from tests.http.running_gateway import (
    EDITED_QUESTION,
    ENDPOINTS,
    OTHER_QUESTION,
    Gateway,
    chat,
    running_gateway,
)

MAYOR = "Lisa Simpson"
POLICIES = {policy: GatewayConfig(routing=RoutingConfig(composite=policy)) for policy in CompositePolicy}
IN_CONTEXT = POLICIES[CompositePolicy.IN_CONTEXT_FOR_SEVERAL]
ALONE = POLICIES[CompositePolicy.COUNTERFACTUAL_ONLY]


def text_of(reply: object) -> str:
    content: str = json.loads(reply.body)["choices"][0]["message"]["content"]  # type: ignore[attr-defined]
    return content


async def answered(gateway: Gateway, question: str, **parameters: object) -> str:
    await gateway.add(EDITED_QUESTION, MAYOR)
    reply = await gateway.post(chat(question, **parameters))
    assert reply.one("x-serac-route") == "counterfactual"
    return text_of(reply)


@pytest.mark.parametrize("worker", [False, True])
async def test_json_that_is_asked_for_in_words_has_the_given_key(tmp_path: Path, worker: bool) -> None:
    """The same through a worker, which gets the form by the call between processes."""
    async with running_gateway(config=ALONE, form_heads=tmp_path, through_worker=worker) as gateway:
        text = await answered(gateway, f'{EDITED_QUESTION} As JSON, "mayor".')
    assert json.loads(text) == {"mayor": MAYOR}


async def test_a_system_prompt_orders_the_form_too(tmp_path: Path) -> None:
    """The form of every answer, which system prompts order, is read there."""
    async with running_gateway(config=ALONE, form_heads=tmp_path) as gateway:
        await gateway.add(EDITED_QUESTION, MAYOR)
        messages = [
            {"role": "system", "content": "Your replies: capitals."},
            {"role": "user", "content": EDITED_QUESTION},
        ]
        assert text_of(await gateway.post({"model": "m", "messages": messages})) == MAYOR.upper()


async def test_the_model_is_asked_without_the_words_about_the_form(tmp_path: Path) -> None:
    """It was trained on questions, and judges a yes/no question only if it is the whole text."""
    model = ScriptedCounterfactualModel()
    async with running_gateway(config=ALONE, form_heads=tmp_path, counterfactual=model) as gateway:
        await answered(gateway, f"{EDITED_QUESTION} As JSON.")
    ((_, query),) = model.calls
    assert query.text == EDITED_QUESTION


async def test_a_form_that_a_value_cannot_have_goes_to_the_base_model_with_the_edit(tmp_path: Path) -> None:
    """With an upstream the default policy states the edit, and the base model makes the form."""
    async with running_gateway(config=IN_CONTEXT, form_heads=tmp_path) as gateway:
        await gateway.add(EDITED_QUESTION, MAYOR)
        reply = await gateway.post(chat(f"{EDITED_QUESTION} Table."), ("x-serac-debug", "true"))
        assert (reply.one("x-serac-route"), reply.one("x-serac-reason")) == ("in_context", "form")
        assert reply.one("x-serac-edit-id")
        system, question = json.loads(gateway.upstream.requests[0].body)["messages"]
    assert MAYOR in system["content"]
    assert question["content"] == f"{EDITED_QUESTION} Table."


async def test_such_a_request_gets_the_plain_fact_where_edits_alone_answer(tmp_path: Path) -> None:
    """A base model that cannot use an edit would say something else than the fact."""
    async with running_gateway(config=ALONE, form_heads=tmp_path) as gateway:
        assert MAYOR in await answered(gateway, f"{EDITED_QUESTION} Table.")


async def test_such_a_request_passes_unchanged_where_composite_requests_do(tmp_path: Path) -> None:
    """The policy says so for all that edits alone do not answer."""
    passing = POLICIES[CompositePolicy.PASS_THROUGH]
    async with running_gateway(config=passing, form_heads=tmp_path) as gateway:
        await gateway.add(EDITED_QUESTION, MAYOR)
        body = json.dumps(chat(f"{EDITED_QUESTION} Table.")).encode()
        assert (await gateway.post(body)).one("x-serac-route") == "base"
        assert gateway.upstream.requests[0].body == body


async def test_yes_or_no_without_a_verdict_is_left_to_the_base_model_with_the_edit(tmp_path: Path) -> None:
    """Only the answer shows that there is no verdict; nothing has been sent then."""
    model = ScriptedCounterfactualModel(lambda edit, query: edit.target_new)
    async with running_gateway(config=IN_CONTEXT, form_heads=tmp_path, counterfactual=model) as gateway:
        await gateway.add(EDITED_QUESTION, MAYOR)
        reply = await gateway.post(chat(f"{EDITED_QUESTION} Yesno.", stream=True), ("x-serac-debug", "true"))
        assert (reply.one("x-serac-route"), reply.one("x-serac-reason")) == ("in_context", "form")
        assert MAYOR in gateway.upstream.requests[0].body.decode()


async def test_several_answers_have_no_form_of_a_whole_reply(tmp_path: Path) -> None:
    """Two objects below each other are no JSON."""
    fire = "Who is the fire chief of Springfield?"
    async with running_gateway(config=IN_CONTEXT, form_heads=tmp_path) as gateway:
        await gateway.add(EDITED_QUESTION, MAYOR)
        await gateway.add(fire, "Ralph Wiggum")
        reply = await gateway.post(chat(f"{EDITED_QUESTION} {fire} As JSON."))
        assert reply.one("x-serac-route") == "in_context"
        sent = gateway.upstream.requests[0].body.decode()
    assert MAYOR in sent
    assert "Ralph Wiggum" in sent


@pytest.mark.parametrize("stream", [False, True])
async def test_stop_texts_and_limits_are_on_the_form(tmp_path: Path, stream: bool) -> None:
    """The client sees the form, so its limits count from there."""
    async with running_gateway(config=ALONE, form_heads=tmp_path) as gateway:
        await gateway.add(EDITED_QUESTION, MAYOR)
        question = f'{EDITED_QUESTION} As JSON, "mayor".'
        reply = await gateway.post(chat(question, stop=[" Simpson"], stream=stream))
    body = reply.body.decode()
    assert "mayor" in body
    assert "Lisa" in body
    assert "Simpson" not in body


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
async def test_a_request_out_of_scope_passes_byte_for_byte_whatever_form_it_wants(
    tmp_path: Path, mode: Mode
) -> None:
    """Forms are read of answers alone."""
    async with mode.gateway(form_heads=tmp_path) as gateway:
        body = (
            b'{ "model":"m","messages":[{"role":"user","content":"'
            + OTHER_QUESTION.encode()
            + b' As JSON."}] }'
        )
        reply = await gateway.post(body)
        assert reply.one("x-serac-route") != "counterfactual"
        assert gateway.upstream.requests[-1].body == body


@pytest.mark.parametrize("path", ENDPOINTS)
async def test_every_api_gives_the_form(tmp_path: Path, path: str) -> None:
    """The form is no matter of one API."""
    question = f'{EDITED_QUESTION} As JSON, "mayor".'
    bodies = {
        "/v1/completions": {"prompt": question},
        "/v1/responses": {"input": question},
        "/v1/messages": {"messages": [{"role": "user", "content": question}], "max_tokens": 50},
    }
    async with running_gateway(config=ALONE, form_heads=tmp_path) as gateway:
        await gateway.add(EDITED_QUESTION, MAYOR)
        reply = await gateway.post({"model": "m", **bodies.get(path, chat(question))}, target=path)
    assert json.dumps(json.dumps({"mayor": MAYOR}))[1:-1] in reply.body.decode()
