"""API keys for tests, and how they are sent."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec

from serac_gateway.auth.api_keys import ApiKeyDraft, NewApiKey, new_api_key
from serac_gateway.auth.key_store import ApiKeyStore
from serac_gateway.auth.principals import Role

Header = tuple[str, str]


def new_key(**changes: object) -> NewApiKey:
    draft = msgspec.structs.replace(ApiKeyDraft(name="Chat app", role=Role.CHAT), **changes)
    return new_api_key(draft, pepper=b"", created_by=None, now=datetime.now(UTC))


async def stored_key(store: ApiKeyStore, **changes: object) -> str:
    new = new_key(**changes)
    await store.add(new.stored)
    return new.text


def bearer(text: str) -> Header:
    return ("Authorization", f"Bearer {text}")
