"""The embedded base model as an OpenAI-compatible server, run by upstream/embedded.py in a child process.

``python -m serac_gateway.data_plane.upstream.embedded_server --data-dir DIR`` writes one JSON `Report` a line
to its standard output until it serves, and ends when its standard input ends, that is with its parent.

It is deterministic: the same request bytes give the same reply bytes. The id is a hash of the body, `created`
is fixed, a request without temperature is greedy and one without seed takes its seed from the hash. That is
what lets anyone compare a reply through the gateway with one past it, byte for byte.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import socket
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path

import msgspec
import uvicorn
from litestar.enums import ScopeType
from litestar.types import HTTPScope, Receive, Scope, Send

from serac_gateway.data_plane.protocols.answers import ChoicePiece, event_stream, whole_answer
from serac_gateway.data_plane.protocols.base import AnswerHead
from serac_gateway.data_plane.protocols.endpoints import PROTOCOLS
from serac_gateway.data_plane.upstream.embedded import Report
from serac_gateway.data_plane.upstream.embedded_requests import EmbeddedRequest, read_request
from serac_gateway.data_plane.upstream.json_object import json_object_pieces
from serac_gateway.data_plane.upstream.transcript import JSON_BEGINNING
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.errors import GatewayError, InvalidRequestError, ModelUnavailableError
from serac_gateway.models.language_models.base import LanguageModel, Piece
from serac_gateway.models.language_models.threads import ThreadItems

MODEL_NAME = "gemma-3-270m"
CREATED = 1_755_129_600
"""14 August 2025, the day of the model's release: the reply to a request is the same on every day."""
PARALLEL_ANSWERS = 4
"""Requests beyond these wait in order; short ones are not stuck behind one long one."""

_FINGERPRINT = "fp_embedded"
_JSON = (b"content-type", b"application/json")
_EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")


