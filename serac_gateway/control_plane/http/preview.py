"""POST /serac/v1/edits:preview, and the recorded traffic that it looks at."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import msgspec
from litestar import Controller, Request, delete, get, post
from litestar.datastructures import State
from litestar.openapi.spec import Example
from litestar.params import BodyKwarg

from serac_gateway.config.model import ConflictPolicy
from serac_gateway.control_plane.http.client_watch import unless_client_leaves
from serac_gateway.control_plane.http.dependencies import Context
from serac_gateway.control_plane.http.parameters import Namespace, problems
from serac_gateway.control_plane.http.schemas import ConflictReply, conflict_replies
from serac_gateway.control_plane.http.scope import MAX_SCOPE_QUERIES, ScopeConversation, parsed_queries
from serac_gateway.control_plane.paraphrases import ParaphraseKind
from serac_gateway.control_plane.preview import Preview, PreviewedForm
from serac_gateway.control_plane.preview import PreviewedQuery as PreviewOfQuery
from serac_gateway.control_plane.readings import PromptForm
from serac_gateway.domain.audiences import checked_audience
from serac_gateway.domain.edits import EditDraft
from serac_gateway.domain.queries import Bypass
from serac_gateway.errors import InvalidRequestError
from serac_gateway.routing.router import Route

_EXAMPLE = Example(
    summary="An edit, and two questions to try",
    value={
        "edit": {"prompt": "Who runs the harbour office of Marrowby?", "target_new": "Ottilie Brandvold"},
        "queries": ["Who is in charge of Marrowby's harbour office?", "Who is the mayor of Marrowby?"],
    },
)


class PreviewRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An edit that may be stored, and queries to try on it."""

    edit: EditDraft
    queries: Annotated[
        list[str | ScopeConversation],
        msgspec.Meta(description=f"At most {MAX_SCOPE_QUERIES}, as for /scope"),
    ] = []
    labels: dict[str, str] | None = None
    """Of the request that queries and paraphrases are imagined in, as for /scope; null: the first value of
    each label of the edit's audience."""


