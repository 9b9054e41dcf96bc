"""What `serac edits verify` and `set-state` ask of the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from serac_gateway.cli.client import GatewayClient
from serac_gateway.cli.console import print_json, stderr
from serac_gateway.cli.edits import edit_path
from serac_gateway.domain.edits import DECIDED_STATES

_PAGE = 1_000


async def verified(
    url: str, namespace: str, edit_ids: Sequence[str], *, as_json: bool
) -> tuple[int, list[dict[str, Any]]]:
    """How many passed, and the outcomes of those that did not."""
    bar = Progress(
        TextColumn("verifying"), MofNCompleteColumn(), TextColumn("{task.fields[failed]:,} failed"),
        TimeElapsedColumn(), console=stderr(), disable=as_json or not stderr().is_terminal,
    )  # fmt: skip
    passed, failed = 0, list[dict[str, Any]]()
    async with GatewayClient(url, namespace=namespace) as client:
        with bar:
            task = bar.add_task("", total=len(edit_ids) or None, failed=0)
            async for edit_id in _each(edit_ids) if edit_ids else _ids(client):
                outcome = (await client.call("POST", f"{edit_path(edit_id)}:verify")).json()
                if as_json:
                    print_json(outcome)
                if outcome["passed"]:
                    passed += 1
                else:
                    failed.append(outcome)
                bar.update(task, advance=1, failed=len(failed))
    return passed, failed


async def _each(edit_ids: Sequence[str]) -> AsyncIterator[str]:
    for edit_id in edit_ids:
        yield edit_id


async def _ids(client: GatewayClient) -> AsyncIterator[str]:
    """Of all edits that are live or on trial."""
    query = {"limit": str(_PAGE)}
    while True:
        page = (await client.call("GET", "/serac/v1/edits", query=query)).json()
        for edit in page["edits"]:
            if edit["state"] in DECIDED_STATES:
                yield edit["id"]
        if page["next_cursor"] is None:
            return
        query["cursor"] = page["next_cursor"]


async def patched(url: str, namespace: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Change the edit at `path` as it is now, and give its new version."""
    async with GatewayClient(url, namespace=namespace) as client:
        etag = (await client.call("GET", path)).headers["etag"]
        edit: dict[str, Any] = (
            await client.call("PATCH", path, body=body, headers={"if-match": etag})
        ).json()
        return edit
