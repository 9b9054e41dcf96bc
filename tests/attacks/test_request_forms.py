"""The same question in every form that field reports know: read, or refused, and never past a suppression.

Field reports F3 and A3. The upstream reads leniently and gives a secret away to whoever asks for it in a form
it understands. Nothing of a suppressed question may reach it, whatever the form; a fact edit either answers,
or the request passes on byte for byte where the form asks for what a fact edit cannot honour.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from serac_gateway.errors import ConfigError
from tests.attacks.attacked_gateway import (
    EDITED_QUESTION,
    FACT,
    NEW_ANSWER,
    OTHER_QUESTION,
    REFUSAL,
    SUPPRESSED_QUESTION,
    SUPPRESSION,
    AttackedGateway,
    assert_refused_with_a_sentence,
    attacked_gateway,
    chat,
    is_answered_here,
)
from tests.attacks.lenient_upstream import SECRET
from tests.attacks.request_forms import FORMS, JSON_TYPE, Fact, Form, Sent
from tests.http.wire import WireResponse, fetch

UNREADABLE = {
    "no JSON": Sent(b"\x93\xff what is it?"),
    "JSON cut off": Sent(b'{"model": "m", "messages": [{"role": "user", "content": "Who'),
    "in an unknown encoding": Sent(b"\x93\xff", headers=(JSON_TYPE, ("content-encoding", "x"))),
}
"""Requests in which nobody finds a question, each with what keeps it from being read."""


HIDING, OPEN = "default", "open"
"""A namespace with a suppression, and one that has facts only."""


async def sent(gateway: AttackedGateway, request: Sent, namespace: str = HIDING) -> WireResponse:
    own = [("x-serac-debug", "true"), ("x-serac-namespace", namespace)]
    return await fetch(gateway.url, request.target, request.body, *request.headers, *own)


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway_of_all(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AttackedGateway]:
    """Namespace default has a suppression and a fact edit, namespace open the fact edit alone."""
    async with attacked_gateway(tmp_path_factory.mktemp("forms")) as gateway:
        await gateway.add(SUPPRESSION, FACT)
        await gateway.add(FACT, namespace=OPEN)
        yield gateway


@pytest.fixture
def gateway(gateway_of_all: AttackedGateway) -> AttackedGateway:
    gateway_of_all.upstream.forget()
    return gateway_of_all


def forms(*kinds: Fact) -> pytest.MarkDecorator:
    chosen = [form for form in FORMS if not kinds or form.fact in kinds]
    return pytest.mark.parametrize("form", chosen, ids=lambda form: form.name)


async def test_there_are_at_least_60_forms_with_a_name_each() -> None:
    assert len({form.name for form in FORMS}) == len(FORMS) >= 60


async def test_the_mock_upstream_leaks_to_whoever_asks_it(gateway: AttackedGateway) -> None:
    """Without a suppression nearly every form gets the secret, else this file would show nothing."""
    leaking = 0
    for form in FORMS:
        leaking += SECRET in (await sent(gateway, form.make(SUPPRESSED_QUESTION), OPEN)).body.decode(
            "latin-1"
        )
    assert leaking > 0.75 * len(FORMS)


@forms()
async def test_a_suppressed_question_never_reaches_the_upstream(gateway: AttackedGateway, form: Form) -> None:
    """It is answered with the refusal, or the request is refused with a sentence."""
    reply = await sent(gateway, form.make(SUPPRESSED_QUESTION))
    assert SECRET not in reply.body.decode("latin-1"), reply.all("x-serac-reason")
    assert gateway.upstream.leaks == []
    if reply.status != 200:
        assert_refused_with_a_sentence(reply)


@forms(Fact.EDITED)
async def test_a_fact_edit_answers_in_a_form_that_changes_nothing_of_the_question(
    gateway: AttackedGateway, form: Form
) -> None:
    """What shapes sampling only, and how a path, a body or a number is written, never loses an edit."""
    reply = await sent(gateway, form.make(EDITED_QUESTION), OPEN)
    assert is_answered_here(reply), (reply.status, reply.all("x-serac-reason"), reply.body[:200])
    assert NEW_ANSWER in reply.body.decode()
    assert gateway.upstream.requests == []


@forms(Fact.EDITED_OR_PASSED)
async def test_what_a_fact_edit_cannot_honour_passes_byte_for_byte_with_its_reason(
    gateway: AttackedGateway, form: Form
) -> None:
    request = form.make(EDITED_QUESTION)
    reply = await sent(gateway, request, OPEN)
    assert reply.status == 200
    if not is_answered_here(reply):
        assert reply.one("x-serac-route") in ("bypass", "base")
        assert reply.one("x-serac-reason")
        assert_passed_unchanged(gateway, request)


@forms(Fact.EDITED_OR_REFUSED, Fact.REFUSED)
async def test_a_form_that_hides_its_path_or_its_text_is_not_passed_on(
    gateway: AttackedGateway, form: Form
) -> None:
    """Encoded slashes and dots, UTF-16 and UTF-32: a plain form serves every honest use."""
    reply = await sent(gateway, form.make(EDITED_QUESTION), OPEN)
    assert gateway.upstream.requests == []
    if form.fact is Fact.REFUSED or not is_answered_here(reply):
        assert_refused_with_a_sentence(reply)


@forms(Fact.EDITED, Fact.EDITED_OR_PASSED)
async def test_a_question_that_no_edit_answers_passes_byte_for_byte_in_every_form(
    gateway: AttackedGateway, form: Form
) -> None:
    """The normal form is for the decision; the upstream gets the client's own path and bytes."""
    request = form.make(OTHER_QUESTION)
    reply = await sent(gateway, request, OPEN)
    assert reply.status == 200
    assert_passed_unchanged(gateway, request)


