"""What is sent with the gateway's own upstream key: paths by role, no references to other tenants."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from typing_extensions import override

from serac_gateway.auth.principals import ANYONE, Principal, Role
from serac_gateway.config.model import AllowedPaths
from serac_gateway.data_plane.upstream.allowed_requests import AllowedRequests, stored_reference
from serac_gateway.data_plane.upstream.base import Upstream, UpstreamRequest, UpstreamResponse
from serac_gateway.errors import GatewayError, PermissionDeniedError


class Recording(Upstream):
    """Answers everything."""

    def __init__(self) -> None:
        self.bodies: list[object] = []

    @override
    @asynccontextmanager
    async def send(self, request: UpstreamRequest) -> AsyncIterator[UpstreamResponse]:
        self.bodies.append(request.body)
        yield UpstreamResponse(status=200, headers=[], body=nothing())

    @override
    async def close(self) -> None:
        pass


async def nothing() -> AsyncIterator[bytes]:
    for chunk in ():
        yield chunk


def principal(role: Role = Role.CHAT, *namespaces: str) -> Principal:
    return Principal(key_id="k", name="n", role=role, namespaces=namespaces or ("acme",))


async def sends(
    line: str,
    *,
    sender: Principal | None = None,
    body: bytes | AsyncIterator[bytes] = b"",
    allowed: AllowedPaths | None = None,
    content_type: bytes = b"application/json",
) -> bool:
    method, path = line.split(" ", 1)
    upstream = Recording()
    guarded = AllowedRequests(upstream, allowed or AllowedPaths(), key="upstream.allowed_paths")
    request = UpstreamRequest(
        method=method,
        target=path.encode(),
        headers=[(b"content-type", content_type)],
        body=body,
        sender=sender or principal(),
    )
    refusals = []
    try:
        async with guarded.send(request) as response:
            assert response.status == 200
    except PermissionDeniedError as error:
        refusals.append(error.message)
    assert len(upstream.bodies) + len(refusals) == 1
    assert all("upstream.allowed_paths." in refusal for refusal in refusals)
    return not refusals


@pytest.mark.parametrize(
    ("line", "is_sent"),
    [
        ("POST /chat/completions", True),
        ("POST /chat/completions?api-version=1", True),
        ("POST //chat/completions/", True),
        ("POST /deployments/gpt-4o/chat/completions", True),
        ("POST /deployments/gpt-4o/embeddings?x=1", True),
        ("POST /engines/whisper/audio/transcriptions", True),
        ("POST /responses", True),
        ("POST /messages/count_tokens", True),
        ("POST /images/edits", True),
        ("GET /models", True),
        ("HEAD /models", True),
        ("GET /models/gpt-4o", True),
        ("GET /models/org%2Fname", True),
        ("DELETE /models/ft-mine", False),
        ("GET /chat/completions", False),
        ("GET /chat/completions/chatcmpl-1", False),
        ("POST /chat/completions/chatcmpl-1", False),
        ("GET /responses/resp_1", False),
        ("DELETE /responses/resp_1", False),
        ("POST /responses/resp_1/cancel", False),
        ("GET /responses/resp_1/input_items", False),
        ("GET /files", False),
        ("POST /files", False),
        ("GET /files/file-1/content", False),
        ("POST /batches", False),
        ("POST /messages/batches", False),
        ("POST /fine_tuning/jobs", False),
        ("GET /organization/api_keys", False),
        ("POST /assistants", False),
        ("POST /vector_stores", False),
        ("POST /realtime/client_secrets", False),
        ("GET /deployments", False),
        ("POST /deployments/m/fine_tunes", False),
        ("GET /", False),
        ("PUT /chat/completions", False),
        ("CONNECT /chat/completions", False),
    ],
)
async def test_inference_is_sent_and_nothing_else(line: str, is_sent: bool) -> None:
    for sender in (principal(), principal(Role.ADMIN), principal(Role.ADMIN, "*"), ANYONE):
        assert await sends(line, sender=sender) is is_sent


async def test_more_is_sent_by_role_where_it_is_configured() -> None:
    allowed = AllowedPaths(
        chat=("POST /files", "GET /files/*"), edit=("* /batches/**",), admin=("* /organization/**",)
    )
    for line, least in (
        ("POST /files", Role.CHAT),
        ("GET /files/file-1", Role.CHAT),
        ("HEAD /files/file-1", Role.CHAT),
        ("GET /files/file-1/content", None),
        ("DELETE /files/file-1", None),
        ("DELETE /batches/b/cancel", Role.EDIT),
        ("GET /batches", None),
        ("GET /organization/api_keys", Role.ADMIN),
    ):
        for role in Role:
            expected = least is not None and role.allows(least)
            assert await sends(line, sender=principal(role), allowed=allowed) is expected, (line, role)


REFERENCES = [
    {"previous_response_id": "resp_1"},
    {"conversation": "conv_1"},
    {"conversation": {"id": "conv_1"}},
    {"prompt": {"variables": {"a": "b"}, "id": "pmpt_1"}},
    {"input": [{"type": "item_reference", "id": "msg_1"}]},
    {"input": [{"id": "msg_1"}]},
    {"input": [{"type": None, "id": "rs_1"}]},
    {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}]},
    {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]}]},
    {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]},
    {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]},
    {"messages": [{"role": "user", "content": [{"source": {"type": "file", "file_id": "file_1"}}]}]},
    {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]},
    {"tools": [{"type": "code_interpreter", "container": "cntr_1"}]},
    {"tools": [{"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file-1"]}}]},
    {"container": {"id": "container_1", "skills": []}},
]
PLAIN = [
    {"input": 'What is "file_id": "x" for, and "previous_response_id": "resp_1"?'},
    {"input": [{"id": "msg_1", "type": "message", "role": "assistant", "content": []}]},
    {"input": [{"id": "rs_1", "type": "reasoning", "summary": []}]},
    {"tools": [{"type": "function", "parameters": {"properties": {"file_id": {"type": "string"}}}}]},
    {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
    {"metadata": {"container": "web-1", "conversation": "42", "id": "7"}, "user": "audio_team"},
    {"previous_response_id": None, "conversation": None, "prompt": "x", "file_ids": []},
    {
        "messages": [
            {
                "role": "assistant",
                "tool_calls": [{"id": "call_1", "function": {"arguments": '{"file_id": "x"}'}}],
            }
        ]
    },
]


@pytest.mark.parametrize("members", REFERENCES, ids=json.dumps)
@pytest.mark.parametrize("form", ["plain", "spaced", "escaped", "utf-16", "BOM", "long"])
async def test_stored_things_are_not_for_keys_of_one_tenant(members: dict[str, object], form: str) -> None:
    body = json.dumps({"model": "m", **members}).encode()
    if form == "spaced":
        body = json.dumps({"model": "m", **members}, indent=3_000).encode().replace(b": ", b" \t\n :  \r\n")
    elif form == "escaped":
        for word in (b"file_id", b"previous", b"conv", b"item_ref", b'"id"', b"vector", b"cntr_", b"pmpt"):
            body = body.replace(word, word.replace(word[1:2], b"\\u%04x" % word[1]))
    elif form == "utf-16":
        body = body.decode().encode("utf-16-le")
    elif form == "BOM":
        body = b"\xef\xbb\xbf" + body
    elif form == "long":
        body = b'{"x":"' + b"y" * (1_048_576 - 30) + b'",' + body[1:]
    assert not await sends("POST /responses", body=body)
    assert await sends("POST /responses", body=body, sender=principal(Role.CHAT, "*"))
    assert await sends("POST /responses", body=body, sender=ANYONE)
    everything = AllowedPaths(chat=("GET /**",))
    assert await sends("POST /responses", body=body, allowed=everything)


@pytest.mark.parametrize("members", PLAIN, ids=json.dumps)
async def test_what_only_looks_like_a_reference_is_sent(members: dict[str, object]) -> None:
    body = json.dumps({"model": "m", **members}).encode()
    assert stored_reference(body) is None
    assert await sends("POST /responses", body=body)


async def arriving(body: bytes, *, times: int = 1) -> AsyncIterator[bytes]:
    for _ in range(times):
        yield body


async def test_a_body_that_is_still_arriving_is_searched_whole_and_has_a_limit() -> None:
    reference = b'{"previous_response_id": "resp_1"}'
    assert not await sends("POST /responses", body=arriving(reference))
    assert await sends("POST /responses", body=arriving(b"{}"))
    with pytest.raises(GatewayError, match="64,000,000") as refused:
        await sends("POST /responses", body=arriving(b" " * 1_000_000, times=65))
    assert refused.value.status == 413
    form = b"multipart/form-data; boundary=x"
    long = arriving(b" " * 1_000_000, times=65)
    assert await sends("POST /audio/transcriptions", body=long, content_type=form)


@pytest.mark.parametrize(
    "part", [b'{"id":', b'"id" ', b"{ ", b"\\u0022id\\u0022:", b'{"type":null,"id":"', b'"file_id":[ ', b" "]
)
def test_the_search_takes_linear_time(part: bytes) -> None:
    body = part * (4_000_000 // len(part))
    begun = time.perf_counter()
    stored_reference(body)
    assert time.perf_counter() - begun < 5
