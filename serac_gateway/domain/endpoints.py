"""The endpoints of the data plane whose requests the gateway can answer itself."""

from __future__ import annotations

from enum import StrEnum


class Endpoint(StrEnum):
    """An endpoint by its path below /v1."""

    CHAT = "/chat/completions"
    COMPLETIONS = "/completions"
    RESPONSES = "/responses"
    MESSAGES = "/messages"
    """Anthropic's."""
