"""OpenAI-compatible servers that others wrote, each in a process of its own with a small model.

`transformers serve` comes with the tools that test (extra `dev`) and runs everywhere. The others take minutes
to install or to compile: make a virtual environment with one, name its Python in the variable that
`Server.python_variable` names, and the same tests run against it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from serac_gateway.models.language_models.embedded_gemma import assembled_gguf
from tests.tiny_language_models import saved_tiny_llama

_START_TIMEOUT_S = 240
_STOP_TIMEOUT_S = 20


@dataclass(frozen=True, kw_only=True)
class Server:
    """What is to be known about a server before it is started."""

    name: str
    command: tuple[str, ...]
    """What follows the interpreter; {model} and {port} are filled in."""
    environment: Mapping[str, str] = field(default_factory=dict)
    python_variable: str | None = None
    """Names a Python that has the server; None: it is in the environment of the tests."""
    install: str = ""
    model_is_gguf: bool = False
    speaks: frozenset[str] = frozenset({"/v1/chat/completions", "/v1/completions"})
    ends_with_done: bool = True
    """Whether its streams of chat end with `data: [DONE]`, as OpenAI's do."""
    heeds_include_usage: bool = False
    joins_tokens: bool = False
    """Whether tokens ready at the same time share an event, so that no two streams are alike."""
    one_at_a_time: bool = True
    """Whether a request waits for the one before it, so that one sees from outside when that has ended."""

    def missing(self) -> str | None:
        """Why it cannot be started here, and what would help; None if it can."""
        if self.python_variable is None or os.environ.get(self.python_variable):
            return None
        return f"{self.name} is not here: {self.install}, and set {self.python_variable} to its Python"


TRANSFORMERS = Server(
    name="transformers serve",
    command=(
        *("-m", "transformers.cli.transformers", "serve", "{model}"),
        *("--device", "cpu", "--host", "127.0.0.1", "--port", "{port}"),
    ),
    speaks=Server.speaks | {"/v1/responses"},
    ends_with_done=False,
)
LLAMA_CPP_PYTHON = Server(
    name="llama-cpp-python",
    command=(
        *("-m", "llama_cpp.server", "--model", "{model}", "--model_alias", "{model}", "--n_ctx", "4096"),
        *("--interrupt_requests", "false", "--host", "127.0.0.1", "--port", "{port}"),
    ),
    python_variable="REAL_SERVER_LLAMA_CPP_PYTHON",
    install="`pip install 'llama-cpp-python[server]'` into a virtual environment (it compiles for minutes)",
    model_is_gguf=True,
)
VLLM = Server(
    name="vLLM",
    command=(
        *("-m", "vllm.entrypoints.openai.api_server", "--model", "{model}", "--max-model-len", "8192"),
        *(
            "--enforce-eager",
            "--dtype",
            "float32",
            "--enable-auto-tool-choice",
            "--tool-call-parser",
            "hermes",
        ),
        *("--host", "127.0.0.1", "--port", "{port}"),
    ),
    environment={"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"},
    python_variable="REAL_SERVER_VLLM_PYTHON",
    install="install its CPU build into a virtual environment (3 GB)",
    speaks=Server.speaks | {"/v1/responses", "/v1/messages"},
    heeds_include_usage=True,
    joins_tokens=True,
    one_at_a_time=False,
)
SERVERS = (TRANSFORMERS, LLAMA_CPP_PYTHON, VLLM)


@dataclass(frozen=True, kw_only=True)
class RunningServer:
    """A server that answers; `model` is the name to ask for."""

    server: Server
    url: str
    model: str


@contextmanager
def running(server: Server, folder: Path) -> Iterator[RunningServer]:
    """Start it with a model made in `folder`, which must be empty; end it in any case."""
    with _model(server, folder) as model:
        port = _free_port()
        python = os.environ[server.python_variable] if server.python_variable else sys.executable
        (folder / "hub").mkdir()  # transformers lists what lies there
        offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder), "OMP_NUM_THREADS": "1"}
        log = folder / "server.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [python, *(part.format(model=model, port=port) for part in server.command)],
                stdout=output,
                stderr=output,
                env=os.environ | offline | server.environment,
                cwd=folder,
                start_new_session=True,  # vLLM has children, which go with it
            )
            try:
                url = f"http://127.0.0.1:{port}"
                _wait_until_it_answers(process, url, log)
                yield RunningServer(server=server, url=url, model=str(model))
            finally:
                _end(process)


@contextmanager
def _model(server: Server, folder: Path) -> Iterator[Path]:
    if server.model_is_gguf:
        with assembled_gguf(folder) as gguf:
            yield gguf
    else:
        yield saved_tiny_llama(folder / "model")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_until_it_answers(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < until and process.poll() is None:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/v1/models").is_success:
                return
        time.sleep(0.2)
    raise AssertionError(f"{process.args!r} does not answer:\n{log.read_text(errors='replace')}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_TIMEOUT_S)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
