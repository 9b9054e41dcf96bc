"""The report of a run: sections of tables as one Markdown page and as one self-contained HTML page."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
from matplotlib.figure import Figure

from training.evaluation.outcomes import RunSettings

SummaryT = TypeVar("SummaryT", bound=msgspec.Struct)

Table = Sequence[Sequence[str]]
"""The first row is the head."""
Section = tuple[str, Table]
"""Heading and table."""


class Pages(msgspec.Struct, Generic[SummaryT], frozen=True, kw_only=True):
    """The pages written, and the numbers in them."""

    markdown: Path
    html: Path
    summary: SummaryT


def write_pages(
    folder: Path,
    title: str,
    sections: Sequence[Section],
    images: Sequence[str],
    summary: SummaryT,
    *,
    about: Sequence[str] = (),
    captions: Sequence[str] = (),
) -> Pages[SummaryT]:
    """Write report.md, report.html and summary.json.

    `images` are PNG in base64, see `png`; `about` are paragraphs below the title, `captions` those of the
    images, in order.
    """
    pages = Pages(markdown=folder / "report.md", html=folder / "report.html", summary=summary)
    pages.markdown.write_text(_markdown(title, sections, about), "utf-8")
    pages.html.write_text(_html(title, sections, images, about, captions), "utf-8")
    numbers = msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n"
    (folder / "summary.json").write_bytes(numbers)
    return pages


def settings_table(settings: RunSettings) -> Table:
    """The settings of a run, one a row."""
    rows = msgspec.to_builtins(settings)
    decider = rows.pop("decider")
    return [("setting", "value"), *((name, str(value)) for name, value in {**rows, **decider}.items())]


def png(figure: Figure) -> str:
    """The figure as PNG in base64."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return base64.b64encode(buffer.getvalue()).decode()


def _markdown(title: str, sections: Sequence[Section], about: Sequence[str]) -> str:
    lines = [f"# {title}\n", *(f"{paragraph}\n" for paragraph in about)]
    for heading, (head, *rows) in sections:
        lines.append(f"## {heading}\n")
        lines.append(_markdown_row(head))
        lines.append(_markdown_row(["---"] * len(head)))
        lines += [_markdown_row(row) for row in rows]
        lines.append("")
    return "\n".join(lines)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _html(
    title: str,
    sections: Sequence[Section],
    images: Sequence[str],
    about: Sequence[str],
    captions: Sequence[str],
) -> str:
    lines = [
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(title)}</title>",
        "<style>body{font:15px/1.5 system-ui;max-width:75rem;margin:2rem auto;padding:0 1rem}"
        "table{border-collapse:collapse;display:block;overflow-x:auto}img{max-width:100%}"
        "figure{margin:1.5rem 0}figcaption{color:#555}"
        "td,th{border-bottom:1px solid #ccc;padding:.2rem .8rem;text-align:left}</style>",
        f"<h1>{html.escape(title)}</h1>",
        *(f"<p>{html.escape(paragraph)}</p>" for paragraph in about),
    ]
    for position, (heading, (head, *rows)) in enumerate(sections):
        lines.append(f"<h2>{html.escape(heading)}</h2><table>{_html_row(head, 'th')}")
        lines += [_html_row(row, "td") for row in rows]
        lines.append("</table>")
        if position == 1:
            for image, caption in zip_longest(images, captions, fillvalue=""):
                lines.append(
                    f"<figure><img alt='{html.escape(caption or 'plots')}'"
                    f" src='data:image/png;base64,{image}'>"
                    f"<figcaption>{html.escape(caption)}</figcaption></figure>"
                )
    return "\n".join(lines)


def _html_row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"
