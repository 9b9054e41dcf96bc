"""The load and the mock of `serac bench`: that they count and time what they say."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from serac_gateway.bench import material
from serac_gateway.bench.lanes import Contender, added_latency, memory, streaming, throughput
from serac_gateway.bench.loads import Latencies, in_turns, open_loop, saturated
from serac_gateway.bench.processes import MockProcess, Watched, running_mock
from serac_gateway.bench.wire import BenchError, Connection, Target
from serac_gateway.testing import serving


@pytest.fixture(scope="module")
def mock() -> Iterator[MockProcess]:
    with running_mock(options=("--events", "5", "--gap-ms", "4")) as running:
        yield running


def everyday(target: Target, number: int) -> bytes:
    return target.chat(f"Question {number}")


async def refusing(scope: dict, receive: object, send: object) -> None:
    """An application that is always overloaded."""
    assert callable(send)
    await send({"type": "http.response.start", "status": 503, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


async def test_every_event_of_a_stream_has_its_time(mock: MockProcess) -> None:
    connection = await Connection.open(mock.target.url)
    reply = await connection.ask(mock.target.chat("Tell me.", stream=True))
    again = await connection.ask(mock.target.chat("Tell me."))
    connection.close()
    assert (reply.status, len(reply.arrivals_s)) == (200, 6)  # with [DONE]
    gaps_ms = [(b - a) * 1_000 for a, b in zip(reply.arrivals_s, reply.arrivals_s[1:5], strict=False)]
    assert min(gaps_ms) > 2
    assert reply.begun_s < reply.first_byte_s <= reply.arrivals_s[0] < reply.ended_s
    assert (again.status, again.arrivals_s) == (200, [])


async def test_targets_are_asked_in_turns_and_equally_often(mock: MockProcess) -> None:
    first, second = await in_turns([mock.target] * 2, [lambda n: everyday(mock.target, n)] * 2, 20, warm_up=3)
    assert len(first) == len(second) == 20
    assert all(a.ended_s <= b.begun_s for a, b in zip(first, second, strict=True))
    assert all(b.ended_s <= a.begun_s for a, b in zip(first[1:], second[:-1], strict=True))


async def test_a_status_that_is_no_answer_ends_the_measuring() -> None:
    with serving(refusing) as url:
        target = Target(url=f"{url}/v1")
        with pytest.raises(BenchError, match="answered with status 503, not 200"):
            await in_turns([target], [lambda n: everyday(target, n)], 1)
        with pytest.raises(ExceptionGroup) as failure:
            await saturated(target, lambda n: everyday(target, n), connections=2, seconds=0.1)
        assert failure.group_contains(BenchError, match="503")
        shed = await open_loop(target, lambda n: everyday(target, n), per_second=200, seconds=0.1)
    assert shed.by_status == {"503": 20}
    assert (shed.answered_per_second, shed.latencies) == (0.0, None)


async def test_a_target_that_is_not_there_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    with pytest.raises(BenchError, match=r"cannot reach 'http://127.*is it running\?"):
        await Connection.open(url)
    lost = await open_loop(
        Target(url=url), lambda n: everyday(Target(url=url), n), per_second=100, seconds=0.1
    )
    assert lost.by_status == {"none": 10}


async def test_a_reply_that_breaks_off_or_never_ends_is_an_error(mock: MockProcess) -> None:
    async def breaking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        writer.close()

    async with await asyncio.start_server(breaking, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        connection = await Connection.open(url)
        with pytest.raises(BenchError, match="closed before the reply had ended"):
            await connection.ask(everyday(Target(url=url), 0))
        with pytest.raises(BenchError, match="the connection was closed"):
            await connection.ask(everyday(Target(url=url), 0))
    idle = await Connection.open(mock.target.url)
    with pytest.raises(BenchError, match=r"no whole reply came within 0\.1 s"):
        await idle.ask(mock.target.chat("Wait.", stream=True, idle=True), timeout_s=0.1)
    idle.close()


async def test_in_an_open_loop_requests_come_whether_or_not_they_are_answered() -> None:
    with running_mock(options=("--delay-ms", "200")) as slow:
        found = await open_loop(
            slow.target, lambda n: everyday(slow.target, n), per_second=100, seconds=0.5, seed=3
        )
    assert found.by_status == {"200": 50}
    assert found.latencies is not None
    assert 200 <= found.latencies.median_ms < 400  # one client in a closed loop would take ten seconds


async def test_lanes_compare_with_the_first_contender(mock: MockProcess) -> None:
    watched = Watched(os.getpid())
    pair = [Contender(name=name, target=mock.target, watched=watched) for name in ("mock", "itself")]
    added = await added_latency(pair, everyday, count=30)
    assert [row.name for row in added] == ["mock", "itself"]
    assert (added[0].added_median_ms, added[0].added_p99_ms) == (0.0, 0.0)
    rates = await throughput(pair, everyday, connections=2, seconds=0.2)
    assert all(rate.per_cpu_second and rate.saturated.per_second > 100 for rate in rates)
    streams = await streaming(pair, count=3)
    assert all(stream.gap_median_ms > 2 for stream in streams)
    used = await memory(pair[0], everyday, streams=3, requests=40, steps=4)
    assert len(used.after_requests) == 4
    assert used.at_rest > 10


def test_latencies_are_percentiles() -> None:
    found = Latencies.of([float(n) for n in range(1, 102)])
    assert (found.count, found.median_ms, found.p95_ms, found.p99_ms) == (101, 51.0, 96.0, 100.0)


def test_material_is_the_same_every_time_and_no_question_stands_twice() -> None:
    edits = material.edits(3_000)
    assert len({edit["prompt"] for edit in edits}) == len({edit["id"] for edit in edits}) == 3_000
    assert material.edits(3_000) == edits
    many = material.edits(100_000)
    assert len({edit["prompt"] for edit in many}) == len({edit["id"] for edit in many}) == 100_000
    assert many[:3_000] == edits
    assert material.everyday_questions() == material.everyday_questions()
    with pytest.raises(ValueError, match="more than"):
        material.edits(1_000_000)


def test_a_process_that_is_not_there_is_named() -> None:
    with pytest.raises(BenchError, match="there is no process 4194304"):
        Watched(4_194_304)
