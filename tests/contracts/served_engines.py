"""An engine that listens for gateways, and gateways' links to it, in the test's own event loop."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, nullcontext
from pathlib import Path
from typing import Any

import msgspec
from litestar.types import Receive, Scope, Send

from serac_gateway import __version__
from serac_gateway.config.model import AccessConfig, EngineConfig, GatewayConfig, RoutingConfig, ServerConfig
from serac_gateway.data_plane.engine import Engine
from serac_gateway.data_plane.engine_access import EngineHello, engine_tls, parse_engine_address
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.server.engines.engine_server import EngineServer, EngineSocket, listening_for_gateways
from serac_gateway.server.engines.link import EngineLink
from serac_gateway.server.engines.messages import protocol, section_digests
from serac_gateway.server.engines.namespaces import NamespaceFeed
from tests.contracts.test_store_tls import Certificates


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return listener.getsockname()[1]


def engine_config(folder: Path, certificates: Certificates | None = None) -> EngineConfig:
    """Of both sides: a Unix socket in `folder`, or with `certificates` TLS."""
    if certificates is None:
        address = f"unix://{folder / 'engine.sock'}"
        return EngineConfig(url=address, listen=address, silence_timeout_s=2)
    address = f"tls://localhost:{free_port()}"
    cert_file, key_file = certificates.of("server")
    return EngineConfig(
        url=address,
        listen=address,
        ca_file=str(certificates.authority),
        cert_file=cert_file,
        key_file=key_file,
        silence_timeout_s=2,
        longest_pause_s=0.2,
    )


class SharedEngineServer:
    """Serves `engine`, which decides with `active_edits`; it can be started anew."""

    def __init__(self, engine: Engine, active_edits: ActiveEdits, config: EngineConfig) -> None:
        self.config = GatewayConfig(
            engine=config,
            routing=RoutingConfig(decision_timeout_s=0.5),
            server=ServerConfig(drain_timeout_s=1),
        )
        self.hello = EngineHello(
            version=__version__,
            protocol=protocol(),
            process="",
            keys_required=False,
            encoder="words-1",
            classifier="threshold-1",
            sections=section_digests(self.config),
        )
        self.reported: list[Any] = []
        self.secret: str | None = None
        self.feed_class = NamespaceFeed
        self._engine = engine
        self._active_edits = active_edits

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[EngineServer]:
        """The engine, until the context is left."""
        feed = self.feed_class(self._active_edits, lambda: ())
        server = EngineServer(
            _relayed,
            feed=feed,
            hello=lambda: self.hello,
            lease=lambda: nullcontext(self._engine),
            on_report=self.reported.append,
            secret=self.secret,
        )
        with closing(EngineSocket(self.config.engine)) as bound:
            async with listening_for_gateways(server, bound, self.config.server, before_end=feed.close):
                yield server

    @asynccontextmanager
    async def linked(
        self, *, connected: bool = True, secret: str | None = None, required: bool = False, **changes: object
    ) -> AsyncIterator[EngineLink]:
        """A gateway's link to it; `changes` are those of its section `engine`."""
        engine = msgspec.structs.replace(self.config.engine, **changes)
        config = msgspec.structs.replace(self.config, engine=engine, access=AccessConfig(required=required))
        address = parse_engine_address(engine.url or "", key="engine.url")
        tls = None if address.path is not None else engine_tls(engine, serves=False)
        link = EngineLink(address, config, tls=tls, secret=secret)
        link.start()
        try:
            if connected:
                await link.wait_until_connected()
            yield link
        finally:
            await link.close()


async def _relayed(scope: Scope, receive: Receive, send: Send) -> None:
    """Stands for the rest of the gateway."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": scope["path"].encode(), "more_body": False})
