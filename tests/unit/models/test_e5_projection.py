"""The projection of the encoder's vectors: part of the graph and of the fingerprint, and checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from serac_gateway.errors import ConfigError
from serac_gateway.models.e5.embedded import EmbeddedE5
from serac_gateway.models.encoders.e5 import open_e5_encoder
from serac_gateway.models.loading import SHIPPED_PROJECTION, open_embedded_encoder
from tests.e5_files import write_e5_file

WIDTH = 32
TEXTS = ["a b c", "c b a", "d", ""]


@pytest.fixture
def tiny(tmp_path: Path) -> EmbeddedE5:
    pieces = [(f"▁{letter}", -3.0 - place / 10) for place, letter in enumerate("abcd")]
    write_e5_file(tmp_path / "tiny.bin", pieces=[*pieces, ("▁query:", -2.0)], hidden=WIDTH)
    return EmbeddedE5(tmp_path / "tiny.bin", "digest of the tiny file")


def write(folder: Path, *, seed: int = 0, **changed: np.ndarray) -> Path:
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    arrays = {
        "mean": rng.normal(scale=0.1, size=WIDTH).astype(np.float32),
        "matrix": rng.normal(size=(WIDTH, WIDTH)).astype(np.float16),
    }
    save_file(arrays | changed, folder / "projection.safetensors")
    return folder


def test_vectors_are_centred_mapped_and_of_unit_length(tiny: EmbeddedE5, tmp_path: Path) -> None:
    mean_D = np.linspace(-0.1, 0.1, WIDTH, dtype=np.float32)
    matrix_DD = np.random.default_rng(3).normal(size=(WIDTH, WIDTH)).astype(np.float32)
    folder = write(tmp_path / "p", mean=mean_D, matrix=matrix_DD)
    mapped_BD = (open_e5_encoder(tiny, tmp_path / "models").encode(TEXTS) - mean_D) @ matrix_DD
    expected_BD = mapped_BD / np.linalg.norm(mapped_BD, axis=1, keepdims=True)
    made_BD = open_e5_encoder(tiny, tmp_path / "models", projection=folder).encode(TEXTS)
    assert np.allclose(made_BD, expected_BD, atol=1e-5)


def test_another_projection_is_another_encoder(tiny: EmbeddedE5, tmp_path: Path) -> None:
    names = [
        open_e5_encoder(tiny, tmp_path / "models", projection=projection).fingerprint
        for projection in (None, write(tmp_path / "a"), write(tmp_path / "b", seed=1))
    ]
    assert len(set(names)) == 3


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"mean": np.zeros(8, np.float32)}, r"'mean' .*of shape \(8,\).*must be \(32,\)"),
        ({"matrix": np.full((WIDTH, WIDTH), np.nan, np.float32)}, "'matrix' .*not finite"),
    ],
)
def test_one_that_does_not_fit_is_named(
    changed: dict[str, np.ndarray], words: str, tiny: EmbeddedE5, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        open_e5_encoder(tiny, tmp_path / "models", projection=write(tmp_path / "p", **changed))


def test_a_missing_or_damaged_one_is_named(tiny: EmbeddedE5, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"projection\.safetensors"):
        open_e5_encoder(tiny, tmp_path / "models", projection=tmp_path)
    (tmp_path / "projection.safetensors").write_bytes(b"none")
    with pytest.raises(ConfigError, match="cannot read the encoder's projection"):
        open_e5_encoder(tiny, tmp_path / "models", projection=tmp_path)


def test_the_shipped_one_spreads_the_cosines(tmp_path: Path) -> None:
    """Without it unrelated questions have a cosine of .75 and more."""
    assert SHIPPED_PROJECTION.is_dir()
    mayor_D, chef_D, unrelated_D = open_embedded_encoder(tmp_path).encode(
        ["Who is the mayor of Lyon?", "Quién es el alcalde de Lyon?", "Write a poem about the sea."]
    )
    assert mayor_D @ chef_D > 0.5
    assert mayor_D @ unrelated_D < 0.3
