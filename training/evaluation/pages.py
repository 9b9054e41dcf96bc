"""Sections of tables as one Markdown page and as one self-contained HTML page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import msgspec

Table = Sequence[Sequence[str]]
"""The first row is the head."""
Section = tuple[str, Table]
"""Heading and table."""


class Pages(msgspec.Struct, frozen=True, kw_only=True):
    """The pages written."""

    markdown: Path
    html: Path


def write_pages(
    folder: Path, title: str, sections: Sequence[Section], images: Sequence[str], summary: msgspec.Struct
) -> Pages:
    """Write report.md, report.html and summary.json; `images` are PNG in base64."""
    pages = Pages(markdown=folder / "report.md", html=folder / "report.html")
    pages.markdown.write_text(_markdown(title, sections), "utf-8")
    pages.html.write_text(_html(title, sections, images), "utf-8")
    numbers = msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n"
    (folder / "summary.json").write_bytes(numbers)
    return pages


def _markdown(title: str, sections: Sequence[Section]) -> str:
    parts = [f"# {title}\n"]
    for heading, (head, *rows) in sections:
        parts.append(f"## {heading}\n")
        parts.append(_markdown_row(head))
        parts.append(_markdown_row(["---"] * len(head)))
        parts += [_markdown_row(row) for row in rows]
        parts.append("")
    return "\n".join(parts)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _html(title: str, sections: Sequence[Section], images: Sequence[str]) -> str:
    parts = [
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>",
        "<style>body{font:15px/1.5 system-ui;max-width:75rem;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse}img{max-width:100%}"
        "td,th{border-bottom:1px solid #ccc;padding:.2rem .8rem;text-align:left}</style>",
        f"<h1>{html.escape(title)}</h1>",
    ]
    for position, (heading, (head, *rows)) in enumerate(sections):
        parts.append(f"<h2>{html.escape(heading)}</h2><table>{_html_row(head, 'th')}")
        parts += [_html_row(row, "td") for row in rows]
        parts.append("</table>")
        if position == 1:
            parts += [f"<p><img alt='plots' src='data:image/png;base64,{image}'></p>" for image in images]
    return "\n".join(parts)


def _html_row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
