"""From reports on requests to weights on trial, as docs/training.md says it: three commands."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import msgspec
import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

from serac_gateway.cli.main import app as serac
from serac_gateway.models.classifiers.cross_encoder import ScopeCalibration, Stack
from serac_gateway.models.loading import open_embedded_encoder
from tests.http.reloadable_gateway import reloadable_gateway
from tests.tiny_cross_encoders import tiny_bert
from training.cli import app as serac_train

PLACES = ("Oru", "Ketti", "Moss", "Vala", "Brin", "Dorn", "Hesk", "Ilven", "Pratt", "Quill", "Sorn", "Tarv")
CONFIG = """
start_from = "{current}"

[own]
rehearsal_pairs = 32
calibration_sets = 2
general_sets = 2

[training]
batch_size = 32
max_tokens = 64
threads = 1
"""


async def command(app: Typer, *arguments: str) -> str:
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
async def test_from_feedback_to_a_shadow_in_three_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    monkeypatch.setenv("SERAC_DATA_DIR", str(data))
    encoder = await asyncio.to_thread(open_embedded_encoder, data)
    current = tiny_bert(tmp_path / "current", labels=2, dtype=torch.float16)
    calibration = ScopeCalibration(
        encoder_fingerprint=encoder.fingerprint,
        stack=Stack(logit_weight=1.0, intercept=0.0),
        scope_threshold=1.0,
        similarity_floor=-1.0,
        max_tokens=64,
    )
    (current / "calibration.json").write_bytes(msgspec.json.encode(calibration))
    (tmp_path / "own.toml").write_text(CONFIG.format(current=current))
    text = f"""
data_dir = "{data}"
models.scope_classifier_shadow = "{tmp_path / "shadow"}"
traffic.namespaces = ["default"]
"""
    async with (
        reloadable_gateway(tmp_path, text, encoder=encoder, classifier=current) as gateway,
        httpx.AsyncClient(base_url=gateway.url, timeout=60) as client,
    ):
        monkeypatch.setenv("SERAC_URL", gateway.url)

        async def report(question: str, **verdict: object) -> None:
            body = {"model": "m", "messages": [{"role": "user", "content": question}]}
            reply = await client.post("/v1/chat/completions", json=body)
            named = {"request_id": reply.headers["x-request-id"], **verdict}
            assert (await client.post("/serac/v1/feedback", json=named)).status_code == 201

        for place in PLACES:
            draft = {"prompt": f"Who is mayor of {place}?", "target_new": "Ada"}
            edit = (await client.post("/serac/v1/edits", json=draft)).json()
            await report(f"the mayor of {place}, please", verdict="should_have_fired", edit_id=edit["id"])
            await report(f"how tall is the tower of {place}", verdict="right")
        assert (await client.get("/serac/v1/shadow")).json() == {"shadow": None}

        edits, traffic, run = tmp_path / "edits.ndjson", tmp_path / "traffic.ndjson", tmp_path / "run"
        await command(
            serac, "feedback", "export", "--training", "--output", str(traffic), "--edits", str(edits)
        )
        written = await command(
            serac_train, "scope", "--config", str(tmp_path / "own.toml"), "--run", str(run),
            "--edits", str(edits), "--traffic", str(traffic), "--current", str(current),
        )  # fmt: skip
        assert "yours, held out" in written
        await command(
            serac_train, "promote", str(run), "--to", str(tmp_path / "shadow"), "--force", "--reload"
        )

        await gateway.ask("who is it, the mayor of Moss")
        latest: dict[str, int] = {}

        async def count() -> int:
            shadow = (await client.get("/serac/v1/shadow")).json()["shadow"]
            assert shadow["weights"] == str(tmp_path / "shadow")
            latest.update(shadow["decisions"])
            return sum(latest.values())

        while await count() == 0:
            await asyncio.sleep(0.05)
        assert latest["failed"] == latest["dropped"] == 0
        assert "on trial since" in await command(serac, "shadow")
        assert "the classifier on trial: " in await command(serac, "explain", "Who is mayor of Moss?")
