"""A typed client of the gateway's edit API, synchronous and asynchronous, without the gateway's libraries.

    with GatewayClient("http://127.0.0.1:8080", api_key="sk-serac-…") as gateway:
        edit = gateway.send(add_edit(EditDraft(prompt="Who is the mayor?", target_new="Ottilie")))

A call (`calls.py`) is the same value for both clients (`clients.py`); its result is typed (`records.py`).
"""

from serac_gateway.client.calls import (
    Call,
    add_edit,
    change_edit,
    decide,
    get_edit,
    get_proposal,
    list_edits,
    list_proposals,
    retire_edit,
    search_edits,
    usage,
    withdraw_proposal,
)
from serac_gateway.client.clients import AsyncGatewayClient, GatewayClient
from serac_gateway.client.errors import ApiError, ClientError, UnreachableError
from serac_gateway.client.records import (
    Decision,
    DecisionCandidate,
    Edits,
    KnownEdit,
    ProposalRecord,
    Proposals,
    Usage,
)
from serac_gateway.domain.edits import EditDraft, EditKind, EditPatch, EditState

__all__ = [
    "ApiError",
    "AsyncGatewayClient",
    "Call",
    "ClientError",
    "Decision",
    "DecisionCandidate",
    "EditDraft",
    "EditKind",
    "EditPatch",
    "EditState",
    "Edits",
    "GatewayClient",
    "KnownEdit",
    "ProposalRecord",
    "Proposals",
    "UnreachableError",
    "Usage",
    "add_edit",
    "change_edit",
    "decide",
    "get_edit",
    "get_proposal",
    "list_edits",
    "list_proposals",
    "retire_edit",
    "search_edits",
    "usage",
    "withdraw_proposal",
]
