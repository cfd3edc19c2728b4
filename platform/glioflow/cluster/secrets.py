"""What is secret of the driver's environment, on its way to the workers: a file in the home for its user alone."""

import json
import os
import uuid
from pathlib import Path

from glioflow import atomic
from glioflow.cluster.environment import SECRETS_FILE, secret_environment
from glioflow.cluster.storage import home


def hand_over() -> dict[str, str]:
    """Write what is secret to a file, and return the variable that names it; none where nothing is secret."""
    secrets = secret_environment()
    return {SECRETS_FILE: str(_file_of(secrets))} if secrets else {}


def _file_of(secrets: dict[str, str]) -> Path:
    folder, text = home() / "secrets" / str(os.getuid()), json.dumps(secrets)
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    for file in folder.glob("*.json"):  # it stays: an endpoint outlives the command that deployed it
        if file.read_text() == text:
            return file
    file = folder / f"{uuid.uuid4().hex}.json"
    atomic.write_bytes(file, text.encode(), mode=0o600)
    return file
