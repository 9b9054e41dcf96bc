"""Where and when replies are watched: configuration, log, values, batches, workers, long replies."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from serac_gateway.domain.edits import EditKind
from serac_gateway.testing import ReceivedRequest, ScriptedConnection
from tests.attacks.attacked_gateway import (
    OTHER_QUESTION,
    REFUSAL,
    SUPPRESSED_QUESTION,
    SUPPRESSION,
    AttackedGateway,
    attacked_gateway,
    chat,
)
from tests.attacks.leaking_replies import (
    BEFORE,
    CHAT,
    COMPLETIONS,
    EVENTS,
    JSON,
    SUPPRESSIONS,
    WHOLE,
    answer_in,
    chat_stream,
    chunk,
    in_pieces,
    posted,
    replying,
)
from tests.http.running_gateway import running_gateway
from tests.unit.data_plane.test_text_watch import PASSWORD

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway_of_all(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AttackedGateway]:
    async with attacked_gateway(tmp_path_factory.mktemp("guard")) as gateway:
        await gateway.add(*SUPPRESSIONS)
        yield gateway


@pytest.fixture
def gateway(gateway_of_all: AttackedGateway) -> AttackedGateway:
    gateway_of_all.upstream.forget()
    return gateway_of_all


async def test_a_cut_stands_in_the_log_and_the_metrics_without_the_value(
    gateway: AttackedGateway, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    gateway.upstream.script = replying(WHOLE[0].body(["It is pelican77"]), 1, is_stream=False)
    reply = await posted(gateway, CHAT)
    lines = [record for record in caplog.records if "suppression hidden" in record.getMessage()]
    assert lines
    assert reply.one("x-serac-request-id") in lines[0].getMessage()
    everything = " ".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    assert "pelican77" not in everything.lower()
    metrics = (await gateway.call("GET", "/metrics")).text
    assert 'serac_replies_cut_total{namespace="default"}' in metrics
    assert 'reason="reply cut"' in metrics
    assert "pelican" not in metrics


@pytest.mark.parametrize(
    "text",
    ["suppression.guard_replies = false", "[suppression.namespaces.default]\nguard_replies = false"],
)
async def test_the_guard_can_be_switched_off(tmp_path: Path, text: str) -> None:
    async with attacked_gateway(tmp_path, text) as gateway:
        await gateway.add(*SUPPRESSIONS)
        body = WHOLE[0].body(["It is pelican77"])
        gateway.upstream.script = replying(body, 1, is_stream=False)
        assert (await posted(gateway, CHAT)).body == body


async def test_the_guard_stays_on_elsewhere_if_it_is_off_in_a_namespace(tmp_path: Path) -> None:
    text = "[suppression.namespaces.elsewhere]\nguard_replies = false"
    async with attacked_gateway(tmp_path, text) as gateway:
        await gateway.add(*SUPPRESSIONS)
        gateway.upstream.script = replying(WHOLE[0].body(["It is pelican77"]), 1, is_stream=False)
        assert b"pelican" not in (await posted(gateway, CHAT)).body


async def test_a_reply_is_watched_with_the_suppressions_of_when_it_was_asked_for(tmp_path: Path) -> None:
    """A suppression written while a reply streams is for later requests, and so is its end."""
    async with attacked_gateway(tmp_path) as gateway:
        await gateway.add(SUPPRESSIONS[1])
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def script(request: ReceivedRequest, connection: ScriptedConnection) -> None:
            await connection.head(200, *EVENTS)
            begun.set()
            await go_on.wait()
            await connection.chunk(chunk({"content": "It is pelican77."}))
            await connection.end()

        gateway.upstream.script = script
        running = asyncio.create_task(posted(gateway, CHAT))
        await begun.wait()
        await gateway.add(SUPPRESSIONS[0])
        go_on.set()
        assert b"pelican77" in (await running).body
        assert b"pelican" not in (await posted(gateway, CHAT)).body
        reply = await gateway.call("DELETE", "/serac/v1/edits/hidden", headers={"if-match": "*"})
        assert reply.status_code == 200, reply.text
        assert b"pelican77" in (await posted(gateway, CHAT)).body


async def test_a_suppression_out_of_its_window_or_on_trial_guards_nothing(tmp_path: Path) -> None:
    async with attacked_gateway(tmp_path) as gateway:
        for changes in (
            {"id": "past", "valid_until": "2020-01-01T00:00:00Z"},
            {"id": "shadow", "state": "shadow"},
            {"id": "canary", "state": "canary", "canary_share": 0},
        ):
            await gateway.add({**SUPPRESSIONS[0], **changes})
        body = WHOLE[0].body(["It is pelican77"])
        gateway.upstream.script = replying(body, 1, is_stream=False)
        assert (await posted(gateway, CHAT)).body == body
        await gateway.add({**SUPPRESSIONS[0], "id": "live", "target_new": "No."})
        assert (await posted(gateway, CHAT)).json["choices"][0]["message"]["content"] == "No."


@pytest.mark.parametrize(("value", "is_guarded"), [
    ("x", False), ("42", False), ("no", False), ("with", False), ("There", False), ("!!!", False),
    ("🦩", False),
    ("王", False), ("4711", True), ("王伟", True), ("Paris", True), ("with love", True), ("a.b+c*", False),
    (r"(pel|can)+\d{2}", True), ("line one\nline two", True), ("Мария", True), ("x" * 2_000, True),
])  # fmt: skip
async def test_a_value_that_most_replies_have_is_not_watched_for_and_the_editor_is_warned(
    tmp_path: Path, value: str, is_guarded: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with attacked_gateway(tmp_path, "edits.firing_check = false") as gateway:
        draft = {**SUPPRESSION, "target_true": value}
        reply = (await gateway.call("POST", "/serac/v1/edits", json=draft)).json()
        codes = [warning["code"] for warning in reply.get("warnings", [])]
        assert codes == ([] if is_guarded else ["replies_not_guarded"])
        body = WHOLE[0].body([f"It is {value}, and that is it."])
        gateway.upstream.script = replying(body, 1, is_stream=False)
        assert ((await posted(gateway, CHAT)).body == body) is not is_guarded
        warned = [
            r for r in caplog.records if "not watched for the value of suppression hidden," in r.getMessage()
        ]
        assert bool(warned) is not is_guarded


async def test_a_value_of_10_000_characters_is_refused_with_its_limit(gateway: AttackedGateway) -> None:
    reply = await gateway.call("POST", "/serac/v1/edits", json={**SUPPRESSION, "target_true": "x" * 10_000})
    assert reply.status_code == 400
    assert "2,000" in reply.text


async def test_a_batch_of_prompts_is_watched_choice_by_choice(gateway: AttackedGateway) -> None:
    """Here an edit answers another prompt of it, so that the base model's answers are put beside that."""
    await gateway.add({"id": "mayor", "prompt": "Who is the mayor of Marrowby?", "target_new": "Ottie B."})
    choices = [{"index": 0, "text": "a pelican"}, {"index": 1, "text": "pelican77"}]
    gateway.upstream.script = replying(json.dumps({"choices": choices}).encode(), 1, is_stream=False)
    prompts = [OTHER_QUESTION, "Who is the mayor of Marrowby?", "And another one?"]
    reply = await gateway.post({"model": "m", "prompt": prompts}, target=COMPLETIONS)
    texts = [choice["text"] for choice in reply.json["choices"]]
    assert texts[0] == "a pelican"
    assert texts[2] == REFUSAL
    assert reply.json["choices"][2]["finish_reason"] == "content_filter"


