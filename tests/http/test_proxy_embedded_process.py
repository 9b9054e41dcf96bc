"""The embedded base model's process: it starts, reports its progress, serves, and ends with its parent."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serac_gateway.config.model import UpstreamConfig
from serac_gateway.data_plane.upstream.embedded import start_embedded_upstream
from serac_gateway.errors import ConfigError
from serac_gateway.models.progress import Step
from tests.http.running_gateway import OTHER_QUESTION, chat
from tests.http.wire import fetch

BODY = json.dumps(chat(OTHER_QUESTION, max_tokens=4)).encode()


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal LM of a few kilobytes with random weights, saved as transformers saves one."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    vocabulary = {word: number for number, word in enumerate(["<s>", "</s>", "[UNK]", "a", "b", "c"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=512,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


async def test_it_reports_its_progress_serves_and_ends_when_closed(tiny_model: Path, tmp_path: Path) -> None:
    steps: list[Step] = []
    upstream = await start_embedded_upstream(
        config=UpstreamConfig(), data_path=tmp_path, model=str(tiny_model), on_step=steps.append
    )
    assert steps == [Step(f"loading {tiny_model}")]
    replies = [await fetch(upstream.url.removesuffix("/v1"), "/v1/chat/completions", BODY) for _ in range(2)]
    assert replies[0].status == 200
    assert replies[0].body == replies[1].body
    assert replies[0].json["usage"]["completion_tokens"] <= 4
    as_json = json.dumps(chat(OTHER_QUESTION, max_tokens=4, response_format={"type": "json_object"})).encode()
    reply = await fetch(upstream.url.removesuffix("/v1"), "/v1/chat/completions", as_json)
    assert isinstance(json.loads(reply.json["choices"][0]["message"]["content"]), dict)
    too_long = json.dumps(chat("a " * 600)).encode()  # of 512 tokens
    reply = await fetch(upstream.url.removesuffix("/v1"), "/v1/chat/completions", too_long)
    assert (reply.status, reply.json["error"]["code"]) == (400, "context_length_exceeded")
    assert os.getsid(upstream.process_id) != os.getsid(0)  # Ctrl-C is for the gateway alone, which drains
    await upstream.close()
    await upstream.close()
    with pytest.raises(ConnectionRefusedError):
        await fetch(upstream.url.removesuffix("/v1"), "/v1/models", method="GET")


async def test_a_model_that_is_missing_is_reported_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "uvicorn.py").write_text("raise SystemExit('not ours')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="cannot load the language model '/no/such/model'"):
        await start_embedded_upstream(config=UpstreamConfig(), data_path=tmp_path, model="/no/such/model")


PARENT = """
import asyncio, pathlib, sys
from serac_gateway.config.model import UpstreamConfig
from serac_gateway.data_plane.upstream.embedded import start_embedded_upstream

async def main():
    upstream = await start_embedded_upstream(
        config=UpstreamConfig(), data_path=pathlib.Path(sys.argv[1]), model=sys.argv[2]
    )
    print(upstream.process_id, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_it_ends_when_its_parent_is_killed(tiny_model: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path), str(tiny_model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(child, 0)  # it lives
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while _lives(child):
        assert time.monotonic() < deadline, "the child has outlived its parent"
        time.sleep(0.05)


def _lives(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_starting_can_be_given_up(tiny_model: Path, tmp_path: Path) -> None:
    starting = asyncio.create_task(
        start_embedded_upstream(config=UpstreamConfig(), data_path=tmp_path, model=str(tiny_model))
    )
    await asyncio.sleep(0.3)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert not any(_command_names(tiny_model))


def _command_names(folder: Path) -> list[str]:
    """Command lines of the processes that were started with this model."""
    names = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = process.read_bytes().decode("utf-8", "replace")
        except OSError:
            continue
        if "embedded_server" in command and str(folder) in command:
            names.append(command)
    return names
