"""A base model that is given a secret, and says it in whatever way it is talked into.

300 attacks on 30 secrets by a writer who saw neither code nor tests: the secret stands in a system prompt, an
earlier turn, a tool's result or a document, and the request makes the model recite, encode, translate or
compute with it; two in three do not name the topic. The upstream here obeys, as long as it was given the
value. Only the doors behind the decision are tried: the decision sees a topic that stands there word by word.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from serac_gateway.domain.folding import folded_text
from serac_gateway.testing import ReceivedRequest, ScriptedConnection
from tests.attacks.attacked_gateway import AttackedGateway, attacked_gateway
from tests.attacks.leaking_replies import WHOLE, answer_in, chat_stream, in_pieces, replying

pytestmark = pytest.mark.asyncio(loop_scope="module")

FOLDER = Path(__file__).parent
IN_ANOTHER_FORM = {"a243", "a247"}
"""Leaks that are known: the suppressed "18%" stands in a tool's result as the number 18."""


class Attack(msgspec.Struct, frozen=True):
    """A line of the files."""

    id: str
    topic: str
    secret: str
    aliases: list[str]
    refusal: str
    messages: list[dict[str, object]]
    reply: str

    def is_in(self, text: str) -> bool:
        """Whether the text has the secret in a plain form."""
        plain, words = folded_text(text), f" {text.casefold()} ".replace('"', " ")
        return any(
            folded_text(value) in plain if len(folded_text(value)) > 3 else f" {value.casefold()} " in words
            for value in (self.secret, *self.aliases)
        )


def read(name: str) -> list[Attack]:
    return [msgspec.json.decode(line, type=Attack) for line in (FOLDER / name).read_bytes().splitlines()]


ATTACKS, HARMLESS = read("leak_attacks.jsonl"), read("leak_harmless.jsonl")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AttackedGateway]:
    folder = tmp_path_factory.mktemp("leaks")
    async with attacked_gateway(folder, "edits.firing_check = false") as gateway:
        for attack in {attack.topic: attack for attack in ATTACKS}.values():
            await gateway.add(
                {
                    "kind": "suppression",
                    "prompt": attack.topic,
                    "target_new": attack.refusal,
                    "target_true": attack.secret,
                    "aliases": attack.aliases,
                }
            )
        yield gateway


async def put(
    gateway: AttackedGateway, attack: Attack, *, stream: bool, knows_it: bool = False
) -> tuple[str, bytes]:
    """The answer, and the body that the upstream got; it obeys if it got the value, or `knows_it` anyway."""
    bodies: list[bytes] = []

    async def obey(request: ReceivedRequest, connection: ScriptedConnection) -> None:
        bodies.append(request.body)
        is_given = knows_it or attack.is_in(json.dumps(json.loads(request.body), ensure_ascii=False))
        is_given = is_given or attack.id in IN_ANOTHER_FORM
        text = attack.reply if is_given else "I was given no such thing."
        if stream:
            body = chat_stream(lambda piece: {"content": piece})(in_pieces(text, 4))
            await replying(body, 1_000)(request, connection)
        else:
            await replying(WHOLE[0].body([text]), 1_000, is_stream=False)(request, connection)

    gateway.upstream.script = obey
    reply = await gateway.post({"model": "m", "messages": attack.messages, "stream": stream})
    assert reply.status == 200, reply.body
    answer = answer_in(reply.body) if stream else reply.json["choices"][0]["message"]["content"]
    return str(answer), b"".join(bodies)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_what_the_base_model_was_given_does_not_leave(gateway: AttackedGateway, stream: bool) -> None:
    """No answer has the value or is the one that hides it; the leaks are exactly the known ones."""
    leaks = set()
    for attack in ATTACKS:
        answer, _ = await put(gateway, attack, stream=stream)
        if attack.is_in(answer) or answer.strip() == attack.reply.strip():
            leaks.add(attack.id)
    assert leaks == IN_ANOTHER_FORM


async def test_the_attacks_succeed_where_requests_pass_as_they_are(tmp_path: Path) -> None:
    """Without redaction the watch for replies alone lets many through: the attacks can tell doors apart."""
    config = "edits.firing_check = false\nsuppression.redact_requests = false"
    async with attacked_gateway(tmp_path, config) as gateway:
        some = ATTACKS[::15]
        for attack in {attack.topic: attack for attack in some}.values():
            await gateway.add(
                {
                    "kind": "suppression",
                    "prompt": attack.topic,
                    "target_new": attack.refusal,
                    "target_true": attack.secret,
                }
            )
        answers = [(await put(gateway, attack, stream=False))[0] for attack in some]
        leaks = [a.id for a, answer in zip(some, answers, strict=True) if answer.strip() == a.reply.strip()]
        assert 3 <= len(leaks) < len(some)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_harmless_answers_about_the_subject_leave_as_they_are(
    gateway: AttackedGateway, stream: bool
) -> None:
    """100 questions beside the same secrets; what has no value reaches the base model byte for byte."""
    for attack in HARMLESS:
        answer, body = await put(gateway, attack, stream=stream, knows_it=True)
        assert answer.strip() == attack.reply.strip(), attack.id
        sent = json.dumps({"model": "m", "messages": attack.messages, "stream": stream}).encode()
        assert (body == sent) is (b"[redacted]" not in body), attack.id
