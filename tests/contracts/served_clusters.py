"""Several redis-servers that work together: a cluster, and a primary with replicas under Sentinels."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import redis

from tests.contracts.served_stores import RedisServer

_SLOTS = 16_384


def until(holds: Callable[[], bool], what: object, timeout_s: float = 30) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(redis.exceptions.RedisError):
            if holds():
                return
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


class ClusterServers:
    """Three primaries in cluster mode, each with a third of the slots."""

    def __init__(self, folder: Path) -> None:
        self.servers = []
        for number in range(3):
            own = folder / str(number)
            own.mkdir()
            arguments = ("--cluster-enabled", "yes", "--cluster-port", str(_free_port()))
            self.servers.append(RedisServer(own, arguments=(*arguments, "--cluster-node-timeout", "2000")))
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def start(self) -> None:
        for server in self.servers:
            server.start()
        clients = [redis.Redis(port=server.port) for server in self.servers]
        for number, client in enumerate(clients):
            first, last = _SLOTS * number // 3, _SLOTS * (number + 1) // 3 - 1
            client.execute_command("CLUSTER ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER SET-CONFIG-EPOCH", number + 1)
        for server, bus in ((server, server.option("--cluster-port")) for server in self.servers[1:]):
            clients[0].execute_command("CLUSTER MEET", "127.0.0.1", server.port, bus)
        until(lambda: all(self._is_whole(client) for client in clients), "the cluster does not form")
        for client in clients:
            client.close()

    def flush(self) -> None:
        for server in self.servers:
            with redis.Redis(port=server.port) as client:
                client.flushall()

    def kill(self) -> None:
        for server in self.servers:
            server.kill()

    def _is_whole(self, client: redis.Redis) -> bool:
        info = client.execute_command("CLUSTER INFO")
        fields = info if isinstance(info, dict) else dict(line.split(":") for line in info.decode().split())
        return fields["cluster_state"] == "ok" and int(fields["cluster_known_nodes"]) == 3


class SentinelServers:
    """A primary and a replica under three Sentinels, which agree on a failover after a second."""

    SERVICE = "edits"

    def __init__(self, folder: Path) -> None:
        self.servers = []
        for number in range(2):
            own = folder / f"server{number}"
            own.mkdir()
            self.servers.append(RedisServer(own))
        self._folder = folder
        self._sentinels: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        return (
            "redis+sentinel://"
            + ",".join(f"127.0.0.1:{port}" for port in self._sentinels)
            + f"/{self.SERVICE}/0"
        )

    def start(self) -> None:
        primary, replica = self.servers
        primary.start()
        replica.start()
        with redis.Redis(port=replica.port) as client:
            client.replicaof("127.0.0.1", primary.port)
            until(lambda: client.info("replication")["master_link_status"] == "up", "no replica")
        for number in range(3):
            self._start_sentinel(number, primary.port)
        until(self._sentinels_know_each_other, "the Sentinels do not meet")

    def primary_port(self) -> int:
        """Where the Sentinels say that the primary is."""
        with redis.Redis(port=next(iter(self._sentinels))) as client:
            port: int = client.sentinel_master(self.SERVICE)["port"]
            return port

    def server(self, port: int) -> RedisServer:
        return next(server for server in self.servers if server.port == port)

    def kill(self) -> None:
        for process in self._sentinels.values():
            process.kill()
            process.wait()
        for server in self.servers:
            server.kill()

    def _start_sentinel(self, number: int, primary_port: int) -> None:
        port, file = _free_port(), self._folder / f"sentinel{number}.conf"
        file.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {self._folder}\n"
            f"sentinel monitor {self.SERVICE} 127.0.0.1 {primary_port} 2\n"
            f"sentinel down-after-milliseconds {self.SERVICE} 1000\n"
            f"sentinel failover-timeout {self.SERVICE} 5000\n"
        )
        with (self._folder / f"sentinel{number}.log").open("ab") as log_file:
            self._sentinels[port] = subprocess.Popen(
                [self.servers[0].binary, str(file), "--sentinel"], stdout=log_file, stderr=subprocess.STDOUT
            )

    def _sentinels_know_each_other(self) -> bool:
        for port in self._sentinels:
            with redis.Redis(port=port) as client:
                state = client.sentinel_master(self.SERVICE)
                if state["num-other-sentinels"] != 2 or state["num-slaves"] != 1:
                    return False
        return True
