"""What passes, passes byte for byte, wherever it goes (docs/proxy_cases.md, cases 1, 16 and 18)."""

from __future__ import annotations

import json

import openai
import pytest

from serac_gateway.testing import ReceivedRequest, ScriptedConnection
from tests.http.modes import Mode
from tests.http.running_gateway import EDITED_QUESTION, ENDPOINTS, OTHER_QUESTION, Gateway, chat
from tests.http.wire import fetch


async def test_each_mode_is_the_way_that_its_name_says(passing: Gateway, mode: Mode) -> None:
    response = await passing.post(chat(OTHER_QUESTION), ("x-serac-debug", "true"))
    assert (response.one("x-serac-route"), response.one("x-serac-reason")) == ("base", mode.reason)
    assert response.json == chat(OTHER_QUESTION)


# Case 1

ODD_BODIES = [
    b'{"z":1,"model":"m","unknown":{"b":1e-7,"a":1.0},"messages":[{"role":"user","content":"\\u00e9 \\/"}]}',
    b'{"model":"m", "model":"n",\n "messages" : [ {"content":"hi","role":"user"} ] }',
    '{"model":"m","messages":[{"role":"user","content":"日本 😀 \u2028"}]}'.encode(),
    b'{"model":"m","messages":[{"role":"user","content":"x"}],"seed":123456789012345678901234567890}',
    b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
]
REQUEST_BODY = json.dumps(OTHER_QUESTION).encode()
ODD_REQUESTS = [
    *(("/v1/chat/completions", body) for body in ODD_BODIES),
    (
        "/v1/completions",
        b'{ "prompt":' + REQUEST_BODY + b',"z":1e-7,"model":"m","z":1E-7,"\\u0065cho":false}',
    ),
    (
        "/v1/responses",
        b'{"z":1e-7, "model":"m","input":' + REQUEST_BODY + b',"unknown":{"b":1.0},"model":"n"}',
    ),
    ("/v1/responses", b'{"model":"m","input":[{"role":"user","content":"\\u00e9 \\/"}],"store":true}\n'),
    ("/v1/responses", b'{"model":"m","input":[{"role":"user","content":"\\ud800"}],"stream":false}'),
    (
        "/v1/messages",
        b'{"max_tokens" : 5,"model":"m","messages":[{"content":' + REQUEST_BODY + b',"role":"user"}]}',
    ),
    ("/v1/messages", b'{"max_tokens":5e0,"model":"m","messages":[{"role":"user","content":"\\ud800"}]}'),
    (
        "/v1/messages",
        b'{"max_tokens":5,"messages":[{"role":"user","content":"x"}],"top_k":99999999999999999999}',
    ),
]


@pytest.mark.parametrize(("target", "body"), ODD_REQUESTS)
async def test_body_and_reply_are_the_same_bytes(passing: Gateway, target: str, body: bytes) -> None:
    response = await passing.post(body, target=target)
    assert passing.upstream.requests[0].body == body
    assert passing.upstream.requests[0].target == target
    assert response.body == body
    assert response.status == 200


@pytest.mark.parametrize(
    "reply",
    [
        b'{"id":1e-7, "id":2,\n"x":"\\u00e9 \\/ \\ud800","unknown":{"b":1.0}}\n',
        b"\xff\xfe no JSON, no UTF-8 \x00",
        b"",
        bytes(range(256)) * 20_000,
    ],
    ids=["odd JSON", "not text", "empty", "5 MB"],
)
@pytest.mark.parametrize("target", ENDPOINTS)
async def test_a_reply_is_the_upstreams_own_bytes(passing: Gateway, target: str, reply: bytes) -> None:
    async def answer(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(200, reply, ("content-type", "application/json"))

    passing.upstream.script = answer
    response = await passing.post(chat(OTHER_QUESTION, input=OTHER_QUESTION, max_tokens=5), target=target)
    assert (response.status, response.complete) == (200, True)
    assert response.body == reply


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"null", b'"text"', b"[1]"])
@pytest.mark.parametrize("target", ENDPOINTS)
async def test_a_malformed_body_is_for_the_upstream_to_judge(
    passing: Gateway, target: str, body: bytes
) -> None:
    async def refuse(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(400, b'{"error":{"message":"no JSON"}}', ("content-type", "application/json"))

    passing.upstream.script = refuse
    response = await passing.post(body, target=target)
    assert (response.status, response.body) == (400, b'{"error":{"message":"no JSON"}}')
    assert passing.upstream.requests[0].body == body


# Case 16


async def test_a_20_mb_data_url_passes_unchanged(mode: Mode, passing: Gateway) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 20_000_000}}
    content = [{"type": "text", "text": OTHER_QUESTION}, image]
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode()
    response = await passing.post(body, ("x-serac-debug", "true"))
    assert response.status == 200
    assert response.one("x-serac-reason") == mode.reason
    assert passing.upstream.requests[0].body == body


