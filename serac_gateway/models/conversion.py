"""Runs a conversion of weights in a process of its own, which gives back all its memory when it ends.

A converter is a module whose main block calls `run_converter`. It reads its request from its standard input,
one JSON object on a line, and writes one JSON `_Report` a line to its standard output. It ends when its
standard input does, that is with its parent.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

import msgspec

from serac_gateway.errors import ConfigError
from serac_gateway.models.progress import OnStep, Step

RequestT = TypeVar("RequestT", bound=msgspec.Struct)


class _Report(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    step: Step | None = None
    config_error: str | None = None
    os_error: str | None = None


def convert_in_child(module: str, request: msgspec.Struct, on_step: OnStep) -> None:
    """Have `module` do what `request` says; returns when it has.

    Raises:
        ConfigError: The converter reported one, or it failed without a report.
        OSError: The converter reported one.
    """
    with subprocess.Popen(
        # -P: no module of the folder that the gateway was started in is taken for one of ours.
        [sys.executable, "-P", "-m", module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C in the terminal is for this process
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(msgspec.json.encode(request) + b"\n")
            process.stdin.flush()
            for line in process.stdout:
                _receive(msgspec.json.decode(line, type=_Report), on_step)
            process.wait()  # before its standard input is closed, which would end it
        except BrokenPipeError:
            pass  # it has ended before it has read; its status says how
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise ConfigError(
            f"converting the embedded models failed: {module} ended with status {process.returncode}; it has"
            " been killed if the status is negative (is there enough memory?), else see what it wrote above"
        )


def _receive(report: _Report, on_step: OnStep) -> None:
    if report.config_error is not None:
        raise ConfigError(report.config_error)
    if report.os_error is not None:
        raise OSError(report.os_error)
    if report.step is not None:
        on_step(report.step)


def run_converter(request_type: type[RequestT], convert: Callable[[RequestT, OnStep], None]) -> None:
    """The main block of a converter."""
    reports = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever else writes there is no report

    def report(entry: _Report) -> None:
        reports.write(msgspec.json.encode(entry) + b"\n")

    request = msgspec.json.decode(sys.stdin.buffer.readline(), type=request_type)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        convert(request, lambda step: report(_Report(step=step)))
    except ConfigError as error:
        report(_Report(config_error=error.message))
    except OSError as error:
        report(_Report(os_error=error.strerror or str(error)))


def _end_with_parent() -> None:
    # Past Python's buffer, whose lock a thread must not hold when the interpreter ends.
    while os.read(0, 1):
        pass
    os._exit(1)  # the parent's end of the pipe is closed, however the parent ended
