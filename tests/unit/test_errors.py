"""The mapping of errors to HTTP responses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from serac_gateway import errors
from serac_gateway.control_plane.http.problems import problem
from serac_gateway.data_plane.protocols.endpoints import PROTOCOLS
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.errors import GatewayError, InvalidRequestError, UpstreamTimeoutError


def _subclasses(base: type[GatewayError]) -> Iterator[type[GatewayError]]:
    for subclass in base.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


SHIPPED = sorted(
    (error for error in _subclasses(GatewayError) if error.__module__ == errors.__name__),
    key=lambda error: error.__name__,
)


@pytest.mark.parametrize("error_class", SHIPPED)
def test_every_error_class_has_a_code_and_a_title_of_its_own(error_class: type[GatewayError]) -> None:
    assert {"code", "title"} <= vars(error_class).keys()


@pytest.mark.parametrize("error_class", SHIPPED)
def test_the_status_is_the_one_that_errors_py_promises(error_class: type[GatewayError]) -> None:
    assert errors.__doc__ is not None
    line = next(line for line in errors.__doc__.splitlines() if f" {error_class.__name__} " in line)
    status, _ = problem(error_class("message"))
    promised = line.split()[-1]
    assert str(status) == (promised if promised.isdigit() and len(promised) == 3 else "500")


def test_openai_shape_has_its_four_keys_and_names_the_parameter() -> None:
    error = InvalidRequestError("temperature 9 is too high", field="temperature")
    body = PROTOCOLS[Endpoint.CHAT].error_body(error, "r")
    assert error.status == 400
    assert body == {
        "error": {
            "message": "temperature 9 is too high",
            "type": "invalid_request_error",
            "param": "temperature",
            "code": "invalid_request",
        }
    }


def test_problem_names_field_value_and_limit() -> None:
    error = InvalidRequestError("too many", field="queries", details={"value": 300, "limit": 256})
    assert problem(error) == (
        400,
        {
            "type": "urn:serac:problem:invalid-request",
            "title": "The request is not valid",
            "status": 400,
            "detail": "too many",
            "field": "queries",
            "value": 300,
            "limit": 256,
        },
    )


def test_details_cannot_overwrite_what_a_problem_is_made_of() -> None:
    _, body = problem(UpstreamTimeoutError("late", details={"status": 200, "title": "all is well"}))
    assert body["status"] == 504
    assert body["title"] != "all is well"
