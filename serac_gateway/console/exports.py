"""Export: the edits that the list's filters admit, as a file."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from litestar import Controller, Response, get
from litestar.params import FromPath
from litestar.response import Stream

from serac_gateway.console.edit_tables import csv_header, csv_line, ndjson_line
from serac_gateway.console.edits import given_filters, listed_page
from serac_gateway.console.visits import Visit, Visiting

_TYPES = {"csv": "text/csv", "ndjson": "application/x-ndjson"}
_PAGE = 1_000
_BOM = b"\xef\xbb\xbf"
"""By it Excel reads the file as UTF-8."""


class ExportPages(Controller):
    """/console/n/{namespace}/export/{form}."""

    path = "/n/{namespace:str}/export"

    @get("/{form:str}")
    async def export(self, visit: Visiting, form: FromPath[str]) -> Response[Any]:
        """All edits that the query's filters admit and that are not purged, as ``csv`` or ``ndjson``."""
        if form not in _TYPES:
            return visit.page("missing.html", status=404)
        given = given_filters(visit)
        first = await listed_page(visit, given, limit=_PAGE)
        return Stream(
            _lines(visit, given, first, as_csv=form == "csv"),
            media_type=_TYPES[form],
            headers={"content-disposition": f'attachment; filename="{visit.namespace}-edits.{form}"'},
        )


async def _lines(
    visit: Visit, given: dict[str, str], page: dict[str, Any], *, as_csv: bool
) -> AsyncIterator[bytes]:
    """A reply that ends before its last chunk is incomplete: the store failed on the way."""
    line = csv_line if as_csv else ndjson_line
    if as_csv:
        yield _BOM + csv_header()
    while True:
        if lines := [line(edit) for edit in page["edits"] if edit["state"] != "purged"]:
            yield b"".join(lines)
        if page["next_cursor"] is None:
            return
        page = await listed_page(visit, {**given, "cursor": page["next_cursor"]}, limit=_PAGE)
