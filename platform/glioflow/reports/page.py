"""A report as one HTML file that needs nothing beside it; every text in it is escaped."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Drawing:
    """A figure of a report.

    Attributes:
        name: Of its PNG file, without ending.
        png: Its bytes.
        caption: What it shows, one or two sentences.
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
    """A part of a report: some text, some drawings, a table."""

    title: str
    text: str = ""
    drawings: Sequence[Drawing] = ()
    head: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = field(default=())


def render_page(title: str, subtitle: str, facts: Mapping[str, str], sections: Sequence[Section]) -> str:
    """Return a report as HTML.

    Args:
        title: Of the page.
        subtitle: One line below it.
        facts: The most important figures by name, shown large.
        sections: In order; those without any content are left out.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = [section for section in sections if section.text or section.drawings or section.rows]
    return environment.get_template("page.html").render(title=title, subtitle=subtitle, facts=facts, sections=shown)
