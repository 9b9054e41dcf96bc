"""The store itself over HTTP: whether it is sound."""

from __future__ import annotations

from litestar import Controller, get

from serac_gateway.access import Role
from serac_gateway.http.authentication import NEEDED_ROLE
from serac_gateway.http.control_parameters import Namespace, problems
from serac_gateway.http.parts import Parts
from serac_gateway.store_check import StoreCheck, StoreReport


class StoreController(Controller):
    """Calls on the store as a whole, one namespace at a time."""

    tags = ("store",)

    @get(
        "/store:check",
        summary="Check the store",
        description="Verifies the log, compares every current record with its version, every vector with its"
        " edit, the lists by state with the records, and the edits in force in this process with the stored"
        " ones. Reads everything: 30 s for 100,000 edits.",
        responses=problems(400, 503),
        opt={NEEDED_ROLE: Role.ADMIN},
    )
    async def check(self, namespace: Namespace, parts: Parts) -> StoreReport:
        """Whether anything of the namespace does not fit."""
        return await StoreCheck(store=parts.store, live_edits=parts.live_edits).run(namespace)
