"""The admin of one namespace reaches nothing of another, by backups that verify or by any call.

Field reports A1 and A2. Every record that a stranger may make up is in tests/contracts/test_backups.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from serac_gateway.auth.principals import Role
from serac_gateway.domain.edits import EditDraft, first_version
from serac_gateway.stores.log_verification import verify_log
from serac_gateway.stores.memory.store import InMemoryEditStore
from tests.attacks.attacked_gateway import (
    EDITED_QUESTION,
    FACT,
    NEW_ANSWER,
    SUPPRESSED_QUESTION,
    SUPPRESSION,
    AttackedGateway,
    attacked_gateway,
    chat,
    is_answered_here,
)
from tests.contracts.made_backups import StrangersBackup

pytestmark = pytest.mark.asyncio(loop_scope="module")

IDS = ("mayor", "hidden")
OWN = first_version(EditDraft(id="own", prompt="What is ours?", target_new="This."), namespace="acme")
OF_BOLT = first_version(EditDraft(id="mayor", prompt=EDITED_QUESTION, target_new="Eve"), namespace="bolt")
FORGED = {
    "records of another namespace": StrangersBackup("acme").entry(OF_BOLT, edit_id="mayor"),
    "a record under another's id": StrangersBackup("acme").entry(OWN, edit_id="mayor"),
    "another version": StrangersBackup("acme").entry(msgspec.structs.replace(OWN, version=9), edit_id="own"),
    "no vectors at all": StrangersBackup("acme").entry(OWN, edit_id="own").vectors(
        "own", 2, value=float("nan"), fingerprint="seeing", width=64
    ),
    "vectors of another width": StrangersBackup("acme").entry(OWN, edit_id="own").vectors(
        "own", 2, fingerprint="seeing", width=3
    ),
    "texts beyond the limits": StrangersBackup("acme").entry(
        msgspec.structs.replace(OWN, paraphrases=("x" * 500,) * 3_000), edit_id="own"
    ),
    "only itself": StrangersBackup("acme").entry(OWN, edit_id="own"),
}  # fmt: skip
"""Backups whose hashes are right, each by what is wrong with it."""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AttackedGateway]:
    """Namespace bolt has a fact and a suppression, acme was never used."""
    async with attacked_gateway(tmp_path_factory.mktemp("tenants"), "access.required = true") as running:
        await running.add(FACT, SUPPRESSION, namespace="bolt")
        yield running


async def assert_bolt_is_as_it_was(gateway: AttackedGateway) -> None:
    for edit_id, draft in zip(IDS, (FACT, SUPPRESSION), strict=True):
        reply = await gateway.call("GET", f"/serac/v1/edits/{edit_id}", namespace="bolt")
        edit = reply.json()
        assert (edit["version"], edit["state"], edit["target_new"]) == (1, "live", draft["target_new"])
    admin = ("x-serac-api-key", gateway.admin)
    for question in (EDITED_QUESTION, SUPPRESSED_QUESTION):
        assert is_answered_here(await gateway.post(chat(question), admin, ("x-serac-namespace", "bolt")))


@pytest.mark.parametrize("name", FORGED)
@pytest.mark.parametrize("query", ["", "?accept_unsealed=true"])
async def test_no_backup_gets_an_admin_into_another_namespace_or_stops_a_start(
    gateway: AttackedGateway, tmp_path: Path, name: str, query: str
) -> None:
    key = await gateway.key(Role.ADMIN, "acme")
    content = b"\n".join(FORGED[name].lines())
    headers = {"content-type": "application/x-ndjson"}
    path = f"/serac/v1/store:restore{query}"
    refused = await gateway.call("POST", path, key=key, namespace="acme", content=content, headers=headers)
    assert refused.status_code in (400, 403), refused.text
    assert len(refused.json()["detail"].split()) > 4
    store = gateway.gateway.process.store
    assert isinstance(store, InMemoryEditStore)
    assert await store.namespaces() == ["bolt"]
    await assert_bolt_is_as_it_was(gateway)
    for edit_id in IDS:
        for method, call in (("PATCH", ""), ("DELETE", ""), ("POST", ":purge"), ("POST", ":rollback")):
            body = {"PATCH": {"target_new": "Eve"}, ":purge": {"reason": "x"}, ":rollback": {"version": 1}}
            reply = await gateway.call(
                method,
                f"/serac/v1/edits/{edit_id}{call}",
                key=key,
                namespace="acme",
                headers={"if-match": '"1"'},
                json=body.get(call or method, {}),
            )
            assert reply.status_code == 404
            assert NEW_ANSWER not in reply.text
    await assert_bolt_is_as_it_was(gateway)
    async with attacked_gateway(tmp_path, store=store) as started_anew:
        assert (await verify_log(store, "bolt")).length == 2
        reply = await started_anew.post(chat(EDITED_QUESTION), ("x-serac-namespace", "bolt"))
        assert is_answered_here(reply)


async def test_conflicts_show_a_tenant_its_own_edits_alone(gateway: AttackedGateway) -> None:
    key = await gateway.key(Role.EDIT, "core")
    for draft in (
        {"prompt": EDITED_QUESTION, "target_new": "zzz"},
        {"prompt": EDITED_QUESTION, "target_new": "y"},
    ):
        reply = await gateway.call("POST", "/serac/v1/edits", key=key, namespace="core", json=draft)
        assert reply.status_code == 201
        assert NEW_ANSWER not in reply.text
    assert "zzz" in reply.text, "its own contradiction is reported"
    for path in ("edits", "log", "stats", "edits:export", "edits?q=mayor", "namespaces"):
        listed = await gateway.call("GET", f"/serac/v1/{path}", key=key, namespace="core")
        assert NEW_ANSWER not in listed.text
        assert "bolt" not in listed.text


async def test_a_key_of_one_namespace_gets_a_403_for_every_call_in_another(gateway: AttackedGateway) -> None:
    key = await gateway.key(Role.ADMIN, "acme")
    bodies = {
        "edits": FACT, "rollback": {"log_id": "0-0"}, "edits/mayor:purge": {"reason": "asked for"},
        "edits/mayor:rollback": {"version": 1}, "scope": {"queries": [EDITED_QUESTION]},
        "edits:preview": {"edit": {"prompt": EDITED_QUESTION, "target_new": "x"}}, "store:repair": {},
    }  # fmt: skip
    calls = [("POST", path) for path in bodies] + [("DELETE", "edits/mayor"), ("PATCH", "edits/mayor")]
    calls += [("GET", path) for path in ("edits", "edits/mayor", "log", "store:backup", "store:check")]
    for method, path in calls:
        reply = await gateway.call(
            method,
            f"/serac/v1/{path}",
            key=key,
            namespace="bolt",
            headers={"if-match": '"1"'} if "mayor" in path else {},
            json=bodies.get(path, {"target_new": "x"}) if method in ("POST", "PATCH") else None,
        )
        assert reply.status_code == 403, (path, reply.text)
    own = ("x-serac-api-key", key)
    reply_there = await gateway.post(chat(EDITED_QUESTION), own, ("x-serac-namespace", "bolt"))
    assert reply_there.status == 403
    await assert_bolt_is_as_it_was(gateway)
