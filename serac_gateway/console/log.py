"""The log of all changes: read, verified from its evidence, exported."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
from litestar import Controller, Response, get, post
from litestar.params import FromPath
from litestar.types import ASGIApp, Receive, Scope, Send

from serac_gateway.console.paths import page_path
from serac_gateway.console.visits import Visit, Visiting
from serac_gateway.stores.log_chain import LogHead
from serac_gateway.stores.log_verification import BrokenLogError, Evidence, LogVerifier
from serac_gateway.stores.records import LOG_START

PAGE = 100
_WINDOWS_S = (600, 3_600, 21_600, 86_400, 604_800, 2_592_000, 31_536_000)
"""How far back the latest entries are looked for: further where too few are there."""
_LATEST = 1_000
_EXPORTS = {
    "log": ("/log:export", {}, "log.ndjson"),
    "evidence": ("/log:export", {"evidence": "true"}, "log-evidence.ndjson"),
    "edits": ("/edits:export", {}, "edits.ndjson"),
}
"""Path, query and file name of what can be exported."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a log is what was written."""

    head: LogHead | None
    """Where it ends; None: it is not."""
    problem: str | None = None
    """What is wrong, in English."""


class LogPages(Controller):
    """/console/n/{namespace}/log."""

    path = "/n/{namespace:str}/log"

    @get()
    async def entries(self, visit: Visiting) -> Response[str]:
        """The latest entries, or those after one."""
        return await _page(visit)

    @post(status_code=200)
    async def verify(self, visit: Visiting) -> Response[str]:
        """Compute every digest of the log anew from its evidence, and compare."""
        expected = visit.fields.get("expected", "").strip()
        return await _page(visit, verdict=await _verdict(visit, expected or None), expected=expected)

    @get("/export/{what:str}")
    async def export(self, visit: Visiting, what: FromPath[str]) -> ASGIApp:
        """A file of NDJSON, streamed."""
        path, query, name = _EXPORTS.get(what, _EXPORTS["log"])
        headers = {
            b"content-type": b"application/x-ndjson",
            b"content-disposition": f'attachment; filename="{visit.namespace}-{name}"'.encode(),
        }

        async def exported(scope: Scope, receive: Receive, send: Send) -> None:
            await visit.client.pass_on(path, send, query=query, headers=headers)

        return exported


async def _page(visit: Visit, *, verdict: Verdict | None = None, expected: str = "") -> Response[str]:
    after = visit.request.query_params.get("after")
    if after is None:
        entries, following = (await _latest(visit))[:PAGE], None
    else:
        reply = await visit.client.control("GET", "/log", query={"after": after, "limit": str(PAGE)})
        entries = reply.json["entries"]
        is_full = len(entries) == PAGE
        following = page_path(visit.namespace, "log", after=reply.json["next_after"]) if is_full else None
    return visit.page(
        "log.html",
        entries=entries,
        after=after,
        following=following,
        start=LOG_START,
        verdict=verdict,
        expected=expected,
    )


async def _latest(visit: Visit) -> list[dict[str, Any]]:
    """The latest entries, newest first.

    The log is read forwards, and its ids are times: so it is read from a while ago, longer if that gives few.
    Where even the shortest while has more than `_LATEST`, the first of them.
    """
    entries: list[dict[str, Any]] = []
    now_ms = time.time_ns() // 1_000_000
    for after in (*(f"{now_ms - 1_000 * window_s}-0" for window_s in _WINDOWS_S), LOG_START):
        reply = await visit.client.control("GET", "/log", query={"after": after, "limit": str(_LATEST)})
        read = reply.json["entries"]
        if len(read) == _LATEST and entries:
            break
        entries = read
        if len(entries) >= PAGE:
            break
    return entries[::-1]


async def _verdict(visit: Visit, expected: str | None) -> Verdict:
    """Read the evidence as any client would, and trust nothing but what is computed from it."""
    verifier = LogVerifier(visit.namespace, expected=expected)
    problem: str | None = None
    rest, has_head = b"", False

    async def take(chunk: bytes) -> None:
        nonlocal rest, problem, has_head
        if problem is not None:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        try:
            for line in lines:
                evidence = msgspec.json.decode(line, type=Evidence)
                verifier.take(evidence)
                has_head = has_head or isinstance(evidence, LogHead)
        except BrokenLogError as error:
            problem = f"{error.log_id}: {error}"
        except msgspec.DecodeError as error:
            problem = str(error)
        await asyncio.sleep(0)  # other requests are served meanwhile

    await visit.client.read_stream("/log:export", take, query={"evidence": "true"})
    if problem is None and not has_head:
        problem = "the evidence ended before the head of the log"
    return Verdict(head=verifier.head if problem is None else None, problem=problem)
