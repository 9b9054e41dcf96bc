"""Restore, rollback of an edit or of the namespace, and purge, over HTTP."""

from __future__ import annotations

from typing import Annotated

from litestar import Controller, Response, post
from litestar.datastructures import ResponseHeader
from litestar.openapi.spec import Example
from litestar.params import BodyKwarg

from serac_gateway.auth.principals import Role
from serac_gateway.control_plane.http.dependencies import Context
from serac_gateway.control_plane.http.edit_warnings import edit_warnings
from serac_gateway.control_plane.http.etags import matched_edit
from serac_gateway.control_plane.http.governed import PROPOSED, Governed
from serac_gateway.control_plane.http.guards import NEEDED_ROLE, Sender
from serac_gateway.control_plane.http.parameters import (
    ETAG,
    EditId,
    IfMatch,
    Namespace,
    attribution_of,
    edit_response,
    problems,
)
from serac_gateway.control_plane.http.schemas import (
    EditPurge,
    EditReply,
    EditRollback,
    EditsRetirement,
    NamespaceRollback,
    WhoAndWhy,
)
from serac_gateway.control_plane.http.wait import APPLIED, Wait
from serac_gateway.control_plane.retirement import Retirement, plan_retirement, retire_versions
from serac_gateway.control_plane.rollback import Rollback, plan_rollback, roll_back
from serac_gateway.control_plane.versions import NextVersion

_WHY = Example(summary="With a reason", value={"reason": "It was right after all"})
_ROLLBACK = Example(summary="Back to the first", value={"version": 1, "reason": "The change was a mistake"})
_PURGE = Example(summary="Right to be forgotten", value={"reason": "Request 4711 under article 17 GDPR"})
_NAMESPACE_ROLLBACK = Example(
    summary="What would it do?", value={"log_id": "1795286099039-0", "dry_run": True}
)
_RETIREMENT = Example(
    summary="A base model answers it now",
    value={
        "edits": [{"id": "ed_0198c7d5b2f0", "version": 2, "created_at": "2026-12-01T09:30:00.123456Z"}],
        "reason": "consolidated in gemma-3-270m-2026-12-01",
        "dry_run": True,
    },
)

_PENDING = ResponseHeader(
    name="x-serac-purge-pending",
    description="`true`: the embedded store has not yet written its file anew; it tries until it has, and"
    " `serac_purge_pending` is 1 until then",
    documentation_only=True,
    required=False,
)


