"""The seam to what needs models or a store: decisions, answers and the memory of responses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable
from enum import Enum, auto

from serac_gateway.data_plane.plan import RequestPlan
from serac_gateway.data_plane.protocols.answers import ChoicePiece
from serac_gateway.data_plane.protocols.base import CompletionRequest
from serac_gateway.data_plane.protocols.body import RequestBody
from serac_gateway.domain.edits import Edit
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.queries import Query


class Answers(ABC):
    """Where answers come from. Belongs to one event loop."""

    @abstractmethod
    def parts(
        self,
        edit: Edit,
        query: Query,
        request: CompletionRequest,
        *,
        on_tokens: Callable[[int], None] = lambda count: None,
    ) -> AsyncGenerator[ChoicePiece, None]:
        """The answer as it is generated, choice after choice. Close it to stop early.

        `on_tokens` is told how many tokens each part has.

        Raises:
            ModelUnavailableError: Too many answers wait, this one took too long, its edit went out of force
                while it waited, or the model failed; details["reason"] is a word or two for logs.
        """


class NeedsDecision(Enum):
    """Whether a namespace's requests have to be decided on."""

    NONE = auto()
    """It has no edits, and its traffic is not recorded."""
    SOME = auto()
    UNKNOWN = auto()
    """The stored edits are still being loaded."""


class Deciding(ABC):
    """Decides on requests. Belongs to one event loop."""

    @abstractmethod
    def needs_decision(self, namespace: str) -> NeedsDecision:
        """Whether requests of the namespace have to be decided on. Costs next to nothing."""

    @abstractmethod
    async def decide(self, namespace: str, endpoint: Endpoint, body: RequestBody, sender: str) -> RequestPlan:
        """Where the request with this body goes; `sender` is by whom canaries go where it names no user.

        Raises:
            ModelUnavailableError: Encoder or classifier failed.
        """


class Continuing(ABC):
    """The memory of responses that were answered here. Belongs to one event loop."""

    @abstractmethod
    async def note(self, namespace: str, body: RequestBody, response_id: str, said: str) -> None:
        """Remember that `said` was the whole answer to `body`."""

    @abstractmethod
    async def continued(self, namespace: str, body: RequestBody) -> RequestBody:
        """`body` with the turns of the response that it goes on from; unchanged if that is none of ours.

        All other members keep their bytes and order.
        """
