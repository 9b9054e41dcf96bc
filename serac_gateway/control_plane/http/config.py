"""POST /serac/v1/config:reload: apply a changed configuration and changed weights."""

from __future__ import annotations

from typing import Protocol

from litestar import Controller, post
from litestar.di import NamedDependency
from litestar.params import SkipValidation

from serac_gateway.auth.principals import EVERY_NAMESPACE, Role
from serac_gateway.config.diff import Reloaded
from serac_gateway.control_plane.http.dependencies import Context
from serac_gateway.control_plane.http.guards import NEEDED_ROLE, Sender
from serac_gateway.control_plane.http.parameters import problems
from serac_gateway.errors import PermissionDeniedError, ReloadRefusedError


class ConfigReloader(Protocol):
    """Applies the changed configuration; server/reload.py implements it."""

    async def reload(self) -> Reloaded:
        """Read the configuration and the weights again, and apply what changed.

        Raises:
            ReloadRefusedError: They cannot be read or used, or a change needs a restart; nothing changes.
        """


ReloaderDependency = NamedDependency[SkipValidation[ConfigReloader | None]]
"""Annotates the handler's parameter `reloader`; None where the configuration cannot be read again."""


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
    async def reload(self, reloader: ReloaderDependency, context: Context, principal: Sender) -> Reloaded:
        """The changed keys, the reopened resources, and the number of the generation in force."""
        if not principal.may_use(EVERY_NAMESPACE):
            raise PermissionDeniedError(
                "a reload concerns all namespaces, and this API key is bound to some; use one for every"
                " namespace"
            )
        if reloader is None:
            raise ReloadRefusedError(
                "this gateway does not know where to read its configuration again; start it by `serac serve`",
                details={"generation": 1},
            )
        return await reloader.reload()
