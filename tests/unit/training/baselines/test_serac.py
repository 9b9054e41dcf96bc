"""SERAC as published: the loss, the threshold, the memory."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from serac_gateway.domain.edits import EditDraft
from training.baselines.causal_model import CausalModel
from training.baselines.serac import ScopeEncoder, Serac, SeracSettings, scope_loss, train, triples_of
from training.benchmarks.base import Benchmark, Role, fact, probes

PLACES = ("oru", "moss", "vala", "lund", "vik", "hamar")
WORDS = ["[PAD]", "[UNK]", "[SEP]", "mayor", "of", "is", "who", "river", "in", "deep", "ann", "bea", *PLACES]
EDITS = [
    EditDraft(id=place, prompt=f"mayor of {place} is", target_new=name)
    for place, name in (("oru", "ann"), ("moss", "bea"))
]


def tiny_encoder() -> ScopeEncoder:
    torch.manual_seed(0)
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return ScopeEncoder(BertModel(config), fast).eval()


def rows() -> Benchmark:
    cases = tuple(
        fact(
            f"case-{place}", prompt=f"mayor of {place} is", target_new="ann", subject=place,
            probes=(
                *probes("rephrase", [f"who is mayor in {place}"], in_scope=True),
                *probes("neighbour", [f"river of {place} is deep"], in_scope=False),
            ),
        )
        for place in PLACES
    )  # fmt: skip
    return Benchmark(name="rows", role=Role.TRAIN, cases=cases)


def settings(weights: Path) -> SeracSettings:
    return SeracSettings(weights=str(weights), steps=120, batch_size=4, learning_rate=3e-3, seed=0)


def test_the_loss_is_the_cross_entropy_of_the_paper() -> None:
    """By hand, for two edits."""
    memory_BD = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    inside_BD = torch.tensor([[1.0, 0.0], [0.6, 0.8]])
    outside_BD = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    of_scope = (0.0 + (0.36 + 0.04)) / 2
    distances = [2.0, 2.0, 0.16 + 0.64, 1.0 + 1.0]
    out_of_scope = -sum(math.log(1 - math.exp(-distance)) for distance in distances) / 4
    loss = scope_loss(memory_BD, inside_BD, outside_BD).item()
    assert loss == pytest.approx(of_scope + out_of_scope, abs=1e-5)


def test_training_brings_rephrasings_in_and_neighbours_out() -> None:
    """The loss falls to less than half."""
    encoder = tiny_encoder()
    losses = train(encoder, triples_of(rows()), settings(Path("unused")))
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_beyond_the_threshold_the_base_model_reads_the_query_alone(
    model: CausalModel, tmp_path: Path
) -> None:
    """Above one half the counterfactual model reads the edit, and after undo nobody does."""
    counterfactual = CausalModel(model.network, model.tokenizer, name="counterfactual")
    method = Serac(
        model, settings(tmp_path / "w.safetensors"), tiny_encoder(), lambda: counterfactual, [rows()]
    )
    method.prepare()
    method.edit(EDITS)
    for query in ("mayor of oru is", "who is mayor in moss", "river of oru is deep", "deep deep deep"):
        nearest = method.scope(query)
        assert nearest is not None
        reading = method.reading(query)
        assert (reading.model is counterfactual) == (nearest[0] > 0.5)
        assert (reading.text == model.prompt_text(query)) == (nearest[0] <= 0.5)
    assert method.reading("who is mayor in oru").model is counterfactual
    assert method.reading("river of oru is deep").model is model
    method.undo()
    assert method.reading("who is mayor in oru").model is model


def test_the_order_of_the_memory_decides_nothing(model: CausalModel, tmp_path: Path) -> None:
    """Each query has the same nearest edit either way, and weights trained before are read again."""
    queries = ["mayor of oru is", "who is mayor in vala", "river in moss"]
    nearest = []
    for edits in (EDITS, EDITS[::-1]):
        method = Serac(model, settings(tmp_path / "w.safetensors"), tiny_encoder(), lambda: model, [rows()])
        method.prepare()
        method.edit(edits)
        nearest.append([method.scope(query) for query in queries])
    assert nearest[0] == nearest[1]
