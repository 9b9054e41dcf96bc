"""GET /serac/v1/edits/{id}:compare: both arms of a canary."""

from __future__ import annotations

from typing import Annotated

from litestar import Controller, get
from litestar.params import QueryParameter

from serac_gateway.control_plane.comparison import Comparison, canary_version, compare
from serac_gateway.control_plane.http.dependencies import Context
from serac_gateway.control_plane.http.parameters import EditId, Namespace, problems
from serac_gateway.domain.edits import check_edit_id, check_not_purged

MAX_VERSION = 1_000_000_000


class ComparisonController(Controller):
    """/serac/v1/edits/{id}:compare. Its path is explained in colon_paths.py."""

    tags = ("edits",)

    @get(
        "/edits/{edit_id:str}/:compare",
        summary="Compare the arms of a canary",
        description="Requests in the edit's scope of users who have it (`treatment`) and of users who do not"
        " (`control`), from all gateways: counts, reports, latency, the latest answers where traffic is"
        " recorded, and their differences with intervals. An interval holds for one look at a number of"
        " requests that was fixed before.",
        responses=problems(400, 404, 409, 410, 503),
    )
    async def compare(
        self,
        edit_id: EditId,
        namespace: Namespace,
        context: Context,
        version: Annotated[
            int | None,
            QueryParameter(ge=1, le=MAX_VERSION, description="Of the edit; by default the latest canary"),
        ] = None,
    ) -> Comparison:
        """Both arms of one version."""
        versions = await context.store.versions(namespace, check_edit_id(edit_id))
        check_not_purged(versions[-1])
        edit = canary_version(versions, version)
        return await compare(context.store, namespace, edit, is_current=edit.version == versions[-1].version)