class EditHistoryController(Controller):
    """Calls that end in a colon and a verb. Their paths are explained in colon_paths.py."""

    tags = ("history",)

    @post(
        "/edits/{edit_id:str}/:restore",
        status_code=200,
        summary="Restore a retired edit",
        description="Its next version is live again. The body may be `{}`.",
        response_headers=[ETAG, APPLIED],
        responses=problems(400, 404, 409, 410, 412, 413, 428, 503) | PROPOSED,
    )
    async def restore(
        self,
        edit_id: EditId,
        data: Annotated[WhoAndWhy, BodyKwarg(examples=[_WHY])],
        namespace: Namespace,
        context: Context,
        principal: Sender,
        waiting: Wait,
        governed: Governed,
        if_match: IfMatch = None,
    ) -> Response[EditReply]:
        """Store the next version of a retired edit, live."""
        current = await matched_edit(context.store, namespace, edit_id, if_match)
        attribution = attribution_of(principal, data.author, data.reason, data.ticket)
        version = NextVersion.restored(current, attribution)
        if governed.proposes:
            return await governed.proposed("restore", [version])
        written = await context.writer.write(namespace, version, approval=governed.approval([version]))
        warnings = await edit_warnings(context, written.edit)
        return await waiting.replied(edit_response(written.edit, written, warnings=warnings))

    @post(
        "/edits/{edit_id:str}/:rollback",
        status_code=200,
        summary="Roll an edit back to an older version",
        description="The next version copies content and state of the older one; all versions stay.",
        response_headers=[ETAG, APPLIED],
        responses=problems(400, 404, 409, 410, 412, 413, 428, 503) | PROPOSED,
    )
    async def rollback(
        self,
        edit_id: EditId,
        data: Annotated[EditRollback, BodyKwarg(examples=[_ROLLBACK])],
        namespace: Namespace,
        context: Context,
        principal: Sender,
        waiting: Wait,
        governed: Governed,
        if_match: IfMatch = None,
    ) -> Response[EditReply]:
        """Store the next version of an edit as a copy of an older one."""
        current = await matched_edit(context.store, namespace, edit_id, if_match)
        attribution = attribution_of(principal, data.author, data.reason, data.ticket)
        older = await context.store.get(namespace, edit_id, version=data.version)
        version = NextVersion.rolled_back(current, older, attribution)
        if governed.proposes:
            return await governed.proposed("rollback", [version])
        written = await context.writer.write(namespace, version, approval=governed.approval([version]))
        warnings = await edit_warnings(context, written.edit)
        return await waiting.replied(edit_response(written.edit, written, warnings=warnings))

    @post(
        "/edits/{edit_id:str}/:purge",
        status_code=200,
        summary="Forget an edit for good",
        description="Deletes the content of all its versions, its vectors, and what would let anyone find out"
        " its content by trial from the log. A tombstone stays, in state `purged`: id, times, who purged it"
        " and why. The log stays verifiable, the id is not given out again, and the edit is answered with 410"
        " from then on. It cannot be undone. The embedded server rewrites its append-only file before the"
        " reply, or as soon as it can if that takes more than ten seconds (`serac_purge_pending`); on another"
        " one the content is in that file until the next BGREWRITEAOF. In backups made before it stays.",
        response_headers=[ETAG, APPLIED, _PENDING],
        responses=problems(400, 404, 409, 410, 412, 413, 428, 503),
        opt={NEEDED_ROLE: Role.ADMIN},
    )
    async def purge(
        self,
        edit_id: EditId,
        data: Annotated[EditPurge, BodyKwarg(examples=[_PURGE])],
        namespace: Namespace,
        context: Context,
        principal: Sender,
        waiting: Wait,
        governed: Governed,
        if_match: IfMatch = None,
    ) -> Response[EditReply]:
        """Delete an edit's content from all its versions; the reply is its tombstone."""
        current = await matched_edit(context.store, namespace, edit_id, if_match)
        attribution = attribution_of(principal, data.author, data.reason, data.ticket)
        approval = governed.expedited()
        # Before the purge, so that no file that is written anew for it has recorded answers of a trial; and
        # after it, for those that came in between.
        await context.store.trials().forget_answers(namespace, edit_id)
        written = await context.writer.write(
            namespace, NextVersion.purged(current, attribution), approval=approval
        )
        await context.store.trials().forget_answers(namespace, edit_id)
        response = edit_response(written.edit)
        if context.store.has_pending_purge:
            response.headers[_PENDING.name or ""] = "true"
        return await waiting.replied(response)

    @post(
        "/edits:retire",
        status_code=200,
        summary="Retire versions that a base model has learnt",
        description="One commit retires those versions that are still current, made at the time named, live"
        " facts and without a window; all others are `kept`, each with its reason, and repeating the call"
        " changes nothing. Suppressions and instructions never go this way. A rollback to `log_id` takes it"
        " back. With `dry_run` nothing changes.",
        response_headers=[APPLIED],
        responses=problems(400, 409, 412, 413, 503) | PROPOSED,
    )
    async def retire(
        self,
        data: Annotated[EditsRetirement, BodyKwarg(examples=[_RETIREMENT])],
        namespace: Namespace,
        context: Context,
        principal: Sender,
        waiting: Wait,
        governed: Governed,
    ) -> Response[Retirement]:
        """Retire exactly the versions named, where they are still current."""
        attribution = attribution_of(principal, data.author, data.reason, data.ticket)
        if governed.proposes and not data.dry_run:
            planned = await plan_retirement(context.store, namespace, data.edits, attribution)
            if planned.versions:
                return await governed.proposed("retire_versions", planned.versions)
            return await waiting.replied(Response(planned.retirement))
        done = await retire_versions(
            context.writer,
            context.store,
            namespace,
            data.edits,
            attribution,
            dry_run=data.dry_run,
            approval_of=governed.approval,
        )
        return await waiting.replied(Response(done))

    @post(
        "/rollback",
        status_code=200,
        summary="Roll the namespace back to a point of its log",
        description="One commit makes the versions that take every edit back to what it was after that entry;"
        " edits added since become retired. Edits purged since stay purged, and are named. With `dry_run`"
        " nothing changes.",
        response_headers=[APPLIED],
        responses=problems(400, 409, 412, 413, 503) | PROPOSED,
    )
    async def roll_back_all(
        self,
        data: Annotated[NamespaceRollback, BodyKwarg(examples=[_NAMESPACE_ROLLBACK])],
        namespace: Namespace,
        context: Context,
        principal: Sender,
        waiting: Wait,
        governed: Governed,
    ) -> Response[Rollback]:
        """Roll all edits of the namespace back."""
        attribution = attribution_of(principal, data.author, data.reason, data.ticket)
        if governed.proposes and not data.dry_run:
            planned = await plan_rollback(context.store, namespace, data.log_id, attribution)
            if planned.versions:
                return await governed.proposed("rollback_all", planned.versions)
            return await waiting.replied(Response(planned.rollback))
        done = await roll_back(
            context.writer,
            context.store,
            namespace,
            data.log_id,
            attribution,
            dry_run=data.dry_run,
            approval_of=governed.approval,
        )
        return await waiting.replied(Response(done))
