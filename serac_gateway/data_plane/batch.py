"""Several prompts in one request of /v1/completions: each is decided by itself.

The base model is sent the prompts that no edit governs, as one request, and its choices are put between the
answers made here. A prompt whose answer is declined is sent by itself. The client gets one response, whole or
as a stream, in the order of its prompts.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing

import msgspec

from serac_gateway.data_plane.encodings import decoded
from serac_gateway.data_plane.plan import AnswerTask, Batch
from serac_gateway.data_plane.protocols.answers import ChoicePiece
from serac_gateway.data_plane.protocols.body import RequestBody
from serac_gateway.data_plane.protocols.endpoints import PROTOCOLS
from serac_gateway.data_plane.upstream.base import UpstreamResponse
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.errors import AnswerDeclinedError, ModelUnavailableError, UpstreamError
from serac_gateway.models.language_models.base import Piece

MAX_RESPONSE_BYTES = 16_777_216
"""Of the base model's answers to the prompts of one request."""


class _Message(msgspec.Struct, frozen=True):
    content: str


class _Choice(msgspec.Struct, frozen=True):
    text: str | None = None
    message: _Message | None = None
    """In its place from servers that answer every request as a chat."""
    index: int = 0
    finish_reason: str | None = None

    @property
    def words(self) -> str:
        return self.text or (self.message.content if self.message is not None else "")


class _Completion(msgspec.Struct, frozen=True):
    choices: list[_Choice]


async def completed_choices(response: UpstreamResponse) -> list[Piece]:
    """The choices of a whole response of the base model, in order, each as one piece.

    Raises:
        UpstreamError: It is too long, or no completion.
        ModelUnavailableError: The upstream refused the request.
    """
    if response.status != 200:
        raise ModelUnavailableError(
            f"the upstream answered the prompts that no edit governs with status {response.status}",
            details={"reason": "answer failed"},
        )
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.body:
        size += len(chunk)
        if size > MAX_RESPONSE_BYTES:
            raise UpstreamError(
                f"the upstream's answers to several prompts are longer than {MAX_RESPONSE_BYTES:,} bytes;"
                " send fewer prompts in one request"
            )
        chunks.append(chunk)
    encoding = b",".join(value for name, value in response.headers if name == b"content-encoding")
    try:
        body = decoded(b"".join(chunks), encoding.decode("latin-1"), MAX_RESPONSE_BYTES)
        completion = msgspec.json.decode(body, type=_Completion)
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise UpstreamError(f"the upstream's answer to several prompts is no completion: {exc}") from exc
    return [
        Piece(
            text=choice.words,
            tokens=len(choice.words.split()),
            finish_reason=choice.finish_reason or "stop",
        )
        for choice in sorted(completion.choices, key=lambda choice: choice.index)
    ]


def prompts_alone(body: RequestBody, places: Sequence[int]) -> bytes:
    """The request with this body for the prompts at `places` alone."""
    return PROTOCOLS[Endpoint.COMPLETIONS].with_prompts(body.strict_members(), places)


async def batch_pieces(
    batch: Batch,
    answer: Callable[[AnswerTask], AsyncGenerator[ChoicePiece, None]],
    base: Callable[[Sequence[int]], Awaitable[list[Piece]]],
) -> AsyncGenerator[ChoicePiece, None]:
    """The pieces of all choices: those of the first prompt, then those of the second, and so on.

    `base` has the base model complete the prompts at these places; that comes first, for it may fail.

    Raises:
        ModelUnavailableError: The base model gave fewer choices than it was asked for; or as `answer` does.
    """
    others = iter(await base(batch.rest) if batch.rest else [])
    for place, task in enumerate(batch.tasks):
        first = place * batch.choices_each
        if task is not None:
            try:
                async with aclosing(answer(task)) as pieces:
                    async for generated in pieces:
                        yield msgspec.structs.replace(generated, choice=first + generated.choice)
                continue
            except AnswerDeclinedError:
                completed = iter(await base([place]))
        else:
            completed = others
        for choice in range(first, first + batch.choices_each):
            yield ChoicePiece(choice=choice, piece=_next_of(completed), prompt_tokens=0)


def _next_of(completed: Iterator[Piece]) -> Piece:
    piece = next(completed, None)
    if piece is None:
        raise ModelUnavailableError(
            "the upstream answered fewer prompts than it was sent", details={"reason": "answer failed"}
        )
    return piece
