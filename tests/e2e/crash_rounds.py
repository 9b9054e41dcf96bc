"""Kills gateway and store at random moments under concurrent writers, and looks at what is left.

    python -m tests.e2e.crash_rounds --rounds 200

A round is sound if no acknowledged version is lost, no acknowledged purge leaves content to be read, or in
the files of an embedded store, the last acknowledged rollback is in force, no commit is there in half, the
log's chain is valid, and what the gateway has in force is what is stored, its index equal to brute force.
Models are fakes; HTTP, editing, store and following are real. Processes and data are new every few rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from enum import StrEnum
from pathlib import Path

import httpx
import msgspec
import psutil

from serac_gateway.stores.disk_search import search_folder
from tests.contracts.served_stores import RedisServer
from tests.e2e.crash_gateway import RequestPlan
from tests.e2e.crash_writers import Writers

_ROUNDS_A_STORE = 10
_ERASED_WITHIN_S = 30.0
_QUICK = "?socket_timeout=2&socket_connect_timeout=2"
_START_TIMEOUT_S = 120.0
ROOT = Path(__file__).parents[2]


class Victim(StrEnum):
    """What is killed."""

    STORE = "store"
    GATEWAY = "gateway"
    BOTH = "both"


class Rounds:
    """One store and one gateway, killed and started again. With `server` None the store is embedded."""

    def __init__(self, folder: Path, dice: random.Random, server: RedisServer | None) -> None:
        self.outcomes: Counter[str] = Counter()
        self.acknowledged = 0
        self.purges = 0
        self.rollbacks = 0
        self.entries = 0
        self._folder = folder
        self._dice = dice
        self._server = server
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self._port = probe.getsockname()[1]
        self._url = f"http://127.0.0.1:{self._port}"
        self._gateway: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        if self._server is not None:
            self._server.start()
        await self._start_gateway()

    async def round(self, number: int) -> list[str]:
        """The problems that were found."""
        victim = self._dice.choice(list(Victim))
        writers = Writers(self._url, f"round-{number}", self._dice)
        writers.start()
        await asyncio.sleep(self._dice.uniform(0.05, 1.5))
        await self._kill(victim)
        await asyncio.sleep(self._dice.uniform(0, 0.3))
        await self._revive(victim)
        await self._until_ready()
        await asyncio.sleep(0.1)
        await writers.stop()
        problems = [*await writers.lost(), *await writers.halves(), *await writers.unpurged()]
        problems += await self._on_disk(writers)
        for namespace in (writers.namespace, writers.together):
            verdict = await self._checked(namespace)
            self.entries += verdict.entries
            problems += [verdict.problem] if verdict.problem else []
        self.outcomes += writers.outcomes
        self.acknowledged += sum(map(len, writers.acknowledged.values()))
        self.purges += len(writers.purges_acknowledged)
        self.rollbacks += writers.rollbacks_acknowledged
        return [f"round {number} ({victim}): {problem}" for problem in problems]

    async def _on_disk(self, writers: Writers) -> list[str]:
        """Acknowledged purges whose text the embedded store's files still hold, some seconds later."""
        texts = [writers.prompt(edit_id) for edit_id in sorted(writers.purges_acknowledged)]
        left = list(texts)
        deadline = time.monotonic() + _ERASED_WITHIN_S
        while self._server is None and left and time.monotonic() < deadline:
            left = [
                text for text in left if (await asyncio.to_thread(search_folder, self._folder, text)).hits
            ]
            await asyncio.sleep(0.1)
        return [] if self._server is not None else [f"still on the disk: {text}" for text in left]

    async def stop(self) -> None:
        await self._kill_gateway()
        if self._server is not None:
            self._server.kill()

    async def _kill(self, victim: Victim) -> None:
        parts = [self._kill_store, self._kill_gateway]
        self._dice.shuffle(parts)
        for part in parts:
            if victim is Victim.BOTH or (victim is Victim.STORE) == (part == self._kill_store):
                await part()

    async def _kill_store(self) -> None:
        if self._server is not None:
            self._server.kill()
        elif self._gateway is not None and self._gateway.returncode is None:
            for child in psutil.Process(self._gateway.pid).children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    os.kill(child.pid, signal.SIGKILL)

    async def _kill_gateway(self) -> None:
        if self._gateway is not None:
            with contextlib.suppress(ProcessLookupError):
                self._gateway.kill()
            await self._gateway.wait()

    async def _revive(self, victim: Victim) -> None:
        if self._server is not None and victim is not Victim.GATEWAY:
            await asyncio.to_thread(self._server.start)
        if victim is not Victim.STORE:
            await self._start_gateway()

    async def _start_gateway(self) -> None:
        url = "embedded" if self._server is None else self._server.url + _QUICK
        with (self._folder / "gateway.log").open("ab") as log_file:
            self._gateway = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.e2e.crash_gateway", url, str(self._folder), str(self._port)),
                cwd=ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log_file,
            )
        assert self._gateway.stdout is not None
        line = await asyncio.wait_for(self._gateway.stdout.readline(), _START_TIMEOUT_S)
        assert line == b"serving\n", (self._folder / "gateway.log").read_text()[-4_000:]

    async def _until_ready(self) -> None:
        until_s = time.monotonic() + _START_TIMEOUT_S
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    report = (await client.get(f"{self._url}/health/ready")).json()
                    if report["ready"] and report["store"] == "reachable":
                        return
                assert time.monotonic() < until_s, "the gateway does not get over it"
                await asyncio.sleep(0.02)

    async def _checked(self, namespace: str) -> RequestPlan:
        gateway = self._gateway
        assert gateway is not None
        assert gateway.stdin is not None
        assert gateway.stdout is not None
        gateway.stdin.write(f"{namespace}\n".encode())
        return msgspec.json.decode(await gateway.stdout.readline(), type=RequestPlan)


async def crash_rounds(folder: Path, *, rounds: int, seed: int, embedded_too: bool = True) -> list[str]:
    """Run them, print their progress, and return the problems."""
    problems: list[str] = []
    totals: Counter[str] = Counter()
    acknowledged = purges = rollbacks = entries = 0
    for first in range(0, rounds, _ROUNDS_A_STORE):
        own = folder / str(first)
        own.mkdir()
        is_embedded = embedded_too and first // _ROUNDS_A_STORE % 2 == 1
        series = Rounds(own, random.Random(seed + first), None if is_embedded else RedisServer(own))
        try:
            await series.start()
            for number in range(first, min(first + _ROUNDS_A_STORE, rounds)):
                problems += await series.round(number)
        finally:
            await series.stop()
        totals += series.outcomes
        acknowledged += series.acknowledged
        purges += series.purges
        rollbacks += series.rollbacks
        entries += series.entries
        print(
            f"{number + 1} rounds: {acknowledged:,} versions, {purges:,} purges and"
            f" {rollbacks:,} rollbacks acknowledged, {entries:,} log entries verified,"
            f" {len(problems)} problems; replies {dict(totals.most_common())}",
            flush=True,
        )
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="crash-rounds-") as folder:
        problems = asyncio.run(crash_rounds(Path(folder), rounds=options.rounds, seed=options.seed))
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
