"""Check, before any work begins, that every node of a cluster sees the driver's home."""

import uuid

from glioflow import atomic
from glioflow.cluster.environment import silence
from glioflow.cluster.remote_home import read_shared, withdraw, write_shared
from glioflow.cluster.storage import home, home_uri
from glioflow.cluster.tasks import on_each_node
from glioflow.errors import UserError

_ANSWER_S = 300.0


def check_same_home() -> None:
    """Refuse a cluster in which a node cannot find in the home what this process writes there.

    Raises:
        UserError: With the nodes' addresses and what each of them found.
    """
    word = uuid.uuid4().hex
    probe = home() / f".probe-{word}"
    if home_uri() is None:
        atomic.write_text(probe, word)
    else:
        write_shared(probe, word.encode())
    try:
        answers = on_each_node(_read, probe.name, within_s=_ANSWER_S)
    finally:
        probe.unlink(missing_ok=True)
        withdraw(probe)
    blind = {node: answer for node, answer in answers.items() if answer != word}
    if blind:
        node, answer = next(iter(blind.items()))
        rule = f"every node must see the same GLIOFLOW_HOME, and {len(blind)} of {len(answers)} do not"
        hint = "mount one folder at this path on every node, or give an object store such as s3://bucket/glioflow"
        if home_uri() is not None:
            hint = "let every node reach the store, with its credentials"
        raise UserError(rule, f"node {node}: {answer}", hint=hint)


def _read(name: str) -> str:
    silence()
    try:
        probe = home() / name
        return (read_shared(probe).decode() if home_uri() is not None else probe.read_text()) or "an empty file"
    except Exception as error:  # reported to the user
        return f"{type(error).__name__}: {error}"[:200]
