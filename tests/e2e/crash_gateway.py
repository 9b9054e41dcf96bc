"""A gateway to be killed, in a process of its own: real HTTP, editing and store; fakes for models.

    python -m tests.e2e.crash_gateway URL FOLDER PORT    URL "embedded": a Valkey of its own in FOLDER

Prints "serving" when it is ready. For each namespace that comes as a line on stdin it checks whether what is
in force is what is stored, and prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
from pathlib import Path

import msgspec

from serac_gateway.control_plane.integrity import StoreCheck
from serac_gateway.stores.log_verification import verify_log
from tests.contracts.following_replicas import assert_equals_brute_force
from tests.e2e.gateway_on_store import GatewayOnStore, gateway_on


class RequestPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a check found."""

    entries: int = 0
    edits: int = 0
    problem: str | None = None


async def checked(gateway: GatewayOnStore, namespace: str) -> RequestPlan:
    try:
        async with asyncio.timeout(20):
            while gateway.live.position(namespace) != await gateway.store.log_head(namespace):
                await asyncio.sleep(0.01)
        head = await verify_log(gateway.store, namespace)
        report = await StoreCheck(store=gateway.store, active_edits=gateway.live).run(namespace)
        assert report.sound, report.problems
        await assert_equals_brute_force(gateway.live, gateway.store, namespace)
    except Exception:  # whatever it is, it is the verdict
        return RequestPlan(problem=traceback.format_exc())
    return RequestPlan(entries=head.length, edits=gateway.live.count(namespace))


async def main(url: str, folder: Path, port: int) -> None:
    stdin = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stdin), sys.stdin)
    async with gateway_on(None if url == "embedded" else url, folder, port=port) as gateway:
        print("serving", flush=True)
        while line := await stdin.readline():
            verdict = await checked(gateway, line.decode().strip())
            print(msgspec.json.encode(verdict).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])))
