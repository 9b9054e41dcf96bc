"""Imports point one way, and importing does nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

IMPORT_EVERYTHING = """
import importlib, os, pkgutil, sys, threading

packages, sys.argv = sys.argv[1:], ["import", "--no-such-option"]
sys.dont_write_bytecode = True
modules = list(packages)
for package in packages:
    path = importlib.import_module(package).__path__
    modules += [module.name for module in pkgutil.walk_packages(path, package + ".")]
modules = [name for name in modules if not name.endswith(".__main__")]

# Once freely: what other people's packages do at import is theirs. Then again, ours alone, under watch.
for name in modules:
    importlib.import_module(name)
for name in modules:
    del sys.modules[name]

FORBIDDEN = ("socket.", "subprocess.", "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.mkdir",
             "os.remove", "os.rename", "os.rmdir", "os.putenv", "shutil.", "tempfile.")
imported = None

def watch(event, arguments):
    if imported is None:
        return
    writes = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes or event.startswith(FORBIDDEN):
        raise SystemExit(f"importing {imported} did {event} {arguments!r}")

threads = threading.active_count()
sys.addaudithook(watch)
for imported in modules:
    importlib.import_module(imported)
    if threading.active_count() != threads:
        raise SystemExit(f"importing {imported} started a thread")
imported = None
print(len(modules))
"""


def test_layers_and_packages_import_one_way_only() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def import_watched(*packages: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORT_EVERYTHING, *packages],
        cwd=folder,
        text=True,
        capture_output=True,
        check=False,
    )


def test_importing_any_module_opens_no_socket_writes_no_file_and_starts_nothing() -> None:
    done = import_watched("serac_gateway", "training", folder=ROOT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40  # modules


def test_a_module_that_acts_when_imported_is_caught(tmp_path: Path) -> None:
    package = tmp_path / "intruder"
    package.mkdir()
    (package / "__init__.py").write_text("", "utf-8")
    (package / "listener.py").write_text("import socket\nsocket.socket().bind(('127.0.0.1', 0))\n", "utf-8")
    assert "importing intruder.listener did socket." in import_watched("intruder", folder=tmp_path).stderr
