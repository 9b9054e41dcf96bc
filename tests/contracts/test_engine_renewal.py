"""What stays in use while certificates are renewed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from serac_gateway.config.model import EngineConfig
from serac_gateway.data_plane.engine_access import engine_tls, load_own_certificate
from serac_gateway.errors import ConfigError
from tests.contracts.test_store_tls import Certificates


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
