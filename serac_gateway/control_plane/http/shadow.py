"""GET /serac/v1/shadow: what the scope classifier on trial would have decided otherwise."""

from __future__ import annotations

import msgspec
from litestar import Controller, get

from serac_gateway.control_plane.http.dependencies import Context
from serac_gateway.control_plane.http.parameters import Namespace, problems
from serac_gateway.observability.shadow import ShadowReport


class ShadowReply(msgspec.Struct, frozen=True, kw_only=True):
    """The classifier on trial, and its record in this process."""

    shadow: ShadowReport | None
    """Null: `models.scope_classifier_shadow` names none, or one that has not been written yet."""


class ShadowController(Controller):
    """/serac/v1/shadow."""

    tags = ("scope",)

    @get(
        "/shadow",
        summary="Report of the scope classifier on trial",
        description="Its decisions on requests of the namespace since its weights were opened in this"
        " process, by how they compare with those in force, and the latest requests that it would have"
        " decided otherwise. It decides after the reply and is never applied.",
        responses=problems(400, 503),
    )
    async def report(self, namespace: Namespace, context: Context) -> ShadowReply:
        """The record of the namespace."""
        return ShadowReply(shadow=None if context.shadow is None else context.shadow.report(namespace))
