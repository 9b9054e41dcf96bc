"""Stores spoken to with TLS, with certificates of the test's own."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from serac_gateway.config.model import GatewayConfig, StoreConfig
from serac_gateway.errors import ConfigError
from serac_gateway.stores.open import open_configured_store
from serac_gateway.stores.records import Action
from tests.contracts.edit_store_calls import NS, new
from tests.contracts.following_replicas import following, put, within
from tests.contracts.served_stores import RedisServer


class Certificates:
    """Made with the openssl command: an authority, and what it signed for the server and for the gateway."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("no openssl on PATH (Debian: apt-get install openssl)")
        self._folder = folder
        self.authority, self.other_authority = folder / "ca.pem", folder / "other-ca.pem"
        for name in ("ca", "other-ca"):
            self._openssl(
                *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
                *("-days", "2", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"),
            )
        for name in ("server", "gateway"):
            self._openssl(
                *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
                *("-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr"),
            )
            (folder / "names.txt").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
            self._openssl(
                *("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2"),
                *("-CAcreateserial", "-extfile", "names.txt", "-out", f"{name}.pem"),
            )

    def of(self, name: str) -> tuple[str, str]:
        """Certificate and key."""
        return str(self._folder / f"{name}.pem"), str(self._folder / f"{name}.key")

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self._folder, check=True, capture_output=True)


class TlsServer(RedisServer):
    """A redis-server that listens with TLS only, and asks its clients for a certificate."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        certificate, key = certificates.of("server")
        authority = str(certificates.authority)
        super().__init__(
            folder,
            arguments=(
                "--tls-cert-file",
                certificate,
                "--tls-key-file",
                key,
                "--tls-ca-cert-file",
                authority,
            ),
        )
        self._command += ["--port", "0", "--tls-port", str(self.port)]
        own, own_key = certificates.of("gateway")
        self._tls = {"ssl": True, "ssl_ca_certs": authority, "ssl_certfile": own, "ssl_keyfile": own_key}

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, retry=None, **self._tls)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def server(tmp_path: Path, certificates: Certificates) -> Iterator[TlsServer]:
    tls_server = TlsServer(tmp_path, certificates)
    tls_server.start()
    yield tls_server
    tls_server.kill()


def config(server: TlsServer, certificates: Certificates, **store: str) -> GatewayConfig:
    certificate, key = certificates.of("gateway")
    files = {"ca_file": str(certificates.authority), "cert_file": certificate, "key_file": key}
    url = f"rediss://127.0.0.1:{server.port}/0"
    return GatewayConfig(store=StoreConfig(**{"url": url, **files, **store}))


async def test_edits_are_written_and_followed_over_tls(server: TlsServer, certificates: Certificates) -> None:
    store = await open_configured_store(config(server, certificates))
    async with following(store) as replica:
        await put(store, Action.ADD, new("a"))
        await within(1, lambda: replica.target("a") == "Ann")
    await store.close()


async def test_a_server_that_the_named_authority_does_not_vouch_for_is_refused(
    server: TlsServer, certificates: Certificates
) -> None:
    other = config(server, certificates, ca_file=str(certificates.other_authority))
    with pytest.raises(ConfigError, match=r"(?i)certificate.verify.failed"):
        await open_configured_store(other)


async def test_a_server_of_another_name_is_refused(server: TlsServer, certificates: Certificates) -> None:
    by_other_name = config(server, certificates, url=f"rediss://127.0.0.2:{server.port}/0")
    with pytest.raises(ConfigError, match="cannot reach"):
        await open_configured_store(by_other_name)


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ({"url": "redis://127.0.0.1:1/0"}, "is for TLS, which the store's URL does not use"),
        ({"ca_file": "/no/such.pem"}, "'/no/such.pem' is no file"),
    ],
)
async def test_half_a_tls_setting_is_refused_by_name(
    server: TlsServer, certificates: Certificates, store: dict[str, str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        await open_configured_store(config(server, certificates, **store))


async def test_a_key_without_its_certificate_is_refused(certificates: Certificates) -> None:
    _, key = certificates.of("gateway")
    store = StoreConfig(url="rediss://127.0.0.1:1/0", key_file=key)
    with pytest.raises(ConfigError, match=r"needs store\.cert_file"):
        await open_configured_store(GatewayConfig(store=store))


async def test_edits_stored_over_tls_are_there_for_the_next_start(
    server: TlsServer, certificates: Certificates
) -> None:
    store = await open_configured_store(config(server, certificates))
    await put(store, Action.ADD, new("a"))
    await store.close()
    again = await open_configured_store(config(server, certificates))
    assert (await again.get(NS, "a")).target_new == "Ann"
    await again.close()
