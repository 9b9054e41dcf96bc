"""A control plane that really listens, on fakes that really work."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from litestar import Litestar
from litestar.datastructures import State

from serac_gateway.editing import Editor
from serac_gateway.http.control_plane import control_router, openapi_config
from serac_gateway.http.exception_handlers import EXCEPTION_HANDLERS
from serac_gateway.http.health import HealthController
from serac_gateway.http.parts import ControlParts, Readiness
from serac_gateway.http.request_ids import add_request_id
from serac_gateway.indexes.faiss_flat import FaissFlatIndex
from serac_gateway.live_edits import LiveEdits
from serac_gateway.metrics import RouteCounts
from serac_gateway.routing import EditRouter
from serac_gateway.stores.memory import InMemoryEditStore
from serac_gateway.testing import ThresholdClassifier, WordEncoder, serving

MAX_BODY_BYTES = 3_000_000


@dataclass
class ControlPlane:
    """A running control plane, and the fakes to upset it with."""

    url: str
    client: httpx.Client
    app: Litestar
    store: InMemoryEditStore
    encoder: WordEncoder


def control_plane_app(store: InMemoryEditStore, encoder: WordEncoder, pool: ThreadPoolExecutor) -> Litestar:
    """As app.py puts it together, without the data plane."""
    live_edits = LiveEdits(store=store, encoder=encoder, make_index=lambda: FaissFlatIndex(encoder.width))
    parts = ControlParts(
        editor=Editor(store=store, encoder=encoder, live_edits=live_edits, pool=pool),
        store=store,
        live_edits=live_edits,
        router=EditRouter(encoder=encoder, live_edits=live_edits, classifier=ThresholdClassifier()),
        decision_pool=pool,
        upstream_url="http://upstream.invalid/v1",
        route_counts=RouteCounts(),
    )
    return Litestar(
        route_handlers=[control_router(max_body_bytes=MAX_BODY_BYTES), HealthController],
        exception_handlers=EXCEPTION_HANDLERS,
        before_send=[add_request_id],
        openapi_config=openapi_config(),
        logging_config=None,
        state=State({"readiness": Readiness(), "control_parts": parts}),
    )


@contextmanager
def running_control_plane(store: InMemoryEditStore) -> Iterator[ControlPlane]:
    """Serve it over a loopback socket until the context ends."""
    encoder = WordEncoder()
    with ThreadPoolExecutor(2) as pool:
        app = control_plane_app(store, encoder, pool)
        with serving(app) as url, httpx.Client(base_url=f"{url}/serac/v1", timeout=30) as client:
            yield ControlPlane(url=url, client=client, app=app, store=store, encoder=encoder)
