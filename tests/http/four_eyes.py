"""A gateway in which others must agree, and people with keys of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from serac_gateway.config.model import (
    GovernanceConfig,
    NamespaceGovernance,
    OidcConfig,
    RequiredField,
    RoutingConfig,
    TrafficConfig,
)
from serac_gateway.control_plane.webhooks.dispatcher import SendEvent
from serac_gateway.control_plane.webhooks.sending import Endpoint, send
from serac_gateway.models.language_models.base import LanguageModel, Piece, Sampling
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.testing import ScriptedLanguageModel
from tests.control_plane import NO_TOKENS, NO_TRAFFIC, ROUTING
from tests.locked_gateway import Locked, running_locked_gateway

API = "/serac/v1"
GOVERNANCE = GovernanceConfig(
    namespaces={
        "default": NamespaceGovernance(approvals=2),
        "one": NamespaceGovernance(approvals=1),
        "strict": NamespaceGovernance(required=(RequiredField.REASON, RequiredField.SOURCE)),
    }
)
DRAFT = {"prompt": "Who runs the harbour office of Marrowby?", "target_new": "Ottilie Brandvold"}
YES = {"reason": "Checked"}


@dataclass
class People:
    """Keys of people with their roles, for every namespace."""

    locked: Locked
    ann: str
    """An editor."""
    ann_too: str
    """Her second key, of role approve, with her name written another way."""
    bo: str
    cy: str
    """Approvers."""

    def call(self, key: str | None, method: str, path: str, **more: object) -> httpx.Response:
        return self.locked.call(key, method, API + path, **more)

    def propose(self, key: str | None = None, namespace: str = "default", **fields: object) -> dict[str, Any]:
        body = DRAFT | fields
        reply = self.call(
            key or self.ann, "POST", "/edits", json=body, headers={"x-serac-namespace": namespace}
        )
        assert reply.status_code == 202, reply.text
        proposal: dict[str, Any] = reply.json()
        assert reply.headers["location"] == proposal["url"]
        return proposal

    def say(self, key: str, verb: str, proposal: dict[str, Any], **more: object) -> httpx.Response:
        return self.call(key, "POST", f"/proposals/{proposal['id']}:{verb}", **{"json": YES, **more})

    def state(self, proposal: dict[str, Any]) -> str:
        return str(self.call(self.ann, "GET", f"/proposals/{proposal['id']}").json()["state"])

    def edits(self, namespace: str = "default") -> dict[str, dict[str, Any]]:
        reply = self.call(self.ann, "GET", "/edits", headers={"x-serac-namespace": namespace})
        return {edit["id"]: edit for edit in reply.json()["edits"]}

    def log(self, namespace: str = "default") -> list[dict[str, Any]]:
        reply = self.call(self.ann, "GET", "/log", headers={"x-serac-namespace": namespace})
        return list(reply.json()["entries"])

    def counted(self, event: str) -> float:
        """How often it happened, by /metrics."""
        metrics = self.locked.call(self.locked.admin, "GET", "/metrics").text
        return sum(
            float(line.rpartition(" ")[2])
            for line in metrics.splitlines()
            if line.startswith("serac_proposals_total") and f'event="{event}"' in line
        )

    def accepted(self, **fields: object) -> dict[str, Any]:
        """An edit that is stored."""
        proposal = self.propose(**fields)
        self.say(self.bo, "approve", proposal)
        assert self.say(self.cy, "approve", proposal).json()["state"] == "accepted"
        return self.edits()[proposal["edit_ids"][0]]


class PausingModel(ScriptedLanguageModel):
    """Says its first word, and the others once it may go on."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.may_go_on = threading.Event()

    def generate(
        self, prompt: str, sampling: Sampling, *, cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[Piece]:
        for number, piece in enumerate(super().generate(prompt, sampling, cancelled=cancelled)):
            assert number == 0 or self.may_go_on.wait(30)
            yield piece


@contextmanager
def running_people(
    *,
    routing: RoutingConfig = ROUTING,
    store: InMemoryEditStore | None = None,
    endpoints: Sequence[Endpoint] = (),
    send_webhook: SendEvent = send,
    oidc: OidcConfig = NO_TOKENS,
    port: int = 0,
    traffic: TrafficConfig = NO_TRAFFIC,
    base_model: LanguageModel | None = None,
) -> Iterator[People]:
    """The gateway, until the context ends."""
    with running_locked_gateway(
        governance=GOVERNANCE,
        routing=routing,
        store=store,
        endpoints=endpoints,
        send_webhook=send_webhook,
        oidc=oidc,
        port=port,
        traffic=traffic,
        base_model=base_model,
    ) as locked:
        yield People(
            locked=locked,
            ann=locked.key("edit", "*", name="Ann Lee"),
            ann_too=locked.key("approve", "*", name="ann  LEE"),
            bo=locked.key("approve", "*", name="Bo"),
            cy=locked.key("approve", "*", name="Cy"),
        )
