"""Writes a trained cross-encoder as the weights that ship.

One that was trained from multilingual-e5-small is written in float16 without the word table, which the
package has; the gateway converts it. Any other is written in int8 and float16 as one ONNX file.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from safetensors.torch import save_file
from transformers import BertForSequenceClassification

from serac_gateway.models.classifiers.runtimes import CONFIG, MODEL_FILE, TOKENIZER_FILE, WEIGHT_NAMES
from serac_gateway.models.e5.conversion_request import CONFIG_FILE, WEIGHTS_FILE
from serac_gateway.models.e5.embedded import embedded_e5
from serac_gateway.models.e5.file import WordTable
from training.runs import TrainingError
from training.scope.train import load_cross_encoder

_CONFIG_FIELDS = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
    "hidden_act",
    "max_position_embeddings", "type_vocab_size", "layer_norm_eps", "num_labels",
)  # fmt: skip
_WORD_TABLE = "bert.embeddings.word_embeddings.weight"
_ROWS = 16_384
"""Of the word table that are compared at a time."""


class _OnePair(torch.nn.Module):
    """A pair without padding: no attention mask is needed, and the graph is smaller without."""

    def __init__(self, model: BertForSequenceClassification) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, token_type_ids: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids, token_type_ids=token_type_ids).logits
        return logits


def export(checkpoint: Path, folder: Path) -> Path:
    """Write the cross-encoder in `checkpoint` into `folder`, in the form that the gateway opens.

    Of one with the words of multilingual-e5-small see `export_halved`; of others ``model.onnx`` and
    ``tokenizer.json``. The file of weights is returned.

    Raises:
        TrainingError: `checkpoint` is of another architecture, or its words were trained.
    """
    model = load_cross_encoder(checkpoint).eval()
    if model.config.vocab_size == len(embedded_e5().words):
        return export_halved(checkpoint, folder)
    model.config._attn_implementation = "eager"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        whole, small = Path(name) / "fp32.onnx", Path(name) / "int8.onnx"
        _export_fp32(model, whole)
        exported = onnx.load(str(whole))
        del exported.graph.value_info[:]  # the exporter's shapes of a batch of one contradict onnx's own
        onnx.save(exported, str(whole))
        previous = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            quantize_dynamic(
                whole,
                small,
                per_channel=True,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=["MatMul"],
                nodes_to_exclude=_feed_forward_ends(exported, model.config.intermediate_size),
            )
        finally:
            logging.disable(previous)
        written = onnx.load(str(small))
        names = _weight_names(written, model)
        _halve_whole_weights(written)
        config = {field: getattr(model.config, field) for field in _CONFIG_FIELDS}
        _forget_where_it_was_made(written.graph)
        helper.set_model_props(written, {WEIGHT_NAMES: json.dumps(names), CONFIG: json.dumps(config)})
        onnx.save(written, str(folder / MODEL_FILE))
    shutil.copy(checkpoint / TOKENIZER_FILE, folder / TOKENIZER_FILE)
    (folder / WEIGHTS_FILE).unlink(missing_ok=True)  # of another kind that this folder held before
    return folder / MODEL_FILE


def export_halved(checkpoint: Path, folder: Path) -> Path:
    """Write ``config.json`` and ``model.safetensors`` of a cross-encoder trained from multilingual-e5-small.

    Its word table must be that of the package, as training with frozen embeddings leaves it.

    Raises:
        TrainingError: `checkpoint` is of another architecture, or its words were trained.
    """
    model = load_cross_encoder(checkpoint).eval()
    state = model.state_dict()
    words_VD = state.pop(_WORD_TABLE).numpy()
    table = embedded_e5().words
    if words_VD.shape != (len(table), table.width) or not _has_rows_of(words_VD, table):
        raise TrainingError(
            f"the word embeddings of {str(checkpoint)!r} are not those of multilingual-e5-small; train from"
            " that model with freeze_embeddings = true"
        )
    folder.mkdir(parents=True, exist_ok=True)
    config = {field: getattr(model.config, field) for field in _CONFIG_FIELDS}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    halved = {name: tensor.half() for name, tensor in state.items() if tensor.is_floating_point()}
    save_file(halved, folder / WEIGHTS_FILE)
    for outdated in (MODEL_FILE, TOKENIZER_FILE):  # of weights that this folder held before
        (folder / outdated).unlink(missing_ok=True)
    return folder / WEIGHTS_FILE


def _has_rows_of(words_VD: np.ndarray[Any, Any], table: WordTable) -> bool:
    return all(
        np.allclose(words_VD[begin : begin + _ROWS], table.rows(range(begin, min(begin + _ROWS, len(table)))))
        for begin in range(0, len(table), _ROWS)
    )


def _export_fp32(model: BertForSequenceClassification, path: Path) -> None:
    example_BL = torch.tensor([[101, 2040, 102, 2073, 102]])
    tokens = {1: torch.export.Dim("tokens", min=2, max=512)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _OnePair(model), (example_BL, torch.zeros_like(example_BL)), str(path),
            input_names=["input_ids", "token_type_ids"], output_names=["logits"],
            dynamic_shapes={"input_ids": tokens, "token_type_ids": tokens}, external_data=False,
            verbose=False,
        )  # fmt: skip


def _forget_where_it_was_made(graph: onnx.GraphProto) -> None:
    """Drop the stack traces that torch leaves in every node: they name files of the machine that exported."""
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]


def _weight_names(
    quantised: onnx.ModelProto, model: BertForSequenceClassification
) -> dict[str, tuple[str, bool]]:
    """Torch's name of each weight -> its initialiser and whether that is transposed.

    Found by value after quantising: the quantiser turns some weights over, square ones without a trace.
    """
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in quantised.graph.initializer}
    arrays: dict[str, tuple[np.ndarray[Any, Any], float]] = {}
    for name, array in held.items():
        if array.dtype == np.float32 and not name.endswith(("_scale", "_zero_point")):
            arrays[name] = (array, 1e-7)
        elif name.endswith("_quantized"):
            base = name.removesuffix("_quantized")
            scale = held[f"{base}_scale"]
            arrays[base] = (
                (array.astype(np.float32) - held[f"{base}_zero_point"]) * scale,
                float(scale.max()),
            )
    names: dict[str, tuple[str, bool]] = {}
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        value = tensor.numpy()
        for initialiser, (array, tolerance) in arrays.items():
            if array.shape == value.shape and np.abs(array - value).max() <= tolerance:
                names[name] = (initialiser, False)
            elif (
                value.ndim == 2
                and array.shape == value.T.shape
                and np.abs(array - value.T).max() <= tolerance
            ):
                names[name] = (initialiser, True)
            else:
                continue
            break  # equal weights may share an initialiser: the exporter folds them
        else:
            raise ValueError(
                f"the exported graph holds no initialiser equal to {name!r}; the exporter changed"
            )
    return names


def _feed_forward_ends(model: onnx.ModelProto, width: int) -> list[str]:
    """The MatMuls behind the activation: its outliers make quantised inputs coarse (see training/LOG.md)."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type == "MatMul" and shapes.get(node.input[1], (0,))[0] == width
    ]


