"""What a gateway sends to webhooks, when, and what its API and commands say of them."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from serac_gateway.cli.main import app
from serac_gateway.control_plane.clock_watch import look_once
from serac_gateway.domain.edits import EditDraft, first_version
from serac_gateway.stores.proposals import ProposedChange
from serac_gateway.stores.records import Action
from serac_gateway.testing import (
    ReceivedRequest,
    ScriptedConnection,
    ScriptedUpstream,
    WordEncoder,
    stored_edit,
)
from tests.http.four_eyes import DRAFT, People, running_people
from tests.http.reloadable_gateway import reloadable_gateway
from tests.webhook_endpoints import SECRET, RecordingReceiver, endpoint_at, proposal

FREE = {"x-serac-namespace": "free"}
SECRET_TEXT = "Ottilie Brandvold"


@dataclass
class Watched:
    people: People
    receiver: RecordingReceiver


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    """A gateway in which two must agree, and a receiver of all that happens."""
    receiver = RecordingReceiver()
    endpoints = [endpoint_at("https://hooks.example.org/t0ken")]
    with running_people(endpoints=endpoints, send_webhook=receiver) as people:
        yield Watched(people, receiver)


@pytest.fixture
def fresh(watched: Watched) -> Watched:
    watched.receiver.events.clear()
    return watched


class TestEvents:
    def test_a_proposal_is_followed_from_its_opening_to_its_acceptance(self, fresh: Watched) -> None:
        people = fresh.people
        made = people.propose(reason="The patient asked for it")
        assert people.say(people.bo, "approve", made).status_code == 200
        assert people.say(people.cy, "approve", made).status_code == 200
        accepted = fresh.receiver.wait_for("proposal.accepted")
        assert fresh.receiver.types == [
            "proposal.opened",
            "proposal.approved",
            "proposal.approved",
            "proposal.accepted",
        ]
        assert accepted["data"]["proposal_id"] == made["id"]
        assert accepted["data"]["agreements"] == 2
        assert accepted["data"]["by"].startswith("Cy (key")
        assert accepted["data"]["edit_ids"] == made["edit_ids"]

    def test_a_rejection_a_withdrawal_and_an_admins_own_write(self, fresh: Watched) -> None:
        people = fresh.people
        people.say(people.bo, "reject", people.propose(prompt="Who runs Weir?"))
        assert fresh.receiver.wait_for("proposal.rejected")["data"]["state"] == "rejected"
        people.say(people.ann, "withdraw", people.propose(prompt="Who runs Weir?"))
        fresh.receiver.wait_for("proposal.withdrawn")
        body = DRAFT | {"prompt": "Who runs Holm?", "reason": "Fire", "id": "holm"}
        expedite = {"x-serac-expedite": "true"}
        assert people.call(people.locked.admin, "POST", "/edits", json=body, headers=expedite).is_success
        assert fresh.receiver.wait_for("edits.expedited")["data"]["edit_ids"] == ["holm"]

    def test_a_conflict_and_a_failed_verification(self, fresh: Watched) -> None:
        people = fresh.people
        first = {"prompt": "Who is mayor of Springfield?", "target_new": "Lisa", "id": "first"}
        other = first | {"target_new": "Bart", "id": "other"}
        for body in (first, other):
            assert people.call(people.ann, "POST", "/edits", json=body, headers=FREE).status_code == 201
        conflict = fresh.receiver.wait_for("edit.conflicts")["data"]
        assert (conflict["edit_id"], conflict["conflicting_ids"]) == ("other", ["first"])
        assert people.call(people.ann, "POST", "/edits/first:verify", headers=FREE).json()["passed"] is False
        failed = fresh.receiver.wait_for("verification.failed")["data"]
        assert (failed["edit_id"], failed["failed"]) == ("first", 1)
        assert failed["failures"] == ["another edit governs"]

    def test_no_event_has_a_text_of_an_edit_or_a_reason(self, watched: Watched) -> None:
        people = watched.people
        made = people.propose(prompt="What is the Halyard password?", target_new=SECRET_TEXT, reason="geheim")
        people.say(people.bo, "reject", made, json={"reason": "geheimer"})
        watched.receiver.wait_for("proposal.rejected")
        everything = json.dumps(watched.receiver.events)
        for text in (SECRET_TEXT, "Halyard", "geheim", "harbour office", "The patient", "Lisa", "sk-serac"):
            assert text not in everything


class TestApi:
    def test_the_list_shows_no_path_and_the_deliveries_no_body(self, fresh: Watched) -> None:
        people = fresh.people
        people.say(people.bo, "reject", people.propose(prompt="Who runs Brack?"))
        fresh.receiver.wait_for("proposal.rejected")
        (listed,) = people.call(people.locked.admin, "GET", "/webhooks").json()["webhooks"]
        assert listed["url"] == "https://hooks.example.org:443"
        assert (listed["name"], listed["secrets"], listed["disabled"]) == ("audit", 1, False)
        reply = people.call(people.locked.admin, "GET", "/webhooks/audit/deliveries?limit=500")
        newest = reply.json()["deliveries"][0]
        assert newest["type"] == "proposal.rejected"
        assert newest["body"] == ""
        assert "t0ken" not in reply.text

    def test_only_an_admin_of_every_namespace_sees_and_tries_them(self, watched: Watched) -> None:
        people = watched.people
        bound = people.locked.key("admin", "legal")
        calls = (
            ("GET", "/webhooks"),
            ("GET", "/webhooks/audit/deliveries"),
            ("POST", "/webhooks/audit:test"),
        )
        for method, path in calls:
            for key in (people.ann, people.bo, bound):
                assert people.call(key, method, path).status_code == 403
            assert people.call(people.locked.admin, method, path).status_code == 200
        missing = people.call(people.locked.admin, "POST", "/webhooks/other:test")
        assert missing.status_code == 404
        assert missing.json()["type"].endswith("webhook-not-found")

    def test_the_commands(self, fresh: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
        people, receiver = fresh.people, fresh.receiver
        monkeypatch.setenv("SERAC_URL", people.locked.url)
        monkeypatch.setenv("COLUMNS", "300")

        def run(*arguments: str, code: int = 0) -> Result:
            result = CliRunner().invoke(
                app, ["webhooks", *arguments], env={"SERAC_API_KEY": people.locked.admin}
            )
            assert result.exit_code == code, result.output
            return result

        assert "https://hooks.example.org:443" in run("list").stdout
        assert "delivered" in run("test", "audit").stdout
        assert receiver.wait_for("webhook.test")["data"]["webhook"] == "audit"
        receiver.statuses = deque([503])
        assert "status 503" in run("test", "audit", code=1).output
        assert "configured are: audit" in run("deliveries", "other", code=1).output
        people.propose(prompt="Who runs Tarn?")
        receiver.wait_for("proposal.opened")
        assert "proposal.opened" in run("deliveries", "audit").stdout
        assert json.loads(run("list", "--json").stdout)[0]["name"] == "audit"

    def test_metrics_count_what_was_delivered(self, fresh: Watched) -> None:
        people = fresh.people
        people.propose(prompt="Who runs Quay?")
        fresh.receiver.wait_for("proposal.opened")
        metrics = people.locked.call(people.locked.admin, "GET", "/metrics").text
        assert 'serac_webhook_events_total{outcome="delivered",webhook="audit"}' in metrics


class TestAWholeGateway:
    """As `serac serve` puts it together: real sending, reloads, and what the clock brings."""

    def text(self, receiver: ScriptedUpstream, **fields: str) -> str:
        rows = "".join(f"{name} = {value}\n" for name, value in fields.items())
        governed = "governance.namespaces.legal.required = []\n"  # its proposals are looked at
        return f'{governed}[webhooks.ops]\nurl = "{receiver.url}"\nallowed_networks = ["127.0.0.1"]\n{rows}'

    async def test_reloads_are_announced_and_a_webhook_without_secret_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SERAC_WEBHOOK_SECRET_OPS", SECRET)
        async with (
            ScriptedUpstream(take) as receiver,
            reloadable_gateway(tmp_path, self.text(receiver)) as gateway,
        ):
            gateway.configure("models.answer_timeout_s = 20.0\n" + self.text(receiver))
            assert (await gateway.reload()).status == 200
            (reloaded,) = await events(receiver, 1)
            assert reloaded["type"] == "config.reloaded"
            assert reloaded["data"]["changed"] == ["models.answer_timeout_s"]
            gateway.configure(self.text(receiver) + '[webhooks.more]\nurl = "https://hooks.example.org"\n')
            refused = await gateway.reload()
            assert refused.status == 409
            assert "SERAC_WEBHOOK_SECRET_MORE" in refused.body.decode()
            assert (await events(receiver, 2))[1]["type"] == "config.refused"

    async def test_after_a_410_a_reload_without_a_change_sends_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SERAC_WEBHOOK_SECRET_OPS", SECRET)
        async with (
            ScriptedUpstream(gone) as receiver,
            reloadable_gateway(tmp_path, self.text(receiver)) as gateway,
        ):
            gateway.file.write_text("nonsense = 1\n", "utf-8")
            assert (await gateway.reload()).status == 409
            await events(receiver, 1)
            await until_disabled(gateway.process.webhooks, disabled=True)
            receiver.script = take
            gateway.configure(self.text(receiver))
            assert (await gateway.reload()).status == 200
            await until_disabled(gateway.process.webhooks, disabled=False)
            gateway.file.write_text("nonsense = 1\n", "utf-8")
            await gateway.reload()
            assert (await events(receiver, 2))[1]["type"] == "config.refused"

    async def test_due_reviews_are_one_event_a_day_and_expiry_is_noticed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SERAC_WEBHOOK_SECRET_OPS", SECRET)
        async with (
            ScriptedUpstream(take) as receiver,
            reloadable_gateway(tmp_path, self.text(receiver)) as gateway,
        ):
            process = gateway.process
            draft = EditDraft(prompt="Q?", target_new="A", review_by=datetime.now(UTC).date())
            edit = first_version(draft, namespace="legal")
            await process.active_edits.apply("legal", [stored_edit(edit, WordEncoder())])
            past = datetime.now(UTC) - timedelta(days=1)
            old = proposal(created_at=past - timedelta(days=1), expires_at=past, edit_ids=("new",))
            added = first_version(EditDraft(prompt="Q2?", target_new="B", id="new"), namespace="legal")
            change = ProposedChange(action=Action.ADD, edit=added)
            await process.store.proposals().open(old, [change])
            proposals = gateway.runtimes.current.control_plane.proposals
            for _ in range(3):
                await look_once(
                    process.webhooks,
                    store=process.store,
                    active_edits=process.active_edits,
                    proposals=proposals,
                )
            expired, due = sorted(await events(receiver, 2), key=lambda event: str(event["type"]))
            await asyncio.sleep(0.2)
            assert len(receiver.requests) == 2
        assert (expired["type"], expired["data"]["proposal_id"]) == ("proposal.expired", old.id)
        assert expired["data"]["by"] is None
        assert (due["type"], due["data"]["edit_ids"]) == ("review.due", [edit.id])


async def take(request: ReceivedRequest, connection: ScriptedConnection) -> None:
    await connection.whole(200, b"")


async def gone(request: ReceivedRequest, connection: ScriptedConnection) -> None:
    await connection.whole(410, b"")


async def events(receiver: ScriptedUpstream, count: int) -> list[dict]:
    async with asyncio.timeout(10):
        while len(receiver.requests) < count:
            await asyncio.sleep(0.01)
    return [json.loads(request.body) for request in receiver.requests]


async def until_disabled(webhooks: object, *, disabled: bool) -> None:
    async with asyncio.timeout(10):
        while [state.is_disabled for state in await webhooks.states()] != [disabled]:  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)
