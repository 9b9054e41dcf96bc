"""The proposals in memory, to be read beside propose.lua, revise_proposal.lua and commit.lua."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
from typing_extensions import override

from serac_gateway.domain.edits import check_edit_id, check_namespace
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
from serac_gateway.stores.records import Closing, Idempotency


@dataclass
class _Held:
    """The proposals of one namespace."""

    heads: dict[str, Proposal] = field(default_factory=dict)
    changes: dict[str, tuple[ProposedChange, ...]] = field(default_factory=dict)
    by_key: dict[str, tuple[str, str, float]] = field(default_factory=dict)
    """Idempotency key to fingerprint, proposal id, and until when by the monotonic clock."""


class InMemoryProposalStore(ProposalStore):
    """Keeps them until it is garbage collected. Shares the lock of the edit store's commits."""

    def __init__(
        self,
        current_version: Callable[[str, str], int],
        lock: threading.RLock,
        *,
        idempotency_ttl_s: float,
    ) -> None:
        """`current_version` takes namespace and edit id, and gives 0 for no edit."""
        self._current_version = current_version
        self._lock = lock
        self._idempotency_ttl_s = idempotency_ttl_s
        self._namespaces: dict[str, _Held] = {}

    @override
    async def open(
        self,
        proposal: Proposal,
        changes: Sequence[ProposedChange],
        *,
        max_open: int = MAX_OPEN_PROPOSALS,
        idempotency: Idempotency | None = None,
    ) -> Proposal:
        check_proposal_id(proposal.id)
        with self._lock:
            held = self._held(proposal.namespace)
            if idempotency is not None:
                fingerprint, first, until_s = held.by_key.get(idempotency.key, ("", "", 0.0))
                if time.monotonic() < until_s:
                    if fingerprint != idempotency.fingerprint:
                        raise key_reused(idempotency)
                    return held.heads[first]
            if sum(head.state is ProposalState.OPEN for head in held.heads.values()) >= max_open:
                raise too_many_open(proposal.namespace, max_open)
            for change in changes:
                self._refuse_unless_next(proposal.namespace, change)
            held.heads[proposal.id] = proposal
            held.changes[proposal.id] = tuple(changes)
            if idempotency is not None:
                until_s = time.monotonic() + self._idempotency_ttl_s
                held.by_key[idempotency.key] = (idempotency.fingerprint, proposal.id, until_s)
        return proposal

    def _refuse_unless_next(self, namespace: str, change: ProposedChange) -> None:
        edit_id, version = check_edit_id(change.edit.id), change.edit.version
        current = self._current_version(namespace, edit_id)
        if current != version - 1:
            if version == 1:
                raise id_taken(edit_id)
            if not current:
                raise no_such_edit(namespace, edit_id)
            raise stale_version(edit_id, expected=version - 1, current=current)

    @override
    async def get(self, namespace: str, proposal_id: str) -> Proposal:
        head = self._held(namespace).heads.get(check_proposal_id(proposal_id))
        if head is None:
            raise no_such_proposal(namespace, proposal_id)
        return head

    @override
    async def changes(self, namespace: str, proposal_id: str) -> tuple[ProposedChange, ...]:
        return self._held(namespace).changes.get(check_proposal_id(proposal_id), ())

    @override
    async def replace(self, proposal: Proposal) -> None:
        with self._lock:
            self.check_next(proposal.namespace, check_proposal_id(proposal.id), proposal.revision)
            self._held(proposal.namespace).heads[proposal.id] = proposal

    @override
    async def page(
        self, namespace: str, *, cursor: str | None = None, limit: int = 100, only_open: bool = False
    ) -> ProposalPage:
        after = "" if cursor is None else check_proposal_id(cursor)
        heads = [
            head
            for proposal_id, head in sorted(self._held(namespace).heads.items())
            if proposal_id > after and (head.state is ProposalState.OPEN or not only_open)
        ]
        return ProposalPage(
            proposals=heads[:limit], next_cursor=heads[limit - 1].id if len(heads) > limit else None
        )

    def check_next(self, namespace: str, proposal_id: str, revision: int) -> None:
        """Return if `revision` follows on the one that is held. Raises as `replace`."""
        head = self._held(namespace).heads.get(proposal_id)
        if head is None:
            raise no_such_proposal(namespace, proposal_id)
        if head.revision != revision - 1:
            raise proposal_went_on(proposal_id, expected=revision - 1, current=head.revision)

    def close(self, namespace: str, closing: Closing) -> None:
        """Put a closed head, which was checked, in place; its changes are committed."""
        held = self._held(namespace)
        held.heads[closing.proposal_id] = msgspec.json.decode(closing.head, type=Proposal)
        held.changes.pop(closing.proposal_id, None)

    def forget(self, namespace: str, edit_id: str) -> None:
        """Delete every proposal that concerns the edit."""
        held = self._held(namespace)
        for proposal_id, head in list(held.heads.items()):
            if edit_id in head.edit_ids:
                del held.heads[proposal_id]
                held.changes.pop(proposal_id, None)

    def _held(self, namespace: str) -> _Held:
        return self._namespaces.setdefault(check_namespace(namespace), _Held())
