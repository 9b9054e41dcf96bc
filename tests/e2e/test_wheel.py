"""The wheel: what it holds, and that it works where it is installed, away from the checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEMO_TIMEOUT_S = 300

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(argument) for argument in command], cwd=cwd, env=kept | variables, text=True,
        capture_output=True, check=False, timeout=DEMO_TIMEOUT_S,
    )  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the checkout by pip, with the build back end of the test environment."""
    folder = tmp_path_factory.mktemp("wheel")
    done = run(
        sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps",
        "--no-build-isolation", "--wheel-dir", folder, ROOT, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `bin` of a fresh environment: the wheel, and the test environment's packages behind it.

    They are reached by a path, so that no .pth file of theirs is read: an editable install of the checkout
    has no effect there.
    """
    environment = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(environment, with_pip=False)
    programs = environment / "bin"
    [site_packages] = environment.glob("lib/python3*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
    done = run(
        sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", programs / "python",
        "install", "--no-deps", "--no-index", wheel, cwd=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return programs


def test_the_wheel_holds_one_package_with_all_its_files_but_the_docs(wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    demo = {f"serac_gateway/demo/{name}" for name in ("edits.jsonl", "probes.jsonl")}
    docs = in_the_checkout("serac_gateway/docs")
    assert docs
    pins = {"serac_gateway/constraints.txt"}  # `serac doctor` compares what is installed with them
    assert inside == (in_the_checkout("serac_gateway") | demo | pins) - docs
    assert {"serac_gateway/py.typed", "serac_gateway/stores/redis/scripts/commit.lua"} <= inside
    weights = "serac_gateway/models/weights/"
    assert len([name for name in inside if name.startswith(weights)]) > 5
    for folder in ("gemma-activations", "counterfactual-adapter"):
        assert f"{weights}{folder}/activations.safetensors" in inside


def test_the_wheel_carries_its_licences_and_the_gemma_terms(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name.split(".dist-info/", 1)[1] for name in archive.namelist() if ".dist-info/" in name}
        [metadata] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        lines = archive.read(metadata).decode().splitlines()
    assert "License-Expression: Apache-2.0 AND LicenseRef-Gemma" in lines
    weights = "licenses/serac_gateway/models/weights"
    for name in ("NOTICE", "GEMMA_TERMS.txt"):
        assert f"{weights}/counterfactual-adapter/{name}" in inside
        assert f"{weights}/gemma-activations/{name}" in inside
    assert {"licenses/LICENSE", "licenses/NOTICE"} <= inside


def in_the_checkout(folder: str) -> set[str]:
    """The files below a folder, as paths from the checkout's root."""
    files = (path for path in (ROOT / folder).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}


def test_the_installed_demo_passes_away_from_the_checkout(
    installed: Path, converted_models: Path, tmp_path: Path
) -> None:
    code = "import serac_gateway, sys; print(serac_gateway.__file__); print(sys.path)"
    location, path = run(installed / "python", "-c", code, cwd=tmp_path).stdout.splitlines()
    assert Path(location).is_relative_to(installed.parent)
    assert repr(str(ROOT)) not in path
    data = tmp_path / "data"
    data.mkdir()
    (data / "models").symlink_to(converted_models / "models")
    done = run(
        installed / "serac", "demo", "--once", "--json", "--port", "0", "--data-dir", data,
        cwd=tmp_path, HF_HUB_OFFLINE="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["wrong"] == 0
    assert len(report["lines"]) > 10


def test_serac_train_of_an_installation_names_the_remedy_in_one_line(installed: Path, tmp_path: Path) -> None:
    done = run(installed / "serac-train", "scope", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "works in a checkout of the repository only" in done.stderr
    assert "make test" in done.stderr


def test_serac_train_of_an_installation_takes_no_package_of_others_named_training(
    installed: Path, tmp_path: Path
) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "cli.py").write_text("def main() -> None: print('foreign')\n", "utf-8")
    done = run(installed / "serac-train", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert "foreign" not in done.stdout
