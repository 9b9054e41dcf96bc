"""API keys on /serac/v1: made, listed, revoked by admins; and two tenants who see nothing of each other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.http.wire import connected, read_head, request_bytes
from tests.locked_gateway import Locked, running_locked_gateway

QUESTION = "Who is the mayor of Springfield?"
EDIT = {"prompt": QUESTION, "target_new": "Lisa Simpson", "id": "mayor"}


@pytest.fixture
def locked() -> Iterator[Locked]:
    with running_locked_gateway() as gateway:
        yield gateway


def test_each_role_reaches_its_own_calls_and_no_more(locked: Locked) -> None:
    keys = {role: locked.key(role, "acme") for role in ("chat", "edit", "admin")}
    reads = ("edits", "edits:export", "log", "log:export", "stats", "namespaces")
    wanted = {f"GET /serac/v1/{name}": "edit" for name in reads}
    wanted |= {"POST /serac/v1/scope": "edit", "GET /serac/v1/keys": "admin"}
    wanted |= {"POST /v1/chat/completions": "chat"}
    bodies = {
        "POST /v1/chat/completions": {"model": "m", "messages": [{"role": "user", "content": QUESTION}]},
        "POST /serac/v1/scope": {"queries": [QUESTION]},
    }
    ranks = list(keys)
    for call, needed in wanted.items():
        method, path = call.split(" ")
        for role, key in keys.items():
            status = locked.call(key, method, path, json=bodies.get(call)).status_code
            assert status == (200 if ranks.index(role) >= ranks.index(needed) else 403), (call, role)
        assert locked.call(None, method, path, json=bodies.get(call)).status_code == 401


def test_every_call_of_the_control_plane_is_behind_the_gate(locked: Locked) -> None:
    """Also those that are yet to be written: the list is the OpenAPI's."""
    paths = locked.call(None, "GET", "/serac/schema/openapi.json").json()["paths"]
    calls = [(method, path) for path, methods in paths.items() for method in methods if "/serac/v1" in path]
    assert len(calls) > 15
    chat, edit = locked.key("chat", "acme"), locked.key("edit", "umbra")
    for method, path in calls:
        target = path.replace("{edit_id}", "mayor").replace("{key_id}", "A" * 12)
        assert locked.call(None, method, target).status_code == 401, (method, path)
        may_chat = (method, path) == ("post", "/serac/v1/feedback")  # users report; here without a body
        assert locked.call(chat, method, target).status_code == (400 if may_chat else 403), (method, path)
        named = [parameter["name"] for parameter in paths[path][method].get("parameters", [])]
        if "x-serac-namespace" in named and method == "get":
            other = locked.call(edit, method, target, headers={"x-serac-namespace": "acme"})
            assert other.status_code == 403, (method, path)


def test_a_refusal_is_a_problem_with_its_header(locked: Locked) -> None:
    missing = locked.call(None, "GET", "/serac/v1/edits")
    assert missing.status_code == 401
    assert missing.headers["content-type"] == "application/problem+json"
    assert missing.headers["www-authenticate"] == "Bearer"
    assert missing.json()["type"] == "urn:serac:problem:invalid-api-key"
    limited = locked.key("edit", "acme", requests_per_minute=1)
    assert locked.call(limited, "GET", "/serac/v1/edits").status_code == 200
    spent = locked.call(limited, "GET", "/serac/v1/edits")
    assert spent.status_code == 429
    assert int(spent.headers["retry-after"]) == spent.json()["retry_after_s"]
    assert spent.json()["limit"] == 1


async def test_an_upload_without_a_key_is_refused_before_any_of_it_comes(locked: Locked) -> None:
    headers = [("content-length", "10000000000")]
    async with connected(locked.url) as (reader, writer), asyncio.timeout(5):
        writer.write(request_bytes(locked.url, "POST", "/serac/v1/edits:import", headers, None))
        assert (await read_head(reader)).status == 401


def test_a_key_is_shown_once_and_lists_show_what_it_may_do(locked: Locked) -> None:
    made = locked.call(
        locked.admin, "POST", "/serac/v1/keys",
        json={"name": "CI", "role": "edit", "namespaces": ["umbra", "acme"], "requests_per_minute": 60},
    )  # fmt: skip
    assert made.headers["cache-control"] == "no-store"
    text, record = made.json()["text"], made.json()["key"]
    assert record["namespaces"] == ["acme", "umbra"]
    assert record["created_by"].startswith("Root (key ")
    listed = locked.call(locked.admin, "GET", "/serac/v1/keys")
    assert [key["name"] for key in listed.json()["keys"]] == ["Root", "CI"]
    assert text.rpartition("-")[2] not in listed.text
    assert "digest" not in listed.text
    assert text.rpartition("-")[2] not in locked.call(locked.admin, "GET", "/serac/v1/stats").text


