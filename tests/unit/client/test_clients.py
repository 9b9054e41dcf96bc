"""The typed client against a real control plane, and against one that fails by a script."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from serac_gateway.client import (
    ApiError,
    AsyncGatewayClient,
    Call,
    EditDraft,
    EditPatch,
    EditState,
    GatewayClient,
    KnownEdit,
    ProposalRecord,
    UnreachableError,
    add_edit,
    change_edit,
    decide,
    get_edit,
    get_proposal,
    list_edits,
    list_proposals,
    retire_edit,
    search_edits,
    usage,
    withdraw_proposal,
)
from serac_gateway.client.records import Edits
from serac_gateway.errors import InvalidRequestError
from serac_gateway.testing import ReceivedRequest, ScriptedConnection, ScriptedUpstream
from tests.control_plane import ControlPlane
from tests.http.four_eyes import running_people

API_PAGE = Path(__file__).parents[3] / "serac_gateway" / "docs" / "api.md"
DRAFT = EditDraft(prompt="Who runs the harbour office?", target_new="Ottilie Brandvold")
PAGE = json.dumps({"edits": [], "next_cursor": None}).encode()
BUSY = json.dumps({"type": "urn:serac:problem:store-unavailable", "detail": "no store"}).encode()

Script = Callable[[ReceivedRequest, ScriptedConnection], Awaitable[None]]


def test_the_example_of_the_documentation_prints_what_it_says(
    control_plane: ControlPlane, capsys: pytest.CaptureFixture[str]
) -> None:
    page = API_PAGE.read_text("utf-8")
    (example,) = re.findall(r"## Python client.*?```python\n(.*?)```", page, re.DOTALL)
    assert "http://127.0.0.1:8080" in example
    exec(compile(example.replace("http://127.0.0.1:8080", control_plane.url), "api.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["True", "412 precondition_failed", "retired"]
    assert all(f"`{line}`" in page for line in printed)


def test_every_call_on_edits_is_typed(control_plane: ControlPlane) -> None:
    with GatewayClient(control_plane.url + "/") as gateway:
        edit = gateway.send(add_edit(DRAFT))
        assert isinstance(edit, KnownEdit)
        assert (edit.in_force, edit.conflicts, edit.version) == (True, [], 1)
        assert gateway.send(get_edit(edit.id)).prompt == DRAFT.prompt
        assert [row.id for row in gateway.send(list_edits(state=EditState.LIVE)).edits] == [edit.id]
        assert [row.id for row in gateway.send(search_edits("HARBOUR")).edits] == [edit.id]
        near = gateway.send(search_edits("the harbour office", by_meaning=True))
        assert near.similarities is not None
        assert len(near.similarities) == len(near.edits) == 1
        decision = gateway.send(decide(DRAFT.prompt, system="Be kind."))
        assert (decision.in_scope, decision.candidates[0].edit_id) == (True, edit.id)
        assert gateway.send(usage()).edits == {"default": 1}
        changed = gateway.send(change_edit(edit.id, EditPatch(target_new="Ilse"), version=1))
        assert (changed.version, changed.target_new) == (2, "Ilse")
        assert gateway.send(retire_edit(edit.id, version=2, reason="Wrong")).reason == "Wrong"


def test_the_same_call_sent_twice_adds_once(control_plane: ControlPlane) -> None:
    """By a fresh idempotency key of its own, or by the caller's; another body under that is refused."""
    call = add_edit(DRAFT)
    with GatewayClient(control_plane.url) as gateway:
        assert gateway.send(call).id == gateway.send(call).id
        mine = add_edit(DRAFT, idempotency_key="mine")
        assert gateway.send(mine).id == gateway.send(add_edit(DRAFT, idempotency_key="mine")).id
        other = EditDraft(prompt="Who?", target_new="Ann")
        with pytest.raises(ApiError) as refused:
            gateway.send(add_edit(other, idempotency_key="mine"))
        assert (refused.value.status, refused.value.code) == (422, "idempotency_key_reused")
        assert len(gateway.send(list_edits()).edits) == 2


async def test_an_error_carries_what_the_api_says(control_plane: ControlPlane) -> None:
    async with AsyncGatewayClient(control_plane.url) as gateway:
        with pytest.raises(ApiError) as refused:
            await gateway.send(add_edit(EditDraft(prompt="x" * 3_000, target_new="a")))
    error = refused.value
    assert (error.status, error.code, error.field) == (400, "invalid_request", "prompt")
    assert error.members["limit"] == 2_000
    assert "the limit is 2,000" in error.detail
    assert error.request_id
    assert error.request_id in str(error)


def test_where_others_must_agree_a_write_is_a_proposal() -> None:
    with running_people() as people:
        with GatewayClient(people.locked.url, api_key=people.ann, namespace="default") as gateway:
            proposal = gateway.send(add_edit(DRAFT))
            assert isinstance(proposal, ProposalRecord)
            assert (proposal.needed, proposal.agreed, proposal.state) == (2, 0, "open")
            details = gateway.send(get_proposal(proposal.id))
            assert details.changes is not None
            assert {change.field for change in details.changes[0].fields} >= {"prompt", "target_new"}
            assert [row.id for row in gateway.send(list_proposals()).proposals] == [proposal.id]
            assert gateway.send(withdraw_proposal(proposal.id, reason="Mistake")).state == "withdrawn"
        with GatewayClient(people.locked.url) as nobody:
            with pytest.raises(ApiError) as refused:
                nobody.send(list_edits())
            assert (refused.value.status, refused.value.code) == (401, "invalid_api_key")


