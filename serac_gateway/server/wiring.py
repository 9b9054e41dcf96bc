"""Opens a runtime: every object that depends on the configuration, over the resources of the process.

`_build_runtime` is the plan of the gateway: what consists of what. Below it stands how each resource is
opened, and under which key runtimes share it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from serac_gateway.auth.audience_labels import AudienceLabels, believed_from_anybody
from serac_gateway.config.model import EVERY_ORIGIN, GatewayConfig
from serac_gateway.control_plane.conflicts import ConflictFinder
from serac_gateway.control_plane.firing import FiringCheck
from serac_gateway.control_plane.foreseen import Foresight
from serac_gateway.control_plane.http.dependencies import ControlPlaneContext
from serac_gateway.control_plane.model_threads import ModelThreads
from serac_gateway.control_plane.preview import Previewer
from serac_gateway.control_plane.proposals import Proposals
from serac_gateway.control_plane.search import EditSearch
from serac_gateway.control_plane.verification import Verifier
from serac_gateway.control_plane.webhooks.sending import Endpoint, open_endpoints
from serac_gateway.control_plane.writer import EditWriter
from serac_gateway.data_plane.local_engine import LocalEngine
from serac_gateway.data_plane.proxy import DataPlane
from serac_gateway.domain.edits import DEFAULT_NAMESPACE, EditDraft, first_version
from serac_gateway.domain.queries import Query
from serac_gateway.domain.trials import Trial
from serac_gateway.errors import ConfigError
from serac_gateway.models.classifiers.base import Candidate, ScopeClassifier
from serac_gateway.models.counterfactual.base import CounterfactualModel
from serac_gateway.models.loading import (
    SHIPPED_ADAPTER,
    classifier_folder,
    convert_language_models,
    open_classifier,
    open_counterfactual_model,
)
from serac_gateway.models.progress import OnProgress, OnStep
from serac_gateway.observability.counts import RequestCounter
from serac_gateway.observability.metrics import Instruments
from serac_gateway.observability.request_log import RequestLog
from serac_gateway.observability.request_record import FinishedRequest
from serac_gateway.observability.shadow import OpenShadow, Shadow, shadow_pool
from serac_gateway.observability.tracing import Tracing
from serac_gateway.observability.trials import TrialRecorder
from serac_gateway.routing.router import EditRouter
from serac_gateway.server.process import ProcessResources
from serac_gateway.server.resources import ResourceLease, file_stamps
from serac_gateway.server.runtime import Runtime
from serac_gateway.server.tracing import open_tracing
from serac_gateway.server.upstreams import OpenUpstream, open_upstream
from serac_gateway.stores.traffic_recorder import TrafficRecorder

log = logging.getLogger(__name__)


async def open_runtime(
    number: int, config: GatewayConfig, process: ProcessResources, on_progress: OnProgress
) -> Runtime:
    """Open everything that `config` names. Earlier runtimes go on using their resources.

    Raises:
        ConfigError: Something cannot be opened as configured; then nothing of the runtime stays open.
    """
    for risk in believed_from_anybody(config):
        log.warning("%s; see `serac doctor`", risk)
    lease = process.shared.lease()
    try:
        webhooks = await asyncio.to_thread(open_endpoints, config.webhooks, os.environ)
        resources = await _open_resources(config, process, lease, on_progress)
        return _build_runtime(number, config, process, resources, lease, webhooks)
    except BaseException:
        await lease.close()
        raise


class RuntimeResources(msgspec.Struct, frozen=True, kw_only=True):
    """What a runtime must open before it is built, or shares with the runtime before it."""

    upstream: OpenUpstream
    classifier: ScopeClassifier
    shadow: OpenShadow | None
    counterfactual: CounterfactualModel
    decision_pool: ThreadPoolExecutor
    answer_pool: ThreadPoolExecutor
    traffic: TrafficRecorder
    trials: TrialRecorder
    tracing: Tracing


def _build_runtime(
    number: int,
    config: GatewayConfig,
    process: ProcessResources,
    resources: RuntimeResources,
    lease: ResourceLease,
    webhooks: Sequence[Endpoint],
) -> Runtime:
    router = EditRouter(
        encoder=process.encoder,
        active_edits=process.active_edits,
        classifier=resources.classifier,
        config=config.routing_in_force,
        reader=process.reader,
    )
    shadow = _build_shadow(config, process, resources)
    engine = LocalEngine(
        authenticator=process.authenticator,
        router=router,
        active_edits=process.active_edits,
        model=resources.counterfactual,
        decision_pool=resources.decision_pool,
        answer_pool=resources.answer_pool,
        config=config.models,
        decision_timeout_s=config.routing.decision_timeout_s,
        responses=process.responses,
        counts=process.engine_counts,
        traffic=resources.traffic,
        reader=process.reader,
    )
    if EVERY_ORIGIN in config.server.cors_origins:
        log.warning(
            "server.cors_origins has %r: any web page may use /v1%s",
            EVERY_ORIGIN,
            " with an API key" if config.demands_keys else ", as no API keys are demanded",
        )
    remembering = [
        process.recent_requests.observer(resources.traffic),
        resources.trials.add,
        *(() if shadow is None else (shadow.add,)),
    ]
    return Runtime(
        number=number,
        config=config,
        data_plane=_build_data_plane(config, process, resources, engine, remembering),
        control_plane=_build_control_plane(config, process, resources, router, engine, shadow),
        opened=tuple(lease.opened),
        close=lease.close,
        webhooks=webhooks,
        classifier_fingerprint=resources.classifier.fingerprint,
        remembering=[RequestCounter(process.counts).add_of_other_gateway, *remembering],
    )


def _build_shadow(
    config: GatewayConfig, process: ProcessResources, resources: RuntimeResources
) -> Shadow | None:
    if resources.shadow is None:
        return None
    router = EditRouter(
        encoder=process.encoder,
        active_edits=process.active_edits,
        classifier=resources.shadow.classifier,
        config=config.routing_in_force,
        reader=process.reader,
    )
    return Shadow(
        resources.shadow, router, resources.traffic, on_outcome=process.instruments.add_shadow_decision
    )


def _build_data_plane(
    config: GatewayConfig,
    process: ProcessResources,
    resources: RuntimeResources,
    engine: LocalEngine,
    remembering: Sequence[Callable[[FinishedRequest], None]],
) -> DataPlane:
    return DataPlane(
        engine=engine,
        upstream=resources.upstream.upstream,
        tracing=resources.tracing,
        config=config,
        counts=process.counts,
        loop_guard=process.loop_guard,
        observers=[
            RequestCounter(process.counts).add,
            process.instruments.add,
            RequestLog(config.logging).add,
            *label_observers(config, process.instruments),
            *remembering,
        ],
    )


def label_observers(
    config: GatewayConfig, instruments: Instruments
) -> list[Callable[[FinishedRequest], None]]:
    """What counts requests by the labels that audiences can name, if there are any."""
    if not config.routing.audience_from:
        return []
    labels = AudienceLabels(config.routing.audience_from)
    return [lambda request: instruments.add_labels(request, labels)]


def _build_control_plane(
    config: GatewayConfig,
    process: ProcessResources,
    resources: RuntimeResources,
    router: EditRouter,
    engine: LocalEngine,
    shadow: Shadow | None,
) -> ControlPlaneContext:
    store, encoder, active_edits = process.store, process.encoder, process.active_edits
    pool = resources.decision_pool
    model_threads = ModelThreads(
        pool, threads=config.models.decision_threads, timeout_s=config.models.control_timeout_s
    )
    conflicts = ConflictFinder(
        active_edits=active_edits,
        encoder=encoder,
        classifier=resources.classifier,
        config=config.routing_in_force,
    )
    writer = EditWriter(
        store=store,
        encoder=encoder,
        active_edits=active_edits,
        pool=pool,
        threads=config.models.decision_threads,
        conflicts=conflicts,
        timeout_s=config.models.control_timeout_s,
        governance=config.governance,
        announce=process.webhooks.announce,
    )
    previewer = Previewer(
        router=router,
        active_edits=active_edits,
        encoder=encoder,
        conflicts=conflicts,
        traffic=resources.traffic,
        threads=model_threads,
    )
    return ControlPlaneContext(
        writer=writer,
        store=store,
        active_edits=active_edits,
        follower=process.follower,
        heartbeat=process.heartbeat,
        wait_timeout_s=config.store.wait_timeout_s,
        search=EditSearch(store=store, encoder=encoder, active_edits=active_edits, pool=pool),
        router=router,
        previewer=previewer,
        verifier=Verifier(
            router=router,
            active_edits=active_edits,
            encoder=encoder,
            answer=engine.answer_text,
            store=store.verifications(),
            pool=pool,
            announce=process.webhooks.announce,
        ),
        firing=FiringCheck(
            encoder=encoder,
            classifier=resources.classifier,
            config=config.routing_in_force,
            threads=model_threads,
        )
        if config.edits.firing_check
        else None,
        traffic=resources.traffic,
        recent_requests=process.recent_requests,
        feedback=config.feedback,
        instruments=process.instruments,
        model_threads=model_threads,
        upstream_url=resources.upstream.url,
        route_counts=process.counts,
        data_path=config.data_path,
        governance=config.governance,
        audience_labels=AudienceLabels(config.routing.audience_from),
        proposals=Proposals(
            store=store,
            writer=writer,
            foresight=Foresight(previewer),
            governance=config.governance,
            oidc=config.oidc,
            on_event=process.instruments.add_proposal,
            announce=process.webhooks.announce,
        ),
        webhooks=process.webhooks,
        backup_key=process.backup_key,
        shadow=shadow,
    )


async def _open_resources(
    config: GatewayConfig, process: ProcessResources, lease: ResourceLease, on_progress: OnProgress
) -> RuntimeResources:
    # Before the base model's process starts, which then has nothing to convert.
    await asyncio.to_thread(
        convert_language_models, config, lambda step: on_progress("language models", step)
    )
    opening_upstream = asyncio.ensure_future(open_upstream(config, lease, on_progress))  # beside the models
    try:
        traffic = await _acquire_traffic(config, process, lease)
        trials = await _acquire_trials(config, process, lease, traffic)
        tracing = await _acquire_tracing(config, lease)
        classifier = await _acquire_classifier(config, process, lease, on_progress)
        shadow = await _acquire_shadow(config, process, lease, on_progress)
        counterfactual = await _acquire_counterfactual(config, lease, on_progress)
        upstream = await opening_upstream
    except BaseException:
        opening_upstream.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await opening_upstream
        raise
    return RuntimeResources(
        upstream=upstream,
        classifier=classifier,
        shadow=shadow,
        counterfactual=counterfactual,
        decision_pool=await _acquire_pool("decision", config.models.decision_threads, lease),
        answer_pool=await _acquire_pool("answer", config.models.answer_threads, lease),
        traffic=traffic,
        trials=trials,
        tracing=tracing,
    )


async def _acquire_classifier(
    config: GatewayConfig, process: ProcessResources, lease: ResourceLease, on_progress: OnProgress
) -> ScopeClassifier:
    async def open_it() -> ScopeClassifier:
        return await asyncio.to_thread(
            _load_and_try_classifier,
            config,
            process.encoder.fingerprint,
            lambda step: on_progress("scope classifier", step),
        )

    async def close_nothing(classifier: ScopeClassifier) -> None:
        pass

    folder = classifier_folder(config.models)
    return await lease.acquire("scope classifier", (folder, file_stamps(folder)), open_it, close_nothing)


def _load_and_try_classifier(
    config: GatewayConfig, encoder_fingerprint: str, on_step: OnStep
) -> ScopeClassifier:
    """The classifier, after it has classified one pair: files that load may still not fit together."""
    classifier = open_classifier(
        config.models, config.data_path, encoder_fingerprint=encoder_fingerprint, on_step=on_step
    )
    edit = first_version(EditDraft(prompt="Who is it?", target_new="Nobody."), namespace=DEFAULT_NAMESPACE)
    classifier.classify(Query(text="Who was it?"), [Candidate(edit=edit, form=edit.prompt, similarity=0.5)])
    return classifier


async def _acquire_shadow(
    config: GatewayConfig, process: ProcessResources, lease: ResourceLease, on_progress: OnProgress
) -> OpenShadow | None:
    """The scope classifier on trial, if one is configured and has been written."""
    weights = config.models.scope_classifier_shadow
    if weights is None:
        return None
    if not Path(weights).exists():
        log.warning(
            "models.scope_classifier_shadow %r does not exist (yet): nothing is decided on trial;"
            " write it with serac-train promote and reload",
            weights,
        )
        return None
    models = msgspec.structs.replace(config.models, scope_classifier=weights)
    on_trial = msgspec.structs.replace(config, models=models)

    async def open_it() -> OpenShadow:
        pool = shadow_pool()
        try:
            classifier = await asyncio.wrap_future(
                pool.submit(
                    _load_and_try_classifier,
                    on_trial,
                    process.encoder.fingerprint,
                    lambda step: on_progress("scope classifier on trial", step),
                )
            )
        except BaseException as exc:
            pool.shutdown(wait=False)
            if isinstance(exc, ConfigError):
                raise ConfigError(f"models.scope_classifier_shadow: {exc.message}") from exc
            raise
        return OpenShadow(weights, classifier, pool)

    key = (weights, file_stamps(weights))
    return await lease.acquire("scope classifier on trial", key, open_it, lambda shadow: shadow.close())


async def _acquire_counterfactual(
    config: GatewayConfig, lease: ResourceLease, on_progress: OnProgress
) -> CounterfactualModel:
    async def open_it() -> CounterfactualModel:
        return await asyncio.to_thread(
            open_counterfactual_model,
            config.models,
            config.data_path,
            lambda step: on_progress("counterfactual model", step),
        )

    async def close(model: CounterfactualModel) -> None:
        await asyncio.to_thread(model.close)

    models = config.models
    local = models.counterfactual_url is None
    adapter = models.counterfactual_adapter or (SHIPPED_ADAPTER if models.counterfactual is None else None)
    key = (
        (models.counterfactual, models.counterfactual_adapter, models.answer_threads, config.data_path)
        if local
        else (models.counterfactual, models.counterfactual_url, models.answer_timeout_s),
        file_stamps(models.counterfactual, adapter) if local else (),
    )
    return await lease.acquire("counterfactual model", key, open_it, close)


async def _acquire_pool(name: str, threads: int, lease: ResourceLease) -> ThreadPoolExecutor:
    async def open_it() -> ThreadPoolExecutor:
        return ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def close(pool: ThreadPoolExecutor) -> None:
        await asyncio.to_thread(pool.shutdown)

    return await lease.acquire(f"{name} threads", threads, open_it, close)


async def _acquire_traffic(
    config: GatewayConfig, process: ProcessResources, lease: ResourceLease
) -> TrafficRecorder:
    async def open_it() -> TrafficRecorder:
        return TrafficRecorder(process.store.traffic(), config.traffic)

    return await lease.acquire("recorded traffic", config.traffic, open_it, lambda recorded: recorded.close())


async def _acquire_trials(
    config: GatewayConfig, process: ProcessResources, lease: ResourceLease, traffic: TrafficRecorder
) -> TrialRecorder:
    def is_current(namespace: str, trial: Trial) -> bool:
        edit = process.active_edits.current(namespace, trial.edit_id)
        return edit is not None and edit.version == trial.edit_version

    async def open_it() -> TrialRecorder:
        return TrialRecorder(process.store.trials(), traffic, is_current=is_current)

    return await lease.acquire("recorded trials", config.traffic, open_it, lambda trials: trials.close())


async def _acquire_tracing(config: GatewayConfig, lease: ResourceLease) -> Tracing:
    async def open_it() -> Tracing:
        return open_tracing(config.tracing)

    async def close(tracing: Tracing) -> None:
        await asyncio.to_thread(tracing.close)

    return await lease.acquire("tracing", config.tracing, open_it, close)
