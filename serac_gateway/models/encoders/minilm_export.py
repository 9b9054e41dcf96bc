"""all-MiniLM-L6-v2 as an ONNX graph in int8, built from its weights.

The graph is the one that torch's exporter makes of transformers' BertModel, mean pooling and normalisation,
for one text without padding, after ONNX Runtime's dynamic quantisation: linear layers with int8 weights, one
scale an output channel, and uint8 inputs, one scale a text. Building it needs neither torch nor transformers.
``python -m serac_gateway.models.encoders.minilm_export`` is the converter; models/conversion.py runs it.

Shape suffixes: L tokens, D embedding width, I inputs and O outputs of a linear layer.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

from serac_gateway.models.conversion import run_converter
from serac_gateway.models.encoders.export_request import EXPORTING, ExportRequest
from serac_gateway.models.progress import OnStep, Step
from serac_gateway.models.weight_files import check_minilm

_OPSET = 20
"""The first with Gelu."""
_IR_VERSION = 10
_SMALLEST_NORM = 1e-12


class _Config(msgspec.Struct, frozen=True):
    """The part of `config.json` that the graph depends on."""

    num_hidden_layers: int
    num_attention_heads: int
    hidden_size: int
    layer_norm_eps: float


def export(request: ExportRequest, on_step: OnStep = lambda step: None) -> None:
    """Write `model.onnx`, `tokenizer.json` and `fingerprint` into the folder that `request` names.

    Raises:
        ConfigError: A file of the weights is missing, or it is damaged or another one.
        OSError: A file cannot be written.
    """
    weights, folder = Path(request.weights), Path(request.folder)
    check_minilm(weights)
    config = msgspec.json.decode((weights / "config.json").read_bytes(), type=_Config)
    graph = _Graph(load_file(weights / "model.safetensors"), config)
    for layer in range(config.num_hidden_layers):
        on_step(Step(EXPORTING, layer / config.num_hidden_layers))
        graph.add_layer(layer)
    onnx.save(graph.finished(), folder / "model.onnx")
    shutil.copy(weights / "tokenizer.json", folder)
    (folder / "fingerprint").write_text(request.fingerprint, "utf-8")
    on_step(Step(EXPORTING, 1.0))


class _Graph:
    """The graph as it grows: every method adds nodes and gives the name of their result."""

    def __init__(self, weights: dict[str, NDArray[np.float32]], config: _Config) -> None:
        self._weights = weights
        self._config = config
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._shapes: list[Any] = []
        self._hidden_1LD = self._embedded()

    def finished(self) -> Any:  # noqa: ANN401
        """The model: its output is the mean over the tokens, at unit length."""
        axis = self._constant("tokens_axis", np.array([1]))
        count = self._add("Cast", [self._length()], to=TensorProto.FLOAT)
        sum_1D = self._add("ReduceSum", [self._hidden_1LD, axis], keepdims=0)
        mean_1D = self._add("Div", [sum_1D, count])
        norm_11 = self._add("ReduceL2", [mean_1D, axis], keepdims=1)
        smallest = self._constant("smallest_norm", np.float32(_SMALLEST_NORM))
        self._add("Div", [mean_1D, self._add("Clip", [norm_11, smallest])], output="vectors")
        graph = helper.make_graph(
            self._nodes,
            "all-MiniLM-L6-v2",
            [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "tokens"])],
            [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, [1, self._config.hidden_size])],
            list(self._constants.values()),
            value_info=self._shapes,
        )
        return helper.make_model(
            graph, ir_version=_IR_VERSION, opset_imports=[helper.make_opsetid("", _OPSET)]
        )

    def add_layer(self, number: int) -> None:
        """One layer of the encoder."""
        name = f"encoder.layer.{number}"
        inputs = self._quantised_inputs(self._hidden_1LD)
        attention = f"{name}.attention.self"
        queries = self._heads(self._linear(f"{attention}.query", inputs), [0, 2, 1, 3])
        keys = self._heads(self._linear(f"{attention}.key", inputs), [0, 2, 3, 1])
        values = self._heads(self._linear(f"{attention}.value", inputs), [0, 2, 1, 3])
        width = self._config.hidden_size // self._config.num_attention_heads
        scale = self._constant("attention_scale", np.float32(width**-0.5))
        logits = self._add("Mul", [self._add("MatMul", [queries, keys]), scale])
        mixed = self._add("MatMul", [self._add("Softmax", [logits], axis=-1), values])
        joined = self._constant("joined_shape", np.array([0, 0, self._config.hidden_size]))
        mixed_1LD = self._add("Reshape", [self._add("Transpose", [mixed], perm=[0, 2, 1, 3]), joined])
        self._add_and_norm(f"{name}.attention.output", mixed_1LD)
        inner = self._linear(f"{name}.intermediate.dense", self._quantised_inputs(self._hidden_1LD))
        self._add_and_norm(f"{name}.output", self._add("Gelu", [inner]))

    def _embedded(self) -> str:
        words = self._add("Gather", [self._weight("embeddings.word_embeddings.weight"), "input_ids"])
        # Every token is of type 0: there is one text.
        kind = self._constant("token_type", self._weights["embeddings.token_type_embeddings.weight"][0])
        positions = self._add(
            "Slice",
            [
                self._weight("embeddings.position_embeddings.weight"),
                self._constant("first", np.array([0])),
                self._length(),
            ],
        )
        sum_1LD = self._add("Add", [self._add("Add", [words, kind]), positions])
        # The slice hides its length from shape inference. ONNX Runtime fuses only what has a known shape.
        shape = [1, "tokens", self._config.hidden_size]
        self._shapes.append(helper.make_tensor_value_info(sum_1LD, TensorProto.FLOAT, shape))
        return self._norm("embeddings.LayerNorm", sum_1LD)

    def _length(self) -> str:
        return self._add("Shape", ["input_ids"], start=1, end=2)

    def _heads(self, name_1LD: str, order: list[int]) -> str:
        heads = self._config.num_attention_heads
        shape = np.array([0, 0, heads, self._config.hidden_size // heads])
        split = self._add("Reshape", [name_1LD, self._constant("heads_shape", shape)])
        return self._add("Transpose", [split], perm=order)

    def _add_and_norm(self, name: str, inputs: str) -> None:
        changed_1LD = self._linear(f"{name}.dense", self._quantised_inputs(inputs))
        self._hidden_1LD = self._norm(f"{name}.LayerNorm", self._add("Add", [changed_1LD, self._hidden_1LD]))

    def _norm(self, name: str, inputs: str) -> str:
        return self._add(
            "LayerNormalization",
            [inputs, self._weight(f"{name}.weight"), self._weight(f"{name}.bias")],
            epsilon=self._config.layer_norm_eps,
        )

    def _quantised_inputs(self, name: str) -> tuple[str, str, str]:
        """In uint8, with scale and zero point."""
        outputs = [f"{name}_quantised", f"{name}_scale", f"{name}_zero"]
        self._nodes.append(helper.make_node("DynamicQuantizeLinear", [name], outputs))
        return outputs[0], outputs[1], outputs[2]

    def _linear(self, name: str, inputs: tuple[str, str, str]) -> str:
        values, scale, zero = inputs
        weight_IO, scale_O = _quantised(self._weights[f"{name}.weight"].T)
        weight = self._constant(f"{name}.weight", weight_IO)
        weight_zero = self._constant(f"{name}.weight_zero", np.zeros_like(scale_O, np.int8))
        product = self._add("MatMulInteger", [values, weight, zero, weight_zero])
        scales = self._add("Mul", [scale, self._constant(f"{name}.weight_scale", scale_O)])
        floats = self._add("Mul", [self._add("Cast", [product], to=TensorProto.FLOAT), scales])
        return self._add("Add", [floats, self._weight(f"{name}.bias")])

    def _weight(self, name: str) -> str:
        return self._constant(name, self._weights[name])

    def _constant(self, name: str, value: Any) -> str:  # noqa: ANN401
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(
                np.ascontiguousarray(value).reshape(np.shape(value)), name
            )
        return name

    def _add(self, operator: str, inputs: list[str], *, output: str | None = None, **attributes: Any) -> str:  # noqa: ANN401
        name = output or f"{operator}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name


def _quantised(weight_IO: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """In int8 with one scale an output, as ONNX Runtime's quantiser has it."""
    scale_O = (np.abs(weight_IO).max(0).astype(np.float64) * 2 / 254).astype(np.float32)
    scale_O[scale_O < np.finfo(np.float32).tiny] = 1
    return np.clip(np.rint(weight_IO / scale_O), -127, 127).astype(np.int8), scale_O


if __name__ == "__main__":
    run_converter(ExportRequest, export)
