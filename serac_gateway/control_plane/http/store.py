"""The store itself over HTTP: whether it is sound, backup, restore."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
from litestar import Controller, Request, get, post
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.response import Stream

from serac_gateway.auth.principals import Role
from serac_gateway.control_plane.backup import MAX_LINE_BYTES, Restored, backup, restore
from serac_gateway.control_plane.http.dependencies import Context, ControlPlaneContext
from serac_gateway.control_plane.http.edit_streams import NDJSON
from serac_gateway.control_plane.http.guards import NDJSON_TYPES, NEEDED_ROLE, TAKEN_TYPES
from serac_gateway.control_plane.http.ndjson import split_lines
from serac_gateway.control_plane.http.parameters import Namespace, problems
from serac_gateway.control_plane.http.problems import problem
from serac_gateway.control_plane.integrity import StoreCheck, StoreReport
from serac_gateway.control_plane.reencode import reencode
from serac_gateway.errors import GatewayError, InvalidRequestError
from serac_gateway.stores.base import EditStore


class StoreController(Controller):
    """Calls on the store as a whole, one namespace at a time."""

    tags = ("store",)

    @get(
        "/store:check",
        summary="Check the store",
        description="Verifies the log, compares every current record with its version, every vector with its"
        " edit, the lists by state with the records, and the edits in force in this process with the stored"
        " ones. Reads everything: 30 s for 100,000 edits.",
        responses=problems(400, 503),
        opt={NEEDED_ROLE: Role.ADMIN},
    )
    async def check(self, namespace: Namespace, context: Context) -> StoreReport:
        """Whether anything of the namespace does not fit."""
        return await StoreCheck(store=context.store, active_edits=context.active_edits).run(namespace)

    @post(
        "/store:reencode",
        status_code=200,
        media_type=NDJSON,
        summary="Encode a namespace's edits anew",
        description="For another encoder: makes the stored vectors that this gateway's encoder did not make,"
        ' and reports the progress: `{"encoder", "edits", "reencoded", "complete"}` a line. It works half of'
        " the time, and requests are decided beside it. A reply that does not end with `complete: true` broke"
        ' off, with `{"error"}` as its last line if this gateway knows why; the reported progress is durable,'
        " and a repetition goes on from there. No version and no log entry is made.",
        responses=problems(400, 503),
        opt={NEEDED_ROLE: Role.ADMIN},
    )
    async def reencode(self, namespace: Namespace, context: Context) -> Stream:
        """Make what another encoder made anew."""
        await context.store.ping()
        return Stream(_reencoding_lines(context, namespace), media_type=NDJSON)

    @get(
        "/store:backup",
        media_type=NDJSON,
        summary="Back a namespace up as NDJSON",
        description="All versions, log entries and vectors; no API keys. What others write meanwhile is in"
        " it, whole, or comes after its head. A reply that does not end with its head is incomplete.",
        responses=problems(400, 503),
        opt={NEEDED_ROLE: Role.ADMIN},
    )
    async def back_up(self, namespace: Namespace, context: Context) -> Stream:
        """Everything of a namespace."""
        await context.store.ping()  # so that a store that fails gets a status, not a broken stream
        return Stream(_backup_lines(context.store, namespace), media_type=NDJSON)

    @post(
        "/store:restore",
        status_code=200,
        request_max_body_size=None,
        summary="Restore a namespace from a backup",
        description="Into a namespace that was never used, under the name that the backup was made of: its"
        " log is bound to that. The log is verified on the way, and nothing stays of a backup that is not"
        " whole."
        " The edits are in force before the reply.",
        responses=problems(400, 409, 503),
        opt={NEEDED_ROLE: Role.ADMIN, TAKEN_TYPES: NDJSON_TYPES},
    )
    async def restore(
        self, request: Request[object, object, State], namespace: Namespace, context: Context
    ) -> Restored:
        """Write a backup into the store."""
        lines = split_lines(request.stream(), MAX_LINE_BYTES)
        try:
            restored = await restore(context.store.restorer(namespace), namespace, lines)
        except HTTPException as exc:  # Litestar's way to say that the client broke off
            raise InvalidRequestError("the upload broke off; nothing was restored", field="body") from exc
        await context.active_edits.reload(namespace)
        return restored


async def _reencoding_lines(context: ControlPlaneContext, namespace: str) -> AsyncIterator[bytes]:
    try:
        async for progress in reencode(context.writer, context.store, namespace):
            yield msgspec.json.encode(progress) + b"\n"
    except GatewayError as error:  # the status is sent already
        yield msgspec.json.encode({"error": problem(error)[1]}) + b"\n"


async def _backup_lines(store: EditStore, namespace: str) -> AsyncIterator[bytes]:
    async for piece in backup(store, namespace):
        yield msgspec.json.encode(piece) + b"\n"
