"""What handlers of the control plane are given: objects of the runtime that serves their request.

server/asgi.py enters `serving_with` for each request with the context of the runtime that it has leased, so a
request keeps its objects when a reload puts other ones in force meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import msgspec
from litestar.di import NamedDependency
from litestar.params import SkipValidation

from serac_gateway.auth.audience_labels import AudienceLabels
from serac_gateway.config.model import FeedbackConfig, GovernanceConfig
from serac_gateway.control_plane.firing import FiringCheck
from serac_gateway.control_plane.model_threads import ModelThreads
from serac_gateway.control_plane.preview import Previewer
from serac_gateway.control_plane.proposals import Proposals
from serac_gateway.control_plane.search import EditSearch
from serac_gateway.control_plane.verification import Verifier
from serac_gateway.control_plane.webhooks.dispatcher import Webhooks
from serac_gateway.control_plane.writer import EditWriter
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.follower import LogFollower
from serac_gateway.edit_index.heartbeat import ReplicaHeartbeat
from serac_gateway.errors import ModelUnavailableError
from serac_gateway.observability.counts import RouteCounts
from serac_gateway.observability.metrics import Instruments
from serac_gateway.observability.readiness import Readiness
from serac_gateway.observability.recent_requests import RecentRequests
from serac_gateway.observability.shadow import Shadow
from serac_gateway.routing.router import EditRouter
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.traffic_recorder import TrafficRecorder


class ControlPlaneContext(msgspec.Struct, frozen=True, kw_only=True):
    """The objects that the handlers of the control plane use, all of one runtime."""

    writer: EditWriter
    store: EditStore
    active_edits: ActiveEdits
    follower: LogFollower
    heartbeat: ReplicaHeartbeat
    wait_timeout_s: float
    """How long a call with `x-serac-wait: all` waits for the other gateways."""
    search: EditSearch
    router: EditRouter
    previewer: Previewer
    verifier: Verifier
    firing: FiringCheck | None
    """None: the configuration switches it off."""
    traffic: TrafficRecorder
    recent_requests: RecentRequests
    feedback: FeedbackConfig
    instruments: Instruments
    model_threads: ModelThreads
    """Runs `EditRouter.decide`."""
    upstream_url: str
    """Base URL of the upstream up to and with /v1, also of the embedded one."""
    route_counts: RouteCounts
    data_path: Path
    """The data folder, where a backup waits until it is checked."""
    governance: GovernanceConfig
    audience_labels: AudienceLabels
    """The labels that audiences of edits can name."""
    proposals: Proposals
    webhooks: Webhooks
    backup_key: bytes | None
    """The key of backups' seals; None: the store's own."""
    shadow: Shadow | None = None
    """Decides with the scope classifier on trial; None: there is none."""


_current: ContextVar[ControlPlaneContext] = ContextVar("control_plane_context")


@contextmanager
def serving_with(context: ControlPlaneContext) -> Iterator[None]:
    """Give `context` to the handlers of the request that the current task serves."""
    token = _current.set(context)
    try:
        yield
    finally:
        _current.reset(token)


def current_context() -> ControlPlaneContext:
    """The context of the request; also while stored edits are being loaded, when no edit may be served yet.

    Raises:
        LookupError: The current task is not inside `serving_with`.
    """
    return _current.get()


def loaded_context(readiness: Readiness) -> Callable[[], ControlPlaneContext]:
    """A dependency that gives the request's context once `readiness` misses nothing.

    It raises ModelUnavailableError while the gateway is loading.
    """

    def provide() -> ControlPlaneContext:
        if missing := readiness.missing:
            names = ", ".join(f"{name} ({progress})" for name, progress in missing.items())
            raise ModelUnavailableError(
                f"the gateway is still loading: {names}; try again when /health/ready answers 200"
            )
        return current_context()

    return provide


Context = NamedDependency[SkipValidation[ControlPlaneContext]]
"""Annotates the handlers' parameter `context`."""
