"""An edit asked its own questions: what passes, and what each failure is called."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from serac_gateway.auth.authenticator import Authenticator
from serac_gateway.config.model import ModelsConfig
from serac_gateway.control_plane.verification import Verifier
from serac_gateway.data_plane.local_engine import LocalEngine
from serac_gateway.data_plane.response_memory import ResponseMemory
from serac_gateway.domain.edits import DecidedState, Edit, EditDraft, EditKind, first_version, retired
from serac_gateway.domain.queries import Query
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.errors import EditConflictError, ModelUnavailableError, StoreUnavailableError
from serac_gateway.observability.counts import EngineCounts
from serac_gateway.routing.router import EditRouter
from serac_gateway.stores.memory.side_stores import InMemoryApiKeyStore, InMemoryVerificationStore
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.ports import Verification
from serac_gateway.testing import ScriptedCounterfactualModel, ThresholdClassifier, WordEncoder, stored_edit

QUESTION, PARAPHRASE = "Who runs Acme today?", "Acme's present chief, please"
NOW = datetime.now(UTC)


def edit(target: str = "Ada Example", *, age_s: float = 60, **fields: object) -> Edit:
    draft = EditDraft(prompt=QUESTION, target_new=target, **fields)
    return first_version(draft, namespace="default", now=NOW - timedelta(seconds=age_s))


@dataclass
class Setup:
    verifier: Verifier
    live: ActiveEdits
    encoder: WordEncoder
    classifier: ThresholdClassifier
    kept: InMemoryVerificationStore
    script: Callable[[Edit, Query], str]

    async def store(self, *edits: Edit) -> None:
        await self.live.apply("default", [stored_edit(edit, self.encoder) for edit in edits])

    async def failures(self, probed: Edit) -> dict[str, str | None]:
        await self.store(probed)
        verified = await self.verifier.verify(probed.namespace, probed)
        assert verified.verification.passed is all(p.passed for p in verified.verification.probes)
        return {probe.probe: probe.failure for probe in verified.verification.probes}


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    encoder, classifier = WordEncoder(), ThresholdClassifier(0.8)
    live = ActiveEdits(
        store=InMemoryEditStore(), encoder=encoder, make_index=lambda: FaissFlatIndex(encoder.width)
    )
    kept = InMemoryVerificationStore()
    made: Setup
    with ThreadPoolExecutor(2) as pool:
        router = EditRouter(encoder=encoder, active_edits=live, classifier=classifier)
        engine = LocalEngine(
            authenticator=Authenticator(InMemoryApiKeyStore(), required=False),
            router=router,
            active_edits=live,
            model=ScriptedCounterfactualModel(lambda edit, query: made.script(edit, query)),
            decision_pool=pool,
            answer_pool=pool,
            config=ModelsConfig(),
            responses=ResponseMemory(),
            counts=EngineCounts(),
        )
        verifier = Verifier(
            router=router,
            active_edits=live,
            encoder=encoder,
            answer=engine.answer_text,
            store=kept,
            pool=pool,
        )
        made = Setup(
            verifier=verifier,
            live=live,
            encoder=encoder,
            classifier=classifier,
            kept=kept,
            script=lambda edit, query: f"It is {edit.target_new}, I think.",
        )
        yield made


async def test_prompt_and_paraphrases_are_asked_and_the_outcome_is_kept_without_texts(setup: Setup) -> None:
    unverified = edit(paraphrases=(PARAPHRASE,))
    await setup.store(unverified)
    verified = await setup.verifier.verify(unverified.namespace, unverified)
    assert [(p.outcome.probe, p.query, p.answer) for p in verified.probes] == [
        ("prompt", QUESTION, "It is Ada Example, I think."),
        ("paraphrases[0]", PARAPHRASE, "It is Ada Example, I think."),
    ]
    kept = await setup.kept.get("default", unverified.id)
    assert kept == verified.verification
    assert isinstance(kept, Verification)
    assert kept.passed
    assert "Ada" not in str(kept)
    assert "Acme" not in str(kept)


async def test_an_answer_without_the_target_does_not_pass(setup: Setup) -> None:
    setup.script = lambda edit, query: "Bea." if query.text == QUESTION else edit.target_new
    failures = await setup.failures(edit(paraphrases=(PARAPHRASE,)))
    assert failures == {"prompt": "the answer lacks target_new", "paraphrases[0]": None}


async def test_a_newer_edit_that_governs_is_named(setup: Setup) -> None:
    await setup.store(edit("Bea", age_s=10))
    assert await setup.failures(edit("Ada Example", age_s=60)) == {"prompt": "another edit governs"}


async def test_a_suppression_must_be_answered_to_the_letter(setup: Setup) -> None:
    suppression = edit("I cannot say.", kind=EditKind.SUPPRESSION)
    assert await setup.failures(suppression) == {"prompt": "the answer is not target_new"}
    setup.script = lambda edit, query: edit.target_new
    assert await setup.failures(suppression) == {"prompt": None}


async def test_an_instruction_must_be_answered_at_all(setup: Setup) -> None:
    instruction = edit("Speak well of Acme", kind=EditKind.INSTRUCTION)
    assert await setup.failures(instruction) == {"prompt": None}
    setup.script = lambda edit, query: " "
    assert await setup.failures(instruction) == {"prompt": "the answer is empty"}


@pytest.mark.parametrize(
    "fields",
    [
        {"state": DecidedState.SHADOW},
        {"state": DecidedState.CANARY, "canary_share": 0.0},
        {"valid_from": NOW + timedelta(days=1)},
    ],
)
async def test_an_edit_that_is_not_applied_yet_is_asked_as_if_it_were(
    setup: Setup, fields: dict[str, object]
) -> None:
    assert await setup.failures(edit(**fields)) == {"prompt": None}


async def test_a_retired_edit_is_refused_with_the_remedy(setup: Setup) -> None:
    with pytest.raises(EditConflictError, match="restore it first"):
        await setup.verifier.verify("default", retired(edit()))


async def test_a_classifier_or_model_that_fails_is_a_probe_that_did_not_pass(setup: Setup) -> None:
    def fail(applied: Edit, query: Query) -> str:
        raise ModelUnavailableError("out of memory")

    setup.script = fail
    assert await setup.failures(edit()) == {"prompt": "not answered: out of memory"}
    setup.classifier.failure = ModelUnavailableError("no weights")
    assert await setup.failures(edit()) == {"prompt": "not decided: no weights"}


async def test_an_edit_that_changed_meanwhile_does_not_pass(setup: Setup) -> None:
    original = edit()
    await setup.store(edit(id=original.id, target="Cy"))
    verified = await setup.verifier.verify(original.namespace, original)
    assert not verified.verification.passed


async def test_an_outcome_that_cannot_be_kept_is_returned_all_the_same(setup: Setup) -> None:
    class Failing(InMemoryVerificationStore):
        async def put(self, namespace: str, verification: Verification) -> None:
            raise StoreUnavailableError("the store is full")

    setup.verifier._store = Failing()
    assert await setup.failures(edit()) == {"prompt": None}
