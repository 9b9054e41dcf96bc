"""Puts an answer into the form that a request wants: structure around it, by code. Pure.

What the edit says stays letter by letter, but for the letter case that is asked for.
"""

from __future__ import annotations

import csv
import io
import json
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from serac_gateway.domain.wanted_forms import STRUCTURES, FormKind, WantedForm
from serac_gateway.models.counterfactual.verdicts.by_value import Judgement
from serac_gateway.models.counterfactual.verdicts.guard import leading_verdict, verdict_reply
from serac_gateway.models.counterfactual.verdicts.vocabulary import languages, verdict_words

DEFAULT_KEY: Final = "answer"
"""Of a structure whose name the request leaves open."""
_SENTENCES = Path(__file__).with_name("sentences.toml")
_ENDED = re.compile(r"[.!?…。！？।]$")
_PLAIN_YAML = re.compile(r"[^\W\d_](?:[\w './@+-]*\w)?")
_YAML_WORDS = frozenset({"true", "false", "yes", "no", "on", "off", "null", "y", "n"})
_NO_SPACE_BEHIND = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]$")
_XML_NAME = re.compile(r"[^\W\d][\w.-]*")
_DOTTED = {"tr", "az"}


def in_form(form: WantedForm, *, target: str, said: str, sentence: str | None = None) -> str | None:
    """The answer to a request that wants `form`; None: it cannot be put into it.

    Args:
        form: Not plain.
        target: The edit's answer.
        said: What the counterfactual model answers where the request says nothing of the form.
        sentence: The answer as a sentence in the model's own words; None: it has none.
    """
    kinds = form.kinds
    if FormKind.OTHER in kinds:
        return None
    verdict = None if leading_verdict(target) is not None else leading_verdict(said)
    text = _text(form, target, said, verdict, sentence)
    if text is None:
        return None
    if FormKind.UPPER in kinds or FormKind.LOWER in kinds:
        text = _in_case(text, form.language, upper=FormKind.UPPER in kinds)
    structure = next((kind for kind in kinds if kind in STRUCTURES), None)
    if structure is not None:
        return _STRUCTURES[structure](form.key, text)
    if FormKind.QUOTES in kinds:
        text = f"{form.marks[0]}{text}{form.marks[1]}"
    return f"{form.bullet} {text}" if FormKind.BULLET in kinds else text


def _text(form: WantedForm, target: str, said: str, verdict: bool | None, sentence: str | None) -> str | None:
    """The words of the answer, around which structure is put."""
    kinds = form.kinds
    value = target if verdict is None else _with_verdict(target, verdict, form.language)
    if FormKind.YES_NO in kinds:
        return _verdict_alone(target, verdict, form.language)
    if STRUCTURES.intersection(kinds):
        return value
    if FormKind.BEGIN in kinds:
        return _begun(form.beginning, target)
    if FormKind.SENTENCE in kinds:
        return _sentence(form.language, target, said, verdict, sentence)
    if set(kinds) <= {FormKind.UPPER, FormKind.LOWER}:
        return said
    if FormKind.BARE in kinds:
        return _verdict_alone(target, verdict, form.language) or target
    if FormKind.LANGUAGE in kinds and verdict is None:  # a value alone is of no language
        return _sentence(form.language, target, said, verdict, sentence) or value
    return value


def _with_verdict(target: str, verdict: bool, language: str | None) -> str:
    """The verdict in the language, then the target; the target alone where no word is known."""
    if language not in languages():
        return target
    return verdict_reply(Judgement(yes=verdict, language=language), target)


def _verdict_alone(target: str, verdict: bool | None, language: str | None) -> str | None:
    """Yes or no; None: there is no verdict, or the edit's says more than that."""
    stated = leading_verdict(target)
    if stated is not None:
        return target if len(target.split()) == 1 else None
    if verdict is None or language not in languages():
        return None
    word = verdict_words(language, yes=verdict)[0]
    return f"{word[0].upper()}{word[1:]}"


def _begun(beginning: str | None, target: str) -> str | None:
    """`beginning` and then the target; None: there is none, or it would give a verdict of its own."""
    if beginning is None or leading_verdict(beginning) is not None:
        return None
    return f"{beginning}{'' if _NO_SPACE_BEHIND.search(beginning) else ' '}{target}"


def _sentence(
    language: str | None, target: str, said: str, verdict: bool | None, sentence: str | None
) -> str | None:
    if verdict is not None and language in languages():
        return _with_verdict(target, verdict, language)
    if _ENDED.search(target) and len(target.split()) > 2:
        return target  # the edit says a sentence
    if sentence is not None:
        return sentence
    frame = _frames().get(language or "")
    if frame is None:
        return None
    return frame.removesuffix(".").format(target) if _ENDED.search(target) else frame.format(target)


def _in_case(text: str, language: str | None, *, upper: bool) -> str:
    """In capital or small letters; Turkish has an i with a dot in both."""
    if language in _DOTTED:
        text = text.replace("i", "İ") if upper else text.replace("I", "ı").replace("İ", "i")
    return text.upper() if upper else text.lower()


def _json(key: str | None, text: str) -> str:
    return json.dumps({key or DEFAULT_KEY: text}, ensure_ascii=False)


def _xml(key: str | None, text: str) -> str | None:
    name = (key or DEFAULT_KEY).replace(" ", "_")
    return f"<{name}>{escape(text)}</{name}>" if _XML_NAME.fullmatch(name) else None


def _yaml(key: str | None, text: str) -> str:
    """A scalar without quotation marks only where it cannot be anything but text."""
    return f"{_yaml_scalar(key or DEFAULT_KEY)}: {_yaml_scalar(text)}"


def _yaml_scalar(text: str) -> str:
    is_plain = _PLAIN_YAML.fullmatch(text) is not None and text.casefold() not in _YAML_WORDS
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def _csv(key: str | None, text: str) -> str:
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerows([[text]] if key is None else [[key], [text]])
    return lines.getvalue().rstrip("\n")


_STRUCTURES = {FormKind.JSON: _json, FormKind.XML: _xml, FormKind.YAML: _yaml, FormKind.CSV: _csv}


@cache
def _frames() -> dict[str, str]:
    return tomllib.loads(_SENTENCES.read_text("utf-8"))
