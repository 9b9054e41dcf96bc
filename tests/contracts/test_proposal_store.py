"""Every store keeps proposals alike, and closes the one whose changes it commits in the same step."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from serac_gateway.domain.edits import Edit, EditState, purged
from serac_gateway.errors import (
    EditConflictError,
    EditNotFoundError,
    GatewayError,
    IdempotencyKeyReusedError,
    InvalidRequestError,
    PreconditionFailedError,
    ProposalConflictError,
    ProposalNotFoundError,
)
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.log_verification import BrokenLogError, LogVerifier, log_evidence, verify_log
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.proposals import Proposal, ProposalState, ProposedChange, Verdict, new_proposal_id
from serac_gateway.stores.records import Action, Commit, Idempotency
from tests.contracts.edit_store_calls import NS, add, commit_of, new, next_of, update

NOW = datetime(2026, 12, 1, tzinfo=UTC)
VERDICT = Verdict(approver="Bo (key b)", owner="bo", key_id="b", accepts=True, reason="Checked", at=NOW)


def proposal_of(*edits: Edit, namespace: str = NS) -> Proposal:
    return Proposal(
        id=new_proposal_id(),
        namespace=namespace,
        revision=1,
        state=ProposalState.OPEN,
        action="add",
        edit_ids=tuple(edit.id for edit in edits),
        author="Ann (key a)",
        owner="ann",
        reason="Took office",
        created_at=NOW,
        expires_at=NOW + timedelta(days=7),
    )


def changes_of(*edits: Edit) -> tuple[ProposedChange, ...]:
    return tuple(
        ProposedChange(action=Action.ADD if edit.version == 1 else Action.UPDATE, edit=edit) for edit in edits
    )


async def opened(store: EditStore, *edits: Edit, **more: object) -> Proposal:
    proposal = proposal_of(*edits)
    return await store.proposals().open(proposal, changes_of(*edits), **more)


def revised(proposal: Proposal, **fields: object) -> Proposal:
    return msgspec.structs.replace(proposal, revision=proposal.revision + 1, **fields)


def accepting(proposal: Proposal, *edits: Edit) -> Commit:
    closed = revised(proposal, state=ProposalState.ACCEPTED, verdicts=(VERDICT,), closed_at=NOW)
    action = Action.ADD if edits[0].version == 1 else Action.UPDATE
    changes = tuple(commit_of(action, edit).changes[0] for edit in edits)
    return Commit(changes=changes, approval="approved by Bo (key b)", closes=closed.as_closing)


async def refusal(calls: object) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await calls
    return caught.value


async def test_a_proposal_is_read_as_it_was_opened(edit_store: EditStore) -> None:
    """Head and changes come back whole, and nothing of them is in the log or among the edits."""
    edit = new("a", reason="Took office")
    proposal = await opened(edit_store, edit)
    store = edit_store.proposals()
    assert await store.get(NS, proposal.id) == proposal
    assert await store.changes(NS, proposal.id) == changes_of(edit)
    assert await edit_store.log(NS) == []
    assert isinstance(await refusal(edit_store.get(NS, "a")), EditNotFoundError)
    assert isinstance(await refusal(store.get("other", proposal.id)), ProposalNotFoundError)
    assert isinstance(await refusal(store.get(NS, new_proposal_id())), ProposalNotFoundError)
    assert await store.changes(NS, new_proposal_id()) == ()


@pytest.mark.parametrize(
    "proposal_id", ["", "x", "pr_", "pr_" + "0" * 21, "pr_" + "0" * 22 + "\n", "pr_G" * 6]
)
async def test_a_text_that_is_no_id_is_refused(edit_store: EditStore, proposal_id: str) -> None:
    """Before the server is reached."""
    store = edit_store.proposals()
    assert isinstance(await refusal(store.get(NS, proposal_id)), InvalidRequestError)
    assert isinstance(await refusal(store.changes(NS, proposal_id)), InvalidRequestError)
    assert isinstance(await refusal(store.page(NS, cursor=proposal_id)), InvalidRequestError)


async def test_what_does_not_follow_on_the_current_version_cannot_be_proposed(edit_store: EditStore) -> None:
    """A taken id, a missing edit and another version are refused, and nothing is kept."""
    edit = new("a")
    await add(edit_store, edit)
    await update(edit_store, next_of(edit))
    assert isinstance(await refusal(opened(edit_store, new("b"), new("a"))), EditConflictError)
    assert isinstance(await refusal(opened(edit_store, next_of(edit))), PreconditionFailedError)
    assert isinstance(await refusal(opened(edit_store, next_of(new("c")))), EditNotFoundError)
    assert (await edit_store.proposals().page(NS)).proposals == []


async def test_a_repeated_idempotency_key_opens_nothing_new(edit_store: EditStore) -> None:
    """The first proposal is the answer, also when it has gone on; with another request the key is refused."""
    key = Idempotency(key="once", fingerprint="one")
    first = await opened(edit_store, new("a"), idempotency=key)
    store = edit_store.proposals()
    voted = revised(first, verdicts=(VERDICT,))
    await store.replace(voted)
    assert await opened(edit_store, new("b"), idempotency=key) == voted
    another = Idempotency(key="once", fingerprint="two")
    assert isinstance(
        await refusal(opened(edit_store, new("b"), idempotency=another)), IdempotencyKeyReusedError
    )
    assert len((await store.page(NS)).proposals) == 1


async def test_no_more_than_the_limit_are_open(edit_store: EditStore) -> None:
    """One that is closed makes room."""
    first = await opened(edit_store, new("a"), max_open=1)
    assert isinstance(await refusal(opened(edit_store, new("b"), max_open=1)), ProposalConflictError)
    await edit_store.proposals().replace(revised(first, state=ProposalState.REJECTED))
    await opened(edit_store, new("b"), max_open=1)


async def test_of_two_revisions_at_a_time_one_is_kept(edit_store: EditStore) -> None:
    """The other one is refused, so that no verdict is lost."""
    proposal, store = await opened(edit_store, new("a")), edit_store.proposals()
    outcomes = await asyncio.gather(
        *(store.replace(revised(proposal, closing_reason=f"by {number}")) for number in range(5)),
        return_exceptions=True,
    )
    assert sorted(str(type(outcome).__name__) for outcome in outcomes) == ["NoneType"] + 4 * [
        "PreconditionFailedError"
    ]
    assert (await store.get(NS, proposal.id)).revision == 2
    unknown = proposal_of(new("a"))
    assert isinstance(await refusal(store.replace(revised(unknown))), ProposalNotFoundError)


async def test_pages_go_through_all_and_through_the_open_ones(edit_store: EditStore) -> None:
    """In the order in which they were opened."""
    proposals = []
    for number in range(5):
        proposals.append(await opened(edit_store, new(f"e{number}")))
        await asyncio.sleep(0.002)  # ids sort by milliseconds
    store = edit_store.proposals()
    await store.replace(revised(proposals[1], state=ProposalState.WITHDRAWN))

    async def ids(**more: bool) -> list[str]:
        walked, cursor = [], None
        while True:
            page = await store.page(NS, cursor=cursor, limit=2, **more)
            walked += [head.id for head in page.proposals]
            if page.next_cursor is None:
                return walked
            cursor = page.next_cursor

    every = [proposal.id for proposal in proposals]
    assert await ids() == every
    assert await ids(only_open=True) == [every[0], *every[2:]]


async def test_an_accepted_proposal_is_committed_and_closed_in_one_step(edit_store: EditStore) -> None:
    """The edits are there, the log names who agreed, the head is closed, the changes are not kept twice."""
    edits = new("a"), new("b")
    proposal = await opened(edit_store, *edits)
    await edit_store.commit(NS, accepting(proposal, *edits))
    store = edit_store.proposals()
    closed = await store.get(NS, proposal.id)
    assert (closed.state, closed.revision, closed.verdicts) == (ProposalState.ACCEPTED, 2, (VERDICT,))
    assert await store.changes(NS, proposal.id) == ()
    assert (await store.page(NS, only_open=True)).proposals == []
    assert [entry.approval for entry in await edit_store.log(NS)] == ["approved by Bo (key b)"] * 2
    await verify_log(edit_store, NS)


async def test_of_two_acceptances_at_a_time_one_commits(edit_store: EditStore) -> None:
    """The edit is stored once."""
    edit = new("a")
    await add(edit_store, edit)
    changed = next_of(edit)
    proposal = await opened(edit_store, changed)
    outcomes = await asyncio.gather(
        *(edit_store.commit(NS, accepting(proposal, changed)) for _ in range(4)), return_exceptions=True
    )
    assert sum(not isinstance(outcome, Exception) for outcome in outcomes) == 1
    assert all(
        isinstance(outcome, PreconditionFailedError) for outcome in outcomes if isinstance(outcome, Exception)
    )
    assert len(await edit_store.log(NS)) == 2


async def test_a_commit_of_a_proposal_that_went_on_or_is_stale_leaves_all_as_it_was(
    edit_store: EditStore,
) -> None:
    """No edit without its proposal, and no closed proposal without its edit."""
    edit = new("a")
    await add(edit_store, edit)
    changed = next_of(edit, target_new="Bo")
    store = edit_store.proposals()
    withdrawn = await opened(edit_store, changed)
    await store.replace(revised(withdrawn, state=ProposalState.WITHDRAWN))
    assert isinstance(
        await refusal(edit_store.commit(NS, accepting(withdrawn, changed))), PreconditionFailedError
    )
    unknown = proposal_of(changed)
    assert isinstance(
        await refusal(edit_store.commit(NS, accepting(unknown, changed))), ProposalNotFoundError
    )
    assert (await edit_store.get(NS, "a")).version == 1

    stale = await opened(edit_store, changed)
    await update(edit_store, next_of(edit, target_new="Cy"))
    assert isinstance(
        await refusal(edit_store.commit(NS, accepting(stale, changed))), PreconditionFailedError
    )
    assert await store.get(NS, stale.id) == stale
    assert await store.changes(NS, stale.id) == changes_of(changed)


async def test_a_purge_deletes_its_proposals(edit_store: EditStore) -> None:
    """Open, accepted and rejected ones with all reasons, and not those of an edit whose id begins alike."""
    edit, other = new("a"), new("a1")
    added = await opened(edit_store, edit)
    await edit_store.commit(NS, accepting(added, edit))
    await add(edit_store, other)
    waiting = await opened(edit_store, next_of(edit, target_new="A secret"))
    rejected = await opened(edit_store, next_of(edit, target_new="A secret"), new("b"))
    kept = await opened(edit_store, next_of(other))
    store = edit_store.proposals()
    await store.replace(revised(rejected, state=ProposalState.REJECTED))
    await edit_store.commit(NS, commit_of(Action.PURGE, purged(edit)))
    assert (await edit_store.get(NS, "a")).state is EditState.PURGED
    for proposal in (added, waiting, rejected):
        assert isinstance(await refusal(store.get(NS, proposal.id)), ProposalNotFoundError)
        assert await store.changes(NS, proposal.id) == ()
    assert (await store.page(NS)).proposals == (await store.page(NS, only_open=True)).proposals == [kept]
    assert await store.changes(NS, kept.id) == changes_of(next_of(other))
    late = accepting(waiting, next_of(edit, target_new="A secret"))
    assert isinstance(await refusal(edit_store.commit(NS, late)), ProposalNotFoundError)


async def test_the_log_shows_when_an_approval_was_changed(edit_store: EditStore) -> None:
    """One that is taken away, put in, reworded or made a part of the author breaks the chain."""
    edit = new("a", author="Ann")
    proposal = await opened(edit_store, edit)
    await edit_store.commit(NS, accepting(proposal, edit))
    pieces = [piece async for piece in log_evidence(edit_store, NS)]
    entry, rest = pieces[0], pieces[1:]
    for fields in (
        {"approval": None},
        {"approval": "approved by Cy (key c)"},
        {"approval": None, "author": f"approved\n{entry.approval}\nAnn"},
    ):
        verifier = LogVerifier(NS)
        with pytest.raises(BrokenLogError):
            verifier.take(msgspec.structs.replace(entry, **fields))
    verifier = LogVerifier(NS)
    for piece in (entry, *rest):
        verifier.take(piece)


async def test_a_restored_log_has_its_approvals(edit_store: EditStore) -> None:
    """A backup is of the log as it is, so the restored one is verified with them."""
    source, edit = InMemoryEditStore(), new("a")
    await source.commit(NS, accepting(await opened(source, edit), edit))
    restorer = edit_store.restorer(NS)
    await restorer.begin()
    await restorer.entries(await source.evidence(NS))
    await restorer.vectors({"a": (await source.stored(NS, "a")).vectors})
    await restorer.end(await source.log_head(NS))
    assert [entry.approval for entry in await edit_store.log(NS)] == ["approved by Bo (key b)"]
    await verify_log(edit_store, NS)
    assert [damage async for damage in edit_store.repairer(NS).damages()] == []
