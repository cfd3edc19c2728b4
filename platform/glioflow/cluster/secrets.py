"""Transfer of the driver's secret variables to the workers, in a file in the home that only its user can read.

If the home is an object store, whose keys are among the secrets, the Ray cluster stores them instead, which asks
every client for its token.
"""

import hashlib
import json
import os

from glioflow import atomic
from glioflow.cluster.environment import (
    SECRETS_FILE,
    SECRETS_KEY,
    secret_environment,
    surroundings,
)
from glioflow.cluster.ray_internals import keep
from glioflow.cluster.storage import home, home_uri


def hand_over() -> dict[str, str]:
    """Return the variable that says where workers find the secrets; none without secrets.

    The file is written at once. It replaces one of the same user and environment, since secrets get renewed: an
    endpoint that outlives the command that deployed it gets the newest.

    Raises:
        UserError: If the file cannot be written; without secrets, none is.
    """
    secrets = secret_environment()
    if not secrets:
        return {}
    if home_uri() is not None:
        return {SECRETS_KEY: _name()}
    folder, content = home() / "secrets" / str(os.getuid()), json.dumps(secrets).encode()
    atomic.check_folder(folder, "'secrets' in GLIOFLOW_HOME")
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    file = folder / f"{_name()}.json"
    if not file.is_file() or file.read_bytes() != content:
        atomic.write_bytes(file, content, mode=0o600)
    return {SECRETS_FILE: str(file)}


def leave_with_cluster() -> None:
    """Store the secrets with the connected cluster, if the home is an object store."""
    if home_uri() is not None and (secrets := secret_environment()):
        keep(_name(), json.dumps(secrets).encode())


def _name() -> str:
    """Return a name that a user's drivers in the same environment share; it reveals no secret."""
    of = json.dumps([os.getuid(), sorted(surroundings().items())])
    return hashlib.blake2b(of.encode(), digest_size=16).hexdigest()
