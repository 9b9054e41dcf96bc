"""Causal tracing on a tiny model."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch
from typer.testing import CliRunner

from tests.tiny_language_models import saved_tiny_gemma
from training.baselines.causal_model import CausalModel
from training.baselines.cli import DEFAULT_CONFIG
from training.baselines.tracing import KINDS, Trace, Tracer, TracingConfig, traced, window_around
from training.cli import app
from training.runs import TrainingError, read_config

PROMPT = "The capital of France is"
CONFIG = TracingConfig(noise=3.0, draws=3, window=2, seed=0)


def tracer(model: CausalModel, config: TracingConfig = CONFIG) -> Tracer:
    return Tracer(model, PROMPT, "France", config)


def every_token(of: Tracer, kind: str, layer: int) -> list[tuple[str, int, int]]:
    return [(kind, layer, token) for token in range(len(of.ids))]


def test_the_clean_probability_is_the_models(model: CausalModel) -> None:
    """It is that of the most probable next token, or of the answer's first."""
    logits_V = model.network(torch.tensor([model.prompt_ids(PROMPT)])).logits[0, -1]
    probabilities_V = torch.softmax(logits_V, -1)
    assert tracer(model).clean == pytest.approx(probabilities_V.max().item(), abs=1e-5)
    followed = Tracer(model, PROMPT, "France", CONFIG, answer="Seine")
    assert followed.clean == pytest.approx(probabilities_V[model.target_ids("Seine")[0]].item(), abs=1e-6)


def test_noise_changes_the_answer_and_nothing_put_back_is_the_corrupted_run(model: CausalModel) -> None:
    """With noise p differs; a run without places is the same each time."""
    of = tracer(model)
    assert of.restored([]) == of.restored([])
    assert abs(of.restored([]) - of.clean) > 1e-3


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_everything_put_back_in_a_layer_is_the_clean_run(model: CausalModel, layer: int) -> None:
    """All tokens' states after any layer carry the whole answer."""
    of = tracer(model)
    assert of.restored(every_token(of, "state", layer)) == pytest.approx(of.clean, abs=1e-5)


def test_the_last_token_after_the_last_layer_is_the_clean_run(model: CausalModel) -> None:
    """The answer is read there and nowhere else; the token before it has no effect there."""
    of = tracer(model)
    last = len(of.ids) - 1
    assert of.restored([("state", 2, last)]) == pytest.approx(of.clean, abs=1e-5)
    assert of.restored([("state", 2, last - 1)]) == pytest.approx(of.restored([]), abs=1e-6)


@pytest.mark.parametrize("kind", ["mlp", "attention"])
def test_contributions_alone_do_not_restore_the_embeddings(model: CausalModel, kind: str) -> None:
    """All MLPs or all attentions of all tokens leave the noise of the residual stream, but have an effect."""
    of = tracer(model)
    places = [place for layer in range(3) for place in every_token(of, kind, layer)]
    put_back = of.restored(places)
    assert put_back != pytest.approx(of.restored([]), abs=1e-5)


def test_without_noise_no_place_has_an_effect(model: CausalModel) -> None:
    """σ = 0: corrupted is clean, and all indirect effects are 0."""
    trace = traced(model, PROMPT, "France", msgspec.structs.replace(CONFIG, noise=0.0))
    assert trace.corrupted == pytest.approx(trace.clean, abs=1e-6)
    for kind in KINDS:
        assert max(abs(effect) for layer in getattr(trace, kind) for effect in layer) < 1e-5


def test_a_trace_has_the_effects_of_single_places(model: CausalModel) -> None:
    """By layer and token; MLPs and attentions in windows; nothing before the subject."""
    of, trace = tracer(model), traced(model, PROMPT, "France", CONFIG)
    subject = trace.subject_tokens[-1]
    wanted = of.restored([("state", 1, subject)]) - of.restored([])
    assert trace.state[1][subject] == pytest.approx(wanted, abs=1e-6)
    wanted = of.restored([("mlp", 1, subject), ("mlp", 2, subject)]) - of.restored([])
    assert trace.mlp[2][subject] == pytest.approx(wanted, abs=1e-6)
    for kind in KINDS:
        effects = getattr(trace, kind)
        assert [len(layer) for layer in effects] == [len(trace.tokens)] * 3
        assert all(effect == 0 for layer in effects for effect in layer[: trace.subject_tokens[0]])
    assert "".join(trace.tokens).endswith(PROMPT)
    assert "".join(trace.tokens[place] for place in trace.subject_tokens).strip() == "France"


def test_nothing_before_the_subject_has_an_effect(model: CausalModel) -> None:
    """What a trace leaves out is 0 indeed: those tokens look back on nothing that is corrupted."""
    of = tracer(model)
    places = [("state", layer, token) for layer in range(3) for token in range(of.subject_tokens[0])]
    assert of.restored(places) == pytest.approx(of.restored([]), abs=1e-6)


def test_windows_lie_around_their_layer() -> None:
    """They are cut at both ends of the model; states are restored one by one."""
    assert list(window_around(5, 18, "mlp", 4)) == [3, 4, 5, 6]
    assert list(window_around(0, 18, "attention", 4)) == [0, 1]
    assert list(window_around(17, 18, "mlp", 3)) == [16, 17]
    assert list(window_around(5, 18, "state", 4)) == [5]


def test_a_missing_subject_is_named(model: CausalModel) -> None:
    """As in the editing methods."""
    with pytest.raises(TrainingError, match="does not contain its subject 'Spain'"):
        traced(model, PROMPT, "Spain", CONFIG)


def test_the_command_writes_a_picture_and_prints_the_trace(tmp_path: Path) -> None:
    """JSON has the trace; the PNG is one; a table names every token."""
    folder = saved_tiny_gemma(tmp_path / "model")
    settings = tmp_path / "tracing.toml"
    settings.write_text("noise = 3.0\ndraws = 2\nwindow = 2\nseed = 0\n")
    out = tmp_path / "made" / "trace.png"
    command = ["trace", "--prompt", PROMPT, "--subject", "France", "--model", str(folder)]
    command += ["--config", str(settings), "--out", str(out)]
    printed = CliRunner().invoke(app, [*command, "--json"])
    assert printed.exit_code == 0, printed.output
    trace = msgspec.json.decode(printed.stdout.splitlines()[-1], type=Trace)
    assert trace.prompt == PROMPT
    assert out.read_bytes()[:4] == b"\x89PNG"
    table = CliRunner().invoke(app, command)
    assert table.exit_code == 0
    assert "capital" in "".join(table.stdout.split())
    refused = CliRunner().invoke(app, [*command, "--subject", "Spain"])
    assert refused.exit_code == 2
    assert "does not contain its subject 'Spain'" in refused.stderr


def test_the_configuration_of_the_repository_is_read() -> None:
    """It has every setting, and none besides."""
    assert read_config(DEFAULT_CONFIG, TracingConfig).draws > 0
