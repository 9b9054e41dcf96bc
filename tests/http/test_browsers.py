"""Web pages in a user's browser: what they may send to a gateway without keys, and what they may read."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest

from serac_gateway.config.model import GatewayConfig, ServerConfig
from serac_gateway.data_plane.upstream.embedded_server import EmbeddedServer
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.testing import (
    ReceivedRequest,
    ScriptedConnection,
    ScriptedLanguageModel,
    WordEncoder,
    serving,
)
from tests.control_plane import ControlPlane, fake_gateway
from tests.http.modes import Mode
from tests.http.running_gateway import EDITED_QUESTION, EVENTS, OTHER_QUESTION, Gateway, chat, running_gateway
from tests.http.wire import WireResponse, fetch
from tests.locked_gateway import running_locked_gateway

APP, OTHER_PAGE = "https://app.example", "https://evil.example"
CHAT = "/v1/chat/completions"
PAGE = (("origin", APP), ("sec-fetch-site", "cross-site"))
LISTED = GatewayConfig(server=ServerConfig(cors_origins=(APP,)))
EDIT = {"prompt": "Who runs the harbour office?", "target_new": "Ottilie"}

CHANGES = (
    ("POST", "/edits", EDIT),
    ("POST", "/edits:import", EDIT),
    ("POST", "/edits:preview", {"edit": EDIT, "queries": []}),
    ("POST", "/edits/a:verify", None),
    ("PATCH", "/edits/a", {"target_new": "x"}),
    ("DELETE", "/edits/a", None),
    ("POST", "/edits/a:purge", {}),
    ("POST", "/rollback", {"log_id": "0-0"}),
    ("POST", "/edits:retire", {"edits": []}),
    ("POST", f"/proposals/pr_{'0' * 22}:approve", {"reason": "x"}),
    ("POST", "/keys", {"name": "x", "role": "admin"}),
    ("POST", "/config:reload", None),
    ("POST", "/store:restore", EDIT),
    ("POST", "/store:reencode", None),
    ("POST", "/scope", {"queries": ["x"]}),
    ("POST", "/feedback", {"request_id": "x", "verdict": "right"}),
    ("DELETE", "/traffic", None),
)
READS = ("/edits", "/edits:export", "/log", "/stats", "/namespaces", "/store:backup", "/keys", "/replicas")


def is_refused_page(reply: httpx.Response) -> bool:
    return reply.status_code == 403 and reply.json()["type"] == "urn:serac:problem:foreign-origin"


@pytest.mark.parametrize(
    "page",
    [
        {"origin": OTHER_PAGE, "sec-fetch-site": "cross-site"},
        {"origin": OTHER_PAGE},
        {"sec-fetch-site": "cross-site"},
        {"origin": "http://localhost:3000", "sec-fetch-site": "same-site"},
        {"origin": "null"},
    ],
    ids=str,
)
def test_a_page_changes_and_reads_nothing_without_a_key(
    control_plane: ControlPlane, page: dict[str, str]
) -> None:
    for method, path, body in CHANGES:
        reply = control_plane.client.request(method, path, json=body, headers=page)
        assert is_refused_page(reply), (method, path, reply.text)
    for path in READS:
        assert is_refused_page(control_plane.client.get(path, headers=page)), path
    assert httpx.get(f"{control_plane.url}/metrics", headers=page).status_code == 403
    assert httpx.get(f"{control_plane.url}/nothing", headers=page).status_code == 403
    assert control_plane.client.get("/edits").json()["edits"] == []
    for path in ("/health/live", "/health/ready", "/serac/schema"):
        assert httpx.get(control_plane.url + path, headers=page).status_code == 200


@pytest.mark.parametrize(
    "sent_type",
    [
        None,
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/octet-stream",
        "",
    ],
)
def test_a_body_says_that_it_is_json(control_plane: ControlPlane, sent_type: str | None) -> None:
    """Browsers send these types, or none, to any host without asking it; also such as send no Origin."""
    content = b'{"prompt": "Who?", "target_new": "Ann"}'
    with httpx.Client(base_url=control_plane.client.base_url) as client:
        headers = {} if sent_type is None else {"content-type": sent_type}
        for method, path, _ in CHANGES:
            reply = client.request(method, path, content=content, headers=headers)
            assert (reply.status_code, reply.json()["field"]) == (415, "content-type"), (method, path)
            assert "content-type: application/" in reply.json()["detail"]
        assert client.get("/edits").json()["edits"] == []
        if sent_type is not None:
            empty = client.post("/config:reload", headers=headers)
            assert empty.status_code == 415


@pytest.mark.parametrize(
    ("path", "sent_type"),
    [
        ("/edits", "application/json"),
        ("/edits", "Application/JSON; charset=utf-8"),
        ("/edits:import", "application/x-ndjson"),
        ("/edits:import", "application/jsonl"),
        ("/edits:import", "application/json"),
    ],
)
def test_json_is_taken(control_plane: ControlPlane, path: str, sent_type: str) -> None:
    content = b'{"prompt": "Who?", "target_new": "Ann"}'
    reply = control_plane.client.post(path, content=content, headers={"content-type": sent_type})
    assert reply.is_success
    assert len(control_plane.client.get("/edits").json()["edits"]) == 1


def test_calls_without_a_body_need_no_type(control_plane: ControlPlane) -> None:
    reply = httpx.post(f"{control_plane.url}/serac/v1/config:reload")
    assert reply.json()["type"] == "urn:serac:problem:reload-refused"


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example"])
def test_a_name_that_was_rebound_to_this_machine_reads_and_changes_nothing(
    control_plane: ControlPlane, host: str
) -> None:
    page = {"host": host, "origin": f"http://{host}", "sec-fetch-site": "same-origin"}
    for path in ("/edits", "/store:backup", "/log"):
        reply = control_plane.client.get(path, headers=page)
        assert (reply.status_code, reply.json()["type"]) == (403, "urn:serac:problem:foreign-host")
        assert "server.allowed_hosts" in reply.json()["detail"]
    assert control_plane.client.post("/edits", json=EDIT, headers=page).status_code == 403
    assert control_plane.client.get("/edits").json()["edits"] == []


async def test_a_page_spends_nothing_on_v1_unless_its_origin_is_listed(mode: Mode) -> None:
    for headers, text in (
        ((*PAGE, ("content-type", "text/plain")), OTHER_QUESTION),
        (PAGE, OTHER_QUESTION),
        ((("sec-fetch-site", "cross-site"),), EDITED_QUESTION),
        ((("host", "evil.example"),), EDITED_QUESTION),
    ):
        async with mode.gateway() as gateway:
            reply = await gateway.post(chat(text), *headers)
            code = "foreign_host" if headers[0][0] == "host" else "foreign_origin"
            assert (reply.status, reply.json["error"]["code"]) == (403, code)
            assert reply.one("x-serac-route") == "bypass"
            assert (await fetch(gateway.url, "/v1/models", None, *headers, method="GET")).status == 403
            assert gateway.upstream.requests == []
            assert not reply.all("access-control-allow-origin")
        async with mode.gateway(LISTED) as gateway:
            reply = await gateway.post(chat(text), *headers)
            assert reply.status == (200 if headers[0][0] == "origin" else 403)


def assert_readable(reply: WireResponse) -> None:
    assert reply.one("access-control-allow-origin") == APP
    assert "Origin" in reply.all("vary")
    exposed = reply.one("access-control-expose-headers").split(", ")
    for name in ("x-serac-route", "x-serac-request-id", "x-request-id"):
        assert name in exposed
        assert reply.one(name)


@pytest.mark.parametrize("theirs", [None, "*", "https://another.example"])
async def test_a_listed_page_reads_every_reply_alike(mode: Mode, theirs: str | None) -> None:
    cors = (
        [] if theirs is None else [("Access-Control-Allow-Origin", theirs), ("access-control-max-age", "1")]
    )

    async def reply(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        if b"stream" in request.body:
            await connection.head(200, *EVENTS, *cors)
            await connection.chunk(b"data: [DONE]\n\n")
            await connection.end()
        else:
            await connection.whole(429, b"{}", *cors, ("retry-after", "3"))

    async with mode.gateway(LISTED) as gateway:
        gateway.upstream.script = reply
        for question in (EDITED_QUESTION, OTHER_QUESTION):
            for parameters in ({}, {"stream": True}):
                answer = await gateway.post(chat(question, **parameters), *PAGE)
                assert_readable(answer)
                assert not answer.all("access-control-max-age")
        refused = await fetch(gateway.url, "/serac/v1/nothing", None, ("origin", APP), method="GET")
        assert refused.status == 403  # the control plane needs a key


async def test_a_listed_page_reads_refusals_and_asks_without_a_key() -> None:
    async with running_gateway(
        config=LISTED, keys_required=True, upstream_url="http://127.0.0.1:9/v1"
    ) as gateway:
        refused = await gateway.post(chat(OTHER_QUESTION), *PAGE)
        assert refused.status == 401
        assert_readable(refused)
        ask = (("access-control-request-method", "POST"), ("access-control-request-headers", "authorization"))
        allowed = await fetch(gateway.url, CHAT, None, *PAGE, *ask, method="OPTIONS")
        assert (allowed.status, allowed.body) == (204, b"")
        assert allowed.one("access-control-allow-origin") == APP
        assert allowed.one("access-control-allow-methods") == "POST"
        assert allowed.one("access-control-allow-headers") == "authorization"
        for path in ("/serac/v1/feedback", "/serac/v1/edits/a"):
            assert (await fetch(gateway.url, path, None, *PAGE, *ask, method="OPTIONS")).status == 204
        foreign = await fetch(gateway.url, CHAT, None, ("origin", OTHER_PAGE), *ask, method="OPTIONS")
        assert foreign.status == 403
        assert not foreign.all("access-control-allow-origin")
    async with running_gateway(config=LISTED, upstream_url="http://127.0.0.1:9/v1") as gateway:
        await gateway.add(EDITED_QUESTION, "Lisa.")
        down = await gateway.post(chat(OTHER_QUESTION), *PAGE)
        assert down.status == 502
        assert_readable(down)
        assert_readable(await gateway.post(chat(EDITED_QUESTION), *PAGE))
        assert (await fetch(gateway.url, CHAT, None, *PAGE, *ask, method="OPTIONS")).status == 204


async def test_without_a_list_the_upstreams_cors_headers_pass(passing: Gateway) -> None:
    async def reply(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(200, b"{}", ("access-control-allow-origin", "*"))

    passing.upstream.script = reply
    response = await passing.post(chat(OTHER_QUESTION))
    assert response.one("access-control-allow-origin") == "*"
    assert not response.all("vary")


@contextmanager
def whole_gateway(server: ServerConfig) -> Iterator[str]:
    with (
        ThreadPoolExecutor(4) as pool,
        serving(EmbeddedServer(ScriptedLanguageModel("No."), pool)) as upstream_url,
    ):
        gateway = fake_gateway(
            InMemoryEditStore(),
            WordEncoder(),
            pool,
            upstream_url=f"{upstream_url}/v1",
            with_data_plane=True,
            server=server,
        )
        with serving(gateway.app) as url:
            yield url


def test_any_page_means_the_chat_model_and_never_the_edits() -> None:
    page = {"origin": OTHER_PAGE, "sec-fetch-site": "cross-site"}
    with whole_gateway(ServerConfig(cors_origins=("*",))) as url:
        answered = httpx.post(f"{url}{CHAT}", json=chat("Who?"), headers=page)
        assert answered.headers["access-control-allow-origin"] == OTHER_PAGE
        refused = httpx.post(f"{url}/serac/v1/edits", json=EDIT, headers=page)
        assert is_refused_page(refused)
        assert "access-control-allow-origin" not in refused.headers
        ask = {**page, "access-control-request-method": "POST"}
        assert httpx.options(f"{url}{CHAT}", headers=ask).status_code == 204
        assert httpx.options(f"{url}/serac/v1/edits", headers=ask).status_code == 403


def test_a_page_with_a_key_edits() -> None:
    page = {"origin": OTHER_PAGE, "sec-fetch-site": "cross-site"}
    with running_locked_gateway() as locked:
        assert (
            locked.call(locked.admin, "POST", "/serac/v1/edits", json=EDIT, headers=page).status_code == 201
        )
        assert locked.call(None, "POST", "/serac/v1/edits", json=EDIT, headers=page).status_code == 401