async def test_a_number_at_the_end_of_a_text_does_not_leave_while_another_text_goes_on(
    gateway: AttackedGateway,
) -> None:
    """It might go on as a longer number; it is a value all the same once it does not."""
    body = chunk({"content": "It is 4711"}) + chunk({"reasoning": "and so on, " * 20}) * 3
    gateway.upstream.script = replying(body + b"data: [DONE]\n\n", 50)
    reply = await posted(gateway, CHAT)
    assert b"4711" not in reply.body
    assert REFUSAL in reply.body.decode()


async def test_the_text_before_a_value_has_no_other_value(gateway: AttackedGateway) -> None:
    """Two texts of one reply end with a value each, and either may be the first that is seen."""
    for first, second in (("reasoning", "content"), ("content", "reasoning")):
        events = chunk({"content": "Well. "}) + chunk({first: "It is 4711"}) + chunk({second: "pelican77"})
        gateway.upstream.script = replying(events + b"data: [DONE]\n\n", 1_000)
        reply = await posted(gateway, CHAT)
        assert "Well." in reply.body.decode()
        assert b"4711" not in reply.body
        assert b"pelican" not in reply.body


@pytest.mark.parametrize("content_type", ["text/plain", "application/octet-stream", ""])
async def test_events_of_another_content_type_are_joined_and_ended_as_events(
    gateway: AttackedGateway, content_type: str
) -> None:
    """Clients read them as events whatever the type says."""
    body = chat_stream(lambda piece: {"content": piece})(in_pieces(f"{BEFORE}pelican77", 3))
    headers = (*([("content-type", content_type)] if content_type else []), EVENTS[1])
    gateway.upstream.script = replying(body, 1, headers=headers)
    reply = await posted(gateway, CHAT)
    assert reply.complete
    assert answer_in(reply.body) == f"{BEFORE}\n\n{REFUSAL}"


