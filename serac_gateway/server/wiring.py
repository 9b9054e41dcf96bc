"""Opens one generation: every part that depends on the configuration, over the parts that last."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor

import msgspec

from serac_gateway.config.model import GatewayConfig, TracingConfig
from serac_gateway.control_plane.conflicts import ConflictFinder
from serac_gateway.control_plane.editor import Editor
from serac_gateway.control_plane.http.dependencies import ControlPlaneContext
from serac_gateway.control_plane.preview import Previewer
from serac_gateway.control_plane.search import EditSearch
from serac_gateway.control_plane.verification import Verifier
from serac_gateway.data_plane.local_engine import CounterfactualAnswers, DecidingHere
from serac_gateway.data_plane.proxy import DataPlane
from serac_gateway.domain.edits import DEFAULT_NAMESPACE, EditDraft, first_version
from serac_gateway.domain.queries import Query
from serac_gateway.errors import ConfigError
from serac_gateway.models.classifiers.base import Candidate, ScopeClassifier
from serac_gateway.models.counterfactual.base import CounterfactualModel
from serac_gateway.models.loading import (
    SHIPPED_ADAPTER,
    OnProgress,
    classifier_folder,
    open_classifier,
    open_counterfactual_model,
)
from serac_gateway.observability.counts import RequestCounter
from serac_gateway.observability.request_log import RequestLog
from serac_gateway.observability.tracing import Tracing, Untraced
from serac_gateway.routing.router import EditRouter
from serac_gateway.server.process import LastingParts
from serac_gateway.server.resources import PartsInUse, file_stamps
from serac_gateway.server.runtime import Generation
from serac_gateway.server.upstreams import OpenUpstream, open_upstream
from serac_gateway.stores.traffic_recorder import RecordedTraffic


async def open_generation(
    number: int, config: GatewayConfig, lasting: LastingParts, on_progress: OnProgress
) -> Generation:
    """Everything that `config` asks for, open and ready. What the generations before use goes on being used.

    Raises:
        ConfigError: A part cannot be had; then nothing of it stays open.
    """
    parts = lasting.kept.user()
    try:
        opened = await open_reusable_parts(config, lasting, parts, on_progress)
        return _put_together(number, config, lasting, opened, parts)
    except BaseException:
        await parts.close()
        raise


def _put_together(
    number: int, config: GatewayConfig, lasting: LastingParts, opened: ReusableParts, parts: PartsInUse
) -> Generation:
    router = EditRouter(
        encoder=lasting.encoder,
        active_edits=lasting.active_edits,
        classifier=opened.classifier,
        config=config.routing,
    )
    answers = CounterfactualAnswers(
        model=opened.counterfactual,
        active_edits=lasting.active_edits,
        pool=opened.answer_pool,
        config=config.models,
        counts=lasting.answer_counts,
    )
    deciding = DecidingHere(
        router=router, pool=opened.decision_pool, counts=lasting.decision_counts, traffic=opened.traffic
    )
    data_plane = DataPlane(
        authenticator=lasting.authenticator,
        deciding=deciding,
        answers=answers,
        continuing=lasting.answered,
        upstream=opened.upstream.upstream,
        tracing=opened.tracing,
        config=config,
        counts=lasting.counts,
        loop_guard=lasting.loop_guard,
        observers=[
            RequestCounter(lasting.counts).add,
            lasting.instruments.add,
            RequestLog(config.logging).add,
            lasting.recent_requests.observer(opened.traffic),
        ],
    )
    return Generation(
        number=number,
        config=config,
        data_plane=data_plane,
        control_plane=_control_plane(config, lasting, opened, router, answers),
        opened=tuple(parts.opened),
        close=parts.close,
    )


def _control_plane(
    config: GatewayConfig,
    lasting: LastingParts,
    opened: ReusableParts,
    router: EditRouter,
    answers: CounterfactualAnswers,
) -> ControlPlaneContext:
    store, encoder, active_edits = lasting.store, lasting.encoder, lasting.active_edits
    pool = opened.decision_pool
    conflicts = ConflictFinder(
        active_edits=active_edits, encoder=encoder, classifier=opened.classifier, config=config.routing
    )
    return ControlPlaneContext(
        editor=Editor(
            store=store,
            encoder=encoder,
            active_edits=active_edits,
            pool=pool,
            threads=config.models.decision_threads,
            conflicts=conflicts,
        ),
        store=store,
        active_edits=active_edits,
        follower=lasting.follower,
        announcer=lasting.announcer,
        wait_timeout_s=config.store.wait_timeout_s,
        search=EditSearch(store=store, encoder=encoder, active_edits=active_edits, pool=pool),
        router=router,
        previewer=Previewer(
            router=router,
            active_edits=active_edits,
            encoder=encoder,
            conflicts=conflicts,
            traffic=opened.traffic,
            pool=pool,
        ),
        verifier=Verifier(
            router=router,
            active_edits=active_edits,
            encoder=encoder,
            answers=answers,
            store=store.verifications(),
            pool=pool,
        ),
        traffic=opened.traffic,
        recent_requests=lasting.recent_requests,
        feedback=config.feedback,
        instruments=lasting.instruments,
        decision_pool=pool,
        upstream_url=opened.upstream.url,
        route_counts=lasting.counts,
    )


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


def open_tracing(config: TracingConfig) -> Tracing:
    """Tracing as configured; what it needs is imported, and need be installed, only if it is on.

    Raises:
        ConfigError: It is on and not installed.
    """
    if config.endpoint is None:
        return Untraced()
    try:
        from serac_gateway.observability.otel import OtelTracing
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"tracing.endpoint {config.endpoint!r} is set and {exc.name} is not installed; install it with"
            ' pip install "serac_gateway[otel]", or leave the endpoint out'
        ) from exc
    return OtelTracing.exporting(config)
