"""Shadow and canary over HTTP: who answers, and what headers and counts report."""

from __future__ import annotations

import pytest

from serac_gateway.domain.audiences import Caller
from serac_gateway.domain.edits import DecidedState, Edit
from serac_gateway.observability.counts import EditCount
from tests.http.running_gateway import EDITED_QUESTION, NEW_ANSWER, Gateway, chat, running_gateway

DEBUG = ("x-serac-debug", "true")


def _user(canary: Edit, *, inside: bool) -> str:
    return next(f"u{n}" for n in range(1_000) if canary.is_applied_to(Caller(name=f"user:u{n}")) is inside)


async def test_a_shadow_is_answered_by_the_base_model_named_on_request_and_counted() -> None:
    async with running_gateway() as gateway:
        shadow = await gateway.add(EDITED_QUESTION, NEW_ANSWER, state=DecidedState.SHADOW)
        reply = await gateway.post(chat(EDITED_QUESTION), DEBUG)
        quiet = await gateway.post(chat(EDITED_QUESTION))
        assert (reply.one("x-serac-route"), reply.one("x-serac-reason")) == ("base", "shadow edit")
        assert reply.one("x-serac-withheld-edit-id") == shadow.id
        assert "x-serac-withheld-edit-id" not in dict(quiet.headers)
        assert len(gateway.upstream.requests) == 2
        assert gateway.counts.edits() == [
            EditCount(namespace="default", edit_id=shadow.id, applied=0, withheld=2)
        ]


@pytest.mark.parametrize("field", ["user", "safety_identifier"])
async def test_a_canary_goes_by_the_user_that_the_request_names(field: str) -> None:
    async with running_gateway() as gateway:
        canary = await gateway.add(EDITED_QUESTION, NEW_ANSWER, state=DecidedState.CANARY, canary_share=0.5)
        for inside, route in ((True, "counterfactual"), (False, "base")):
            body = chat(EDITED_QUESTION, **{field: _user(canary, inside=inside)})
            routes = {(await gateway.post(body)).one("x-serac-route") for _ in range(3)}
            assert routes == {route}
        assert gateway.counts.edits() == [
            EditCount(namespace="default", edit_id=canary.id, applied=3, withheld=3)
        ]


async def test_a_safety_identifier_comes_before_the_older_user_field() -> None:
    async with running_gateway() as gateway:
        canary = await gateway.add(EDITED_QUESTION, NEW_ANSWER, state=DecidedState.CANARY, canary_share=0.5)
        names = {"safety_identifier": _user(canary, inside=True), "user": _user(canary, inside=False)}
        reply = await gateway.post(chat(EDITED_QUESTION, **names))
        assert reply.one("x-serac-route") == "counterfactual"


async def test_without_a_user_a_canary_goes_by_the_client_s_address() -> None:
    async with running_gateway() as gateway:
        inside: dict[bool, str] = {}
        for number in range(20):
            namespace = f"tenant{number}"
            canary = await gateway.add(
                EDITED_QUESTION, NEW_ANSWER, namespace, state=DecidedState.CANARY, canary_share=0.5
            )
            reply = await gateway.post(chat(EDITED_QUESTION), ("x-serac-namespace", namespace))
            expected = canary.is_applied_to(Caller(name="address:127.0.0.1"))
            assert reply.one("x-serac-route") == ("counterfactual" if expected else "base")
            inside[expected] = namespace
        assert set(inside) == {True, False}


async def test_the_routes_of_live_edits_are_counted_as_applied(editing: Gateway) -> None:
    await editing.post(chat(EDITED_QUESTION))
    (count,) = editing.counts.edits()
    assert (count.applied, count.withheld) == (1, 0)