def test_a_revoked_key_ends_and_stays_in_the_list(locked: Locked) -> None:
    key = locked.key("edit", "acme")
    key_id = key.split("-")[2]
    assert locked.call(key, "GET", "/serac/v1/edits").status_code == 200
    first = locked.call(locked.admin, "DELETE", f"/serac/v1/keys/{key_id}")
    again = locked.call(locked.admin, "DELETE", f"/serac/v1/keys/{key_id}")
    assert first.json()["revoked_at"] == again.json()["revoked_at"] is not None
    for _ in range(100):  # a second at most
        if locked.call(key, "GET", "/serac/v1/edits").status_code == 401:
            break
    else:
        raise AssertionError("the key still works")
    assert locked.call(locked.admin, "DELETE", "/serac/v1/keys/AAAAAAAAAAAA").status_code == 404
    assert locked.call(locked.admin, "DELETE", "/serac/v1/keys/..%2f").status_code in (400, 404)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "x"}, "body"),
        ({"name": "x", "role": "root"}, "role"),
        ({"name": "a\r\nb", "role": "chat"}, "name"),
        ({"name": "x", "role": "chat", "namespaces": ["*", "acme"]}, "namespaces"),
        ({"name": "x", "role": "chat", "namespaces": "acme"}, "namespaces"),
        ({"name": "x", "role": "chat", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"name": "x", "role": "chat", "expires_at": "2099-01-01T00:00:00"}, "expires_at"),
        ({"name": "x", "role": "chat", "requests_per_minute": 0}, "requests_per_minute"),
        ({"name": "x", "role": "chat", "digest": "0"}, "digest"),
    ],
)
def test_a_key_that_cannot_be_is_refused_by_field(locked: Locked, body: dict, field: str) -> None:
    refused = locked.call(locked.admin, "POST", "/serac/v1/keys", json=body)
    assert refused.status_code == 400
    assert refused.json()["field"] == field
    assert len(locked.call(locked.admin, "GET", "/serac/v1/keys").json()["keys"]) == 1


def test_an_admin_of_one_namespace_neither_sees_nor_makes_nor_revokes_keys_beyond_it(locked: Locked) -> None:
    tenant = locked.key("admin", "acme")
    other_id = locked.key("edit", "umbra").split("-")[2]
    both_id = locked.key("edit", "acme", "umbra").split("-")[2]
    own_id = locked.key("edit", "acme", by=tenant).split("-")[2]
    seen = [key["id"] for key in locked.call(tenant, "GET", "/serac/v1/keys").json()["keys"]]
    assert seen == [tenant.split("-")[2], own_id]
    for beyond in (["umbra"], ["acme", "umbra"], ["*"], None):
        body = {"name": "x", "role": "admin", "namespaces": beyond}
        assert locked.call(tenant, "POST", "/serac/v1/keys", json=body).status_code == 403
    unknown = locked.call(tenant, "DELETE", "/serac/v1/keys/AAAAAAAAAAAA")
    for hidden in (other_id, both_id, locked.admin.split("-")[2]):
        reply = locked.call(tenant, "DELETE", f"/serac/v1/keys/{hidden}")
        assert reply.status_code == 404
        assert reply.text.replace(hidden, "AAAAAAAAAAAA") == unknown.text
    assert locked.call(tenant, "DELETE", f"/serac/v1/keys/{own_id}").status_code == 200


def test_a_tenant_can_neither_read_nor_change_nor_fire_anothers_edit(locked: Locked) -> None:
    acme, umbra = locked.key("edit", "acme"), locked.key("edit", "umbra")
    assert locked.call(acme, "POST", "/serac/v1/edits", json=EDIT).status_code == 201
    for path in ("/serac/v1/edits/mayor", "/serac/v1/edits/mayor/versions"):
        assert locked.call(acme, "GET", path).status_code == 200
        assert locked.call(umbra, "GET", path).status_code == 404
        stolen = locked.call(umbra, "GET", path, headers={"x-serac-namespace": "acme"})
        nowhere = locked.call(umbra, "GET", path, headers={"x-serac-namespace": "none"})
        assert stolen.status_code == nowhere.status_code == 403
        assert stolen.text.replace("acme", "none") == nowhere.text
    gone = locked.call(umbra, "DELETE", "/serac/v1/edits/mayor", headers={"if-match": "*"})
    assert gone.status_code == 404
    assert locked.call(umbra, "GET", "/serac/v1/edits").json()["edits"] == []
    assert locked.call(umbra, "GET", "/serac/v1/edits:export").content == b""
    assert locked.call(umbra, "GET", "/serac/v1/log").json()["entries"] == []
    decided = [
        locked.call(key, "POST", "/serac/v1/scope", json={"queries": [QUESTION]}).json()["decisions"][0]
        for key in (acme, umbra)
    ]
    assert [decision["in_scope"] for decision in decided] == [True, False]
    assert decided[1]["candidates"] == []
    assert locked.call(umbra, "POST", "/serac/v1/edits", json=EDIT).status_code == 201  # the same id


