"""Opens one generation: every part that depends on the configuration, over the parts that last."""

from __future__ import annotations

from serac_gateway.config.model import GatewayConfig
from serac_gateway.control_plane.conflicts import ConflictFinder
from serac_gateway.control_plane.editor import Editor
from serac_gateway.control_plane.http.dependencies import ControlParts
from serac_gateway.control_plane.preview import Previewer
from serac_gateway.control_plane.search import EditSearch
from serac_gateway.control_plane.verification import Verifier
from serac_gateway.data_plane.local_engine import CounterfactualAnswers, DecidingHere
from serac_gateway.data_plane.proxy import DataPlane
from serac_gateway.http.generations import Generation
from serac_gateway.kept_parts import PartsInUse
from serac_gateway.lasting_parts import LastingParts
from serac_gateway.models.loading import OnProgress
from serac_gateway.observability.counts import RequestCounter
from serac_gateway.observability.request_log import RequestLog
from serac_gateway.reusable_parts import ReusableParts, open_reusable_parts
from serac_gateway.routing.router import EditRouter


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
        live_edits=lasting.live_edits,
        classifier=opened.classifier,
        config=config.routing,
    )
    answers = CounterfactualAnswers(
        model=opened.counterfactual,
        live_edits=lasting.live_edits,
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
        hop_mark=lasting.hop_mark,
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
        control_parts=_control_parts(config, lasting, opened, router, answers),
        opened=tuple(parts.opened),
        close=parts.close,
    )


def _control_parts(
    config: GatewayConfig,
    lasting: LastingParts,
    opened: ReusableParts,
    router: EditRouter,
    answers: CounterfactualAnswers,
) -> ControlParts:
    store, encoder, live_edits = lasting.store, lasting.encoder, lasting.live_edits
    pool = opened.decision_pool
    conflicts = ConflictFinder(
        live_edits=live_edits, encoder=encoder, classifier=opened.classifier, config=config.routing
    )
    return ControlParts(
        editor=Editor(
            store=store,
            encoder=encoder,
            live_edits=live_edits,
            pool=pool,
            threads=config.models.decision_threads,
            conflicts=conflicts,
        ),
        store=store,
        live_edits=live_edits,
        follower=lasting.follower,
        announcer=lasting.announcer,
        wait_timeout_s=config.store.wait_timeout_s,
        search=EditSearch(store=store, encoder=encoder, live_edits=live_edits, pool=pool),
        router=router,
        previewer=Previewer(
            router=router,
            live_edits=live_edits,
            encoder=encoder,
            conflicts=conflicts,
            traffic=opened.traffic,
            pool=pool,
        ),
        verifier=Verifier(
            router=router,
            live_edits=live_edits,
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
