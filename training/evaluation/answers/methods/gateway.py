"""This project as an editing method: its router and its counterfactual model before the model that is edited.

In process: the models of the shipped configuration, put together as the gateway does. Over HTTP: a whole
gateway that listens, in front of the edited model as its upstream. Both answer with the product's own
counterfactual model (int8, guarded); teacher-forced numbers are of the same weights in float32, unguarded.
"""

from __future__ import annotations

import asyncio
import threading
from abc import abstractmethod
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack
from typing import Any, TypeVar

import msgspec
from typing_extensions import override

from serac_gateway.config.model import UpstreamConfig
from serac_gateway.data_plane.upstream.embedded_server import EmbeddedServer
from serac_gateway.domain.edits import DEFAULT_NAMESPACE, Edit, EditDraft, by_name_in, first_version, forms
from serac_gateway.domain.queries import Query
from serac_gateway.errors import AnswerDeclinedError
from serac_gateway.models.counterfactual.base import CounterfactualModel
from serac_gateway.models.counterfactual.prompts import trained_prompt
from serac_gateway.models.counterfactual.truncation import MAX_FIELD_CHARS
from serac_gateway.models.language_models.base import LanguageModel, Piece, Sampling
from serac_gateway.routing.router import Route, RouteDecision
from serac_gateway.testing import serving
from training.baselines.base import EditingMethod, Reading, silent
from training.baselines.causal_model import CausalModel
from training.baselines.context import after_edits
from training.evaluation.gateway_models import GatewayModels
from training.evaluation.local_gateway import gateway_in_process
from training.evaluation.remote_namespace import HttpNamespace
from training.evaluation.scope.deciders import NAMESPACE, InProcessDecider
from training.progress import OnProgress

T = TypeVar("T")


class Gateway(EditingMethod):
    """What decides is open; where an edit governs the query, the counterfactual model reads it."""

    def __init__(self, model: CausalModel, counterfactual: Callable[[], CausalModel], width: int) -> None:
        """`counterfactual` opens the counterfactual model in float32; `width` is the encoder's."""
        super().__init__(model)
        self._open_counterfactual = counterfactual
        self._counterfactual: CausalModel | None = None
        self._width = width
        self._edits: dict[str, EditDraft] = {}
        """By id."""

    @override
    def edit(self, edits: Sequence[EditDraft], *, on_progress: OnProgress = silent) -> None:
        """Store them; they are in force when this returns."""
        self._store(list(edits))
        self._edits |= {draft.id or draft.prompt: draft for draft in edits}

    @override
    def undo(self) -> None:
        """Retire them."""
        self._retire()
        self._edits.clear()

    @override
    def reading(self, query: str) -> Reading:
        governing = self._answering_edit(query)
        if governing is None:
            return Reading(model=self.model, text=self._base_text(query))
        if self._counterfactual is None:
            self._counterfactual = self._open_counterfactual()
        text = trained_prompt(governing, Query(text=query), field_chars=MAX_FIELD_CHARS)
        return Reading(model=self._counterfactual, text=text)

    @property
    @override
    def held_bytes(self) -> int:
        """Records as JSON, and a float32 vector a form."""
        stored = [first_version(draft, namespace=DEFAULT_NAMESPACE) for draft in self._edits.values()]
        return sum(len(msgspec.json.encode(edit)) + 4 * self._width * len(forms(edit)) for edit in stored)

    @abstractmethod
    def _store(self, edits: list[EditDraft]) -> None:
        """Take edits into force."""

    @abstractmethod
    def _retire(self) -> None:
        """Take all of them out of force."""

    @abstractmethod
    def _answering_edit(self, query: str) -> EditDraft | Edit | None:
        """The edit by which the counterfactual model answers; None: it declines or is not asked."""

    def _base_text(self, query: str) -> str:
        """What the base model reads where it answers."""
        return self.model.prompt_text(query)


