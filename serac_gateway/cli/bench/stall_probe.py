"""Asks a gateway for /health/live all the while, in a process of its own: its longest wait is a stall.

In the process that sends the load it would wait for its own work too.

    python -m serac_gateway.cli.bench.stall_probe HOST PORT PID

For each line on stdin it prints, as JSON, the longest wait and the most memory of the process PID and its
children since the line before. It ends with its stdin, or with code 1 when the gateway does not answer.
"""

from __future__ import annotations

import http.client
import select
import sys
import time

import msgspec

from serac_gateway.cli.bench.processes import Watched

_INTERVAL_S = 0.005
_MEMORY_INTERVAL_S = 0.02
_TIMEOUT_S = 600.0


class Seen(msgspec.Struct, kw_only=True):
    """What was seen since the last line."""

    longest_stall_ms: float = 0.0
    peak_bytes: int = 0


def watch(host: str, port: int, pid: int) -> None:
    """Probe until stdin ends.

    Raises:
        OSError: The gateway does not answer.
    """
    watched = Watched(pid)
    connection = http.client.HTTPConnection(host, port, timeout=_TIMEOUT_S)
    seen, memory_read_s = Seen(), 0.0
    while True:
        begun_s = time.perf_counter()
        connection.request("GET", "/health/live")
        connection.getresponse().read()
        now_s = time.perf_counter()
        seen.longest_stall_ms = max(seen.longest_stall_ms, (now_s - begun_s) * 1_000)
        if now_s - memory_read_s > _MEMORY_INTERVAL_S:
            seen.peak_bytes = max(seen.peak_bytes, watched.usage().resident_bytes)
            memory_read_s = now_s
        if not select.select([sys.stdin], [], [], _INTERVAL_S)[0]:
            continue
        if not sys.stdin.readline():
            return
        print(msgspec.json.encode(seen).decode(), flush=True)
        seen = Seen()


if __name__ == "__main__":
    watch(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
