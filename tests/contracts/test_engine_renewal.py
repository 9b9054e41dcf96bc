"""An engine that was started anew, and certificates that are renewed."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import pytest

from serac_gateway.config.model import EngineConfig, GatewayConfig, OidcConfig
from serac_gateway.data_plane.engine import NeedsDecision
from serac_gateway.data_plane.engine_access import engine_tls, load_own_certificate, parse_engine_address
from serac_gateway.domain.edits import EditDraft, first_version
from serac_gateway.errors import ConfigError
from serac_gateway.server.engines import link as links
from serac_gateway.server.engines.messages import section_digests
from serac_gateway.testing import WordEncoder, stored_edit
from tests.contracts.served_engines import engine_config
from tests.contracts.test_shared_engine import made
from tests.contracts.test_store_tls import Certificates
from tests.http.wire import eventually


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


async def test_a_renewal_that_is_half_written_leaves_the_old_certificate_in_use(
    tmp_path: Path, certificates: Certificates
) -> None:
    (cert_file, key_file), renewed = certificates.of("server"), tmp_path / "renewed.pem"
    renewed.write_bytes(Path(cert_file).read_bytes())
    config = EngineConfig(ca_file=str(certificates.authority), cert_file=str(renewed), key_file=key_file)
    serves, calls = engine_tls(config, serves=True), engine_tls(config, serves=False)
    renewed.write_bytes(Path(certificates.of("gateway")[0]).read_bytes())  # its key is not there yet
    for context in (serves, calls):
        with pytest.raises(ConfigError, match="cannot be used"):
            load_own_certificate(context, config)

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0, ssl=serves) as server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("localhost", port, ssl=calls)
        assert await asyncio.wait_for(reader.read(), 5) == b"hello"
        assert (("commonName", "server"),) in writer.get_extra_info("peercert")["subject"]
        writer.close()


def test_it_is_compared_whose_tokens_both_sides_take() -> None:
    oidc = OidcConfig(issuer="https://login.example", audience=("serac",))
    own, other = section_digests(GatewayConfig()), section_digests(GatewayConfig(oidc=oidc))
    assert {name for name in own if own[name] != other[name]} == {"oidc"}


async def test_who_reads_a_reply_of_an_engine_that_was_started_anew_finds_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the gateway pauses between two attempts to connect: what was written is decided on."""
    monkeypatch.setattr(links, "_FIRST_PAUSE_S", 60.0)
    async with AsyncExitStack() as stack, AsyncExitStack() as first:
        served = await made(stack, engine_config(tmp_path))
        await first.enter_async_context(served.server.serving())
        link = await stack.enter_async_context(served.server.linked(longest_pause_s=60.0))
        await first.aclose()
        await eventually(lambda: link.problem is not None)
        await stack.enter_async_context(served.server.serving())
        edit = first_version(EditDraft(prompt="Who?", target_new="Nobody."), namespace="new")
        await served.active_edits.apply("new", [stored_edit(edit, WordEncoder())])
        assert link.namespaces.needs_decision("new") is NeedsDecision.NONE  # as it was last
        path = parse_engine_address(served.server.config.engine.url or "", key="engine.url").path or ""
        async with (
            aiohttp.ClientSession("http://engine", connector=aiohttp.UnixConnector(path)) as session,
            session.put("/serac/v1/edits/one") as written,
        ):
            headers = [(name.lower().encode(), value.encode()) for name, value in written.headers.items()]
        await link.in_step_with(headers)
        assert link.namespaces.needs_decision("new") is NeedsDecision.SOME
