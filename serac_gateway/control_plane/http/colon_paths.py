"""Calls on one edit are written ``/edits/{id}:restore``, but a path parameter of Litestar is a whole segment.

So their handlers are declared at ``/edits/{id}/:restore``, as those of calls on one proposal or webhook.
`ColonPaths` rewrites the path of a request before Litestar routes it, and `ColonOpenAPIConfig` rewrites the
paths of the OpenAPI description back.
"""

from __future__ import annotations

import re
from typing import Any, cast

from litestar import Litestar
from litestar.enums import ScopeType
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import OpenAPI
from litestar.types import (
    HTTPScope,
    LifeSpanReceive,
    LifeSpanScope,
    LifeSpanSend,
    Receive,
    Scope,
    Send,
)

_CALL = re.compile(r"(/serac/v1/(?:edits|proposals|webhooks)/[^/]+)(:[a-z]+)")


class ColonPaths:
    """An ASGI application: `litestar`, with the paths of calls on one edit as clients write them."""

    def __init__(self, litestar: Litestar) -> None:
        self.litestar = litestar

    async def __call__(
        self,
        scope: Scope | LifeSpanScope,
        receive: Receive | LifeSpanReceive,
        send: Send | LifeSpanSend,
    ) -> None:
        """Serve a request, or the lifespan of the server."""
        if scope["type"] == ScopeType.HTTP:
            http_scope = cast(HTTPScope, scope)
            if call := _CALL.fullmatch(http_scope["path"]):
                http_scope["path"] = f"{call[1]}/{call[2]}"
        await self.litestar(scope, receive, send)


class ColonOpenAPIConfig(OpenAPIConfig):
    """Describes calls on one edit under the paths that clients use."""

    def to_openapi_schema(self) -> OpenAPI:
        """See `OpenAPIConfig.to_openapi_schema`."""
        made = super().to_openapi_schema()
        return _ColonOpenAPI(**{name: getattr(made, name) for name in made.__dataclass_fields__})


class _ColonOpenAPI(OpenAPI):
    def to_schema(self) -> dict[str, Any]:
        schema = super().to_schema()
        schema["paths"] = {path.replace("/:", ":"): item for path, item in schema["paths"].items()}
        return schema
