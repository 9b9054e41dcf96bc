"""The route of a request in the scope of an instruction, and the edits that are stated with it."""

from __future__ import annotations

import msgspec
import pytest

from serac_gateway.config.model import (
    CompositePolicy,
    GatewayConfig,
    InstructionPolicy,
    NamedUpstreamConfig,
    NamespaceRouting,
    RoutingConfig,
    UpstreamConfig,
)
from serac_gateway.domain.edits import Edit, EditKind
from serac_gateway.domain.queries import Query
from serac_gateway.routing.router import Route, RouteDecision
from tests.unit.routing.test_router import TargetWordClassifier, edit, router

STATED = RoutingConfig(instructions=InstructionPolicy.IN_CONTEXT)
RULE = edit("the Orlin ferry", "Mention the winter break.", kind=EditKind.INSTRUCTION)


async def decision(config: RoutingConfig, *others: tuple[Edit, float]) -> RouteDecision:
    """On a query in whose scope RULE is, with probability .9, and `others` with theirs."""
    edits = {RULE.target_new: 0.9, **{other.target_new: probability for other, probability in others}}
    deciding = await router(
        RULE,
        *(other for other, _ in others),
        classifier=TargetWordClassifier(edits, same_question=False),
        config=config,
    )
    return deciding.decide("default", [Query(text="the query")])[0]


async def test_an_instruction_is_stated_to_the_base_model() -> None:
    made = await decision(STATED)
    assert (made.route, made.reason) == (Route.IN_CONTEXT, "instruction")
    assert made.context_edits == made.governing_edits == (RULE,)


async def test_without_a_policy_the_counterfactual_model_answers() -> None:
    made = await decision(RoutingConfig())
    assert (made.route, made.reason, made.context_edits) == (Route.COUNTERFACTUAL, "in scope", ())


@pytest.mark.parametrize("composite", list(CompositePolicy))
async def test_no_policy_for_several_questions_takes_the_instruction_away(composite: CompositePolicy) -> None:
    made = await decision(msgspec.structs.replace(STATED, composite=composite))
    assert made.route is Route.IN_CONTEXT
    assert RULE in made.context_edits


async def test_a_fact_and_other_instructions_in_scope_are_stated_with_it() -> None:
    fact = edit("When does the Orlin ferry leave?", "At noon")
    rule = edit("ferries", "Name the price.", kind=EditKind.INSTRUCTION)
    distant = edit("Who runs the Orlin ferry?", "Oona Brandt")
    made = await decision(STATED, (rule, 0.8), (fact, 0.7), (distant, 0.2))
    assert made.context_edits == (RULE, fact, rule)


async def test_a_fact_that_is_more_probable_is_answered_as_a_fact() -> None:
    fact = edit("When does the Orlin ferry leave?", "At noon")
    made = await decision(STATED, (fact, 0.95))
    assert (made.route, made.edit) == (Route.COUNTERFACTUAL, fact)


async def test_a_suppression_in_scope_refuses_what_the_base_model_would_see() -> None:
    secret = edit("When does the Orlin ferry leave?", "No comment.", kind=EditKind.SUPPRESSION)
    made = await decision(STATED, (secret, 0.6))
    assert made.refusal == secret
    assert (await decision(STATED, (secret, 0.2))).route is Route.IN_CONTEXT


async def test_a_namespace_may_have_its_instructions_answered_otherwise() -> None:
    own = NamespaceRouting(instructions=InstructionPolicy.COUNTERFACTUAL)
    config = msgspec.structs.replace(STATED, namespaces={"default": own})
    assert (await decision(config)).route is Route.COUNTERFACTUAL
    assert config.instructions_of("other") is InstructionPolicy.IN_CONTEXT


NAMED = NamedUpstreamConfig(url="http://b.example/v1", models=("large",))


@pytest.mark.parametrize(
    ("config", "policy"),
    [
        (GatewayConfig(), InstructionPolicy.COUNTERFACTUAL),
        (GatewayConfig(upstream=UpstreamConfig(url="http://a.example/v1")), InstructionPolicy.IN_CONTEXT),
        (GatewayConfig(upstreams={"b": NAMED}), InstructionPolicy.IN_CONTEXT),
        (
            GatewayConfig(
                upstreams={"b": NAMED}, routing=RoutingConfig(instructions=InstructionPolicy.COUNTERFACTUAL)
            ),
            InstructionPolicy.COUNTERFACTUAL,
        ),
        (GatewayConfig(routing=STATED), InstructionPolicy.IN_CONTEXT),
    ],
)
def test_a_configured_upstream_is_given_instructions(
    config: GatewayConfig, policy: InstructionPolicy
) -> None:
    assert config.routing_in_force.instructions_of("default") is policy
