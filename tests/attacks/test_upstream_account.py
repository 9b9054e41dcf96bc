"""With the gateway's own upstream key a client reaches inference and no more (field reports A7 and F6).

Through the whole gateway, by HTTP. The rules one by one: tests/unit/data_plane/test_allowed_requests.py.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from serac_gateway.auth.principals import Role
from serac_gateway.testing import ScriptedUpstream
from tests.attacks.attacked_gateway import (
    OTHER_QUESTION,
    AttackedGateway,
    assert_refused_with_a_sentence,
    attacked_gateway,
    chat,
)

OUR_KEY = "sk-the-operators"
JSON = ("content-type", "application/json")
ESCAPES = (
    "/v1/..%2fadmin", "/v1/x/..%2f..%2fadmin", "/v1/%2e%2e%2fadmin", "/v1/..%5cadmin", "/v1/..;/admin",
    "/v1/%252e%252e/admin", "/v1/models/..%2f..%2fadmin", "/v1/%EF%BC%8E%EF%BC%8E/admin",
    "/v1/%E2%80%A4%E2%80%A4/admin", "/v1/%C0%AE%C0%AE/admin", "/v1/models/x%E2%88%95..%E2%88%95files",
    "/v1/models/%2e%2e/files", "/v1/%u002e%u002e/files", "/openai/../v1/files",
)  # fmt: skip
ACCOUNT = (
    ("GET", "/v1/files"), ("DELETE", "/v1/files/file-of-bolt"), ("GET", "/v1/responses/resp_of_bolt"),
    ("POST", "/v1/fine_tuning/jobs"), ("GET", "/v1/organization/api_keys"), ("POST", "/v1/batches"),
    ("GET", "/v1/vector_stores"), ("DELETE", "/v1/models/ft-mine"), ("POST", "/v1/assistants"),
    ("GET", "/v1/chat/completions"), ("PUT", "/v1/chat/completions"), ("GET", "/v1/Files"),
    ("GET", "/v1//files"), ("GET", "/v1/./files"), ("GET", "/openai/files"),
)  # fmt: skip


@asynccontextmanager
async def with_our_key(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str = ""
) -> AsyncIterator[AttackedGateway]:
    """Keys are demanded, and requests go upstream with the operator's."""
    monkeypatch.setenv("SERAC_UPSTREAM_API_KEY", OUR_KEY)
    async with attacked_gateway(folder, f"access.required = true\n{text}") as gateway:
        yield gateway


@pytest.mark.parametrize("role", [Role.CHAT, Role.EDIT, Role.ADMIN])
async def test_no_role_reaches_the_account_unless_it_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, role: Role
) -> None:
    async with with_our_key(tmp_path, monkeypatch) as gateway:
        key = ("x-serac-api-key", await gateway.key(role, "acme"))
        for method, path in ACCOUNT:
            reply = await gateway.get(path, key, method=method)
            assert_refused_with_a_sentence(reply, 400, 403)
        assert gateway.upstream.requests == []
        for target in ("/v1/models", "/v1/models/org%2Fmodel"):
            assert (await gateway.get(target, key)).status == 200
        assert (await gateway.post(chat(OTHER_QUESTION), key)).status == 200
        sent = {request.header("authorization") for request in gateway.upstream.requests}
        assert sent == {f"Bearer {OUR_KEY}"}


@pytest.mark.parametrize("path", ESCAPES)
async def test_no_spelling_of_a_path_leaves_the_base_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    async with with_our_key(tmp_path, monkeypatch) as gateway:
        key = ("x-serac-api-key", await gateway.key(Role.CHAT, "acme"))
        for method in ("GET", "POST", "DELETE"):
            assert_refused_with_a_sentence(await gateway.get(path, key, method=method), 400)
        assert gateway.upstream.requests == []


async def test_more_is_allowed_by_role_where_an_operator_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = 'upstream.allowed_paths.edit = ["GET /files", "GET /files/*"]'
    async with with_our_key(tmp_path, monkeypatch, text) as gateway:
        chat_key = ("x-serac-api-key", await gateway.key(Role.CHAT, "acme"))
        edit_key = ("x-serac-api-key", await gateway.key(Role.EDIT, "acme"))
        assert_refused_with_a_sentence(await gateway.get("/v1/files", chat_key), 403)
        assert (await gateway.get("/v1/files", edit_key)).status == 200
        assert_refused_with_a_sentence(await gateway.get("/v1/files", edit_key, method="DELETE"), 403)
        assert_refused_with_a_sentence(await gateway.get("/v1/files/x/content", edit_key), 403)


FORM = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\nRIFF\r\n'
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n--b--\r\n'
)
MESSAGES = json.dumps([{"role": "user", "content": OTHER_QUESTION}]).encode()
CLAUDE = b'{"model":"claude-x","messages":' + MESSAGES + b"}"


@pytest.mark.parametrize(
    ("target", "body", "headers"),
    [
        ("/v1/audio/transcriptions", FORM, [("content-type", "multipart/form-data; boundary=b")]),
        ("/v1/deployments/whisper-1/audio/transcriptions", b"{}", [JSON]),
        ("/v1/chat/completions", gzip.compress(CLAUDE, mtime=0), [JSON, ("content-encoding", "gzip")]),
        ("/v1/chat/completions", b"\xef\xbb\xbf" + CLAUDE, [JSON]),
        ("/v1/chat/completions", CLAUDE[:-1] + b',"x":"\\ud800"}', [JSON]),
        ("/v1/chat/completions", CLAUDE[:-1] + b',"x":NaN}', [JSON]),
        ("/v1/chat/completions", b'{"model":"gpt",' + CLAUDE[1:], [JSON]),
        ("/v1/models/whisper-1", None, []),
        ("/v1/models/claude%2Dx", None, []),
    ],
    ids=["form", "deployment", "gzip", "BOM", "surrogate", "NaN", "model twice", "model", "escaped model"],
)
async def test_a_request_goes_to_the_vendor_of_its_model_in_every_form(
    tmp_path: Path, target: str, body: bytes | None, headers: list[tuple[str, str]]
) -> None:
    """Field report F6: another vendor must not get the data."""
    async with ScriptedUpstream() as first, ScriptedUpstream() as second:
        text = (
            f'upstream.url = "{first.url}"\n'
            f'[upstreams.second]\nurl = "{second.url}"\nmodels = ["whisper*", "claude*"]\n'
        )
        async with attacked_gateway(tmp_path, text) as gateway, asyncio.timeout(60):
            if body is None:
                reply = await gateway.get(target, *headers)
            else:
                reply = await gateway.post(body, *headers, target=target)
            assert reply.status == 200
            assert (len(first.requests), len(second.requests)) == (0, 1)
            assert second.requests[0].body == (body or b"")
