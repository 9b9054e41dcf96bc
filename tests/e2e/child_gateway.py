"""Starts `tests.e2e.draining_gateway` in a process of its own, without an event loop here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def child_gateway(upstream_url: str, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Its URL and its process, which is killed in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.e2e.draining_gateway", upstream_url, "1"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
