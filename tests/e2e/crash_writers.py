"""Concurrent writers that note what was acknowledged to them, whatever dies meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter, defaultdict
from typing import Any

import httpx

_HOT = 4
"""Edits that all writers change; the others are one writer's own."""
_TOGETHER = 12
"""Edits that are only ever changed in one commit."""


class Writers:
    """Eight of them in one namespace, and one in another that commits several changes at a time."""

    def __init__(self, url: str, namespace: str, dice: random.Random) -> None:
        self.namespace, self.together = namespace, f"{namespace}-together"
        self.acknowledged: dict[str, dict[int, tuple[str, str]]] = defaultdict(dict)
        """Edit id and version to answer and state."""
        self.purged: set[str] = set()
        """Perhaps: also where no reply came."""
        self.purges_acknowledged: set[str] = set()
        self.rollbacks_acknowledged = 0
        self._together_state: str | None = None
        """The state in which the last rollback left the edits; None: none was acknowledged, or the last
        one got no reply, so that nobody knows what became of it."""
        self.outcomes: Counter[str] = Counter()
        self._url = f"{url}/serac/v1"
        self._dice = dice
        self._stopped = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._write(number)) for number in range(8)]
        self._tasks.append(asyncio.create_task(self._write_together()))

    async def stop(self) -> None:
        self._stopped.set()
        await asyncio.gather(*self._tasks)

    async def lost(self) -> list[str]:
        """What was acknowledged and is not stored."""
        async with self._client(self.namespace) as client:
            return [
                problem for edit_id in self.acknowledged for problem in await self._lost_of(client, edit_id)
            ]

    async def halves(self) -> list[str]:
        """Edits that were changed in one commit and have not the same version and state."""
        async with self._client(self.together) as client:
            edits = (await client.get("/edits", params={"limit": 1000})).json()["edits"]
        seen = {(edit["version"], edit["state"]) for edit in edits}
        if len(seen) > 1 or len(edits) not in (0, _TOGETHER):
            return [f"{len(edits)} edits committed together are in {sorted(seen)}"]
        expected = self._together_state
        if expected is not None and {state for _, state in seen} != {expected}:
            return [f"a rollback to {expected!r} was acknowledged, but the edits are in {sorted(seen)}"]
        return []

    def prompt(self, edit_id: str) -> str:
        """The text of an edit that a writer adds, which no other edit of any round has."""
        return f"What is {edit_id} of {self.namespace} about, which nobody else asks?"

    async def unpurged(self) -> list[str]:
        """Edits whose purge was acknowledged and whose content can still be read."""
        async with self._client(self.namespace) as client:
            return [
                f"the purge of {edit_id} was acknowledged, but {path} is answered with {reply.status_code}"
                for edit_id in sorted(self.purges_acknowledged)
                for path in (f"/edits/{edit_id}", f"/edits/{edit_id}/versions")
                if (reply := await client.get(path)).status_code != 410
            ]

    async def _lost_of(self, client: httpx.AsyncClient, edit_id: str) -> list[str]:
        reply = await client.get(f"/edits/{edit_id}/versions")
        if edit_id in self.purged and reply.status_code == 410:
            return []
        versions = reply.json()["versions"] if reply.status_code == 200 else []
        problems = []
        for version, (target, state) in self.acknowledged[edit_id].items():
            if version > len(versions):
                problems.append(f"{edit_id} version {version} was acknowledged and is gone")
            elif (versions[version - 1]["target_new"], versions[version - 1]["state"]) != (target, state):
                problems.append(f"{edit_id} version {version} was acknowledged as {target} ({state})")
        return problems

    async def _write(self, writer: int) -> None:
        dice = random.Random(self._dice.random())
        own: list[str] = []
        async with self._client(self.namespace) as client:
            turn = 0
            while not self._stopped.is_set():
                turn += 1
                target = f"answer {writer}.{turn}"
                action = dice.choices(["add", "change", "hot", "retire", "purge"], [40, 24, 18, 8, 10])[0]
                if action == "add" or not own:
                    edit_id = f"w{writer}-{turn}"
                    own.append(edit_id)
                    draft = {"id": edit_id, "prompt": self.prompt(edit_id), "target_new": target}
                    await self._send(client, "POST", "/edits", draft, key=f"{self.namespace}-{edit_id}")
                elif action == "hot":
                    edit_id = f"hot-{dice.randrange(_HOT)}"
                    draft = {"id": edit_id, "prompt": f"Hot question {edit_id}?", "target_new": target}
                    await self._send(client, "POST", "/edits", draft)
                    await self._send(client, "PATCH", f"/edits/{edit_id}", {"target_new": target})
                elif action == "change":
                    await self._send(client, "PATCH", f"/edits/{dice.choice(own)}", {"target_new": target})
                elif action == "retire":
                    await self._send(client, "DELETE", f"/edits/{dice.choice(own)}")
                else:
                    edit_id = own.pop(dice.randrange(len(own)))
                    self.purged.add(edit_id)
                    await self._send(client, "POST", f"/edits/{edit_id}:purge", {"reason": "asked for"})

    async def _write_together(self) -> None:
        """Edits that one rollback retires and another brings back, all in one commit each."""
        async with self._client(self.together) as client:
            for number in range(_TOGETHER):
                draft = {"id": f"t{number}", "prompt": f"Question {number}?", "target_new": "x"}
                while not await self._send(client, "POST", "/edits", draft, key=f"{self.together}-{number}"):
                    if self._stopped.is_set():
                        self._discount_unfinished()
                        return
            here: str | None = None
            while here is None and not self._stopped.is_set():
                with contextlib.suppress(httpx.HTTPError, KeyError, IndexError):
                    here = (await client.get("/log", params={"limit": 1000})).json()["entries"][
                        _TOGETHER - 1
                    ]["log_id"]
            while not self._stopped.is_set():
                for log_id, state in (("0-0", "retired"), (here, "live")):
                    self._together_state = None
                    if await self._send(client, "POST", "/rollback", {"log_id": log_id}):
                        self._together_state = state
                        self.rollbacks_acknowledged += 1

    def _discount_unfinished(self) -> None:
        self.together = f"{self.together}-unfinished"  # nothing was committed together yet: an empty one

    async def _send(
        self, client: httpx.AsyncClient, method: str, path: str, body: object = None, *, key: str = ""
    ) -> bool:
        """Send, and note an acknowledgement. False: nobody knows what became of it."""
        headers = {"idempotency-key": key} if key else {}
        try:
            if method in ("PATCH", "DELETE") or path.endswith(":purge"):
                edit_id = path.removeprefix("/edits/").partition(":")[0]
                current = await client.get(f"/edits/{edit_id}")
                if current.status_code != 200:
                    self.outcomes[f"read {current.status_code}"] += 1
                    return False
                headers["if-match"] = current.headers["etag"]
            reply = await client.request(method, path, json=body, headers=headers)
        except httpx.HTTPError as error:
            self.outcomes[type(error).__name__] += 1
            await asyncio.sleep(0.02)
            return False
        self.outcomes[str(reply.status_code)] += 1
        if reply.status_code == 503:
            await asyncio.sleep(0.01)
            return False
        assert reply.status_code in (200, 201, 404, 409, 410, 412), reply.text
        if path == "/rollback":
            return reply.status_code == 200
        if reply.status_code in (200, 201):
            self._note(reply.json())
        return True

    def _note(self, edit: dict[str, Any]) -> None:
        if edit["namespace"] != self.namespace:
            return
        if edit["state"] == "purged":
            self.purges_acknowledged.add(edit["id"])
        else:
            self.acknowledged[edit["id"]][edit["version"]] = edit["target_new"], edit["state"]

    def _client(self, namespace: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self._url, headers={"x-serac-namespace": namespace}, timeout=30, trust_env=False
        )
