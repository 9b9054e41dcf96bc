"""Every encoder does what `Encoder` says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from serac_gateway.config.model import Device, Precision
from serac_gateway.errors import ConfigError
from serac_gateway.models.devices import Placement
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.models.encoders.onnx import OnnxEncoder, open_embedded_minilm
from serac_gateway.models.encoders.sentence_transformer import (
    SentenceTransformerEncoder,
    embedded_minilm_path,
)
from serac_gateway.models.loading import open_embedded_encoder
from serac_gateway.models.progress import Step
from serac_gateway.testing import WordEncoder

TEXTS = ["Who runs Acme?", "who is in charge of acme", "How tall is Mont Blanc?", "🙂", "x" * 100_000, " "]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> OnnxEncoder:
    return open_embedded_minilm(embedded_minilm_path(), tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def reference() -> SentenceTransformerEncoder:
    return SentenceTransformerEncoder(str(embedded_minilm_path()))


@pytest.fixture(scope="module")
def multilingual(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return open_embedded_encoder(tmp_path_factory.mktemp("data"), name="e5")


@pytest.fixture(scope="module")
def in_fp32() -> Encoder:
    return open_embedded_encoder(Path(), placement=Placement(device=Device.CPU, precision=Precision.FP32))


@pytest.fixture(scope="module")
def in_bf16() -> Encoder:
    return open_embedded_encoder(Path(), placement=Placement(device=Device.CPU, precision=Precision.BF16))


@pytest.fixture(params=["exported", "multilingual", "in_fp32", "in_bf16", "reference", "words"])
def encoder(request: pytest.FixtureRequest) -> Encoder:
    make: dict[str, Callable[[], Encoder]] = {
        "exported": lambda: request.getfixturevalue("exported"),
        "multilingual": lambda: request.getfixturevalue("multilingual"),
        "in_fp32": lambda: request.getfixturevalue("in_fp32"),
        "in_bf16": lambda: request.getfixturevalue("in_bf16"),
        "reference": lambda: request.getfixturevalue("reference"),
        "words": WordEncoder,
    }
    return make[request.param]()


def test_embeddings_are_unit_rows_in_the_order_of_the_texts(encoder: Encoder) -> None:
    vectors_BD = encoder.encode(TEXTS)
    assert vectors_BD.shape == (len(TEXTS), encoder.width)
    assert vectors_BD.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors_BD, axis=1), 1, atol=1e-4)
    # In bfloat16 a text's vector depends a little on the shape of its batch.
    tolerance = 5e-3 if "bf16" in encoder.fingerprint else 1e-4
    assert np.allclose(vectors_BD[2], encoder.encode([TEXTS[2]])[0], atol=tolerance)


def test_no_texts_give_no_rows(encoder: Encoder) -> None:
    assert encoder.encode([]).shape == (0, encoder.width)


def test_a_paraphrase_is_nearer_than_another_topic(encoder: Encoder) -> None:
    query_D, paraphrase_D, other_D = encoder.encode(TEXTS[:3])
    assert query_D @ paraphrase_D > query_D @ other_D


@pytest.mark.parametrize("name", ["exported", "multilingual"])
def test_a_converted_encoder_gives_a_text_the_same_vector_in_any_company(
    name: str, request: pytest.FixtureRequest
) -> None:
    encoder: Encoder = request.getfixturevalue(name)
    alone_D = encoder.encode([TEXTS[0]])[0]
    assert np.array_equal(encoder.encode(TEXTS)[0], alone_D)


def test_the_exported_encoder_agrees_with_sentence_transformers(
    exported: OnnxEncoder, reference: SentenceTransformerEncoder
) -> None:
    """int8 against fp32: cosine above 0.99 for sentences, 0.95 for any text, and another fingerprint."""
    cosines = (exported.encode(TEXTS) * reference.encode(TEXTS)).sum(axis=1)
    assert cosines[:3].min() > 0.99
    assert cosines.min() > 0.95
    assert exported.fingerprint != reference.fingerprint


def test_the_export_is_made_once(tmp_path: Path, exported: OnnxEncoder) -> None:
    steps: list[Step] = []
    (tmp_path / f"encoder-{exported.fingerprint}").mkdir()  # the graph that torch exported
    first = open_embedded_minilm(embedded_minilm_path(), tmp_path, steps.append)
    assert {step.text for step in steps} == {"exporting the encoder (once)"}
    count = len(steps)
    again = open_embedded_minilm(embedded_minilm_path(), tmp_path, steps.append)
    assert len(steps) == count
    assert len(list(tmp_path.glob("encoder-*"))) == 1
    assert first.fingerprint == again.fingerprint == exported.fingerprint
    assert [path.name for path in tmp_path.glob(".encoder-*")] == []


def test_a_damaged_export_is_named_with_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ConfigError, match="delete that folder"):
        OnnxEncoder(tmp_path)


def test_a_cache_that_cannot_be_written_is_named_with_its_remedy(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(ConfigError, match="data-dir"):
        open_embedded_minilm(embedded_minilm_path(), blocked / "cache")


def test_an_unknown_model_is_named_with_its_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"models\.encoder"):
        SentenceTransformerEncoder(str(tmp_path / "nothing here"))


def test_the_same_weights_in_other_numbers_give_nearly_the_same_vectors(
    multilingual: Encoder, in_fp32: Encoder, in_bf16: Encoder
) -> None:
    """Near enough for the same thresholds, and not the same: each has a fingerprint of its own."""
    exact_BD = in_fp32.encode(TEXTS)
    for other, least in ((multilingual, 0.95), (in_bf16, 0.99)):
        cosines = (exact_BD * other.encode(TEXTS)).sum(axis=1)
        assert cosines.min() > least, (other.fingerprint, cosines)
    fingerprints = {encoder.fingerprint for encoder in (multilingual, in_fp32, in_bf16)}
    assert len(fingerprints) == 3
    assert len({fingerprint.rpartition("-")[2] for fingerprint in fingerprints}) == 1
