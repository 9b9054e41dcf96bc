"""`serac bench replicas`: several gateways' memories on one store, beside a steady rate of writes.

Each follower is a process, as each gateway is. The writer commits versions with random vectors straight to
the store: an encoder would limit the rate long before.
"""

from __future__ import annotations

import asyncio
import bisect
import random
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from serac_gateway.cli.bench import workload
from serac_gateway.cli.bench.follower_process import NAMESPACE, FollowerReport, RandomEncoder, digest
from serac_gateway.cli.bench.load import Latencies
from serac_gateway.cli.bench.wire import BenchError
from serac_gateway.domain.edits import (
    ACTIVE_STATES,
    Edit,
    EditDraft,
    EditPatch,
    first_version,
    forms,
    patched,
)
from serac_gateway.domain.edits import retired as retired_version
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.opening import index_maker
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.records import Action, Change, Commit, FormVectors, log_id_order
from serac_gateway.stores.redis.store import RedisStore

_WIDTH = 384
_START_TIMEOUT_S = 120.0
_REPORT_TIMEOUT_S = 180.0
_AT_ONCE = 24
"""Commits under way: fewer than the store has connections."""
_FEWEST_LIVE = 50
"""Before that many are in force, edits are only added."""
_CHANGED, _RETIRED = 0.25, 0.15
"""Shares of the writes; the rest are new edits."""
_REPORT_BYTES = 64 * 2**20


class ReplicasResult(msgspec.Struct, frozen=True, kw_only=True):
    """Followers beside a steady rate of writes."""

    replicas: int
    per_commit: int
    """Writes that are committed together."""
    seconds: float
    writes: int
    offered_per_second: float
    written_per_second: float
    """Acknowledged, with fsync always."""
    commit: Latencies
    """From when a write was due to its acknowledgement."""
    lag: Latencies
    """From an acknowledgement to its effect, of every write in every replica; 0: in force before."""
    longest_lag_ms: float
    quiet_search: Latencies
    busy_search: Latencies
    """Of all replicas together, before and during the writes."""
    replica_cpu_ms: float
    """CPU time of a replica for each write, its searches included, in milliseconds; the mean of all."""
    writer_cpu_ms: float
    """The same of the process that writes, without the store's."""
    edits: int
    """In force at the end."""
    all_equal: bool
    """Every replica has the edits and finds the neighbours of a gateway that reads the store anew."""


async def replicated(
    folder: Path, *, replicas: int, per_second: float, per_commit: int, seconds: float, quiet_s: float
) -> ReplicasResult:
    """Measure `replicas` followers of an embedded store in `folder`.

    Args:
        folder: Empty; the store's data.
        replicas: Processes, at least 1.
        per_second: Writes that are due in a second.
        per_commit: How many of them make a commit together, 1 to 20.
        seconds: How long writes are due.
        quiet_s: How long the replicas search before.

    Raises:
        BenchError: A replica does not start or does not report.
    """
    encoder = RandomEncoder(_WIDTH)
    async with AsyncExitStack() as stack:
        store = await RedisStore.open_embedded(folder)
        stack.push_async_callback(store.close)
        writer = _Writer(store, encoder, per_commit=per_commit)
        await writer.write()  # so that the namespace is known to all; not measured
        writer.acknowledged.clear()
        writer.latencies_ms.clear()
        processes = [await _started(stack, folder) for _ in range(replicas)]
        await asyncio.sleep(quiet_s)
        await _order(processes, "busy")
        begun_s, cpu_before_s = time.monotonic(), time.process_time()
        await _offer(writer, per_second=per_second, seconds=seconds)
        took_s, cpu_s = time.monotonic() - begun_s, time.process_time() - cpu_before_s
        await _order(processes, f"end {await store.log_end(NAMESPACE)}")
        reports = await asyncio.gather(*(_report(process) for process in processes))
        fresh = ActiveEdits(store=store, encoder=encoder, make_index=index_maker(_WIDTH))
        await fresh.load()
        expected = (fresh.count(NAMESPACE), digest(fresh, encoder, NAMESPACE))
    lags_ms = [lag for report in reports for lag in lags(writer.acknowledged, report.applied)]
    return ReplicasResult(
        replicas=replicas,
        per_commit=per_commit,
        seconds=took_s,
        writes=len(writer.latencies_ms),
        offered_per_second=per_second,
        written_per_second=len(writer.latencies_ms) / took_s,
        commit=Latencies.of(writer.latencies_ms),
        lag=Latencies.of(lags_ms),
        longest_lag_ms=max(lags_ms),
        quiet_search=Latencies.of([each for report in reports for each in report.quiet_ms]),
        busy_search=Latencies.of([each for report in reports for each in report.busy_ms]),
        replica_cpu_ms=1_000 * sum(report.cpu_s for report in reports) / replicas / len(writer.latencies_ms),
        writer_cpu_ms=1_000 * cpu_s / len(writer.latencies_ms),
        edits=expected[0],
        all_equal=all(report.caught_up and (report.edits, report.digest) == expected for report in reports),
    )


