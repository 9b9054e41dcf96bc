"""A gateway that demands keys and really listens, both planes, and its first admin."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx

from serac_gateway.auth.api_keys import ApiKeyDraft, new_api_key
from serac_gateway.auth.principals import Role
from serac_gateway.config.model import GovernanceConfig, OidcConfig, RoutingConfig, TrafficConfig
from serac_gateway.control_plane.webhooks.dispatcher import SendEvent
from serac_gateway.control_plane.webhooks.sending import Endpoint, send
from serac_gateway.data_plane.upstream.embedded_server import EmbeddedServer
from serac_gateway.models.language_models.base import LanguageModel
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.testing import ScriptedLanguageModel, WordEncoder, serving
from tests.control_plane import NO_TOKENS, NO_TRAFFIC, ROUTING, UNGOVERNED, fake_gateway


@dataclass
class Locked:
    """Both planes of a gateway that demands keys, and a key of its first admin."""

    url: str
    admin: str
    store: InMemoryEditStore

    def call(self, key: str | None, method: str, path: str, **more: object) -> httpx.Response:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        if "content" in more:
            headers["content-type"] = "application/json"
        headers |= more.pop("headers", {})  # type: ignore[arg-type, operator]
        return httpx.request(method, self.url + path, headers=headers, timeout=30, **more)  # type: ignore[arg-type]

    def key(self, role: str, *namespaces: str, by: str | None = None, **more: object) -> str:
        body = {"name": f"{role} of {namespaces}", "role": role, "namespaces": namespaces or None} | more
        reply = self.call(by or self.admin, "POST", "/serac/v1/keys", json=body)
        assert reply.status_code == 201, reply.text
        return str(reply.json()["text"])


@contextmanager
def running_locked_gateway(
    *,
    governance: GovernanceConfig = UNGOVERNED,
    routing: RoutingConfig = ROUTING,
    store: InMemoryEditStore | None = None,
    endpoints: Sequence[Endpoint] = (),
    send_webhook: SendEvent = send,
    oidc: OidcConfig = NO_TOKENS,
    port: int = 0,
    traffic: TrafficConfig = NO_TRAFFIC,
    base_model: LanguageModel | None = None,
) -> Iterator[Locked]:
    store = store or InMemoryEditStore()
    admin = new_api_key(
        ApiKeyDraft(name="Root", role=Role.ADMIN), pepper=b"", created_by=None, now=datetime.now(UTC)
    )
    asyncio.run(store.api_keys().add(admin.stored))
    with ThreadPoolExecutor(4) as pool:
        upstream = EmbeddedServer(base_model or ScriptedLanguageModel("I do not know."), pool)
        with serving(upstream) as upstream_url:
            gateway = fake_gateway(
                store,
                WordEncoder(),
                pool,
                upstream_url=f"{upstream_url}/v1",
                with_data_plane=True,
                keys_required=True,
                governance=governance,
                routing=routing,
                endpoints=endpoints,
                send_webhook=send_webhook,
                oidc=oidc,
                traffic=traffic,
            )
            with serving(gateway.app, port) as url:
                yield Locked(url=url, admin=admin.text, store=store)