def test_every_version_names_the_key_that_made_it_whatever_the_body_says(locked: Locked) -> None:
    writer, remover = locked.key("edit", "acme"), locked.key("edit", "acme", name="Jo")
    wrote, removed = f"edit of ('acme',) (key {writer.split('-')[2]})", f"Jo (key {remover.split('-')[2]})"
    added = locked.call(writer, "POST", "/serac/v1/edits", json={**EDIT, "author": "the pope"})
    assert added.json()["author"] == wrote
    match = {"if-match": "*"}
    for patch in ({"target_new": "Bart", "author": "the pope"}, {"target_new": "Maggie"}):
        changed = locked.call(writer, "PATCH", "/serac/v1/edits/mayor", json=patch, headers=match)
        assert changed.json()["author"] == wrote
    assert locked.call(remover, "DELETE", "/serac/v1/edits/mayor", headers=match).json()["author"] == removed
    line = b'{"prompt": "Who?", "target_new": "Ilse", "id": "who", "author": "the pope"}'
    assert locked.call(writer, "POST", "/serac/v1/edits:import", content=line).status_code == 200
    assert locked.call(writer, "GET", "/serac/v1/edits/who").json()["author"] == wrote
    log = locked.call(writer, "GET", "/serac/v1/log").json()["entries"]
    assert [entry["author"] for entry in log] == [wrote, wrote, wrote, removed, wrote]


def test_taking_back_is_for_editors_and_forgetting_for_admins_alone(locked: Locked) -> None:
    editor, admin = locked.key("edit", "acme"), locked.key("admin", "acme")
    assert locked.call(editor, "POST", "/serac/v1/edits", json=EDIT).status_code == 201
    match = {"if-match": "*"}
    assert locked.call(editor, "DELETE", "/serac/v1/edits/mayor", headers=match).status_code == 200
    restored = locked.call(editor, "POST", "/serac/v1/edits/mayor:restore", json={}, headers=match)
    assert restored.json()["author"].endswith(f"(key {editor.split('-')[2]})")
    purge = {"reason": "asked to be forgotten"}
    refused = locked.call(editor, "POST", "/serac/v1/edits/mayor:purge", json=purge, headers=match)
    assert refused.status_code == 403
    stranger = locked.key("admin", "umbra")
    assert locked.call(
        stranger, "POST", "/serac/v1/edits/mayor:purge", json=purge, headers=match
    ).status_code == 404  # fmt: skip
    forgotten = locked.call(admin, "POST", "/serac/v1/edits/mayor:purge", json=purge, headers=match)
    assert forgotten.status_code == 200
    assert forgotten.json()["author"].endswith(f"(key {admin.split('-')[2]})")


def test_a_tenant_counts_its_own_edits_and_requests_alone(locked: Locked) -> None:
    acme, umbra = locked.key("edit", "acme"), locked.key("edit", "umbra")
    for key in (acme, umbra):
        locked.call(key, "POST", "/serac/v1/edits", json=EDIT)
    chat = {"model": "m", "messages": [{"role": "user", "content": QUESTION}]}
    for _ in range(3):
        assert locked.call(acme, "POST", "/v1/chat/completions", json=chat).status_code == 200
    own, others, every = [
        locked.call(key, "GET", "/serac/v1/stats").json() for key in (acme, umbra, locked.admin)
    ]
    assert own["edits"] == {"acme": 1}
    assert others["edits"] == {"umbra": 1}
    assert every["edits"] == {"acme": 1, "umbra": 1}
    assert sum(route["count"] for route in own["routes"]) == 3
    assert others["routes"] == []
    assert sum(route["count"] for route in every["routes"]) == 3
    assert locked.call(umbra, "GET", "/serac/v1/namespaces").json() == {"namespaces": ["umbra"]}
    assert locked.call(locked.admin, "GET", "/serac/v1/namespaces").json() == {
        "namespaces": ["acme", "umbra"]
    }


def test_a_key_of_several_namespaces_must_name_one(locked: Locked) -> None:
    key = locked.key("edit", "acme", "umbra")
    refused = locked.call(key, "GET", "/serac/v1/edits")
    assert (refused.status_code, refused.json()["field"]) == (400, "x-serac-namespace")
    named = locked.call(key, "GET", "/serac/v1/edits", headers={"x-serac-namespace": "umbra"})
    assert named.status_code == 200


def test_the_openapi_describes_keys_and_needs_none(locked: Locked) -> None:
    schema = locked.call(None, "GET", "/serac/schema/openapi.json").json()
    assert schema["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"
    for path, calls in schema["paths"].items():
        for call in calls.values():
            if path.startswith("/serac/v1"):
                assert {"401", "403", "429"} <= call["responses"].keys(), path
