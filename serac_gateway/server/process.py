"""Opens the resources that a gateway process keeps from start to end, across every reload."""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import AsyncExitStack

import msgspec

from serac_gateway.auth.api_keys import checked_pepper
from serac_gateway.auth.authenticator import Authenticator, open_token_access
from serac_gateway.auth.key_store import ApiKeyStore
from serac_gateway.config.model import BACKUP_KEY_VARIABLE, KEY_PEPPER_VARIABLE, GatewayConfig
from serac_gateway.control_plane.backup_seal import configured_backup_key
from serac_gateway.control_plane.webhooks.dispatcher import Webhooks
from serac_gateway.data_plane.request_head import LoopGuard
from serac_gateway.data_plane.response_memory import ResponseMemory
from serac_gateway.edit_index.active_edits import ActiveEdits
from serac_gateway.edit_index.follower import LogFollower
from serac_gateway.edit_index.heartbeat import ReplicaHeartbeat
from serac_gateway.edit_index.opening import index_maker
from serac_gateway.edit_index.tiered import SealingThread
from serac_gateway.models.encoders.base import Encoder
from serac_gateway.models.forms.reader import FormReader
from serac_gateway.models.loading import open_encoder, open_form_reader
from serac_gateway.models.progress import OnProgress
from serac_gateway.observability.counts import EngineCounts, RouteCounts
from serac_gateway.observability.metrics import Instruments
from serac_gateway.observability.readiness import Readiness
from serac_gateway.observability.recent_requests import RecentRequests
from serac_gateway.server.data_folder import make_data_folder
from serac_gateway.server.resources import SharedResources
from serac_gateway.stores.base import EditStore
from serac_gateway.stores.open import open_configured_store

log = logging.getLogger(__name__)


class ProcessResources(msgspec.Struct, frozen=True, kw_only=True):
    """The store, everything derived from it, and the counts and records of the process."""

    store: EditStore
    authenticator: Authenticator
    encoder: Encoder
    reader: FormReader | None
    """None: the encoder is not the one whose forms can be read."""
    active_edits: ActiveEdits
    heartbeat: ReplicaHeartbeat
    follower: LogFollower
    readiness: Readiness
    instruments: Instruments
    counts: RouteCounts
    engine_counts: EngineCounts
    recent_requests: RecentRequests
    loop_guard: LoopGuard
    responses: ResponseMemory
    webhooks: Webhooks
    backup_key: bytes | None
    """The configured key of backups' seals; None: the store's own."""
    shared: SharedResources
    """The resources that runtimes take from each other."""


async def open_process_resources(
    config: GatewayConfig, stack: AsyncExitStack, on_progress: OnProgress
) -> ProcessResources:
    """Open them; `stack` closes them in reverse order. The stored edits are not loaded yet.

    Raises:
        ConfigError: One cannot be opened as configured.
    """
    await asyncio.to_thread(make_data_folder, config.data_path)
    pepper = checked_pepper(os.environ.get(KEY_PEPPER_VARIABLE))
    backup_key = configured_backup_key(os.environ.get(BACKUP_KEY_VARIABLE), pepper=pepper)
    store = await open_configured_store(config)
    stack.push_async_callback(store.close)
    authenticator = await _open_authenticator(config, store.api_keys(), pepper)
    stack.push_async_callback(authenticator.close)
    encoder = await asyncio.to_thread(open_encoder, config, on_progress)
    sealing = SealingThread()
    stack.callback(sealing.close)
    active_edits = ActiveEdits(
        store=store, encoder=encoder, make_index=index_maker(encoder.width, config.index, sealing)
    )
    heartbeat = ReplicaHeartbeat(store.replicas(), active_edits.positions)
    stack.push_async_callback(heartbeat.close)
    follower = LogFollower(
        store=store,
        active_edits=active_edits,
        max_staleness_s=config.store.max_staleness_s,
        on_applied=heartbeat.note_progress,
    )
    stack.push_async_callback(follower.close)
    instruments = Instruments(config.metrics, has_edits=lambda name: active_edits.count(name) > 0)
    webhooks = Webhooks(
        store.webhooks(),
        on_outcome=instruments.add_webhook_event,
        on_waiting=instruments.set_webhook_waiting,
    )
    stack.push_async_callback(webhooks.close)
    return ProcessResources(
        store=store,
        authenticator=authenticator,
        encoder=encoder,
        reader=open_form_reader(encoder),
        active_edits=active_edits,
        heartbeat=heartbeat,
        follower=follower,
        readiness=Readiness("edits"),
        instruments=instruments,
        counts=RouteCounts(),
        engine_counts=EngineCounts(),
        recent_requests=RecentRequests(limit=config.feedback.remembered_requests),
        loop_guard=LoopGuard(),
        responses=ResponseMemory(),
        webhooks=webhooks,
        backup_key=backup_key,
        shared=SharedResources(),
    )


async def _open_authenticator(config: GatewayConfig, keys: ApiKeyStore, pepper: bytes) -> Authenticator:
    authenticator = Authenticator(
        keys,
        required=config.demands_keys,
        pepper=pepper,
        outage_grace_s=config.access.outage_grace_s,
        tokens=open_token_access(config),
    )
    if config.demands_keys and config.oidc.issuer is None:  # else people come with tokens
        await authenticator.require_usable_key()
    elif not config.is_loopback:
        log.warning("anyone who can connect to %r can edit: access.required is false", config.server.host)
    return authenticator
