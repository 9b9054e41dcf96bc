"""Weights of the cross-encoder as a run keeps them and as they ship: a BERT without its word table.

The words are those of multilingual-e5-small, which the gateway reads from its package.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForSequenceClassification

from serac_gateway.models.e5.conversion_request import CONFIG_FILE, WEIGHTS_FILE
from serac_gateway.models.e5.embedded import EmbeddedE5
from serac_gateway.models.e5.file import E5File
from training.runs import TrainingError

OUTPUTS = 2
"""Whether the edit answers the query; whether a right answer depends on it, as that of a next step does."""
_FIELDS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act",
    "max_position_embeddings", "type_vocab_size", "layer_norm_eps",
)  # fmt: skip
_WORDS = "bert.embeddings.word_embeddings.weight"
_COMPARED_ROWS = 16_384
"""Of a word table that are compared with the package's at a time."""

_State = dict[str, torch.Tensor]


def load_cross_encoder(
    folder: Path | None, e5: EmbeddedE5, *, dropout: float = 0.0, layers: int | None = None
) -> BertForSequenceClassification:
    """A cross-encoder with two outputs, in scope and depends on the edit; the caller gives it its words.

    `folder` has a checkpoint, shipped weights or an encoder; None: multilingual-e5-small itself. From an
    encoder both outputs begin at random, and the second token type like the first, the only one that an
    encoder has seen. From a checkpoint of one output the second begins as a copy. The `layers` from below
    stay.

    Raises:
        TrainingError: The folder holds no BERT over these words, or a classifier with more outputs.
        ConfigError: The package's file is damaged.
    """
    fields, state = _of_package(e5) if folder is None else _of_folder(folder, e5)
    is_classifier = "classifier.weight" in state
    kept = int(fields["num_hidden_layers"]) if layers is None else min(layers, fields["num_hidden_layers"])
    state = {
        name: weights.float()
        for name, weights in state.items()
        if not name.startswith("bert.encoder.layer.") or int(name.split(".")[3]) < kept
    }
    outputs = len(state["classifier.bias"]) if is_classifier else OUTPUTS
    model = BertForSequenceClassification(
        BertConfig(
            **{**fields, "num_hidden_layers": kept},
            vocab_size=1,  # transformers insists on a table
            pad_token_id=None,
            num_labels=outputs,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
    )
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as exc:  # sizes that differ
        raise TrainingError(f"the weights in {str(folder)!r} do not fit their {CONFIG_FILE}: {exc}") from exc
    fresh = () if is_classifier else ("classifier.", "bert.pooler.")
    absent = [name for name in missing if name != _WORDS and not name.startswith(fresh)]
    if absent or unexpected:
        raise TrainingError(
            f"the weights in {str(folder)!r} do not fit their {CONFIG_FILE}: {sorted(absent or unexpected)!r}"
        )
    if outputs < OUTPUTS:
        _second_output_like_the_first(model)
    if not is_classifier:
        types_TD = model.bert.embeddings.token_type_embeddings.weight
        with torch.no_grad():
            types_TD[1].copy_(types_TD[0])
    return model


def save_cross_encoder(
    model: BertForSequenceClassification, folder: Path, e5: EmbeddedE5, *, dtype: torch.dtype = torch.float32
) -> None:
    """Write ``config.json`` and ``model.safetensors``, in `dtype`, without the words, into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        name: weights.detach().to(dtype).contiguous()
        for name, weights in model.state_dict().items()
        if name != _WORDS
    }
    save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    fields = {field: getattr(model.config, field) for field in _FIELDS}
    described = {"vocab_size": len(e5.words), **fields, "num_labels": len(model.classifier.bias)}
    (folder / CONFIG_FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def _of_package(e5: EmbeddedE5) -> tuple[dict[str, Any], _State]:
    file = E5File(e5.path)
    header = file.header
    fields = {
        "hidden_size": header.hidden_size,
        "num_hidden_layers": header.layers,
        "num_attention_heads": header.heads,
        "intermediate_size": header.inner_size,
        "hidden_act": "gelu",
        "max_position_embeddings": header.positions,
        "type_vocab_size": header.token_types,
        "layer_norm_eps": header.epsilon,
    }
    return fields, {f"bert.{name}": torch.from_numpy(array) for name, array in file.bert_weights().items()}


def _of_folder(folder: Path, e5: EmbeddedE5) -> tuple[dict[str, Any], _State]:
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as exc:
        raise TrainingError(
            f"{str(folder)!r} holds no readable {CONFIG_FILE}; name a folder that training wrote"
        ) from exc
    if config.get("model_type", "bert") != "bert" or any(field not in config for field in _FIELDS):
        raise TrainingError(
            f"{str(folder)!r} holds a {config.get('model_type', 'part of a BERT')!r}; the scope classifier is"
            f" a BERT with {OUTPUTS} outputs"
        )
    try:
        state = load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as exc:
        raise TrainingError(f"cannot read the weights in {str(folder)!r}: {exc}") from exc
    state = {
        name if name.startswith(("bert.", "classifier.")) else f"bert.{name}": weights
        for name, weights in state.items()
        if not name.endswith("position_ids")
    }
    outputs = len(state.get("classifier.bias", ()))
    if outputs > OUTPUTS:
        raise TrainingError(
            f"{str(folder)!r} holds a BERT with {outputs} outputs; the scope classifier has {OUTPUTS}"
        )
    table = state.pop(_WORDS, None)
    if (table is None and config.get("vocab_size") != len(e5.words)) or not _has_words_of(table, e5):
        raise TrainingError(
            f"the words of the weights in {str(folder)!r} are not those of multilingual-e5-small, which the"
            " gateway reads them with; begin from 'shipped', from 'multilingual-e5-small', or from weights"
            " that were trained from them"
        )
    return {field: config[field] for field in _FIELDS}, state


def _has_words_of(table_VD: torch.Tensor | None, e5: EmbeddedE5) -> bool:
    if table_VD is None:
        return True
    if table_VD.shape != (len(e5.words), e5.words.width):
        return False
    return all(
        torch.allclose(
            table_VD[start : start + _COMPARED_ROWS].float(),
            torch.from_numpy(e5.words.rows(range(start, min(start + _COMPARED_ROWS, len(e5.words))))),
            atol=1e-3,
        )
        for start in range(0, len(e5.words), _COMPARED_ROWS)
    )


def _second_output_like_the_first(model: BertForSequenceClassification) -> None:
    first = model.classifier
    both = torch.nn.Linear(first.in_features, OUTPUTS)
    with torch.no_grad():
        both.weight.copy_(first.weight.expand(OUTPUTS, -1))
        both.bias.copy_(first.bias.expand(OUTPUTS))
    model.classifier = both
    model.num_labels = model.config.num_labels = OUTPUTS
