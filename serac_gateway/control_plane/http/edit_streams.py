"""Import and export of edits over HTTP: NDJSON streams of any size, in constant memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from litestar import Controller, Request, get, post
from litestar.datastructures import ResponseHeader, State
from litestar.params import QueryParameter
from litestar.response import Stream
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import HTTPResponseBodyEvent, Receive, Send

from serac_gateway.control_plane.http.dependencies import Context
from serac_gateway.control_plane.http.governed import Governance, Governed
from serac_gateway.control_plane.http.guards import NDJSON_TYPES, TAKEN_TYPES, Sender
from serac_gateway.control_plane.http.ndjson import import_edits
from serac_gateway.control_plane.http.parameters import Namespace, problems
from serac_gateway.control_plane.http.problems import problem
from serac_gateway.control_plane.http.wait import Wait, Waiting
from serac_gateway.control_plane.importer import EditImport
from serac_gateway.domain.edits import ACTIVE_STATES, Edit, EditDraft, EditState
from serac_gateway.errors import GatewayError
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.records import Page

NDJSON = "application/x-ndjson"

NAMESPACE_HEADER = ResponseHeader(
    name="x-serac-namespace", description="Whose export it is", documentation_only=True, required=True
)

_EXPORT_PAGE = 500


class EditStreamsController(Controller):
    """/serac/v1/edits:import and :export."""

    tags = ("edits",)

    @post(
        "/edits:import",
        status_code=200,
        media_type=NDJSON,
        request_max_body_size=None,
        summary="Import edits as NDJSON",
        description="One edit a line; one outcome a line, in order and while the upload runs:"
        ' `{"line", "id", "version", "added"}` or `{"line", "error"}`. A bad line stops no other. Read the'
        " reply while you send. The same file again changes nothing: a line whose `id` is live with the same"
        " content, or a line without `id` whose content any live edit has, is answered with that edit and"
        " `added: false`. Conflicts are looked for, line by line, where the namespace refuses or supersedes"
        " them. Where others must agree, at most 1,000 edits are proposed together: their lines have"
        ' `"proposed": true`, and the last line is `{"proposal"}`, or `{"error"}` if there is none. With'
        " `x-serac-wait: all` the reply ends when all of it is applied in every live gateway, or"
        " after `store.wait_timeout_s`. With `dry_run=true` nothing is written: the outcomes say what"
        " would be done, and there is no proposal.",
        responses=problems(400, 409, 503),
        opt={TAKEN_TYPES: NDJSON_TYPES},
    )
    async def import_lines(
        self,
        request: Request[object, object, State],
        namespace: Namespace,
        context: Context,
        principal: Sender,
        waiting: Wait,
        governed: Governed,
        dry_run: Annotated[bool, QueryParameter(description="Only say what would be done")] = False,
    ) -> ASGIStreamingResponse:
        """Add the edits of an NDJSON stream."""
        chunks = request.stream()
        # Read before the reply begins: a server that has begun to reply no longer sends 100-continue.
        first = await anext(chunks)
        edits = EditImport(
            writer=context.writer,
            store=context.store,
            active_edits=context.active_edits,
            namespace=namespace,
            author=principal.author,
            rules=governed.of_import(checks_conflicts_first=context.writer.checks_conflicts_first(namespace)),
            dry_run=dry_run,
        )
        outcomes = _with_proposal(import_edits(edits, _chained(first, chunks)), edits, governed)
        return _DuplexResponse(iterator=_ended(outcomes, waiting), media_type=NDJSON)

    @get(
        "/edits:export",
        media_type=NDJSON,
        summary="Export all edits that are live or on trial as NDJSON",
        description="By id, one a line, as import takes them. A reply that ends before its last chunk is"
        " incomplete: the store failed on the way.",
        response_headers=[NAMESPACE_HEADER],
        responses=problems(400, 503),
    )
    async def export_lines(self, namespace: Namespace, context: Context) -> Stream:
        """All edits of the namespace that are live or on trial."""
        first = await context.store.page(namespace, limit=_EXPORT_PAGE)
        lines = _exported(context.store, namespace, first)
        return Stream(lines, media_type=NDJSON, headers={"x-serac-namespace": namespace})


class _DuplexResponse(ASGIStreamingResponse):
    """A reply that is sent while the request is still read.

    Litestar's own listens for a disconnect meanwhile, and would take the request's body for that.
    """

    async def send_body(self, send: Send, receive: Receive) -> None:
        """Send the stream."""
        async for chunk in self.iterator:
            await send(_body_event(chunk, more=True))
        await send(_body_event(b"", more=False))


def _body_event(chunk: bytes | str, *, more: bool) -> HTTPResponseBodyEvent:
    body = chunk if isinstance(chunk, bytes) else chunk.encode()
    return {"type": "http.response.body", "body": body, "more_body": more}


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


async def _with_proposal(
    outcomes: AsyncIterator[bytes], edits: EditImport, governed: Governance
) -> AsyncIterator[bytes]:
    """The outcomes, and then the proposal of what is only proposed, or why there is none, as last line."""
    async for chunk in outcomes:
        yield chunk
    if edits.proposed:
        try:
            reply = await governed.proposed("import", edits.proposed)
            yield msgspec.json.encode({"proposal": reply.content}) + b"\n"
        except GatewayError as error:
            yield msgspec.json.encode({"error": problem(error)[1]}) + b"\n"


async def _ended(outcomes: AsyncIterator[bytes], waiting: Waiting) -> AsyncIterator[bytes]:
    async for chunk in outcomes:
        yield chunk
    await waiting.applied()


async def _exported(store: EditStore, namespace: str, page: Page) -> AsyncIterator[bytes]:
    while True:
        if lines := [_export_line(edit) for edit in page.edits if edit.state in ACTIVE_STATES]:
            yield b"".join(lines)
        if page.next_cursor is None:
            return
        page = await store.page(namespace, cursor=page.next_cursor, limit=_EXPORT_PAGE)


def _export_line(edit: Edit) -> bytes:
    draft = {
        name: value
        for name in EditDraft.__struct_fields__
        if (value := getattr(edit, name)) not in (None, (), {}, EditState.LIVE)
    }
    return msgspec.json.encode(draft) + b"\n"