def _halve_whole_weights(model: onnx.ModelProto) -> None:
    """Word embeddings and MatMuls that stayed whole to fp16: half the bytes, no loss that shows.

    Embeddings are cast behind the lookup; a MatMul's weights before it, which the runtime folds at load.
    """
    graph = model.graph
    for place, initialiser in enumerate(graph.initializer):
        array = numpy_helper.to_array(initialiser)
        name = initialiser.name
        users = [node for node in graph.node if name in node.input]
        if array.ndim != 2 or array.dtype != np.float32 or len(users) != 1 or array.size < 4_096:
            continue
        (user,) = users
        if user.op_type not in ("Gather", "MatMul"):
            continue
        graph.initializer[place].CopyFrom(numpy_helper.from_array(array.astype(np.float16), name))
        at = list(graph.node).index(user)
        if user.op_type == "Gather":
            result = user.output[0]
            user.output[0] = f"{result}_fp16"
            cast = helper.make_node("Cast", [f"{result}_fp16"], [result], to=TensorProto.FLOAT)
            graph.node.insert(at + 1, cast)
        else:
            user.input[list(user.input).index(name)] = f"{name}_fp32"
            cast = helper.make_node("Cast", [name], [f"{name}_fp32"], to=TensorProto.FLOAT)
            graph.node.insert(at, cast)
