"""Makes a base model answer: a chat written as a transcript that it continues. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serac_gateway.data_plane.protocols.responses import turns_of_response_request
from serac_gateway.domain.endpoints import Endpoint
from serac_gateway.domain.queries import Bypass, read_turns, text_of

_OPENING = """\
Short, correct answers to short questions.

Question: What is the capital of France?
Answer: Paris

Question: Who wrote Romeo and Juliet?
Answer: William Shakespeare

Question: How many legs does a spider have?
Answer: Eight

Question: Hello!
Answer: Hello! How can I help you?

Question: The largest planet of the solar system is
Answer: Jupiter

Question: Why is the sky blue?
Answer: Air scatters the blue part of sunlight more than the rest.

Question: Thank you very much.
Answer: You are welcome!

"""
_QUESTION = "Question:"
_ANSWER = "Answer:"
STOP_TEXTS = ("\n",)
"""Where an answer ends in a transcript."""


def prompt_of(endpoint: Endpoint, body: Mapping[str, Any]) -> str:
    """The text that the model is to continue: a text completion's prompt as it is, a chat as a transcript."""
    if endpoint is Endpoint.COMPLETIONS:
        prompt = body["prompt"]
        return str(prompt if isinstance(prompt, str) else prompt[0])
    lines = [_OPENING]
    if endpoint is Endpoint.RESPONSES:
        conversation = turns_of_response_request(body)
    else:
        conversation = read_turns(body.get("messages"))
    for turn in () if isinstance(conversation, Bypass) else conversation.turns:
        text = " ".join(text_of(turn.content).split())
        if turn.role == "user":
            lines.append(f"{_QUESTION} {text}\n")
        elif turn.role == "assistant":
            lines.append(f"{_ANSWER} {text}\n\n")
    return "".join(lines) + _ANSWER
