"""Calls on one edit are written ``/edits/{id}:restore``, and Litestar takes whole segments for parameters.

So their handlers stand at ``/edits/{id}/:restore``: a request's path is rewritten to that before it is
routed, and the paths of the OpenAPI are rewritten back.
"""

from __future__ import annotations

import re
from typing import Any, cast

from litestar.enums import ScopeType
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import OpenAPI
from litestar.types import HTTPScope, LifeSpanScope, Scope

_CALL = re.compile(r"(/serac/v1/edits/[^/]+)(:[a-z]+)")


def route_path(scope: Scope | LifeSpanScope) -> None:
    """Give a call on one edit the path that its handler stands at."""
    if scope["type"] == ScopeType.HTTP:
        http_scope = cast(HTTPScope, scope)
        if call := _CALL.fullmatch(http_scope["path"]):
            http_scope["path"] = f"{call[1]}/{call[2]}"


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
