"""README's commands, and the test that each says it is run by."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
_MARKED = re.compile(r"<!-- run by (\S+) -->\n(?:```bash\n(.*?)```|[^`]*`([^`\n]+)`)", re.DOTALL)


def commands() -> dict[str, str]:
    """Return the block after each mark, or the first command in the text after it, by the test's id."""
    return {test: block or inline for test, block, inline in _MARKED.findall(README)}
