"""A tiny random Gemma 3 as a GGUF file, with metadata and vocabulary of the kind that the real one has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter, TokenType

from serac_gateway.models.language_models.conversion_request import Target
from serac_gateway.models.language_models.gguf_conversion import convert_gguf
from serac_gateway.models.language_models.smoothquant import LayerActivations, save_activations

SLIDING_WINDOW = 16
CONTEXT_TOKENS = 64
WIDTH, HIDDEN, HEADS, HEAD_WIDTH = 32, 64, 2, 256
"""transformers takes the width of a head to be 256 where a GGUF file does not say how queries are scaled."""
LAYERS = 6
"""The last one has full attention."""

_CONTROL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>")
_LETTERS = "▁abcdefghijklmnopqrstuvwxyzTCFPS.,"
_WORDS = ("▁▁", "th", "the", "▁the", "▁is", "is", "Pa", "Par", "er", "ver", "riv", "iver", "river", "[multi]")
_SPACES = "   "
"""Spelt with real spaces in the file, as runs of them are."""


def tiny_gguf(
    path: Path, *, heads: int = HEADS, key_heads: int = 1, context_tokens: int = CONTEXT_TOKENS
) -> Path:
    """Write the file; weights are large enough that the next token depends on the prompt."""
    tokens = [*_CONTROL, *(f"<0x{byte:02X}>" for byte in range(256)), *_LETTERS, *_WORDS, _SPACES]
    kinds = [TokenType.NORMAL] * len(tokens)
    kinds[: len(_CONTROL)] = [TokenType.CONTROL] * len(_CONTROL)
    kinds[len(_CONTROL) : len(_CONTROL) + 256] = [TokenType.BYTE] * 256
    for token in ("[multi]", _SPACES):
        kinds[tokens.index(token)] = TokenType.USER_DEFINED
    writer = GGUFWriter(path, "gemma3")
    writer.add_context_length(context_tokens)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_key_length(HEAD_WIDTH)
    writer.add_value_length(HEAD_WIDTH)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_sliding_window(SLIDING_WINDOW)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-1000.0] * len(tokens))
    writer.add_token_types(kinds)
    for name, token in (("bos", "<bos>"), ("eos", "<eos>"), ("unk", "<unk>"), ("pad", "<pad>")):
        getattr(writer, f"add_{name}_token_id")(tokens.index(token))
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    for name, weight in _weights(len(tokens), heads, key_heads).items():
        writer.add_tensor(f"{name}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _weights(vocabulary: int, heads: int, key_heads: int) -> dict[str, Any]:
    random = np.random.default_rng(0)

    def normal(*shape: int) -> Any:  # noqa: ANN401
        return (random.standard_normal(shape) * 0.5).astype(np.float32)

    # Small, so that the next token depends on the layers more than on the token before.
    weights = {"token_embd": normal(vocabulary, WIDTH) / 5, "output_norm": 10 * (1 + normal(WIDTH))}
    # Control tokens would end most texts at once, and random bytes are no characters: both become unlikely.
    weights["token_embd"][: len(_CONTROL) + 256] = 0
    for layer in range(LAYERS):
        of_layer = {
            "attn_q": normal(heads * HEAD_WIDTH, WIDTH),
            "attn_k": normal(key_heads * HEAD_WIDTH, WIDTH),
            "attn_v": normal(key_heads * HEAD_WIDTH, WIDTH),
            "attn_output": normal(WIDTH, heads * HEAD_WIDTH),
            "ffn_gate": normal(HIDDEN, WIDTH),
            "ffn_up": normal(HIDDEN, WIDTH),
            "ffn_down": normal(WIDTH, HIDDEN),
            **{name: 1 + normal(HEAD_WIDTH) for name in ("attn_q_norm", "attn_k_norm")},
            **{
                name: 1 + normal(WIDTH)
                for name in ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
            },
        }
        weights |= {f"blk.{layer}.{name}": weight for name, weight in of_layer.items()}
    return weights


def converted_tiny_gemma(folder: Path) -> Path:
    """The tiny model in int8, in the new `folder`; its activations are taken to be all alike."""
    folder.mkdir(parents=True)
    ones = LayerActivations(
        attention_I=np.ones(WIDTH, np.float32),
        mlp_I=np.ones(WIDTH, np.float32),
        down_I=np.ones(HIDDEN, np.float32),
    )
    save_activations([ones] * LAYERS, folder / "activations")
    target = Target(folder=str(folder / "model"), adapter=None, activations=str(folder / "activations"))
    convert_gguf(tiny_gguf(folder / "tiny.gguf"), [target])
    return folder / "model"
