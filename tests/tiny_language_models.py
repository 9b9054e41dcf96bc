"""Tiny random Gemma 3 and Llama models with a tokenizer of their own, saved as the real ones are."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

SLIDING_WINDOW = 16
CONTEXT_TOKENS = 64
LLAMA_CONTEXT_TOKENS = 8_192
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}assistant: "
)
CONTROL_TOKENS = ("<bos>", "<eos>", "<start_of_turn>")


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level, so that characters beyond ASCII take several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=list(CONTROL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["The capital of France is Paris, and the river is the Seine."], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", unk_token="<eos>"
    )


def tiny_gemma(tokenizer: PreTrainedTokenizerFast) -> Gemma3ForCausalLM:
    """Two windowed layers and a full one, weights large enough that the next token depends on the prompt."""
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        query_pre_attn_scalar=16,
        max_position_embeddings=CONTEXT_TOKENS,
        sliding_window=SLIDING_WINDOW,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        initializer_range=0.5,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return Gemma3ForCausalLM(config).eval()


def saved_tiny_gemma(folder: Path) -> Path:
    """The folder, with a model that `from_pretrained` loads."""
    tokenizer = tiny_tokenizer()
    tiny_gemma(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def saved_tiny_llama(folder: Path) -> Path:
    """The folder, with a chat model whose context and heads are large enough for servers of others.

    It never ends a text by itself: the weights of <eos> are 0, where of 300 random ones the largest wins.
    """
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=LLAMA_CONTEXT_TOKENS,
        initializer_range=0.5,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        model.lm_head.weight[config.eos_token_id] = 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
