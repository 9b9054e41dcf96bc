"""The engine of a gateway without models: the calls of a worker, to an engine that may be away."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict

from typing_extensions import override

from serac_gateway.auth.authenticator import credential_headers
from serac_gateway.auth.principals import ANYONE, Principal
from serac_gateway.config.model import GatewayConfig
from serac_gateway.domain.headers import Headers
from serac_gateway.errors import AuthenticationError, ModelUnavailableError
from serac_gateway.server.engines.link import EngineLink
from serac_gateway.server.workers.remote_engine import RemoteEngine
from serac_gateway.server.workers.rpc_messages import AUTHENTICATE_PATH, AuthenticateCall

_KEPT_PRINCIPALS = 10_000


class SharedEngine(RemoteEngine):
    """Has the engine behind `link` do the work. Belongs to one event loop.

    While the engine is away, an API key that it confirmed less than `access.outage_grace_s` ago stays valid.
    """

    def __init__(self, link: EngineLink, config: GatewayConfig) -> None:
        super().__init__(
            link,
            link.namespaces,
            keys_required=config.demands_keys,
            oidc=config.oidc,
            decision_timeout_s=config.routing.decision_timeout_s,
            answer_timeout_s=config.models.answer_timeout_s,
        )
        self._link = link
        self._grace_s = config.access.outage_grace_s
        self._confirmed: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()
        """Principals and when they were confirmed, by a digest of the headers."""

    @override
    async def authenticate(self, headers: Headers) -> Principal:
        hello = self._link.hello
        demanded = self._keys_required or hello is None or hello.keys_required
        presented = credential_headers(headers, self._oidc, required=demanded)
        if not presented and not demanded:
            return ANYONE
        digest = hashlib.sha256(b"\0".join(b"%b\0%b" % header for header in presented)).digest()
        try:
            call = AuthenticateCall(headers=presented)
            principal = await self._link.call(AUTHENTICATE_PATH, call, Principal)
        except ModelUnavailableError:
            known = self._confirmed.get(digest)
            # A token's end is known to the engine alone.
            if known is None or known[1].holder is not None or time.monotonic() - known[0] > self._grace_s:
                raise
            return known[1]
        except AuthenticationError:  # it was revoked
            self._confirmed.pop(digest, None)
            raise
        self._confirmed[digest] = (time.monotonic(), principal)
        self._confirmed.move_to_end(digest)
        if len(self._confirmed) > _KEPT_PRINCIPALS:
            self._confirmed.popitem(last=False)
        return principal
