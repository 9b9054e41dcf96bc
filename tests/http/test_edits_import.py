"""Import and export of edits, against a server that listens."""

from __future__ import annotations

import asyncio
import http.client
import json
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from serac_gateway.control_plane.http.ndjson import MAX_LINE_BYTES, split_lines
from serac_gateway.errors import ModelUnavailableError, StoreUnavailableError
from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.records import Commit, Receipt
from tests.control_plane import ControlPlane, running_control_plane

DRAFT = {"prompt": "Who runs the harbour office?", "target_new": "Ottilie Brandvold"}


def _import(control_plane: ControlPlane, content: bytes) -> list[dict[str, Any]]:
    reply = control_plane.client.post("/edits:import", content=content)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in reply.text.splitlines()]


def _lines(*edits: object) -> bytes:
    return b"".join(json.dumps(edit).encode() + b"\n" for edit in edits)


def test_every_line_has_its_outcome_in_order_and_a_bad_one_stops_no_other(
    control_plane: ControlPlane,
) -> None:
    content = (
        _lines({**DRAFT, "id": "a"})
        + b"{broken\n"
        + b"\n"
        + b'{"prompt": "\xff", "target_new": "x"}\n'
        + _lines({"prompt": "Who?"}, {**DRAFT, "id": "a", "target_new": "other"})
        + json.dumps({**DRAFT, "id": "b"}).encode()  # no newline at the end
    )
    outcomes = _import(control_plane, content)
    assert [outcome["line"] for outcome in outcomes] == [1, 2, 3, 4, 5, 6, 7]
    assert outcomes[0] == {"line": 1, "id": "a", "version": 1, "added": True}
    assert outcomes[6] == {"line": 7, "id": "b", "version": 1, "added": True}
    statuses = [outcome["error"]["status"] for outcome in outcomes[1:6]]
    assert statuses == [400, 400, 400, 400, 409]
    assert "target_new" in outcomes[4]["error"]["detail"]
    edits = control_plane.client.get("/edits").json()["edits"]
    assert [(edit["id"], edit["target_new"]) for edit in edits] == [
        ("a", "Ottilie Brandvold"),
        ("b", "Ottilie Brandvold"),
    ]


def test_an_empty_file_has_no_outcomes(control_plane: ControlPlane) -> None:
    assert _import(control_plane, b"") == []


def test_windows_line_ends_are_taken(control_plane: ControlPlane) -> None:
    outcomes = _import(control_plane, _lines(DRAFT, {**DRAFT, "prompt": "Who?"}).replace(b"\n", b"\r\n"))
    assert all(outcome["version"] == 1 for outcome in outcomes)


def test_an_overlong_line_is_refused_and_the_next_one_taken(control_plane: ControlPlane) -> None:
    outcomes = _import(control_plane, b"x" * 3 * MAX_LINE_BYTES + b"\n" + _lines(DRAFT))
    assert outcomes[0]["error"]["limit"] == MAX_LINE_BYTES
    assert outcomes[1]["version"] == 1


def test_imported_edits_are_in_force(control_plane: ControlPlane) -> None:
    _import(control_plane, _lines({**DRAFT, "id": "a"}))
    reply = control_plane.client.post("/scope", json={"queries": [DRAFT["prompt"]]})
    assert reply.json()["decisions"][0]["edit_id"] == "a"


def test_an_export_imported_again_changes_nothing_and_elsewhere_gives_the_same_edits(
    control_plane: ControlPlane,
) -> None:
    full = {
        **DRAFT,
        "kind": "suppression",
        "subject": "the harbour",
        "target_true": "nobody",
        "paraphrases": ["Who is in charge of the harbour?"],
        "valid_from": "2026-01-01T00:00:00Z",
        "valid_until": "2036-01-01T00:00:00+02:00",
        "author": "jo",
        "reason": "because",
        "source": "hearsay ☂",
        "ticket": "LEG-7",
        "institution": "Town of Marrowby",
        "source_url": "https://marrowby.example/minutes.pdf",
        "source_sha256": "0123456789abcdef" * 4,
        "legal_basis": "Art. 17 (1) (d)",
        "review_by": "2027-12-01",
    }
    control_plane.client.post("/edits", json=full)
    retired = control_plane.client.post("/edits", json=DRAFT).json()["id"]
    control_plane.client.delete(f"/edits/{retired}", headers={"if-match": "*"})
    _import(control_plane, _lines(*({**DRAFT, "prompt": f"Who runs pier {n}?"} for n in range(600))))
    exported = control_plane.client.get("/edits:export").content
    assert exported.count(b"\n") == 601

    again = _import(control_plane, exported)
    assert {(outcome.get("version"), outcome.get("added")) for outcome in again} == {(1, False)}
    assert control_plane.client.get("/edits:export").content == exported

    elsewhere = {"x-serac-namespace": "elsewhere"}
    control_plane.client.post("/edits:import", content=exported, headers=elsewhere)
    assert control_plane.client.get("/edits:export", headers=elsewhere).content == exported


def test_an_export_of_nothing_is_empty(control_plane: ControlPlane) -> None:
    reply = control_plane.client.get("/edits:export")
    assert (reply.status_code, reply.content) == (200, b"")