@pytest.mark.parametrize("form", [form for form in FORMS if form.readable], ids=lambda form: form.name)
async def test_beside_a_suppression_what_can_be_read_is_not_refused(
    gateway: AttackedGateway, form: Form
) -> None:
    """A suppression costs other questions nothing, in whatever readable form they come."""
    request = form.make(OTHER_QUESTION)
    reply = await sent(gateway, request)
    if form.fact is Fact.EDITED:
        assert reply.status == 200, reply.body[:200]
        assert_passed_unchanged(gateway, request)
    else:
        assert reply.status < 500


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.parametrize("policy", ["", 'routing.on_unreadable = "refuse"'])
async def test_what_cannot_be_read_is_refused_where_suppressions_are_in_force(
    tmp_path: Path, name: str, policy: str
) -> None:
    """By default too, where namespaces without suppressions go on passing it."""
    async with attacked_gateway(tmp_path, policy) as gateway:
        await gateway.add(SUPPRESSION)
        await gateway.add(FACT, namespace=OPEN)
        assert_refused_with_a_sentence(await sent(gateway, UNREADABLE[name]), 400, 415, 422)
        assert gateway.upstream.requests == []
        if not policy:
            assert (await sent(gateway, UNREADABLE[name], OPEN)).status == 200
            assert_passed_unchanged(gateway, UNREADABLE[name])


@pytest.mark.parametrize("name", UNREADABLE)
async def test_an_operator_may_let_pass_what_cannot_be_read(tmp_path: Path, name: str) -> None:
    async with attacked_gateway(tmp_path, 'routing.on_unreadable = "pass"') as gateway:
        await gateway.add(SUPPRESSION)
        assert (await sent(gateway, UNREADABLE[name])).status == 200
        assert_passed_unchanged(gateway, UNREADABLE[name])


async def test_an_unknown_policy_is_refused_at_the_start_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"on_unreadable.*drop|drop.*on_unreadable"):
        async with attacked_gateway(tmp_path, 'routing.on_unreadable = "drop"'):
            pass


async def test_a_body_over_the_limit_is_refused_where_suppressions_are_in_force(tmp_path: Path) -> None:
    async with attacked_gateway(tmp_path, "server.max_classified_body_bytes = 2_000") as gateway:
        await gateway.add(SUPPRESSION)
        await gateway.add(FACT, namespace=OPEN)
        body = chat(SUPPRESSED_QUESTION, x="y" * 3_000)
        assert "2,000" in assert_refused_with_a_sentence(await gateway.post(body))
        assert gateway.upstream.leaks == []
        assert (await gateway.post(body, ("x-serac-namespace", OPEN))).status == 200


async def test_a_compressed_bomb_is_refused_within_the_limit_on_bodies(tmp_path: Path) -> None:
    """The limit holds for what is unpacked, also in front of fact edits, where it passes unread."""
    form = next(form for form in FORMS if form.name == "gzip")
    async with attacked_gateway(tmp_path, "server.max_classified_body_bytes = 100_000") as gateway:
        await gateway.add(SUPPRESSION)
        await gateway.add(FACT, namespace=OPEN)
        request = form.make("y" * 10_000_000 + SUPPRESSED_QUESTION)
        assert len(request.body) < 100_000
        assert_refused_with_a_sentence(await sent(gateway, request))
        assert gateway.upstream.leaks == []
        assert (await sent(gateway, request, OPEN)).status == 200
        assert gateway.upstream.requests[-1].body == request.body


async def test_a_follow_up_whose_turns_only_the_upstream_has_does_not_pass_a_suppression(
    gateway: AttackedGateway,
) -> None:
    """It leans on a text that cannot be read here."""
    body = {"model": "m", "previous_response_id": "resp_of_the_upstream", "input": "And what is it now?"}
    reply = await gateway.post(body, target="/v1/responses")
    assert_refused_with_a_sentence(reply)
    assert gateway.upstream.requests == []


async def test_a_suppression_holds_while_the_upstream_is_asked_speculatively(tmp_path: Path) -> None:
    """Also in forms that the plain reader gives up on: its reply is never shown."""
    async with attacked_gateway(tmp_path, "routing.speculate = true") as gateway:
        await gateway.add(SUPPRESSION)
        for form in FORMS:
            reply = await sent(gateway, form.make(SUPPRESSED_QUESTION))
            assert SECRET not in reply.body.decode("latin-1"), form.name


async def test_the_plain_form_is_answered_with_the_refusal(gateway: AttackedGateway) -> None:
    reply = await gateway.post(chat(SUPPRESSED_QUESTION))
    assert reply.json["choices"][0]["message"]["content"] == REFUSAL


def assert_passed_unchanged(gateway: AttackedGateway, request: Sent) -> None:
    """The upstream got the client's own bytes and the client's own path below /v1 or /openai, once."""
    (received,) = gateway.upstream.requests
    assert received.body == request.body
    below = next(request.target.removeprefix(p) for p in ("/v1", "/openai") if request.target.startswith(p))
    assert received.target.removeprefix("/v1") == below
