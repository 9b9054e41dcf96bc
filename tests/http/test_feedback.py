"""Reports on requests over HTTP, from the request to the training data."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from serac_gateway.config.model import TrafficConfig
from serac_gateway.domain.vectors import Vectors
from serac_gateway.testing import WordEncoder
from tests.control_plane import running_whole_gateway
from tests.http.test_metrics import samples
from tests.locked_gateway import running_locked_gateway
from training.data.own_data import own_pairs, read_edits, read_traffic

EDITED, NEAR, OTHER = "Who runs the harbour office?", "Who runs the harbour?", "How do I boil an egg?"
RECORDED = TrafficConfig(namespaces=("default",))


class Asking:
    """A client of both planes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.control = httpx.Client(base_url=f"{url}/serac/v1", timeout=30)

    def add(self, prompt: str = EDITED, **more: object) -> str:
        reply = self.control.post("/edits", json={"prompt": prompt, "target_new": "Ottilie", **more})
        return str(reply.json()["id"])

    def ask(self, question: str, *turns: str, namespace: str = "default") -> str:
        """The id of a request that was answered."""
        messages = [{"role": "user", "content": turn} for turn in (*turns, question)]
        reply = httpx.post(
            f"{self.url}/v1/chat/completions",
            json={"model": "m", "messages": messages},
            headers={"x-serac-namespace": namespace},
        )
        assert reply.status_code == 200
        return reply.headers["x-request-id"]

    def report(self, request_id: str, verdict: str, **more: object) -> httpx.Response:
        return self.control.post("/feedback", json={"request_id": request_id, "verdict": verdict, **more})

    def exported(self, **query: str) -> list[dict[str, Any]]:
        lines = self.control.get("/feedback:export", params=query).text.splitlines()
        return [httpx.Response(200, text=line).json() for line in lines]


@pytest.fixture
def recorded() -> Iterator[Asking]:
    with running_whole_gateway(lambda prompt: " I do not know.", traffic=RECORDED) as url:
        asking = Asking(url)
        yield asking
        asking.control.close()


@pytest.fixture
def private() -> Iterator[Asking]:
    with running_whole_gateway(lambda prompt: " I do not know.") as url:
        asking = Asking(url)
        yield asking
        asking.control.close()


def test_a_report_holds_what_was_decided_and_no_text_unless_traffic_is_recorded(private: Asking) -> None:
    edit_id = private.add()
    reply = private.report(private.ask(EDITED), "right", comment="Good.")
    assert reply.status_code == 201
    report = reply.json()
    assert (report["verdict"], report["comment"]) == ("right", "Good.")
    request = report["request"]
    assert (request["route"], request["edit_id"], request["edit_version"]) == ("counterfactual", edit_id, 1)
    assert request["scope_probability"] == pytest.approx(1.0)
    assert request["query"] is None
    assert private.exported() == [report]


def test_where_traffic_is_recorded_the_text_is_kept_redacted(recorded: Asking) -> None:
    recorded.add()
    request_id = recorded.ask("Who runs the harbour office? Mail jo@example.org")
    kept = recorded.report(request_id, "should_have_fired").json()["request"]["query"]
    assert kept.startswith("Who runs the harbour office?")
    assert "jo@example.org" not in kept


def test_a_report_may_bring_the_text_which_is_redacted_too(private: Asking) -> None:
    private.add()
    reply = private.report(
        private.ask(NEAR), "should_have_fired", query="Who runs the harbour? ask jo@example.org"
    )
    kept = reply.json()["request"]["query"]
    assert kept.startswith("Who runs the harbour?")
    assert "jo@" not in kept


def test_a_request_that_is_not_remembered_is_refused_with_what_to_do(private: Asking) -> None:
    private.add()
    reply = private.report("req_unknown", "right")
    assert (reply.status_code, reply.json()["field"]) == (404, "request_id")
    assert "x-request-id" in reply.json()["detail"]


def test_a_request_of_another_namespace_cannot_be_reported_on(private: Asking) -> None:
    private.control.post(
        "/edits",
        json={"prompt": EDITED, "target_new": "O"},
        headers={"x-serac-namespace": "acme"},
    )
    assert private.report(private.ask(EDITED, namespace="acme"), "right").status_code == 404


@pytest.mark.parametrize("verdict", ["should_not_have_fired", "wrong_answer"])
def test_what_did_not_fire_cannot_be_blamed(private: Asking, verdict: str) -> None:
    private.add()
    reply = private.report(private.ask(OTHER), verdict)
    assert (reply.status_code, reply.json()["field"]) == (400, "verdict")


@pytest.mark.parametrize(
    ("body", "field"),
    [({"verdict": "meh"}, "verdict"), ({"verdict": "right", "edit_id": "a b"}, "id")],
)
def test_what_is_no_report_is_refused(private: Asking, body: dict[str, str], field: str) -> None:
    private.add()
    reply = private.control.post("/feedback", json={"request_id": private.ask(EDITED), **body})
    assert reply.status_code == 400
    assert field in reply.text


