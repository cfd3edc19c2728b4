"""A model version: its files on disk, its predictions, its card, and the checks that a study passes first."""

from glioflow.bundle.format import (
    BESIDE,
    FORMAT,
    MODEL,
    SEAL,
    SURVIVAL,
    WEIGHTS,
    Bundle,
    Description,
    Origin,
    describe,
    digest,
    digest_of,
    load,
    read_description,
    save,
    with_stage,
)

__all__ = [
    "BESIDE",
    "FORMAT",
    "MODEL",
    "SEAL",
    "SURVIVAL",
    "WEIGHTS",
    "Bundle",
    "Description",
    "Origin",
    "describe",
    "digest",
    "digest_of",
    "load",
    "read_description",
    "save",
    "with_stage",
]