class PreviewedQuery(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A query, and what the edit would do to it."""

    query: str
    captured: bool
    """Whether the edit would govern it."""
    route: Route
    scope_probability: float | None
    """P(in scope of the edit); null: it lies too far away to be read."""
    governed_by: str | None
    """The stored edit that would govern; null: none would, or the previewed one."""
    context: list[str] = []
    """Earlier turns that count."""
    asked_as: ParaphraseKind | None = None
    """Of a paraphrase of the prompt: which form it has."""
    edit_id: str | None = None
    """The stored edit whose prompt this is."""
    count: int = 1
    """How often it was recorded."""


class PreviewedTraffic(msgspec.Struct, frozen=True, kw_only=True):
    """What of the recorded traffic the edit would capture."""

    recording: bool
    """Whether the namespace's queries are recorded."""
    queries: int
    """Recorded, not yet expired."""
    captured: int
    shown: list[PreviewedQuery]
    """Those captured, most frequent first."""


class ReadPrompt(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the prompt is read."""

    form: PromptForm
    gap: str | None = None
    """Of a statement with the answer in it: the statement with a gap in its place."""


class PreviewReply(msgspec.Struct, frozen=True, kw_only=True):
    """What an edit would do if it were stored and live, its window open. Nothing was stored."""

    scope_threshold: float
    """The edit captures what it answers with this probability or more; suppressions have one of their own."""
    policy: ConflictPolicy
    refused: bool
    """Whether it would be refused because of its conflicts."""
    conflicts: list[ConflictReply]
    """`superseded`: it would be retired."""
    read_as: ReadPrompt
    forms: list[PreviewedForm]
    """The texts under which the edit would be searched."""
    forms_left_out: int
    """How many by other names of the subject are left out, because there would be too many."""
    generated: list[PreviewedQuery]
    """Paraphrases of the prompt, made by fixed rules: a first look at its scope."""
    near_misses: list[PreviewedQuery]
    """Prompts of stored edits and recorded queries closest to the threshold, on either side."""
    queries: list[PreviewedQuery]
    """Those given, in order."""
    traffic: PreviewedTraffic


class TrafficRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The record of the namespace's recent queries."""

    recording: bool
    queries: int
    """Recorded, not yet expired."""


class ClearedTraffic(msgspec.Struct, frozen=True, kw_only=True):
    """What was deleted."""

    cleared: int


class PreviewController(Controller):
    """/serac/v1/edits:preview and /traffic."""

    tags = ("preview",)

    @post(
        "/edits:preview",
        status_code=200,
        summary="Preview an edit",
        description="What the edit would do if it were stored and live: its conflicts, how its prompt is"
        " read, the texts it would be searched by, which other ways of asking its prompt it would capture"
        " (made by fixed rules), what lies just on either side of the threshold, which of the given queries"
        " and of the recorded traffic it would capture. Nothing is stored. With the `id` of a stored edit,"
        " that edit's next version is previewed.",
        responses=problems(400, 413, 503),
    )
    async def preview(
        self,
        data: Annotated[PreviewRequest, BodyKwarg(examples=[_EXAMPLE])],
        namespace: Namespace,
        context: Context,
        request: Request[object, object, State],
    ) -> PreviewReply:
        """What an edit would do."""
        context.audience_labels.check(checked_audience(data.edit.audience))
        labels = None if data.labels is None else context.audience_labels.given(data.labels)
        queries = []
        async with context.model_threads.time_limit("reading these queries"):
            parsed = await context.model_threads.run(partial(parsed_queries, data.queries))
        for position, query in enumerate(parsed):
            if isinstance(query, Bypass):
                raise InvalidRequestError(
                    f"queries[{position}] is no query ({query.reason}); give a text, or messages that end"
                    " with a user's text",
                    field=f"queries[{position}]",
                )
            queries.append(query)
        preview = context.previewer.preview(namespace, data.edit, queries, labels=labels)
        return _preview_reply(await unless_client_leaves(request.receive, preview))

    @get("/traffic", summary="Tell how much traffic is recorded", responses=problems(400, 503))
    async def traffic(self, namespace: Namespace, context: Context) -> TrafficRecord:
        """Whether the namespace's queries are recorded, and how many there are."""
        queries = await context.traffic.recent(namespace)
        return TrafficRecord(recording=context.traffic.is_on(namespace), queries=len(queries))

    @delete("/traffic", status_code=200, summary="Delete the recorded traffic", responses=problems(400, 503))
    async def clear(self, namespace: Namespace, context: Context) -> ClearedTraffic:
        """Delete the record of the namespace's recent queries."""
        return ClearedTraffic(cleared=await context.traffic.clear(namespace))


def _preview_reply(preview: Preview) -> PreviewReply:
    """`preview` in the form of the API."""
    return PreviewReply(
        scope_threshold=preview.scope_threshold,
        policy=preview.policy,
        refused=preview.refused,
        conflicts=conflict_replies(preview.conflicts, set(preview.superseded)),
        read_as=ReadPrompt(form=preview.reading.form, gap=preview.reading.gap),
        forms=preview.forms,
        forms_left_out=preview.forms_left_out,
        generated=[_previewed(query) for query in preview.generated],
        near_misses=[_previewed(query) for query in preview.near_misses],
        queries=[_previewed(query) for query in preview.queries],
        traffic=PreviewedTraffic(
            recording=preview.traffic.recording,
            queries=preview.traffic.queries,
            captured=preview.traffic.captured,
            shown=[_previewed(query) for query in preview.traffic.most_frequent],
        ),
    )


def _previewed(preview: PreviewOfQuery) -> PreviewedQuery:
    return PreviewedQuery(
        query=preview.query.text,
        context=list(preview.query.context),
        captured=preview.captured,
        route=preview.route,
        scope_probability=preview.scope_probability,
        governed_by=preview.governed_by,
        asked_as=preview.paraphrase_kind,
        edit_id=preview.edit_id,
        count=preview.count,
    )
