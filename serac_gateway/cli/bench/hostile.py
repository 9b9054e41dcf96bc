"""What requests made to do harm cost a gateway: how long all stands still, and how much memory it takes.

A probe in a process of its own asks for /health/live all the while (stall_probe.py): its longest wait is the
longest time in which the gateway did nothing else. Before the attacks it says what the machine adds.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

import msgspec

from serac_gateway.cli.bench.processes import Watched
from serac_gateway.cli.bench.stall_probe import Seen
from serac_gateway.cli.bench.targets import Aim
from serac_gateway.cli.bench.wire import BenchError, Connection, Target

STALL_AIM_MS = 100.0
GROWTH_AIM_MIB = 300.0
_MB = 1_000_000
_MEBIBYTE = 1_048_576
_QUIET_S = 3.0
_SETTLING_S = 1.0
_TIMEOUT_S = 600.0
_UNFINISHED = 24
_HALF_HEADS = 500


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What an attack cost."""

    name: str
    statuses: dict[str, int]
    """How often each status was the reply; "none": the connection ended without one."""
    took_s: float
    longest_stall_ms: float
    growth_mib: float
    """The most memory of the gateway's process meanwhile, above what it held before all attacks."""


class HostileLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What all attacks cost, one after the other and then together."""

    quiet_stall_ms: float
    """The probe's longest wait before."""
    load_before: float
    """The machine's own load, as its one-minute average."""
    load_after: float
    idle_mib: float
    costs: list[Cost]

    @property
    def aims(self) -> list[Aim]:
        """The aims, judged by the worst of all attacks."""
        stall = max(cost.longest_stall_ms for cost in self.costs)
        growth = max(cost.growth_mib for cost in self.costs)
        return [
            Aim(
                measure="longest stall under hostile requests",
                aim=f"≤ {STALL_AIM_MS:g} ms",
                measured=f"{stall:.0f} ms",
                is_reached=stall <= STALL_AIM_MS,
            ),
            Aim(
                measure="memory above idle under hostile requests",
                aim=f"≤ {GROWTH_AIM_MIB:g} MiB",
                measured=f"{growth:.0f} MiB",
                is_reached=growth <= GROWTH_AIM_MIB,
            ),
        ]


Attack = Callable[[], Awaitable[dict[str, int]]]
"""Carries it out and returns the statuses of the replies."""


async def hostile_load(
    target: Target, watched: Watched, *, scale: float = 1.0, on_progress: Callable[[str], None]
) -> HostileLoad:
    """Attack the gateway whose data plane is `target`, in a namespace with an edit.

    `scale` is the share of each attack's size that is sent.

    Raises:
        BenchError: The gateway is not reached, or does not outlive an attack.
    """
    load_before = os.getloadavg()[0]
    attacks = _attacks(target, scale)
    everyday = target.chat("What is the weather like?")
    await _sent(target, everyday)

    async def together() -> dict[str, int]:
        return _summed(await asyncio.gather(*(attack() for _, attack in attacks)))

    with running_probe(target, watched.pid) as probe:
        await probe.seen()
        await asyncio.sleep(_QUIET_S)
        quiet = await probe.seen()
        costs = []
        for name, attack in [*attacks, ("all of them at once", together)]:
            on_progress(name)
            costs.append(await _cost(name, attack, probe, quiet.peak_bytes))
    if "200" not in await _sent(target, everyday):
        raise BenchError("the gateway does not answer as before after the attacks")
    return HostileLoad(
        quiet_stall_ms=quiet.longest_stall_ms,
        load_before=load_before,
        load_after=os.getloadavg()[0],
        idle_mib=quiet.peak_bytes / _MEBIBYTE,
        costs=costs,
    )


class Probe:
    """The probe's process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Speak with `process`, which runs stall_probe.py."""
        self._process = process

    async def seen(self) -> Seen:
        """What it has seen since the call before.

        Raises:
            BenchError: The gateway answers it no more.
        """
        line = await asyncio.to_thread(self._next_line)
        if not line:
            raise BenchError("the gateway does not answer /health/live any more")
        return msgspec.json.decode(line, type=Seen)

    def _next_line(self) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return self._process.stdout.readline()