class InProcessGateway(Gateway):
    """Router and counterfactual model, called."""

    name = "gateway"
    paper = "this project: SERAC (Mitchell et al. 2022, arXiv 2206.06520) with a cross-encoder as classifier"

    def __init__(
        self,
        model: CausalModel,
        models: GatewayModels,
        answering: CounterfactualModel,
        counterfactual: Callable[[], CausalModel],
    ) -> None:
        """`answering` is the product's counterfactual model, `counterfactual` its weights in float32."""
        super().__init__(model, counterfactual, models.encoder.width)
        self._models = models
        self._answering = answering
        self._decider = self._opened_decider()
        self._decisions: dict[str, RouteDecision] = {}
        self._declined: dict[str, bool] = {}
        """Of queries that an edit governs."""

    @override
    def answers(
        self, queries: Sequence[str], *, max_tokens: int = 24, at_once: int = 8, several_lines: bool = False
    ) -> list[str]:
        """By the counterfactual model where an edit governs and it does not decline, else by the model."""
        replies = {query: self._answer(query, max_tokens) for query in dict.fromkeys(queries)}
        open_queries = [query for query, reply in replies.items() if reply is None]
        continued = self.model.greedy(
            [self._base_text(query) for query in open_queries],
            max_tokens=max_tokens, at_once=at_once, several_lines=several_lines,
        )  # fmt: skip
        of_base = dict(zip(open_queries, continued, strict=True))
        return [reply if (reply := replies[query]) is not None else of_base[query] for query in queries]

    @override
    def close(self) -> None:
        asyncio.run(self._decider.__aexit__())

    @override
    def _base_text(self, query: str) -> str:
        return after_edits(self._decided(query).context_edits, self.model.prompt_text(query))

    def _answer(self, query: str, max_tokens: int) -> str | None:
        governing = self._governing(query)
        if governing is None:
            return None
        read = Query(text=query)
        try:
            pieces = self._answering.answer(
                by_name_in(query, governing), read, Sampling(max_tokens=max_tokens),
                may_decline=self._decider.router.may_decline(governing, read),
            )  # fmt: skip
            reply: str | None = "".join(piece.text for piece in pieces).strip()
        except AnswerDeclinedError:
            reply = None
        self._declined[query] = reply is None
        return reply

    @override
    def _answering_edit(self, query: str) -> Edit | None:
        governing = self._governing(query)
        if governing is not None and query not in self._declined:
            self._answer(query, max_tokens=1)
        return None if self._declined.get(query) else governing

    def _governing(self, query: str) -> Edit | None:
        decision = self._decided(query)
        return decision.edit if decision.route is Route.COUNTERFACTUAL else None

    def _decided(self, query: str) -> RouteDecision:
        if query not in self._decisions:
            (self._decisions[query],) = self._decider.router.decide(NAMESPACE, [Query(text=query)])
        return self._decisions[query]

    @override
    def _store(self, edits: list[EditDraft]) -> None:
        asyncio.run(self._decider.store(edits))
        self._forget()

    @override
    def _retire(self) -> None:
        self.close()
        self._decider = self._opened_decider()
        self._forget()

    def _forget(self) -> None:
        self._decisions.clear()
        self._declined.clear()

    def _opened_decider(self) -> InProcessDecider:
        return InProcessDecider(
            encoder=self._models.encoder,
            classifier=self._models.classifier,
            make_index=self._models.make_index,
        )


