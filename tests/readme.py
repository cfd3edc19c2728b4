"""The commands and examples of README and `docs/`, and the test that each says it is run by."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = {path: path.read_text() for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
_MARKED = re.compile(r"<!-- run by (\S+) -->\n(?:```bash\n(.*?)```|(?!```)[^`]*`([^`\n]+)`)", re.DOTALL)
_PYTHON = re.compile(r"<!-- run by (\S+) -->\n```python\n(.*?)```", re.DOTALL)


def commands() -> dict[str, str]:
    """Return the block after each mark, or the first command in the text after it, by the test's id."""
    found = [match for text in PAGES.values() for match in _MARKED.findall(text)]
    assert len({test for test, _, _ in found}) == len(found), "two blocks name one test"
    return {test: block or inline for test, block, inline in found}


def python_examples(page: str) -> list[str]:
    """Return the Python blocks of a page, in order."""
    return [code for _, code in _PYTHON.findall((ROOT / page).read_text())]


def unmarked_blocks() -> list[str]:
    """Return the first line of each block of commands or Python that names no test."""
    blocks = [
        (page, before, first)
        for page, text in PAGES.items()
        for before, first in re.findall(r"(.*)\n```(?:bash|python)\n(.*)\n", text)
    ]
    return [f"{page.name}: {first}" for page, before, first in blocks if not before.startswith("<!-- run by ")]


def named_tests() -> set[str]:
    """Return the id of each test that some block names."""
    return {test for text in PAGES.values() for test in re.findall(r"<!-- run by (\S+) -->", text)}
