"""The tools over HTTP, with the official client and raw requests, in front of a gateway that demands keys."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from typer.testing import CliRunner

from serac_gateway.cli.main import app as serac_app
from serac_gateway.client import AsyncGatewayClient
from serac_gateway.config.model import AudienceSource, RoutingConfig
from serac_gateway.mcp_server.http import MCP_PATH, http_app
from serac_gateway.testing import ReceivedRequest, ScriptedConnection, ScriptedUpstream
from tests.http.four_eyes import People, running_people
from tests.unit.mcp_server.test_tools import NEW, QUESTION, TOOLS, called

INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}
COMMAND = [sys.executable, "-m", "serac_gateway", "mcp", "--http"]
ACCEPTS = {"accept": "application/json, text/event-stream", "content-type": "application/json"}


@contextmanager
def served(gateway_url: str, *options: str, key_of_server: str = "") -> Iterator[str]:
    """`serac mcp --http` in a process of its own; its URL."""
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", "--url", gateway_url, *options],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"COLUMNS": "300", "SERAC_API_KEY": key_of_server},
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        match = re.match(r"serving MCP on (http://\S+/mcp)", line)
        assert match, line
        yield match[1]
    finally:
        process.terminate()
        process.wait(30)
        process.stderr.close()


@pytest.fixture(scope="module")
def people() -> Iterator[People]:
    routing = RoutingConfig(audience_from={"region": AudienceSource(header="x-region", values=("eu", "us"))})
    with running_people(routing=routing) as running:
        yield running


@pytest.fixture(scope="module")
def url(people: People) -> Iterator[str]:
    """Of a server in whose environment there is an admin's key, which no caller may act under."""
    with served(people.locked.url, key_of_server=people.locked.admin) as running:
        yield running


@asynccontextmanager
async def client_of(url: str, key: str | None, **headers: str) -> AsyncIterator[Client]:
    sent = headers | ({} if key is None else {"authorization": f"Bearer {key}"})
    async with (
        httpx2.AsyncClient(headers=sent, timeout=30) as http,
        Client(streamable_http_client(url, http_client=http), read_timeout_seconds=30) as client,
    ):
        yield client


def with_client(
    url: str, key: str | None, work: Callable[[Client], Coroutine[Any, Any, None]], *, namespace: str = "free"
) -> None:
    async def run() -> None:
        async with client_of(url, key, **{"x-serac-namespace": namespace}) as client:
            await work(client)

    asyncio.run(run())


def post(url: str, key: str | None = None, body: object = INITIALIZE, **headers: str) -> httpx.Response:
    sent = ACCEPTS | headers | ({} if key is None else {"authorization": f"Bearer {key}"})
    return httpx.post(url, json=body, headers=sent, timeout=30)


def test_the_official_client_has_the_tools_and_none_that_decides(people: People, url: str) -> None:
    async def work(client: Client) -> None:
        assert {tool.name for tool in (await client.list_tools()).tools} == set(TOOLS)
        failed, text = await called(client, "approve_proposal", proposal_id="pr_0")
        assert (failed, "approve_proposal" in text) == (True, True)

    with_client(url, people.ann, work)


def test_callers_at_once_act_each_under_their_own_key(people: People, url: str) -> None:
    """Proposals name who called, not who the server is; each caller keeps to the namespaces of its key."""
    bound = people.locked.key("edit", "acme", name="Agent of acme")

    async def propose(key: str, namespace: str, number: int) -> tuple[bool, Any]:
        async with client_of(url, key, **{"x-serac-namespace": namespace}) as client:
            return await called(
                client, "propose_edit", **{**NEW, "prompt": f"{QUESTION} {number}", "reason": f"R{number}"}
            )

    async def run() -> list[tuple[bool, Any]]:
        calls = [propose(people.ann, "free", 1), propose(bound, "acme", 2), propose(people.bo, "free", 3)]
        return list(await asyncio.gather(*calls))

    authors = [proposal["author"].partition(" (key")[0] for _, proposal in asyncio.run(run())]
    assert authors == ["Ann Lee", "Agent of acme", "Bo"]
    assert people.edits("free") == {}


