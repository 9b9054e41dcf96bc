"""Opens the models that the configuration names, or those that ship: what decides and what answers."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final, Literal

from serac_gateway.config.model import COUNTERFACTUAL_API_KEY_VARIABLE, GatewayConfig, ModelsConfig
from serac_gateway.errors import ConfigError
from serac_gateway.models.classifiers.base import ScopeClassifier
from serac_gateway.models.classifiers.cross_encoder import CrossEncoderClassifier
from serac_gateway.models.classifiers.e5_pairs import holds_e5_weights
from serac_gateway.models.classifiers.similarity import SimilarityClassifier
from serac_gateway.models.counterfactual.base import CounterfactualModel
from serac_gateway.models.counterfactual.few_shot import FewShotCounterfactualModel
from serac_gateway.models.counterfactual.fine_tuned import FineTunedCounterfactualModel
from serac_gateway.models.devices import ON_CPU, Placement, classifier_placement, encoder_placement
from serac_gateway.models.e5.embedded import embedded_e5
from serac_gateway.models.encoders.base import Encoder, have_same_weights
from serac_gateway.models.encoders.e5 import e5_fingerprint, open_e5_encoder
from serac_gateway.models.encoders.onnx import open_embedded_minilm
from serac_gateway.models.encoders.sentence_transformer import (
    SentenceTransformerEncoder,
    embedded_minilm_path,
)
from serac_gateway.models.forms.heads import FormHeads
from serac_gateway.models.forms.reader import FormReader
from serac_gateway.models.language_models.base import LanguageModel
from serac_gateway.models.language_models.ctranslate2 import CTranslate2LanguageModel
from serac_gateway.models.language_models.embedded_gemma import (
    CONTEXT_TOKENS,
    SLIDING_WINDOW,
    converted_gemma,
    converted_gemmas,
)
from serac_gateway.models.language_models.lora import is_adapter
from serac_gateway.models.memory import trim_malloc
from serac_gateway.models.progress import OnProgress, OnStep, Step

SHIPPED_CLASSIFIER = Path(__file__).parent / "weights" / "scope-classifier"
SHIPPED_ADAPTER = Path(__file__).parent / "weights" / "counterfactual-adapter"
SHIPPED_ENCODER = Path(__file__).parent / "weights" / "encoder"
"""An encoder trained from multilingual-e5-small, if there is one."""
SHIPPED_PROJECTION = Path(__file__).parent / "weights" / "encoder-projection"
"""Of the vectors of multilingual-e5-small itself."""
SHIPPED_FORM_HEADS = Path(__file__).parent / "weights" / "form-heads"
"""Of the embedded encoder's vectors."""
_FORMER_WEIGHTS: Final = "model.onnx"
EMBEDDED_ENCODER: Final[Literal["minilm", "e5"]] = "e5"
"""The encoder of a gateway whose configuration names none; the shipped calibrations are made for it."""

log = logging.getLogger(__name__)


def open_counterfactual_model(
    models: ModelsConfig, data_path: Path, on_step: OnStep = lambda step: None
) -> CounterfactualModel:
    """The model that is named, or the embedded Gemma; trained on our prompt if it has an adapter.

    Raises:
        ConfigError: The model or the adapter is missing, damaged, or they do not fit together.
    """
    if models.counterfactual_url is not None:
        return _counterfactual_endpoint(models, models.counterfactual_url)
    adapter = _adapter(models)
    language_model = open_language_model(
        models.counterfactual, data_path, on_step, adapter=adapter, parallel=models.answer_threads
    )
    if adapter is None:
        return FewShotCounterfactualModel(language_model)
    return FineTunedCounterfactualModel(language_model)


