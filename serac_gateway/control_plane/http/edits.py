"""The edits of a namespace over HTTP: add, list, search, read, change, retire."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated

import msgspec
from litestar import Controller, Response, delete, get, patch, post
from litestar.datastructures import ResponseHeader
from litestar.openapi.spec import Example
from litestar.params import BodyKwarg, QueryParameter

from serac_gateway.control_plane.http.dependencies import Context, ControlPlaneContext
from serac_gateway.control_plane.http.edit_warnings import edit_warnings
from serac_gateway.control_plane.http.etags import matched_edit
from serac_gateway.control_plane.http.governed import PROPOSED, Governed
from serac_gateway.control_plane.http.guards import Sender
from serac_gateway.control_plane.http.parameters import (
    ETAG,
    AudienceFilter,
    AuthorFilter,
    EditId,
    IdempotencyKey,
    IfMatch,
    KindFilter,
    Namespace,
    PageLimit,
    StateFilter,
    TextFilter,
    Verify,
    attribution_of,
    checked_idempotency_key,
    edit_response,
    problems,
)
from serac_gateway.control_plane.http.schemas import (
    DEFAULT_PAGE,
    EditPage,
    EditReply,
    EditVersions,
    SearchMode,
)
from serac_gateway.control_plane.http.wait import APPLIED, Wait
from serac_gateway.control_plane.search import NO_FILTER, EditFilter
from serac_gateway.control_plane.verification import Verified
from serac_gateway.control_plane.versions import NextVersion
from serac_gateway.domain.audiences import audience_of_texts
from serac_gateway.domain.edits import (
    ACTIVE_STATES,
    Edit,
    EditDraft,
    EditPatch,
    EditState,
    check_edit_id,
    check_not_purged,
    record_json,
)
from serac_gateway.errors import InvalidRequestError
from serac_gateway.stores.checked_records import DamagedRecord
from serac_gateway.stores.records import Idempotency

_DRAFT_EXAMPLE = Example(
    summary="A fact",
    value={
        "prompt": "Who runs the harbour office of Marrowby?",
        "target_new": "Ottilie Brandvold",
        "subject": "Marrowby",
        "aliases": ["Marrowby-on-Sea"],
        "paraphrases": ["Who is in charge of Marrowby's harbour office?"],
        "author": "jo@example.org",
        "reason": "Took office in October",
        "institution": "Town of Marrowby",
        "source_url": "https://marrowby.example/minutes/2026-10.pdf",
        "review_by": "2027-10-01",
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
        description="It is in force in this process before the reply, which names the edits that answer the"
        " same question differently as `conflicts`, and what the edit may lack as `warnings`. What becomes of"
        " conflicts, the namespace's policy says: the newest wins, the new edit is refused with 409, or they"
        " are retired in the same commit. With an `Idempotency-Key`, a repetition of the request answers like"
        " the first time and adds nothing, also while the first one is under way: whichever is committed"
        " first, both answer with it. The key with another body, or under another API key, is refused with"
        " 422.",
        response_headers=[
            ETAG,
            APPLIED,
            ResponseHeader(
                name="location", description="The edit's path", documentation_only=True, required=True
            ),
        ],
        responses=problems(400, 409, 413, 422, 503) | PROPOSED,
    )
    async def add(
        self,
        data: Annotated[EditDraft, BodyKwarg(examples=[_DRAFT_EXAMPLE])],
        namespace: Namespace,
        context: Context,
        principal: Sender,
        waiting: Wait,
        governed: Governed,
        idempotency_key: IdempotencyKey = None,
        verify: Verify = False,
    ) -> Response[EditReply]:
        """Add one edit."""
        data = msgspec.structs.replace(data, author=principal.author or data.author)
        # With the author: the same body under another API key is another request.
        fingerprint = hashlib.sha256(record_json(data)).hexdigest()
        idempotency = None
        if checked_idempotency_key(idempotency_key) is not None:
            idempotency = Idempotency(key=idempotency_key or "", fingerprint=fingerprint)
        version = NextVersion.added(namespace, data)
        if governed.proposes:
            return await governed.proposed("add", [version], idempotency=idempotency)
        written = await context.writer.write(
            namespace, version, idempotency=idempotency, approval=governed.approval([version])
        )
        verified = await _verified(context, namespace, written.edit) if verify else None
        warnings = await edit_warnings(context, written.edit)
        return await waiting.replied(
            edit_response(
                written.edit, written, warnings=warnings, verified=verified, status=201, location=True
            )
        )

    @get(
        "/edits",
        summary="List or search edits",
        description="By id. With `q`, those in which that text stands, in any case; with `kind` and `author`"
        " those that have them; with `mode=meaning` those"
        " in force whose forms lie nearest to it, best first. A page may be short, or empty, and yet not be"
        " the last: follow `next_cursor` until it is null. What others write meanwhile moves no cursor.",
        responses=problems(400, 503),
    )
    async def page(
        self,
        namespace: Namespace,
        context: Context,
        cursor: Annotated[str | None, QueryParameter(description="`next_cursor` of the page before")] = None,
        limit: PageLimit = DEFAULT_PAGE,
        q: TextFilter = None,
        mode: Annotated[SearchMode, QueryParameter(description="How `q` is compared")] = SearchMode.TEXT,
        edit_state: StateFilter = None,
        kind: KindFilter = None,
        author: AuthorFilter = None,
        audience: AudienceFilter = None,
    ) -> EditPage:
        """One page of current edits; an edit that exists for the whole walk is listed once."""
        if mode is SearchMode.MEANING:
            other = {
                "cursor": cursor, "state": edit_state, "kind": kind, "author": author, "audience": audience
            }  # fmt: skip
            return await _nearest(context, namespace, q, limit, other=other)
        of_audience = audience_of_texts((audience or "").split())
        wanted = EditFilter(text=q, kind=kind, author=author, audience=of_audience)
        damaged: list[DamagedRecord] = []
        if wanted == NO_FILTER:
            page = await context.store.page(
                namespace, cursor=cursor, limit=limit, state=edit_state, on_damaged=damaged.append
            )
        else:
            page = await context.search.matching(
                namespace, wanted, cursor=cursor, limit=limit, state=edit_state, on_damaged=damaged.append
            )
        unreadable = [record.edit_id for record in damaged if not record.usable]
        return EditPage(edits=page.edits, next_cursor=page.next_cursor, damaged=unreadable or msgspec.UNSET)

    @get(
        "/edits/{edit_id:str}",
        summary="Read an edit",
        response_headers=[ETAG],
        responses=problems(400, 404, 410, 503),
    )
    async def read(self, edit_id: EditId, namespace: Namespace, context: Context) -> Response[EditReply]:
        """The current version of an edit, also of a retired one, and its last verification."""
        edit = check_not_purged(await context.store.get(namespace, check_edit_id(edit_id)))
        return edit_response(edit, verification=await context.store.verifications().get(namespace, edit_id))

    @get(
        "/edits/{edit_id:str}/versions",
        summary="Read an edit's history",
        responses=problems(400, 404, 410, 503),
    )
    async def versions(self, edit_id: EditId, namespace: Namespace, context: Context) -> EditVersions:
        """All versions of an edit, oldest first."""
        versions = await context.store.versions(namespace, check_edit_id(edit_id))
        check_not_purged(versions[-1])
        return EditVersions(versions=versions)

    @patch(
        "/edits/{edit_id:str}",
        summary="Change an edit",
        description="The fields given replace the stored ones; null clears an optional one. With `state` a"
        " live edit goes on trial and back: `shadow` is decided and counted and not applied, `canary` is"
        " applied to `canary_share` of the users. Conflicts are dealt with as for an added edit.",
        response_headers=[ETAG, APPLIED],
        responses=problems(400, 404, 409, 410, 412, 413, 428, 503) | PROPOSED,
    )
    async def change(
        self,
        edit_id: EditId,
        data: Annotated[EditPatch, BodyKwarg(examples=[_PATCH_EXAMPLE])],
        namespace: Namespace,
        context: Context,
        principal: Sender,
        waiting: Wait,
        governed: Governed,
        if_match: IfMatch = None,
        verify: Verify = False,
    ) -> Response[EditReply]:
        """Store the next version of an edit."""
        current = await matched_edit(context.store, namespace, edit_id, if_match)
        if principal.author is not None and data != EditPatch():
            data = msgspec.structs.replace(data, author=principal.author)
        version = NextVersion.changed(current, data)
        if governed.proposes:
            return await governed.proposed("update", [version])
        written = await context.writer.write(namespace, version, approval=governed.approval([version]))
        verified = await _verified(context, namespace, written.edit) if verify else None
        warnings = await edit_warnings(context, written.edit)
        return await waiting.replied(
            edit_response(written.edit, written, warnings=warnings, verified=verified)
        )

    @delete(
        "/edits/{edit_id:str}",
        status_code=200,
        summary="Retire an edit",
        description="Its last version is in state `retired`: it never fires again, its history stays. An edit"
        " that is retired already is answered as it is.",
        response_headers=[ETAG, APPLIED],
        responses=problems(400, 404, 409, 410, 412, 428, 503) | PROPOSED,
    )
    async def retire(
        self,
        edit_id: EditId,
        namespace: Namespace,
        context: Context,
        principal: Sender,
        waiting: Wait,
        governed: Governed,
        if_match: IfMatch = None,
        author: Annotated[
            str | None, QueryParameter(description="Who does it; an API key's own name comes first")
        ] = None,
        reason: Annotated[str | None, QueryParameter(description="Why")] = None,
        ticket: Annotated[str | None, QueryParameter(description="Under which case or order")] = None,
    ) -> Response[EditReply]:
        """Store the last version of an edit."""
        current = await matched_edit(context.store, namespace, edit_id, if_match)
        if current.state is EditState.RETIRED:
            return await waiting.replied(edit_response(current))
        attribution = attribution_of(principal, author, reason, ticket)
        version = NextVersion.retired(current, attribution)
        if governed.proposes:
            return await governed.proposed("retire", [version])
        written = await context.writer.write(namespace, version, approval=governed.approval([version]))
        return await waiting.replied(edit_response(written.edit))


async def _verified(context: ControlPlaneContext, namespace: str, edit: Edit) -> Verified | None:
    """None: a retired edit answers nothing, so there is nothing to verify."""
    return await context.verifier.verify(namespace, edit) if edit.state in ACTIVE_STATES else None


async def _nearest(
    context: ControlPlaneContext,
    namespace: str,
    text: str | None,
    limit: int,
    *,
    other: Mapping[str, object],
) -> EditPage:
    given = [name for name, value in other.items() if value is not None]
    if given or text is None:
        field = given[0] if given else "q"
        raise InvalidRequestError(
            f"mode=meaning needs q and takes no {' or '.join(other)}; it finds edits in force near to q",
            field=field,
        )
    hits = await context.search.by_meaning(namespace, text, limit=limit)
    return EditPage(
        edits=[hit.edit for hit in hits], next_cursor=None, similarities=[hit.similarity for hit in hits]
    )
