"""Opens what one generation may take over from another: parts that are dear, or remember something."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor

import msgspec

from serac_gateway.config.model import GatewayConfig
from serac_gateway.domain.edits import DEFAULT_NAMESPACE, EditDraft, first_version
from serac_gateway.domain.queries import Query
from serac_gateway.kept_parts import PartsInUse, file_stamps
from serac_gateway.lasting_parts import LastingParts
from serac_gateway.models.classifiers.base import Candidate, ScopeClassifier
from serac_gateway.models.counterfactual.base import CounterfactualModel
from serac_gateway.models.loading import (
    SHIPPED_ADAPTER,
    OnProgress,
    classifier_folder,
    open_classifier,
    open_counterfactual_model,
)
from serac_gateway.observability.tracing import Tracing, open_tracing
from serac_gateway.stores.traffic_recorder import RecordedTraffic
from serac_gateway.upstream_opening import OpenUpstream, open_upstream


class ReusableParts(msgspec.Struct, frozen=True, kw_only=True):
    """What was taken over from the generation before, or opened anew."""

    upstream: OpenUpstream
    classifier: ScopeClassifier
    counterfactual: CounterfactualModel
    decision_pool: ThreadPoolExecutor
    answer_pool: ThreadPoolExecutor
    traffic: RecordedTraffic
    tracing: Tracing


async def open_reusable_parts(
    config: GatewayConfig, lasting: LastingParts, parts: PartsInUse, on_progress: OnProgress
) -> ReusableParts:
    """What `config` asks for, taken from `parts`.

    Raises:
        ConfigError: A part cannot be had; the others are closed with `parts`.
    """
    starting = asyncio.ensure_future(open_upstream(config, parts, on_progress))  # beside the models
    try:
        traffic = await _traffic(config, lasting, parts)
        tracing = await _tracing(config, parts)
        classifier = await _classifier(config, lasting, parts)
        counterfactual = await _counterfactual(config, parts, on_progress)
        upstream = await starting
    except BaseException:
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await starting
        raise
    return ReusableParts(
        upstream=upstream,
        classifier=classifier,
        counterfactual=counterfactual,
        decision_pool=await _pool("decision", config.models.decision_threads, parts),
        answer_pool=await _pool("answer", config.models.answer_threads, parts),
        traffic=traffic,
        tracing=tracing,
    )


async def _classifier(config: GatewayConfig, lasting: LastingParts, parts: PartsInUse) -> ScopeClassifier:
    async def opened() -> ScopeClassifier:
        return await asyncio.to_thread(_proved_classifier, config, lasting.encoder.fingerprint)

    folder = classifier_folder(config.models)
    return await parts.get("scope classifier", (folder, file_stamps(folder)), opened, _nothing_to_close)


def _proved_classifier(config: GatewayConfig, encoder_fingerprint: str) -> ScopeClassifier:
    """The classifier, once it has classified something: weights that load need not fit together."""
    classifier = open_classifier(config.models, encoder_fingerprint=encoder_fingerprint)
    edit = first_version(EditDraft(prompt="Who is it?", target_new="Nobody."), namespace=DEFAULT_NAMESPACE)
    classifier.classify(Query(text="Who was it?"), [Candidate(edit=edit, form=edit.prompt, similarity=0.5)])
    return classifier


async def _counterfactual(
    config: GatewayConfig, parts: PartsInUse, on_progress: OnProgress
) -> CounterfactualModel:
    async def opened() -> CounterfactualModel:
        return await asyncio.to_thread(
            open_counterfactual_model,
            config.models,
            config.data_path,
            lambda text: on_progress("counterfactual model", text),
        )

    async def close(model: CounterfactualModel) -> None:
        await asyncio.to_thread(model.close)

    models = config.models
    local = models.counterfactual_url is None
    adapter = models.counterfactual_adapter or (SHIPPED_ADAPTER if models.counterfactual is None else None)
    key = (
        (models.counterfactual, models.counterfactual_adapter, config.data_path)
        if local
        else (models.counterfactual, models.counterfactual_url, models.answer_timeout_s),
        file_stamps(models.counterfactual, adapter) if local else (),
    )
    return await parts.get("counterfactual model", key, opened, close)


async def _pool(name: str, threads: int, parts: PartsInUse) -> ThreadPoolExecutor:
    async def opened() -> ThreadPoolExecutor:
        return ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def close(pool: ThreadPoolExecutor) -> None:
        await asyncio.to_thread(pool.shutdown)

    return await parts.get(f"{name} threads", threads, opened, close)


async def _traffic(config: GatewayConfig, lasting: LastingParts, parts: PartsInUse) -> RecordedTraffic:
    async def opened() -> RecordedTraffic:
        return RecordedTraffic(lasting.store.traffic(), config.traffic)

    return await parts.get("recorded traffic", config.traffic, opened, lambda one: one.close())


async def _tracing(config: GatewayConfig, parts: PartsInUse) -> Tracing:
    async def opened() -> Tracing:
        return open_tracing(config.tracing)

    async def close(tracing: Tracing) -> None:
        await asyncio.to_thread(tracing.close)

    return await parts.get("tracing", config.tracing, opened, close)


async def _nothing_to_close(part: object) -> None:
    pass