def test_the_role_the_namespaces_and_the_rate_of_the_key_bind_at_the_door(people: People, url: str) -> None:
    chat = people.locked.key("chat", "*", name="Chat")
    refused = post(url, chat)
    assert (refused.status_code, "role 'edit'" in refused.json()["detail"]) == (403, True)
    slow = people.locked.key("edit", "*", name="Slow", requests_per_minute=2)
    replies = [post(url, slow) for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert int(replies[2].headers["retry-after"]) > 0


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer sk-serac-000000000000-0000000000000000000000000000000000000000000"},
        {"authorization": "Bearer eyJhbGciOiJub25lIn0.e30."},
        {"authorization": "Basic YTpi"},
        {"x-api-key": "none"},
    ],
)
def test_without_a_key_of_the_gateway_there_is_nothing_to_see(url: str, headers: dict[str, str]) -> None:
    """Not even the list of tools; and the key in the server's environment helps nobody."""
    for body in (INITIALIZE, {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}):
        refused = post(url, None, body, **headers)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer", "no OAuth is offered"
        assert refused.headers["content-type"] == "application/problem+json"
        assert "tools" not in refused.json()


def test_a_revoked_key_ends_at_the_next_message(people: People, url: str) -> None:
    reply = people.call(people.locked.admin, "POST", "/keys", json={"name": "Gone", "role": "edit"})
    key = reply.json()["text"]
    key_id = key.split("-")[2]
    assert post(url, key).status_code == 200
    assert people.call(people.locked.admin, "DELETE", f"/keys/{key_id}").status_code < 300
    statuses = [post(url, key).status_code]
    for _ in range(20):  # keys are read again after half a second
        if statuses[-1] == 401:
            break
        statuses.append(post(url, key).status_code)
        asyncio.run(asyncio.sleep(0.1))
    assert statuses[-1] == 401


def test_foreign_hosts_and_pages_are_refused_before_the_gateway_is_asked(people: People, url: str) -> None:
    assert post(url, people.ann, host="rebound.example").status_code == 421
    assert post(url, people.ann, origin="https://evil.example").status_code == 403
    assert post(url, people.ann, origin="null").status_code == 403
    options = ("--allowed-host", "mcp.example.org", "--allowed-origin", "app://agent")
    with served(people.locked.url, *options) as other:
        assert post(other, people.ann, host="mcp.example.org", origin="app://agent").status_code == 200
        assert post(other, people.ann, host="mcp.example.org:443").status_code == 200
        assert post(other, people.ann, host="mcp.example.org.evil.example").status_code == 421


