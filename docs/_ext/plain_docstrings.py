"""Docstrings here are plain text with `code` in single backticks; reStructuredText reads them after this."""

import re
from typing import Any

_CODE = re.compile(r"(``[^`]+``|`[^`]+`)")
_MARKUP = re.compile(r"(?<!\\)([*|]|(?<=\w)_(?!\w))")


def _plain(line: str) -> str:
    parts = _CODE.split(line)
    return "".join(_quoted(part) if number % 2 else _MARKUP.sub(r"\\\1", part) for number, part in enumerate(parts))


def _quoted(code: str) -> str:
    return code if code.startswith("``") else f"`{code}`"


def _process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    text = "\n".join(lines)
    if ".. " in text or ("::" in text and "\n\n    " in text):  # written in reStructuredText
        return
    lines[:] = [_plain(line) for line in lines]


def setup(app: Any) -> dict[str, bool]:
    """Convert before napoleon (priority 500) does."""
    app.connect("autodoc-process-docstring", _process, priority=400)
    return {"parallel_read_safe": True}