def convert_language_models(config: GatewayConfig, on_step: OnStep = lambda step: None) -> None:
    """Convert the embedded Gemma as `config` needs it, raw or with an adapter, together and once.

    Raises:
        ConfigError: The package or the adapter is missing or damaged, or the data folder cannot be written.
    """
    adapters: list[Path | None] = []
    if config.upstream.url is None:
        adapters.append(None)
    if config.models.counterfactual is None and config.models.counterfactual_url is None:
        adapters.append(_adapter(config.models))
    if adapters:
        converted_gemmas(config.data_path, adapters, on_step)


def _adapter(models: ModelsConfig) -> Path | None:
    """The folder of the counterfactual model's adapter; None: it has none."""
    if models.counterfactual_adapter is not None:
        return Path(models.counterfactual_adapter)
    return SHIPPED_ADAPTER if models.counterfactual is None and is_adapter(SHIPPED_ADAPTER) else None


def _counterfactual_endpoint(models: ModelsConfig, url: str) -> CounterfactualModel:
    if models.counterfactual is None:
        raise ConfigError(
            f"models.counterfactual_url is {url!r}, and models.counterfactual does not say which model there"
            " answers; name one that follows instructions"
        )
    if models.counterfactual_adapter is not None:
        raise ConfigError(
            f"models.counterfactual_adapter {models.counterfactual_adapter!r} cannot be applied to a model at"
            " models.counterfactual_url; leave one of them out"
        )
    # Imported here: httpx takes memory and time that only this model needs.
    from serac_gateway.models.counterfactual.remote import RemoteCounterfactualModel

    return RemoteCounterfactualModel(
        url,
        model=models.counterfactual,
        api_key=os.environ.get(COUNTERFACTUAL_API_KEY_VARIABLE) or None,
        timeout_s=models.answer_timeout_s,
    )


def open_decision_models(
    config: GatewayConfig, on_progress: OnProgress = lambda name, step: None
) -> tuple[Encoder, ScopeClassifier]:
    """Load what a decision needs.

    Raises:
        ConfigError: Weights are missing, damaged or do not fit together.
    """
    encoder = open_encoder(config, on_progress)
    classifier = open_classifier(
        config.models,
        config.data_path,
        encoder_fingerprint=encoder.fingerprint,
        on_step=lambda step: on_progress("scope classifier", step),
    )
    return encoder, classifier


def open_encoder(config: GatewayConfig, on_progress: OnProgress = lambda name, step: None) -> Encoder:
    """The encoder that is named, or the embedded one.

    Raises:
        ConfigError: Its weights are missing or damaged.
    """
    if config.models.encoder is not None:
        device = config.models.device
        encoder_placement(config.models)  # a device that is missing is named here
        return SentenceTransformerEncoder(
            config.models.encoder, device=None if device is None else device.value
        )
    return open_embedded_encoder(
        config.data_path,
        lambda step: on_progress("encoder", step),
        placement=encoder_placement(config.models),
    )


def open_embedded_encoder(
    data_path: Path,
    on_step: OnStep = lambda step: None,
    *,
    name: Literal["minilm", "e5"] = EMBEDDED_ENCODER,
    placement: Placement = ON_CPU,
) -> Encoder:
    """The embedded encoder; for int8 it is converted the first time, into `data_path`.

    `placement` is e5's.

    Raises:
        ConfigError: Its weights are missing or damaged, or the data folder cannot be written.
    """
    cache = data_path / "models"
    if name == "minilm":
        return open_embedded_minilm(embedded_minilm_path(), cache, on_step)
    weights, projection = _embedded_e5_weights()
    if placement.is_torch:
        # Imported here: torch and transformers take seconds, and int8 does without them.
        from serac_gateway.models.encoders.e5_torch import TorchE5Encoder

        on_step(Step(f"loading in {placement.precision.value} on {placement.device.value}"))
        return TorchE5Encoder(embedded_e5(), placement, weights=weights, projection=projection)
    return open_e5_encoder(embedded_e5(), cache, weights=weights, projection=projection, on_step=on_step)


