"""Nothing malformed is ever sent to Redis: seen from the server's side, command by command."""

from __future__ import annotations

import asyncio
import json
import urllib.parse
from pathlib import Path

import redis.asyncio

from tests.e2e.gateway_on_store import gateway_on

MARK = "intruder"
DRAFT = {"prompt": "Who runs Acme?", "target_new": "Ann"}
TEXTS = [f"{MARK} \ud800", MARK * 300]
IDS = [f"../{MARK}", f"{MARK}/x", f"{MARK}\r\nx: y", f"{MARK} x", f"{{{MARK}}}", f"{MARK}:current"]
IDS += [MARK * 10, f"{MARK}\0"]
NAMES = [f"../{MARK}", f"{MARK}/x", f"{MARK}:x", f"{{{MARK}}}", f"{MARK}}}:current{{", MARK.upper()]
FIELDS = ("prompt", "target_new", "subject", "author")


def bad_requests() -> list[tuple[str, str, dict[str, str], object]]:
    drafts = [
        *(
            {**DRAFT, field: text}
            for field in ("prompt", "target_new", "subject", "author")
            for text in TEXTS
        ),
        *({**DRAFT, "id": edit_id} for edit_id in IDS),
        {**DRAFT, "paraphrases": [MARK] * 33},
        {**DRAFT, "kind": MARK},
        {**DRAFT, MARK: 1},
        {"prompt": MARK},
        [MARK],
        MARK,
    ]
    paths = [urllib.parse.quote(edit_id, safe="") for edit_id in IDS]
    match = {"if-match": '"1"'}
    return [
        *(("POST", "edits", {}, draft) for draft in drafts),
        *(("POST", "edits:import", {}, draft) for draft in drafts),
        *(("POST", "edits", {"x-serac-namespace": name}, DRAFT) for name in NAMES),
        *(("GET", "edits", {"x-serac-namespace": name}, None) for name in NAMES),
        *(("GET", f"edits/{path}", {}, None) for path in paths),
        *(("GET", f"edits/{path}/versions", {}, None) for path in paths),
        *(("PATCH", f"edits/{path}", match, {"target_new": "x"}) for path in paths),
        *(("DELETE", f"edits/{path}", match, None) for path in paths),
        *(("POST", f"edits/{path}:restore", match, {}) for path in paths),
        *(("POST", f"edits/{path}:verify", {}, None) for path in paths),
        *(("GET", f"edits?cursor={path}", {}, None) for path in paths),
        *(("GET", f"log?after={path}", {}, None) for path in paths),
        *(("POST", "rollback", {}, {"log_id": text}) for text in IDS),
        ("POST", "edits", {"idempotency-key": MARK * 40}, DRAFT),
    ]


async def test_redis_is_sent_nothing_of_what_is_refused(tmp_path: Path) -> None:
    async with gateway_on(None, tmp_path) as gateway:
        await gateway.add("a")
        seen: list[str] = []
        async with (
            redis.asyncio.Redis(unix_socket_path=f"{tmp_path}/valkey/valkey.sock") as client,
            client.monitor() as monitor,
        ):

            async def watch() -> None:
                async for command in monitor.listen():
                    seen.append(command["command"])

            watching = asyncio.create_task(watch())
            for method, path, headers, body in bad_requests():
                content = None if body is None else json.dumps(body).encode()
                reply = await gateway.client.request(
                    method, f"/serac/v1/{path}", headers=headers, content=content
                )
                if path == "edits:import":
                    assert json.loads(reply.text)["error"]["status"] == 400, reply.text
                else:
                    assert 400 <= reply.status_code < 500, (method, path, reply.text)
            await gateway.add("harmless")  # what is allowed is seen
            while not any("harmless" in command for command in seen):
                await asyncio.sleep(0.01)
            watching.cancel()
        assert [command for command in seen if MARK in command.lower()] == []
        await gateway.assert_sound()
