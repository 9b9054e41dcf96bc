"""A tiny cross-encoder over the real words, for tests of training and inference."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification

from serac_gateway.models.e5.embedded import embedded_e5
from training.data.pairs import Pair
from training.scope.weights import save_cross_encoder

CITIES = ("Rome", "Paris", "Madrid", "Vienna", "Oslo", "Berlin", "Lisbon", "Warsaw")


def tiny_bert(
    folder: Path,
    *,
    labels: int = 1,
    seed: int = 0,
    broken: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write a BERT of one narrow layer over the words of multilingual-e5-small into `folder`."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=1, pad_token_id=None, hidden_size=384, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, num_labels=labels,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if name.endswith("bias"):  # fresh ones are zero
                weights.normal_(std=0.02)
        if broken:
            model.bert.pooler.dense.weight.fill_(float("nan"))
    save_cross_encoder(model, folder, embedded_e5(), dtype=dtype)
    return folder


def easy_pairs(count: int = 96) -> list[Pair]:
    """Pairs that even a tiny model can distinguish: in scope are those that ask for the capital."""
    made = []
    for number in range(count):
        city = CITIES[number % len(CITIES)]
        in_scope = number % 2 == 0
        text = f"capital capital of {city}" if in_scope else f"weather weather in {city}"
        made.append(
            Pair(prompt=f"The capital of {city} is", target="Bern", text=text, in_scope=in_scope, kind="easy")
        )
    return made
