"""The store itself over HTTP: whether it is sound, backup, restore."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from litestar import Controller, Request, get, post
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.params import QueryParameter
from litestar.response import Stream

from serac_gateway.auth.principals import EVERY_NAMESPACE, Principal, Role
from serac_gateway.control_plane.backup import MAX_LINE_BYTES, backup
from serac_gateway.control_plane.http.dependencies import Context, ControlPlaneContext
from serac_gateway.control_plane.http.edit_streams import NDJSON
from serac_gateway.control_plane.http.guards import NDJSON_TYPES, NEEDED_ROLE, TAKEN_TYPES, Sender
from serac_gateway.control_plane.http.ndjson import split_lines
from serac_gateway.control_plane.http.parameters import Namespace, attribution_of, problems
from serac_gateway.control_plane.http.problems import problem
from serac_gateway.control_plane.integrity import StoreCheck, StoreReport
from serac_gateway.control_plane.reencode import reencode
from serac_gateway.control_plane.repair import RepairReport, repair
from serac_gateway.control_plane.restore import Restored, restore
from serac_gateway.errors import GatewayError, InvalidRequestError, PermissionDeniedError
from serac_gateway.stores.base import EditStore

log = logging.getLogger(__name__)


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
        "/store:repair",
        status_code=200,
        summary="Find what is damaged of a namespace, and mend it",
        description="Without `apply` nothing changes. With it, the damaged bytes are first written into a"
        " file in the gateway's data folder. A damaged record is written anew from where it is stored a"
        " second time, vectors are encoded anew, lists and the head of the log are made to fit. An edit whose"
        " newest version is lost in both places is purged and, if an older version was in force, added anew"
        " under another id (`new_id`) as that was. Then the namespace leaves quarantine, in all gateways.",
        responses=problems(400, 503),
        opt={NEEDED_ROLE: Role.ADMIN},
    )
    async def repair(
        self,
        namespace: Namespace,
        context: Context,
        principal: Sender,
        apply: Annotated[bool, QueryParameter(description="Mend it, not only report it")] = False,
    ) -> RepairReport:
        """Mend the namespace."""
        report = await repair(
            context.store,
            context.writer,
            namespace,
            folder=context.data_path / "damaged",
            apply=apply,
            attribution=attribution_of(principal, None, None),
        )
        if apply:
            await context.active_edits.reload(namespace)
        return report

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
        " it, whole, or comes after its head. A reply that does not end with its head is incomplete. The head"
        " holds a seal over all lines, under a key that no client has.",
        responses=problems(400, 503),
        opt={NEEDED_ROLE: Role.ADMIN},
    )
    async def back_up(self, namespace: Namespace, context: Context) -> Stream:
        """Everything of a namespace."""
        await context.store.ping()  # so that a store that fails gets a status, not a broken stream
        key = await _backup_key(context)
        return Stream(_backup_lines(context.store, namespace, key), media_type=NDJSON)

    @post(
        "/store:restore",
        status_code=200,
        request_max_body_size=None,
        summary="Restore a namespace from a backup",
        description="Into a namespace that was never used, under the name that the backup was made of: its"
        " log is bound to that. The whole backup is checked before anything is written: its seal, its log,"
        " every record and every vector. With `accept_unsealed`, which needs a key for every namespace, also"
        " one that this gateway's key has not sealed: from another store, or of an earlier release."
        " The edits are in force before the reply.",
        responses=problems(400, 409, 503),
        opt={NEEDED_ROLE: Role.ADMIN, TAKEN_TYPES: NDJSON_TYPES},
    )
    async def restore(
        self,
        request: Request[object, object, State],
        namespace: Namespace,
        context: Context,
        principal: Sender,
        accept_unsealed: Annotated[
            bool, QueryParameter(description="Vouch for a backup whose seal cannot be checked, or is missing")
        ] = False,
    ) -> Restored:
        """Write a backup into the store."""
        if accept_unsealed:
            _check_may_vouch(principal)
        lines = split_lines(request.stream(), MAX_LINE_BYTES)
        try:
            restored = await restore(
                context.store.restorer(namespace),
                namespace,
                lines,
                key=await _backup_key(context),
                folder=context.data_path,
                accept_unsealed=accept_unsealed,
                widths={context.writer.encoder_fingerprint: context.writer.encoder_width},
            )
        except HTTPException as exc:  # Litestar's way to say that the client broke off
            raise InvalidRequestError("the upload broke off; nothing was restored", field="body") from exc
        if not restored.sealed:
            log.warning(
                "namespace %s: %s vouched for an unsealed backup", namespace, principal.author or "a client"
            )
        if context.governance.approvals_of(namespace):
            context.proposals.note_expedited(namespace, principal.author, ())
        await context.active_edits.reload(namespace)
        return restored


async def _reencoding_lines(context: ControlPlaneContext, namespace: str) -> AsyncIterator[bytes]:
    try:
        async for progress in reencode(context.writer, context.store, namespace):
            yield msgspec.json.encode(progress) + b"\n"
    except GatewayError as error:  # the status is sent already
        yield msgspec.json.encode({"error": problem(error)[1]}) + b"\n"


async def _backup_lines(store: EditStore, namespace: str, key: bytes) -> AsyncIterator[bytes]:
    async for line in backup(store, namespace, key):
        yield line + b"\n"


async def _backup_key(context: ControlPlaneContext) -> bytes:
    return context.backup_key or await context.store.backup_secret()


def _check_may_vouch(principal: Principal) -> None:
    if not principal.may_use(EVERY_NAMESPACE):
        raise PermissionDeniedError(
            "accept_unsealed needs an admin key for every namespace: such a backup may be made up; restore"
            " one that is sealed with this store's key, or ask such an admin",
            field="accept_unsealed",
        )
