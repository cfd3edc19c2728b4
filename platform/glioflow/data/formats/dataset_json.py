"""`dataset.json`, in which nnU-Net and the Decathlon say what the channels and labels of their cohorts are."""

import json
from collections.abc import Mapping
from pathlib import Path

from glioflow.data.formats.record import reason
from glioflow.errors import UserError


def read_description(file: Path) -> Mapping[str, object]:
    """Return nnU-Net's `dataset.json` from the file's folder or the one above; empty if there is none."""
    for path in description_files(file):
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError("the file must be valid JSON", reason(error), file=path) from error
        return value if isinstance(value, dict) else {}
    return {}


def description_files(file: Path) -> list[Path]:
    """Return the `dataset.json` that holds for a file: in its folder or the one above; none or one."""
    return [path for folder in (file.parent, file.parent.parent) if (path := folder / "dataset.json").is_file()][:1]


def labels_in(description: Mapping[str, object]) -> dict[int, str]:
    """Return the labels that `dataset.json` names, in its new or old order; without it there is one, tumor."""
    labels = description.get("labels")
    named: dict[int, str] = {}
    for key, value in labels.items() if isinstance(labels, dict) else ():
        number, name = (key, value) if str(key).isdigit() else (value, key)
        if str(number).isdigit() and 0 < int(number) < 256:
            named[int(number)] = str(name)
    return named or {1: "tumor"}
