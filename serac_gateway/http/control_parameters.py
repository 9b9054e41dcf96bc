"""What the handlers of the control plane share: namespace, page size, documented problems."""

from __future__ import annotations

from typing import Annotated

from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import HeaderParameter, QueryParameter, SkipValidation

from serac_gateway.control_plane.http.guards import Sender
from serac_gateway.http.exception_handlers import PROBLEM_MEDIA_TYPE
from serac_gateway.http.schemas import MAX_PAGE, Problem

_DESCRIPTIONS = {
    400: "Something in the request is not valid; the problem names field, value and limit",
    401: "An API key is demanded, or the one sent is not valid",
    403: "The API key's role or namespaces do not allow this",
    404: "There is nothing of this id",
    409: "An edit of this id exists, the edit's state does not allow this, the namespace refuses what it"
    " contradicts, or the changed configuration cannot be used",
    410: "The edit was purged",
    412: "If-Match names a version that is not current, or others wrote meanwhile",
    413: "The body is too large",
    422: "The Idempotency-Key was used with another body",
    428: "If-Match is missing",
    429: "The API key's requests of this minute are spent",
    503: "The store or a model is unavailable, or the gateway is still loading; try again",
}


_ANYWHERE = (401, 403, 429)
"""Every call is behind the same gate (see authentication.py)."""


def provide_namespace(
    principal: Sender,
    header: Annotated[
        str | None,
        HeaderParameter(
            name="x-serac-namespace",
            description="Keeps tenants apart: 1 to 63 characters of a-z, 0-9, _ and -. Without it, the API"
            " key's own namespace, or `default`",
            # Documented only: Principal.namespace explains a refusal better than a regex does.
            schema_extra={"pattern": "^[a-z0-9][a-z0-9_-]{0,62}$"},
        ),
    ] = None,
) -> str:
    """The namespace of the request.

    Raises:
        InvalidRequestError: The header holds no allowed name, or is missing where the key has several.
        PermissionDeniedError: The namespace is not the key's.
    """
    return principal.namespace(header)


Namespace = NamedDependency[SkipValidation[str]]
"""Annotates the handlers' parameter `namespace`."""

PageLimit = Annotated[int, QueryParameter(ge=1, le=MAX_PAGE, description="How many to return at most")]


def problems(*statuses: int) -> dict[int, ResponseSpec]:
    """OpenAPI's description of the problems that a handler may answer with."""
    return {
        status: ResponseSpec(
            data_container=Problem,
            description=_DESCRIPTIONS[status],
            media_type=PROBLEM_MEDIA_TYPE,
            generate_examples=False,
        )
        for status in sorted({*statuses, *_ANYWHERE})
    }
