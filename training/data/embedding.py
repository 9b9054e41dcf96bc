"""The untrained bi-encoder, for measuring how near texts are while data is made."""

from __future__ import annotations

from collections.abc import Sequence

from serac_gateway.domain.vectors import Vectors
from serac_gateway.models.encoders.sentence_transformer import embedded_minilm_path
from training.data.public_sets import Embed


def open_embed() -> Embed:
    """Embeds texts in batches of 64, whose numerics depend on the batch: good enough for mining."""
    # Imported here: torch takes seconds to import, which other commands need not wait for.
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(embedded_minilm_path()))
    model.max_seq_length = 64

    def embed(texts: Sequence[str]) -> Vectors:
        vectors_BD: Vectors = model.encode(
            list(texts),
            batch_size=64,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return vectors_BD

    return embed
