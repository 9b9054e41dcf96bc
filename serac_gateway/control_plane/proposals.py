"""Proposals: what a write becomes in a namespace in which others must agree, until enough of them do.

A proposal is frozen when it is opened. An approver says yes or no to all of it; the last yes that is needed
commits it and closes it in one step of the store. Between two steps nothing is half done: a process that ends
leaves the proposal open with the verdicts so far, or closed with its edits.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from serac_gateway.auth.principals import EVERY_NAMESPACE, Principal, Role, TokenHolder
from serac_gateway.auth.token_holders import namespaces_of
from serac_gateway.config.model import GovernanceConfig, OidcConfig, WebhookEvent
from serac_gateway.control_plane.approval import Approval, Person
from serac_gateway.control_plane.foreseen import Foresight
from serac_gateway.control_plane.opinions import Opinion, is_repeated, key_digest, staleness
from serac_gateway.control_plane.versions import NextVersion
from serac_gateway.control_plane.webhooks.events import (
    Announce,
    announce_nothing,
    expedited_event,
    proposal_event,
)
from serac_gateway.control_plane.writer import EditWriter
from serac_gateway.domain.edits import Edit
from serac_gateway.errors import (
    InvalidRequestError,
    PermissionDeniedError,
    PreconditionFailedError,
    ProposalConflictError,
)
from serac_gateway.observability.metrics import ProposalEvent
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.proposals import (
    MAX_PROPOSED_CHANGES,
    Proposal,
    ProposalPage,
    ProposalState,
    ProposedChange,
    Verdict,
    new_proposal_id,
)
from serac_gateway.stores.records import Idempotency

log = logging.getLogger(__name__)

_TRIES = 5
_READ_AT_A_TIME = 256
_PAGE = 200
_NO_TOKENS = OidcConfig()

OnEvent = Callable[[str, ProposalEvent], None]


class Proposals:
    """The proposals of one runtime."""

    def __init__(
        self,
        *,
        store: EditStore,
        writer: EditWriter,
        foresight: Foresight,
        governance: GovernanceConfig,
        on_event: OnEvent,
        announce: Announce = announce_nothing,
        oidc: OidcConfig = _NO_TOKENS,
    ) -> None:
        self._store = store
        self._proposals = store.proposals()
        self._writer = writer
        self._foresight = foresight
        self._governance = governance
        self._oidc = oidc
        self._on_event = on_event
        self._announce = announce

    @property
    def governed_namespaces(self) -> list[str]:
        """The namespaces that the configuration names; others can have proposals, too."""
        return list(self._governance.namespaces)

    def needed(self, namespace: str) -> int:
        """How many must agree to a proposal now; at least one, also where none are demanded any more."""
        return max(1, self._governance.approvals_of(namespace))

    async def propose(
        self,
        namespace: str,
        action: str,
        versions: Sequence[NextVersion],
        principal: Principal,
        *,
        idempotency: Idempotency | None = None,
    ) -> Proposal:
        """Open a proposal of all of `versions`, none of which is committed.

        Raises:
            InvalidRequestError: There are none, or more than `MAX_PROPOSED_CHANGES`.
            PermissionDeniedError: There is no API key or token.
            Others as for `ProposalStore.open`.
        """
        person = Person.of(principal)
        if not 1 <= len(versions) <= MAX_PROPOSED_CHANGES:
            raise InvalidRequestError(
                f"a proposal of {len(versions):,} changes is not possible; 1 to {MAX_PROPOSED_CHANGES:,} are",
                field="body",
                details={"value": len(versions), "limit": MAX_PROPOSED_CHANGES},
            )
        now = datetime.now(UTC)
        proposal = Proposal(
            id=new_proposal_id(),
            namespace=namespace,
            revision=1,
            state=ProposalState.OPEN,
            action=action,
            edit_ids=tuple(version.edit.id for version in versions),
            author=person.author,
            owner=person.owner,
            holder=person.holder,
            reason=next((version.edit.reason for version in versions if version.edit.reason), None),
            created_at=now,
            expires_at=now + timedelta(seconds=self._governance.proposal_ttl_s),
            effect=await self._foresight.effect(namespace, [version.edit for version in versions]),
        )
        changes = [ProposedChange(action=version.action, edit=version.edit) for version in versions]
        try:
            opened = await self._proposals.open(proposal, changes, idempotency=idempotency)
        except ProposalConflictError:  # as many as may be open: perhaps some have expired
            if not await self.expire_due(namespace):
                raise
            opened = await self._proposals.open(proposal, changes, idempotency=idempotency)
        if opened.id == proposal.id:
            self._note(opened, ProposalEvent.OPENED, opened.author)
        return opened

    async def read(self, namespace: str, proposal_id: str) -> Proposal:
        """The head as it is now. Raises ProposalNotFoundError."""
        return await self._unless_expired(await self._proposals.get(namespace, proposal_id))

    async def page(
        self, namespace: str, *, cursor: str | None, limit: int, state: ProposalState | None
    ) -> ProposalPage:
        """A page of heads as they are now; with `state` perhaps a short one that is not the last."""
        page = await self._proposals.page(
            namespace, cursor=cursor, limit=limit, only_open=state is ProposalState.OPEN
        )
        heads = [await self._unless_expired(head) for head in page.proposals]
        return ProposalPage(
            proposals=[head for head in heads if state in (None, head.state)], next_cursor=page.next_cursor
        )

    async def changes(self, proposal: Proposal) -> tuple[tuple[ProposedChange, ...], dict[str, Edit]]:
        """What it would change, and the current versions of these edits by id."""
        changes = await self._proposals.changes(proposal.namespace, proposal.id)
        current: dict[str, Edit] = {}
        ids = [change.edit.id for change in changes]
        for start in range(0, len(ids), _READ_AT_A_TIME):
            batch = await self._store.stored_many(proposal.namespace, ids[start : start + _READ_AT_A_TIME])
            current |= {stored.edit.id: stored.edit for stored in batch}
        return changes, current

    async def decide(
        self,
        namespace: str,
        proposal_id: str,
        principal: Principal,
        opinion: Opinion,
        *,
        check_match: Callable[[Proposal], None],
    ) -> Proposal:
        """Take what an approver says; the last agreement that is needed commits, one refusal closes.

        The same said twice by one person counts once and is answered with what has become of the proposal.
        `check_match` raises where the caller has read another revision.

        Raises:
            ProposalNotFoundError, PreconditionFailedError: See above.
            PermissionDeniedError: It is the approver's own proposal, under whichever key.
            ProposalConflictError: It is closed, expired or stale.
            IdempotencyKeyReusedError: The key came with another opinion before.
            Others as for `EditWriter.write`.
        """
        person = Person.of(principal)
        for attempt in itertools.count(1):
            proposal = await self.read(namespace, proposal_id)
            repeated = is_repeated(proposal, person, opinion)
            if repeated and proposal.state is not ProposalState.OPEN:
                return proposal
            if not repeated:
                check_match(proposal)
            if person.is_also(proposal):
                raise PermissionDeniedError(
                    f"proposal {proposal_id!r} is by {proposal.author}, and {person.author} is the same"
                    " person; somebody else must decide on it, or withdraw it",
                    details={"value": person.author},
                )
            _check_open(proposal)
            try:
                return await self._decided(proposal, person, opinion, repeated=repeated)
            except PreconditionFailedError:
                # Somebody else decided meanwhile, or one of the edits changed: the next look says which.
                if attempt == _TRIES:
                    raise
        raise AssertionError("itertools.count ended")

    async def withdraw(
        self,
        namespace: str,
        proposal_id: str,
        principal: Principal,
        reason: str,
        *,
        check_match: Callable[[Proposal], None],
    ) -> Proposal:
        """Close one's own proposal; an admin may close any. A closed one that was withdrawn stays so.

        Raises:
            PermissionDeniedError: It is another one's.
            Others as for `decide`.
        """
        person = Person.of(principal)
        proposal = await self.read(namespace, proposal_id)
        if person.owner != proposal.owner and not principal.role.allows(Role.ADMIN):
            raise PermissionDeniedError(
                f"proposal {proposal_id!r} is by {proposal.author}; only they or an admin may withdraw it;"
                " reject it instead",
                details={"value": person.author},
            )
        if proposal.state is ProposalState.WITHDRAWN:
            return proposal
        check_match(proposal)
        _check_open(proposal)
        closed = _closed(proposal, ProposalState.WITHDRAWN, by=person.author, reason=reason)
        await self._proposals.replace(closed)
        self._note(closed, ProposalEvent.WITHDRAWN, person.author)
        return closed

    def note_expedited(self, namespace: str, author: str | None, edit_ids: Sequence[str]) -> None:
        """Log and count that an admin wrote without a proposal."""
        self._on_event(namespace, ProposalEvent.EXPEDITED)
        log.warning(
            "namespace %s: %s writes without the agreement of others: %s%s",
            namespace,
            author or "an admin",
            ", ".join(edit_ids[:10]) or "a whole backup",
            " …" if len(edit_ids) > 10 else "",
        )
        self._announce(expedited_event(namespace, author, edit_ids))

    async def _decided(
        self, proposal: Proposal, person: Person, opinion: Opinion, *, repeated: bool
    ) -> Proposal:
        verdict = Verdict(
            approver=person.author,
            owner=person.owner,
            key_id=person.key_id,
            holder=person.holder,
            accepts=opinion.accepts,
            reason=opinion.reason,
            at=datetime.now(UTC),
            idempotency=key_digest(opinion.idempotency_key),
        )
        others = tuple(other for other in proposal.verdicts if not person.is_also(other))
        noted = msgspec.structs.replace(proposal, verdicts=(*others, verdict))
        if not opinion.accepts:
            closed = _closed(noted, ProposalState.REJECTED, by=person.author, reason=opinion.reason)
            await self._proposals.replace(closed)
            self._note(closed, ProposalEvent.REJECTED, person.author)
            return closed
        changes, current = await self.changes(proposal)
        if (fault := staleness(changes, current)) is not None:
            raise ProposalConflictError(f"proposal {proposal.id!r} is stale: {fault}", field="proposal_id")
        standing = [other for other in others if await self._stands(noted.namespace, other)] + [verdict]
        if len(standing) < self.needed(noted.namespace):
            if repeated:
                return proposal
            noted = msgspec.structs.replace(noted, revision=noted.revision + 1)
            await self._proposals.replace(noted)
            self._note(noted, ProposalEvent.APPROVED, person.author)
            return noted
        closed = _closed(noted, ProposalState.ACCEPTED, by=person.author, reason=opinion.reason)
        await self._commit(closed, changes, current, standing)
        self._note(closed, ProposalEvent.APPROVED, person.author)
        self._note(closed, ProposalEvent.ACCEPTED, person.author)
        return closed

    async def _commit(
        self,
        closed: Proposal,
        changes: Sequence[ProposedChange],
        current: dict[str, Edit],
        standing: Sequence[Verdict],
    ) -> None:
        now = datetime.now(UTC)
        versions = [
            NextVersion(
                action=change.action,
                edit=msgspec.structs.replace(change.edit, created_at=now),
                current=current.get(change.edit.id),
            )
            for change in changes
        ]
        names = ", ".join(verdict.approver for verdict in standing)
        approval = Approval(note=f"proposal {closed.id} approved by {names}", closes=closed)
        if len(versions) == 1:
            await self._writer.write(closed.namespace, versions[0], approval=approval)
        else:
            await self._writer.commit(closed.namespace, versions, approval=approval)

    async def _stands(self, namespace: str, verdict: Verdict) -> bool:
        """Whether it is an agreement of somebody who might still give it.

        Of a token's holder what is known is the groups that they had then, and what these may do now.
        """
        if verdict.holder is not None:
            return verdict.accepts and self._may_approve(verdict.holder, namespace)
        stored = await self._store.api_keys().get(verdict.key_id) if verdict.accepts else None
        if stored is None or not stored.key.is_active(datetime.now(UTC)):
            return False
        key = stored.key
        principal = Principal(key_id=key.id, name=key.name, role=key.role, namespaces=key.namespaces)
        return principal.role.allows(Role.APPROVE) and principal.may_use(namespace)

    def _may_approve(self, holder: TokenHolder, namespace: str) -> bool:
        roles = [self._oidc.roles[group] for group in holder.groups if group in self._oidc.roles]
        return holder.issuer == self._oidc.issuer and any(
            Role(role.role).allows(Role.APPROVE) and {namespace, EVERY_NAMESPACE} & {*namespaces_of(role)}
            for role in roles
        )

    async def _unless_expired(self, proposal: Proposal) -> Proposal:
        """`proposal`, closed if its time is over; whoever looks first closes it, once for all gateways."""
        if proposal.state is not ProposalState.OPEN or proposal.is_open(datetime.now(UTC)):
            return proposal
        closed = _closed(proposal, ProposalState.EXPIRED, by=None, reason=None)
        try:
            await self._proposals.replace(closed)
        except PreconditionFailedError:
            return await self._proposals.get(proposal.namespace, proposal.id)
        self._note(closed, ProposalEvent.EXPIRED, None)
        return closed

    async def expire_due(self, namespace: str) -> int:
        """Close every open proposal whose time is over, and count them."""
        count, cursor = 0, None
        while True:
            page = await self._proposals.page(namespace, cursor=cursor, limit=_PAGE, only_open=True)
            for head in page.proposals:
                count += (await self._unless_expired(head)).state is ProposalState.EXPIRED
            if (cursor := page.next_cursor) is None:
                return count

    def _note(self, proposal: Proposal, event: ProposalEvent, by: str | None) -> None:
        self._on_event(proposal.namespace, event)
        who = by or proposal.author
        log.info("namespace %s: proposal %s %s (%s)", proposal.namespace, proposal.id, event.value, who)
        self._announce(proposal_event(WebhookEvent(f"proposal.{event.value}"), proposal, by))


def _check_open(proposal: Proposal) -> None:
    if proposal.state is not ProposalState.OPEN:
        when = "" if proposal.closed_at is None else f" since {proposal.closed_at.isoformat()}"
        raise ProposalConflictError(
            f"proposal {proposal.id!r} is {proposal.state.value}{when}; propose the change again if it is"
            " still wanted",
            field="proposal_id",
            details={"value": proposal.state.value},
        )


def _closed(proposal: Proposal, state: ProposalState, *, by: str | None, reason: str | None) -> Proposal:
    return msgspec.structs.replace(
        proposal,
        revision=proposal.revision + 1,
        state=state,
        closed_at=datetime.now(UTC),
        closed_by=by,
        closing_reason=reason,
    )
