"""An encoder that remembers gives the same vectors, and asks once a text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from serac_gateway.errors import ConfigError
from serac_gateway.testing import WordEncoder
from training.evaluation.scope.encoder_cache import CachedEncoder, cached

TEXTS = ["Who built Oru?", "bread", "Who built Oru?"]


def test_vectors_are_the_encoders_own_and_computed_once_a_text(tmp_path: Path) -> None:
    inner = WordEncoder()
    encoder = CachedEncoder(inner, tmp_path / "v.npz")
    assert np.array_equal(encoder.encode(TEXTS), WordEncoder().encode(TEXTS))
    encoder.encode(TEXTS)
    assert inner.texts_encoded == 2
    assert (encoder.width, encoder.fingerprint) == (inner.width, inner.fingerprint)
    assert encoder.encode([]).shape == (0, inner.width)


def test_another_process_begins_with_what_was_saved_even_by_an_interrupted_one(tmp_path: Path) -> None:
    def interrupted() -> None:
        with cached(WordEncoder(), tmp_path) as encoder:
            encoder.encode(TEXTS)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    inner = WordEncoder()
    with cached(inner, tmp_path) as encoder:
        assert np.array_equal(encoder.encode(["bread"]), WordEncoder().encode(["bread"]))
    assert inner.texts_encoded == 0


def test_encoders_of_other_fingerprints_share_nothing(tmp_path: Path) -> None:
    with cached(WordEncoder(), tmp_path) as encoder:
        encoder.encode(TEXTS)
    other = WordEncoder(salt="other")
    with cached(other, tmp_path) as encoder:
        encoder.encode(TEXTS)
    assert other.texts_encoded == 2


def test_a_damaged_file_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "v.npz").write_bytes(b"PK broken")
    with pytest.raises(ConfigError, match=r"v\.npz' are damaged .*delete the file"):
        CachedEncoder(WordEncoder(), tmp_path / "v.npz")
