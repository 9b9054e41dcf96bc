"""What `serac store` asks of the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from serac_gateway.cli.client import GatewayClient
from serac_gateway.cli.console import GatewayRefusedError, GatewayUnreachableError, stderr

_CHUNK_BYTES = 65_536
_GO_ON = "what was encoded stays; run the command again to go on"
_HEAD_BYTES = 1_024
"""More than the last line of a backup, its head, can have."""


async def backed_up(url: str, namespace: str, file: Path) -> dict[str, Any]:
    """Write the namespace's backup to the file, and give its head. An incomplete one does not stay.

    Raises:
        GatewayUnreachableError: The backup broke off.
    """
    part = file.with_name(file.name + ".part")
    tail = b""
    try:
        with part.open("wb") as target:
            async with (
                GatewayClient(url, namespace=namespace) as client,
                client.stream("GET", "/serac/v1/store:backup") as response,
            ):
                async for chunk in response.content.iter_any():
                    await asyncio.to_thread(target.write, chunk)
                    tail = (tail + chunk)[-_HEAD_BYTES:]
        head = _last_line(tail)
        if head.get("kind") != "head":
            raise GatewayUnreachableError(f"the backup from {url} broke off before its end; make it again")
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)
    return head


async def restored(url: str, namespace: str, file: Path) -> dict[str, Any]:
    """Send the backup, and give what the gateway wrote."""

    async def chunks() -> AsyncIterator[bytes]:
        with file.open("rb") as source:
            while chunk := await asyncio.to_thread(source.read, _CHUNK_BYTES):
                yield chunk

    async with (
        GatewayClient(url, namespace=namespace) as client,
        client.stream("POST", "/serac/v1/store:restore", content=chunks()) as response,
    ):
        done: dict[str, Any] = msgspec.json.decode(await response.read())
        return done


async def reencoded(url: str, namespace: str) -> dict[str, Any]:
    """Have the gateway encode the namespace anew, show how far it is, and give the end.

    Raises:
        GatewayRefusedError: Its store or its encoder failed.
        GatewayUnreachableError: It broke off.
    """
    told: dict[str, Any] = {"complete": False}
    progress = Progress(
        TextColumn("encoding anew: {task.fields[reencoded]:,} of {task.completed:,} edits looked at"),
        TimeElapsedColumn(),
        console=stderr(),
        disable=not stderr().is_terminal,
    )
    with progress:
        task = progress.add_task("", total=None, reencoded=0)
        async with (
            GatewayClient(url, namespace=namespace) as client,
            client.stream("POST", "/serac/v1/store:reencode") as response,
        ):
            async for line in response.content:
                told = msgspec.json.decode(line)
                if "error" in told:
                    raise GatewayRefusedError(f"{told['error']['detail']}; {_GO_ON}")
                progress.update(task, completed=told["edits"], reencoded=told["reencoded"])
    if not told["complete"]:
        raise GatewayUnreachableError(f"{url} broke off before the end; {_GO_ON}")
    return told


def _last_line(tail: bytes) -> dict[str, Any]:
    try:
        line: dict[str, Any] = msgspec.json.decode(tail.rstrip(b"\n").rpartition(b"\n")[2])
    except ValueError:
        return {}
    return line
