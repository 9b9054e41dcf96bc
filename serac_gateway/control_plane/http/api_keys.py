"""API keys over HTTP, for admins: make, list, revoke."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from litestar import Controller, Response, delete, get, post
from litestar.openapi.spec import Example
from litestar.params import BodyKwarg, PathParameter

from serac_gateway.auth.api_keys import ApiKey, ApiKeyDraft, new_api_key
from serac_gateway.auth.principals import Principal, Role
from serac_gateway.control_plane.http.guards import NEEDED_ROLE, Keys, Sender
from serac_gateway.control_plane.http.parameters import problems
from serac_gateway.errors import ApiKeyNotFoundError, PermissionDeniedError

_EXAMPLE = Example(
    summary="For a pipeline that edits one namespace",
    value={
        "name": "CI",
        "role": "edit",
        "namespaces": ["acme"],
        "requests_per_minute": 600,
        "expires_at": "2099-12-31T00:00:00Z",
    },
)


class MadeKey(msgspec.Struct, frozen=True, kw_only=True):
    """A new key, and its text for the only time."""

    text: str
    """What to send: as bearer token, or in x-serac-api-key."""
    key: ApiKey


class ApiKeys(msgspec.Struct, frozen=True, kw_only=True):
    """All keys that the caller may see, oldest first; revoked and expired ones too."""

    keys: list[ApiKey]


class ApiKeysController(Controller):
    """/serac/v1/keys. An admin who is bound to namespaces sees and makes keys for those only."""

    tags = ("keys",)
    opt = {NEEDED_ROLE: Role.ADMIN}  # noqa: RUF012 - Litestar reads it, nobody writes it

    @post(
        "/keys",
        status_code=201,
        summary="Make an API key",
        description="The reply is the only time that the key can be read: only a digest of it is stored.",
        responses=problems(400, 413, 503),
    )
    async def make(
        self, data: Annotated[ApiKeyDraft, BodyKwarg(examples=[_EXAMPLE])], principal: Sender, keys: Keys
    ) -> Response[MadeKey]:
        """Make a key."""
        new = new_api_key(data, pepper=keys.pepper, created_by=principal.author, now=datetime.now(UTC))
        if not _may_see(principal, new.stored.key):
            raise PermissionDeniedError(
                f"the API key allows {', '.join(principal.namespaces)}, and so do the keys that it makes, not"
                f" {', '.join(new.stored.key.namespaces)}",
                field="namespaces",
            )
        await keys.store.add(new.stored)
        made = MadeKey(text=new.text, key=new.stored.key)
        return Response(made, status_code=201, headers={"cache-control": "no-store"})

    @get("/keys", summary="List API keys", responses=problems(503))
    async def all(self, principal: Sender, keys: Keys) -> ApiKeys:
        """All keys, without their secrets."""
        return ApiKeys(
            keys=[stored.key for stored in await keys.store.all() if _may_see(principal, stored.key)]
        )

    @delete(
        "/keys/{key_id:str}",
        status_code=200,
        summary="Revoke an API key",
        description="For good, and within one second in every gateway on the store.",
        responses=problems(400, 404, 503),
    )
    async def revoke(
        self,
        key_id: Annotated[
            str,
            PathParameter(
                description="The 12 letters and digits after `sk-serac-`",
                schema_extra={"pattern": "^[0-9A-Za-z]{12}$"},
            ),
        ],
        principal: Sender,
        keys: Keys,
    ) -> ApiKey:
        """Revoke a key."""
        stored = await keys.store.get(key_id)
        if stored is not None and _may_see(principal, stored.key):
            stored = await keys.store.revoke(key_id, datetime.now(UTC))
            if stored is not None:
                return stored.key
        raise ApiKeyNotFoundError(
            f"there is no API key {key_id!r}; GET /serac/v1/keys lists them", field="key_id"
        )


def _may_see(principal: Principal, key: ApiKey) -> bool:
    return principal.may_use(*key.namespaces)
