"""The tokenizer of a Gemma GGUF file, as the package tokenizers reads it (`tokenizer.json`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CONTROL, _USER_DEFINED = 3, 4
"""Types of tokens in GGUF."""
_SPACE = "▁"


def vocabulary(metadata: Mapping[str, Any]) -> list[str]:
    """The tokens in the order of their ids. Runs of spaces are spelt as the normalizer spells them."""
    return [
        _SPACE * len(token) if " " in token and not token.strip() else token
        for token in metadata["tokenizer.ggml.tokens"]
    ]


def special_token(metadata: Mapping[str, Any], name: str) -> str:
    """The token that the file has for `name`: bos, eos or unknown."""
    return str(metadata["tokenizer.ggml.tokens"][metadata[f"tokenizer.ggml.{name}_token_id"]])


def tokenizer_json(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `tokenizer.json`: byte-pair encoding with bytes for characters without a token."""
    tokens = vocabulary(metadata)
    ids = {token: number for number, token in enumerate(tokens)}
    bos = special_token(metadata, "bos")
    template: list[dict[str, Any]] = [
        {"SpecialToken": {"id": bos, "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ]
    pair: list[dict[str, Any]] = [
        {"SpecialToken": {"id": bos, "type_id": 1}},
        {"Sequence": {"id": "B", "type_id": 1}},
    ]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(metadata, tokens),
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"String": " "},
            "behavior": "MergedWithPrevious",
            "invert": False,
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": template,
            "pair": [*template, *pair],
            "special_tokens": {bos: {"id": bos, "ids": [ids[bos]], "tokens": [bos]}},
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": special_token(metadata, "unknown"),
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": ids,
            "merges": _merges(ids),
        },
    }


def _merges(ids: Mapping[str, int]) -> list[tuple[str, str]]:
    """The pairs of tokens that make a token, best first.

    The file holds none and its scores do not rank them: Gemma's tokens are in the order of their merges.
    """
    return [
        (token[:cut], token[cut:])
        for token in sorted(ids, key=ids.__getitem__)
        for cut in range(len(token) - 1, 0, -1)
        if token[:cut] in ids and token[cut:] in ids
    ]


def _added_tokens(metadata: Mapping[str, Any], tokens: list[str]) -> list[dict[str, Any]]:
    """Tokens that are found in a text before it is split; those respelt in `tokens` are ordinary ones."""
    given = metadata["tokenizer.ggml.tokens"]
    return [
        {
            "id": number,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == _CONTROL,
        }
        for number, (token, kind) in enumerate(
            zip(tokens, metadata["tokenizer.ggml.token_type"], strict=True)
        )
        if kind in (_CONTROL, _USER_DEFINED) and token == given[number]
    ]
