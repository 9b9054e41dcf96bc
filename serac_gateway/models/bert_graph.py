"""A BERT as an ONNX graph in 8 bits, built from its weights.

The graph is the one that torch's exporter makes of transformers' BertModel for one text without padding, with
linear layers in 8 bits: one scale an output channel for the weights, and for the inputs one scale a text, as
ONNX Runtime's own dynamic quantisation has it, or one a token. It needs neither torch nor transformers.

A scale a token is what makes e5 exact enough: its activations have outliers in few tokens. And without VNNI
the products of uint8 inputs and int8 weights saturate at 16 bits. So weights have 7 bits, or they are uint8
too; the latter takes a quarter longer (training/LOG.md has figures).

Shape suffixes: V words, L tokens, D embedding width, I inputs and O outputs of a linear layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from serac_gateway.errors import ConfigError

WORDS: Final = "words"
"""The input of a graph without word table: the embeddings of the tokens, float32. *Shape:* (1, L, D)."""
TOKEN_TYPES: Final = "token_type_ids"
_OPSET = 20
"""The first with Gelu."""
_IR_VERSION = 10
_SMALLEST_NORM = 1e-12
_WORD_TABLE = "embeddings.word_embeddings.weight"


class BertSizes(msgspec.Struct, frozen=True):
    """The part of transformers' `config.json` that the graph depends on."""

    num_hidden_layers: int
    num_attention_heads: int
    hidden_size: int
    layer_norm_eps: float
    hidden_act: str = "gelu"


class Projection(msgspec.Struct, frozen=True, kw_only=True):
    """A linear map of an encoder's unit vectors: (vector - mean) @ matrix, brought to unit length again."""

    mean_D: NDArray[np.float32]
    matrix_DD: NDArray[np.float32]


