"""POST /serac/v1/edits:preview, and the recorded traffic that it looks at."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Controller, delete, get, post
from litestar.openapi.spec import Example
from litestar.params import BodyKwarg

from serac_gateway.control_plane.http.dependencies import Context
from serac_gateway.control_plane.http.edit_schemas import PreviewReply, PreviewRequest, preview_reply
from serac_gateway.control_plane.http.parameters import Namespace, problems
from serac_gateway.control_plane.http.schemas import MAX_SCOPE_QUERIES
from serac_gateway.domain.queries import Bypass, query_of_messages
from serac_gateway.errors import InvalidRequestError

_EXAMPLE = Example(
    summary="An edit, and two questions to try",
    value={
        "edit": {"prompt": "Who runs the harbour office of Marrowby?", "target_new": "Ottilie Brandvold"},
        "queries": ["Who is in charge of Marrowby's harbour office?", "Who is the mayor of Marrowby?"],
    },
)


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
        description="What the edit would do if it were stored and live: its conflicts, which other ways of"
        " asking its prompt it would capture (made by fixed rules), what lies just on either side of the"
        " threshold, which of the given queries and of the recorded traffic it would capture. Nothing is"
        " stored. With the `id` of a stored edit, that edit's next version is previewed.",
        responses=problems(400, 413, 503),
    )
    async def preview(
        self,
        data: Annotated[PreviewRequest, BodyKwarg(examples=[_EXAMPLE])],
        namespace: Namespace,
        context: Context,
    ) -> PreviewReply:
        """What an edit would do."""
        count = len(data.queries)
        if count > MAX_SCOPE_QUERIES:
            raise InvalidRequestError(
                f"{count} queries are too many; the limit is {MAX_SCOPE_QUERIES}; send several requests",
                field="queries",
                details={"value": count, "limit": MAX_SCOPE_QUERIES},
            )
        queries = []
        for place, one in enumerate(data.queries):
            messages = [{"role": "user", "content": one}] if isinstance(one, str) else one.messages
            query = query_of_messages(messages)
            if isinstance(query, Bypass):
                raise InvalidRequestError(
                    f"queries[{place}] is no query ({query.reason}); give a text, or messages that end with a"
                    " user's text",
                    field=f"queries[{place}]",
                )
            queries.append(query)
        return preview_reply(await context.previewer.preview(namespace, data.edit, queries))

    @get("/traffic", summary="Tell how much traffic is recorded", responses=problems(400, 503))
    async def traffic(self, namespace: Namespace, context: Context) -> TrafficRecord:
        """Whether the namespace's queries are recorded, and how many there are."""
        queries = await context.traffic.recent(namespace)
        return TrafficRecord(recording=context.traffic.is_on(namespace), queries=len(queries))

    @delete("/traffic", status_code=200, summary="Delete the recorded traffic", responses=problems(400, 503))
    async def clear(self, namespace: Namespace, context: Context) -> ClearedTraffic:
        """Delete the record of the namespace's recent queries."""
        return ClearedTraffic(cleared=await context.traffic.clear(namespace))
