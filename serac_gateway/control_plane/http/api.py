"""The control plane as an ASGI application: its controllers and what their handlers are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

from litestar import Litestar, Router
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import BeforeMessageSendHookHandler

from serac_gateway import __version__
from serac_gateway.auth.authenticator import Authenticator
from serac_gateway.control_plane.http.api_keys import ApiKeysController
from serac_gateway.control_plane.http.audit_log import LogController
from serac_gateway.control_plane.http.bodies import StrictJsonRequest
from serac_gateway.control_plane.http.colon_paths import ColonOpenAPIConfig, ColonPaths
from serac_gateway.control_plane.http.comparison import ComparisonController
from serac_gateway.control_plane.http.config import ConfigController, ConfigReloader
from serac_gateway.control_plane.http.dependencies import loaded_context
from serac_gateway.control_plane.http.edit_history import EditHistoryController
from serac_gateway.control_plane.http.edit_streams import EditStreamsController
from serac_gateway.control_plane.http.edits import EditsController
from serac_gateway.control_plane.http.feedback import FeedbackController
from serac_gateway.control_plane.http.governed import provide_governance
from serac_gateway.control_plane.http.guards import (
    provide_principal,
    require_key,
    require_media_type,
    require_metrics_key,
)
from serac_gateway.control_plane.http.health import HealthController
from serac_gateway.control_plane.http.metrics import MetricsController
from serac_gateway.control_plane.http.near_misses import NearMissController
from serac_gateway.control_plane.http.parameters import provide_namespace
from serac_gateway.control_plane.http.preview import PreviewController
from serac_gateway.control_plane.http.problems import exception_handlers
from serac_gateway.control_plane.http.proposals import ProposalsController
from serac_gateway.control_plane.http.replicas import ReplicasController
from serac_gateway.control_plane.http.review import ReviewController
from serac_gateway.control_plane.http.scope import ScopeController
from serac_gateway.control_plane.http.shadow import ShadowController
from serac_gateway.control_plane.http.store import StoreController
from serac_gateway.control_plane.http.verification import VerificationController
from serac_gateway.control_plane.http.wait import provide_waiting
from serac_gateway.control_plane.http.webhooks import WebhooksController
from serac_gateway.observability.metrics import Instruments
from serac_gateway.observability.readiness import Readiness

CONTROL_PREFIX = "/serac/v1"


Lifespan = Callable[[Litestar], AbstractAsyncContextManager[None]]


def control_plane_app(
    *,
    readiness: Readiness,
    authenticator: Authenticator,
    instruments: Instruments,
    reloader: ConfigReloader | None,
    max_body_bytes: int,
    before_send: Sequence[BeforeMessageSendHookHandler] = (),
    lifespan: Sequence[Lifespan] = (),
) -> ColonPaths:
    """The ASGI application for every path but /v1: /serac/v1, /serac/schema, /health and /metrics.

    Requests must be made inside `dependencies.serving_with`. The arguments belong to the process, not to
    a runtime.
    """
    app = Litestar(
        [
            _control_router(readiness, authenticator, reloader, max_body_bytes=max_body_bytes),
            HealthController,
            Router(
                "/",
                route_handlers=[MetricsController],
                guards=[require_metrics_key(authenticator, instruments)],
            ),
        ],
        dependencies={"readiness": _given(readiness), "instruments": _given(instruments)},
        openapi_config=_openapi_config(),
        exception_handlers=exception_handlers(instruments),
        before_send=list(before_send),
        lifespan=list(lifespan),
        logging_config=None,  # the command configures the root logger; Litestar's default would replace that
    )
    return ColonPaths(app)


def _control_router(
    readiness: Readiness,
    authenticator: Authenticator,
    reloader: ConfigReloader | None,
    *,
    max_body_bytes: int,
) -> Router:
    """All of /serac/v1."""
    return Router(
        CONTROL_PREFIX,
        route_handlers=[
            EditsController,
            EditStreamsController,
            EditHistoryController,
            NearMissController,
            ReviewController,
            ProposalsController,
            PreviewController,
            VerificationController,
            ScopeController,
            ShadowController,
            LogController,
            StoreController,
            ApiKeysController,
            ReplicasController,
            ConfigController,
            FeedbackController,
            ComparisonController,
            WebhooksController,
        ],
        guards=[require_key(authenticator), require_media_type],
        security=[{"apiKey": []}, {}],
        dependencies={
            "context": Provide(loaded_context(readiness), sync_to_thread=False),
            "principal": Provide(provide_principal, sync_to_thread=False),
            "namespace": Provide(provide_namespace, sync_to_thread=False),
            "waiting": Provide(provide_waiting, sync_to_thread=False),
            "governed": Provide(provide_governance, sync_to_thread=False),
            "keys": _given(authenticator),
            "reloader": _given(reloader),
        },
        request_class=StrictJsonRequest,
        request_max_body_size=max_body_bytes,
    )


def _given(dependency: object) -> Provide:
    """Provides the same object to each request."""

    def provide() -> object:
        return dependency

    return Provide(provide, sync_to_thread=False)


def _openapi_config() -> OpenAPIConfig:
    """The API's description at /serac/schema and /serac/schema/openapi.json.

    No page: those that Litestar has load their scripts from the networks of others.
    """
    return ColonOpenAPIConfig(
        title="serac_gateway control plane",
        version=__version__,
        description="Edits of a chat model that take effect at once. Errors are problems (RFC 9457). API keys"
        " are demanded where the gateway listens beyond loopback.",
        components=Components(
            security_schemes={
                "apiKey": SecurityScheme(
                    type="http", scheme="bearer", description="`sk-serac-…`; also as header x-serac-api-key"
                )
            }
        ),
        path="/serac/schema",
        render_plugins=[JsonRenderPlugin(path=["/", "/openapi.json"])],
        use_handler_docstrings=True,
    )
