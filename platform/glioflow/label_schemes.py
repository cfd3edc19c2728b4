"""What the numbers in the masks of public data sets mean, and the regions that are scored on each: the one table.

Sources are in `docs/data-sets.md`. Equal numbers mean other tissues in other sets, so no number means anything alone.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from glioflow.errors import UserError, option, unknown_name


@dataclass(frozen=True)
class LabelScheme:
    """The labels of one data set.

    Attributes:
        name: By which experiments and `cohort.yaml` call it.
        labels: Name of each label.
        regions: The labels of each region that is scored, in the order in which regions are decoded: a later one is
            written over an earlier one.
        decode: The label that is written for each region.
    """

    name: str
    labels: Mapping[int, str]
    regions: Mapping[str, tuple[int, ...]]
    decode: Mapping[str, int]

    @property
    def is_binary(self) -> bool:
        """Whether there is one label."""
        return len(self.labels) == 1


def _scheme(name: str, labels: Mapping[int, str], **regions: tuple[tuple[int, ...], int]) -> tuple[str, LabelScheme]:
    united = {key: values for key, (values, _) in regions.items()}
    decode = {key: label for key, (_, label) in regions.items()}
    return name, LabelScheme(name, MappingProxyType(dict(labels)), MappingProxyType(united), MappingProxyType(decode))


_AFTER_TREATMENT = {
    1: "non-enhancing tumor core",
    2: "surrounding FLAIR hyperintensity",
    3: "enhancing tumor",
    4: "resection cavity",
}
_AFTER = {"WT": ((1, 2, 3), 2), "TC": ((1, 3), 1), "ET": ((3,), 3), "RC": ((4,), 4)}
_TO_2023 = {"WT": ((1, 2, 3), 2), "TC": ((1, 3), 1), "ET": ((3,), 3)}

SCHEMES: Mapping[str, LabelScheme] = MappingProxyType(
    dict(
        [
            _scheme("tumor", {1: "tumor"}, tumor=((1,), 1)),
            # Necrosis comes back as non-enhancing tumor: no region of the scores tells them apart.
            _scheme(
                "brats-2013",
                {1: "necrosis", 2: "edema", 3: "non-enhancing tumor", 4: "enhancing tumor"},
                WT=((1, 2, 3, 4), 2),
                TC=((1, 3, 4), 3),
                ET=((4,), 4),
            ),
            _scheme(
                "brats-2021",
                {1: "necrotic core", 2: "edema", 4: "enhancing tumor"},
                WT=((1, 2, 4), 2),
                TC=((1, 4), 1),
                ET=((4,), 4),
            ),
            _scheme("brats-2023", {1: "necrotic core", 2: "edema", 3: "enhancing tumor"}, **_TO_2023),
            _scheme("brats-2023-ped", {1: "non-enhancing component", 2: "edema", 3: "enhancing tumor"}, **_TO_2023),
            _scheme("brats-2024-gli", _AFTER_TREATMENT, **_AFTER),
            _scheme(
                "brats-2024-ped",
                {1: "enhancing tumor", 2: "non-enhancing tumor", 3: "cystic component", 4: "edema"},
                WT=((1, 2, 3, 4), 4),
                TC=((1, 2, 3), 2),
                CC=((3,), 3),
                ET=((1,), 1),
            ),
            _scheme("brats-men-rt", {1: "gross tumor volume"}, tumor=((1,), 1)),
            _scheme(
                "decathlon",
                {1: "edema", 2: "non-enhancing tumor", 3: "enhancing tumor"},
                WT=((1, 2, 3), 1),
                TC=((2, 3), 2),
                ET=((3,), 3),
            ),
        ]
    )
)


def scheme_named(name: str) -> LabelScheme:
    """Return a scheme; raises `UserError` with the nearest name if there is none of this one."""
    if name not in SCHEMES:
        raise unknown_name("label scheme", name, SCHEMES)
    return SCHEMES[name]


def schemes_that_hold(labels: Collection[int], names: Iterable[str] = SCHEMES) -> list[str]:
    """Return which of the schemes have all of these labels, those with the fewest others first."""
    held = [name for name in names if set(labels) - {0} <= SCHEMES[name].labels.keys()]
    return sorted(held, key=lambda name: len(SCHEMES[name].labels))


def differ(one: str, other: str) -> bool:
    """Return whether a number that two schemes have means different tissues, which are in different regions."""
    first, second = SCHEMES[one], SCHEMES[other]
    return any(
        _regions_with(first, label) != _regions_with(second, label) for label in first.labels & second.labels.keys()
    )


def _regions_with(scheme: LabelScheme, label: int) -> set[str]:
    return {name for name, labels in scheme.regions.items() if label in labels}


def scheme_with(labels: Mapping[int, str]) -> LabelScheme | None:
    """Return the scheme with exactly these labels under these names; None where there is none."""

    def plain(named: Mapping[int, str]) -> dict[int, str]:
        return {value: name.lower().replace("tumour", "tumor") for value, name in named.items()}

    return next((scheme for scheme in SCHEMES.values() if plain(scheme.labels) == plain(labels)), None)


def one_scheme(names: Collection[str], origin: object) -> LabelScheme:
    """Return the only scheme that fits the names of files; raises `UserError` where several do."""
    if len(names) == 1:
        return SCHEMES[next(iter(names))]
    shown = "; ".join(f"{name}: {', '.join(f'{k} {v}' for k, v in SCHEMES[name].labels.items())}" for name in names)
    hint = f"write `scheme: NAME` into a file cohort.yaml beside the cases, or give {option('scheme')} ({shown})"
    raise UserError(
        f"the names of {origin} fit several label schemes, and one must be chosen", choices=names, hint=hint
    )
