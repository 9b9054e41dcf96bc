"""What cannot start ends at once with one line that names the cause and the remedy, and exit code 2."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from serac_gateway.config.loading import load_config
from serac_gateway.errors import ConfigError
from serac_gateway.models.classifiers.cross_encoder import CrossEncoderClassifier
from serac_gateway.models.loading import SHIPPED_CLASSIFIER, open_decision_models


def serve(data_path: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "serac_gateway",
            "serve",
            "--data-dir",
            str(data_path),
            "--port",
            "0",
            *options,
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment | {"HF_HUB_OFFLINE": "1", "COLUMNS": "500"},
        check=False,
    )


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    for word in words:
        assert word in last


def test_an_unknown_config_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("[server]\nprot = 8080\n")
    assert_one_line(serve(tmp_path, "--config", str(tmp_path / "bad.toml")), "server.prot", "allowed")


def test_a_redis_that_does_not_answer_is_named_without_its_password(tmp_path: Path) -> None:
    done = serve(tmp_path, "--redis", "redis://:secret@127.0.0.1:1/0")
    assert_one_line(done, "127.0.0.1:1", "--redis")
    assert "secret" not in done.stderr


def test_a_port_that_is_taken_is_named_before_anything_is_loaded(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_one_line(serve(tmp_path, "--port", str(port)), str(port), "--port")


def test_a_data_folder_that_is_none_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert_one_line(serve(tmp_path / "file" / "sub"), "data folder", "is no folder", "--data-dir")


def test_missing_classifier_weights_are_named(tmp_path: Path) -> None:
    config = load_config(
        environment={}, overrides={"data_dir": str(tmp_path), "models": {"scope_classifier": "/nowhere"}}
    )
    with pytest.raises(ConfigError, match=r"'/nowhere' is not a folder.*serac-train"):
        open_decision_models(config)


def test_the_shipped_classifier_is_the_trained_one(tmp_path: Path) -> None:
    assert SHIPPED_CLASSIFIER.is_dir()
    _, classifier = open_decision_models(load_config(environment={}, overrides={"data_dir": str(tmp_path)}))
    assert isinstance(classifier, CrossEncoderClassifier)