@contextmanager
def running_probe(target: Target, pid: int) -> Iterator[Probe]:
    """A probe of the gateway behind `target`, whose process has the id `pid`."""
    address = urlsplit(target.url)
    module = "serac_gateway.cli.bench.stall_probe"
    command = [sys.executable, "-m", module, address.hostname or "", str(address.port or 80), str(pid)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield Probe(process)
        finally:
            process.kill()


async def _cost(name: str, attack: Attack, probe: Probe, idle_bytes: int) -> Cost:
    await probe.seen()
    begun_s = time.perf_counter()
    statuses = await attack()
    took_s = time.perf_counter() - begun_s
    seen = await probe.seen()
    await asyncio.sleep(_SETTLING_S)
    return Cost(
        name=name,
        statuses=statuses,
        took_s=took_s,
        longest_stall_ms=seen.longest_stall_ms,
        growth_mib=max(0, seen.peak_bytes - idle_bytes) / _MEBIBYTE,
    )


def _attacks(target: Target, scale: float) -> list[tuple[str, Attack]]:
    chat = f"{urlsplit(target.url).path}/chat/completions"
    control = "/serac/v1"
    million, deep = int(_MB * scale), int(100_000 * scale)
    turn = b'{"role":"user","content":"ok"},'
    turns = turn * (16 * million // len(turn))
    bodies = [
        ("16 MB of empty lists where nobody reads", chat, b'"x":[' + b"[]," * (16 * million // 3) + b"[]]"),
        ("16 MB of turns that say ok", chat, b'"messages":[' + turns + b"{}]"),
        ("a million numbers", chat, b'"messages":[' + b"1," * million + b"1]"),
        ("a million members", chat, b",".join(b'"%x":1' % number for number in range(million))),
        ("100,000 lists in one another", chat, b'"messages":' + b"[" * deep + b"]" * deep),
        ("a number of a million digits", chat, b'"seed":' + b"9" * million + b',"messages":[]'),
        ("1,900 line breaks in a question", chat, _message("Who?" + "\\n" * 1_900 + "Who?")),
        ("4 MB of hostile text in a question", chat, _message("a-" * million + "x@" * million)),
        ("9 MB for /scope", f"{control}/scope", b'"queries":[' + turns[: len(turns) // 2] + b"1]"),
        ("a report with hostile text", f"{control}/feedback", b'"query":"' + b"a-" * 1_000 + b'"'),
    ]  # fmt: skip

    def posting(path: str, members: bytes) -> Attack:
        async def attack() -> dict[str, int]:
            return await _sent(target, _post(target, path, b'{"model":"m",' + members + b"}"))

        return attack

    async def bomb() -> dict[str, int]:
        body = await asyncio.to_thread(gzip.compress, b"0" * (300 * million), 1)
        return await _sent(target, _post(target, chat, body, b"content-encoding: gzip\r\n"))

    async def unfinished() -> dict[str, int]:
        return await _begun(target, _UNFINISHED, _head(target, chat, 120 * million), 60 * million)

    async def half_heads() -> dict[str, int]:
        count = max(1, int(_HALF_HEADS * scale))
        return await _begun(target, count, b"POST /v1/chat HTTP/1.1\r\nx: ", 60_000)

    return [
        *((name, posting(path, members)) for name, path, members in bodies),
        ("300 MB of zeros, compressed", bomb),
        (f"{_UNFINISHED} bodies of which 60 MB have come", unfinished),
        (f"{_HALF_HEADS} heads of which 60 KB have come", half_heads),
    ]


def _message(content: str) -> bytes:
    return b'"messages":[{"role":"user","content":"' + content.encode() + b'"}]'


def _head(target: Target, path: str, length: int, more: bytes = b"") -> bytes:
    headers = {"host": urlsplit(target.url).netloc, "content-type": "application/json", **target.headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
    return b"POST %b HTTP/1.1\r\n%b%bcontent-length: %d\r\n\r\n" % (path.encode(), lines, more, length)


def _post(target: Target, path: str, body: bytes, more: bytes = b"") -> bytes:
    return _head(target, path, len(body), more) + body


async def _sent(target: Target, request: bytes) -> dict[str, int]:
    connection = await Connection.open(target.url)
    try:
        return {str((await connection.ask(request, timeout_s=_TIMEOUT_S)).status): 1}
    except BenchError:
        return {"none": 1}
    finally:
        connection.close()


async def _begun(target: Target, count: int, head: bytes, size: int) -> dict[str, int]:
    """The statuses of `count` requests of which `size` bytes are sent after `head`, and no more."""
    address = urlsplit(target.url)

    async def begin() -> dict[str, int]:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        try:
            writer.write(head)
            part = b"x" * max(1, min(size, 262_144))
            for _ in range(size // len(part)):
                writer.write(part)
                await writer.drain()
            async with asyncio.timeout(_SETTLING_S):
                return {(await reader.readline())[9:12].decode("latin-1") or "none": 1}
        except (TimeoutError, ConnectionError):
            return {"none": 1}
        finally:
            writer.transport.abort()

    return _summed(await asyncio.gather(*(begin() for _ in range(count))))


def _summed(several: Sequence[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for statuses in several:
        for status, count in statuses.items():
            total[status] = total.get(status, 0) + count
    return dict(sorted(total.items()))