async def test_the_text_that_is_decided_on_is_that_of_the_text_parts_alone(editing: Gateway) -> None:
    """Neither a picture's address nor a file's content is taken for the question."""
    image = {"type": "image_url", "image_url": {"url": f"data:text/plain,{EDITED_QUESTION}"}}
    file = {"type": "file", "file": {"filename": EDITED_QUESTION, "file_data": EDITED_QUESTION}}
    for text, route in ((OTHER_QUESTION, "base"), (EDITED_QUESTION, "counterfactual")):
        content = [image, {"type": "text", "text": text}, file]
        response = await editing.post({"model": "m", "messages": [{"role": "user", "content": content}]})
        assert response.one("x-serac-route") == route


# Case 18

OTHER_REQUESTS = [
    ("GET", "/v1/models", None),
    ("GET", "/v1/models/org%2Fname?limit=2&after=a%20b&x=%C3%A9", None),
    ("DELETE", "/v1/files/file-1", None),
    ("POST", "/v1/embeddings", b'{"input":"x"}'),
    ("POST", "/v1/chat/completions/", b"{}"),
    ("PUT", "/v1/a//b/;p=1", b"x" * 10),
    ("PATCH", "/v1/x", b"1"),
    ("GET", "/v1/chat/completions", None),
    ("POST", "/v1/chat/completions?api-version=1", json.dumps(chat(OTHER_QUESTION)).encode()),
    ("OPTIONS", "/v1/models", None),
    ("POST", "/v1/realtime/sessions?", b"{}"),
]


@pytest.mark.parametrize(("method", "target", "body"), OTHER_REQUESTS)
async def test_every_other_path_and_method_passes(
    passing: Gateway, method: str, target: str, body: bytes | None
) -> None:
    response = await fetch(passing.url, target, body, method=method)
    (received,) = passing.upstream.requests
    assert (received.method, received.target, received.body) == (method, target.rstrip("?"), body or b"")
    assert response.status == 200
    assert response.one("x-serac-route") in ("bypass", "base")


