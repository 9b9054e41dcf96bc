"""One attempt: signed as others verify it, to a judged address alone, whatever the receiver does."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from standardwebhooks import Webhook, WebhookVerificationError

from serac_gateway.config.model import WebhookConfig
from serac_gateway.control_plane.webhooks.events import Event, proposal_event, trial_event
from serac_gateway.control_plane.webhooks.sending import Attempt, Endpoint, open_endpoints, send
from serac_gateway.control_plane.webhooks.signing import webhook_secrets
from serac_gateway.errors import ConfigError
from serac_gateway.testing import ReceivedRequest, ScriptedConnection, ScriptedUpstream
from tests.webhook_endpoints import LOOPBACK, SECRET, endpoint_at, proposal

OTHER_SECRET = "whsec_" + base64.b64encode(b"o" * 24).decode()


async def take(request: ReceivedRequest, connection: ScriptedConnection) -> None:
    await connection.whole(204, b"")


async def sent(endpoint: Endpoint, event: Event | None = None) -> Attempt:
    event = event or trial_event("audit")
    return await send(endpoint, event.id, event.body)


class TestSignature:
    async def test_the_reference_implementation_verifies_it(self) -> None:
        event = proposal_event("proposal.opened", proposal(), "Ann (key k1)")  # type: ignore[arg-type]
        async with ScriptedUpstream(take) as receiver:
            assert await sent(endpoint_at(receiver.url), event) == Attempt(status=204, problem=None)
        (request,) = receiver.requests
        headers = {name.lower(): value for name, value in request.headers}
        payload = Webhook(SECRET).verify(request.body, headers)
        assert payload["type"] == "proposal.opened"
        assert payload["data"]["namespace"] == "legal"
        assert headers["webhook-id"] == event.id
        assert request.method == "POST"
        assert headers["content-type"] == "application/json"

    async def test_a_changed_body_id_or_time_and_another_secret_are_forged(self) -> None:
        async with ScriptedUpstream(take) as receiver:
            await sent(endpoint_at(receiver.url))
        (request,) = receiver.requests
        headers = {name.lower(): value for name, value in request.headers}
        later = str(int(headers["webhook-timestamp"]) + 1)
        forged = [
            (SECRET, request.body.replace(b"webhook.test", b"webhook.tesT"), headers),
            (SECRET, request.body, headers | {"webhook-id": "evt_other"}),
            (SECRET, request.body, headers | {"webhook-timestamp": later}),
            (OTHER_SECRET, request.body, headers),
        ]
        for secret, body, changed in forged:
            with pytest.raises(WebhookVerificationError):
                Webhook(secret).verify(body, changed)

    async def test_while_secrets_change_a_receiver_needs_to_know_either(self) -> None:
        async with ScriptedUpstream(take) as receiver:
            await sent(endpoint_at(receiver.url, secrets=f"{OTHER_SECRET} {SECRET}"))
        (request,) = receiver.requests
        headers = {name.lower(): value for name, value in request.headers}
        for secret in (SECRET, OTHER_SECRET):
            assert Webhook(secret).verify(request.body, headers)["type"] == "webhook.test"

    @pytest.mark.parametrize(
        "text",
        ["", "  ", "geheim", "whsec_geheim!", "whsec_" + base64.b64encode(b"x" * 23).decode(), SECRET[6:]],
    )
    def test_a_secret_that_is_none_is_refused_and_not_repeated(self, text: str) -> None:
        with pytest.raises(ConfigError) as raised:
            webhook_secrets("audit", {"SERAC_WEBHOOK_SECRET_AUDIT": text})
        assert "SERAC_WEBHOOK_SECRET_AUDIT" in raised.value.message
        assert not text.strip() or text not in raised.value.message


class TestFailures:
    @pytest.mark.parametrize(
        ("status", "words"), [(302, "redirects are not followed"), (410, "no more"), (500, "status 500")]
    )
    async def test_any_status_but_2xx_is_a_failure_and_no_redirect_is_followed(
        self, status: int, words: str
    ) -> None:
        async def refuse(request: ReceivedRequest, connection: ScriptedConnection) -> None:
            await connection.whole(status, b"", ("location", "/elsewhere"))

        async with ScriptedUpstream(refuse) as receiver:
            attempt = await sent(endpoint_at(receiver.url))
        assert attempt.status == status
        assert words in str(attempt.problem)
        assert len(receiver.requests) == 1

    async def test_a_receiver_that_is_down_is_one_line_without_the_path(self) -> None:
        async with ScriptedUpstream(take) as receiver:
            url = receiver.url
        attempt = await sent(endpoint_at(f"{url}/t0ken"))
        assert attempt.status is None
        assert "no connection" in str(attempt.problem)
        assert "t0ken" not in str(attempt.problem)

    async def test_a_slow_one_ends_at_the_time_out(self) -> None:
        async def stall(request: ReceivedRequest, connection: ScriptedConnection) -> None:
            await connection.client_left()

        async with ScriptedUpstream(stall) as receiver:
            attempt = await sent(endpoint_at(receiver.url, timeout_s=0.2))
        assert attempt == Attempt(status=None, problem="no response within 0.2 s")

    async def test_of_an_endless_reply_only_the_status_is_read(self) -> None:
        async def flood(request: ReceivedRequest, connection: ScriptedConnection) -> None:
            await connection.head(200, ("transfer-encoding", "chunked"))
            while True:
                await connection.chunk(b"x" * 65_536)

        async with ScriptedUpstream(flood) as receiver:
            assert (await sent(endpoint_at(receiver.url))).problem is None

    @pytest.mark.parametrize(
        "reply", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"y" * 9_000 + b"\r\n\r\n"]
    )
    async def test_what_is_no_http_is_a_failure_and_one_line_without_the_path(self, reply: bytes) -> None:
        async def babble(request: ReceivedRequest, connection: ScriptedConnection) -> None:
            await connection.raw(reply)
            await connection.break_off()

        async with ScriptedUpstream(babble) as receiver:
            attempt = await sent(endpoint_at(f"{receiver.url}/t0ken"))
        assert attempt.status is None
        assert str(attempt.problem).startswith("the response is no HTTP that can be read: ")
        assert "t0ken" not in str(attempt.problem)
        assert "\n" not in str(attempt.problem)


class TestAddresses:
    async def test_a_name_that_becomes_private_reaches_nothing(self) -> None:
        """DNS rebinding: public when it was configured, this machine when it is sent."""
        async with ScriptedUpstream(take) as receiver:
            port = urlsplit(receiver.url).port
            endpoint = endpoint_at(f"https://hooks.example.org:{port}/x", allowed_networks=())

            async def rebound(host: str, port: int) -> Sequence[str]:
                return ["93.184.216.34", "127.0.0.1"]

            attempt = await send(endpoint, "evt_1", "{}", resolve=rebound)
        assert "hooks.example.org is 127.0.0.1, which is no public address" in str(attempt.problem)
        assert receiver.connections_made == 0

    async def test_the_connection_goes_to_the_judged_address_with_the_names_host_header(self) -> None:
        """The host does not exist: a second look-up, as a client of its own makes, would fail."""
        looked_up = []

        async def once(host: str, port: int) -> Sequence[str]:
            looked_up.append((host, port))
            return ["127.0.0.1"]

        async with ScriptedUpstream(take) as receiver:
            port = urlsplit(receiver.url).port
            endpoint = endpoint_at(f"http://hooks.invalid:{port}/x?y=1")
            assert await send(endpoint, "evt_1", "{}", resolve=once) == Attempt(status=204, problem=None)
        (request,) = receiver.requests
        assert looked_up == [("hooks.invalid", port)]
        assert request.header("host") == f"hooks.invalid:{port}"
        assert request.target == "/x?y=1"

    async def test_the_proxy_of_the_environment_is_not_used(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with ScriptedUpstream(take) as proxy, ScriptedUpstream(take) as receiver:
            for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY"):
                monkeypatch.setenv(variable, proxy.url)
            assert (await sent(endpoint_at(receiver.url))).problem is None
        assert proxy.connections_made == 0

    async def test_a_host_without_an_address_is_a_failure(self) -> None:
        async def nowhere(host: str, port: int) -> Sequence[str]:
            return []

        attempt = await send(endpoint_at("http://hooks.invalid"), "evt_1", "{}", resolve=nowhere)
        assert attempt.problem == "hooks.invalid has no address"


class TestTls:
    async def test_the_certificate_is_checked_for_the_name_not_for_the_address(self, tmp_path: Path) -> None:
        async with tls_receiver(tmp_path, "hooks.test") as (port, names, ca_file):
            good = await sent_tls(f"https://hooks.test:{port}/x", ca_file)
            other_name = await sent_tls(f"https://other.test:{port}/x", ca_file)
            untrusted = await sent_tls(f"https://hooks.test:{port}/x", None)
        assert good == Attempt(status=200, problem=None)
        assert names[0] == "hooks.test"
        assert "certificate is not trusted" in str(other_name.problem)
        assert "certificate is not trusted" in str(untrusted.problem)

    def test_a_ca_file_that_is_not_there_is_named(self) -> None:
        config = WebhookConfig(url="https://a.example", ca_file="/no/such.pem")
        with pytest.raises(ConfigError, match=r"webhooks\.a\.ca_file '/no/such\.pem'"):
            open_endpoints({"a": config}, {"SERAC_WEBHOOK_SECRET_A": SECRET})


def test_the_largest_event_is_far_below_20_kb() -> None:
    made = proposal(edit_ids=tuple("x" * 64 for _ in range(1_000)), author="Ä" * 200)
    event = proposal_event("proposal.opened", made, "Ä" * 200)  # type: ignore[arg-type]
    assert len(event.body.encode()) < 20_000
    data = json.loads(event.body)["data"]
    assert (len(data["edit_ids"]), data["edit_count"]) == (100, 1_000)


async def sent_tls(url: str, ca_file: Path | None) -> Attempt:
    async def here(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    endpoint = endpoint_at(url, ca_file=None if ca_file is None else str(ca_file))
    return await send(endpoint, "evt_1", "{}", resolve=here)


@asynccontextmanager
async def tls_receiver(folder: Path, name: str) -> AsyncIterator[tuple[int, list[str | None], Path]]:
    """Port, names that clients sent (SNI), and the certificate's own file to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_file, key_file)
    names: list[str | None] = []
    context.sni_callback = lambda sock, server_name, ctx: names.append(server_name)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, *LOOPBACK, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], names, cert_file