@pytest.mark.parametrize("edit_id", ["../stats", "", "a/b", "x" * 65])
def test_an_id_that_would_lead_elsewhere_is_refused_before_anything_is_sent(edit_id: str) -> None:
    with pytest.raises(InvalidRequestError):
        get_edit(edit_id)
    with pytest.raises(ValueError, match="no proposal's id"):
        get_proposal(edit_id)


async def sent(
    call: Call[Edits], *replies: Script, attempts: int = 3
) -> tuple[object, list[ReceivedRequest]]:
    """What the call gives (or the error it ends with) from a gateway with these replies in turn."""
    left = list(replies)

    async def script(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await left.pop(0)(request, connection)

    async with ScriptedUpstream(script) as server:
        url = server.url.removesuffix("/v1")

        def send() -> object:
            with GatewayClient(url, attempts=attempts) as gateway:
                try:
                    return gateway.send(call)
                except (ApiError, UnreachableError) as error:
                    return error

        return await asyncio.to_thread(send), server.requests


def reply(status: int, body: bytes, *headers: tuple[str, str]) -> Script:
    async def script(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(status, body, *headers)

    return script


async def breaks_off(request: ReceivedRequest, connection: ScriptedConnection) -> None:
    await connection.break_off()


async def test_a_call_that_can_be_repeated_is_until_it_is_answered() -> None:
    result, requests = await sent(list_edits(), reply(503, BUSY), breaks_off, reply(200, PAGE))
    assert result == Edits(edits=[], next_cursor=None)
    assert len(requests) == 3
    added, requests = await sent(add_edit(DRAFT), breaks_off, reply(400, BUSY))
    assert isinstance(added, ApiError)
    assert len({request.header("idempotency-key") for request in requests}) == 1
    assert len(requests) == 2


async def test_a_change_is_not_sent_again_once_it_may_have_been_made() -> None:
    change = change_edit("e", EditPatch(target_new="Ilse"), version=1)
    result, requests = await sent(change, breaks_off)
    assert (isinstance(result, UnreachableError), len(requests)) == (True, 1)
    result, requests = await sent(change, reply(503, BUSY))
    assert (isinstance(result, ApiError), len(requests)) == (True, 1)
    result, requests = await sent(change, reply(429, BUSY, ("retry-after", "0")), reply(412, BUSY))
    assert len(requests) == 2


async def test_attempts_end_and_a_long_wait_is_left_to_the_caller() -> None:
    result, requests = await sent(list_edits(), reply(503, BUSY), reply(503, BUSY), attempts=2)
    assert isinstance(result, ApiError)
    assert (result.code, len(requests)) == ("store_unavailable", 2)
    result, requests = await sent(list_edits(), reply(429, BUSY, ("retry-after", "3600")))
    assert isinstance(result, ApiError)
    assert (result.retry_after_s, len(requests)) == (3600.0, 1)
    with pytest.raises(ValueError, match="attempts 0"):
        GatewayClient("http://localhost", attempts=0)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (500, b"<html>", "answered 500, not as a gateway does"),
        (500, b"[" * 100_000, "answered 500, not as a gateway does"),
        (404, b'{"error": {"message": "no such path", "code": "not_found"}}', "no such path"),
        (200, b"<html>", "answered 200, not as a gateway does"),
        (200, b'{"edits": 1}', "answered 200, not as a gateway does"),
    ],
)
async def test_what_is_no_gateways_answer_is_an_error(status: int, body: bytes, words: str) -> None:
    result, _ = await sent(list_edits(), reply(status, body))
    assert isinstance(result, ApiError)
    assert words in result.detail


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "localhost:8080", "ftp://x", "http://[::1"])
async def test_no_gateway_and_no_url_are_named(url: str) -> None:
    async with AsyncGatewayClient(url, attempts=1) as gateway:
        with pytest.raises(UnreachableError, match=re.escape(url)):
            await gateway.send(list_edits())


async def test_lines_are_split_at_line_feeds_alone_however_long() -> None:
    lines = [b"x" * 200_000, "a\u2028b\x0bc".encode(), b"", b"last"]
    async with (
        ScriptedUpstream(reply(200, b"\n".join(lines))) as server,
        AsyncGatewayClient(server.url.removesuffix("/v1")) as gateway,
        gateway.stream("GET", "/serac/v1/log:export") as response,
    ):
        assert [line async for line in response.lines()] == lines


def test_it_loads_no_library_of_models_or_servers() -> None:
    done = subprocess.run(
        [sys.executable, "-c",
         "import sys, serac_gateway.client;"
         "heavy = ('numpy', 'torch', 'onnxruntime', 'litestar', 'redis', 'faiss', 'aiohttp');"
         "print([name for name in heavy if name in sys.modules])"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "[]\n"
