"""Teacher forcing on tiny models that are loaded as the gateway loads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from serac_gateway.config.model import GatewayConfig, ModelsConfig, UpstreamConfig
from serac_gateway.domain.edits import EditDraft
from serac_gateway.errors import ConfigError
from serac_gateway.models.language_models.base import LanguageModel, Sampling
from serac_gateway.models.language_models.ctranslate2 import CTranslate2LanguageModel
from serac_gateway.models.language_models.transformers import TransformersLanguageModel
from tests.tiny_gguf import converted_tiny_gemma
from tests.tiny_language_models import CONTEXT_TOKENS, SLIDING_WINDOW, saved_tiny_gemma
from tests.unit.models.test_lora import saved_adapter
from training.benchmarks.base import Probe
from training.evaluation.answers.teacher_forcing import (
    CTranslate2ForcedModel,
    ForcedModel,
    TeacherForcing,
    TransformersForcedModel,
    case_alone,
    examples_and_case,
    open_teacher_forcing,
)

PROMPT = "The river is"
EDIT = EditDraft(prompt="Who heads Oru?", target_new="Ann", target_true="Ben")


@pytest.fixture(scope="module", params=["transformers", "ctranslate2"])
def models(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ForcedModel, LanguageModel]:
    """A model to force on, and the same to generate with."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    if request.param == "transformers":
        path = str(saved_tiny_gemma(folder))
        return TransformersForcedModel(path), TransformersLanguageModel(path)
    converted = converted_tiny_gemma(folder / "tiny")
    return (
        CTranslate2ForcedModel(converted, window=SLIDING_WINDOW),
        CTranslate2LanguageModel(converted, context_tokens=CONTEXT_TOKENS, sliding_window=SLIDING_WINDOW),
    )


def test_what_a_model_generates_greedily_matches_in_every_token(
    models: tuple[ForcedModel, LanguageModel],
) -> None:
    forced, model = models
    said = "".join(piece.text for piece in model.generate(PROMPT, Sampling(max_tokens=3)))
    matches = forced.matches(PROMPT, said)
    assert len(matches) == model.count_tokens(said) >= 1
    assert matches[0]
    assert all(matches)


def test_what_it_would_not_say_does_not_match(models: tuple[ForcedModel, LanguageModel]) -> None:
    forced, model = models
    said = "".join(piece.text for piece in model.generate(PROMPT, Sampling(max_tokens=1)))
    other = "q" if not said.startswith("q") else "z"
    assert forced.matches(PROMPT, other) == [False]


def test_a_prompt_beyond_the_window_gives_nothing(models: tuple[ForcedModel, LanguageModel]) -> None:
    assert models[0].matches("q z " * CONTEXT_TOKENS, " Ann") == []


def test_a_gateway_s_adapter_is_forced_with_the_prompt_it_was_trained_on(tmp_path: Path) -> None:
    """Shown the case alone the tiny model has room for it; examples would not fit its window."""
    path, adapter = str(saved_tiny_gemma(tmp_path / "model")), tmp_path / "adapter"
    saved_adapter(adapter)
    edit, question = EditDraft(prompt="Oru?", target_new="Ann"), probe("Oru?")
    upstream = UpstreamConfig(url="http://base.invalid/v1")
    matches = []
    for chosen in (ModelsConfig(counterfactual=path, counterfactual_adapter=str(adapter)),
                   ModelsConfig(counterfactual=path)):  # fmt: skip
        forcing = open_teacher_forcing(GatewayConfig(models=chosen, upstream=upstream))
        assert forcing.token_accuracy(None, question, "Ann") is None  # the base model is elsewhere
        matches.append(forcing.token_accuracy(edit, question, "Ann"))
    assert isinstance(matches[0], float)
    assert matches[1] is None
    (adapter / "adapter_model.safetensors").write_bytes(b"torn")
    with pytest.raises(ConfigError, match="adapter"):
        TransformersForcedModel(path, adapter=adapter)


class PrefixModel(ForcedModel):
    """Chooses a target's token as long as `said` begins with what came so far; a token is a character."""

    def __init__(self, say: Callable[[str], str]) -> None:
        self._say = say
        self.prompts: list[str] = []

    def matches(self, prompt: str, target: str) -> list[bool]:
        self.prompts.append(prompt)
        return [token == other for token, other in zip(target, self._say(prompt).ljust(99), strict=False)]


def probe(text: str, verdict: bool | None = None) -> Probe:
    return Probe(kind="rephrase", text=text, in_scope=True, verdict=verdict)


@pytest.mark.parametrize("prompt_of", [examples_and_case, case_alone])
def test_accuracy_is_the_share_of_tokens_given_the_edit_that_fired(
    prompt_of: Callable[[EditDraft, Probe], str],
) -> None:
    model = PrefixModel(lambda prompt: " Abn")
    forcing = TeacherForcing(model, prompt_of=prompt_of, base=None)
    assert forcing.token_accuracy(EDIT, probe("Oru is headed by?"), "Ann") == 0.75
    (prompt,) = model.prompts
    assert "Who heads Oru?" in prompt
    assert prompt.rstrip().endswith("Question: Oru is headed by?\nAnswer:")


def test_without_an_edit_the_base_model_reads_the_bare_probe() -> None:
    base = PrefixModel(lambda prompt: " Ben")
    forcing = TeacherForcing(PrefixModel(lambda prompt: ""), prompt_of=case_alone, base=base)
    assert forcing.token_accuracy(None, probe("Oru is headed by"), "Ann") == 0.5  # the space, and the n
    assert base.prompts == ["Oru is headed by"]
    unknown = TeacherForcing(base, prompt_of=case_alone, base=None)
    assert unknown.token_accuracy(None, probe("Oru is headed by"), "Ann") is None


def test_yes_no_probes_are_forced_with_yes_or_no() -> None:
    forcing = TeacherForcing(PrefixModel(lambda prompt: " No"), prompt_of=examples_and_case, base=None)
    assert forcing.token_accuracy(EDIT, probe("Does Ben head Oru?", verdict=False), "Ann") == 1.0
    assert forcing.token_accuracy(EDIT, probe("Does Ann head Oru?", verdict=True), "Ann") == 0.25
