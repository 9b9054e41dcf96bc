"""The embedded base model as an upstream: a child process, and HTTP to it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec

from serac_gateway.config.model import UpstreamConfig
from serac_gateway.data_plane.upstream.base import Upstream, UpstreamRequest, UpstreamResponse
from serac_gateway.data_plane.upstream.http import HttpUpstream
from serac_gateway.errors import ConfigError
from serac_gateway.models.progress import OnStep, Step

_STOP_TIMEOUT_S = 5.0
_MAX_LINE_BYTES = 65_536


class Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the child process tells its parent, one JSON object a line."""

    step: Step | None = None
    port: int | None = None
    """It serves on this port of 127.0.0.1."""
    error: str | None = None
    """It cannot start; the message is for the user."""


class EmbeddedUpstream(Upstream):
    """The embedded base model, generating in a process of its own so that it never delays the gateway.

    The child ends with this process, even when that is killed: its standard input is a pipe from here.
    """

    def __init__(self, *, process: Process, url: str, http: HttpUpstream) -> None:
        """Use `start_embedded_upstream`."""
        self._process = process
        self.url = url
        """Base URL with /v1, for asking the base model without the gateway."""
        self._http = http

    @property
    def process_id(self) -> int:
        """Of the child."""
        return self._process.pid

    def send(self, request: UpstreamRequest) -> AbstractAsyncContextManager[UpstreamResponse]:
        """See `Upstream.send`."""
        return self._http.send(request)

    async def close(self) -> None:
        """See `Upstream.close`; ends the child process."""
        await self._http.close()
        await _stop(self._process)


async def start_embedded_upstream(
    *,
    config: UpstreamConfig,
    data_path: Path,
    model: str | None = None,
    on_step: OnStep = lambda step: None,
) -> EmbeddedUpstream:
    """Start the child process and wait until it serves; `on_step` receives what it is doing.

    Raises:
        ConfigError: The model cannot be loaded; the message is the child's.
    """
    process = await asyncio.create_subprocess_exec(
        # -P: no module of the folder that the gateway was started in is taken for one of ours.
        *(
            sys.executable,
            "-P",
            "-m",
            "serac_gateway.data_plane.upstream.embedded_server",
            "--data-dir",
            str(data_path),
        ),
        *(() if model is None else ("--model", model)),
        stdin=PIPE,
        stdout=PIPE,
        limit=_MAX_LINE_BYTES,
        start_new_session=True,  # Ctrl-C in the terminal is for the gateway, which drains first
    )
    try:
        port = await _port_when_ready(process, on_step)
    except BaseException:
        await _stop(process)
        raise
    url = f"http://127.0.0.1:{port}/v1"
    return EmbeddedUpstream(
        process=process, url=url, http=HttpUpstream(msgspec.structs.replace(config, url=url))
    )


async def _port_when_ready(process: Process, on_step: OnStep) -> int:
    assert process.stdout is not None
    async for line in process.stdout:
        report = msgspec.json.decode(line, type=Report)
        if report.error is not None:
            raise ConfigError(report.error)
        if report.port is not None:
            return report.port
        if report.step is not None:
            on_step(report.step)
    status = await process.wait()
    raise ConfigError(
        f"the embedded base model's process ended with status {status} before it was ready; what it wrote"
        " above tells why; --upstream URL uses another model server instead"
    )


async def _stop(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
        except TimeoutError:
            process.kill()
            await process.wait()
