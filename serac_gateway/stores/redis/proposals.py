"""The proposals in Redis. keys.py lists the keys; commit.lua closes the one whose changes it commits."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources

import msgspec
from typing_extensions import override

from serac_gateway.domain.edits import check_edit_id
from serac_gateway.errors import DamagedRecordError
from serac_gateway.stores.base import IDEMPOTENCY_TTL_S
from serac_gateway.stores.errors import (
    id_taken,
    key_reused,
    no_such_edit,
    no_such_proposal,
    proposal_went_on,
    stale_version,
    too_many_open,
)
from serac_gateway.stores.proposals import (
    MAX_OPEN_PROPOSALS,
    Proposal,
    ProposalPage,
    ProposalState,
    ProposalStore,
    ProposedChange,
    check_proposal_id,
)
from serac_gateway.stores.records import Idempotency
from serac_gateway.stores.redis.connection import RedisConnection, Word
from serac_gateway.stores.redis.keys import NamespaceKeys
from serac_gateway.stores.redis.records import packed_head, salted_fingerprint


class RedisProposalStore(ProposalStore):
    """Uses the connection of a RedisStore."""

    def __init__(self, connection: RedisConnection, *, idempotency_ttl_s: int = IDEMPOTENCY_TTL_S) -> None:
        self._connection = connection
        self._idempotency_ttl_s = idempotency_ttl_s
        self._open_script = connection.script(_script_text("propose.lua"))
        self._revise_script = connection.script(_script_text("revise_proposal.lua"))

    @override
    async def open(
        self,
        proposal: Proposal,
        changes: Sequence[ProposedChange],
        *,
        max_open: int = MAX_OPEN_PROPOSALS,
        idempotency: Idempotency | None = None,
    ) -> Proposal:
        keys = NamespaceKeys(proposal.namespace)
        edits = [change.edit for change in changes]
        arguments: list[Word] = [
            check_proposal_id(proposal.id),
            packed_head(proposal.as_closing),
            msgspec.json.encode(changes),
            max_open,
            0 if idempotency is None else self._idempotency_ttl_s,
            "" if idempotency is None else salted_fingerprint(idempotency),
        ]
        for edit in edits:
            arguments += (check_edit_id(edit.id), edit.version)
        script_keys = [
            keys.proposals,
            keys.proposed,
            keys.proposed_edits,
            keys.proposal_ids,
            keys.open_proposals,
            keys.proposal_result(idempotency),
            *(keys.versions(edit.id) for edit in edits),
        ]
        match await self._connection.run(self._open_script(keys=script_keys, args=arguments)):
            case [b"opened", _]:
                return proposal
            case [b"replayed", proposal_id]:
                return await self.get(proposal.namespace, proposal_id.decode())
            case [b"key_reused"]:
                raise key_reused(idempotency)
            case [b"too_many_open"]:
                raise too_many_open(proposal.namespace, max_open)
            case [b"id_taken", edit_id, _, _]:
                raise id_taken(edit_id.decode())
            case [b"no_such_edit", edit_id, _, _]:
                raise no_such_edit(proposal.namespace, edit_id.decode())
            case [b"stale_version", edit_id, version, current]:
                raise stale_version(edit_id.decode(), expected=int(version) - 1, current=int(current))
        raise AssertionError("propose.lua gave another reply")

    @override
    async def get(self, namespace: str, proposal_id: str) -> Proposal:
        key = NamespaceKeys(namespace).proposals
        packed = await self._connection.read("HGET", key, check_proposal_id(proposal_id))
        if packed is None:
            raise no_such_proposal(namespace, proposal_id)
        return _head(packed)

    @override
    async def changes(self, namespace: str, proposal_id: str) -> tuple[ProposedChange, ...]:
        key = NamespaceKeys(namespace).proposed
        encoded = await self._connection.read("HGET", key, check_proposal_id(proposal_id))
        if encoded is None:
            return ()
        try:
            return msgspec.json.decode(encoded, type=tuple[ProposedChange, ...])
        except ValueError as exc:
            raise _damaged(proposal_id, exc) from exc

    @override
    async def replace(self, proposal: Proposal) -> None:
        keys = NamespaceKeys(proposal.namespace)
        stays_open = proposal.state is ProposalState.OPEN
        held = await self._connection.run(
            self._revise_script(
                keys=[keys.proposals, keys.open_proposals],
                args=[
                    check_proposal_id(proposal.id),
                    proposal.revision - 1,
                    packed_head(proposal.as_closing),
                    "1" if stays_open else "",
                ],
            )
        )
        if not held:
            raise no_such_proposal(proposal.namespace, proposal.id)
        if int(held) != proposal.revision - 1:
            raise proposal_went_on(proposal.id, expected=proposal.revision - 1, current=int(held))

    @override
    async def page(
        self, namespace: str, *, cursor: str | None = None, limit: int = 100, only_open: bool = False
    ) -> ProposalPage:
        keys = NamespaceKeys(namespace)
        after = "-" if cursor is None else f"({check_proposal_id(cursor)}"
        key = keys.open_proposals if only_open else keys.proposal_ids
        matching = await self._connection.read(
            "ZRANGE", key, after, "+", "BYLEX", "LIMIT", 0, limit + 1
        )  # one more, to know whether there is another page
        ids = matching[:limit]
        packed = await self._connection.read("HMGET", keys.proposals, *ids) if ids else []
        return ProposalPage(
            proposals=[_head(head) for head in packed if head is not None],
            next_cursor=ids[-1].decode() if len(matching) > limit else None,
        )


def _head(packed: bytes) -> Proposal:
    try:
        return msgspec.json.decode(packed.partition(b" ")[2], type=Proposal)
    except ValueError as exc:
        raise _damaged(packed[:40].decode("utf-8", "replace"), exc) from exc


def _damaged(what: str, exc: ValueError) -> DamagedRecordError:
    return DamagedRecordError(
        f"the record of a proposal ({what!r}) is damaged: {exc}; propose its changes anew",
        field="proposal_id",
    )


def _script_text(name: str) -> str:
    return resources.files(__package__).joinpath("scripts", name).read_text("utf-8")
