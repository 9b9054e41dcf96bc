"""No client writes lines into the log: each record is one JSON object on one line, whatever was sent."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from serac_gateway.observability.logging import JsonFormatter, TextFormatter
from tests.attacks.attacked_gateway import (
    EDITED_QUESTION,
    FACT,
    JSON_TYPE,
    AttackedGateway,
    attacked_gateway,
    quiet,
)
from tests.http.wire import connected

FORGED = '\r\n{"level":"info","message":"forged"}\n'
NASTY = ("a\nb", FORGED, "a\u2028b\u2029c\x85d", "a\x00b", "a\ud800b", "\x1b[2Ja", '"},{"')
ESCAPED_PATHS = (
    "/v1/x%0d%0aforged", "/v1/x%E2%80%A8forged", "/v1/%00", "/v1/%ED%A0%80", "/v1/%C2%85",
    "/v1/x?a=%0aforged",
    "/v1/%1b%5b2J", "/serac/v1/edits/%0aforged", "/serac/v1/%E2%80%A8", "/x%0aforged", "/%ED%A0%80",
)  # fmt: skip


@pytest.mark.parametrize("content", ["true", "false"])
async def test_every_record_is_one_line_whatever_paths_ids_models_and_questions_hold(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    quiet()
    caplog.set_level(logging.DEBUG)
    async with attacked_gateway(tmp_path, f"logging.content = {content}") as gateway:
        await gateway.add(FACT)
        caplog.clear()
        sent = await _send_everything(gateway)
    ours = [record for record in caplog.records if record.name.startswith("serac_gateway")]
    assert sum(record.name == "serac_gateway.requests" for record in ours) > sent / 2
    for record in ours:
        line = JsonFormatter().format(record)
        assert line.splitlines() == [line]
        assert line.isprintable()
        assert line.encode().decode() == line
        assert json.loads(line)["message"] != "forged"
        for_people = TextFormatter().format(record)
        assert not any(text.startswith(("forged", "{")) for text in for_people.splitlines())
        assert for_people.encode().decode().replace("\n", "").replace("\t", "").isprintable()


async def _send_everything(gateway: AttackedGateway) -> int:
    """Requests with hostile text wherever a client may write; returns how many."""
    sent = 0
    for path in ESCAPED_PATHS:
        await gateway.get(path, ("x-serac-api-key", gateway.admin))
        await gateway.post({}, target=path)
        sent += 2
    for text in NASTY:
        header = text.encode("utf-8", "replace").replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b"")
        await _send_raw(gateway, header)
        for question in (
            {"model": text, "messages": [{"role": "user", "content": f"{EDITED_QUESTION} {text}"}]},
            {"model": "m", "messages": [{"role": text, "content": text, "name": text}], text: text},
        ):
            await gateway.post(question)
            sent += 1
        draft = {"prompt": text, "target_new": text, "namespace": text, text: text}
        report = {"request_id": text, "verdict": text}
        for path, sent_body in (("edits", draft), ("feedback", report)):
            body = json.dumps(sent_body)
            await gateway.call("POST", f"/serac/v1/{path}", content=body, headers=dict([JSON_TYPE]))
    return sent


async def _send_raw(gateway: AttackedGateway, value: bytes) -> None:
    """Headers with bytes that client libraries refuse to send."""
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": EDITED_QUESTION}]}).encode()
    names = (b"x-request-id", b"x-serac-namespace", b"user-agent", b"x-forwarded-for", b"traceparent")
    for name in names:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        async with connected(gateway.url) as (reader, writer):
            writer.write(head + b"%b: %b\r\nconnection: close\r\n" % (name, value))
            writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
            await reader.read()
