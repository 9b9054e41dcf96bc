"""What the handlers of the control plane share: namespace, page size, documented problems."""

from __future__ import annotations

from typing import Annotated

from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import HeaderParameter, QueryParameter, SkipValidation

from serac_gateway.edits import DEFAULT_NAMESPACE, check_namespace
from serac_gateway.http.error_responses import PROBLEM_MEDIA_TYPE
from serac_gateway.http.schemas import MAX_PAGE, Problem

_DESCRIPTIONS = {
    400: "Something in the request is not valid; the problem names field, value and limit",
    404: "There is no such edit",
    409: "An edit of this id exists",
    412: "If-Match names a version that is not current",
    413: "The body is too large",
    422: "The Idempotency-Key was used with another body",
    428: "If-Match is missing",
    503: "The store or a model is unavailable, or the gateway is still loading; try again",
}


def provide_namespace(
    header: Annotated[
        str,
        HeaderParameter(
            name="x-serac-namespace",
            description="Keeps tenants apart: 1 to 63 characters of a-z, 0-9, _ and -",
            # Documented only: check_namespace explains a refusal better than a regex does.
            schema_extra={"pattern": "^[a-z0-9][a-z0-9_-]{0,62}$"},
        ),
    ] = DEFAULT_NAMESPACE,
) -> str:
    """The namespace of the request.

    Raises:
        InvalidRequestError: The header holds no allowed name.
    """
    return check_namespace(header)


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
        for status in statuses
    }
