"""The calls of the data plane that can be answered by the gateway."""

from __future__ import annotations

from enum import StrEnum


class Endpoint(StrEnum):
    """The calls that can be answered here, by their path below /v1."""

    CHAT = "/chat/completions"
    COMPLETIONS = "/completions"
    RESPONSES = "/responses"
    MESSAGES = "/messages"
    """Anthropic's."""
