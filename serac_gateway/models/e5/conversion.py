"""Converts multilingual-e5-small, or a model trained from it, into an ONNX graph in int8.

``python -m serac_gateway.models.e5.conversion`` is the converter; models/conversion.py runs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from serac_gateway.errors import ConfigError
from serac_gateway.models.bert_graph import BertGraph, BertSizes, Projection
from serac_gateway.models.conversion import run_converter
from serac_gateway.models.e5.conversion_request import (
    CONFIG_FILE,
    MODEL_FILE,
    PROJECTION_FILE,
    WEIGHTS_FILE,
    E5Conversion,
)
from serac_gateway.models.e5.file import E5File
from serac_gateway.models.progress import OnStep, Step


class TrainedSizes(BertSizes, frozen=True, kw_only=True):
    """The part of `config.json` that must fit the package's file too."""

    vocab_size: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int


def convert(request: E5Conversion, on_step: OnStep = lambda step: None) -> None:
    """Write what `request` says.

    Raises:
        ConfigError: Weights are missing or damaged, or do not fit the package's file.
        OSError: The model cannot be written.
    """
    file = E5File(Path(request.package_file))
    if request.weights is None:
        sizes: BertSizes = BertSizes(
            num_hidden_layers=file.header.layers,
            num_attention_heads=file.header.heads,
            hidden_size=file.header.hidden_size,
            layer_norm_eps=file.header.epsilon,
        )
        weights: Mapping[str, NDArray[Any]] = file.bert_weights()
    else:
        sizes, weights = read_trained(Path(request.weights), file, request.head)
    is_pair_model = request.head == "logits"
    projection = (
        None if request.projection is None else read_projection(Path(request.projection), sizes.hidden_size)
    )
    # Exact products for logits, which meet a threshold; an encoder's vectors are as good with fast ones.
    graph = BertGraph(weights, sizes, has_pairs=is_pair_model, weight_bits=8 if is_pair_model else 7)
    for layer in range(sizes.num_hidden_layers):
        on_step(Step(request.step, layer / sizes.num_hidden_layers))
        graph.add_layer(layer, only_first=is_pair_model and layer == sizes.num_hidden_layers - 1)
    model = graph.as_logits() if is_pair_model else graph.as_vectors(projection)
    onnx.save(model, Path(request.folder) / MODEL_FILE)
    on_step(Step(request.step, 1.0))


def read_trained(folder: Path, file: E5File, head: str) -> tuple[TrainedSizes, Mapping[str, NDArray[Any]]]:
    """Sizes and weights in `folder`, checked against each other and against the package's file.

    Raises:
        ConfigError: They are missing, damaged, or do not fit; `head` is as in `E5Conversion`.
    """
    try:
        sizes = msgspec.json.decode((folder / CONFIG_FILE).read_bytes(), type=TrainedSizes)
        weights = load_file(folder / WEIGHTS_FILE)
    except (msgspec.DecodeError, UnicodeDecodeError, SafetensorError, KeyError, TypeError) as exc:
        raise ConfigError(f"the trained weights in {str(folder)!r} are damaged: {exc}") from exc
    except OSError as exc:
        raise ConfigError(
            f"cannot read the trained weights in {str(folder)!r}: {exc.strerror or exc}"
        ) from exc
    header = file.header
    for name, value, expected in (
        ("vocab_size", sizes.vocab_size, header.words),
        ("hidden_size", sizes.hidden_size, header.hidden_size),
    ):
        if value != expected:
            raise ConfigError(
                f"the trained weights in {str(folder)!r} have {name} {value}, but the word table of"
                f" multilingual-e5-small needs {expected}; train from that model"
            )
    weights = {name.removeprefix("bert."): array for name, array in weights.items()}
    for name, shape in _shapes(sizes, head, weights).items():
        array = weights.get(name)
        if array is None or array.shape != shape or not np.isfinite(array).all():
            problem = "missing" if array is None else f"of shape {array.shape} or not finite"
            raise ConfigError(
                f"the weight {name!r} in {str(folder / WEIGHTS_FILE)!r} is {problem}; its shape must be"
                f" {shape} by {CONFIG_FILE}"
            )
    weights.pop("embeddings.word_embeddings.weight", None)
    return sizes, weights


def read_projection(folder: Path, width: int) -> Projection:
    """The map of an encoder's vectors that lies in `folder`.

    Raises:
        ConfigError: It is missing, damaged or of another width.
    """
    path = folder / PROJECTION_FILE
    try:
        arrays = load_file(path)
    except (SafetensorError, OSError) as exc:
        raise ConfigError(f"cannot read the encoder's projection {str(path)!r}: {exc}") from exc
    for name, shape in (("mean", (width,)), ("matrix", (width, width))):
        array = arrays.get(name)
        if array is None or array.shape != shape or not np.isfinite(array).all():
            problem = "missing" if array is None else f"of shape {array.shape} or not finite"
            raise ConfigError(f"{name!r} in {str(path)!r} is {problem}; its shape must be {shape}")
    return Projection(mean_D=arrays["mean"].astype(np.float32), matrix_DD=arrays["matrix"].astype(np.float32))


def _shapes(
    sizes: TrainedSizes, head: str, weights: Mapping[str, NDArray[Any]]
) -> dict[str, tuple[int, ...]]:
    hidden, inner = sizes.hidden_size, sizes.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.position_embeddings.weight": (sizes.max_position_embeddings, hidden),
        "embeddings.token_type_embeddings.weight": (sizes.type_vocab_size, hidden),
        "embeddings.LayerNorm.weight": (hidden,),
        "embeddings.LayerNorm.bias": (hidden,),
    }
    linear = {
        "attention.self.query": (hidden, hidden),
        "attention.self.key": (hidden, hidden),
        "attention.self.value": (hidden, hidden),
        "attention.output.dense": (hidden, hidden),
        "intermediate.dense": (inner, hidden),
        "output.dense": (hidden, inner),
    }
    if head == "logits":
        labels = len(weights.get("classifier.bias", ()))
        shapes |= {"pooler.dense.weight": (hidden, hidden), "pooler.dense.bias": (hidden,)}
        shapes |= {"classifier.weight": (labels, hidden), "classifier.bias": (max(labels, 1),)}
    for layer in range(sizes.num_hidden_layers):
        prefix = f"encoder.layer.{layer}."
        for name, shape in linear.items():
            shapes |= {f"{prefix}{name}.weight": shape, f"{prefix}{name}.bias": shape[:1]}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"{prefix}{name}.weight": (hidden,), f"{prefix}{name}.bias": (hidden,)}
    return shapes


if __name__ == "__main__":
    run_converter(E5Conversion, convert)
