"""The control plane as one set of Litestar settings, which app.py puts beside the data plane."""

from __future__ import annotations

from litestar import Router
from litestar.di import Provide
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, RedocRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from serac_gateway import __version__
from serac_gateway.control_plane.http.api_keys import ApiKeysController
from serac_gateway.control_plane.http.audit_log import LogController
from serac_gateway.control_plane.http.bodies import StrictJsonRequest
from serac_gateway.control_plane.http.colon_paths import ColonOpenAPIConfig
from serac_gateway.control_plane.http.config import ConfigController
from serac_gateway.control_plane.http.dependencies import provide_context
from serac_gateway.control_plane.http.edit_history import EditHistoryController
from serac_gateway.control_plane.http.edit_streams import EditStreamsController
from serac_gateway.control_plane.http.edits import EditsController
from serac_gateway.control_plane.http.feedback import FeedbackController
from serac_gateway.control_plane.http.guards import demand_key, provide_keys, provide_principal
from serac_gateway.control_plane.http.parameters import provide_namespace
from serac_gateway.control_plane.http.preview import PreviewController
from serac_gateway.control_plane.http.replicas import ReplicasController
from serac_gateway.control_plane.http.scope import ScopeController
from serac_gateway.control_plane.http.store import StoreController
from serac_gateway.control_plane.http.verification import VerificationController
from serac_gateway.control_plane.http.wait import provide_waiting

CONTROL_PREFIX = "/serac/v1"


def control_router(*, max_body_bytes: int) -> Router:
    """All of /serac/v1; its handlers receive their objects from `dependencies.py`."""
    return Router(
        CONTROL_PREFIX,
        route_handlers=[
            EditsController,
            EditStreamsController,
            EditHistoryController,
            PreviewController,
            VerificationController,
            ScopeController,
            LogController,
            StoreController,
            ApiKeysController,
            ReplicasController,
            ConfigController,
            FeedbackController,
        ],
        guards=[demand_key],
        security=[{"apiKey": []}, {}],
        dependencies={
            "keys": Provide(provide_keys, sync_to_thread=False),
            "principal": Provide(provide_principal, sync_to_thread=False),
            "context": Provide(provide_context, sync_to_thread=False),
            "namespace": Provide(provide_namespace, sync_to_thread=False),
            "waiting": Provide(provide_waiting, sync_to_thread=False),
        },
        request_class=StrictJsonRequest,
        request_max_body_size=max_body_bytes,
    )


def openapi_config() -> OpenAPIConfig:
    """The API's description at /serac/schema: as a page, and as /serac/schema/openapi.json."""
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
        render_plugins=[RedocRenderPlugin(), JsonRenderPlugin()],
        use_handler_docstrings=True,
    )