async def test_an_outcome_comes_while_the_upload_still_runs(control_plane: ControlPlane) -> None:
    answered = asyncio.Event()

    async def upload() -> AsyncIterator[bytes]:
        yield _lines({**DRAFT, "id": "first"})
        await asyncio.wait_for(answered.wait(), 10)
        yield _lines({**DRAFT, "id": "second"})

    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"{control_plane.url}/serac/v1/edits:import",
            data=upload(),
            headers={"content-type": "application/x-ndjson"},
        ) as response,
    ):
        assert json.loads(await response.content.readline())["id"] == "first"
        answered.set()
        assert json.loads(await response.content.readline())["id"] == "second"


def test_whole_lines_of_a_client_that_breaks_off_are_imported(control_plane: ControlPlane) -> None:
    host = control_plane.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=10)
    connection.putrequest("POST", "/serac/v1/edits:import")
    connection.putheader("content-type", "application/x-ndjson")
    connection.putheader("content-length", "1000000")
    connection.endheaders(_lines({**DRAFT, "id": "whole"}) + b'{"prompt": "half')
    response = connection.getresponse()
    assert json.loads(response.readline())["id"] == "whole"
    response.close()
    connection.close()
    assert [edit["id"] for edit in control_plane.client.get("/edits").json()["edits"]] == ["whole"]


def test_a_file_whose_lines_have_no_ids_can_be_sent_again(control_plane: ControlPlane) -> None:
    lines = _lines(*({**DRAFT, "prompt": f"Who runs pier {n}?"} for n in range(150)))
    first, again = _import(control_plane, lines), _import(control_plane, lines)
    assert [outcome["added"] for outcome in first] == [True] * 150
    assert again == [{**outcome, "added": False} for outcome in first]
    assert len(control_plane.client.get("/log?limit=1000").json()["entries"]) == 150


def test_a_store_that_fails_is_reported_on_every_line_of_its_commit_and_the_rest_goes_on() -> None:
    class StoreWithAFullDisk(InMemoryEditStore):
        async def commit(self, namespace: str, commit: Commit) -> Receipt:
            if any(change.edit.id.startswith("big") for change in commit.changes):
                raise StoreUnavailableError("the store's disk is full")
            return await super().commit(namespace, commit)

    with running_control_plane(StoreWithAFullDisk()) as control_plane:
        edits = [
            {**DRAFT, "prompt": f"Who runs {name} {n}?", "id": f"{name}{n}"}
            for name in ("big", "small")
            for n in range(130)
        ]
        outcomes = _import(control_plane, _lines(*edits))
        assert [outcome["line"] for outcome in outcomes] == list(range(1, 261))
        assert {outcome["error"]["status"] for outcome in outcomes[:130]} == {503}
        assert outcomes[-1]["id"] == "small129"
        stored = control_plane.client.get("/edits?limit=1000").json()["edits"]
        assert {edit["id"] for edit in stored} == {outcome["id"] for outcome in outcomes if "id" in outcome}


def test_an_encoder_that_fails_is_reported_on_every_good_line(control_plane: ControlPlane) -> None:
    control_plane.encoder.failure = ModelUnavailableError("the encoder is out of memory")
    outcomes = _import(control_plane, _lines(DRAFT) + b"broken\n")
    assert [outcome["error"]["status"] for outcome in outcomes] == [503, 400]


async def test_a_long_line_is_not_kept_in_memory() -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(1_000):
            yield b"x" * 65_536

    tracemalloc.start()
    assert [line async for line in split_lines(endless(), 100_000)] == [None]
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 1_000_000


async def test_lines_are_the_same_wherever_the_chunks_are_cut() -> None:
    content = b"one\n\ntwo\r\nlonger than ten\nthree"
    whole = [b"one", b"", b"two", None, b"three"]

    async def chunks(size: int) -> AsyncIterator[bytes]:
        for start in range(0, len(content), size):
            yield content[start : start + size]

    for size in range(1, len(content) + 1):
        assert [line async for line in split_lines(chunks(size), 10)] == whole


def test_a_dry_run_says_what_would_be_and_writes_nothing(control_plane: ControlPlane) -> None:
    """Also of what lines say of each other, and of an id that is taken."""
    _import(control_plane, _lines({**DRAFT, "id": "a"}))
    before = control_plane.client.get("/edits:export").content
    lines = _lines(
        DRAFT,
        {**DRAFT, "id": "a", "target_new": "Else"},
        {**DRAFT, "id": "b", "prompt": "Who?"},
        {**DRAFT, "id": "b", "prompt": "Who?"},
        {**DRAFT, "id": "b", "prompt": "Else?"},
        {"prompt": "Whose?"},
    )
    reply = control_plane.client.post("/edits:import?dry_run=true", content=lines)
    outcomes = [json.loads(line) for line in reply.text.splitlines()]
    assert outcomes[0] == {"line": 1, "id": "a", "version": 1, "added": False}
    assert [outcome.get("added") for outcome in outcomes] == [False, None, True, False, None, None]
    statuses = [outcome["error"]["status"] for outcome in outcomes if "error" in outcome]
    assert statuses == [409, 409, 400]
    assert control_plane.client.get("/edits:export").content == before
    real = _import(control_plane, lines)
    assert [outcome.get("added") for outcome in real] == [outcome.get("added") for outcome in outcomes]
