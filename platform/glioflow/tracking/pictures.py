"""Pictures of a run's steps, in the form in which MLflow's page shows them with a slider.

`log_image` with key, step and timestamp is MLflow's public way, but it logs a picture again, under a new random name,
whenever it is called, and MLflow has no call that lists the pictures of a step. A writer that sends its spool a second
time must not show every picture twice, so this module knows how MLflow (3.17) names the files. A test fails as soon as
MLflow itself logs the same picture once.
"""

import re
from pathlib import Path
from typing import Any


def log_picture(client: Any, run_id: str, path: Path, *, key: str, step: int, when_ms: int) -> None:
    """Log a PNG through MLflow's `client` as the picture `key` of a step, unless that step has one."""
    import mlflow

    key = re.sub(r"[^A-Za-z0-9_\-./ ]", "-", key)  # other characters are refused
    if has_picture([entry.path for entry in client.list_artifacts(run_id, "images")], key, step):
        client.set_tag(run_id, "mlflow.loggedImages", True)  # log_image sets it last, and may have died before
    else:
        client.log_image(run_id, mlflow.Image(str(path)), key=key, step=step, timestamp=when_ms)


def has_picture(names: list[str], key: str, step: int) -> bool:
    """Return whether MLflow's image files of a run hold the whole picture `key` of a step, its small copy too."""
    start = f"images/{key.replace('/', '~')}+step+{step}+"
    return any(name.startswith(start) and name.endswith(".webp") for name in names)  # written after the full one