class HttpGateway(Gateway):
    """A gateway that listens, asked as a client would: POST /v1/completions."""

    name = "gateway-http"
    paper = InProcessGateway.paper

    def __init__(
        self,
        model: CausalModel,
        serve: Callable[[str], AbstractAsyncContextManager[str]],
        counterfactual: Callable[[], CausalModel],
        width: int,
    ) -> None:
        """`serve` runs a gateway before the upstream at the URL it is given, and gives the gateway's URL."""
        super().__init__(model, counterfactual, width)
        self._serve = serve
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._upstream = ExitStack()
        self._stack = AsyncExitStack()
        self._namespace: HttpNamespace | None = None
        self._answered_by: dict[str, str | None] = {}
        """Of each query the edit by which the counterfactual model answered."""

    @override
    def prepare(self, *, on_progress: OnProgress = silent) -> None:
        """Start upstream and gateway."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gateway", daemon=True)
        self._thread.start()
        pool = self._upstream.enter_context(ThreadPoolExecutor(1))
        url = self._upstream.enter_context(serving(EmbeddedServer(_ServedModel(self.model), pool)))
        self._namespace = self._wait(self._opened(f"{url}/v1"))

    async def _opened(self, upstream_url: str) -> HttpNamespace:
        url = await self._stack.enter_async_context(self._serve(upstream_url))
        return await self._stack.enter_async_context(HttpNamespace(url))

    @override
    def close(self) -> None:
        if self._loop is not None and self._thread is not None:
            self._wait(self._stack.aclose())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._upstream.close()
            self._loop.close()

    @override
    def answers(
        self, queries: Sequence[str], *, max_tokens: int = 24, at_once: int = 8, several_lines: bool = False
    ) -> list[str]:
        """One request a query."""
        return [self._wait(self._completed(query, max_tokens, several_lines)) for query in queries]

    async def _completed(self, query: str, max_tokens: int, several_lines: bool) -> str:
        assert self._namespace is not None, "prepare has been called"
        body = {"model": "edited", "prompt": query, "max_tokens": max_tokens, "temperature": 0,
                "stop": None if several_lines else "\n"}  # fmt: skip
        reply = await self._namespace.client.call(
            "POST", "/v1/completions", body=body, headers={"x-serac-debug": "true"}
        )
        is_answered = reply.headers["x-serac-route"] == Route.COUNTERFACTUAL
        self._answered_by[query] = reply.headers["x-serac-edit-id"] if is_answered else None
        return str(reply.json()["choices"][0]["text"]).strip()

    @override
    def _answering_edit(self, query: str) -> EditDraft | None:
        if query not in self._answered_by:
            self._wait(self._completed(query, max_tokens=1, several_lines=False))
        edit_id = self._answered_by[query]
        return None if edit_id is None else self._edits[edit_id]

    @override
    def _store(self, edits: list[EditDraft]) -> None:
        assert self._namespace is not None, "prepare has been called"
        self._wait(self._namespace.store(edits))
        self._answered_by.clear()

    @override
    def _retire(self) -> None:
        if self._namespace is not None:
            self._wait(self._namespace.retire())
        self._answered_by.clear()

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None, "prepare has been called"
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


class _ServedModel(LanguageModel):
    """The edited model behind the API of the embedded server: greedy, in one piece."""

    def __init__(self, model: CausalModel) -> None:
        self._model = model

    @property
    @override
    def context_tokens(self) -> int:
        return int(self._model.network.config.max_position_embeddings)

    @override
    def count_tokens(self, text: str) -> int:
        return len(self._model.prompt_ids(text))

    @override
    def generate(
        self, prompt: str, sampling: Sampling, *, cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[Piece]:
        (text,) = self._model.greedy(
            [self._model.prompt_text(prompt)], max_tokens=sampling.max_tokens, several_lines=not sampling.stop
        )
        yield Piece(text=text, tokens=self.count_tokens(text), finish_reason="stop")


def open_in_process(model: CausalModel) -> InProcessGateway:
    """With the models of the embedded defaults.

    Raises:
        ConfigError: A model cannot be had.
    """
    from serac_gateway.config.loading import load_config
    from serac_gateway.models.loading import open_counterfactual_model
    from training.baselines.opening import open_counterfactual
    from training.evaluation.gateway_models import open_gateway_models

    config = load_config()
    answering = open_counterfactual_model(config.models, config.data_path)
    return InProcessGateway(model, open_gateway_models(), answering, open_counterfactual)


def open_over_http(model: CausalModel) -> HttpGateway:
    """The same, as a gateway that listens on loopback.

    Raises:
        ConfigError: A model cannot be had.
    """
    from serac_gateway.config.loading import load_config
    from serac_gateway.models.loading import open_embedded_encoder
    from training.baselines.opening import open_counterfactual

    config = load_config()
    width = open_embedded_encoder(config.data_path).width

    def serve(upstream_url: str) -> AbstractAsyncContextManager[str]:
        return gateway_in_process(msgspec.structs.replace(config, upstream=UpstreamConfig(url=upstream_url)))

    return HttpGateway(model, serve, open_counterfactual, width)
