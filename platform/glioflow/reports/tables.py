"""Small tables of results, as a terminal or a notebook shows them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from glioflow.reports.numbers import short


@dataclass(frozen=True)
class Table:
    """A table; its title may be empty, and so may its head if no column has a name.

    Without rows, only the title is shown, as a sentence.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]


def cell_text(value: object) -> str:
    """Return a value as a table cell: a number with four digits, `-` for None, lists and mappings as JSON."""
    return json.dumps(value) if isinstance(value, dict | list) else short(value)


def tables_to_html(tables: Sequence[Table], notes: Sequence[str] = ()) -> str:
    """Return tables, with remarks below, as HTML for a notebook; every text is escaped."""
    parts = [
        _table(table) if table.rows else f"<p>{escape(table.title)}</p>"
        for table in tables
        if table.rows or table.title
    ]
    parts += [f"<p>{escape(note)}</p>" for note in notes]
    return f'<div style="overflow-x:auto">{"".join(parts)}</div>'


def _table(table: Table) -> str:
    caption = f'<caption style="text-align:left;font-weight:600">{escape(table.title)}</caption>' if table.title else ""
    head = "".join(f"<th>{escape(name)}</th>" for name in table.head) if any(table.head) else ""
    rows = ("".join(f"<td>{escape(cell_text(value))}</td>" for value in row) for row in table.rows)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table>{caption}{f'<thead><tr>{head}</tr></thead>' if head else ''}<tbody>{body}</tbody></table>"
