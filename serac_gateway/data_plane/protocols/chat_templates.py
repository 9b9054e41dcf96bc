"""Undoes chat templates: the turns of a conversation in a raw prompt of /v1/completions. Pure."""

from __future__ import annotations

import re

from serac_gateway.domain.queries import Turn

_MARK = re.compile(
    r"<\|(?:im_start|start_header_id|header_start)\|>\s*(?P<chatml>\w+)[^\n<]*(?:<\|(?:end_header_id|header_end)\|>)?"
    r"|<start_of_turn>\s*(?P<gemma>\w+)"
    r"|<\|turn>\s*(?P<turn>\w+)"
    r"|<[|｜](?P<phi>user|assistant|system|User|Assistant)[|｜]>"
    r"|<\|START_OF_TURN_TOKEN\|><\|(?P<cohere>USER|CHATBOT|SYSTEM)_TOKEN\|>"
    r"|(?P<inst>\[INST\])|(?P<end_inst>\[/INST\])"
    r"|(?:^|\n)#{2,3}\s*(?P<alpaca>Instruction|Input|Response|User|Human|Assistant|System)s?\s*:"
)
_CLOSING = re.compile(
    r"<\|(?:im_end|eot_id|end|eom_id|end_of_text|begin_of_text|endoftext|END_OF_TURN_TOKEN)\|>|<end_of_turn>"
    r"|<turn\|>|<bos>|</?s>|<[|｜](?:begin|end)▁of▁sentence[|｜]>|<eos>"
)
_ROLES = {
    "instruction": "user",
    "input": "user",
    "human": "user",
    "response": "assistant",
    "model": "assistant",
    "chatbot": "assistant",
    "inst": "user",
    "end_inst": "assistant",
}


def turns_in_prompt(prompt: str) -> list[Turn]:
    """The turns, oldest first, an empty one at the end where the answer is to begin; [] without a template.

    Understands ChatML, Llama 2 and 3, Mistral, Gemma, Phi, DeepSeek, Command R and Alpaca.
    """
    marks = list(_MARK.finditer(prompt))
    if not marks:
        return []
    turns: list[Turn] = []
    for mark, after in zip(marks, [*marks[1:], None], strict=True):
        text = prompt[mark.end() : len(prompt) if after is None else after.start()]
        kind = mark.lastgroup or ""
        name = kind if kind in ("inst", "end_inst") else mark[kind].lower()
        role = _ROLES.get(name, name)
        text = _CLOSING.sub("", text)
        if kind == "inst":
            before, is_open, rest = text.partition("<<SYS>>")
            system, is_closed, after_system = rest.partition("<</SYS>>")
            if is_open and is_closed:
                turns.append(Turn(role="system", content=system.strip()))
                text = before + after_system
        if kind == "alpaca" and name == "input" and turns and turns[-1].role == "user":
            joined = f"{turns[-1].content}\n{text.strip()}".strip()
            turns[-1] = Turn(role="user", content=joined)
            continue
        turns.append(Turn(role=role, content=text.strip()))
    preamble = _CLOSING.sub("", prompt[: marks[0].start()]).strip()
    return [Turn(role="system", content=preamble), *turns] if preamble else turns
