"""The command line in this process, which saves the seconds that a process of its own needs to start."""

import contextlib
import io
import json
import re
import sys
from typing import Any

import pytest

from glioflow.cli import main


def answer_of(*words: str) -> tuple[int, Any]:
    """Run `glioflow WORDS --json`; return the exit code and the last line of its output, parsed."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as out:
        patch.setattr(sys, "argv", ["glioflow", *words, "--json"])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
    return code, json.loads(out.getvalue().splitlines()[-1])


def without_waits(stderr: str) -> list[str]:
    """Return the lines on stderr but those about what is waited for or counted, which a busy machine adds."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    waits = (": loading", " s so far)")
    return [line for line in lines if not line.endswith(waits) and not re.fullmatch(r"case \d+ of \d+", line)]
