"""The JSON of the control plane beyond the stored records: scope, log, stats, health and errors."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import msgspec

from serac_gateway.domain.edits import Edit
from serac_gateway.observability.counts import EditCount, RouteCount
from serac_gateway.routing.router import Route, RouteDecision
from serac_gateway.stores.records import LogEntry

MAX_SCOPE_QUERIES = 256
MAX_PAGE = 1_000
DEFAULT_PAGE = 100


class EditVersions(msgspec.Struct, frozen=True, kw_only=True):
    """All versions of one edit."""

    versions: list[Edit]
    """Oldest first."""


class SearchMode(StrEnum):
    """How a search compares its text with edits."""

    TEXT = "text"
    MEANING = "meaning"


class EditPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of current edits."""

    edits: Sequence[Edit]
    next_cursor: str | None
    """Pass it to get the following page; null: this was the last."""
    similarities: Sequence[float] | None = None
    """Of a search by meaning, for each edit the cosine of its nearest form, -1..1."""


class WhoAndWhy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who makes a version, and why."""

    author: str | None = None
    """An API key's own name comes first."""
    reason: str | None = None


class EditRollback(WhoAndWhy, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Back to an older version."""

    version: Annotated[int, msgspec.Meta(ge=1)]
    """The version whose content and state the new version copies."""


class EditPurge(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An order to forget an edit."""

    reason: str
    """Why; it stays in the tombstone, so put nothing into it that is to be forgotten."""
    author: str | None = None
    """An API key's own name comes first."""


class NamespaceRollback(WhoAndWhy, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Back to what the namespace was after an entry of its log."""

    log_id: Annotated[str, msgspec.Meta(description="`0-0`: before the first entry")]
    dry_run: bool = False
    """Only tell what would change."""


class ScopeConversation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A query with the turns before it, as a chat request holds them."""

    messages: list[dict[str, Any]]


class ScopeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Queries to decide on."""

    queries: Annotated[
        list[str | ScopeConversation],
        msgspec.Meta(
            description=f"At most {MAX_SCOPE_QUERIES}: a text, or messages as in a chat request, whose last"
            " turn is the query. Of a long text only beginning and end count."
        ),
    ]
    user: str | None = None
    """By whom canaries are decided, as by `user` in a chat request; without it every canary is withheld."""


class ScopeCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """An edit that lies near the query, with its classification."""

    edit_id: str
    edit_version: int
    prompt: str
    target_new: str
    form: str
    """The form of the edit that lies nearest."""
    similarity: float
    scope_probability: float
    depends_probability: float | None
    """P(a right answer depends on the edit); null where the classifier cannot say."""


class ScopeDecision(msgspec.Struct, frozen=True, kw_only=True):
    """What would happen to a query, and why."""

    in_scope: bool
    route: Route
    reason: str
    edit_id: str | None
    edit_version: int | None
    withheld_edit_id: str | None
    """The edit on trial that would govern if it were live: a shadow, or a canary not for this user."""
    context_edit_ids: list[str]
    """The edits that the base model would be told, on the route in_context."""
    scope_probability: float | None
    """Of the edit chosen, else of the most probable candidate; null if there is none."""
    scope_threshold: float | None
    similarity: float | None
    candidates: list[ScopeCandidate]
    """Most probable first."""


class ScopeReply(msgspec.Struct, frozen=True, kw_only=True):
    """One decision a query, in order."""

    decisions: list[ScopeDecision]


class LogPage(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a namespace's log."""

    entries: list[LogEntry]
    """Oldest first."""
    next_after: str
    """Pass it as `after` to go on reading; new entries come after it."""


class Namespaces(msgspec.Struct, frozen=True, kw_only=True):
    """All namespaces that ever got an edit."""

    namespaces: list[str]


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """How much is stored and what was done."""

    edits: dict[str, int]
    """Indexed edits by namespace."""
    routes: list[RouteCount]
    """Requests since start, by route and reason."""
    governed: list[EditCount]
    """Requests since start by the edit that governed them, or would have if it were not on trial."""
    upstream_url: str
    """Where the base model is served, up to and with /v1."""


class Liveness(msgspec.Struct, frozen=True, kw_only=True):
    """The process answers."""

    live: bool


class ReadinessReport(msgspec.Struct, frozen=True, kw_only=True):
    """Whether requests are decided."""

    ready: bool
    missing: dict[str, str]
    """What is still loading, and how far it is."""
    store: str
    """"reachable", "loading", or why not. Without it a loaded gateway still decides, but writes nothing."""


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error (RFC 9457). An error may have further members."""

    type: str
    title: str
    status: int
    detail: str
    field: str | None = None
    value: str | float | bool | None = None
    limit: str | float | None = None


def scope_decision(decision: RouteDecision) -> ScopeDecision:
    """`decision` as the API tells it."""
    return ScopeDecision(
        in_scope=decision.in_scope,
        route=decision.route,
        reason=decision.reason,
        edit_id=decision.edit.id if decision.edit else None,
        edit_version=decision.edit.version if decision.edit else None,
        withheld_edit_id=decision.withheld.id if decision.withheld else None,
        context_edit_ids=[edit.id for edit in decision.context_edits],
        scope_probability=decision.scope_probability,
        scope_threshold=decision.scope_threshold,
        similarity=decision.similarity,
        candidates=[
            ScopeCandidate(
                edit_id=one.edit.id,
                edit_version=one.edit.version,
                prompt=one.edit.prompt,
                target_new=one.edit.target_new,
                form=one.form,
                similarity=one.similarity,
                scope_probability=one.scope_probability,
                depends_probability=one.depends_probability,
            )
            for one in decision.candidates
        ],
    )
