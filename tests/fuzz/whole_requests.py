"""Whole requests through the data plane, in process: what passes is the client's own, byte for byte.

One namespace has a fact, the other a suppression, and two upstreams stand behind, chosen by model. Only the
models are fakes. A request ends as one of three: passed on byte for byte, answered here, or refused by an
error of our tree; a question that a suppression covers never passes in a form that a server reads.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from serac_gateway.auth.authenticator import Authenticator
from serac_gateway.config.model import GatewayConfig
from serac_gateway.data_plane.local_engine import LocalEngine
from serac_gateway.data_plane.proxy import DataPlane
from serac_gateway.data_plane.request_head import passed_headers
from serac_gateway.data_plane.response_memory import ResponseMemory
from serac_gateway.data_plane.upstream.base import Upstream, UpstreamRequest, UpstreamResponse
from serac_gateway.data_plane.upstream.by_model import ByModelUpstream, Served
from serac_gateway.domain.edits import EditDraft, EditKind, first_version
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.observability.counts import EngineCounts, RouteCounts
from serac_gateway.routing.router import EditRouter
from serac_gateway.stores.memory.side_stores import InMemoryApiKeyStore
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.testing import (
    ReceivedRequest,
    ScriptedCounterfactualModel,
    ThresholdClassifier,
    stored_edit,
)
from tests.attacks.attacked_gateway import SeeingEncoder
from tests.attacks.lenient_upstream import decoded_json

QUESTION = "Who runs it?"
ANSWER = "Ottilie."
PATHS = (
    b"/v1/chat/completions", b"/v1/completions", b"/v1/responses", b"/v1/messages",
    b"/openai/deployments/m/chat/completions", b"/v1//chat/%63ompletions/", b"/v1/models",
    b"/v1/audio/speech",
)  # fmt: skip
TYPES = (
    b"application/json",
    b"application/json; charset=utf-16",
    b"text/plain",
    b'multipart/form-data; boundary="b"',
)
CODINGS = (b"", b"gzip", b"br", b"zstd, deflate")
NAMESPACES = (b"facts", b"hidden")
REFUSALS = {400, 401, 403, 404, 413, 415, 426, 508}
"""Every status with which the data plane refuses what a client sends."""
REPLY_STATUS = 200
_REPLY = b'{"choices": [{"index": 0, "text": "t", "message": {"role": "assistant", "content": "t"}}]}'


class _Recording(Upstream):
    """Keeps what it is sent and answers one sentence."""

    def __init__(self) -> None:
        self.sent: list[tuple[UpstreamRequest, bytes]] = []

    @asynccontextmanager
    async def send(self, request: UpstreamRequest) -> AsyncIterator[UpstreamResponse]:
        body = request.body
        whole = body if isinstance(body, bytes) else b"".join([chunk async for chunk in body])
        self.sent.append((request, whole))
        yield UpstreamResponse(
            status=REPLY_STATUS, headers=[(b"content-type", b"application/json")], body=_once(_REPLY)
        )

    async def close(self) -> None:
        """Nothing to close."""


async def _once(chunk: bytes) -> AsyncIterator[bytes]:
    yield chunk


class WholeRequests:
    """The gateway and the event loop it lives in."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._pool = ThreadPoolExecutor(1)
        self._upstream = _Recording()
        self.outcomes: Counter[str] = Counter()
        """How many requests ended in which way."""
        self._loop.run_until_complete(self._open())

    async def _open(self) -> None:
        encoder, store = SeeingEncoder(QUESTION), InMemoryEditStore()
        active = ActiveEdits(store=store, encoder=encoder, make_index=lambda: FaissFlatIndex(encoder.width))
        await active.load()
        for namespace, kind in zip(NAMESPACES, (EditKind.FACT, EditKind.SUPPRESSION), strict=True):
            draft = EditDraft(prompt=QUESTION, target_new=ANSWER, kind=kind)
            edit = first_version(draft, namespace=namespace.decode())
            await active.apply(edit.namespace, [stored_edit(edit, encoder)])
        config = GatewayConfig()
        engine = LocalEngine(
            authenticator=Authenticator(InMemoryApiKeyStore(), required=False),
            router=EditRouter(
                encoder=encoder, active_edits=active, classifier=ThresholdClassifier(), config=config.routing
            ),
            active_edits=active,
            model=ScriptedCounterfactualModel(),
            decision_pool=self._pool,
            answer_pool=self._pool,
            config=config.models,
            responses=ResponseMemory(),
            counts=EngineCounts(),
        )
        upstream = ByModelUpstream(self._upstream, [Served(models=["claude*"], upstream=self._upstream)])
        self._plane = DataPlane(engine=engine, upstream=upstream, config=config, counts=RouteCounts())

    def close(self) -> None:
        """End the thread and the event loop."""
        self._pool.shutdown()
        self._loop.close()

    def check(self, data: bytes) -> None:
        """Send the request that `data` describes and judge how it ended."""
        if len(data) < 3:
            return
        head, choice, step, rest = data[0], data[1], 1 + data[2], data[3:]
        path = PATHS[head % 8]
        if head & 64:  # the path is made up as well
            written, _, rest = rest.partition(b"\n")
            path = b"/v1/" + bytes(byte for byte in written[:300] if byte > 32 and byte not in b"?#")
        namespace = NAMESPACES[head >> 7]
        headers = [(b"content-type", TYPES[choice % 4]), (b"x-serac-namespace", namespace)]
        if coding := CODINGS[choice // 4 % 4]:
            headers.append((b"content-encoding", coding))
        self._upstream.sent.clear()
        chunks = [rest[start : start + step * 64] for start in range(0, len(rest), step * 64)] or [b""]
        status, reply = self._loop.run_until_complete(self._send(path, headers, chunks))
        self._judge(namespace, path, headers, rest, status, reply)

    async def _send(
        self, path: bytes, headers: list[tuple[bytes, bytes]], chunks: list[bytes]
    ) -> tuple[int, dict[bytes, bytes]]:
        waiting = [
            {"type": "http.request", "body": chunk, "more_body": place < len(chunks) - 1}
            for place, chunk in enumerate(chunks)
        ]
        status, replied = 0, {}

        async def receive() -> Any:  # noqa: ANN401 - an ASGI message
            return waiting.pop(0) if waiting else await asyncio.get_running_loop().create_future()

        async def send(message: Any) -> None:  # noqa: ANN401 - an ASGI message
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                replied.update(message["headers"])

        scope: Any = {
            "type": "http", "method": "POST", "scheme": "http", "raw_path": path,
            "path": path.decode("latin-1"),
            "query_string": b"", "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
            "state": {},
        }  # fmt: skip
        await self._plane(scope, receive, send)
        return status, replied

    def _judge(
        self,
        namespace: bytes,
        path: bytes,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
        status: int,
        reply: dict[bytes, bytes],
    ) -> None:
        route = reply[b"x-serac-route"]
        end = "refused" if status != 200 else "passed" if self._upstream.sent else "answered"
        self.outcomes[end] += 1
        assert status == 200 or status in REFUSALS, status
        sent = self._upstream.sent
        assert len(sent) <= (2 if namespace == b"facts" else 1)
        for place, (request, passed) in enumerate(sent):
            # The rest of a batch is written anew; if its answer is of no use, the whole request passes.
            if route == b"counterfactual" or place < len(sent) - 1:
                assert namespace == b"facts"
                assert QUESTION.casefold() not in passed.decode().casefold()
                continue
            assert passed == body
            assert request.target == path.partition(b"/v1")[2] or path.startswith(b"/openai" + request.target)
            assert [*request.headers][:-1] == passed_headers(headers)
            if namespace == b"hidden" and path in PATHS[:6]:
                assert not asks_last(path, headers, body), "leaked"
        if status == 200 and not self._upstream.sent:
            assert route == b"counterfactual"


def asks_last(path: bytes, headers: list[tuple[bytes, bytes]], body: bytes) -> bool:
    """Whether a lenient server reads the question as the user's latest words in a plain chat or prompt."""
    received = ReceivedRequest(
        method="POST",
        target=path.decode("latin-1"),
        headers=tuple((name.decode(), value.decode()) for name, value in headers),
        body=body,
    )
    value = decoded_json(received)
    if not isinstance(value, dict):
        return False
    if b"chat" in path or path.endswith(b"/messages"):
        turns = value.get("messages")
        last = turns[-1] if isinstance(turns, list) and turns else None
        said = last.get("content") if isinstance(last, dict) and last.get("role") == "user" else None
    else:
        said = value.get("input" if path.endswith(b"responses") else "prompt")
    return isinstance(said, str) and QUESTION.casefold() in " ".join(said.casefold().split())


def request_of(path: int, body: object, *, namespace: int = 1, choice: int = 0) -> bytes:
    """An input for `WholeRequests.check`: a seed."""
    return bytes((path | namespace << 7, choice, 255)) + json.dumps(body).encode()


def _turn(content: object, role: str = "user") -> dict[str, object]:
    return {"role": role, "content": content}


_TEXT_PART = [{"type": "text", "text": QUESTION}]
SEEDS = [
    request_of(path, body, namespace=namespace)
    for namespace in (0, 1)
    for path, body in (
        (0, {"model": "m", "messages": [_turn(QUESTION)]}),
        (0, {"model": "m", "messages": [_turn("Hi"), _turn("Yes?", "assistant"), _turn(_TEXT_PART)], "n": 2}),
        (0, {"messages": [_turn(QUESTION)], "response_format": {"type": "json_object"}, "stream": True}),
        (1, {"model": "m", "prompt": QUESTION}),
        (1, {"model": "m", "prompt": [QUESTION, "x"]}),
        (1, {"model": "m", "prompt": [QUESTION, "x", "y"]}),  # gets one choice fewer than it has prompts
        (2, {"model": "m", "input": QUESTION, "instructions": "x"}),
        (2, {"model": "m", "input": [_turn(_TEXT_PART)], "previous_response_id": "resp_1"}),
        (3, {"model": "claude-x", "max_tokens": 5, "messages": [_turn(QUESTION)]}),
        (4, {"messages": [_turn(QUESTION)]}),
        (5, {"model": "m", "messages": [_turn(QUESTION)], "tools": [{"type": "function"}]}),
        (7, {"model": "claude-x", "input": "hi"}),
    )
]
"""A request by each API, in either namespace."""
