"""The load and the mock of `serac bench`: that they count and time what they say."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator

import pytest

from serac_gateway.cli.bench import workload as material
from serac_gateway.cli.bench.at_once import at_once
from serac_gateway.cli.bench.contenders import Contender, Peer
from serac_gateway.cli.bench.latency import added_latency, first_token, streaming, throughput
from serac_gateway.cli.bench.load import Latencies, in_turns, open_loop, saturated
from serac_gateway.cli.bench.memory import idle_streams, memory, slope
from serac_gateway.cli.bench.overload import overload
from serac_gateway.cli.bench.processes import MockProcess, Watched, running_mock
from serac_gateway.cli.bench.wire import BenchError, Connection, Target
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
    # On a busy machine two events may arrive as one; all of them cannot.
    assert (reply.arrivals_s[4] - reply.arrivals_s[0]) * 1_000 > 2 * 4
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
        measured = await open_loop(
            slow.target, lambda n: everyday(slow.target, n), per_second=100, seconds=0.5, seed=3
        )
    assert measured.by_status == {"200": 50}
    assert measured.latencies is not None
    assert 200 <= measured.latencies.median_ms < 400  # one client in a closed loop would take ten seconds


async def test_lanes_compare_with_the_first_contender(mock: MockProcess) -> None:
    watched = Watched(os.getpid())
    pair = [Contender(name=name, target=mock.target, watched=watched) for name in ("mock", "itself")]
    added = await added_latency(pair, everyday, count=30)
    assert [row.name for row in added] == ["mock", "itself"]
    assert (added[0].added_median_ms, added[0].added_p99_ms) == (0.0, 0.0)
    rates = await throughput(pair, everyday, connections=2, seconds=0.2)
    assert all(rate.per_cpu_second and rate.saturated.per_second > 100 for rate in rates)
    streams = await streaming(pair, count=3)
    assert all(rate.steady.by_status.keys() == {"200"} for rate in rates)
    assert all(stream.gap_median_ms > 2 for stream in streams)
    assert streams[1].added_way_median_ms is not None
    assert abs(streams[1].added_way_median_ms) < 2
    used = await memory(pair[0], everyday, requests=40, connections=2, steps=4, settling_s=0.01)
    assert len(used.mib) == 4
    assert used.slope.samples == 3
    assert used.mib[0] > 10


async def test_a_stream_of_the_mock_takes_the_time_requested_and_stamps_its_events(
    mock: MockProcess,
) -> None:
    contender = Contender(name="mock", target=mock.target)
    (measured,) = await first_token(
        [contender], lambda target, n: target.chat("Tell.", stream=True, events=2, delay_ms=30), count=3
    )
    assert 30 <= measured.first_byte.median_ms < 300
    connection = await Connection.open(mock.target.url)
    reply = await connection.ask(mock.target.chat("Tell.", stream=True, events=3, stamped=True))
    connection.close()
    assert (len(reply.stamps_s), len(reply.arrivals_s)) == (3, 4)
    assert all(0 <= came - sent < 1 for sent, came in zip(reply.stamps_s, reply.arrivals_s, strict=False))


async def test_an_overload_is_offered_beside_other_traffic_and_every_request_is_accounted_for() -> None:
    with running_mock(options=("--delay-ms", "100")) as slow:
        measured = await overload(slow.target, slow.target, everyday, edits=5, seconds=0.4)
    assert measured.answers_per_second < 20
    assert measured.in_scope.by_status == {"200": int(3 * measured.answers_per_second * 0.8)}
    assert [load.name for load in measured.beside] == ["no edits", "out of scope"]
    assert measured.beside[0].during.by_status == {"200": 40}


async def test_a_gateway_names_the_route_of_its_replies() -> None:
    async def routing(scope: dict, receive: object, send: object) -> None:
        assert callable(send)
        headers = [(b"content-length", b"0"), (b"x-serac-route", b"bypass")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b""})

    with serving(routing) as url:
        target = Target(url=f"{url}/v1")
        measured = await open_loop(target, lambda n: everyday(target, n), per_second=100, seconds=0.1)
    assert measured.by_route == {"bypass": 10}


async def test_what_idle_streams_take_is_divided_among_them(mock: MockProcess) -> None:
    here = Contender(name="load", target=mock.target, watched=Watched(os.getpid()))
    measured = await idle_streams(here, everyday, streams=20)
    assert measured.streams == 20
    assert measured.mib_before > 10
    assert 0 <= measured.kib_per_stream < 1_000


def test_memory_that_grows_is_distinguished_from_memory_that_jumps() -> None:
    growing = slope([1_000_000 + 4_096 * n + 2_000 * (n % 3) for n in range(30)], 10_000)
    assert growing.low > 0
    assert growing.bytes_per_1000_requests == pytest.approx(409.6, rel=0.1)
    noisy = slope([1_000_000 + 4_096 * (n * 7 % 5) for n in range(30)], 10_000)
    assert noisy.is_indistinguishable_from_zero
    once = slope([1_000_000] * 28 + [2_000_000] * 2, 10_000)
    assert (once.bytes_per_1000_requests, once.is_indistinguishable_from_zero) == (0.0, True)


def test_a_peer_that_cannot_be_asked_is_named() -> None:
    with pytest.raises(BenchError, match="'localhost:4000' cannot be asked"):
        Peer(url="localhost:4000").contender()


def test_latencies_are_percentiles() -> None:
    latencies = Latencies.of([float(n) for n in range(1, 102)])
    assert (latencies.count, latencies.median_ms, latencies.p95_ms, latencies.p99_ms) == (
        101,
        51.0,
        96.0,
        100.0,
    )


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


async def test_a_burst_counts_who_was_answered_and_how_much_later_the_last_was(mock: MockProcess) -> None:
    burst = await at_once(
        mock.target, lambda number: mock.target.chat(f"{number}", stream=True), clients=4, rounds=2
    )
    assert (burst.by_status, burst.by_route, burst.whole.count) == ({"200": 8}, {}, 8)
    assert burst.last_by_first >= 1
    assert burst.first_byte.median_ms <= burst.whole.median_ms


async def test_a_burst_that_nobody_answers_ends_the_measuring() -> None:
    with serving(refusing) as url:
        target = Target(url=f"{url}/v1")
        with pytest.raises(BenchError, match="answered none of 3 requests at once"):
            await at_once(target, lambda n: everyday(target, n), clients=3, rounds=1)
