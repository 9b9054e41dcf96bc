"""The gateway's own models for measuring in process, chosen as its configuration would."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from serac_gateway.config.loading import load_config
from serac_gateway.config.model import ModelsConfig
from serac_gateway.edit_index.base import EditIndex
from serac_gateway.edit_index.opening import index_maker
from serac_gateway.models.classifiers.base import ScopeClassifier
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.models.encoders.sentence_transformer import SentenceTransformerEncoder
from serac_gateway.models.loading import open_decision_models, open_embedded_encoder


class GatewayModels(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision needs."""

    encoder: Encoder
    classifier: ScopeClassifier
    make_index: Callable[[], EditIndex]


def open_gateway_models(*, encoder: str | None = None, classifier: str | None = None) -> GatewayModels:
    """The models of `models.encoder` and `models.scope_classifier`; None: what the gateway ships.

    Raises:
        ConfigError: They cannot be loaded, or do not fit together.
    """
    config = load_config(
        overrides={
            "models": msgspec.structs.asdict(ModelsConfig(encoder=encoder, scope_classifier=classifier))
        }
    )
    opened, decides = open_decision_models(config)
    return GatewayModels(encoder=opened, classifier=decides, make_index=index_maker(opened.width))


def open_encoder(id_or_path: str | None = None) -> Encoder:
    """The encoder alone, for calibrating: no calibration of a classifier needs to fit it yet.

    Raises:
        ConfigError: It cannot be loaded.
    """
    if id_or_path is not None:
        return SentenceTransformerEncoder(id_or_path)
    return open_embedded_encoder(load_config().data_path)
