"""The templates and the catalogue: all text translated, nothing that a strict policy refuses."""

from __future__ import annotations

import hashlib
import re
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest

import serac_gateway.console
from serac_gateway.console.languages import LANGUAGES, catalogue
from serac_gateway.console.pages import HTMX_FILE, STATIC_FILES, static_file

FOLDER = Path(serac_gateway.console.__file__).parent
TEMPLATES = sorted((FOLDER / "templates").glob("*.html"))
SPOKEN = ("alt", "aria-label", "placeholder", "title", "value")
"""Attributes that are read out or shown."""
NO_LANGUAGE = {"serac", "serac_gateway", "ms", "CSV", "NDJSON"}
"""Names and units."""
HTMX_SHA256 = "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717"
"""Of dist/htmx.min.js in the npm package htmx.org 2.0.11."""


class Texts(HTMLParser):
    """Collects what a template says by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self.attributes: list[tuple[str, str]] = []

    def handle_data(self, data: str) -> None:
        self.said.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = [(name, value or "") for name, value in attrs]
        self.attributes += given
        hidden = {("type", "hidden"), ("type", "checkbox")} & {*given} or tag in ("meta", "button", "option")
        self.said += [value for name, value in given if name in SPOKEN and not hidden]


def read(path: Path) -> Texts:
    """The template without the parts that are computed."""
    source = re.sub(
        r"\{% set \w+ %\}.*?\{% endset %\}|\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}",
        " ",
        path.read_text("utf-8"),
        flags=re.DOTALL,
    )
    texts = Texts()
    texts.feed(source)
    return texts


def test_every_language_has_the_same_texts_with_the_same_gaps() -> None:
    """None is left in English because it was forgotten."""
    first = catalogue(LANGUAGES[0])
    for language in LANGUAGES[1:]:
        other = catalogue(language)
        assert other.keys() == first.keys()
        for key, text in first.items():
            assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", other[key])), key


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_has_text_of_its_own(path: Path) -> None:
    """All that is read or read out comes from the catalogue."""
    words = re.findall(r"[^\W\d_]\w*", " ".join(read(path).said))
    assert [word for word in words if word not in NO_LANGUAGE] == []


def test_every_text_that_is_named_is_there_and_none_is_left_over() -> None:
    """Keys that are put together by a value have its group in the catalogue."""
    sources = [*TEMPLATES, *FOLDER.glob("*.py")]
    source = "\n".join(path.read_text("utf-8") for path in sources)
    texts = catalogue(LANGUAGES[0])
    named = set(re.findall(r"""\bt\(['"]([\w.]+)['"][),]""", source)) | set(
        re.findall(r'key="([\w.]+)"', source)
    )
    assert named - texts.keys() == set()
    groups = set(re.findall(r'name_of\("(\w+)"', source)) | {"hint", "kind", "state", "language", "confirm"}
    quoted = set(re.findall(r'"([a-z_]+\.[\w]+)"', source))
    made = {f"{key}_with_details" for key in quoted} | {key for key in texts if key.startswith("edits.done_")}
    made |= {f"try.{side}" for side in ("base", "routed")}
    unused = {
        key for key in texts if key not in named | quoted | made and key.partition(".")[0] not in groups
    }
    assert unused == {"yes", "no"} - named


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_no_template_needs_a_script_or_style_within_the_page(path: Path) -> None:
    """What htmx would evaluate fails open under the policy; text of others is never marked as safe."""
    source = path.read_text("utf-8")
    for name, value in read(path).attributes:
        assert not name.startswith(("on", "hx-on")), name
        assert name not in ("style", "hx-vals", "hx-headers", "hx-request"), name
        assert not value.strip().lower().startswith(("javascript:", "js:")), value
        if name == "hx-trigger":
            assert "[" not in value
    assert not re.search(r"\|\s*safe\b|autoescape|<style|<script>", source)
    assert "http://" not in source.replace('startswith("http://")', "").replace("http://www.w3.org", "")


def test_htmx_is_the_file_of_its_release() -> None:
    """Nobody has changed what is in every page."""
    assert HTMX_FILE == "htmx-2.0.11.min.js"
    assert hashlib.sha256(static_file(HTMX_FILE)).hexdigest() == HTMX_SHA256


def test_every_static_file_is_served_and_loads_nothing_from_elsewhere() -> None:
    """There is no file that pages do not name."""
    folder = resources.files("serac_gateway.console") / "static"
    assert {file.name for file in folder.iterdir()} == STATIC_FILES.keys()
    for name in ("console.css", "console.js", "icon.svg"):
        assert b"://" not in static_file(name).replace(b"http://www.w3.org", b"")
        assert b"@import" not in static_file(name)