class BertGraph:
    """The graph as it grows: every method adds nodes and gives the name of their result.

    With a word table among the weights the input is `input_ids`, else `WORDS`. With `has_pairs` there is the
    input `TOKEN_TYPES` too, else all tokens are of type 0.
    """

    def __init__(
        self,
        weights: Mapping[str, NDArray[Any]],
        sizes: BertSizes,
        *,
        has_pairs: bool = False,
        weight_bits: Literal[7, 8] | None = None,
    ) -> None:
        """Begin with the embeddings; `weights` have BertModel's names and any floating type.

        With `weight_bits` inputs have a scale a token; None: a scale a text, and weights of 8 bits.

        Raises:
            ConfigError: A weight is missing, or the activation is not GELU.
        """
        if sizes.hidden_act != "gelu":
            raise ConfigError(f"the activation {sizes.hidden_act!r} is not supported, only 'gelu'")
        self._weights = weights
        self._sizes = sizes
        self._weight_bits = weight_bits
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._shapes: list[Any] = []
        self._inputs: list[Any] = []
        self._hidden_1LD = self._embedded(has_pairs)

    def add_layer(self, number: int, *, only_first: bool = False) -> None:
        """One layer of the encoder; with `only_first` it goes on with the first token alone."""
        name = f"encoder.layer.{number}"
        inputs = self._quantised_inputs(self._hidden_1LD)
        asking = inputs
        if only_first:
            self._hidden_1LD = self._first_token()
            asking = self._quantised_inputs(self._hidden_1LD)
        attention = f"{name}.attention.self"
        queries = self._heads(self._linear(f"{attention}.query", asking), [0, 2, 1, 3])
        keys = self._heads(self._linear(f"{attention}.key", inputs), [0, 2, 3, 1])
        values = self._heads(self._linear(f"{attention}.value", inputs), [0, 2, 1, 3])
        width = self._sizes.hidden_size // self._sizes.num_attention_heads
        scale = self._constant("attention_scale", np.float32(width**-0.5))
        logits = self._add("Mul", [self._add("MatMul", [queries, keys]), scale])
        mixed = self._add("MatMul", [self._add("Softmax", [logits], axis=-1), values])
        joined = self._constant("joined_shape", np.array([0, 0, self._sizes.hidden_size]))
        mixed_1LD = self._add("Reshape", [self._add("Transpose", [mixed], perm=[0, 2, 1, 3]), joined])
        attended = self._linear(f"{name}.attention.output.dense", self._quantised_inputs(mixed_1LD))
        self._add_and_norm(f"{name}.attention.output", attended)
        inner = self._linear(f"{name}.intermediate.dense", self._quantised_inputs(self._hidden_1LD))
        active = self._quantised_inputs(self._add("Gelu", [inner]))
        self._add_and_norm(f"{name}.output", self._linear(f"{name}.output.dense", active))

    def as_vectors(self, projection: Projection | None = None) -> Any:  # noqa: ANN401
        """The model: its output `vectors` is the mean over the tokens, at unit length. *Shape:* (1, D).

        With `projection` the vectors are mapped by it.
        """
        axis = self._constant("tokens_axis", np.array([1]))
        count = self._add("Cast", [self._length()], to=TensorProto.FLOAT)
        sum_1D = self._add("ReduceSum", [self._hidden_1LD, axis], keepdims=0)
        mean_1D = self._add("Div", [sum_1D, count])
        if projection is None:
            self._unit_length(mean_1D, output="vectors")
        else:
            unit_1D = self._unit_length(mean_1D)
            apart_1D = self._add("Sub", [unit_1D, self._constant("projection_mean", projection.mean_D)])
            matrix = self._constant("projection_matrix", projection.matrix_DD)
            self._unit_length(self._add("MatMul", [apart_1D, matrix]), output="vectors")
        return self._model("vectors", self._sizes.hidden_size)

    def as_logits(self) -> Any:  # noqa: ANN401
        """The model: its output `logits` is the classifier's, of the pooled first token. *Shape:* (1, O)."""
        axis = self._constant("tokens_axis", np.array([1]))
        first_1D = self._add("Squeeze", [self._first_token(), axis])
        pooled_1D = self._add("Tanh", [self._whole_linear("pooler.dense", first_1D)])
        self._whole_linear("classifier", pooled_1D, output="logits")
        return self._model("logits", len(self._weights["classifier.bias"]))

    def _unit_length(self, name_1D: str, *, output: str | None = None) -> str:
        axis = self._constant("tokens_axis", np.array([1]))
        norm_11 = self._add("ReduceL2", [name_1D, axis], keepdims=1)
        smallest = self._constant("smallest_norm", np.float32(_SMALLEST_NORM))
        return self._add("Div", [name_1D, self._add("Clip", [norm_11, smallest])], output=output)

    def _model(self, output: str, width: int) -> Any:  # noqa: ANN401
        graph = helper.make_graph(
            self._nodes,
            "bert",
            self._inputs,
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, width])],
            list(self._constants.values()),
            value_info=self._shapes,
        )
        return helper.make_model(
            graph, ir_version=_IR_VERSION, opset_imports=[helper.make_opsetid("", _OPSET)]
        )

    def _embedded(self, has_pairs: bool) -> str:
        types_name = "embeddings.token_type_embeddings.weight"
        if _WORD_TABLE in self._weights:
            self._input("input_ids", TensorProto.INT64, [1, "tokens"])
            words = self._add("Gather", [self._weight(_WORD_TABLE), "input_ids"])
        else:
            words = self._input(WORDS, TensorProto.FLOAT, [1, "tokens", self._sizes.hidden_size])
        if has_pairs:
            self._input(TOKEN_TYPES, TensorProto.INT64, [1, "tokens"])
            kind = self._add("Gather", [self._weight(types_name), TOKEN_TYPES])
        else:
            kind = self._constant("token_type", self._floats(types_name)[0])
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
        shape = [1, "tokens", self._sizes.hidden_size]
        self._shapes.append(helper.make_tensor_value_info(sum_1LD, TensorProto.FLOAT, shape))
        return self._norm("embeddings.LayerNorm", sum_1LD)

    def _input(self, name: str, kind: int, shape: list[Any]) -> str:
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def _length(self) -> str:
        return self._add("Shape", [self._inputs[0].name], start=1, end=2)

    def _first_token(self) -> str:
        """*Shape:* (1, 1, D)."""
        first, second = self._constant("first", np.array([0])), self._constant("second", np.array([1]))
        return self._add(
            "Slice", [self._hidden_1LD, first, second, self._constant("tokens_axis", np.array([1]))]
        )

    def _heads(self, name_1LD: str, order: list[int]) -> str:
        heads = self._sizes.num_attention_heads
        shape = np.array([0, 0, heads, self._sizes.hidden_size // heads])
        split = self._add("Reshape", [name_1LD, self._constant("heads_shape", shape)])
        return self._add("Transpose", [split], perm=order)

    def _add_and_norm(self, name: str, changed_1LD: str) -> None:
        self._hidden_1LD = self._norm(f"{name}.LayerNorm", self._add("Add", [changed_1LD, self._hidden_1LD]))

    def _norm(self, name: str, inputs: str) -> str:
        return self._add(
            "LayerNormalization",
            [inputs, self._weight(f"{name}.weight"), self._weight(f"{name}.bias")],
            epsilon=self._sizes.layer_norm_eps,
        )

    def _quantised_inputs(self, name: str) -> tuple[str, str, str]:
        """In uint8, with scale and zero point. *Shape of the scale:* (), or (1, L, 1) with one a token."""
        if self._weight_bits is not None:
            return self._quantised_tokens(name)
        outputs = [f"{name}_quantised", f"{name}_scale", f"{name}_zero"]
        self._nodes.append(helper.make_node("DynamicQuantizeLinear", [name], outputs))
        return outputs[0], outputs[1], outputs[2]

    def _quantised_tokens(self, name: str) -> tuple[str, str, str]:
        axis = self._constant("last_axis", np.array([-1]))
        largest_1L1 = self._add("ReduceMax", [self._add("Abs", [name]), axis], keepdims=1)
        step = self._constant("input_step", np.float32(1 / 127))
        least = self._constant("least_scale", np.float32(_SMALLEST_NORM))
        scale_1L1 = self._add("Max", [self._add("Mul", [largest_1L1, step]), least])
        zero = self._constant("input_zero", np.uint8(128))
        unit = self._constant("unit", np.float32(1))
        steps = self._add("Div", [name, scale_1L1])
        return self._add("QuantizeLinear", [steps, unit, zero]), scale_1L1, zero

    def _linear(self, name: str, inputs: tuple[str, str, str]) -> str:
        values, scale, zero = inputs
        weight_IO, zero_O, scale_O = _quantised(self._floats(f"{name}.weight").T, self._weight_bits)
        weight = self._constant(f"{name}.weight", weight_IO)
        weight_zero = self._constant(f"{name}.weight_zero", zero_O)
        weight_scale = self._constant(f"{name}.weight_scale", scale_O)
        product = self._add("MatMulInteger", [values, weight, zero, weight_zero])
        floats = self._add("Cast", [product], to=TensorProto.FLOAT)
        if self._weight_bits is None:
            floats = self._add("Mul", [floats, self._add("Mul", [scale, weight_scale])])
        else:
            floats = self._add("Mul", [self._add("Mul", [floats, scale]), weight_scale])
        return self._add("Add", [floats, self._weight(f"{name}.bias")])

    def _whole_linear(self, name: str, inputs: str, *, output: str | None = None) -> str:
        """In float32."""
        weight = self._constant(f"{name}.weight", self._floats(f"{name}.weight").T)
        product = self._add("MatMul", [inputs, weight])
        return self._add("Add", [product, self._weight(f"{name}.bias")], output=output)

    def _weight(self, name: str) -> str:
        return self._constant(name, self._floats(name))

    def _floats(self, name: str) -> NDArray[np.float32]:
        try:
            return self._weights[name].astype(np.float32, copy=False)
        except KeyError as exc:
            raise ConfigError(f"there is no weight {name!r}") from exc

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


def _quantised(
    weight_IO: NDArray[np.float32], bits: Literal[7, 8] | None
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float32]]:
    """Values, zero points and scales, one an output; without `bits` as ONNX Runtime's quantiser has them."""
    steps = 63 if bits == 7 else 127
    scale_O = (np.abs(weight_IO).max(0).astype(np.float64) * 2 / (2 * steps)).astype(np.float32)
    scale_O[scale_O < np.finfo(np.float32).tiny] = 1
    whole_IO = np.clip(np.rint(weight_IO / scale_O), -steps, steps)
    if bits == 8:
        return (whole_IO + 128).astype(np.uint8), np.full_like(scale_O, 128, np.uint8), scale_O
    return whole_IO.astype(np.int8), np.zeros_like(scale_O, np.int8), scale_O