@pytest.mark.parametrize("status", [404, 405])
async def test_the_upstreams_own_404_and_405_come_back(passing: Gateway, status: int) -> None:
    async def refuse(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(status, b"theirs", ("allow", "GET"))

    passing.upstream.script = refuse
    response = await fetch(passing.url, "/v1/none", method="GET")
    assert (response.status, response.body, response.one("allow")) == (status, b"theirs", "GET")


async def test_a_multipart_upload_of_30_mb_streams_through(passing: Gateway) -> None:
    body = b"--b\r\n\r\n" + bytes(range(256)) * 120_000 + b"\r\n--b--"
    response = await fetch(
        passing.url, "/v1/files", body, ("content-type", "multipart/form-data; boundary=b")
    )
    received = passing.upstream.requests[0]
    assert received.body == body == response.body
    assert received.header("content-length") == str(len(body))


async def test_a_chunked_upload_arrives_whole(passing: Gateway) -> None:
    parts = [b"x" * 700_000, b"y" * 700_000]
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    await fetch(passing.url, "/v1/files", chunked, ("transfer-encoding", "chunked"))
    assert passing.upstream.requests[0].body == b"".join(parts)


@pytest.mark.parametrize(
    "target",
    [
        "/v1/../admin", "/v1/%2e%2E/admin", "/v1/models/.", "/v1/a/../../b", "/v1/..", "/openai/../v1/files",
        "/v1/..%2fadmin", "/v1/x/..%2f..%2fadmin", "/v1/models/..%2Fadmin", "/v1/models/a%2f..%2F..%2Fadmin",
        "/v1/..%5cadmin", "/v1/..\\admin", "/v1/models/a%5Cb", "/v1/..;/admin", "/v1/.;x=y/admin",
        "/v1/%252e%252e/admin", "/v1/%2525", "/v1/chat%2fcompletions", "/v1/chat%252Fcompletions",
        "/v1/models/a%00b", "/v1/models%0d%0ax:y", "/v1/%2e%2e;/admin", "/v1/.../admin", "/v1/..%20/admin",
        "/v1/%EF%BC%8E%EF%BC%8E/admin", "/v1/%E2%80%A4%E2%80%A4/admin", "/v1/.%E3%80%82/admin",
        "/v1/%E2%80%A5/admin", "/v1/models/%E2%80%A6/x", "/v1/models/x%EF%BC%8F..%EF%BC%8Fadmin",
        "/v1/models/a%E2%88%95b", "/v1/models/a%E2%81%84b", "/v1/x%EF%BC%BC..", "/v1/models/a%E2%88%96b",
        "/v1/%C0%AE%C0%AE/admin", "/v1/%C0%AE%C0%AE%C0%AFadmin", "/v1/%E0%80%AE./admin", "/v1/..%C1%9Cadmin",
        "/v1/%F0%80%80%AE/admin", "/v1/%c0%2e/admin", "/v1/models/caf%E9", "/v1/%u002e%u002e/admin",
        "/v1/%u2215admin", "/v1/%EF%BC%85%32%65/admin", "/v1/.%EF%BC%9B/admin", "/v1/..%E2%81%87/admin",
        "/v1/..%3Fx", "/v1/..%23x", "/v1/models/a%E2%80%A8b", "/v1/models/a%C2%85b", "/v1/.%E2%80%8B./admin",
        "/v1/chat%EF%BC%8Fcompletions", "/v1/x/%E2%84%80", "/v1/\xef\xbc\x8e\xef\xbc\x8e/admin",
    ],
)  # fmt: skip
async def test_a_path_that_could_leave_the_base_path_is_refused(passing: Gateway, target: str) -> None:
    response = await fetch(passing.url, target, method="GET")
    assert response.status == 400
    assert response.json["error"]["type"] == "invalid_request_error"
    assert passing.upstream.requests == []


@pytest.mark.parametrize(
    "name",
    [
        "org%2Fmodel", "org%2fModel-7.5%3Afree", "caf%C3%A9", "%E6%97%A5%E6%9C%AC%2F%E8%AA%9E", "a..b",
        ".hidden", "gpt%EF%BC%8E4", "a%20b", "x%E3%80%82y%E2%80%A6", "a%2Fb%2Fc",
    ],
)  # fmt: skip
async def test_a_models_name_passes_as_it_is_written(passing: Gateway, name: str) -> None:
    response = await fetch(passing.url, f"/v1/models/{name}", method="GET")
    assert response.status == 200
    assert [request.target for request in passing.upstream.requests] == [f"/v1/models/{name}"]


@pytest.mark.parametrize("name", ["org/Model", "org/Model:free", "models/gemini-2.5", "café"])
async def test_the_openai_client_gets_a_model_whose_name_has_a_slash(passing: Gateway, name: str) -> None:
    async def model(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        listed = {"id": name, "object": "model", "created": 0, "owned_by": "x"}
        await connection.whole(200, json.dumps(listed).encode(), ("content-type", "application/json"))

    passing.upstream.script = model
    async with openai.AsyncOpenAI(base_url=f"{passing.url}/v1", api_key="k", max_retries=0) as client:
        assert (await client.models.retrieve(name)).id == name
    assert passing.upstream.requests[0].target.startswith("/v1/models/")


async def test_a_namespace_that_is_none_is_refused_in_openais_shape(passing: Gateway) -> None:
    response = await passing.post(chat("x"), ("x-serac-namespace", "Not OK"))
    assert response.status == 400
    assert response.json["error"]["param"] == "x-serac-namespace"
    assert "'Not OK'" in response.json["error"]["message"]
    assert response.one("x-serac-route") == "bypass"
    assert passing.upstream.requests == []


async def test_redirects_are_the_clients_business(passing: Gateway) -> None:
    async def redirect(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.whole(307, b"", ("location", "http://127.0.0.1:9/elsewhere"))

    passing.upstream.script = redirect
    response = await passing.post(chat(OTHER_QUESTION))
    assert (response.status, response.one("location")) == (307, "http://127.0.0.1:9/elsewhere")
