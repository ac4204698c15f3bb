"""Tables and sentences of what is reported, as text and as HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import fill

from gradiator_np._text import aligned

#: Characters in a line of prose.
WIDTH = 96


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a report.

    Attributes
    ----------
    title : str
    rows : sequence of sequence of str
        A table, its head first; empty for none.
    lines : sequence of str
        Sentences below it.
    """

    title: str
    rows: Sequence[Sequence[str]] = ()
    lines: Sequence[str] = ()


def as_text(sections: Iterable[Section]) -> str:
    """Sections one below the other."""
    parts = []
    for section in sections:
        lines = [fill(line, WIDTH, subsequent_indent="  ") for line in section.lines]
        table = ["  " + line.rstrip() for line in aligned(section.rows)] if section.rows else []
        parts.append("\n".join([section.title, *table, *lines]))
    return "\n\n".join(parts)


def as_html(sections: Iterable[Section]) -> str:
    """The same as tables and paragraphs, every word of it escaped."""
    parts = []
    for section in sections:
        parts.append(f"<h4>{escape(section.title)}</h4>")
        if section.rows:
            head, *rows = section.rows
            body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
            parts.append(
                f"<table><thead><tr>{_cells('th', head)}</tr></thead><tbody>{body}</tbody></table>"
            )
        parts += [f"<p>{escape(line)}</p>" for line in section.lines]
    return "<div>" + "\n".join(parts) + "</div>"


def _cells(tag: str, row: Sequence[str]) -> str:
    return "".join(f'<{tag} style="text-align: right">{escape(cell)}</{tag}>' for cell in row)
