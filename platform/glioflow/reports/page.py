"""A report as one self-contained HTML file; every text in it is escaped."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Drawing:
    """A figure of a report.

    Attributes:
        name: Name of its PNG file, without the suffix.
        png: Its bytes.
        caption: Caption of one or two sentences.
        wide: Whether it takes the whole width.
    """

    name: str
    png: bytes
    caption: str
    wide: bool = False

    @property
    def uri(self) -> str:
        """The picture as a data URI."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


@dataclass(frozen=True)
class Section:
    """A section of a report: text, figures, a table."""

    title: str
    text: str = ""
    drawings: Sequence[Drawing] = ()
    head: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = field(default=())


def render_page(title: str, subtitle: str, facts: Mapping[str, str], sections: Sequence[Section]) -> str:
    """Return a report as HTML.

    Args:
        title: Title of the page.
        subtitle: One line below it.
        facts: The most important figures by name, shown large.
        sections: Sections in order; empty ones are left out.
    """
    shown = [section for section in sections if section.text or section.drawings or section.rows]
    return render(Path(__file__).with_name("page.html"), title=title, subtitle=subtitle, facts=facts, sections=shown)


def render(template: Path, **values: object) -> str:
    """Render a Jinja template; in HTML (`NAME.html`) every text is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["table_cell"] = _table_cell
    return environment.get_template(template.name).render(values)


def _table_cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")