def lags(acknowledged: Sequence[tuple[str, float]], applied: Sequence[tuple[str, float]]) -> list[float]:
    """Milliseconds from each acknowledgement until its log id was in force, at least 0.

    Both are log ids with times in seconds; `applied` is in order. What was never in force counts as infinite.
    """
    places = [log_id_order(log_id) for log_id, _ in applied]
    result = []
    for log_id, at_s in acknowledged:
        place = bisect.bisect_left(places, log_id_order(log_id))
        in_force_s = applied[place][1] if place < len(applied) else float("inf")
        result.append(max(0.0, in_force_s - at_s) * 1_000)
    return result


class _Writer:
    """Adds, changes and retires edits, `per_commit` in a commit. No edit is in two commits at once."""

    def __init__(self, store: EditStore, encoder: RandomEncoder, *, per_commit: int) -> None:
        self.per_commit = per_commit
        self._store = store
        self._encoder = encoder
        self._rng = random.Random(7)
        self._drafts = iter(workload.edits(130_000))
        self._live: list[Edit] = []
        self.acknowledged: list[tuple[str, float]] = []
        """Log ids, with the time of the acknowledgement."""
        self.latencies_ms: list[float] = []

    async def write(self, due_s: float | None = None) -> None:
        """Make a commit; `due_s` is when it should have begun."""
        begun_s = time.monotonic() if due_s is None else due_s
        changes = tuple(self._next() for _ in range(self.per_commit))
        receipt = await self._store.commit(NAMESPACE, Commit(changes=changes))
        at_s = time.monotonic()
        self._live += [change.edit for change in changes if change.edit.state in ACTIVE_STATES]
        for committed in receipt.changes:
            self.latencies_ms.append((at_s - begun_s) * 1_000)
            self.acknowledged.append((committed.log_id, at_s))

    def _next(self) -> Change:
        action, edit = self._version()
        vectors = None
        if edit.state in ACTIVE_STATES:
            vectors_FD = self._encoder.encode(forms(edit))
            vectors = FormVectors(fingerprint=self._encoder.fingerprint, vectors_FD=vectors_FD)
        return Change(action=action, edit=edit, vectors=vectors)

    def _version(self) -> tuple[Action, Edit]:
        draw = self._rng.random()
        if draw >= _CHANGED + _RETIRED or len(self._live) < _FEWEST_LIVE:
            draft = msgspec.convert(next(self._drafts), EditDraft)
            return Action.ADD, first_version(draft, namespace=NAMESPACE)
        place = self._rng.randrange(len(self._live))
        self._live[place], self._live[-1] = self._live[-1], self._live[place]
        edit = self._live.pop()
        if draw < _CHANGED:
            return Action.UPDATE, patched(edit, EditPatch(target_new=f"{self._rng.random():.6f}"))
        return Action.RETIRE, retired_version(edit)


async def _offer(writer: _Writer, *, per_second: float, seconds: float) -> None:
    """Begin a commit whenever one is due; those that find no free place wait, and the time counts."""
    commits_a_second = per_second / writer.per_commit
    count, places = round(commits_a_second * seconds), asyncio.Semaphore(_AT_ONCE)
    begun_s = time.monotonic()

    async def write(due_s: float) -> None:
        try:
            await writer.write(due_s)
        finally:
            places.release()

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            due_s = begun_s + number / commits_a_second
            if (early_s := due_s - time.monotonic()) > 0:
                await asyncio.sleep(early_s)
            elif time.monotonic() - begun_s > seconds:
                return  # the rate is above what can be written: what is due later is not written
            await places.acquire()
            group.create_task(write(due_s))


async def _started(stack: AsyncExitStack, folder: Path) -> Process:
    command = [sys.executable, "-m", "serac_gateway.cli.bench.follower_process"]
    process = await asyncio.create_subprocess_exec(
        *command,
        "--folder",
        str(folder),
        "--width",
        str(_WIDTH),
        stdin=PIPE,
        stdout=PIPE,
        limit=_REPORT_BYTES,
    )
    stack.push_async_callback(_end, process)
    if await _line(process, _START_TIMEOUT_S) != b"ready\n":
        raise BenchError("a replica does not start; its last words are above")
    return process


async def _order(processes: Sequence[Process], line: str) -> None:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(f"{line}\n".encode())
        await process.stdin.drain()


async def _report(process: Process) -> FollowerReport:
    line = await _line(process, _REPORT_TIMEOUT_S)
    if not line:
        raise BenchError("a replica ended without a report; its last words are above")
    return msgspec.json.decode(line, type=FollowerReport)


async def _line(process: Process, timeout_s: float) -> bytes:
    assert process.stdout is not None
    try:
        return await asyncio.wait_for(process.stdout.readline(), timeout_s)
    except TimeoutError as exc:
        raise BenchError(f"a replica said nothing for {timeout_s:g} s") from exc


async def _end(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.wait()