@pytest.mark.parametrize("key", [{}, {"authorization": "Bearer none-of-ours"}])
async def test_a_gateway_without_keys_is_not_opened_to_other_machines(key: dict[str, str]) -> None:
    """On loopback it takes everybody for a local user, whatever is sent as a key."""

    async def let_in(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(200, b"{}")

    async with ScriptedUpstream(let_in) as gateway, AsyncGatewayClient(gateway.url) as client:
        transport = httpx.ASGITransport(http_app(client, hosts=["mcp.example.org"], origins=[]))
        async with httpx.AsyncClient(transport=transport, base_url="http://mcp.example.org") as http:
            refused = await http.post(MCP_PATH, json=INITIALIZE, headers=ACCEPTS | key)
    assert (refused.status_code, "access.required" in refused.json()["detail"]) == (403, True)


def test_a_header_that_is_there_twice_is_refused(people: People, url: str) -> None:
    twice = [*ACCEPTS.items(), ("x-api-key", people.ann), ("x-api-key", people.bo)]
    refused = httpx.post(url, json=INITIALIZE, headers=twice, timeout=30)
    assert (refused.status_code, "'x-api-key' is there twice" in refused.json()["detail"]) == (400, True)


def test_a_message_that_is_too_long_is_refused(people: People, url: str) -> None:
    assert post(url, people.ann, {**INITIALIZE, "padding": "x" * 1_000_001}).status_code == 413


def test_edits_are_proposed_for_an_audience_and_explained_for_labels(people: People, url: str) -> None:
    header = {"x-serac-namespace": "regions"}
    body = {"prompt": QUESTION, "target_new": "Ottilie", "id": "eu", "audience": {"region": ["eu"]}}
    assert people.call(people.ann, "POST", "/edits", json=body, headers=header).status_code == 201

    async def work(client: Client) -> None:
        decided = await called(client, "explain_answer", question=QUESTION, labels={"region": "eu"})
        assert decided[1]["answered_by_edit"] == "eu"
        failed, elsewhere = await called(client, "explain_answer", question=QUESTION)
        assert elsewhere["answered_by_edit"] is None
        assert [row["audience"] for row in elsewhere["for_other_audiences"]] == [{"region": ["eu"]}]
        failed, edit = await called(client, "get_edit", edit_id="eu")
        assert edit["audience"] == {"region": ["eu"]}
        failed, proposal = await called(client, "propose_edit", **NEW, audience={"region": ["us"]})
        assert not failed, proposal
        failed, text = await called(client, "propose_edit", **NEW, audience={"region": ["mars"]})
        assert (failed, "mars" in text) == (True, True)

    with_client(url, people.ann, work, namespace="regions")
    proposals = people.call(people.ann, "GET", "/proposals", headers=header).json()["proposals"]
    proposal = people.call(people.ann, "GET", f"/proposals/{proposals[0]['id']}", headers=header).json()
    fields = {field["field"]: field["after"] for field in proposal["changes"][0]["fields"]}
    assert fields["audience"] == {"region": ["us"]}


def test_without_a_gateway_it_says_so() -> None:
    with served("http://127.0.0.1:1") as lonely:
        refused = post(lonely, "sk-serac-a-b")
        assert (refused.status_code, "no gateway answers" in refused.json()["detail"]) == (503, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--http", "--host", "0.0.0.0"], "--allowed-host"),
        (["--allowed-host", "a.example"], "--http"),
        (["--http", "--resource", "https://a.example/mcp"], "go together"),
        (["--http", "--authorization-server", "https://a.example"], "go together"),
        (
            ["--http", "--resource", "mcp", "--authorization-server", "https://a.example"],
            "'mcp' is no such URL",
        ),
        (
            ["--http", "--host", "no such host", "--allowed-host", "a.example"],
            "cannot listen on 'no such host'",
        ),
    ],
)
def test_wrong_options_end_it_at_once(options: list[str], words: str) -> None:
    result = CliRunner().invoke(serac_app, ["mcp", *options])
    assert (result.exit_code, words in result.output.replace("\n", " ")) == (2, True), result.output


def test_no_session_is_kept(people: People, url: str) -> None:
    """So a message cannot be sent into another caller's."""
    reply = post(url, people.ann)
    assert "mcp-session-id" not in reply.headers
    assert json.loads(reply.text)["result"]["serverInfo"]["name"] == "serac"


def test_clients_are_led_to_the_authorization_server_of_their_tokens(people: People) -> None:
    """The document of RFC 9728, for whoever asks under an allowed host, and its URL in every 401."""
    options = (
        "--resource",
        "https://mcp.example.org/agents/mcp",
        "--authorization-server",
        "https://idp.example",
    )
    document = {
        "resource": "https://mcp.example.org/agents/mcp",
        "authorization_servers": ["https://idp.example"],
        "bearer_methods_supported": ["header"],
    }
    path = "/.well-known/oauth-protected-resource/agents/mcp"
    with served(people.locked.url, *options) as led:
        for known in (path, "/.well-known/oauth-protected-resource"):
            reply = httpx.get(httpx.URL(led).join(known), headers={"host": "mcp.example.org"}, timeout=30)
            assert (reply.status_code, reply.json()) == (200, document)
        rebound = httpx.get(httpx.URL(led).join(path), headers={"host": "rebound.example"}, timeout=30)
        assert rebound.status_code == 421
        refused = post(led)
        assert refused.status_code == 401
        challenge = refused.headers["www-authenticate"]
        assert challenge == f'Bearer resource_metadata="https://mcp.example.org{path}"'
        assert post(led, people.ann).status_code == 200
