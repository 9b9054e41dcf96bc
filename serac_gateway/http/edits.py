"""The edits of a namespace over HTTP: add, read, change, retire, import, export."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from litestar import Controller, Request, Response, delete, get, patch, post
from litestar.datastructures import ResponseHeader, State
from litestar.openapi.spec import Example
from litestar.params import BodyKwarg, HeaderParameter, PathParameter, QueryParameter
from litestar.response import Stream
from litestar.response.streaming import ASGIStreamingResponse
from litestar.types import HTTPResponseBodyEvent, Receive, Send

from serac_gateway.edits import Edit, EditDraft, EditPatch, EditState, check_edit_id
from serac_gateway.errors import InvalidRequestError
from serac_gateway.http.control_parameters import Namespace, PageLimit, problems
from serac_gateway.http.edit_import import import_edits
from serac_gateway.http.entity_tags import entity_tag, matched_edit
from serac_gateway.http.parts import Parts
from serac_gateway.http.schemas import DEFAULT_PAGE, EditVersions
from serac_gateway.importing import EditImport
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.records import Page

NDJSON = "application/x-ndjson"

_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_EXPORT_PAGE = 500
_ETAG = ResponseHeader(
    name="etag", description='The version in quotes: `"3"`', documentation_only=True, required=True
)  # fmt: skip

EditId = Annotated[
    str,
    PathParameter(
        description="1 to 64 letters, digits, _ and -",
        schema_extra={"pattern": "^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$"},
    ),
]
IfMatch = Annotated[
    str | None,
    HeaderParameter(name="if-match", description="The ETag of the version that the change builds on, or `*`"),
]
_DRAFT_EXAMPLE = Example(
    summary="A fact",
    value={
        "prompt": "Who runs the harbour office of Marrowby?",
        "target_new": "Ottilie Brandvold",
        "subject": "Marrowby",
        "paraphrases": ["Who is in charge of Marrowby's harbour office?"],
        "author": "jo@example.org",
        "reason": "Took office in October",
    },
)
_PATCH_EXAMPLE = Example(
    summary="Another answer", value={"target_new": "Ilse Quennell", "reason": "Resigned"}
)


class EditsController(Controller):
    """/serac/v1/edits. Every reply with one edit carries its version as ETag."""

    tags = ("edits",)

    @post(
        "/edits",
        status_code=201,
        summary="Add an edit",
        description="It is in force in this process before the reply. With an `Idempotency-Key`, a repetition"
        " of the request answers like the first time and adds nothing; the key with another body is refused"
        " with 422.",
        response_headers=[
            _ETAG,
            ResponseHeader(
                name="location", description="The edit's path", documentation_only=True, required=True
            ),
        ],
        responses=problems(400, 409, 413, 422, 503),
    )
    async def add(
        self,
        data: Annotated[EditDraft, BodyKwarg(examples=[_DRAFT_EXAMPLE])],
        namespace: Namespace,
        parts: Parts,
        idempotency_key: Annotated[
            str | None,
            HeaderParameter(
                name="idempotency-key",
                description="1 to 255 visible ASCII characters",
                schema_extra={"pattern": r"^[\x21-\x7e]{1,255}$"},
            ),
        ] = None,
    ) -> Response[Edit]:
        """Add one edit."""
        if idempotency_key is not None and not _IDEMPOTENCY_KEY.fullmatch(idempotency_key):
            raise InvalidRequestError(
                f"idempotency-key {idempotency_key[:80]!r} is not allowed; use 1 to 255 visible ASCII"
                " characters",
                field="idempotency-key",
                details={"value": idempotency_key[:80], "limit": 255},
            )
        fingerprint = hashlib.sha256(msgspec.json.encode(data)).hexdigest()
        edit = await parts.editor.add(
            namespace, data, idempotency_key=idempotency_key, request_fingerprint=fingerprint
        )
        return Response(
            edit,
            status_code=201,
            headers={"etag": entity_tag(edit), "location": f"/serac/v1/edits/{edit.id}"},
        )

    @get("/edits", summary="List edits by id", responses=problems(400, 503))
    async def page(
        self,
        namespace: Namespace,
        parts: Parts,
        cursor: Annotated[str | None, QueryParameter(description="`next_cursor` of the page before")] = None,
        limit: PageLimit = DEFAULT_PAGE,
        edit_state: Annotated[
            EditState | None, QueryParameter(name="state", description="Only edits in this state")
        ] = None,
    ) -> Page:
        """One page of current edits; an edit that exists for the whole walk is listed once."""
        return await parts.store.page(namespace, cursor=cursor, limit=limit, state=edit_state)

    @get(
        "/edits/{edit_id:str}",
        summary="Read an edit",
        response_headers=[_ETAG],
        responses=problems(400, 404, 503),
    )
    async def read(self, edit_id: EditId, namespace: Namespace, parts: Parts) -> Response[Edit]:
        """The current version of an edit, also of a retired one."""
        return _edit_response(await parts.store.get(namespace, check_edit_id(edit_id)))

    @get(
        "/edits/{edit_id:str}/versions",
        summary="Read an edit's history",
        responses=problems(400, 404, 503),
    )
    async def versions(self, edit_id: EditId, namespace: Namespace, parts: Parts) -> EditVersions:
        """All versions of an edit, oldest first."""
        return EditVersions(versions=await parts.store.versions(namespace, check_edit_id(edit_id)))

    @patch(
        "/edits/{edit_id:str}",
        summary="Change an edit",
        description="The fields given replace the stored ones; null clears an optional one.",
        response_headers=[_ETAG],
        responses=problems(400, 404, 412, 413, 428, 503),
    )
    async def change(
        self,
        edit_id: EditId,
        data: Annotated[EditPatch, BodyKwarg(examples=[_PATCH_EXAMPLE])],
        namespace: Namespace,
        parts: Parts,
        if_match: IfMatch = None,
    ) -> Response[Edit]:
        """Store the next version of an edit."""
        current = await matched_edit(parts.store, namespace, edit_id, if_match)
        return _edit_response(
            await parts.editor.change(namespace, edit_id, data, expected_version=current.version)
        )

    @delete(
        "/edits/{edit_id:str}",
        status_code=200,
        summary="Retire an edit",
        description="Its last version is in state `retired`: it never fires again, its history stays. An edit"
        " that is retired already is answered as it is.",
        response_headers=[_ETAG],
        responses=problems(400, 404, 412, 428, 503),
    )
    async def retire(
        self, edit_id: EditId, namespace: Namespace, parts: Parts, if_match: IfMatch = None
    ) -> Response[Edit]:
        """Store the last version of an edit."""
        current = await matched_edit(parts.store, namespace, edit_id, if_match)
        if current.state is EditState.RETIRED:
            return _edit_response(current)
        return _edit_response(await parts.editor.retire(namespace, edit_id, expected_version=current.version))

    @post(
        "/edits:import",
        status_code=200,
        media_type=NDJSON,
        request_max_body_size=None,
        summary="Import edits as NDJSON",
        description="One edit a line; one outcome a line, in order and while the upload runs:"
        ' `{"line", "id", "version", "added"}` or `{"line", "error"}`. A bad line stops no other. Read the reply'
        " while you send. The same file again changes nothing: a line whose `id` is live with the same content,"
        " or a line without `id` whose content any live edit has, is answered with that edit and"
        " `added: false`.",
        responses=problems(400, 503),
    )
    async def import_lines(
        self, request: Request[object, object, State], namespace: Namespace, parts: Parts
    ) -> ASGIStreamingResponse:
        """Add the edits of an NDJSON stream."""
        chunks = request.stream()
        # Read before the reply begins: a server that has begun to reply no longer sends 100-continue.
        first = await anext(chunks)
        outcomes = import_edits(
            EditImport(
                editor=parts.editor, store=parts.store, live_edits=parts.live_edits, namespace=namespace
            ),
            _chained(first, chunks),
        )
        return _DuplexResponse(iterator=outcomes, media_type=NDJSON)

    @get(
        "/edits:export",
        media_type=NDJSON,
        summary="Export all live edits as NDJSON",
        description="By id, one a line, as import takes them. A reply that ends before its last chunk is"
        " incomplete: the store failed on the way.",
        responses=problems(400, 503),
    )
    async def export_lines(self, namespace: Namespace, parts: Parts) -> Stream:
        """All live edits of the namespace."""
        first = await parts.store.page(namespace, limit=_EXPORT_PAGE, state=EditState.LIVE)
        return Stream(_exported(parts.store, namespace, first), media_type=NDJSON)


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


def _edit_response(edit: Edit) -> Response[Edit]:
    return Response(edit, headers={"etag": entity_tag(edit)})


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


async def _exported(store: EditStore, namespace: str, page: Page) -> AsyncIterator[bytes]:
    while True:
        if page.edits:
            yield b"".join(_export_line(edit) for edit in page.edits)
        if page.next_cursor is None:
            return
        page = await store.page(namespace, cursor=page.next_cursor, limit=_EXPORT_PAGE, state=EditState.LIVE)


def _export_line(edit: Edit) -> bytes:
    draft = {
        name: value
        for name in EditDraft.__struct_fields__
        if (value := getattr(edit, name)) not in (None, ())
    }
    return msgspec.json.encode(draft) + b"\n"
