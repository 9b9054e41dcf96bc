"""OpenAI's POST /v1/chat/completions. Pure."""

from __future__ import annotations

from serac_gateway.data_plane.protocols.openai_common import ChoicesWriter


class ChatWriter(ChoicesWriter):
    """Writes chat.completion and chat.completion.chunk."""

    object_name = "chat.completion"
    chunk_name = "chat.completion.chunk"
    id_prefix = "chatcmpl-"

    def content(self, text: str) -> dict[str, object]:
        """The message."""
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def part(self, text: str | None) -> dict[str, object]:
        """The delta."""
        return {"delta": {} if text is None else {"content": text}}

    def opened(self, choice: int, prompt_tokens: int) -> bytes:
        """The chunk that opens a choice with its role."""
        return self.chunk(choice, {"delta": {"role": "assistant", "content": "", "refusal": None}})
