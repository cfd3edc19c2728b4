"""The code and environment of a run: a hash of the package's source, git commit and diff, installed versions."""

import getpass
import hashlib
import importlib.metadata
import platform
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from glioflow.cluster.logins import without_password

PACKAGE = Path(__file__).parent.parent
_MAX_DIFF = 1_000_000
ENVIRONMENT = "environment.txt"


@dataclass(frozen=True)
class SourceState:
    """The code's identity as MLflow tags, and the uncommitted changes."""

    tags: dict[str, str]
    diff: str


@cache
def source_state() -> SourceState:
    """Return the state of the source this process runs."""
    tags = {"glioflow.source": source_digest()}
    commit = _git("rev-parse", "HEAD").strip()
    if not commit:
        return SourceState(tags, "")
    diff = _git("diff", "HEAD")
    if len(diff) > _MAX_DIFF:
        diff = f"The diff has {len(diff)} characters: too long to keep.\n"
    tags |= {"mlflow.source.git.commit": commit, "glioflow.dirty": str(bool(diff)).lower()}
    return SourceState(tags, diff)


@cache
def environment() -> str:
    """Return the machine, Python and every installed package with its version, a line each, sorted."""
    packages = {f"{each.name.lower()}=={each.version}" for each in importlib.metadata.distributions() if each.name}
    return "\n".join([f"# {platform.platform()}, Python {platform.python_version()}", *sorted(packages)]) + "\n"


def source_digest() -> str:
    """Return a digest over every Python file of the package."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.relative_to(PACKAGE).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _git(*words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(PACKAGE), *words], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def command() -> str:
    """Return the arguments of this process's command line without passwords; none in a Ray worker: they are Ray's."""
    if Path(sys.argv[0]).name == "default_worker.py":
        return ""
    return without_password(" ".join(sys.argv[1:]))[:500]


def who() -> str:
    """Return the name of this process's user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"
