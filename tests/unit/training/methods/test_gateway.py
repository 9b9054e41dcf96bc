"""The gateway as an editing method: in process and over HTTP it does the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import pytest

from serac_gateway.domain.edits import EditDraft
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.testing import ScriptedCounterfactualModel, ThresholdClassifier, WordEncoder, serving
from tests.control_plane import fake_gateway
from training.baselines.causal_model import CausalModel
from training.evaluation.answers.methods.gateway import Gateway, HttpGateway, InProcessGateway
from training.evaluation.gateway_models import GatewayModels

EDITS = [
    EditDraft(id="oru", prompt="The mayor of Oru is", target_new="Ann Lee"),
    EditDraft(id="moss", prompt="The river of Moss is", target_new="the Ket"),
]
QUERIES = ["The mayor of Oru is", "the mayor of Oru is", "The capital of France is", "The river of Moss is"]


DECLINED = "The old mayor of Oru is"


def declining() -> ScriptedCounterfactualModel:
    return ScriptedCounterfactualModel(declines=lambda edit, query: query.text == DECLINED)


def in_process(model: CausalModel) -> Gateway:
    encoder = WordEncoder()
    models = GatewayModels(
        encoder=encoder,
        classifier=ThresholdClassifier(),
        make_index=lambda: FaissFlatIndex(encoder.width),
    )
    return InProcessGateway(model, models, declining(), lambda: model)


def over_http(model: CausalModel) -> Gateway:
    @asynccontextmanager
    async def serve(upstream_url: str) -> AsyncIterator[str]:
        with ThreadPoolExecutor(2) as pool:
            gateway = fake_gateway(
                *(InMemoryEditStore(), WordEncoder(), pool),
                upstream_url=upstream_url,
                with_data_plane=True,
                counterfactual=declining(),
            )
            with serving(gateway.app) as url:
                yield url

    return HttpGateway(model, serve, lambda: model, WordEncoder().width)


@pytest.mark.parametrize("opens", [in_process, over_http])
def test_edits_are_answered_and_everything_else_is_the_models_own(
    opens: Callable[[CausalModel], Gateway], model: CausalModel
) -> None:
    """The unedited model answers what no edit governs, and everything after undo."""
    own = model.greedy([model.prompt_text(query) for query in QUERIES], max_tokens=4)
    method = opens(model)
    try:
        method.prepare()
        assert method.answers(QUERIES, max_tokens=4) == own
        method.edit(EDITS)
        assert method.answers(QUERIES, max_tokens=4) == ["Ann Lee", "Ann Lee", own[2], "the Ket"]
        assert method.reading(QUERIES[2]).text == QUERIES[2]
        assert method.reading(QUERIES[0]).text.startswith("Fact: The mayor of Oru is\nValue: Ann Lee\n")
        assert method.held_bytes > 2 * 2 * 4 * WordEncoder().width
        method.undo()
        assert method.held_bytes == 0
        assert method.answers(QUERIES, max_tokens=4) == own
    finally:
        method.close()


@pytest.mark.parametrize("opens", [in_process, over_http])
def test_what_the_counterfactual_model_declines_is_read_by_the_model(
    opens: Callable[[CausalModel], Gateway], model: CausalModel
) -> None:
    """An edit governs the question, and the answer is the model's own, as are forced answers and KL."""
    method = opens(model)
    try:
        method.prepare()
        method.edit(EDITS)
        assert method.reading(DECLINED).text == model.prompt_text(DECLINED)
        assert method.answers([DECLINED], max_tokens=4) == model.greedy(
            [model.prompt_text(DECLINED)], max_tokens=4
        )
        assert method.reading(DECLINED).text == model.prompt_text(DECLINED)
        assert method.reading(QUERIES[0]).text.startswith("Fact: ")
    finally:
        method.close()


def test_in_process_and_over_http_agree(model: CausalModel) -> None:
    """Readings and answers are the same, query by query: open texts too, and answers that are cut short."""
    methods = [in_process(model), over_http(model)]
    try:
        for method in methods:
            method.prepare()
            method.edit(EDITS)
        called, requested = methods
        for max_tokens, several_lines in ((5, False), (5, True), (1, False)):
            replies, over = (
                method.answers(QUERIES, max_tokens=max_tokens, several_lines=several_lines)
                for method in (called, requested)
            )
            assert replies == over
        assert [called.reading(query).text for query in QUERIES] == [
            requested.reading(query).text for query in QUERIES
        ]
    finally:
        for method in methods:
            method.close()
