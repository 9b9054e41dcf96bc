"""`serac edits due`: the edits that somebody should look at again."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from serac_gateway.cli.options import (
    JsonOption,
    NamespaceOption,
    UrlOption,
    chosen_namespace,
    chosen_url,
)
from serac_gateway.cli.terminal import EXIT_USAGE, fail, print_json, run, stderr, stdout

_WITHIN = re.compile(r"([0-9]{1,5})([dw])")
_DAYS = {"d": 1, "w": 7}
_MAX_DAYS = 36_500


def due(
    within: Annotated[
        str, typer.Option(metavar="30d", help="How far ahead to look, in days or weeks (4w).")
    ] = "0d",
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
    url: UrlOption = None,
    namespace: NamespaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List edits whose review is due or overdue, the longest overdue first. They stay in force.

    `serac edits change ID --review-by …` takes an edit from the list.
    """
    from serac_gateway.cli.calls import list_items

    query = {"within_days": str(_days(within))}
    listing = list_items(
        chosen_url(url), chosen_namespace(namespace), "/serac/v1/edits:due", "edits", query, limit
    )
    edits, more = run(listing)
    print_json(edits) if as_json else _print_table(edits)
    if more:
        stderr().print(f"[dim]there are more than {limit}; raise --limit[/]", soft_wrap=True)


def _days(within: str) -> int:
    match = _WITHIN.fullmatch(within)
    days = int(match[1]) * _DAYS[match[2]] if match else _MAX_DAYS + 1
    if days > _MAX_DAYS:
        fail(
            f"--within {within!r} is not allowed; give days or weeks of at most {_MAX_DAYS}d: 30d, 4w",
            EXIT_USAGE,
        )
    return days


def _print_table(edits: list[dict[str, Any]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    today = datetime.now(UTC).date().isoformat()
    table = Table("review by", "", "id", "version", "institution", "prompt", "new answer")
    for edit in edits:
        day = edit["review_by"]
        overdue = "[red]overdue[/]" if day < today else ("today" if day == today else "")
        texts = (edit["institution"] or "", edit["prompt"], edit["target_new"])
        table.add_row(day, overdue, edit["id"], str(edit["version"]), *map(escape, texts))
    stdout().print(table)
