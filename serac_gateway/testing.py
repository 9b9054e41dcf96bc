"""Fakes: small working implementations of the seams, for the tests of this package and of its users."""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import msgspec
import numpy as np
import uvicorn

from serac_gateway.domain.edits import Edit, forms
from serac_gateway.domain.queries import Query
from serac_gateway.domain.vectors import Vectors
from serac_gateway.errors import InvalidRequestError
from serac_gateway.models.classifiers.base import Candidate, Classification, ScopeClassifier
from serac_gateway.models.counterfactual.base import CounterfactualModel
from serac_gateway.models.counterfactual.declines import declined
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.models.language_models.base import LanguageModel, Piece, Sampling
from serac_gateway.models.language_models.stop_sequences import StopTexts
from serac_gateway.stores.records import FormVectors, StoredEdit


class ScriptedLanguageModel(LanguageModel):
    """Generates by a script instead of by a network. A token is a word with the space before it."""

    def __init__(
        self,
        script: str | Callable[[str], str],
        *,
        context_tokens: int = 4_096,
        token_delay_s: float = 0.0,
    ) -> None:
        """`script` is the continuation, or a function from the prompt to it (which may raise)."""
        self._script = script
        self._context_tokens = context_tokens
        self._token_delay_s = token_delay_s
        self.prompts: list[str] = []
        """The prompts seen, oldest first."""

    @property
    def context_tokens(self) -> int:
        """See `LanguageModel.context_tokens`."""
        return self._context_tokens

    def count_tokens(self, text: str) -> int:
        """Number of words, plus one for white space at the end."""
        return len(_scripted_tokens(text))

    def generate(
        self, prompt: str, sampling: Sampling, *, cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[Piece]:
        """See `LanguageModel.generate`."""
        self.prompts.append(prompt)
        room = self._context_tokens - self.count_tokens(prompt)
        if room < 1:
            raise InvalidRequestError(
                f"the prompt leaves no room for an answer in {self._context_tokens} tokens", field="prompt"
            )
        text = self._script if isinstance(self._script, str) else self._script(prompt)
        return self._pieces(_scripted_tokens(text), min(sampling.max_tokens, room), sampling.stop, cancelled)

    def _pieces(
        self, tokens: list[str], limit: int, stop: Sequence[str], cancelled: Callable[[], bool]
    ) -> Iterator[Piece]:
        stop_texts = StopTexts(stop)
        for token in tokens[:limit]:
            if cancelled():
                return
            time.sleep(self._token_delay_s)
            text = stop_texts.feed(token)
            if stop_texts.reached:
                yield Piece(text=text, tokens=1, finish_reason="stop", stop_text=stop_texts.matched)
                return
            yield Piece(text=text, tokens=1)
        if not cancelled():
            reason = "length" if len(tokens) > limit else "stop"
            yield Piece(text=stop_texts.finish(), tokens=0, finish_reason=reason)


def _scripted_tokens(text: str) -> list[str]:
    return re.findall(r"\s*\S+|\s+$", text)


class ScriptedCounterfactualModel(CounterfactualModel):
    """Answers with the edit's `target_new`, or with the text of a script."""

    def __init__(
        self,
        script: Callable[[Edit, Query], str] = lambda edit, query: edit.target_new,
        *,
        declines: Callable[[Edit, Query], bool] = lambda edit, query: False,
        token_delay_s: float = 0.0,
    ) -> None:
        """`script` returns the answer's text; it may raise. Where it may, it declines what `declines`."""
        self._script = script
        self._declines = declines
        self._token_delay_s = token_delay_s
        self.calls: list[tuple[Edit, Query]] = []
        """Edit and query of each call, oldest first."""
        self.samplings: list[Sampling] = []
        """The sampling of each call, oldest first."""

    def answer(
        self,
        edit: Edit,
        query: Query,
        sampling: Sampling,
        *,
        may_decline: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[Piece]:
        """See `CounterfactualModel.answer`."""
        self.calls.append((edit, query))
        self.samplings.append(sampling)
        if may_decline and self._declines(edit, query):
            raise declined(edit.id)
        model = ScriptedLanguageModel(self._script(edit, query), token_delay_s=self._token_delay_s)
        return model.generate("", sampling, cancelled=cancelled)

    def count_tokens(self, text: str) -> int:
        """Number of words."""
        return len(_scripted_tokens(text))


class WordEncoder(Encoder):
    """Embeds a text as the hashed bag of its words: texts that share words are similar, others are not."""

    def __init__(self, width: int = 64, *, salt: str = "") -> None:
        """Encoders of another `width` or `salt` have another fingerprint."""
        self._width = width
        self._salt = salt
        self.failure: Exception | None = None
        """Set it to make every call fail with it."""
        self.held_until: threading.Event | None = None
        """Set it to make every call wait for it."""
        self.texts_encoded = 0

    @property
    def width(self) -> int:
        """D, as given."""
        return self._width

    @property
    def fingerprint(self) -> str:
        """Contains width and salt."""
        return f"words-{self._width}-{self._salt}"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder.encode`."""
        if self.held_until is not None:
            self.held_until.wait()
        if self.failure is not None:
            raise self.failure
        self.texts_encoded += len(texts)
        vectors_BD = np.zeros((len(texts), self._width), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in re.findall(r"\w+", text.casefold()) or [text]:
                seed = int.from_bytes(
                    hashlib.blake2b((self._salt + word).encode("utf-8", "replace")).digest()[:8]
                )
                vectors_BD[row] += np.random.default_rng(seed).normal(size=self._width)
        unit_BD: Vectors = vectors_BD / np.linalg.norm(vectors_BD, axis=1, keepdims=True)
        return unit_BD


def stored_edit(edit: Edit, encoder: Encoder) -> StoredEdit:
    """The edit with the vectors of its forms."""
    vectors = FormVectors(fingerprint=encoder.fingerprint, vectors_FD=encoder.encode(forms(edit)))
    return StoredEdit(edit=edit, vectors=vectors)


class ThresholdClassifier(ScopeClassifier):
    """Uses the similarity, clipped to 0..1, as the probability."""

    def __init__(self, scope_threshold: float = 0.8, depends_threshold: float | None = None) -> None:
        """In scope iff the cosine is at least `scope_threshold`; depends iff at least `depends_threshold`."""
        self._scope_threshold = scope_threshold
        self._depends_threshold = depends_threshold
        self.failure: Exception | None = None
        """Set it to make every call fail with it."""

    @property
    def scope_threshold(self) -> float:
        """As given."""
        return self._scope_threshold

    @property
    def depends_threshold(self) -> float | None:
        """As given."""
        return self._depends_threshold

    @property
    def similarity_floor(self) -> float:
        """Candidates of a lower cosine are dropped."""
        return 0.1

    @property
    def fingerprint(self) -> str:
        """The same for all of them."""
        return "threshold"

    def classify(self, query: Query, candidates: Sequence[Candidate]) -> list[Classification]:
        """See `ScopeClassifier.classify`."""
        if self.failure is not None:
            raise self.failure
        probabilities = [max(0.0, min(1.0, candidate.similarity)) for candidate in candidates]
        return [
            Classification(
                scope_probability=probability,
                depends_probability=None if self._depends_threshold is None else probability,
            )
            for probability in probabilities
        ]


@contextmanager
def serving(app: Any, port: int = 0) -> Iterator[str]:  # noqa: ANN401 - any ASGI application
    """Serve `app` over a real loopback socket, from a thread with an event loop of its own; gives the URL.

    `port` 0: any free one.
    """
    listener = socket.create_server(("127.0.0.1", port))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="serving")
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


class ReceivedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request as received over the wire."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    """In order, duplicates kept, names as sent."""
    body: bytes

    def header(self, name: str) -> str | None:
        """The first value of a header, whatever the case of its name."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class ScriptedConnection:
    """The connection to which a script of `ScriptedUpstream` writes its reply, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def raw(self, data: bytes) -> None:
        """Write `data` as it is."""
        self._writer.write(data)
        await self._writer.drain()

    async def head(self, status: int, *headers: tuple[str, str]) -> None:
        """Write status line and headers."""
        lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {value}" for name, value in headers), "", ""]
        await self.raw("\r\n".join(lines).encode("latin-1"))

    async def whole(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        """Write a reply with its length."""
        await self.head(status, *headers, ("content-length", str(len(body))))
        await self.raw(body)

    async def chunk(self, data: bytes) -> None:
        """Write one chunk of a reply whose head says ``transfer-encoding: chunked``."""
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def end(self) -> None:
        """End a chunked reply."""
        await self.raw(b"0\r\n\r\n")

    async def break_off(self) -> None:
        """Close the connection once everything written has been sent."""
        self._writer.close()

    async def client_left(self) -> None:
        """Return when the other side has closed the connection."""
        with suppress(ConnectionError):
            while await self._reader.read(65_536):
                pass


Script = Callable[[ReceivedRequest, ScriptedConnection], Awaitable[None]]


async def echo(request: ReceivedRequest, connection: ScriptedConnection) -> None:
    """Reply with the request's own body."""
    await connection.whole(200, request.body, ("content-type", "application/json"))


class ScriptedUpstream:
    """An HTTP/1.1 server on a real loopback socket that replies by a script and records its requests.

    Used as ``async with``. If a script is cancelled or raises, its connection is closed.
    """

    def __init__(self, script: Script = echo, *, idle_timeout_s: float | None = None) -> None:
        """`script` can be replaced at any time; idle connections are closed after `idle_timeout_s`."""
        self.script = script
        self.requests: list[ReceivedRequest] = []
        """All received requests, oldest first."""
        self.open_connections = 0
        self.connections_made = 0
        self._idle_timeout_s = idle_timeout_s
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Base URL with /v1."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def __aenter__(self) -> ScriptedUpstream:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_connections += 1
        self.connections_made += 1
        try:
            idle_timeout_s = None  # a connection is idle once a request has been answered on it
            while not writer.is_closing():
                request = await asyncio.wait_for(_read_request(reader), idle_timeout_s)
                idle_timeout_s = self._idle_timeout_s
                self.requests.append(request)
                await self.script(request, ScriptedConnection(reader, writer))
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            pass  # idle for too long, or the client has left
        finally:
            self.open_connections -= 1
            writer.close()


async def _read_request(reader: asyncio.StreamReader) -> ReceivedRequest:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    headers = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in head[1:-2]))
    lower = {name.lower(): value for name, value in headers}
    body = b""
    if lower.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readline()
    else:
        body = await reader.readexactly(int(lower.get("content-length", 0)))
    return ReceivedRequest(method=method, target=target, headers=headers, body=body)
