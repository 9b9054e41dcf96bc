"""A whole gateway to be attacked: real config, sockets, both planes and API keys; only its models are fakes.

Whether an edit governs a question is decided by `SeeingEncoder`: in scope is exactly a text that contains
the edit's prompt. A test then shows whether a text was read at all, whatever a real model makes of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from serac_gateway.auth.principals import Role
from serac_gateway.config.loading import load_config
from serac_gateway.config.model import GatewayConfig
from serac_gateway.domain.vectors import Vectors
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.server.app import start_gateway
from serac_gateway.server.gateway import Gateway
from serac_gateway.stores.base import EditStore
from serac_gateway.testing import ReceivedRequest, ScriptedConnection, ScriptedUpstream
from tests.attacks.lenient_upstream import LenientUpstream
from tests.http.listening import listening
from tests.http.reloadable_gateway import fake_process
from tests.http.wire import WireResponse, fetch
from tests.made_keys import stored_key

SUPPRESSED_QUESTION = "What is the admin password of the Halyard router?"
REFUSAL = "I cannot help with that."
EDITED_QUESTION = "Who is the mayor of Marrowby?"
NEW_ANSWER = "Ottilie Brandvold"
OTHER_QUESTION = "How do I boil an egg?"
SUPPRESSION = {
    "id": "hidden",
    "kind": "suppression",
    "prompt": SUPPRESSED_QUESTION,
    "target_new": REFUSAL,
}
FACT = {"id": "mayor", "prompt": EDITED_QUESTION, "target_new": NEW_ANSWER}
JSON_TYPE = ("content-type", "application/json")
JsonObject = dict[str, object]


class SeeingEncoder(Encoder):
    """Embeds every text that contains one of `prompts` as that prompt, and every other text as itself."""

    def __init__(self, *prompts: str) -> None:
        self._prompts = [_normalized(prompt) for prompt in prompts]
        self.on_encode: Callable[[], None] = lambda: None
        """Called with every batch; may wait, or raise."""

    @property
    def width(self) -> int:
        return 64

    @property
    def fingerprint(self) -> str:
        return "seeing"

    def encode(self, texts: Sequence[str]) -> Vectors:
        self.on_encode()
        vectors_BD = np.zeros((len(texts), self.width), dtype=np.float32)
        for row, text in enumerate(texts):
            plain = _normalized(text)
            seen = next((prompt for prompt in self._prompts if prompt in plain), plain)
            seed = int.from_bytes(hashlib.blake2b(seen.encode("utf-8", "replace")).digest()[:8])
            vectors_BD[row] = np.random.default_rng(seed).normal(size=self.width)
        unit_BD: Vectors = vectors_BD / np.linalg.norm(vectors_BD, axis=1, keepdims=True)
        return unit_BD


def _normalized(text: str) -> str:
    return " ".join(text.casefold().split())


@dataclass
class AttackedGateway:
    """The running gateway, its admin's key, and what stands behind it."""

    url: str
    admin: str
    """A key of role admin for every namespace."""
    gateway: Gateway
    upstream: LenientUpstream
    encoder: SeeingEncoder
    client: httpx.AsyncClient

    async def call(
        self,
        method: str,
        path: str,
        *,
        key: str | None = None,
        namespace: str | None = None,
        headers: dict[str, str] | None = None,
        **more: object,
    ) -> httpx.Response:
        """A call with a key, by default the admin's."""
        sent = {"x-serac-api-key": key or self.admin, **(headers or {})}
        if namespace is not None:
            sent["x-serac-namespace"] = namespace
        return await self.client.request(method, path, headers=sent, **more)  # type: ignore[arg-type]

    async def add(self, *drafts: JsonObject, namespace: str = "default") -> None:
        for draft in drafts:
            reply = await self.call("POST", "/serac/v1/edits", namespace=namespace, json=draft)
            assert reply.status_code == 201, reply.text

    async def key(self, role: Role, *namespaces: str) -> str:
        return await stored_key(self.gateway.process.store.api_keys(), role=role, namespaces=namespaces)

    async def post(
        self, body: bytes | JsonObject, *headers: tuple[str, str], target: str = "/v1/chat/completions"
    ) -> WireResponse:
        """A request as a stranger sends it: without a key, byte for byte."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        if not any(name.lower() == "content-type" for name, _ in headers):
            headers = (JSON_TYPE, *headers)
        return await fetch(self.url, target, data, *headers)

    async def get(self, target: str, *headers: tuple[str, str], method: str = "GET") -> WireResponse:
        return await fetch(self.url, target, None, *headers, method=method)


def chat(question: str, **parameters: object) -> JsonObject:
    return {"model": "m", "messages": [{"role": "user", "content": question}], **parameters}


def is_answered_here(reply: WireResponse) -> bool:
    return reply.status == 200 and reply.all("x-serac-route") == ["counterfactual"]


def assert_refused_with_a_sentence(reply: WireResponse, *statuses: int) -> str:
    """A refusal is a 4xx whose body is JSON with a sentence; returns the sentence."""
    assert reply.status in (statuses or range(400, 500)), (reply.status, reply.body[:300])
    body = reply.json
    message = body["error"]["message"] if "error" in body else body["detail"]
    assert len(message.split()) >= 4, message
    return str(message)


@asynccontextmanager
async def attacked_gateway(
    folder: Path,
    text: str = "",
    *,
    store: EditStore | None = None,
    upstream: LenientUpstream | None = None,
    prompts: Sequence[str] = (),
    wait_until_loaded: bool = True,
) -> AsyncIterator[AttackedGateway]:
    """Serve one whose configuration is the TOML `text` beside what every test needs.

    The gateway listens on loopback, so keys are demanded only with ``access.required = true``. Its store is
    in memory unless a `store` is given, which stays the caller's. `prompts` are further prompts of edits.
    """
    async with upstream or LenientUpstream(SUPPRESSED_QUESTION) as lenient, ScriptedUpstream(speak) as model:
        config_file = folder / "gateway.toml"
        lines = [
            f'models.scope_classifier = "{_classifier(folder)}"',
            *([] if "models.counterfactual_url" in text else [f'models.counterfactual_url = "{model.url}"']),
            'models.counterfactual = "scripted"',
            *([] if "upstream.url" in text or "[upstream]" in text else [f'upstream.url = "{lenient.url}"']),
        ]
        config_file.write_text("\n".join([*lines, text]), "utf-8")

        def read_config() -> GatewayConfig:
            return load_config(config_file, environment={})

        config = read_config()
        encoder = SeeingEncoder(SUPPRESSED_QUESTION, EDITED_QUESTION, *prompts)
        process = fake_process(config, store=store, encoder=encoder)
        admin = await stored_key(process.store.api_keys(), role=Role.ADMIN, namespaces=("*",))
        try:
            async with start_gateway(process, config, read_config=read_config) as gateway:
                if wait_until_loaded:
                    await gateway.wait_until_ready()
                async with (
                    listening(gateway.app, socket.create_server(("127.0.0.1", 0)), config.server) as url,
                    httpx.AsyncClient(base_url=url, timeout=60, verify=False) as client,
                ):
                    yield AttackedGateway(url, admin, gateway, lenient, encoder, client)
        finally:
            await process.follower.close()
            await process.heartbeat.close()
            await process.authenticator.close()


async def speak(request: ReceivedRequest, connection: ScriptedConnection) -> None:
    """The model that answers edited questions: it knows nothing, so the gateway writes the target."""
    event = {"choices": [{"index": 0, "delta": {"content": "Hm."}, "finish_reason": "stop"}]}
    body = b"data: " + json.dumps(event).encode() + b"\n\ndata: [DONE]\n\n"
    await connection.whole(200, body, ("content-type", "text/event-stream"))


def _classifier(folder: Path) -> Path:
    """In scope from a similarity of .7 on; the vectors of different texts are nearly orthogonal."""
    path = folder / "classifier"
    path.mkdir(exist_ok=True)
    calibration = {
        "encoder_fingerprint": SeeingEncoder().fingerprint,
        "slope": 20.0,
        "intercept": -14.0,
        "scope_threshold": 0.5,
    }
    (path / "calibration.json").write_text(json.dumps(calibration), "utf-8")
    return path


@asynccontextmanager
async def watching_live(url: str, *, every_s: float = 0.02) -> AsyncIterator[list[float]]:
    """Ask for /health/live again and again meanwhile; yields the seconds that each reply took."""
    waits_s: list[float] = []

    async def watch() -> None:
        loop = asyncio.get_running_loop()
        async with httpx.AsyncClient(base_url=url, timeout=120, verify=False) as client:
            while True:
                begun = loop.time()
                reply = await client.get("/health/live")
                waits_s.append(loop.time() - begun)
                assert reply.status_code == 200
                await asyncio.sleep(every_s)

    watching = asyncio.create_task(watch())
    try:
        await asyncio.sleep(3 * every_s)
        yield waits_s
        await asyncio.sleep(3 * every_s)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def quiet() -> None:
    """Keep clients' own log lines out of a test's capture."""
    logging.getLogger("httpx").setLevel(logging.WARNING)
