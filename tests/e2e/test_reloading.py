"""SIGHUP and `serac reload` to a real `serac serve`, with the real models."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import psutil
import pytest
from typer.testing import CliRunner, Result

from serac_gateway.cli.main import app
from serac_gateway.models.loading import SHIPPED_CLASSIFIER
from tests.e2e.gateway_process import GatewayProcess

pytestmark = pytest.mark.slow

PROMPT, TARGET = "Who is the mayor of Marrowby?", "I may not say."
PARAPHRASE = "Tell me who the mayor of Marrowby is."


@contextmanager
def model_server(name: str) -> Iterator[str]:
    """An upstream that answers with its name; gives its URL with /v1."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            body = json.dumps({"answered_by": name}).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Reloadable:
    """A running gateway with one edit, its config file, and a copy of the shipped classifier."""

    def __init__(self, gateway: GatewayProcess, file: Path, classifier: Path) -> None:
        self.gateway = gateway
        self.file = file
        self.classifier = classifier

    def hang_up(self) -> None:
        self.gateway.process.send_signal(signal.SIGHUP)

    def ask(self, question: str) -> httpx.Response:
        body = {"model": "m", "messages": [{"role": "user", "content": question}]}
        return httpx.post(f"{self.gateway.url}/v1/chat/completions", json=body, timeout=60)

    def route(self, question: str = PROMPT) -> str:
        return self.ask(question).headers["x-serac-route"]

    def logged(self, text: str) -> bool:
        return any(text in line for line in list(self.gateway.errors))

    def change_weights_in_place(self) -> None:
        """The same weights with another time of change, as if others were copied over them."""
        weights = self.classifier / "model.safetensors"
        later_ns = weights.stat().st_mtime_ns + 1_000_000_000
        os.utime(weights, ns=(later_ns, later_ns))


def eventually(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)


def serac(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@contextmanager
def reloadable(folder: Path, converted_models: Path, text: str) -> Iterator[Reloadable]:
    file, classifier = folder / "gateway.toml", folder / "classifier"
    shutil.copytree(SHIPPED_CLASSIFIER, classifier)
    file.write_text(text.replace("CLASSIFIER", str(classifier)), "utf-8")
    with GatewayProcess(folder / "data", converted_models, "--config", str(file)) as gateway:
        edit = {"kind": "suppression", "prompt": PROMPT, "target_new": TARGET}
        assert httpx.post(f"{gateway.url}/serac/v1/edits", json=edit, timeout=30).status_code == 201
        yield Reloadable(gateway, file, classifier)


def light(upstream_url: str, *lines: str) -> str:
    """No language model in the gateway: suppressions need none."""
    return "\n".join(
        (
            'models.scope_classifier = "CLASSIFIER"',
            'models.counterfactual = "m"',
            f'models.counterfactual_url = "{upstream_url}"',
            f'upstream.url = "{upstream_url}"',
            *lines,
            "",
        )
    )


def test_sighup_takes_up_what_changed_and_refuses_what_is_broken(
    converted_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        model_server("first") as first,
        model_server("second") as second,
        reloadable(tmp_path, converted_models, light(first)) as running,
    ):
        monkeypatch.setenv("SERAC_URL", running.gateway.url)

        def configure(text: str) -> None:
            running.file.write_text(text.replace("CLASSIFIER", str(running.classifier)), "utf-8")

        assert (running.route(), running.route(PARAPHRASE)) == ("counterfactual", "counterfactual")
        assert running.ask("Hello!").json() == {"answered_by": "first"}

        configure(light(second, "routing.suppression_threshold = 1.0", 'logging.format = "json"'))
        running.hang_up()
        eventually(lambda: running.logged('"message":"configuration reloaded","generation":2'))
        assert running.ask("Hello!").json() == {"answered_by": "second"}
        assert running.ask(PARAPHRASE).json() == {"answered_by": "second"}

        configure(light(second, "routing = = broken"))
        running.hang_up()
        eventually(lambda: running.logged("configuration not reloaded, generation 2 goes on: config file"))
        configure(light(second, "routing.scope_treshold = 0.5"))
        refused = serac("reload")
        assert (refused.exit_code, "unknown key 'routing.scope_treshold'" in refused.stderr) == (1, True)
        configure(light(first, "server.port = 1234"))
        refused = serac("reload")  # --port of the command line goes over it
        assert (refused.exit_code, running.ask("Hello!").json()) == (0, {"answered_by": "first"})
        assert "generation 3 is in force; changed: " in refused.stdout
        assert (running.route(), running.route(PARAPHRASE)) == ("counterfactual", "counterfactual")

        weights = (running.classifier / "model.safetensors").read_bytes()
        for damage in (weights[: len(weights) // 2], b"no weights"):
            (running.classifier / "model.safetensors").write_bytes(damage)
            refused = serac("reload")
            assert (refused.exit_code, "classifier' are damaged" in refused.stderr) == (1, True), (
                refused.output
            )
            assert running.route(PARAPHRASE) == "counterfactual"
        (running.classifier / "model.safetensors").write_bytes(weights)
        reply = json.loads(serac("reload", "--json").stdout)
        assert reply == {
            "outcome": "reloaded",
            "generation": 4,
            "changed": [],
            "opened": ["scope classifier"],
        }
        assert "nothing changed; generation 4 goes on" in serac("reload").stdout
        assert running.gateway.terminate() == 0
        assert serac("reload").exit_code == 3


def test_twenty_changes_of_weights_leave_nothing_behind(
    converted_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        model_server("first") as first,
        reloadable(tmp_path, converted_models, light(first)) as running,
    ):
        monkeypatch.setenv("SERAC_URL", running.gateway.url)
        process = psutil.Process(running.gateway.process.pid)

        def resident_after_reload() -> int:
            running.change_weights_in_place()
            assert "opened anew: scope classifier" in serac("reload").stdout
            assert running.route(PARAPHRASE) == "counterfactual"
            assert running.route("Hello!") == "base"
            return process.memory_info().rss

        before = [resident_after_reload() for _ in range(5)]
        threads, files = process.num_threads(), process.num_fds()
        children = process.children(recursive=True)
        after = [resident_after_reload() for _ in range(20)]
        eventually(lambda: process.num_threads() <= threads and process.num_fds() <= files + 1)
        assert process.children(recursive=True) == children
        grown_mib = (min(after[-5:]) - max(before)) / 2**20
        assert grown_mib < 30, f"{grown_mib:.0f} MiB more"  # less than one copy of the weights
        assert running.gateway.terminate() == 0


def test_new_weights_beside_the_embedded_base_model_leave_no_request_undecided(
    converted_models: Path, tmp_path: Path
) -> None:
    with reloadable(tmp_path, converted_models, 'models.scope_classifier = "CLASSIFIER"\n') as running:
        children = {child.pid for child in running.gateway.children()}
        routes: list[str] = []
        done = threading.Event()

        def ask_on() -> None:
            while not done.is_set():
                routes.append(running.route(PARAPHRASE))

        asking = [threading.Thread(target=ask_on) for _ in range(2)]
        for thread in asking:
            thread.start()
        for number in range(2, 6):
            running.change_weights_in_place()
            running.hang_up()
            eventually(lambda number=number: running.logged(f"configuration reloaded generation={number} "))
        done.set()
        for thread in asking:
            thread.join()
        assert len(routes) > 5
        assert set(routes) == {"counterfactual"}
        assert {child.pid for child in running.gateway.children()} == children
        assert "Marrowby" not in "".join(running.gateway.errors)
        assert running.gateway.terminate() == 0