def test_a_comment_has_a_limit(private: Asking) -> None:
    private.add()
    reply = private.report(private.ask(EDITED), "right", comment="x" * 2_001)
    assert (reply.status_code, reply.json()["limit"]) == (400, 2_000)


def test_reports_are_counted_for_prometheus(private: Asking) -> None:
    private.add()
    private.report(private.ask(EDITED), "should_not_have_fired")
    counted = samples(httpx.get(f"{private.url}/metrics").text)
    assert counted["serac_feedback_total", "default", "should_not_have_fired"] == 1


def test_reports_can_be_deleted(private: Asking) -> None:
    private.add()
    private.report(private.ask(EDITED), "right")
    assert private.control.delete("/feedback").json() == {"cleared": 1}
    assert private.exported() == []


def test_an_export_becomes_training_data(recorded: Asking, tmp_path: Path) -> None:
    harbour, ferry = recorded.add(), recorded.add("When does the ferry leave?")
    gone = recorded.add("What is the toll?")
    recorded.report(recorded.ask(EDITED), "right")
    fired_wrongly = recorded.ask("Who runs the harbour office now?")
    recorded.report(fired_wrongly, "right")
    recorded.report(fired_wrongly, "should_not_have_fired")  # the last report holds
    recorded.report(recorded.ask("ferry leave time"), "should_have_fired", edit_id=ferry)
    recorded.report(recorded.ask("harbour boss"), "should_have_fired")  # the nearest one is meant
    recorded.report(recorded.ask(OTHER), "right")
    recorded.report(recorded.ask("What is the toll?"), "right")
    recorded.report(recorded.ask("And the toll?", "Tell me of Marrowby."), "should_have_fired", edit_id=ferry)
    etag = recorded.control.get(f"/edits/{gone}").headers["etag"]
    recorded.control.delete(f"/edits/{gone}", headers={"if-match": etag})

    edits_file, traffic_file = tmp_path / "edits.jsonl", tmp_path / "traffic.jsonl"
    edits_file.write_bytes(recorded.control.get("/edits:export").content)
    traffic_file.write_bytes(recorded.control.get("/feedback:export", params={"training": "true"}).content)
    edits = read_edits(edits_file)
    traffic = read_traffic(traffic_file, edits)
    assert [(row.query, row.edit_id) for row in traffic] == [
        (EDITED, harbour),
        ("Who runs the harbour office now?", None),
        ("ferry leave time", ferry),
        ("harbour boss", harbour),
        (OTHER, None),
        ("And the toll?", ferry),
    ]
    assert [row.context for row in traffic if row.context] == [("Tell me of Marrowby.",)]
    pairs = own_pairs(edits, traffic, embed, random.Random(0))
    labels = {(pair.prompt, pair.text): pair.in_scope for pair in pairs}
    assert labels[EDITED, "harbour boss"] is True
    assert labels[EDITED, "Who runs the harbour office now?"] is False


def embed(texts: list[str]) -> Vectors:
    return np.asarray(WordEncoder().encode(texts))


def test_a_chat_key_may_report_and_only_an_edit_key_may_read_reports() -> None:
    with running_locked_gateway() as locked:
        locked.call(locked.admin, "POST", "/serac/v1/edits", json={"prompt": EDITED, "target_new": "O"})
        chat = locked.key("chat", "default")
        answered = locked.call(
            chat,
            "POST",
            "/v1/chat/completions",
            json={"model": "m", "messages": [{"role": "user", "content": EDITED}]},
        )
        report = {"request_id": answered.headers["x-request-id"], "verdict": "right"}
        reply = locked.call(chat, "POST", "/serac/v1/feedback", json=report)
        assert (reply.status_code, reply.json()["key_id"]) == (201, chat.split("-")[2])
        assert reply.json()["request"] | {"at": ""} == {
            "request_id": report["request_id"],
            "at": "",
            "route": "counterfactual",
            "reason": "",
            "edit_id": None,
            "edit_version": None,
            "nearest_edit_id": None,
            "scope_probability": None,
            "similarity": None,
            "query": None,
            "context": [],
            "instructions": "",
            "trial": None,
        }
        assert locked.call(None, "POST", "/serac/v1/feedback", json=report).status_code == 401
        other_chat = locked.key("chat", "default")
        assert locked.call(other_chat, "POST", "/serac/v1/feedback", json=report).status_code == 404
        assert locked.call(chat, "GET", "/serac/v1/feedback:export").status_code == 403
        edit_key = locked.key("edit", "default")
        assert locked.call(edit_key, "GET", "/serac/v1/feedback:export").status_code == 200
        seen = locked.call(edit_key, "POST", "/serac/v1/feedback", json=report).json()["request"]
        assert seen["edit_id"] is not None
