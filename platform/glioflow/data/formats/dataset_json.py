"""`dataset.json`, in which nnU-Net and the Decathlon describe the channels and labels of their cohorts."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glioflow.data.formats.record import reason
from glioflow.errors import UserError
from glioflow.label_schemes import LabelScheme
from glioflow.text_files import read_text

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
            value = json.loads(read_text(path))
        except UserError:
            raise
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
    """Return nnU-Net's regions in the order in which they are decoded; None unless `dataset.json` has usable ones.

    A region is written as one of its labels; other labels of it need no region of their own.
    Source: nnU-Net's `documentation/region_based_training.md`.
    """
    regions, decode = _united(description), description.get("regions_class_order")
    if not regions or not isinstance(decode, list) or _flaw(regions, decode):
        return None
    return LabelScheme("dataset.json", labels_in(description), regions, dict(zip(regions, decode, strict=True)))


def note_regions(description: Mapping[str, object]) -> tuple[str, ...]:
    """Return the sentence that says why regions of `dataset.json` are not used, if it has such regions."""
    regions = _united(description)
    flaw = _flaw(regions, description.get("regions_class_order"))
    several = any(len(values) > 1 for values in regions.values())
    return (f"the regions in dataset.json are not used, only its labels: {flaw}",) if several and flaw else ()


def _united(description: Mapping[str, object]) -> dict[str, tuple[Any, ...]]:
    """Return the labels that each name unites in the new order of `dataset.json`, without those that are no tissue."""
    labels = description.get("labels")
    united = {
        str(name): tuple(value) if isinstance(value, list) else (value,)
        for name, value in (labels.items() if isinstance(labels, dict) else ())
    }
    return {name: values for name, values in united.items() if values != (0,) and name != IGNORE}


def _flaw(regions: Mapping[str, Sequence[Any]], decode: object) -> str:
    """Return why regions cannot be decoded; empty if they can."""
    if not all(type(value) is int and 0 < value < 256 for values in regions.values() for value in values):
        return "their labels must be numbers from 1 to 255"
    if not isinstance(decode, list):
        return "regions_class_order must list a label for each region, in the order in which they are written"
    if len(decode) != len(regions):
        return f"regions_class_order must list a label for each of {len(regions)} regions, and lists {len(decode)}"
    wrong = next((pair for pair in zip(regions, decode, strict=True) if pair[1] not in regions[pair[0]]), None)
    return f"regions_class_order writes {wrong[0]} as {wrong[1]}, which is none of its labels" if wrong else ""
