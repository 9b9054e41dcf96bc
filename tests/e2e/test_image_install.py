"""The image's own install steps, run without an engine: the Dockerfile's lines in a plain venv."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "docker" / "gateway.Dockerfile"
START_TIMEOUT_S = 300.0

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("CI") != "true",
        reason="installs every dependency anew (minutes); set CI=true to run it",
    ),
]


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in order, comments and line breaks taken out."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text("utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split(" ", 1)[0], line.split(" ", 1)[1]) for line in lines if line.strip()]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the build stage leaves in /opt/serac, made from nothing but what the Dockerfile copies."""
    folder = tmp_path_factory.mktemp("image")
    source, target = folder / "src", folder / "serac"
    source.mkdir()
    stages = 0
    for name, argument in instructions():
        stages += name == "FROM"
        if stages == 2:
            break
        if name == "COPY":
            *paths, destination = argument.split()
            for path in paths:
                if (ROOT / path).is_dir():
                    shutil.copytree(
                        ROOT / path, source / destination, ignore=shutil.ignore_patterns("__pycache__")
                    )
                else:
                    shutil.copy(ROOT / path, source / destination)
        if name == "RUN":
            command = re.sub(r"--mount=\S+\s+", "", argument).replace("/opt/serac", str(target))
            done = subprocess.run(
                ["sh", "-euc", command],
                cwd=source,
                env={"FAISS": "cpu", **os.environ},
                text=True,
                capture_output=True,
                check=False,
            )
            assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
    shutil.rmtree(source)
    yield target
    shutil.rmtree(target)  # 1.5 GB


def test_the_installed_packages_fit_together_and_bring_licence_and_notice(environment: Path) -> None:
    done = subprocess.run([environment / "bin" / "python", "-m", "pip", "check"], check=False)
    assert done.returncode == 0
    [metadata] = environment.glob("lib/python3.*/site-packages/serac_gateway-*.dist-info/licenses")
    files = {path.name for path in metadata.rglob("*") if path.is_file()}
    assert files == {"LICENSE", "NOTICE", "GEMMA_TERMS.txt"}


@pytest.fixture
def gateway(environment: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """The image's entry point and command, as they stand, but for the port; away from the checkout."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    [serac] = exec_form("ENTRYPOINT")
    variables = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "SERAC_DATA_DIR": str(tmp_path / "data")}
    subprocess.run(
        [environment / "bin" / serac, "keys", "create", "--offline", "--role", "admin"],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        check=True,
    )
    process = subprocess.Popen(
        [environment / "bin" / serac, *exec_form("CMD"), "--port", str(port)], cwd=tmp_path, env=variables
    )
    yield process, port
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=60)


def exec_form(wanted: str) -> list[str]:
    [argument] = [argument for name, argument in instructions() if name == wanted]
    return re.findall(r'"((?:[^"\\]|\\.)*)"', argument)


def test_the_images_command_becomes_healthy_by_the_images_own_check(
    gateway: tuple[subprocess.Popen[bytes], int], environment: Path
) -> None:
    process, port = gateway
    python, *arguments = exec_form("HEALTHCHECK")
    check = [environment / "bin" / python, *(argument.replace("8080", str(port)) for argument in arguments)]
    assert subprocess.run(check, capture_output=True, check=False).returncode != 0
    deadline = time.monotonic() + START_TIMEOUT_S
    while subprocess.run(check, capture_output=True, check=False).returncode != 0:
        assert process.poll() is None, f"the gateway ended with code {process.returncode}"
        assert time.monotonic() < deadline, f"not healthy after {START_TIMEOUT_S} s"
        time.sleep(1.0)
