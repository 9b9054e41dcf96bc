"""Calls of the gateway's API that several commands make."""

from __future__ import annotations

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from serac_gateway.cli.attestation import Exported
from serac_gateway.cli.client import CommandClient
from serac_gateway.cli.terminal import print_json, stderr
from serac_gateway.domain.edits import EditState

_EDITS = "/serac/v1/edits"
_NDJSON = {"content-type": "application/x-ndjson"}
_PAGE = 1_000
_CHUNK_BYTES = 65_536


async def call_gateway(url: str, namespace: str, method: str, path: str, **more: Any) -> Any:  # noqa: ANN401 - decoded JSON
    """Make one call, and return its decoded reply."""
    async with CommandClient(url, namespace=namespace) as client:
        return (await client.call(method, path, **more)).json()


async def list_all(
    url: str, namespace: str, state: EditState | None, limit: int, *, audience: str = ""
) -> tuple[list[dict[str, Any]], bool]:
    """The first `limit` edits, and whether there are more; with `audience` only those for it."""
    query: dict[str, str] = {} if state is None else {"state": state}
    if audience:
        query["audience"] = audience
    return await list_items(url, namespace, _EDITS, "edits", query, limit)


async def list_items(
    url: str, namespace: str, path: str, name: str, query: dict[str, str], limit: int
) -> tuple[list[dict[str, Any]], bool]:
    """The first `limit` items of the list `name` at `path`, and whether there are more."""
    items: list[dict[str, Any]] = []
    query = dict(query)
    async with CommandClient(url, namespace=namespace) as client:
        while True:
            query["limit"] = str(min(_PAGE, limit - len(items)))
            page = (await client.call("GET", path, query=query)).json()
            items += page[name]
            if page["next_cursor"] is None or len(items) >= limit:
                return items, page["next_cursor"] is not None
            query["cursor"] = page["next_cursor"]


async def search_edits(
    url: str, namespace: str, text: str, meaning: bool, state: EditState | None, limit: int
) -> tuple[list[dict[str, Any]], bool]:
    """The first `limit` edits of a search, and whether there are more."""
    edits: list[dict[str, Any]] = []
    query = {"q": text, "mode": "meaning" if meaning else "text", **({"state": state} if state else {})}
    async with CommandClient(url, namespace=namespace) as client:
        while True:
            query["limit"] = str(limit - len(edits))
            page = (await client.call("GET", _EDITS, query=query)).json()
            near = page["similarities"] or [None] * len(page["edits"])
            edits += [
                edit if similarity is None else {**edit, "similarity": similarity}
                for edit, similarity in zip(page["edits"], near, strict=True)
            ]
            if page["next_cursor"] is None or len(edits) >= limit:
                return edits, page["next_cursor"] is not None
            query["cursor"] = page["next_cursor"]


async def change_edit(
    url: str, namespace: str, path: str, verb: str, body: dict[str, Any], headers: Mapping[str, str]
) -> dict[str, Any]:
    """Restore, roll back or purge the current version of the edit at `path`, and return the new version."""
    async with CommandClient(url, namespace=namespace) as client:
        current = await client.call("GET", path)
        headers = {**headers, "if-match": current.headers["etag"]}
        edit: dict[str, Any] = (
            await client.call("POST", f"{path}:{verb}", body=body, headers=headers)
        ).json()
        return edit


async def patch_edit(
    url: str, namespace: str, path: str, body: dict[str, Any], headers: Mapping[str, str]
) -> dict[str, Any]:
    """Patch the current version of the edit at `path`, and return the new version."""
    async with CommandClient(url, namespace=namespace) as client:
        etag = (await client.call("GET", path)).headers["etag"]
        edit: dict[str, Any] = (
            await client.call("PATCH", path, body=body, headers={**headers, "if-match": etag})
        ).json()
        return edit


async def retire_edit(
    url: str, namespace: str, path: str, why: dict[str, str], headers: Mapping[str, str]
) -> dict[str, Any]:
    """Retire the current version of the edit at `path`, and return its last version."""
    async with CommandClient(url, namespace=namespace) as client:
        current = await client.call("GET", path)
        headers = {**headers, "if-match": current.headers["etag"]}
        edit: dict[str, Any] = (await client.call("DELETE", path, headers=headers, query=why)).json()
        return edit


async def import_file(
    url: str,
    namespace: str,
    file: str,
    headers: Mapping[str, str],
    *,
    dry_run: bool = False,
    as_json: bool,
    on_proposal: Callable[[dict[str, Any]], None],
) -> dict[str, int]:
    """Import a file ("-": stdin), show each refused line, and count the lines by their outcome.

    `on_proposal` takes the proposal that the import became, where others must agree.
    """
    path = None if file == "-" else Path(file)
    source = path.open("rb") if path else nullcontext(sys.stdin.buffer)
    total_bytes = path.stat().st_size if path else None
    bar = Progress(
        TextColumn("importing"),
        BarColumn(),
        TextColumn("{task.fields[lines]:,} lines"),
        TimeRemainingColumn(),
        console=stderr(),
        disable=as_json or not stderr().is_terminal,
    )
    headers = {**headers, **_NDJSON}
    counts = {"added": 0, "there": 0, "proposed": 0, "refused": 0}
    with source as lines, bar:
        task = bar.add_task("", total=total_bytes, lines=0)

        async def chunks() -> AsyncIterator[bytes]:
            while chunk := await asyncio.to_thread(_read, lines):
                yield chunk
                bar.advance(task, len(chunk))

        async with (
            CommandClient(url, namespace=namespace) as client,
            client.stream(
                "POST",
                f"{_EDITS}:import",
                query={"dry_run": "true"} if dry_run else None,
                content=chunks(),
                headers=headers,
            ) as response,
        ):
            async for line in response.lines():
                outcome = msgspec.json.decode(line)
                if "proposal" in outcome:
                    on_proposal(outcome["proposal"])
                    continue
                error = outcome.get("error")
                counts[_kind_of(outcome)] += 1
                bar.update(task, lines=sum(counts.values()))
                if as_json:
                    print_json(outcome)
                elif error:
                    where = f"line {outcome['line']}" if "line" in outcome else "no proposal was made"
                    bar.console.print(f"[red]{where}:[/] {escape(error['detail'])}", soft_wrap=True)
    return counts


async def export_lines(
    url: str,
    namespace: str,
    output: Path | None,
    *,
    path: str = f"{_EDITS}:export",
    query: Mapping[str, str] | None = None,
) -> Exported:
    """Write the lines at `path`, by default all live edits, to the file or to stdout."""
    digest, lines, size_bytes = hashlib.sha256(), 0, 0
    target = nullcontext(sys.stdout.buffer) if output is None else output.open("wb")
    with target as file:
        async with (
            CommandClient(url, namespace=namespace) as client,
            client.stream("GET", path, query=query) as response,
        ):
            async for chunk in response.chunks():
                lines += chunk.count(b"\n")
                size_bytes += len(chunk)
                digest.update(chunk)
                file.write(chunk)
        file.flush()
    name = response.headers.get("x-serac-namespace", namespace)
    return Exported(namespace=name, lines=lines, size_bytes=size_bytes, sha256=digest.hexdigest())


def _kind_of(outcome: dict[str, Any]) -> str:
    if "error" in outcome:
        return "refused"
    if outcome.get("proposed"):
        return "proposed"
    return "added" if outcome["added"] else "there"


def _read(file: BinaryIO) -> bytes:
    return file.read1(_CHUNK_BYTES) if hasattr(file, "read1") else file.read(_CHUNK_BYTES)