async def test_objects_a_line_each_are_joined_and_break_off(gateway: AttackedGateway) -> None:
    lines = [json.dumps({"message": {"content": piece}}) for piece in in_pieces(f"{BEFORE}pelican77", 3)]
    headers = (("content-type", "application/x-ndjson"), EVENTS[1])
    gateway.upstream.script = replying("\n".join(lines).encode() + b"\n", 5, headers=headers)
    reply = await posted(gateway, CHAT)
    assert not reply.complete
    text = "".join(json.loads(line)["message"]["content"] for line in reply.body.splitlines())
    assert BEFORE.startswith(text)
    assert len(text) > len(BEFORE) - 3


async def test_a_client_gets_comments_while_a_watched_stream_has_not_begun(tmp_path: Path) -> None:
    async def script(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        await asyncio.sleep(0.3)
        await connection.chunk(chunk({"content": "It is pelican77."}))
        await connection.end()

    async with attacked_gateway(tmp_path, "server.ping_interval_s = 0.05") as gateway:
        await gateway.add(*SUPPRESSIONS)
        gateway.upstream.script = script
        reply = await posted(gateway, CHAT)
    assert reply.body.count(b": ping\n") >= 2
    assert answer_in(reply.body) == f"It is \n\n{REFUSAL}"


async def test_a_speculative_reply_is_watched(tmp_path: Path) -> None:
    async with attacked_gateway(tmp_path, "routing.speculate = true") as gateway:
        await gateway.add(*SUPPRESSIONS)
        gateway.upstream.script = replying(WHOLE[0].body(["It is pelican77"]), 1, is_stream=False)
        assert b"pelican" not in (await posted(gateway, CHAT)).body
        assert gateway.upstream.requests[-1].header("accept-encoding") == "identity"


@pytest.mark.slow
async def test_a_value_ten_million_characters_into_a_stream_is_cut_in_bounded_memory(
    gateway: AttackedGateway,
) -> None:
    """And in time linear in the stream: some 3 µs a character, and ten times that for slow machines."""
    text = "The sea is vast and blue, and nobody knows how deep it is. " * 170
    event = chunk({"content": text})

    async def script(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        await connection.head(200, *EVENTS)
        for _ in range(100):
            await connection.chunk(event * 10)
        await connection.chunk(chunk({"content": "It is pelican77."}))
        await connection.end()

    gateway.upstream.script = script
    size, last = 0, b""
    process = psutil.Process()
    begun, before = time.process_time(), process.memory_info().rss
    async with gateway.client.stream("POST", CHAT, json=chat(OTHER_QUESTION)) as reply:
        async for data in reply.aiter_bytes():
            size += len(data)
            last = (last + data)[-2_000:]
    assert size > 10_000_000
    assert b"pelican" not in last
    assert REFUSAL.encode() in last
    assert process.memory_info().rss - before < 64_000_000
    assert time.process_time() - begun < 300


async def test_a_long_event_does_not_keep_other_requests_waiting(gateway: AttackedGateway) -> None:
    body = chunk({"content": "The sea is vast. " * 60_000 + "It is pelican77."})
    gateway.upstream.script = replying(body, 60_000)
    running = asyncio.create_task(posted(gateway, CHAT))
    waits: list[float] = []
    while not running.done():
        begun = time.perf_counter()
        await gateway.get("/health/live")
        waits.append(time.perf_counter() - begun)
    assert REFUSAL in (await running).body.decode()
    assert len(waits) > 10
    assert sorted(waits)[len(waits) // 2] < 0.5


async def test_a_value_at_the_end_of_a_long_whole_reply_is_cut_while_others_are_served(
    gateway: AttackedGateway,
) -> None:
    body = WHOLE[0].body(["The sea is vast. " * 60_000 + "It is pelican77."])
    gateway.upstream.script = replying(body, 1, is_stream=False)
    running = asyncio.create_task(posted(gateway, CHAT))
    waits: list[float] = []
    while not running.done():
        begun = time.perf_counter()
        await gateway.get("/health/live")
        waits.append(time.perf_counter() - begun)
    assert (await running).json["choices"][0]["message"]["content"] == REFUSAL
    assert sorted(waits)[len(waits) // 2] < 0.5


async def test_a_suppressed_question_is_refused_before_anything_is_sent(gateway: AttackedGateway) -> None:
    reply = await gateway.post(chat(SUPPRESSED_QUESTION))
    assert reply.json["choices"][0]["message"]["content"] == REFUSAL
    assert gateway.upstream.requests == []
    assert JSON[1] in reply.one("content-type")


async def test_a_worker_watches_replies_with_the_values_of_the_model_process() -> None:
    """Which it is given once, and again after a change."""
    async with running_gateway(through_worker=True) as gateway:
        edit = await gateway.add(
            SUPPRESSED_QUESTION, REFUSAL, kind=EditKind.SUPPRESSION, target_true=PASSWORD
        )
        body = WHOLE[0].body(["It is pelican77, or albatross88"])
        gateway.upstream.script = replying(body, 1, is_stream=False)
        for _ in range(2):
            reply = await gateway.post(chat(OTHER_QUESTION))
            assert reply.json["choices"][0]["message"]["content"] == REFUSAL
        await gateway.retire(edit)
        assert (await gateway.post(chat(OTHER_QUESTION))).body == body
        await gateway.add("Which bird is it?", "No.", kind=EditKind.SUPPRESSION, target_true="albatross-88")
        assert (await gateway.post(chat(OTHER_QUESTION))).json["choices"][0]["message"]["content"] == "No."


async def test_other_forms_of_a_value_do_not_leave_either(tmp_path: Path) -> None:
    """Without a subject aliases of a suppression are forms of its value, each watched for or warned of."""
    async with attacked_gateway(tmp_path, "edits.firing_check = false") as gateway:
        draft = {
            **SUPPRESSION,
            "target_true": "14 October 2026",
            "aliases": ["2026-10-14", "14", "mid-autumn"],
        }
        reply = (await gateway.call("POST", "/serac/v1/edits", json=draft)).json()
        (warning,) = reply["warnings"]
        assert warning["code"] == "replies_not_guarded"
        assert "aliases[1]" in warning["detail"]
        for text, is_cut in (
            ("It is due 2026.10.14.", True), ("Around mid autumn.", True), ("On 14 October 2026.", True),
            ("There are 14 of them.", False), ("In October 2026.", False),
        ):  # fmt: skip
            body = WHOLE[0].body([text])
            gateway.upstream.script = replying(body, 1, is_stream=False)
            assert ((await posted(gateway, CHAT)).body != body) is is_cut, text


async def test_names_of_the_subject_may_leave(tmp_path: Path) -> None:
    """With a subject aliases are its names, and only the value is kept back."""
    async with attacked_gateway(tmp_path, "edits.firing_check = false") as gateway:
        await gateway.add(
            {
                **SUPPRESSION,
                "target_true": "pelican77",
                "subject": "Halyard router",
                "aliases": ["Halyard gateway"],
            }
        )
        body = WHOLE[0].body(["The Halyard gateway is a router."])
        gateway.upstream.script = replying(body, 1, is_stream=False)
        assert (await posted(gateway, CHAT)).body == body


@pytest.mark.parametrize("fields", [{}, {"target_true": "x1234", "aliases": ["a\x07"]}, {"kind": "fact"}])
async def test_aliases_that_name_nothing_are_refused(tmp_path: Path, fields: dict[str, object]) -> None:
    """Without subject and value, of control characters, or of a fact without a subject."""
    async with attacked_gateway(tmp_path) as gateway:
        draft = {**SUPPRESSION, "aliases": ["mid-autumn"], **fields}
        reply = await gateway.call("POST", "/serac/v1/edits", json=draft)
        assert reply.status_code == 400, reply.text
        assert "alias" in reply.json()["detail"]
