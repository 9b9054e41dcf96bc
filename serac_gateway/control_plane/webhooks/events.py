"""What webhooks report: what happened to what, by ids and counts.

An event has no content of an edit, no reason and no answer: what is purged or kept back would otherwise lie
with receivers, in their logs and in the outbox. Who may read it reads it through the API.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime

import msgspec

from serac_gateway.config.model import WebhookEvent
from serac_gateway.domain.edits import AwareDatetime, Edit
from serac_gateway.stores.ports import Verification
from serac_gateway.stores.proposals import Proposal

TEST_EVENT = "webhook.test"
MAX_IDS = 100
"""Ids in one event; a count says how many there are. 64 characters each: an event stays below 20 kB."""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened."""

    id: str
    """Equal ids are the same event, whoever noticed it."""
    type: str
    namespace: str | None
    """None: it concerns no single one."""
    at: AwareDatetime
    data: dict[str, object]

    @property
    def body(self) -> str:
        """The JSON that receivers get, in the members that Standard Webhooks names."""
        data = {"namespace": self.namespace, **self.data}
        return msgspec.json.encode({"type": self.type, "timestamp": self.at, "data": data}).decode()


Announce = Callable[[Event], None]
"""Takes an event. It returns at once and never raises."""


def announce_nothing(event: Event) -> None:
    """For a gateway without webhooks."""


def proposal_event(kind: WebhookEvent, proposal: Proposal, by: str | None) -> Event:
    """What `by` (as edits name authors; None: nobody) did to a proposal, or time."""
    return _event(
        kind,
        proposal.namespace,
        proposal_id=proposal.id,
        revision=proposal.revision,
        state=proposal.state.value,
        action=proposal.action,
        author=proposal.author,
        by=by,
        agreements=sum(verdict.accepts for verdict in proposal.verdicts),
        expires_at=proposal.expires_at,
        **_ids("edit", proposal.edit_ids),
    )


def expedited_event(namespace: str, author: str | None, edit_ids: Sequence[str]) -> Event:
    """An admin wrote without the agreement that the namespace demands."""
    return _event(WebhookEvent.EDITS_EXPEDITED, namespace, by=author, **_ids("edit", edit_ids))


def conflict_event(edit: Edit, others: Sequence[Edit], superseded: Sequence[Edit]) -> Event:
    """`edit` was written and contradicts `others`; `superseded` of them were retired with it."""
    return _event(
        WebhookEvent.EDIT_CONFLICTS,
        edit.namespace,
        edit_id=edit.id,
        edit_version=edit.version,
        author=edit.author,
        **_ids("conflicting", [other.id for other in others]),
        **_ids("superseded", [other.id for other in superseded]),
    )


def verification_event(namespace: str, verification: Verification) -> Event:
    """A verification that did not pass."""
    return _event(
        WebhookEvent.VERIFICATION_FAILED,
        namespace,
        edit_id=verification.edit_id,
        edit_version=verification.edit_version,
        probes=len(verification.probes),
        failed=sum(not probe.passed for probe in verification.probes),
        failures=sorted({_kind_of(probe.failure) for probe in verification.probes if probe.failure})[:20],
    )


def review_event(namespace: str, due: Sequence[Edit], today: date) -> Event:
    """`due` edits (1 or more, longest overdue first) should be reviewed; one event a namespace and day."""
    event = _event(
        WebhookEvent.REVIEW_DUE,
        namespace,
        day=today,
        overdue=sum(edit.review_by is not None and edit.review_by < today for edit in due),
        **_ids("edit", [edit.id for edit in due]),
    )
    fixed_id = _fixed_id(WebhookEvent.REVIEW_DUE, namespace, today.isoformat())
    return msgspec.structs.replace(event, id=fixed_id)


def reload_event(*, generation: int, gateway: str, changed: Sequence[str]) -> Event:
    """The gateway of that name has a new configuration; `changed` are keys, without their values."""
    return _event(
        WebhookEvent.CONFIG_RELOADED,
        None,
        gateway=gateway,
        generation=generation,
        changed=list(changed[:MAX_IDS]),
        changed_count=len(changed),
    )


def reload_refused_event(*, generation: int, gateway: str) -> Event:
    """A reload was refused; the log says why, which may quote the configuration."""
    return _event(WebhookEvent.CONFIG_REFUSED, None, gateway=gateway, generation=generation)


def trial_event(webhook: str) -> Event:
    """What an admin sends to see whether a receiver takes events."""
    return _event(TEST_EVENT, None, webhook=webhook)


def _event(kind: str, namespace: str | None, **data: object) -> Event:
    return Event(
        id=f"evt_{secrets.token_hex(16)}",
        type=str(kind),
        namespace=namespace,
        at=datetime.now(UTC),
        data=data,
    )


def _fixed_id(*parts: str) -> str:
    """The same for the same parts, so that gateways which notice one thing make one event of it."""
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return f"evt_{digest[:32]}"


def _kind_of(failure: str) -> str:
    """Without what a model or a library says after a colon, which may quote anything."""
    return failure.partition(":")[0]


def _ids(name: str, ids: Sequence[str]) -> dict[str, object]:
    return {f"{name}_ids": list(ids[:MAX_IDS]), f"{name}_count": len(ids)}
