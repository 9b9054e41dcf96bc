"""Rules that nobody can fulfil: more approvals than approvers, and proposals that nobody decides on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from serac_gateway.auth.api_keys import ApiKey, StoredApiKey, pepper_id
from serac_gateway.auth.principals import EVERY_NAMESPACE, Role
from serac_gateway.config.model import GatewayConfig
from serac_gateway.doctor.findings import Finding, failure, fine, warning
from serac_gateway.domain.folding import folded_text
from serac_gateway.stores.proposals import Proposal, ProposalStore

_PAGE = 200
_SOON = timedelta(days=2)


def key_findings(
    config: GatewayConfig, keys: Sequence[StoredApiKey], *, pepper: bytes, now: datetime
) -> list[Finding]:
    """Whether there is a key to begin with, and whether keys work under this pepper."""
    active = [stored for stored in keys if stored.key.is_active(now)]
    other = sum(stored.pepper_id != pepper_id(pepper) for stored in active)
    findings = []
    if other:
        findings.append(
            warning(
                "keys",
                f"{other} of {len(active)} API keys were made under another SERAC_KEY_PEPPER and do not work"
                " here",
                "give every gateway on the store the same one, or revoke these keys and make them anew",
            )
        )
    if config.demands_keys and config.oidc.issuer is None and len(active) == other:
        findings.append(
            failure(
                "keys",
                "API keys are demanded and there is none that works",
                "make one with `serac keys create --role admin --offline`",
            )
        )
    return findings or [fine("keys", f"{len(active)} API keys are active")]


def approval_findings(config: GatewayConfig, keys: Sequence[ApiKey], *, now: datetime) -> list[Finding]:
    """Whether enough people can agree, in each namespace that demands it."""
    findings = []
    for name, governance in config.governance.namespaces.items():
        if not governance.approvals:
            continue
        people = {
            folded_text(key.name) or key.name
            for key in keys
            if key.is_active(now)
            and key.role.allows(Role.APPROVE)
            and (name in key.namespaces or EVERY_NAMESPACE in key.namespaces)
        }
        needs = f"namespace {name!r} wants {governance.approvals} approvals; {len(people)} people may approve"
        remedy = (
            f"make keys with `serac keys create --role approve --namespace {name} --name …` for more people,"
            " or lower approvals"
        )
        if any(Role(role.role).allows(Role.APPROVE) for role in config.oidc.roles.values()):
            findings.append(
                fine("governance", f"{needs} by key, and more by groups of the identity provider")
            )
        elif len(people) < governance.approvals:
            findings.append(failure("governance", f"{needs}: nothing can be changed there", remedy))
        elif len(people) == governance.approvals:
            findings.append(
                warning("governance", f"{needs}: what one of them proposes can never be accepted", remedy)
            )
        else:
            findings.append(fine("governance", needs))
    return findings or [fine("governance", "no namespace demands approvals")]


async def proposal_findings(
    config: GatewayConfig, proposals: ProposalStore, *, now: datetime
) -> list[Finding]:
    """Which open proposals end soon without a decision.

    Raises:
        StoreUnavailableError: The store failed.
    """
    findings = []
    for name in config.governance.namespaces:
        cursor, ending = None, []
        while True:
            page = await proposals.page(name, cursor=cursor, limit=_PAGE, only_open=True)
            ending += [proposal for proposal in page.proposals if _ends_soon(proposal, now)]
            cursor = page.next_cursor
            if cursor is None:
                break
        if ending:
            first = min(ending, key=lambda proposal: proposal.expires_at)
            findings.append(
                warning(
                    "proposals",
                    f"{len(ending)} of namespace {name!r} expire soon, {first.id} at"
                    f" {first.expires_at:%Y-%m-%d %H:%M}",
                    f"have somebody decide: `serac proposals list --namespace {name}`",
                )
            )
    return findings or [fine("proposals", "none expires soon")]


def _ends_soon(proposal: Proposal, now: datetime) -> bool:
    """Within two days, or half of the time that it had where that was less."""
    left = proposal.expires_at - now
    return proposal.is_open(now) and left < min(_SOON, (proposal.expires_at - proposal.created_at) / 2)