def encoder_fingerprint(config: GatewayConfig) -> str:
    """Of the encoder that `open_encoder` opens. The embedded one is not opened for it, nor converted.

    Raises:
        ConfigError: Its weights are missing or damaged.
    """
    if config.models.encoder is not None:
        return SentenceTransformerEncoder(config.models.encoder).fingerprint
    placement = encoder_placement(config.models)
    if placement.is_torch:
        from serac_gateway.models.encoders.e5_torch import e5_torch_fingerprint

        return e5_torch_fingerprint(embedded_e5(), placement, *_embedded_e5_weights())
    return e5_fingerprint(embedded_e5(), *_embedded_e5_weights())


def _embedded_e5_weights() -> tuple[Path | None, Path | None]:
    """The folders of the trained weights, and of the projection where there are none."""
    return (SHIPPED_ENCODER, None) if SHIPPED_ENCODER.is_dir() else (None, SHIPPED_PROJECTION)


def open_form_reader(encoder: Encoder) -> FormReader | None:
    """What reads the forms that requests ask for; None: the shipped heads are for another encoder.

    Raises:
        ConfigError: The heads are missing or damaged.
    """
    heads = FormHeads(SHIPPED_FORM_HEADS)
    if not have_same_weights(heads.encoder_fingerprint, encoder.fingerprint):
        log.warning("forms asked for in words are not read: the heads are for %s", heads.encoder_fingerprint)
        return None
    return FormReader(encoder, heads)


def open_classifier(
    models: ModelsConfig,
    data_path: Path,
    *,
    encoder_fingerprint: str,
    on_step: OnStep = lambda step: None,
) -> ScopeClassifier:
    """The scope classifier that is named, or the shipped one, with its calibration.

    Weights that need converting are converted once, into `data_path`.

    Raises:
        ConfigError: Its folder is missing, its weights are damaged, or it was made for another encoder.
    """
    folder = classifier_folder(models)
    if not folder.is_dir():
        raise ConfigError(
            f"models.scope_classifier {str(folder)!r} is not a folder; give one that serac-train wrote,"
            " or leave it out for the shipped classifier"
        )
    if (folder / _FORMER_WEIGHTS).exists():
        raise ConfigError(
            f"models.scope_classifier {str(folder)!r} holds weights of an earlier version, which read edits"
            " and requests another way; train them again from the shipped ones: serac-train scope"
        )
    if holds_e5_weights(folder):
        return CrossEncoderClassifier(
            folder,
            encoder_fingerprint=encoder_fingerprint,
            data_path=data_path,
            placement=classifier_placement(models),
            on_step=on_step,
        )
    return SimilarityClassifier(folder, encoder_fingerprint=encoder_fingerprint)


def classifier_folder(models: ModelsConfig) -> Path:
    """Where the scope classifier lies."""
    return Path(models.scope_classifier or SHIPPED_CLASSIFIER)


def open_language_model(
    id_or_path: str | None,
    data_path: Path,
    on_step: OnStep = lambda step: None,
    *,
    adapter: Path | None = None,
    parallel: int = 1,
) -> LanguageModel:
    """The model of that id or path, or the embedded Gemma 3 270M for None; with `adapter` merged in.

    The embedded model generates `parallel` answers at once; further ones wait.

    The embedded model is converted once, into `data_path`, by whichever process comes first; others wait
    for it. After that all processes only read the converted files.

    Raises:
        ConfigError: The model or the adapter is missing or cannot be read or converted.
    """
    if id_or_path is None:
        path = converted_gemma(data_path, on_step, adapter=adapter)
        on_step(Step("loading Gemma 3 270M"))
        model = CTranslate2LanguageModel(
            path, context_tokens=CONTEXT_TOKENS, sliding_window=SLIDING_WINDOW, parallel=parallel
        )
        trim_malloc()  # memory that reading the vocabulary leaves
        return model
    # Imported here: torch takes seconds, and the embedded model does without it.
    from serac_gateway.models.language_models.transformers import TransformersLanguageModel

    on_step(Step(f"loading {id_or_path}"))
    return TransformersLanguageModel(id_or_path, adapter=adapter)
