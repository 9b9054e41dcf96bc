"""Weights of the encoder as a run keeps them and as they ship: a BERT without its word table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel

from serac_gateway.models.e5.conversion_request import CONFIG_FILE, WEIGHTS_FILE
from serac_gateway.models.e5.embedded import EmbeddedE5
from serac_gateway.models.e5.file import E5File
from training.runs import TrainingError

_FIELDS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "max_position_embeddings", "type_vocab_size", "layer_norm_eps",
)  # fmt: skip
_WORDS = "embeddings.word_embeddings.weight"


def package_encoder(e5: EmbeddedE5, layers: Sequence[int] | None = None) -> BertModel:
    """multilingual-e5-small out of its package, or those of its `layers`; the caller gives it its words.

    Raises:
        TrainingError: It has no such layer.
        ConfigError: The package's file is damaged.
    """
    file = E5File(e5.path)
    header = file.header
    chosen = range(header.layers) if layers is None else layers
    if not chosen or not set(chosen) <= set(range(header.layers)):
        raise TrainingError(f"layers {list(chosen)!r}: multilingual-e5-small has 0 to {header.layers - 1}")
    weights = file.bert_weights()
    state = {name: array for name, array in weights.items() if not name.startswith("encoder.")}
    for place, layer in enumerate(chosen):
        before = f"encoder.layer.{layer}."
        state |= {
            f"encoder.layer.{place}.{name.removeprefix(before)}": array
            for name, array in weights.items()
            if name.startswith(before)
        }
    config = {
        "hidden_size": header.hidden_size,
        "num_hidden_layers": len(chosen),
        "num_attention_heads": header.heads,
        "intermediate_size": header.inner_size,
        "hidden_act": "gelu",
        "max_position_embeddings": header.positions,
        "type_vocab_size": header.token_types,
        "layer_norm_eps": header.epsilon,
    }
    return _model(config, {name: torch.from_numpy(array) for name, array in state.items()}, "the package")


def load_encoder(folder: Path) -> BertModel:
    """The encoder that `save_encoder` wrote; the caller gives it its words.

    Raises:
        TrainingError: The folder holds none.
    """
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        state = load_file(folder / WEIGHTS_FILE)
        fields = {field: config[field] for field in _FIELDS}
    except (OSError, ValueError, KeyError, SafetensorError) as exc:
        raise TrainingError(f"{str(folder)!r} holds no encoder that training wrote: {exc!r}") from exc
    return _model(fields, {name: weights.float() for name, weights in state.items()}, repr(str(folder)))


def save_encoder(
    model: BertModel, folder: Path, e5: EmbeddedE5, *, dtype: torch.dtype = torch.float32
) -> Path:
    """Write ``config.json`` and ``model.safetensors``, in `dtype`, without the words, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: weights.detach().to(dtype).contiguous()
        for name, weights in model.state_dict().items()
        if name != _WORDS
    }
    save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    fields = {field: getattr(model.config, field) for field in _FIELDS}
    described = json.dumps({"vocab_size": len(e5.words), **fields}, indent=2)
    (folder / CONFIG_FILE).write_text(described + "\n", encoding="utf-8")
    return folder / WEIGHTS_FILE


def _model(config: dict[str, object], state: dict[str, torch.Tensor], source: str) -> BertModel:
    model = BertModel(
        BertConfig(
            **config,
            vocab_size=1,  # transformers insists on a table
            pad_token_id=None,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ),
        add_pooling_layer=False,
    )
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as exc:  # sizes that differ
        raise TrainingError(f"the weights of {source} do not fit their {CONFIG_FILE}: {exc}") from exc
    if wrong := [name for name in (*missing, *unexpected) if name != _WORDS]:
        raise TrainingError(f"the weights of {source} do not fit their {CONFIG_FILE}: {sorted(wrong)!r}")
    return model
