"""Edits that answer one question differently: which are found, and what each policy does about them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from serac_gateway.config.model import ConflictPolicy, NamespaceRouting, RoutingConfig
from serac_gateway.control_plane.conflicts import ConflictFinder
from serac_gateway.control_plane.importer import EditImport, Imported
from serac_gateway.control_plane.versions import NextVersion
from serac_gateway.control_plane.writer import EditWriter, Written
from serac_gateway.domain.edits import (
    DecidedState,
    Edit,
    EditDraft,
    EditKind,
    EditPatch,
    EditState,
    first_version,
)
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.faiss_flat import FaissFlatIndex
from serac_gateway.errors import ContradictionError, ModelUnavailableError, PreconditionFailedError
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.records import Action, Change, Commit, Idempotency, Receipt
from serac_gateway.testing import ThresholdClassifier, WordEncoder

NOW = datetime.now(UTC)
QUESTION, SAME_QUESTION = "Who runs Acme today?", "Today, who runs Acme?"
DAY = timedelta(days=1)
POLICIES = {policy.value.replace("_", "-"): NamespaceRouting(conflicts=policy) for policy in ConflictPolicy}


class HeldStore(InMemoryEditStore):
    """Commits only when `held`, if it is set to an event, is set."""

    held: asyncio.Event | None = None
    waits = False

    async def commit(self, namespace: str, commit: Commit) -> Receipt:
        if self.held is not None:
            self.waits = True
            await self.held.wait()
        return await super().commit(namespace, commit)


@dataclass
class Setup:
    store: HeldStore
    encoder: WordEncoder
    classifier: ThresholdClassifier
    finder: ConflictFinder
    writer: EditWriter
    live: ActiveEdits

    async def add(
        self, target: str, prompt: str = QUESTION, namespace: str = "newest-wins", **fields: object
    ) -> Written:
        return await self.write(
            NextVersion.added(namespace, EditDraft(prompt=prompt, target_new=target, **fields))
        )

    async def write(self, version: NextVersion) -> Written:
        return await self.writer.write(version.edit.namespace, version)

    async def states(self, namespace: str) -> dict[str, EditState]:
        return {edit.target_new: edit.state for edit in (await self.store.page(namespace)).edits}


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    store, encoder, classifier = HeldStore(), WordEncoder(), ThresholdClassifier(0.95)
    live = ActiveEdits(store=store, encoder=encoder, make_index=lambda: FaissFlatIndex(encoder.width))
    finder = ConflictFinder(
        active_edits=live, encoder=encoder, classifier=classifier, config=RoutingConfig(namespaces=POLICIES)
    )
    with ThreadPoolExecutor(2) as pool:
        yield Setup(
            store=store,
            encoder=encoder,
            classifier=classifier,
            finder=finder,
            live=live,
            writer=EditWriter(store=store, encoder=encoder, active_edits=live, pool=pool, conflicts=finder),
        )


def contradicted(written: Written) -> list[str]:
    assert written.conflicts is not None
    return [conflict.edit.target_new for conflict in written.conflicts]


async def test_another_answer_to_the_same_question_is_found_and_both_stay(setup: Setup) -> None:
    assert contradicted(await setup.add("Ada")) == []
    second = await setup.add("Bea", SAME_QUESTION)
    assert contradicted(second) == ["Ada"]
    (conflict,) = second.conflicts or ()
    assert conflict.answers_prompt == pytest.approx(1.0, abs=1e-5)
    assert conflict.prompt_answered == pytest.approx(1.0, abs=1e-5)
    assert await setup.states("newest-wins") == {"Ada": EditState.LIVE, "Bea": EditState.LIVE}


@pytest.mark.parametrize("same", ["Ada", "ada", "Ada.", " the Ada ", "ＡDA"])
async def test_the_same_answer_written_otherwise_is_no_conflict(setup: Setup, same: str) -> None:
    await setup.add("Ada")
    assert contradicted(await setup.add(same)) == []


@pytest.mark.parametrize(
    ("answer", "other"), [("5", "-5"), ("5 %", "5"), ("1.5", "15"), ("$5", "€5"), ("C++", "C")]
)
async def test_answers_that_differ_by_a_sign_are_a_conflict(setup: Setup, answer: str, other: str) -> None:
    await setup.add(answer)
    assert contradicted(await setup.add(other)) == [answer]


async def test_another_question_is_no_conflict(setup: Setup) -> None:
    await setup.add("Ada")
    assert contradicted(await setup.add("1901", "When was Acme founded?")) == []


async def test_one_way_is_not_enough(setup: Setup) -> None:
    """An edit whose paraphrase asks what the other asks does not contradict it if the other answers less."""
    await setup.add("Ada", "Tell me all there is to know of Acme", paraphrases=(QUESTION,))
    assert contradicted(await setup.add("Bea")) == []


async def test_a_paraphrase_counts_as_the_question(setup: Setup) -> None:
    await setup.add("Ada", paraphrases=("Acme's chief, please",))
    assert contradicted(await setup.add("Bea", "Acme's chief, please", paraphrases=(QUESTION,))) == ["Ada"]


async def test_windows_that_never_meet_are_no_conflict(setup: Setup) -> None:
    await setup.add("January", valid_from=NOW + DAY, valid_until=NOW + 31 * DAY)
    february = {"valid_from": NOW + 31 * DAY, "valid_until": NOW + 59 * DAY}
    assert contradicted(await setup.add("February", **february)) == []
    # Both are equally probable, so their order is not determined.
    winter = await setup.add("winter", valid_until=NOW + 40 * DAY)
    assert set(contradicted(winter)) == {"January", "February"}


async def test_an_edit_whose_window_has_ended_contradicts_nothing(setup: Setup) -> None:
    await setup.add("Ada", valid_until=NOW - DAY)
    assert contradicted(await setup.add("Bea")) == []


async def test_a_suppression_contradicts_an_answer_and_no_other_suppression(setup: Setup) -> None:
    await setup.add("I cannot say.", kind=EditKind.SUPPRESSION)
    assert contradicted(await setup.add("No comment.", kind=EditKind.SUPPRESSION)) == []
    assert contradicted(await setup.add("I cannot say.")) == ["I cannot say.", "No comment."]


async def test_a_change_is_looked_at_like_an_added_edit_unless_it_changes_notes_alone(setup: Setup) -> None:
    await setup.add("Ada")
    other = (await setup.add("Bea")).edit
    note = await setup.write(NextVersion.changed(other, EditPatch(source="press")))
    assert contradicted(note) == []
    changed = await setup.write(NextVersion.changed(note.edit, EditPatch(target_new="Cy")))
    assert contradicted(changed) == ["Ada"]
    agreed = await setup.write(NextVersion.changed(changed.edit, EditPatch(target_new="Ada")))
    assert contradicted(agreed) == []


async def test_a_classifier_that_fails_hinders_no_write_where_the_newest_wins(setup: Setup) -> None:
    await setup.add("Ada")
    setup.classifier.failure = ModelUnavailableError("out of memory")
    written = await setup.add("Bea")
    assert written.conflicts is None
    assert set(await setup.states("newest-wins")) == {"Ada", "Bea"}
    for namespace in ("reject", "supersede"):
        await setup.writer.commit(namespace, [_first("Ada", namespace)])
        with pytest.raises(ModelUnavailableError):
            await setup.add("Bea", namespace=namespace)
        assert await setup.states(namespace) == {"Ada": EditState.LIVE}


def _first(target: str, namespace: str) -> NextVersion:
    draft = EditDraft(prompt=QUESTION, target_new=target)
    return NextVersion(action=Action.ADD, edit=first_version(draft, namespace=namespace))


class TestReject:
    async def test_a_contradiction_is_refused_with_the_edits_that_stand_against_it(
        self, setup: Setup
    ) -> None:
        first = (await setup.add("Ada", namespace="reject")).edit
        with pytest.raises(ContradictionError, match=f"'{first.id}'.*as a shadow") as refused:
            await setup.add("Bea", SAME_QUESTION, "reject")
        assert refused.value.details["conflicts"] == [first.id]
        assert await setup.states("reject") == {"Ada": EditState.LIVE}

    async def test_a_shadow_may_come_and_is_refused_when_it_goes_live(self, setup: Setup) -> None:
        await setup.add("Ada", namespace="reject")
        shadow = await setup.add("Bea", namespace="reject", state=DecidedState.SHADOW)
        assert contradicted(shadow) == ["Ada"]
        with pytest.raises(ContradictionError):
            await setup.write(NextVersion.changed(shadow.edit, EditPatch(state=DecidedState.LIVE)))

    async def test_restoring_is_refused_like_adding(self, setup: Setup) -> None:
        first = (await setup.add("Ada", namespace="reject")).edit
        retired = (await setup.write(NextVersion.retired(first))).edit
        await setup.add("Bea", namespace="reject")
        with pytest.raises(ContradictionError):
            await setup.write(NextVersion.restored(retired))

    async def test_of_two_that_come_at_once_one_is_refused(self, setup: Setup) -> None:
        outcomes = await asyncio.gather(
            *(setup.add(f"answer {n}", namespace="reject") for n in range(8)), return_exceptions=True
        )
        assert sum(isinstance(outcome, Written) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, ContradictionError) for outcome in outcomes) == 7

    async def test_a_client_that_leaves_in_mid_write_lets_no_contradiction_through(
        self, setup: Setup
    ) -> None:
        setup.store.held = asyncio.Event()
        leaving = asyncio.ensure_future(setup.add("Ada", namespace="reject"))
        while not setup.store.waits:
            await asyncio.sleep(0.001)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        following = asyncio.ensure_future(setup.add("Bea", namespace="reject"))
        await asyncio.sleep(0.05)
        setup.store.held.set()
        with pytest.raises(ContradictionError):
            await following
        assert set(await setup.states("reject")) == {"Ada"}

    async def test_an_import_is_refused_line_by_line_also_against_its_own_lines(self, setup: Setup) -> None:
        importing = EditImport(
            writer=setup.writer, store=setup.store, active_edits=setup.live, namespace="reject"
        )
        drafts = [
            EditDraft(prompt=QUESTION, target_new="Ada"),
            EditDraft(prompt=SAME_QUESTION, target_new="Bea"),
            EditDraft(prompt="When was Acme founded?", target_new="1901"),
        ]
        outcomes = await importing.add(drafts)
        assert [type(outcome) for outcome in outcomes] == [Imported, ContradictionError, Imported]
        assert set(await setup.states("reject")) == {"Ada", "1901"}


class TestSupersede:
    async def test_the_older_edit_is_retired_in_the_same_commit_and_the_log_says_why(
        self, setup: Setup
    ) -> None:
        first = (await setup.add("Ada", namespace="supersede")).edit
        written = await setup.add("Bea", SAME_QUESTION, "supersede", author="jo")
        assert [edit.id for edit in written.superseded] == [first.id]
        assert await setup.states("supersede") == {"Ada": EditState.RETIRED, "Bea": EditState.LIVE}
        log = await setup.store.log("supersede")
        assert [(entry.action, entry.edit_id) for entry in log[1:]] == [
            (Action.ADD, written.edit.id),
            (Action.RETIRE, first.id),
        ]
        assert (log[2].author, log[2].reason) == ("jo", f"superseded by {written.edit.id}")
        assert setup.live.current("supersede", first.id) is None

    async def test_an_edit_on_trial_supersedes_nothing_until_it_goes_live(self, setup: Setup) -> None:
        await setup.add("Ada", namespace="supersede")
        canary = (
            await setup.add("Bea", namespace="supersede", state=DecidedState.CANARY, canary_share=0.1)
        ).edit
        assert (await setup.states("supersede"))["Ada"] is EditState.LIVE
        await setup.write(NextVersion.changed(canary, EditPatch(state=DecidedState.LIVE)))
        assert (await setup.states("supersede"))["Ada"] is EditState.RETIRED

    async def test_if_an_older_edit_changed_elsewhere_nothing_is_half_done(self, setup: Setup) -> None:
        first = (await setup.add("Ada", namespace="supersede")).edit
        await _changed_elsewhere(setup.store, first)
        with pytest.raises(PreconditionFailedError):
            await setup.add("Bea", namespace="supersede")
        assert (await setup.states("supersede")).keys() == {"Eve"}

    async def test_a_repetition_of_the_request_supersedes_nothing_more(self, setup: Setup) -> None:
        await setup.add("Ada", namespace="supersede")
        draft = EditDraft(prompt=QUESTION, target_new="Bea")
        key = Idempotency(key="k", fingerprint="f")
        first = await setup.writer.write("supersede", NextVersion.added("supersede", draft), idempotency=key)
        again = await setup.writer.write("supersede", NextVersion.added("supersede", draft), idempotency=key)
        assert again.edit == first.edit
        assert again.superseded == ()
        assert len(await setup.store.log("supersede")) == 3


async def _changed_elsewhere(store: InMemoryEditStore, edit: Edit) -> None:
    """As another replica does it, whose commit has not come into force here."""
    newer = msgspec.structs.replace(edit, version=2, target_new="Eve")
    await store.commit(edit.namespace, Commit(changes=(Change(action=Action.UPDATE, edit=newer),)))
