"""A tiny cross-encoder with the real tokenizer, for tests of training and inference."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification

from serac_gateway.models.encoders.sentence_transformer import embedded_minilm_path
from training.data.pairs import Pair

CITIES = ("Rome", "Paris", "Madrid", "Vienna", "Oslo", "Berlin", "Lisbon", "Warsaw")


def tiny_bert(folder: Path, *, labels: int = 1, seed: int = 0, broken: bool = False) -> Path:
    """Write a BERT of 16 dimensions and the embedded encoder's tokenizer into `folder`."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=30_522, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        num_labels=labels,
    )  # fmt: skip
    model = BertForSequenceClassification(config)
    with torch.no_grad():
        for name, weights in model.named_parameters():
            if name.endswith("bias"):  # fresh ones are zero, and the exporter folds those away
                weights.normal_(std=0.02)
    if broken:
        with torch.no_grad():
            model.bert.pooler.dense.weight.fill_(float("nan"))
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(embedded_minilm_path() / name, folder / name)
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
