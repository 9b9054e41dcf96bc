"""The seam between the data plane and the models and stores behind it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from enum import Enum, auto

from serac_gateway.auth.principals import Principal
from serac_gateway.data_plane.plan import AnswerTask, RequestPlan
from serac_gateway.data_plane.protocols.answers import ChoicePiece
from serac_gateway.data_plane.protocols.body import RequestBody
from serac_gateway.domain.audiences import Caller, Labels
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.headers import Headers
from serac_gateway.routing.guarded_values import GuardedValues


class NeedsDecision(Enum):
    """Whether requests of a namespace have to be decided on."""

    NONE = auto()
    """No: the namespace has no edits, and its traffic is not recorded."""
    SOME = auto()
    SUPPRESSIONS = auto()
    """Yes, and a suppression is, or may be, in force: an undecided request could leak what it must not."""
    UNKNOWN = auto()
    """The stored edits are still being loaded."""


class Engine(ABC):
    """The work on a request that needs a model or a store. Belongs to one event loop.

    `LocalEngine` does it in this process; in a worker process `RemoteEngine` has the model process do it, and
    in a gateway without models `SharedEngine` the engine of several gateways.
    """

    @abstractmethod
    def authenticate(self, headers: Headers) -> Awaitable[Principal]:
        """On whose behalf the request with these headers comes.

        Raises:
            AuthenticationError: There is no API key and one is required, or it is not valid (any more).
            RateLimitedError: The key's requests of this minute are spent.
            StoreUnavailableError: The store does not answer, and the key is not in the cache.
            ModelUnavailableError: The model process does not answer.
        """

    @abstractmethod
    def needs_decision(self, namespace: str) -> NeedsDecision:
        """Whether requests of the namespace have to be decided on. A look-up in memory.

        What another process has is known some milliseconds later; after `authenticate`, at once.
        """

    @abstractmethod
    async def guarded_values(self, namespace: str, known: GuardedValues | None) -> GuardedValues:
        """What the base model's replies are watched for there; `known` itself if that is still so.

        Raises:
            ModelUnavailableError: The model process does not answer.
        """

    @abstractmethod
    async def decide(
        self, namespace: str, endpoint: Endpoint, body: RequestBody, caller: Caller
    ) -> RequestPlan:
        """The plan for the request with this body.

        Audiences go by the labels of `caller`, canaries by the user that the body names, else by its name.

        Raises:
            UnreadableError: The request cannot be read, and the policy is to refuse such requests.
            NamespaceQuarantinedError: Something stored of the namespace cannot be read.
            ModelUnavailableError: Encoder or classifier failed, or the model process does not answer.
        """

    @abstractmethod
    def answer(
        self, task: AnswerTask, *, on_tokens: Callable[[int], None] = lambda count: None
    ) -> AsyncGenerator[ChoicePiece, None]:
        """The answer as it is generated, choice after choice. Close the generator to stop early.

        `on_tokens` is called with the number of tokens of each piece.

        Raises:
            AnswerDeclinedError: Instead of the first piece: the edit does not answer the query.
            ModelUnavailableError: Too many answers wait, this one took too long, its edit was changed while
                it waited, or the model failed; details["reason"] is a word or two for logs.
        """

    @abstractmethod
    async def remember_response(
        self, namespace: str, request: RequestBody, response_id: str, answer: str, labels: Labels
    ) -> None:
        """Keep `answer`, the whole text, so that a later request with `labels` can continue from it."""

    @abstractmethod
    async def with_earlier_turns(self, namespace: str, request: RequestBody, labels: Labels) -> RequestBody:
        """`request` with the turns of the response that its `previous_response_id` names.

        Unchanged if that is no response of ours to a request with the same `labels`; all other
        members keep their bytes and order.
        """
