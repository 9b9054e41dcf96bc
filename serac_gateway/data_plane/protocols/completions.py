"""OpenAI's POST /v1/completions. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serac_gateway.data_plane.protocols.base import CompletionRequest
from serac_gateway.data_plane.protocols.openai_common import ChoicesWriter, parse_choices_request
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.queries import Bypass


class TextWriter(ChoicesWriter):
    """Writes text_completion, whole and in chunks."""

    object_name = chunk_name = "text_completion"
    id_prefix = "cmpl-"

    def content(self, text: str) -> dict[str, object]:
        """The text."""
        return {"text": text}

    def part(self, text: str | None) -> dict[str, object]:
        """The text."""
        return {"text": text or ""}


def parse_text_request(body: Mapping[str, Any]) -> CompletionRequest | Bypass:
    """What is understood of a request that has a model."""
    if body.get("logprobs") is not None and body["logprobs"] is not False:  # 0: of the tokens taken
        return Bypass(reason="log probabilities")
    if body.get("best_of") not in (None, body.get("n") or 1):
        return Bypass(reason="too many choices")
    return parse_choices_request(Endpoint.COMPLETIONS, body)
