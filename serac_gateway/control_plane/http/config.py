"""The configuration over HTTP: taking up what changed of it."""

from __future__ import annotations

from typing import Protocol

from litestar import Controller, post
from litestar.datastructures import State

from serac_gateway.auth.principals import EVERY_NAMESPACE, Role
from serac_gateway.config.diff import Reloaded
from serac_gateway.control_plane.http.dependencies import Context
from serac_gateway.control_plane.http.guards import NEEDED_ROLE, Sender
from serac_gateway.control_plane.http.parameters import problems
from serac_gateway.errors import PermissionDeniedError, ReloadRefusedError


class ConfigReloader(Protocol):
    """Puts the changed configuration in force; server/reload.py has it."""

    async def reload(self) -> Reloaded:
        """Read the configuration and the weights again, and put what changed in force.

        Raises:
            ReloadRefusedError: They cannot be read or used, or need a restart; nothing changes.
        """


class ConfigController(Controller):
    """Calls on the configuration as a whole."""

    tags = ("configuration",)

    @post(
        "/config:reload",
        status_code=200,
        summary="Reload configuration and weights",
        description="Reads the gateway's configuration file and the weights it names again, as SIGHUP does,"
        " and puts what changed in force once all of it is open and ready; requests under way end as they"
        " began. If anything of it cannot be read, is not allowed or needs a restart, nothing changes and the"
        " problem says what. Of two reloads at once the second waits. Needs a key of role admin for every"
        " namespace.",
        responses=problems(409, 503),
        opt={NEEDED_ROLE: Role.ADMIN},
    )
    async def reload(self, state: State, context: Context, principal: Sender) -> Reloaded:
        """What changed, and which generation of the configuration is in force."""
        if not principal.may_use(EVERY_NAMESPACE):
            raise PermissionDeniedError(
                "a reload concerns all namespaces, and this API key is bound to some; use one for every"
                " namespace"
            )
        reloader: ConfigReloader | None = state.get("reloader")
        if reloader is None:
            raise ReloadRefusedError(
                "this gateway was not told where its configuration can be read again; start it by"
                " `serac serve`",
                details={"generation": 1},
            )
        return await reloader.reload()
