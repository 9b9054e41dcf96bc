"""Login by an identity provider (OpenID Connect): authorization code with PKCE, state and nonce.

What a login needs at its end is in a cookie of the browser that began it, sealed with a key of this process:
so nobody can finish a login in another browser, and logins that are never finished take up no memory here.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit

import msgspec
from litestar import Controller, Response, get

from serac_gateway.auth.principals import Role
from serac_gateway.auth.token_access import TokenAccess
from serac_gateway.auth.tokens import Claims, invalid_token
from serac_gateway.console.cookies import (
    header,
    login_cookie,
    login_cookie_name,
    session_cookie,
    session_cookie_name,
)
from serac_gateway.console.login import Door, login_page
from serac_gateway.console.paths import safe_target
from serac_gateway.console.visits import AnyRequest
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import (
    AuthenticationError,
    GatewayError,
    IdentityProviderError,
    InvalidRequestError,
)

log = logging.getLogger(__name__)

LOGIN_TIME_S = 600
"""From the link to the way back: people look for their second factor."""
_MAX_TARGET_CHARS = 2_000
"""Browsers keep no cookie of more than 4,096 bytes, and a login whose cookie is not kept cannot end."""
_SEALING_KEY = secrets.token_bytes(32)
_AGAIN = "begin the login again, in this browser and within ten minutes"


class _BegunLogin(msgspec.Struct, frozen=True, kw_only=True):
    """What the way back is checked by."""

    state: str
    nonce: str
    verifier: str
    target: str
    at_s: float


class OidcLoginPages(Controller):
    """The way to the identity provider and back. By links: a form may lead to this gateway alone."""

    @get("/login/oidc")
    async def begin(self, request: AnyRequest, door: Door) -> Response[Any]:
        """Send the browser to the identity provider."""
        host = header(cast("Headers", request.scope["headers"]), b"host")
        wanted = request.query_params.get("next")
        target = safe_target(wanted if wanted is None or len(wanted) <= _MAX_TARGET_CHARS else None)
        try:
            tokens = _tokens_of(door)
            redirect_uri = _own_redirect_uri(tokens, host)
            document = await tokens.provider.document()
            if document.authorization_endpoint is None or document.token_endpoint is None:
                raise IdentityProviderError(
                    f"{tokens.config.issuer} names no address for logins; use an API key"
                )
        except GatewayError as error:
            return login_page(request, door, target=target, error=error)
        begun = _BegunLogin(
            state=secrets.token_urlsafe(32),
            nonce=secrets.token_urlsafe(32),
            verifier=secrets.token_urlsafe(48),
            target=target,
            at_s=time.time(),
        )
        challenge = hashlib.sha256(begun.verifier.encode()).digest()
        query = urlencode(
            {
                "response_type": "code",
                "client_id": tokens.config.login_client_id,
                "redirect_uri": redirect_uri,
                "scope": " ".join(tokens.config.login_scopes),
                "state": begun.state,
                "nonce": begun.nonce,
                "code_challenge": urlsafe_b64encode(challenge).rstrip(b"=").decode(),
                "code_challenge_method": "S256",
            }
        )
        endpoint = document.authorization_endpoint
        location = f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{query}"
        return Response(
            None,
            status_code=303,
            headers={"location": location},
            cookies=[login_cookie(_sealed(begun), host=host, max_age_s=LOGIN_TIME_S)],
        )

    @get("/login/callback")
    async def end(self, request: AnyRequest, door: Door) -> Response[Any]:
        """Check what the identity provider sends, and start a session under a new id."""
        host = header(cast("Headers", request.scope["headers"]), b"host")
        begun = _opened(request.cookies.get(login_cookie_name(host=host)))
        forgotten = login_cookie("", host=host, max_age_s=0)
        try:
            claims = await _logged_in(
                _tokens_of(door), begun, dict(request.query_params), host, door.client_secret
            )
            door.authenticator.authenticate_holder(claims, None).require(Role.EDIT)
        except GatewayError as error:
            log.info("a login by the identity provider failed: %s", error.message)
            reply = login_page(request, door, target=begun.target if begun else None, error=error)
            reply.cookies = [forgotten]
            return reply
        assert begun is not None
        door.sessions.end(request.cookies.get(session_cookie_name(host=host)))
        session_id, _ = door.sessions.start(None, claims)
        return Response(
            None,
            status_code=303,
            headers={"location": begun.target},
            cookies=[session_cookie(session_id, host=host), forgotten],
        )


async def _logged_in(
    tokens: TokenAccess,
    begun: _BegunLogin | None,
    answer: dict[str, str],
    host: str,
    client_secret: str | None,
) -> Claims:
    """The claims of whoever has logged in. Raises GatewayError if the answer is not one to this login."""
    config = tokens.config
    redirect_uri = _own_redirect_uri(tokens, host)
    if begun is None or not hmac.compare_digest(begun.state.encode(), answer.get("state", "").encode()):
        raise AuthenticationError(f"this is not the end of a login that began here; {_AGAIN}", field="state")
    document = await tokens.provider.document()
    issuer = answer.get("iss")
    if issuer != config.issuer and (
        issuer is not None or document.authorization_response_iss_parameter_supported
    ):
        raise AuthenticationError(f"the answer is not by {config.issuer}; {_AGAIN}", field="iss")
    if "error" in answer:
        code = "".join(char for char in answer["error"][:60] if char.isalnum() or char in "_-")
        raise AuthenticationError(
            f"the identity provider ended the login ({code}); begin again, or ask who runs it", field="error"
        )
    if not answer.get("code"):
        raise AuthenticationError(f"the answer has no code; {_AGAIN}", field="code")
    form = {
        "grant_type": "authorization_code",
        "code": answer["code"],
        "redirect_uri": redirect_uri,
        "code_verifier": begun.verifier,
    }
    client_id = config.login_client_id or ""
    headers: dict[str, str] = {}
    if client_secret is not None and "client_secret_basic" in document.token_endpoint_auth_methods_supported:
        pair = f"{quote(client_id, safe='')}:{quote(client_secret, safe='')}"
        headers["authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
    else:
        form |= {"client_id": client_id} | ({} if client_secret is None else {"client_secret": client_secret})
    status, reply = await tokens.provider.post_form(document.token_endpoint or "", form, headers)
    id_token = reply.get("id_token")
    if status != 200 or not isinstance(id_token, str):
        fault = reply.get("error")
        quoted = f", {fault[:60]!r}" if isinstance(fault, str) else ""
        raise AuthenticationError(
            f"the identity provider gives no ID token for the code (status {status}{quoted}); begin again; if"
            " it stays so, its client, secret or callback differ from the configuration's (oidc.login_…)",
            field="code",
        )
    claims = (await tokens.verifier.verified_for(id_token.encode(), (client_id,))).claims
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), begun.nonce.encode()):
        raise invalid_token("it is not of this login (nonce)", remedy=_AGAIN)
    if claims.get("azp", client_id) != client_id:
        raise invalid_token("it was issued to another client (azp)", remedy=_AGAIN)
    return claims


def _tokens_of(door: Any) -> TokenAccess:  # noqa: ANN401 - a Doorkeeper, by its dependency's type
    tokens: TokenAccess | None = door.authenticator.tokens
    if tokens is None or tokens.config.login_client_id is None:
        raise InvalidRequestError(
            "logins by an identity provider are not configured (oidc.login_client_id); use an API key",
            field="path",
        )
    return tokens


def _own_redirect_uri(tokens: TokenAccess, host: str) -> str:
    """The configured callback; the browser must be at its host, or it would not bring the cookie there."""
    uri = tokens.config.login_redirect_uri or ""
    parts = urlsplit(uri)
    if parts.netloc.lower() != host.lower():
        raise InvalidRequestError(
            f"the console is open at {host[:200]!r}, and logins end at {parts.scheme}://{parts.netloc}"
            " (oidc.login_redirect_uri); open the console there, or have the proxy pass the client's Host on",
            field="host",
            details={"value": host[:200]},
        )
    return uri


def _sealed(begun: _BegunLogin) -> str:
    content = urlsafe_b64encode(msgspec.json.encode(begun))
    return f"{content.decode()}.{_seal(content)}"


def _opened(cookie: str | None) -> _BegunLogin | None:
    """What was sealed; None: nothing was, by another process, or too long ago."""
    content, _, seal = (cookie or "").encode("utf-8", "replace").partition(b".")
    if not hmac.compare_digest(_seal(content).encode(), seal):
        return None
    begun = msgspec.json.decode(urlsafe_b64decode(content), type=_BegunLogin)
    return begun if 0 <= time.time() - begun.at_s <= LOGIN_TIME_S else None


def _seal(content: bytes) -> str:
    return hmac.new(_SEALING_KEY, b"console login " + content, hashlib.sha256).hexdigest()