class EmbeddedServer:
    """The ASGI application."""

    def __init__(self, model: LanguageModel, pool: Executor) -> None:
        """Generate with `model` on the threads of `pool`."""
        self._model = model
        self._pool = pool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; stop generating when the client leaves."""
        if scope["type"] != ScopeType.HTTP:
            return
        body = await _read_body(receive)
        if body is None:
            return
        work = asyncio.create_task(self._respond(scope, body, send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)
        if not work.cancelled():
            work.result()

    async def _respond(self, scope: HTTPScope, body: bytes, send: Send) -> None:
        path = scope["path"].removeprefix("/v1")
        try:
            if path in _ENDPOINTS:
                if scope["method"] != "POST":
                    raise _RefusalError(405, f"{scope['method']} is not allowed on /v1{path}; use POST")
                await self._complete(Endpoint(path), body, send)
            elif path == "/models":
                await _send(send, 200, {"object": "list", "data": [_MODEL]})
            elif path == f"/models/{MODEL_NAME}":
                await _send(send, 200, _MODEL)
            else:
                raise _RefusalError(404, f"/v1{path} is not served; the embedded model has {_SERVED}")
        except _RefusalError as refusal:
            await _send(send, refusal.status, refusal.body)

    async def _complete(self, endpoint: Endpoint, body: bytes, send: Send) -> None:
        request = _understood(endpoint, body)
        completion = request.completion
        digest = hashlib.sha256(body)
        seed = completion.seed if completion.seed is not None else int.from_bytes(digest.digest()[:4])
        head = AnswerHead(
            token=digest.hexdigest()[:24], created=CREATED, system_fingerprint=_FINGERPRINT
        )  # fmt: skip
        writer = PROTOCOLS[endpoint].answer_writer(head, completion)
        async with aclosing(
            ThreadItems(self._pool, lambda gone: self._generate(request, seed, gone))
        ) as parts:
            try:
                if completion.stream:
                    await _send_events(send, event_stream(writer, parts))
                else:
                    await _send(send, 200, await whole_answer(writer, completion, parts))
            except InvalidRequestError as error:
                raise _RefusalError(
                    400, error.message, code="context_length_exceeded", param=request.prompt.field
                ) from error
            except ModelUnavailableError as error:
                raise _RefusalError(503, error.message, code="model_unavailable") from error

    def _generate(
        self, request: EmbeddedRequest, seed: int, cancelled: Callable[[], bool]
    ) -> Iterator[ChoicePiece]:
        prompt = request.prompt.text
        prompt_tokens = self._model.count_tokens(prompt)
        for choice in range(request.completion.choices):
            pieces = self._model.generate(prompt, request.sampling(seed + choice), cancelled=cancelled)
            if request.as_json:
                pieces = json_object_pieces(pieces, beginning=JSON_BEGINNING)
            elif request.completion.endpoint is not Endpoint.COMPLETIONS:
                pieces = pieces if request.prompt.continues_answer else _stripped(pieces)
            for piece in pieces:
                yield ChoicePiece(choice=choice, piece=piece, prompt_tokens=prompt_tokens)


class _RefusalError(Exception):
    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        kind = "invalid_request_error" if status < 500 else "server_error"
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


_ENDPOINTS = frozenset(Endpoint)
_SERVED = "/v1/chat/completions, /v1/completions, /v1/responses, /v1/messages and /v1/models"
_MODEL = {"id": MODEL_NAME, "object": "model", "created": CREATED, "owned_by": "google"}


def _understood(endpoint: Endpoint, body: bytes) -> EmbeddedRequest:
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise _RefusalError(400, f"the body is not valid JSON: {exc}", code="invalid_json") from exc
    try:
        return read_request(endpoint, decoded)
    except InvalidRequestError as error:
        raise _RefusalError(400, error.message, param=error.field) from error


def _stripped(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """`pieces` of an answer without the white space before the first word."""
    begun = False
    for piece in pieces:
        text = piece.text if begun else piece.text.lstrip()
        begun = begun or bool(text)
        yield msgspec.structs.replace(piece, text=text)


async def _read_body(receive: Receive) -> bytes | None:
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message["body"])
        if not message["more_body"]:
            return b"".join(parts)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _send(send: Send, status: int, body: object) -> None:
    payload = msgspec.json.encode(body)
    length = (b"content-length", str(len(payload)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [_JSON, length]})
    await send({"type": "http.response.body", "body": payload, "more_body": False})


async def _send_events(send: Send, events: AsyncGenerator[bytes, None]) -> None:
    async with aclosing(events):
        first = await anext(events)  # what cannot be answered fails here, before the status goes out
        await send({"type": "http.response.start", "status": 200, "headers": [_EVENTS]})
        await send({"type": "http.response.body", "body": first, "more_body": True})
        async for chunk in events:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def main() -> None:
    """Load the model, then serve until the parent ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--model", help="a causal LM id or path; without it the embedded model")
    arguments = parser.parse_args()
    report = _take_over_stdout()
    # Imports torch, which takes seconds: only the process that generates has to.
    from serac_gateway.models.loading import open_language_model

    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        model = open_language_model(
            arguments.model,
            arguments.data_dir,
            on_step=lambda step: report(Report(step=step)),
            parallel=PARALLEL_ANSWERS,
        )
    except GatewayError as error:
        report(Report(error=error.message))
        raise SystemExit(2) from None
    listener = socket.create_server(("127.0.0.1", 0))
    report(Report(port=listener.getsockname()[1]))
    with ThreadPoolExecutor(PARALLEL_ANSWERS, thread_name_prefix="generate") as pool:
        config = uvicorn.Config(
            EmbeddedServer(model, pool), log_level="warning", access_log=False, ws="none", lifespan="off"
        )
        asyncio.run(uvicorn.Server(config).serve(sockets=[listener]))


def _take_over_stdout() -> Callable[[Report], None]:
    """Keep standard output for reports; whatever else writes to it goes to standard error."""
    reports = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def report(update: Report) -> None:
        reports.write(msgspec.json.encode(update) + b"\n")

    return report


def _end_with_parent() -> None:
    sys.stdin.buffer.read()  # returns when the parent's end of the pipe closes, however the parent ended
    os._exit(0)


if __name__ == "__main__":
    main()
