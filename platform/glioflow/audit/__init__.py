"""The leakage audit: what would make a score better than it is, found in data and splits, and how much it would."""

from glioflow.audit.images import find_image_leaks
from glioflow.audit.inputs import find_filled_columns, find_input_leaks, find_preparation_leaks
from glioflow.audit.leaks import Leak, find_selection_leaks, find_shared_patients, find_split_leaks

__all__ = [
    "Leak",
    "find_filled_columns",
    "find_image_leaks",
    "find_input_leaks",
    "find_preparation_leaks",
    "find_selection_leaks",
    "find_shared_patients",
    "find_split_leaks",
]
