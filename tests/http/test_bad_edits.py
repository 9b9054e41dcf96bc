"""What must never become an edit is refused with the reason, before anything of it reaches the store."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from serac_gateway.stores.memory.store import InMemoryEditStore
from serac_gateway.stores.ports import NamespaceRestorer
from serac_gateway.stores.records import Commit, Receipt
from tests.control_plane import ControlPlane, running_control_plane
from tests.http.wire import connected, read_body, read_head

DRAFT = {"prompt": "Who runs the harbour office of Marrowby?", "target_new": "Ottilie Brandvold"}


class WatchedStore(InMemoryEditStore):
    """Counts what might change it."""

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0

    async def commit(self, namespace: str, commit: Commit) -> Receipt:
        self.writes += 1
        return await super().commit(namespace, commit)

    def restorer(self, namespace: str) -> NamespaceRestorer:
        self.writes += 1
        return super().restorer(namespace)


@pytest.fixture(scope="module")
def running() -> Iterator[ControlPlane]:
    with running_control_plane(WatchedStore()) as control_plane:
        yield control_plane


@pytest.fixture
def untouched(running: ControlPlane) -> Iterator[ControlPlane]:
    """One whose store must not be asked for any change."""
    store = running.store
    assert isinstance(store, WatchedStore)
    store.writes = 0
    yield running
    assert store.writes == 0


def assert_refused(reply: httpx.Response, *statuses: int) -> dict[str, object]:
    assert reply.status_code in (statuses or (400,)), (reply.status_code, reply.text)
    assert reply.headers["content-type"] == "application/problem+json"
    problem: dict[str, object] = reply.json()
    assert problem["detail"]
    return problem


WRONG_TYPES = [1, 1.5, True, [], {}, ["x"], [[]], {"a": 1}]
PROPOSAL = f"pr_{'0' * 22}"
TEXTS = ("prompt", "target_new", "target_true", "subject", "author", "reason", "source")
NOTES = ("ticket", "institution", "legal_basis", "source_url")
BAD_FIELDS = [
    *((name, value) for name in (*TEXTS, "id", "kind", "state", "valid_from") for value in WRONG_TYPES),
    *((name, value) for name in (*NOTES, "source_sha256", "review_by") for value in (1, ["x"])),
    *((name, value) for name in TEXTS for value in ("", " \t\n", "\ud800", "x" * 2_001)),
    *((name, value) for name in NOTES for value in ("", "\ud800", "x" * 2_001)),
    *(("source_url", value) for value in ("javascript:alert(1)", "//a/b", "https://", "https://u:p@a/b")),
    *(("source_sha256", value) for value in ("", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n")),
    *(("review_by", value) for value in ("", "soon", "2027-02-30", "2027-12-01T00:00:00Z", "01.12.2027")),
    *(("prompt", value) for value in (None, "\udfff lone")),
    *(("id", value) for value in ("", "a b", "a/b", "..", "../a", "a\n", "a\r\nx: y", "a:b", "é", "{a}")),
    ("id", "a" * 65),
    *(("kind", value) for value in ("FACT", "", "rumour")),
    *(("state", value) for value in ("retired", "purged", "LIVE", "")),
    *(("canary_share", value) for value in (-0.1, 1.1, "0.5", [], True, 1e400)),
    *(("valid_from", value) for value in ("", "now", "2026-01-01", "2026-01-01T00:00:00")),
    ("valid_from", "2026-13-01T00:00:00Z"),
    *(("paraphrases", value) for value in ("x", 1, {}, [1], [None], [""], ["x" * 2_001], ["\ud800"])),
    ("paraphrases", ["x"] * 33),
    *(("aliases", value) for value in ("x", 1, {}, [1], [None], [""], [" "], ["x" * 201], ["\ud800"])),
    *(("aliases", value) for value in (["a\x07b"], ["a\nb"], ["\u200b"], ["a", "A"], ["x"])),
    ("aliases", ["x"] * 201),
    *((name, 1) for name in ("version", "namespace", "created_at", "nonsense", "__class__", "")),
]  # fmt: skip


def as_json(content: object) -> bytes:
    return json.dumps(content).encode()  # with escapes, so that lone surrogates come as JSON writes them


@pytest.mark.parametrize(("name", "value"), BAD_FIELDS, ids=lambda value: repr(value)[:40])
def test_a_draft_with_a_bad_field_is_refused_by_every_call_that_takes_one(
    untouched: ControlPlane, name: str, value: object
) -> None:
    body = as_json({**DRAFT, name: value})
    headers = {"content-type": "application/json"}
    for path in ("/edits", "/edits:preview"):
        assert_refused(untouched.client.post(path, content=body, headers=headers))
    (outcome,) = untouched.client.post("/edits:import", content=body).text.splitlines()
    assert json.loads(outcome)["error"]["status"] == 400


@pytest.mark.parametrize("missing", ["prompt", "target_new"])
def test_a_draft_without_what_it_needs_is_refused_by_name(untouched: ControlPlane, missing: str) -> None:
    body = {name: text for name, text in DRAFT.items() if name != missing}
    assert missing in str(assert_refused(untouched.client.post("/edits", json=body))["detail"])


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b'"x"', b"{", b'{"prompt"', b"\xff\xfe", b'{"prompt": "\xff"}', b"NaN"],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/edits"), ("POST", "/edits:preview"), ("PATCH", "/edits/a"), ("POST", "/edits/a:rollback"),
        ("POST", "/edits/a:purge"), ("POST", "/rollback"), ("POST", "/scope"), ("POST", "/store:restore"),
        ("POST", "/edits:retire"), ("POST", f"/proposals/{PROPOSAL}:approve"),
        ("POST", f"/proposals/{PROPOSAL}:reject"), ("POST", f"/proposals/{PROPOSAL}:withdraw"),
    ],
)  # fmt: skip
def test_a_body_that_is_no_object_reaches_nothing(
    running: ControlPlane, method: str, path: str, body: bytes
) -> None:
    before = len(running.client.get("/log").json()["entries"])
    headers = {"if-match": '"1"', "content-type": "application/json"}
    assert_refused(running.client.request(method, path, content=body, headers=headers))
    assert len(running.client.get("/log").json()["entries"]) == before


CALLS_ON_ONE_EDIT = [
    ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/versions"), ("POST", ":restore"),
    ("POST", ":rollback"), ("POST", ":purge"), ("POST", ":verify"),
]  # fmt: skip
TRICKS = [
    "%2e%2e", "..%2fx", "a%2fb", "a%5cb", "a%00b", "a%0d%0ax-evil:%201", "a%20b", "%7bdefault%7d",
    "a%3acurrent", "*", "%ff", "%c3%a9", "a" * 65, "-a", "_a", "a;b", "$(a)", "a'b", "%2500",
]  # fmt: skip


@pytest.mark.parametrize(("method", "call"), CALLS_ON_ONE_EDIT)
@pytest.mark.parametrize("trick", TRICKS)
def test_an_id_that_plays_tricks_with_paths_or_keys_is_refused(
    untouched: ControlPlane, method: str, call: str, trick: str
) -> None:
    body = {":rollback": {"version": 1}, ":purge": {"reason": "x"}, "": {"target_new": "x"}}.get(call, {})
    more = {} if method in ("GET", "DELETE") else {"json": body}
    reply = untouched.client.request(method, f"/edits/{trick}{call}", headers={"if-match": '"1"'}, **more)
    # 404 and 405: what the path then names is no call at all.
    assert_refused(reply, 400, 404, 405)


def test_an_id_with_a_colon_is_refused_as_an_id(untouched: ControlPlane) -> None:
    for edit_id in ("a%3A", "%3A", "a:b", "a:restore"):
        reply = untouched.client.post(f"/edits/{edit_id}:restore", json={}, headers={"if-match": "*"})
        assert assert_refused(reply, 400)["field"] == "id"


@pytest.mark.parametrize(
    "namespace",
    [
        "",
        "..",
        "../x",
        "a/b",
        "A",
        "a.b",
        "a:b",
        "{a}",
        "a}:x{",
        "*",
        "-a",
        "a b",
        "a" * 64,
        "a\tb",
        "é",
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/edits"), ("GET", "/edits"), ("GET", "/edits/a"), ("GET", "/log"), ("GET", "/store:backup")],
)
def test_a_namespace_that_plays_tricks_is_refused(
    untouched: ControlPlane, method: str, path: str, namespace: str
) -> None:
    headers = {"x-serac-namespace": namespace.encode("latin-1")}
    more = {"json": DRAFT} if method == "POST" else {}
    problem = assert_refused(untouched.client.request(method, path, headers=headers, **more))
    assert problem["field"] == "x-serac-namespace"


BREAKING_OUT = [b"a\x00b", b"a\nx-evil: 1", b"a\rx-evil: 1", b"\x7f", b"\xff\xfe", b"a\x1bb"]


@pytest.mark.parametrize("name", ["x-serac-namespace", "idempotency-key", "if-match", "x-serac-wait"])
@pytest.mark.parametrize(
    "value", [b"a\x00b", b"a\nx-evil: 1", b"a\rx-evil: 1", b"\x7f", b"\xff\xfe", b"a\x1bb"]
)
async def test_a_header_that_breaks_out_of_its_line_is_refused(
    untouched: ControlPlane, name: str, value: bytes
) -> None:
    body = as_json(DRAFT)
    head = b"POST /serac/v1/edits/a:restore HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    if name != "if-match":
        head = head.replace(b"/edits/a:restore", b"/edits")
    head += b"content-length: %d\r\n%s: %s\r\n\r\n" % (len(body), name.encode(), value)
    async with connected(untouched.url) as (reader, writer):
        writer.write(head + body)
        reply = await read_head(reader)
        await read_body(reader, reply)
    assert reply.status == 400, reply
    assert reply.all("x-evil") == []


def test_a_line_of_50_mb_is_refused_and_the_next_one_taken() -> None:
    with running_control_plane(InMemoryEditStore()) as control_plane:

        def chunks() -> Iterator[bytes]:
            yield b'{"prompt": "'
            for _ in range(50):
                yield b"x" * 1_000_000
            yield b'"}\n' + as_json(DRAFT)

        replies = control_plane.client.post("/edits:import", content=chunks()).text.splitlines()
        outcomes = [json.loads(line) for line in replies]
        assert "longer than 1,048,576 bytes" in outcomes[0]["error"]["detail"]
        assert [outcome["line"] for outcome in outcomes] == [1, 2]
        assert outcomes[1]["added"]


def test_an_id_that_stands_twice_in_a_file_is_added_once_and_reported() -> None:
    with running_control_plane(InMemoryEditStore()) as control_plane:
        lines = [DRAFT | {"id": "a"}, DRAFT | {"id": "a"}, DRAFT | {"id": "a", "target_new": "Another"}]
        reply = control_plane.client.post("/edits:import", content=b"\n".join(map(as_json, lines)))
        outcomes = [json.loads(line) for line in reply.text.splitlines()]
        assert [outcome.get("added") for outcome in outcomes] == [True, False, None]
        assert outcomes[2]["error"]["status"] == 409
        assert len(control_plane.client.get("/log").json()["entries"]) == 1
