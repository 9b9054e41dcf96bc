"""Runs a client of others in a process of its own, against a gateway in front of both vendors' APIs."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from serac_gateway.testing import ScriptedUpstream
from tests.attacks.attacked_gateway import FACT, SUPPRESSION, attacked_gateway
from tests.clients.vendor_upstream import vendor

NOT_INSTALLED = 77
"""The exit status of a script whose client is not there."""
PATIENCE_S = 300


@asynccontextmanager
async def gateway_before_vendors(folder: Path) -> AsyncIterator[str]:
    """A gateway with a fact and a suppression; gives its URL."""
    async with (
        ScriptedUpstream(vendor) as upstream,
        attacked_gateway(folder, f'upstream.url = "{upstream.url}"') as gateway,
    ):
        await gateway.add(FACT, SUPPRESSION)
        yield gateway.url


async def seen_by(*command: str, folder: Path) -> dict[str, object]:
    """What the client gave to its user, by case; skips where it is not installed."""
    no_paths = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    async with gateway_before_vendors(folder) as url:
        process = await asyncio.create_subprocess_exec(
            *command, url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=no_paths
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), PATIENCE_S)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise
    if process.returncode == NOT_INSTALLED:
        pytest.skip(f"{err.decode().strip()}; make clients installs it")
    assert process.returncode == 0, err.decode()[-3_000:]
    report = json.loads(out.decode().splitlines()[-1])
    print(report["versions"])
    return dict(report["seen"])
