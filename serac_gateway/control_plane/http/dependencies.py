"""What app.py hands to the control plane: its objects, and how far loading has come.

app.py sets `state.readiness` before it listens and `state.control_plane` once everything is loaded. A reload
of the configuration sets others; a request keeps those with which it began.
"""

from __future__ import annotations

from concurrent.futures import Executor
from typing import Any

import msgspec
from litestar import Request
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.params import SkipValidation

from serac_gateway.config.model import FeedbackConfig
from serac_gateway.control_plane.editor import Editor
from serac_gateway.control_plane.preview import Previewer
from serac_gateway.control_plane.search import EditSearch
from serac_gateway.control_plane.verification import Verifier
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.follower import LogFollower
from serac_gateway.edit_index.heartbeat import ReplicaAnnouncer
from serac_gateway.errors import ModelUnavailableError
from serac_gateway.observability.counts import RouteCounts
from serac_gateway.observability.metrics import Instruments
from serac_gateway.observability.recent_requests import RecentRequests
from serac_gateway.routing.router import EditRouter
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.traffic_recorder import RecordedTraffic

CONTROL_PLANE = "control_plane"
"""Its name in the app's state and in a request's."""


class ControlPlaneContext(msgspec.Struct, frozen=True, kw_only=True):
    """The objects that the handlers of the control plane use."""

    editor: Editor
    store: EditStore
    active_edits: ActiveEdits
    follower: LogFollower
    announcer: ReplicaAnnouncer
    wait_timeout_s: float
    """How long a call with `x-serac-wait: all` waits for the other gateways."""
    search: EditSearch
    router: EditRouter
    previewer: Previewer
    verifier: Verifier
    traffic: RecordedTraffic
    recent_requests: RecentRequests
    feedback: FeedbackConfig
    instruments: Instruments
    decision_pool: Executor
    """Runs `EditRouter.decide`."""
    upstream_url: str
    """Base URL of the upstream up to and with /v1, also of the embedded one."""
    route_counts: RouteCounts


def provide_context(request: Request[Any, Any, Any], state: State) -> ControlPlaneContext:
    """The context, for handlers.

    Raises:
        ModelUnavailableError: The gateway is still loading.
    """
    context: ControlPlaneContext | None = request.scope["state"].get(CONTROL_PLANE)
    if context is None:
        missing = ", ".join(f"{part} ({progress})" for part, progress in state.readiness.missing.items())
        raise ModelUnavailableError(
            f"the gateway is still loading: {missing}; try again when /health/ready answers 200"
        )
    return context


Context = NamedDependency[SkipValidation[ControlPlaneContext]]
"""Annotates the handlers' parameter `context`."""
