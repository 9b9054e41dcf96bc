"""Turning the rows of a benchmark's file into its cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from serac_gateway.errors import ConfigError
from training.data.files import Row

T = TypeVar("T")


def converted(rows: list[Row], convert: Callable[[int, Row], T], *, form: str) -> list[T]:
    """`convert` applied to every row and its position.

    Raises:
        ConfigError: A row lacks a field, named together with the form that was expected.
    """
    results = []
    for position, row in enumerate(rows):
        try:
            results.append(convert(position, row))
        except (KeyError, TypeError, IndexError, AttributeError) as exc:
            raise ConfigError(
                f"row {position} is not in the form of {form}: {type(exc).__name__} {exc};"
                f" it has the fields {sorted(row)}"
            ) from exc
    return results
