"""Opens the models that the configuration names, or those that ship: what decides and what answers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from serac_gateway.classifiers.base import ScopeClassifier
from serac_gateway.classifiers.cross_encoder import MODEL_FILE, CrossEncoderClassifier
from serac_gateway.classifiers.similarity import SimilarityClassifier
from serac_gateway.config.model import COUNTERFACTUAL_API_KEY_VARIABLE, GatewayConfig, ModelsConfig
from serac_gateway.counterfactual.base import CounterfactualModel
from serac_gateway.counterfactual.endpoint import EndpointCounterfactualModel
from serac_gateway.counterfactual.prompted import PromptedCounterfactualModel
from serac_gateway.counterfactual.trained import TrainedCounterfactualModel
from serac_gateway.encoders.base import Encoder
from serac_gateway.encoders.onnx import open_embedded_encoder
from serac_gateway.encoders.sentence_transformer import SentenceTransformerEncoder, embedded_minilm_path
from serac_gateway.errors import ConfigError
from serac_gateway.indexes.base import EditIndex
from serac_gateway.indexes.faiss_flat import FaissFlatIndex
from serac_gateway.indexes.faiss_gpu import CudaDevice, FaissGpuIndex, cuda_device_count
from serac_gateway.language_models.adapters import is_adapter
from serac_gateway.language_models.opening import open_language_model
from serac_gateway.progress import OnProgress

SHIPPED_CLASSIFIER = Path(__file__).parent / "weights" / "scope-classifier"
SHIPPED_ADAPTER = Path(__file__).parent / "weights" / "counterfactual-adapter"


def open_counterfactual_model(
    models: ModelsConfig, data_path: Path, on_progress: Callable[[str], None] = lambda text: None
) -> CounterfactualModel:
    """The model that is named, or the embedded Gemma; trained on our prompt if it has an adapter.

    Raises:
        ConfigError: The model or the adapter is missing, damaged, or they do not fit together.
    """
    named, adapter = models.counterfactual, None
    if models.counterfactual_url is not None:
        return _counterfactual_endpoint(models, models.counterfactual_url)
    if models.counterfactual_adapter is not None:
        adapter = Path(models.counterfactual_adapter)
    elif named is None and is_adapter(SHIPPED_ADAPTER):
        adapter = SHIPPED_ADAPTER
    language_model = open_language_model(named, data_path, on_progress, adapter=adapter)
    if adapter is None:
        return PromptedCounterfactualModel(language_model)
    return TrainedCounterfactualModel(language_model)


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
    return EndpointCounterfactualModel(
        url,
        model=models.counterfactual,
        api_key=os.environ.get(COUNTERFACTUAL_API_KEY_VARIABLE) or None,
        timeout_s=models.answer_timeout_s,
    )


def open_decision_models(
    config: GatewayConfig, on_progress: OnProgress = lambda part, text: None
) -> tuple[Encoder, ScopeClassifier]:
    """Load what a decision needs.

    Raises:
        ConfigError: Weights are missing, damaged or do not fit together.
    """
    encoder = open_encoder(config, on_progress)
    return encoder, open_classifier(config.models, encoder_fingerprint=encoder.fingerprint)


def open_encoder(config: GatewayConfig, on_progress: OnProgress = lambda part, text: None) -> Encoder:
    """The encoder that is named, or the embedded MiniLM. Takes half a minute the first time.

    Raises:
        ConfigError: Its weights are missing or damaged.
    """
    if config.models.encoder is not None:
        return SentenceTransformerEncoder(config.models.encoder)
    return open_embedded_encoder(
        embedded_minilm_path(), config.data_path / "models", lambda text: on_progress("encoder", text)
    )


def open_classifier(models: ModelsConfig, *, encoder_fingerprint: str) -> ScopeClassifier:
    """The scope classifier that is named, or the shipped one, with its calibration.

    Raises:
        ConfigError: Its folder is missing, its weights are damaged, or it was made for another encoder.
    """
    folder = classifier_folder(models)
    if not folder.is_dir():
        raise ConfigError(
            f"models.scope_classifier {str(folder)!r} is not a folder; give one that serac-train wrote,"
            " or leave it out for the shipped classifier"
        )
    kind = CrossEncoderClassifier if (folder / MODEL_FILE).exists() else SimilarityClassifier
    return kind(folder, encoder_fingerprint=encoder_fingerprint)


def classifier_folder(models: ModelsConfig) -> Path:
    """Where the scope classifier lies."""
    return Path(models.scope_classifier or SHIPPED_CLASSIFIER)


def index_maker(width: int) -> Callable[[], EditIndex]:
    """Makes a namespace's index: on the GPU if faiss has one, else in memory; exact either way."""
    if cuda_device_count():
        device = CudaDevice()
        return lambda: FaissGpuIndex(width, device=device)
    return lambda: FaissFlatIndex(width)
