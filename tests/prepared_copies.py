"""Copies of prepared cohorts whose arrays a test may change."""

import json
import shutil
from pathlib import Path


def changeable_copy(cohort: Path, folder: Path) -> Path:
    """Copy a prepared cohort as an earlier version left it, without digests of its files; return the copy."""
    shutil.copytree(cohort, folder)
    manifest = folder / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "cases": [{**case, "contents": {}} for case in content["cases"]]}))
    (folder / "index.sqlite").unlink()
    return folder
