"""`dataset.json`, in which nnU-Net and the Decathlon describe the channels and labels of their cohorts."""

import json
from collections.abc import Mapping
from pathlib import Path

from glioflow.data.formats.record import reason
from glioflow.errors import UserError
from glioflow.label_schemes import LabelScheme

IGNORE = "ignore"


def ignored_in(description: Mapping[str, object]) -> int | None:
    """Return nnU-Net's label for voxels that nobody annotated; None if there is none."""
    labels = description.get("labels")
    number = labels.get(IGNORE) if isinstance(labels, dict) else None
    return number if isinstance(number, int) else None


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
    """Return the `dataset.json` that applies to a file, in its folder or the one above, if any."""
    return [path for folder in (file.parent, file.parent.parent) if (path := folder / "dataset.json").is_file()][:1]


def stacked_names(description: Mapping[str, object]) -> list[str]:
    """Return the channels that `dataset.json` numbers 0, 1 and so on, in lower case, if any."""
    known = description.get("channel_names") or description.get("modality")
    if not isinstance(known, dict) or {str(key) for key in known} != {str(k) for k in range(len(known))}:
        return []
    return [str(known[str(k)]).lower() for k in range(len(known))]


def labels_in(description: Mapping[str, object]) -> dict[int, str]:
    """Return the labels that `dataset.json` names, in its new or old order; without it, the only label is tumor.

    A label in several of nnU-Net's regions, such as `"whole tumor": [1, 2, 3]`, gets the name of the smallest region.
    nnU-Net's label `ignore`, for voxels that nobody annotated, is none.
    """
    labels = description.get("labels")
    named: dict[int, tuple[int, str]] = {}
    for key, value in labels.items() if isinstance(labels, dict) else ():
        if key == IGNORE:
            continue
        numbers, name = ([key], value) if str(key).isdigit() else (value if isinstance(value, list) else [value], key)
        for number in (int(each) for each in numbers if str(each).isdigit() and 0 < int(each) < 256):
            named[number] = min(named.get(number, (256, "")), (len(numbers), str(name)), key=lambda pair: pair[0])
    return {number: name for number, (_, name) in sorted(named.items())} or {1: "tumor"}


def regions_in(description: Mapping[str, object]) -> LabelScheme | None:
    """Return nnU-Net's regions in the order in which they are decoded; None unless `dataset.json` has complete ones.

    Source: nnU-Net's `documentation/region_based_training.md`.
    """
    labels, order = description.get("labels"), description.get("regions_class_order")
    if not isinstance(labels, dict) or not isinstance(order, list):
        return None
    united = {str(name): tuple(value) if isinstance(value, list) else (value,) for name, value in labels.items()}
    regions = {name: values for name, values in united.items() if values != (0,) and name != IGNORE}
    numbers = {value for values in regions.values() for value in values}
    if len(order) != len(regions) or not numbers == set(order) == labels_in(description).keys():
        return None
    return LabelScheme("dataset.json", labels_in(description), regions, dict(zip(regions, order, strict=True)))
