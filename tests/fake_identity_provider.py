"""An identity provider that listens on this machine: its keys rotate, it fails, and it answers wrongly."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey

from serac_gateway.config.model import OidcConfig, OidcRole

AUDIENCE = "serac"
CLIENT = "serac-console"
SECRET = "the client's secret"
ROLES = {
    "readers": OidcRole(role="chat"),
    "editors": OidcRole(role="edit", namespaces=("*",)),
    "approvers": OidcRole(role="approve", namespaces=("*",)),
    "legal-admins": OidcRole(role="admin", namespaces=("legal",)),
    "admins": OidcRole(role="admin"),
}
ANN = {"sub": "248289761001", "name": "Ann Lee", "email": "ann@corp.example", "groups": ["editors", "staff"]}
BO = {"sub": "248289761002", "name": "Bo", "email": "bo@corp.example", "groups": ["approvers"]}


class FakeIdentityProvider:
    """Its URL is its issuer. Tests read and change its attributes while it runs."""

    def __init__(self, url: str) -> None:
        self.issuer = url
        self.keys: dict[str, Any] = {"first": RSAKey.generate_key(2048, {"kid": "first"})}
        """The keys that it publishes, by key id; it signs with the last one."""
        self.is_down = False
        self.changes: dict[str, Any] = {}
        """What its configuration document says in place of the truth; None: leaves it out."""
        self.answers: dict[str, Callable[[], tuple[int, bytes]]] = {}
        """What a path answers instead."""
        self.requests: list[str] = []
        """The paths that were called."""
        self.person: dict[str, Any] = dict(ANN)
        """Who logs in."""
        self.login_fault: str | None = None
        """The error with which a login ends."""
        self.callback_changes: dict[str, str | None] = {}
        """Parameters of the redirect back that are replaced, or left out."""
        self.id_token_changes: dict[str, Any] = {}
        self.codes: dict[str, dict[str, str]] = {}
        """The parameters of the logins that wait for their code to be used."""
        self.token_forms: list[dict[str, str]] = []

    def config(self, **changes: Any) -> OidcConfig:  # noqa: ANN401
        return OidcConfig(
            **{
                "issuer": self.issuer,
                "audience": (AUDIENCE,),
                "roles": ROLES,
                "keys_cooldown_s": 1,
                **changes,
            }
        )

    def rotate(self, kid: str, *, keep: bool = True, key: Any = None) -> None:  # noqa: ANN401
        """Sign with a new key from now on; without `keep` the others are not published any more."""
        made = key or ECKey.generate_key("P-256", {"kid": kid})
        self.keys = {**(self.keys if keep else {}), kid: made}

    def token(
        self,
        person: dict[str, Any] = ANN,
        *,
        header: dict[str, Any] | None = None,
        **claims: object,
    ) -> str:
        """A signed access token; claims that are None are left out."""
        kid, key = next(reversed(self.keys.items()))
        now = int(time.time())
        whole = {"iss": self.issuer, "aud": AUDIENCE, "iat": now, "exp": now + 300, **person, **claims}
        signed = {"alg": algorithm_of(key), "kid": kid, "typ": "at+jwt"} | (header or {})
        return self.signed({k: v for k, v in signed.items() if v is not None}, whole, key)

    def signed(self, header: dict[str, Any], claims: dict[str, Any], key: Any) -> str:  # noqa: ANN401
        given = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(header, given, key, algorithms=[header["alg"]], default_type=None)

    def answer(self, path: str, query: dict[str, str], form: dict[str, str]) -> tuple[int, bytes, str | None]:
        """Status, body, and the URL of a redirect."""
        self.requests.append(path)
        if path in self.answers:
            return *self.answers[path](), None
        if path == "/.well-known/openid-configuration":
            return 200, json.dumps(self._document()).encode(), None
        if path == "/keys":
            published = [key.as_dict(private=False) | {"use": "sig"} for key in self.keys.values()]
            return 200, json.dumps({"keys": published}).encode(), None
        if path == "/authorize":
            return 303, b"", self._logged_in(query)
        if path == "/token":
            return *self._tokens(form), None
        return 404, b"{}", None

    def _document(self) -> dict[str, Any]:
        document = {
            "issuer": self.issuer,
            "jwks_uri": f"{self.issuer}/keys",
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "authorization_response_iss_parameter_supported": True,
            **self.changes,
        }
        return {name: value for name, value in document.items() if value is not None}

    def _logged_in(self, query: dict[str, str]) -> str:
        back = {"state": query["state"], "iss": self.issuer}
        if self.login_fault is not None:
            back["error"] = self.login_fault
        else:
            back["code"] = f"code-{len(self.codes)}-{time.monotonic_ns()}"
            self.codes[back["code"]] = query
        changed: dict[str, str | None] = {**back, **self.callback_changes}
        return f"{query['redirect_uri']}?{urlencode({k: v for k, v in changed.items() if v is not None})}"

    def _tokens(self, form: dict[str, str]) -> tuple[int, bytes]:
        self.token_forms.append(form)
        login = self.codes.pop(form.get("code", ""), None)
        challenge = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if (
            login is None
            or login["code_challenge"] != urlsafe_b64encode(challenge).rstrip(b"=").decode()
            or login["code_challenge_method"] != "S256"
            or form.get("redirect_uri") != login["redirect_uri"]
            or login["client_id"] != CLIENT
        ):
            return 400, b'{"error": "invalid_grant"}'
        claims = {"aud": CLIENT, "nonce": login["nonce"], **self.id_token_changes}
        id_token = self.token(self.person, header={"typ": "JWT"}, **claims)
        return 200, json.dumps(
            {"id_token": id_token, "access_token": "opaque", "token_type": "Bearer"}
        ).encode()

    def login_config(self, port: int, **changes: Any) -> OidcConfig:  # noqa: ANN401
        """For a gateway on that port, whose console logs people in."""
        callback = f"http://127.0.0.1:{port}/console/login/callback"
        return self.config(login_client_id=CLIENT, login_redirect_uri=callback, **changes)


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def algorithm_of(key: Any) -> str:  # noqa: ANN401
    if isinstance(key, RSAKey):
        return "RS256"
    if isinstance(key, OctKey):
        return "HS256"
    return "Ed25519" if isinstance(key, OKPKey) else "ES256"


@contextmanager
def running_identity_provider() -> Iterator[FakeIdentityProvider]:
    """The provider, until the context ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer({})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
            self._answer({name: values[0] for name, values in parse_qs(body).items()})

        def _answer(self, form: dict[str, str]) -> None:
            if provider.is_down:
                provider.requests.append("down")
                self.close_connection = True
                self.connection.close()
                return
            url = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            status, content, location = provider.answer(url.path, query, form)
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.send_header("content-type", "application/json")
            if location is not None:
                self.send_header("location", location)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is written."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    provider = FakeIdentityProvider(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
