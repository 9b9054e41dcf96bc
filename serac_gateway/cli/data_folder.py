"""`serac store check --purged` and `serac store recover`: what lies in the files of the data folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import typer

from serac_gateway.cli.terminal import EXIT_REFUSED, EXIT_USAGE, fail, print_json, stderr, stdout
from serac_gateway.errors import ConfigError


def check_purged(*, data_dir: Path | None, config: Path | None, as_json: bool) -> None:
    """Print in which files a text lies; exit code 1 if it lies in any, or one cannot be read."""
    from serac_gateway.stores.disk_search import MIN_TEXT_BYTES, search_folder

    folder = _data_path(data_dir, config)
    text = _text_to_look_for()
    if len(text.encode("utf-8", "surrogatepass")) < MIN_TEXT_BYTES:
        fail(f"a text of less than {MIN_TEXT_BYTES} bytes lies in any file; give more of it", EXIT_USAGE)
    with stderr().status(f"searching {folder}"):
        outcome = search_folder(folder, text)
    if as_json:
        print_json(outcome)
    else:
        for hit in outcome.hits:
            stdout().print(f"{hit.path}: at byte {hit.offset:,}", markup=False, soft_wrap=True)
        for path in outcome.unread:
            stderr().print(f"{path}: cannot be read", style="red", markup=False, soft_wrap=True)
        verdict = f"it lies in {len(outcome.hits)} of" if outcome.hits else "it lies in none of"
        stderr().print(f"{verdict} {outcome.files:,} files", soft_wrap=True)
    if outcome.hits or outcome.unread:
        raise typer.Exit(EXIT_REFUSED)


def recover_file(*, apply: bool, data_dir: Path | None, config: Path | None, as_json: bool) -> None:
    """Print, and with `apply` cut out, what of the append-only file cannot be read."""
    from serac_gateway.stores.redis.append_only_file import bad_ranges, cut, data_files
    from serac_gateway.stores.redis.folder_lock import locked_folder

    folder = _data_path(data_dir, config) / "valkey"
    if not folder.is_dir():
        fail(f"there is no embedded store in {str(folder)!r}", EXIT_USAGE)
    report: list[dict[str, Any]] = []
    try:
        with locked_folder(folder):
            for path in data_files(folder):
                ranges = bad_ranges(path)
                saved_to = cut(path, ranges, folder.parent / "damaged") if apply and ranges else None
                report += [
                    {
                        "file": str(path),
                        "start": bad.start,
                        "end": bad.end,
                        "saved_to": None if saved_to is None else str(saved_to),
                    }
                    for bad in ranges
                ]
    except ConfigError as error:
        fail(error.message, EXIT_USAGE)
    except OSError as exc:
        fail(f"{exc.filename or folder}: {exc.strerror or exc}", EXIT_USAGE)
    if as_json:
        print_json({"applied": apply, "damages": report})
    elif not report:
        stdout().print("all of the append-only file can be read")
    for bad in [] if as_json else report:
        done = f", cut out; they lie in {bad['saved_to']}" if apply else ""
        count = bad["end"] - bad["start"]
        line = f"{bad['file']}: {count:,} bytes at byte {bad['start']:,} cannot be read{done}"
        stdout().print(line, markup=False, soft_wrap=True)
    if report and not apply:
        raise typer.Exit(EXIT_REFUSED)


def _data_path(data_dir: Path | None, config: Path | None) -> Path:
    from serac_gateway.config.loading import load_config

    try:
        loaded = load_config(config, overrides={"data_dir": None if data_dir is None else str(data_dir)})
    except ConfigError as error:
        fail(error.message, EXIT_USAGE)
    if not loaded.data_path.is_dir():
        fail(f"there is no data folder {str(loaded.data_path)!r}; name it with --data-dir", EXIT_USAGE)
    return loaded.data_path


def _text_to_look_for() -> str:
    """Not an argument: those stand in the list of processes and in the shell's history."""
    if sys.stdin.isatty():
        text: str = typer.prompt("Text to look for", hide_input=True, err=True)
        return text
    return sys.stdin.read().strip("\r\n")
