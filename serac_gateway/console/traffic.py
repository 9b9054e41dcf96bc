"""Traffic: who answers, which edits are used and which never, and the requests nearest to the threshold."""

from __future__ import annotations

from typing import Any

from litestar import Controller, Response, get, post

from serac_gateway.console.paths import page_path
from serac_gateway.console.planes import RefusedError, together
from serac_gateway.console.sessions import Notice
from serac_gateway.console.visits import Visit, Visiting

_LISTED = 100
_UNUSED_LISTED = 30
_LOOKED_THROUGH = 1_000
"""Edits among which those never used are looked for."""


class TrafficPages(Controller):
    """/console/n/{namespace}/traffic."""

    path = "/n/{namespace:str}/traffic"

    @get()
    async def traffic(self, visit: Visiting) -> Response[str]:
        """Counts since the start, the latest near misses, and what moving the threshold would change."""
        stats, recorded, near, edits = (
            reply.json
            for reply in (
                await visit.client.control("GET", "/stats"),
                await visit.client.control("GET", "/traffic"),
                await visit.client.control("GET", "/traffic/near-misses"),
                await visit.client.control("GET", "/edits", query={"limit": str(_LOOKED_THROUGH)}),
            )
        )
        of_namespace = [count for count in stats["governed"] if count["namespace"] == visit.namespace]
        counts = of_namespace[:_LISTED]
        used = {count["edit_id"] for count in of_namespace}
        unused = [
            edit
            for edit in edits["edits"]
            if edit["id"] not in used and edit["state"] not in ("retired", "purged")
        ]
        return visit.page(
            "traffic.html",
            routes=sorted(stats["routes"], key=lambda route: -route["count"]),
            counts=counts,
            prompts=await _prompts(visit, [count["edit_id"] for count in counts]),
            recorded=recorded,
            near=near,
            moved=[each for each in near["moved"] if each["more"] or each["fewer"]],
            unused=unused[:_UNUSED_LISTED],
            unused_more=max(0, len(unused) - _UNUSED_LISTED),
            looked_through=None if edits["next_cursor"] is None else _LOOKED_THROUGH,
        )

    @post(status_code=200)
    async def report(self, visit: Visiting) -> Response[Any]:
        """Say of a request whether the right edit governed it."""
        body = {name: visit.fields.get(name, "") for name in ("request_id", "verdict")}
        if visit.fields.get("comment", "").strip():
            body["comment"] = visit.fields["comment"]
        await visit.client.control("POST", "/feedback", body=body)
        return visit.redirect(page_path(visit.namespace, "traffic"), Notice(key="traffic.reported"))


async def _prompts(visit: Visit, edit_ids: list[str]) -> dict[str, str]:
    replies = await together(*(visit.client.control("GET", f"/edits/{edit_id}") for edit_id in edit_ids))
    return {
        edit_id: reply.json["prompt"]
        for edit_id, reply in zip(edit_ids, replies, strict=True)
        if not isinstance(reply, RefusedError)
    }
